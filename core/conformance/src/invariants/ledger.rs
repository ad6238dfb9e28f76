//! The values of a run, as far as they are small enough to be kept.

use kronfleet_core::cluster::{Contribution, Digest};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::transport::NodeId;
use std::collections::{BTreeMap, VecDeque};

/// Values in one contribution up to which it is kept.
const SMALL: usize = 1 << 18;

/// How many contributions of one node are kept: an average is formed of each node's newest.
const RECENT: usize = 8;

/// The segments of a contribution or an average.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    /// For each segment what it counts and what it holds.
    pub segments: Vec<(f64, Vec<f64>)>,
}

/// What was contributed, and what nodes hold.
#[derive(Debug, Default)]
pub struct Ledger {
    contributions: BTreeMap<(NodeId, Digest), Vec<Values>>,
    /// The digests kept of each node, oldest first.
    recent: BTreeMap<NodeId, VecDeque<Digest>>,
    states: BTreeMap<NodeId, (Digest, Option<Values>)>,
    /// Who has contributed, and whether ever a value that was not finite.
    finite: BTreeMap<NodeId, bool>,
}

impl Ledger {
    pub(super) fn contribution<S: Scalar>(&mut self, node: NodeId, contribution: &Contribution<S>) {
        let counted = contribution.segments().iter().filter(|segment| segment.weight > 0.0);
        let finite = counted.flat_map(|segment| &segment.values).all(|value| value.is_finite());
        *self.finite.entry(node).or_insert(true) &= finite;
        if let Some(values) = keep(contribution) {
            let digest = contribution.digest();
            let recent = self.recent.entry(node).or_default();
            recent.retain(|&other| other != digest);
            recent.push_back(digest);
            if recent.len() > RECENT
                && let Some(oldest) = recent.pop_front()
            {
                self.contributions.remove(&(node, oldest));
            }
            let kept = self.contributions.entry((node, digest)).or_default();
            if !kept.contains(&values) {
                kept.push(values);
            }
        }
    }

    pub(super) fn state<S: Scalar>(&mut self, node: NodeId, state: &Contribution<S>) {
        self.states.insert(node, (state.digest(), keep(state)));
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.states.remove(&node);
    }

    /// What `node` contributed under this digest with these weights, if it was kept; one that had missed rounds may
    /// count less, by a factor of `missed + 1`.
    ///
    /// # Errors
    /// If values of this digest were kept, but never with these weights.
    pub fn find(&self, node: NodeId, digest: Digest, weights: &[f64], missed: u64) -> Result<Option<&Values>, String> {
        let Some(kept) = self.contributions.get(&(node, digest)) else {
            return Ok(None);
        };
        let same = |values: &&Values| {
            let announced = values.segments.iter().map(|segment| segment.0);
            let discounted = announced.clone().map(|weight| weight / (missed as f64 + 1.0));
            announced.eq(weights.iter().copied()) || discounted.eq(weights.iter().copied())
        };
        let found = kept.iter().find(same);
        found.map(Some).ok_or_else(|| format!("{node} never contributed {digest} with weights {weights:?}"))
    }

    /// Whether all that `node` contributed was finite, as far as it was shown; `None` if nothing was.
    pub fn finite(&self, node: NodeId) -> Option<bool> {
        self.finite.get(&node).copied()
    }

    /// The digest of what `node` holds, and the values if they were kept.
    pub fn held(&self, node: NodeId) -> Option<(Digest, Option<&Values>)> {
        self.states.get(&node).map(|(digest, values)| (*digest, values.as_ref()))
    }
}

fn keep<S: Scalar>(contribution: &Contribution<S>) -> Option<Values> {
    if contribution.values() > SMALL {
        return None;
    }
    let segments = contribution.segments().iter();
    let segments = segments.map(|segment| (segment.weight, segment.values.iter().map(|value| value.wide()).collect()));
    Some(Values { segments: segments.collect() })
}
