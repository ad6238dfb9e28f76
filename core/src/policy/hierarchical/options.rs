//! The knobs of hierarchical averaging.

use super::{CycleOptions, Merge};
use crate::collective::Encoding;
use crate::policy::{Rejoin, Request};
use crate::time::Duration;
use crate::transport::NodeId;
use alloc::vec::Vec;

/// The knobs of a [`Hierarchical`](super::Hierarchical) policy.
#[derive(Clone, Debug, PartialEq)]
pub struct HierarchicalOptions {
    /// Who is in which site; every node in exactly one.
    pub sites: Vec<Vec<NodeId>>,
    /// When sites exchange.
    pub cycle: CycleOptions,
    /// What becomes of models when a mean arrives.
    pub merge: Merge,
    /// How long what was not waited for may be waited for in the end; less than the time budget.
    pub patience: Duration,
    /// How models stand on the wire between sites; published is [`Encoding::Bf16`].
    pub encoding: Encoding,
    /// What a contribution consists of.
    pub request: Request,
    /// How a node that was away comes back.
    pub rejoin: Rejoin,
}

impl HierarchicalOptions {
    /// With the published schedule and merge, and waits of at most 25 ms.
    pub fn new(sites: Vec<Vec<NodeId>>, epoch: u64) -> Self {
        Self {
            sites,
            cycle: CycleOptions::new(epoch),
            merge: Merge::default(),
            patience: Duration::from_millis(25),
            encoding: Encoding::Full,
            request: Request::default(),
            rejoin: Rejoin::FullWeight,
        }
    }
}
