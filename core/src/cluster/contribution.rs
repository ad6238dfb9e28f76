//! What a node brings into a round, and what comes out of it.

use crate::cluster::digest::{Digest, Digester};
use crate::scalar::Scalar;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// Named values that are averaged together, and what they count.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Segment<S> {
    /// What the values are, the same on every node; it does not travel.
    pub name: String,
    /// The values `x`.
    pub values: Vec<S>,
    /// What they count: `w ≥ 0` of the node in a contribution, `Σ w` of the contributors in an average.
    ///
    /// In an average, 0 says that nobody contributed: the values mean nothing and the old ones stay.
    pub weight: f64,
}

/// A node's values for one round, in host memory: segments that are averaged each with its own weights.
///
/// All nodes of a run have the same segments in the same order: weights first, then whatever the policy
/// asks for (batch statistics, factors, optimiser state).
///
/// ```
/// use kronfleet_core::cluster::Contribution;
/// let mut contribution = Contribution::<f32>::default();
/// contribution.segment("weights", 2, 1.0).copy_from_slice(&[0.5, -0.5]);
/// contribution.segment("factor/0/a", 1, 0.0);
/// assert_eq!(contribution.segments().len(), 2);
/// assert_eq!(contribution.find("weights").unwrap().values, [0.5, -0.5]);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Contribution<S> {
    /// How many training iterations the values have behind them.
    pub iteration: u64,
    segments: Vec<Segment<S>>,
    used: usize,
}

impl<S> Contribution<S> {
    /// The segments, in order.
    pub fn segments(&self) -> &[Segment<S>] {
        &self.segments[..self.used]
    }
}

impl<S> Contribution<S> {
    /// One segment of these values.
    pub(crate) fn of(name: &str, values: Vec<S>, weight: f64) -> Self {
        Self { iteration: 0, segments: vec![Segment { name: String::from(name), values, weight }], used: 1 }
    }

    /// The values of its first segment.
    pub(crate) fn into_values(self) -> Vec<S> {
        self.segments.into_iter().next().map_or_else(Vec::new, |segment| segment.values)
    }
}

impl<S: Scalar> Contribution<S> {
    /// Forgets all segments but keeps their memory for the next ones.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// Adds a segment of `len` values that count `weight`, and gives its values to be filled in.
    ///
    /// Their content is unspecified; after [`clear`](Self::clear), memory of the same shape is used again.
    ///
    /// # Panics
    /// If `weight` is negative or not finite.
    #[track_caller]
    pub fn segment(&mut self, name: &str, len: usize, weight: f64) -> &mut [S] {
        assert!(weight >= 0.0 && weight.is_finite(), "segment {name} has weight {weight}");
        if self.used == self.segments.len() {
            self.segments.push(Segment { name: String::new(), values: Vec::new(), weight: 0.0 });
        }
        let segment = &mut self.segments[self.used];
        self.used += 1;
        if segment.name != name {
            segment.name.clear();
            segment.name.push_str(name);
        }
        segment.values.resize(len, S::zero());
        segment.weight = weight;
        &mut segment.values
    }

    /// The segments, in order, to be changed.
    pub fn segments_mut(&mut self) -> &mut [Segment<S>] {
        &mut self.segments[..self.used]
    }

    /// The segment called `name`.
    pub fn find(&self, name: &str) -> Option<&Segment<S>> {
        self.segments().iter().find(|segment| segment.name == name)
    }

    /// Whether its segments are called the same as those of `other`.
    pub(crate) fn is_named_like(&self, other: &Self) -> bool {
        self.segments().iter().map(|segment| &segment.name).eq(other.segments().iter().map(|segment| &segment.name))
    }

    /// The same, its segments called as those of `other` in their order.
    pub(crate) fn named_like(&self, other: &Self) -> Self {
        let mut named = self.clone();
        for (segment, other) in named.segments_mut().iter_mut().zip(other.segments()) {
            segment.name.clone_from(&other.name);
        }
        named
    }

    /// How many values there are in all segments together.
    pub fn values(&self) -> usize {
        self.segments().iter().map(|segment| segment.values.len()).sum()
    }

    /// The digest of the values of all segments that count something.
    ///
    /// Segments of weight 0 are left out: in an average, their values differ between nodes.
    pub fn digest(&self) -> Digest {
        let mut digester = Digester::new();
        for segment in self.segments().iter().filter(|segment| segment.weight > 0.0) {
            digester.update_values(&segment.values);
        }
        digester.finish()
    }
}
