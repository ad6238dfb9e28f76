//! Nodes that come and go all the time sit out for ever longer.
//!
//! Every loss of a member costs the others an attempt. A peer that has been lost several times within some budgets is
//! therefore left out of rounds when it comes back, first for one budget, then for two, four, … up to 64. Each node
//! judges by what it has seen; the one that proposes applies it, and tells the node that sits out why.
//!
//! Nobody sits out where the others would wait for it: a node that waits for enough others instead of going on without
//! rounds would rather have an attempt fail now and then than none at all, so it readmits the peer that has to sit out
//! for the shortest time, and the next, until there are enough.

use crate::cluster::budget::Budget;
use crate::time::{Duration, Instant};

/// The longest time to sit out, in budgets: 2 to the power of this.
const LONGEST: u32 = 6;

/// When a peer counts as flapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Quarantine {
    /// How many losses make a peer flap, at least 1.
    pub losses: u32,
    /// Losses more than this many budgets apart have nothing to do with each other.
    pub within: u32,
}

impl Quarantine {
    /// Peers that have been lost `losses` times, never more than 16 budgets apart.
    pub const fn after(losses: u32) -> Self {
        Self { losses, within: 16 }
    }
}

/// The losses of one peer.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Losses {
    pub(crate) count: u32,
    last: Option<Instant>,
}

impl Losses {
    /// Takes note of a loss.
    pub(crate) fn note(&mut self, now: Instant, budget: Budget, rule: Quarantine) {
        let apart = self.last.map_or(Duration::ZERO, |last| now.since(last));
        if apart > budget.total().saturating_mul(rule.within) {
            self.count = 0;
        }
        self.count += 1;
        self.last = Some(now);
    }

    /// How long a peer with these losses sits out when it comes back.
    pub(crate) fn cool_down(&self, budget: Budget, rule: Quarantine) -> Option<Duration> {
        let beyond = self.count.checked_sub(rule.losses.max(1))?;
        Some(budget.total() * (1 << beyond.min(LONGEST)))
    }
}
