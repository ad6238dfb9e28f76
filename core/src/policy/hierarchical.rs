//! Averaging in two levels: sites of nodes that are close to each other, and slow lines between them.
//!
//! DASO, distributed asynchronous and selective optimisation (Coquelin et al. 2021, arXiv 2104.05588). Within a site nodes
//! make every step together. Sites exchange their models only every so many iterations, one member of each at a time, and
//! nobody waits for that: what has arrived some iterations later is merged into models that have gone on meanwhile.
//!
//! # For users
//! [`Hierarchical`] with the sites and a length of epochs. Members of a site have to share their steps
//! ([`Participant::share`](crate::participant::Participant::share)); where every site is a single node, that is asynchronous
//! averaging of all (LASGD, arXiv 2203.13085).
//!
//! - At the beginning and at the end of training, and after every epoch, all average in a round.
//! - Between these, an exchange begins every `gs` iterations: in each site one member, another one each time, sends the
//!   model to its like in the other sites. `btw` iterations later it takes the mean of what has come with its own, gives it to the
//!   members of its site, and all of them [merge](Merge) it.
//! - `gs` and `btw` follow the loss: see [`Cycle`].
//!
//! Unlike the original, sites may have different numbers of members, which count as many times; how long training will be
//! need not be known (there is no end to cool down for then); any node may be lost at any time; and a checkpoint holds the
//! schedule and the models under way.
//!
//! # For implementers
//! - Members of a site must do the same to the bit. What they decide follows from iterations, from certificates and from
//!   what rounds have averaged, never from who can be reached just now; only the member whose turn it is looks at that, and
//!   what it then tells the others is what they do. Where it is lost, its epoch of shared steps ends for all of its site, which
//!   interrupts the wait; the round that begins the next epoch makes their models equal again.
//! - Iterations are counted for all alike: from the furthest count in the last average on. A node that came late has made
//!   fewer steps of its own, and would be waited for after every epoch if it counted those.
//! - The mean loss and the state of the schedule are numbers that travel with every contribution, so that all who were in a
//!   round have the same afterwards, and so has who is healed.
//! - A snapshot of any site is used once. Who sends none is waited for with patience each time, for a while; then not until it
//!   sends again, and it is sent something only now and then: nothing piles up in front of a line that stands still.
//! - A model that is not finite in single precision is not sent, and snapshots that are not are dropped: a site that diverges
//!   takes no other with it. Its members are still told a mean, without values, so that none of them waits.

mod cycle;
mod exchange;
mod merge;
mod note;
mod options;
mod saved;

pub use cycle::{Cycle, CycleOptions};
pub use merge::Merge;
pub use options::HierarchicalOptions;

use super::{AveragingPolicy, PolicyAction, PolicyInput, Rejoin};
use crate::cluster::{AbandonReason, Certificate, CertificateId};
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use note::Parcel;

/// A model that is on its way to the other sites.
#[derive(Clone, Debug, PartialEq)]
struct Flight {
    /// The iteration at which the exchange began.
    begun: u64,
    /// At which it is to be merged.
    until: u64,
    snapshot: Vec<f64>,
    /// Training does not go on from the snapshot, but from an earlier state.
    replaced: bool,
}

/// What is known of another site.
#[derive(Clone, Debug, Default, PartialEq)]
struct Site {
    /// The newest of its snapshots, until it is merged, and the iteration of this node at which it came.
    snapshot: Option<(Parcel, u64)>,
    /// Exchanges without one while it could be reached.
    silent: u32,
    /// The round of the last average that members of it had part in with this node.
    met: u64,
}

/// A model that waits for a mean.
#[derive(Clone, Debug, PartialEq)]
struct Waiting {
    model: Vec<f64>,
    /// [`Instant::FAR`] where another member's turn it is.
    until: Instant,
    /// Who can be reached.
    peers: Vec<NodeId>,
}

/// Averages in two levels, sites and slow lines between them: DASO (Coquelin et al. 2021, arXiv 2104.05588).
///
/// All average in a round at the beginning, at the end and after every epoch. Between these, one member of each site sends its
/// model to its like in the others, another one each time, and what has come some iterations later is [merged](Merge) into
/// models that have gone on. Members of a site share their steps
/// ([`Participant::share`](crate::participant::Participant::share)); where every site is a single node, this is asynchronous
/// averaging of all (LASGD, arXiv 2203.13085).
#[derive(Clone, Debug)]
pub struct Hierarchical {
    options: HierarchicalOptions,
    node: NodeId,
    /// The number of its site.
    own: usize,
    /// That of everybody's.
    homes: BTreeMap<NodeId, usize>,
    actions: VecDeque<PolicyAction>,
    /// How many iterations training has in all.
    iterations: u64,
    /// That of the fleet: the furthest of the last average, and a step for each that this node has made since.
    iteration: u64,
    /// By how many iterations the fleet is ahead of this node's training; not yet known after an average.
    ahead: Option<u64>,
    /// Values of a model.
    len: usize,
    cycle: Cycle,
    /// The sum of the losses of this epoch, and of how many steps.
    losses: (f64, u64),
    /// What the round that is being adopted has averaged.
    averaged: Vec<f64>,
    /// Which average was the last one.
    base: CertificateId,
    /// Members of the site that were in it.
    members: Vec<NodeId>,
    flight: Option<Flight>,
    sites: BTreeMap<usize, Site>,
    /// Parcels of which pieces are missing, by who sends them.
    partial: BTreeMap<NodeId, Parcel>,
    /// The mean that the member whose turn it is has sent.
    mean: Option<Parcel>,
    waiting: Option<Waiting>,
    /// To whom not everything is sent that was said, when training was last looked at.
    unsaid: Vec<NodeId>,
}

impl Hierarchical {
    /// The policy of `node`.
    ///
    /// # Panics
    /// If it is in no site, or an epoch has no iterations.
    #[track_caller]
    pub fn new(options: HierarchicalOptions, node: NodeId) -> Self {
        let mut homes = BTreeMap::new();
        for (number, site) in options.sites.iter().enumerate() {
            for &member in site {
                homes.entry(member).or_insert(number);
            }
        }
        let own = homes.get(&node).copied();
        let own = own.unwrap_or_else(|| panic!("{node} is in none of the sites {:?}", options.sites));
        assert!(options.cycle.epoch > 0, "an epoch of 0 iterations leaves no time to train");
        let cycle = Cycle::new(&options.cycle);
        Self {
            options,
            node,
            own,
            homes,
            actions: VecDeque::new(),
            iterations: u64::MAX,
            iteration: 0,
            ahead: Some(0),
            len: 0,
            cycle,
            losses: (0.0, 0),
            averaged: Vec::new(),
            base: CertificateId::default(),
            members: vec![node],
            flight: None,
            sites: BTreeMap::new(),
            partial: BTreeMap::new(),
            mean: None,
            waiting: None,
            unsaid: Vec::new(),
        }
    }

    /// How often sites exchange at present.
    pub fn cycle(&self) -> Cycle {
        self.cycle
    }

    fn step(&mut self, iteration: u64, loss: f64) {
        let last = iteration == self.iterations;
        // Whoever came late, or in the midst of something, has made fewer steps, and yet all are to meet after the same ones.
        let ahead = *self.ahead.get_or_insert(self.iteration.saturating_add(1).saturating_sub(iteration));
        let iteration = iteration.saturating_add(ahead);
        self.iteration = iteration;
        if iteration % self.options.cycle.epoch == 1 || self.options.cycle.epoch == 1 {
            self.losses = (0.0, 0);
        }
        self.losses.0 += loss;
        self.losses.1 += 1;
        if last || self.options.cycle.blocks(iteration, self.iterations) {
            self.flight = None;
            self.actions.push_back(PolicyAction::Contribute(self.options.request));
        } else if self.merges() || self.begins() {
            self.actions.push_back(PolicyAction::Observe);
        }
    }

    /// Goes on from an average.
    fn adopt(&mut self, certificate: &Certificate, with_others: bool) {
        self.base = certificate.id();
        let own = &self.options.sites[self.own];
        let of_site = certificate.members.iter().map(|member| member.node).filter(|node| own.contains(node));
        self.members = if with_others { of_site.collect() } else { vec![self.node] };
        let cycle = self.options.cycle;
        let furthest = certificate.members.iter().map(|member| member.iteration).max().unwrap_or(0);
        (self.iteration, self.ahead) = (furthest, None);
        if let [ended, loss, known, skip, wait, best, bad, counted, sum] = core::mem::take(&mut self.averaged)[..] {
            // Those who came late have counted further than they have trained; the furthest need not be there.
            let far = if counted > 0.0 { libm::round(sum / counted) as u64 } else { 0 };
            self.iteration = furthest.max(far);
            if known > 0.0 {
                self.cycle = Cycle::of([skip, wait, best, bad].map(|number| number / known));
            }
            if ended >= 0.5 {
                // Another round may follow at the same iteration, and is not to count the epoch again.
                self.losses = (0.0, 0);
            }
            if ended >= 0.5 && self.iteration > cycle.warm_up.saturating_mul(cycle.epoch) {
                self.cycle.conclude(loss / ended, &cycle);
            }
        }
        // What was sent before the average is part of it, but of sites that had no part in it.
        for member in &certificate.members {
            if let Some(&site) = self.homes.get(&member.node).filter(|&&site| site != self.own) {
                let (site, round) = (self.sites.entry(site).or_default(), certificate.round.0);
                site.met = round;
                site.snapshot = site.snapshot.take().filter(|(parcel, _)| parcel.base >= round);
            }
        }
        self.give_up();
    }

    /// Forgets what is under way.
    fn give_up(&mut self) {
        (self.flight, self.waiting, self.mean) = (None, None, None);
    }
}

impl AveragingPolicy for Hierarchical {
    fn name(&self) -> &'static str {
        match self.options.merge {
            Merge::Stale => "DASO",
            Merge::Progress => "DASO, keeping progress",
        }
    }

    fn handle(&mut self, now: Instant, input: PolicyInput<'_>) {
        match input {
            PolicyInput::Began { iterations, .. } => {
                self.iterations = iterations;
                // Models that come before its own is on its way are as long as this one.
                self.actions.push_back(PolicyAction::Observe);
            }
            PolicyInput::Stepped { iteration, summary } => self.step(iteration, summary.loss),
            PolicyInput::Averaged(numbers) => self.averaged = numbers.to_vec(),
            PolicyInput::Committed(certificate) => self.adopt(certificate, true),
            PolicyInput::Healed(certificate) => self.adopt(certificate, false),
            PolicyInput::Abandoned(AbandonReason::Alone) => self.members = vec![self.node],
            PolicyInput::Abandoned(_) => {}
            PolicyInput::Unsaid(unsaid) => self.unsaid = unsaid.to_vec(),
            PolicyInput::Observed { parameters, peers } => self.observe(now, parameters, peers),
            PolicyInput::Peers(peers) => {
                if let Some(waiting) = &mut self.waiting {
                    waiting.peers = peers.to_vec();
                    self.take_turn(false);
                    self.take_mean();
                }
            }
            PolicyInput::Interrupted => {
                self.give_up();
                self.actions.push_back(PolicyAction::Proceed);
            }
            PolicyInput::Replaced => {
                if let Some(flight) = &mut self.flight {
                    flight.replaced = true;
                }
            }
            PolicyInput::Told { from, bytes } => self.told(from, bytes),
        }
    }

    fn poll(&mut self) -> Option<PolicyAction> {
        self.actions.pop_front()
    }

    fn timeout(&self) -> Instant {
        self.waiting.as_ref().map_or(Instant::FAR, |waiting| waiting.until)
    }

    fn wake(&mut self, now: Instant) {
        if self.timeout() <= now {
            self.take_turn(true);
            self.take_mean();
        }
    }

    fn numbers(&self) -> Vec<f64> {
        let ends = self.iteration.is_multiple_of(self.options.cycle.epoch) && self.losses.1 > 0;
        let loss = if ends { self.losses.0 / self.losses.1 as f64 } else { 0.0 };
        // Whoever knows no loss yet, having begun anew, has nothing to say of the schedule.
        let known = f64::from(u8::from(self.cycle.best > 0.0));
        let [skip, wait, best, bad] = self.cycle.numbers().map(|number| known * number);
        // Who was in no average yet counts its own steps alone.
        let counted = f64::from(u8::from(self.base != CertificateId::default()));
        vec![f64::from(u8::from(ends)), loss, known, skip, wait, best, bad, counted, counted * self.iteration as f64]
    }

    fn save(&self) -> Vec<u64> {
        self.words()
    }

    fn restore(&mut self, state: &[u64]) {
        self.go_on(state);
    }

    fn rejoin(&self) -> Rejoin {
        self.options.rejoin
    }
}

#[cfg(test)]
mod tests;
