//! The safety invariants of a run, checked on what its nodes record.
//!
//! # For users
//! Give a [`Checker`] every node after it has acted ([`Checker::node`]), in the order in which things happened
//! (the simulator's observer sees them so), and what is contributed, if it is small enough to be kept. It
//! answers at the first broken invariant; [`finish`](Checker::finish) gives a [`Summary`].
//!
//! # For implementers
//! One file per invariant; each knows nothing of the others. An [`Invariant`] sees a record together with
//! the [`Ledger`] of values.

pub mod accounting;
pub mod agreement;
pub mod convexity;
pub mod departure;
pub mod exactness;
pub mod finiteness;
pub mod leaks;
pub mod ledger;
pub mod majority;
pub mod memory;
pub mod monotony;
pub mod ownership;
pub mod quarantine;
pub mod reproducibility;

use crate::violation::Violation;
use kronfleet_core::cluster::{Attempt, Contribution, Node, Occurrence, Record};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::transport::NodeId;
use ledger::Ledger;
use std::fmt;
use std::ops::AddAssign;

/// One thing that must always hold.
pub trait Invariant {
    /// Its name in violations.
    fn name(&self) -> &'static str;

    /// Takes note of a record.
    ///
    /// # Errors
    /// How the record breaks the invariant.
    fn observe(&mut self, record: &Record, ledger: &Ledger) -> Result<(), String>;

    /// Takes note that the run is over.
    ///
    /// # Errors
    /// How the run as a whole breaks the invariant.
    fn finish(&mut self, summary: &mut Summary) -> Result<(), String>;
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records that were checked.
    pub records: u64,
    /// Averages that were committed by somebody.
    pub commits: u64,
    /// Averages whose values were recomputed from their contributions, bit for bit.
    pub recomputed: u64,
    /// Averages that somebody committed and another member did not.
    pub partial: u64,
    /// Certificates with the same parent: histories that parted.
    pub forks: u64,
    /// Averages that merged parted histories.
    pub merges: u64,
    /// Attempts that were proposed and never committed.
    pub retried: u64,
    /// Nodes healed.
    pub healed: u64,
    /// Samples that some committed average counts.
    pub samples: u64,
    /// Samples reported lost.
    pub samples_lost: u64,
    /// Samples of finished nodes that wait for a commit that does not come any more.
    pub samples_uncommitted: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records: {} commits ({} recomputed, {} not by all members), {} retried, {} forks, {} merges, \
             {} healed; samples: {} counted, {} lost, {} uncommitted",
            self.records,
            self.commits,
            self.recomputed,
            self.partial,
            self.retried,
            self.forks,
            self.merges,
            self.healed,
            self.samples,
            self.samples_lost,
            self.samples_uncommitted
        )
    }
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.commits += other.commits;
        self.recomputed += other.recomputed;
        self.partial += other.partial;
        self.forks += other.forks;
        self.merges += other.merges;
        self.retried += other.retried;
        self.healed += other.healed;
        self.samples += other.samples;
        self.samples_lost += other.samples_lost;
        self.samples_uncommitted += other.samples_uncommitted;
    }
}

/// Checks all invariants of a run.
///
/// With the feature `serde` it can be saved and gone on with; what was contributed is then forgotten, and has to be
/// shown to it again where no average was made of it yet ([`resume`](Self::resume)).
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Checker {
    invariants: Invariants,
    #[cfg_attr(feature = "serde", serde(skip))]
    ledger: Ledger,
    #[cfg_attr(feature = "serde", serde(skip))]
    replay: String,
    #[cfg_attr(feature = "serde", serde(skip))]
    broken: Option<Violation>,
    ownership: ownership::Ownership,
    records: u64,
}

#[derive(Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Invariants {
    agreement: agreement::Agreement,
    majority: majority::Majority,
    exactness: exactness::Exactness,
    convexity: convexity::Convexity,
    monotony: monotony::Monotony,
    finiteness: finiteness::Finiteness,
    accounting: accounting::Accounting,
    departure: departure::Departure,
    quarantine: quarantine::Quarantine,
}

impl Invariants {
    fn all(&mut self) -> [&mut dyn Invariant; 9] {
        let Self { agreement, majority, exactness, convexity, monotony, finiteness, accounting, departure, quarantine } =
            self;
        [agreement, majority, exactness, convexity, monotony, finiteness, accounting, departure, quarantine]
    }
}

impl Checker {
    /// A checker of a run that `replay` (a command, a seed) repeats; violations carry it.
    pub fn new(replay: impl Into<String>) -> Self {
        Self {
            invariants: Invariants::default(),
            ledger: Ledger::default(),
            replay: replay.into(),
            broken: None,
            ownership: ownership::Ownership::default(),
            records: 0,
        }
    }

    /// A saved checker that goes on with a run that `replay` repeats; every node of it is then to be shown to
    /// [`resumed`](Self::resumed).
    #[must_use]
    pub fn resume(self, replay: impl Into<String>) -> Self {
        Self { replay: replay.into(), ..self }
    }

    /// Takes note of a node as it goes on: of what it contributed and has no outcome yet.
    pub fn resumed<S: Scalar>(&mut self, node: &Node<S>) {
        if let Some(contribution) = node.contribution() {
            self.ledger.contribution(node.id(), contribution);
        }
    }

    /// Takes note of what `node` contributes; before the record that it is ready.
    ///
    /// Without it, averages of this contribution are compared by their digests only.
    pub fn contribution<S: Scalar>(&mut self, node: NodeId, contribution: &Contribution<S>) {
        self.ledger.contribution(node, contribution);
    }

    /// Takes all records out of `node`, with what it holds, and hands them to `each` as they are checked.
    ///
    /// # Errors
    /// The first violation of the run.
    pub fn node<S: Scalar>(&mut self, node: &mut Node<S>, mut each: impl FnMut(&Record)) -> Result<(), Violation> {
        let mut verdict = Ok(());
        while let Some(record) = node.poll_record() {
            each(&record);
            if let Occurrence::Committed { certificate } | Occurrence::Healed { certificate, .. } = &record.what {
                match node.last_state() {
                    Some(state) if node.last() == certificate.id() => self.state(record.node, &**state),
                    // Another state has replaced it since.
                    _ => self.ledger.forget(record.node),
                }
            }
            verdict = self.observe(&record);
        }
        verdict
    }

    /// Takes note that `node` sends others the average of a piece as its owner; see
    /// [`reduced_piece`](kronfleet_core::cluster::wire::reduced_piece).
    ///
    /// # Errors
    /// If another one did.
    pub fn owns(&mut self, attempt: Attempt, piece: u32, node: NodeId) -> Result<(), Violation> {
        let owned = self.ownership.owns(attempt, piece, node);
        owned.map_err(|what| Violation { law: ownership::Ownership::NAME, what })
    }

    /// Takes note of what `node` holds after a commit or a healing; before the record of it.
    pub fn state<S: Scalar>(&mut self, node: NodeId, state: &Contribution<S>) {
        self.ledger.state(node, state);
    }

    /// Takes note of a record.
    ///
    /// # Errors
    /// The first violation of the run.
    pub fn observe(&mut self, record: &Record) -> Result<(), Violation> {
        self.records += 1;
        for invariant in self.invariants.all() {
            if let Err(what) = invariant.observe(record, &self.ledger) {
                let what = format!("{what}\n  at: {record}");
                self.broken.get_or_insert(violation(invariant, what, &self.replay));
            }
        }
        if let Occurrence::Started = record.what {
            self.ledger.forget(record.node);
        }
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Ends the run.
    ///
    /// # Errors
    /// The first violation of the run.
    pub fn finish(mut self) -> Result<Summary, Violation> {
        let mut summary = Summary { records: self.records, ..Summary::default() };
        for invariant in self.invariants.all() {
            if let Err(what) = invariant.finish(&mut summary) {
                self.broken.get_or_insert(violation(invariant, what, &self.replay));
            }
        }
        self.broken.map_or(Ok(summary), Err)
    }
}

fn violation(invariant: &dyn Invariant, what: String, replay: &str) -> Violation {
    Violation { law: invariant.name(), what: format!("{what}\n  again: {replay}") }
}
