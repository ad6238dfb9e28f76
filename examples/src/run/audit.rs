//! Whether those who share a commit have the same weights afterwards, on whatever they compute.
//!
//! That results are equal the protocol sees to; what a device made of its own when it took them over, only who reads the
//! device knows.

use anyhow::{Result, anyhow};
use kronfleet_core::cluster::{CertificateId, Digest};
use kronfleet_core::transport::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The weights that commits have left on their members' devices, by their digests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Audit(BTreeMap<CertificateId, Digest>);

impl Audit {
    /// Compares what a node has after a commit with what the first member had that was looked at; whether there was one.
    ///
    /// # Errors
    /// Both digests, if they differ.
    pub(crate) fn compare(&mut self, node: NodeId, certificate: CertificateId, weights: Digest) -> Result<bool> {
        match self.0.entry(certificate) {
            Entry::Vacant(place) => {
                place.insert(weights);
                Ok(false)
            }
            Entry::Occupied(other) if *other.get() == weights => Ok(true),
            Entry::Occupied(other) => Err(anyhow!(
                "after commit {certificate} {node} has weights of digest {weights}, others {}: they have diverged",
                other.get()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kronfleet_core::cluster::Round;

    #[test]
    fn members_of_one_commit_are_compared_with_its_first() {
        let [first, second] = [1, 2].map(|value| CertificateId { round: Round(1), digest: Digest(value) });
        let mut audit = Audit::default();
        let mut compare = |node, commit, weights| audit.compare(NodeId(node), commit, Digest(weights)).ok();
        assert_eq!(
            [compare(0, first, 7), compare(1, first, 7), compare(0, second, 8)],
            [Some(false), Some(true), Some(false)]
        );
        // One that differs does not become what others are compared with.
        assert_eq!([compare(1, second, 7), compare(2, second, 8)], [None, Some(true)]);
        let error = audit.compare(NodeId(3), first, Digest(9)).expect_err("another").to_string();
        assert!(
            error.contains("n3") && error.contains("0000000000000009") && error.contains("0000000000000007"),
            "{error}"
        );
    }
}
