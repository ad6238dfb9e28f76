//! One time budget, from which every timeout of a node is derived.
//!
//! The user says how long a lost node may stall the others; nothing else is tuned. [`Budget`]'s `Display`
//! prints all derived values, so that a log says what the node will do.

use crate::time::Duration;
use core::fmt;

/// How long a lost node may stall the others, and what follows from it.
///
/// A loss is noticed after at most [`down`](Self::down), or an attempt given up after at most
/// [`progress`](Self::progress) without progress; both are half the budget, and the survivors go on at once.
///
/// ```
/// use core::time::Duration;
/// use kronfleet_core::cluster::Budget;
/// let budget = Budget::new(Duration::from_secs(2)).unwrap();
/// assert_eq!(budget.down(), Duration::from_secs(1));
/// assert!(Budget::new(Duration::from_micros(1)).is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Budget(Duration);

impl Budget {
    /// The shortest budget: below it, timeouts would be shorter than what a computer's timers keep.
    pub const SHORTEST: Duration = Duration::from_millis(5);
    /// The longest budget: a longer one would hide a loss for a working day.
    pub const LONGEST: Duration = Duration::from_secs(3600);

    /// A budget of `total`.
    ///
    /// # Errors
    /// If `total` is not between [`SHORTEST`](Self::SHORTEST) and [`LONGEST`](Self::LONGEST).
    pub fn new(total: Duration) -> Result<Self, BudgetError> {
        if (Self::SHORTEST..=Self::LONGEST).contains(&total) { Ok(Self(total)) } else { Err(BudgetError { total }) }
    }

    /// The whole budget; also how long a node waits for a round before it goes on without one.
    pub fn total(&self) -> Duration {
        self.0
    }

    /// The longest silence towards a peer that is up: 1/20.
    pub fn heartbeat(&self) -> Duration {
        self.0 / 20
    }

    /// The longest silence before a peer is suspected: 1/4. The detector adapts below it.
    pub fn suspect(&self) -> Duration {
        self.0 / 4
    }

    /// The longest silence before a peer is down: 1/2. The detector adapts below it.
    pub fn down(&self) -> Duration {
        self.0 / 2
    }

    /// How long the proposer waits for slow nodes, from the first that is ready: 1/2.
    pub fn ready(&self) -> Duration {
        self.0 / 2
    }

    /// How long an attempt or a healing may stand still: 1/2.
    pub fn progress(&self) -> Duration {
        self.0 / 2
    }

    /// How often a member of an attempt tells the proposer of its progress: 1/8.
    pub fn report(&self) -> Duration {
        self.0 / 8
    }

    /// How long a member in doubt waits for answers: 1/4.
    pub fn inquiry(&self) -> Duration {
        self.0 / 4
    }

    /// How long frames that nobody has acknowledged wait at first: 1/16. It adapts to round-trip times.
    pub fn retransmit(&self) -> Duration {
        self.0 / 16
    }

    /// The longest wait before a frame is sent again, unless round trips take longer: 1/8.
    pub fn retransmit_longest(&self) -> Duration {
        self.0 / 8
    }

    /// How long what is sent may wait on its way behind what was sent before, where the line is full: 1/32.
    pub fn queueing(&self) -> Duration {
        self.0 / 32
    }

    /// How long a received frame may wait to be acknowledged: 1/128.
    pub fn acknowledge(&self) -> Duration {
        self.0 / 128
    }
}

impl Default for Budget {
    /// One second.
    fn default() -> Self {
        Self(Duration::from_secs(1))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "budget {:?}: heartbeat {:?}, suspect within {:?}, down within {:?}, ready wait {:?}, \
             progress {:?}, report {:?}, inquiry {:?}, retransmit {:?} to {:?}, queueing {:?}, acknowledge {:?}",
            self.total(),
            self.heartbeat(),
            self.suspect(),
            self.down(),
            self.ready(),
            self.progress(),
            self.report(),
            self.inquiry(),
            self.retransmit(),
            self.retransmit_longest(),
            self.queueing(),
            self.acknowledge(),
        )
    }
}

/// A budget outside the range that can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetError {
    /// What was asked for.
    pub total: Duration,
}

impl fmt::Display for BudgetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a time budget of {:?} cannot be kept: choose one between {:?} and {:?}",
            self.total,
            Budget::SHORTEST,
            Budget::LONGEST
        )
    }
}

impl core::error::Error for BudgetError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn derived_values_are_consistent_and_printed() {
        let budget = Budget::new(Duration::from_secs(1)).unwrap();
        assert!(budget.acknowledge() < budget.retransmit());
        assert!(3 * budget.heartbeat() < budget.suspect());
        assert!(budget.suspect() < budget.down());
        assert_eq!(
            budget.to_string(),
            "budget 1s: heartbeat 50ms, suspect within 250ms, down within 500ms, ready wait 500ms, \
             progress 500ms, report 125ms, inquiry 250ms, retransmit 62.5ms to 125ms, queueing 31.25ms, acknowledge 7.8125ms"
        );
    }
}
