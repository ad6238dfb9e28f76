//! What a policy saves, in words.

use crate::scalar::Scalar;
use crate::transport::NodeId;
use alloc::vec::Vec;

/// Puts what is saved into words.
#[derive(Debug, Default)]
pub(crate) struct Words(pub(crate) Vec<u64>);

impl Words {
    pub(crate) fn optional<T>(&mut self, value: Option<&T>, put: impl FnOnce(&mut Self, &T)) {
        self.0.push(u64::from(value.is_some()));
        if let Some(value) = value {
            put(self, value);
        }
    }

    pub(crate) fn nodes(&mut self, nodes: &[NodeId]) {
        self.0.push(nodes.len() as u64);
        self.0.extend(nodes.iter().map(|node| u64::from(node.0)));
    }

    pub(crate) fn values<S: Scalar>(&mut self, values: &[S]) {
        self.0.push(values.len() as u64);
        self.0.extend(values.iter().map(|value| value.wide().to_bits()));
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.push(bytes.len() as u64);
        self.0.extend(bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        }));
    }
}

/// Takes saved words one by one; everything is `None` once they have ended too early.
#[derive(Debug)]
pub(crate) struct Saved<'a>(&'a [u64]);

impl<'a> Saved<'a> {
    pub(crate) fn new(words: &'a [u64]) -> Self {
        Self(words)
    }

    pub(crate) fn word(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// How many follow, each of which takes at least a word.
    pub(crate) fn count(&mut self) -> Option<usize> {
        usize::try_from(self.word()?).ok().filter(|&count| count <= self.0.len())
    }

    /// Nothing but 0 and 1 is a flag.
    pub(crate) fn flag(&mut self) -> Option<bool> {
        let word = self.word()?;
        (word <= 1).then_some(word == 1)
    }

    pub(crate) fn node(&mut self) -> Option<NodeId> {
        Some(NodeId(u32::try_from(self.word()?).ok()?))
    }

    pub(crate) fn nodes(&mut self) -> Option<Vec<NodeId>> {
        (0..self.count()?).map(|_| self.node()).collect()
    }

    /// A word that may be absent.
    pub(crate) fn optional(&mut self) -> Option<Option<u64>> {
        if self.flag()? { self.word().map(Some) } else { Some(None) }
    }

    pub(crate) fn values<S: Scalar>(&mut self) -> Option<Vec<S>> {
        let count = self.count()?;
        let (values, rest) = self.0.split_at(count);
        self.0 = rest;
        Some(values.iter().map(|&word| S::of(f64::from_bits(word))).collect())
    }

    pub(crate) fn bytes(&mut self) -> Option<Vec<u8>> {
        let len = usize::try_from(self.word()?).ok()?;
        let words = self.0.split_at_checked(len.div_ceil(8))?;
        self.0 = words.1;
        let mut bytes: Vec<u8> = words.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(len);
        Some(bytes)
    }
}
