//! Letters of one stage, beside what is in each of them.

use super::packed::Packed;
use crate::placement::{Letter, Letters, Route};
use alloc::vec::Vec;

/// Letters of one stage, the same on all members, and what of a buffer is in each of them; those that the member has no
/// part in have no values.
pub(in super::super) struct Bundle<S> {
    pub(super) letters: Letters<S>,
    pub(super) contents: Vec<Content>,
}

/// What a letter consists of: matrices, then eigenvalues.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) matrices: Vec<Packed>,
    pub(super) spectra: Vec<Packed>,
}

impl<S> Bundle<S> {
    pub(super) fn empty() -> Self {
        Self { letters: Vec::new(), contents: Vec::new() }
    }

    pub(super) fn add(&mut self, route: Route, values: Vec<S>, content: Content) {
        self.letters.push(Letter { route, values });
        self.contents.push(content);
    }

    /// Puts the letters of `other` behind these.
    pub(in super::super) fn append(&mut self, other: Self) {
        self.letters.extend(other.letters);
        self.contents.extend(other.contents);
    }

    /// Takes the first so many letters.
    pub(in super::super) fn split(&mut self, count: usize) -> Self {
        let rest = Self { letters: self.letters.split_off(count), contents: self.contents.split_off(count) };
        core::mem::replace(self, rest)
    }

    /// Takes the letters out, to be answered.
    pub(in super::super) fn send(&mut self) -> Letters<S> {
        core::mem::take(&mut self.letters)
    }

    /// The same with the letters that were answered.
    ///
    /// # Panics
    /// If they are not as many.
    #[track_caller]
    pub(in super::super) fn answered(self, letters: Letters<S>) -> Self {
        assert_eq!(letters.len(), self.contents.len(), "letters answered");
        Self { letters, ..self }
    }
}
