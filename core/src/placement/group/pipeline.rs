//! Exchanges that go on while their members compute.

use super::{Group, Running};
use crate::placement::{Letter, Letters, Route, Wire};
use crate::scalar::Scalar;
use crate::transport::TransportError;
use alloc::vec::Vec;

/// A [`Group`] whose means for everybody may be under way while the passes go on: it sends and receives whenever it is asked
/// to [`advance`](Wire::advance), and never by itself.
///
/// All members start the same letters in the same order. Sums are those of the group, to the bit.
pub struct Pipeline<S> {
    group: Group,
    letters: Letters<S>,
    parts: Vec<Running<S>>,
}

impl<S: Scalar> Pipeline<S> {
    /// The same group.
    pub fn new(group: Group) -> Self {
        Self { group, letters: Letters::new(), parts: Vec::new() }
    }

    /// Sends and receives what can be without waiting.
    fn go_on(&mut self) -> Result<(), TransportError> {
        let Self { group, parts, .. } = self;
        if parts.is_empty() {
            return Ok(());
        }
        group.pump(parts)?;
        let now = group.transport.now();
        while group.hear(parts, now)? {}
        group.pump(parts).map(|_| ())
    }

    /// Begins a part, which others may have begun before.
    fn begin(&mut self, values: Vec<S>) -> Result<(), TransportError> {
        let part = self.group.averaging(values)?;
        self.parts.push(part);
        self.group.take_early(&mut self.parts)
    }

    /// The group.
    pub fn group(&self) -> &Group {
        &self.group
    }
}

impl<S: Scalar> Wire<S> for Pipeline<S> {
    fn mean(&mut self, to: Option<usize>, values: &mut [S]) -> Result<(), TransportError> {
        self.group.mean(to, values)
    }

    fn broadcast(&mut self, from: usize, to: &[usize], values: &mut [S]) -> Result<(), TransportError> {
        self.group.broadcast(from, to, values)
    }

    fn start(&mut self, mut letter: Letter<S>) -> Result<Option<Letter<S>>, TransportError> {
        if letter.route != (Route::Mean { to: None }) {
            self.carry(&mut letter)?;
            return Ok(Some(letter));
        }
        let values = core::mem::take(&mut letter.values);
        self.begin(values).inspect_err(|_| self.give_up())?;
        self.letters.push(letter);
        self.advance().map(|()| None)
    }

    fn advance(&mut self) -> Result<(), TransportError> {
        self.go_on().inspect_err(|_| self.give_up())
    }

    fn settle(&mut self) -> Result<Letters<S>, TransportError> {
        let mut parts = core::mem::take(&mut self.parts);
        let mut letters = core::mem::take(&mut self.letters);
        self.group.run(&mut parts)?;
        letters.iter_mut().zip(parts).for_each(|(letter, part)| letter.values = part.result());
        Ok(letters)
    }

    fn give_up(&mut self) {
        self.parts.clear();
        self.letters.clear();
    }
}
