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
//! need not be known (there is no end to cool down for then); any node may be lost at any time; and everything is in a
//! checkpoint.
//!
//! # For implementers
//! - Members of a site must do the same to the bit. What they decide follows from iterations, from certificates and from
//!   what rounds have averaged, never from who can be reached just now; only the member whose turn it is looks at that, and
//!   what it then tells the others is what they do. Where it is lost, its epoch of shared steps ends for all of its site, which
//!   interrupts the wait; the round that begins the next epoch makes their models equal again.
//! - The mean loss and the state of the schedule are numbers that travel with every contribution, so that all who were in a
//!   round have the same afterwards, and so has who is healed.
//! - A snapshot of any site is used once. Who sends none is waited for with patience each time, for a while; then not until it
//!   sends again, and it is sent something only now and then: nothing piles up in front of a line that stands still.

mod cycle;
mod merge;
mod note;

pub use cycle::{Cycle, CycleOptions};
pub use merge::Merge;

use super::words::{Saved, Words};
use super::{AveragingPolicy, PolicyAction, PolicyInput, Rejoin, Request};
use crate::cluster::{AbandonReason, Certificate, CertificateId, Digest, Round};
use crate::scalar::Values;
use crate::time::{Duration, Instant};
use crate::transport::NodeId;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use note::{Kind, Parcel, assemble};

/// Exchanges without anything of a site after which it is not waited for.
const MOST_SILENT: u32 = 4;

/// The knobs of a [`Hierarchical`] policy.
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
            request: Request::default(),
            rejoin: Rejoin::FullWeight,
        }
    }
}

/// A model that is on its way to the other sites.
#[derive(Clone, Debug, PartialEq)]
struct Flight {
    /// The iteration at which the exchange began.
    begun: u64,
    /// At which it is to be merged.
    until: u64,
    snapshot: Vec<f64>,
}

/// What is known of another site.
#[derive(Clone, Debug, Default, PartialEq)]
struct Site {
    /// The newest of its snapshots, until it is merged, and the iteration of this node at which it came.
    snapshot: Option<(Parcel, u64)>,
    /// Exchanges without one while it could be reached.
    silent: u32,
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
    actions: VecDeque<PolicyAction>,
    /// How many iterations training has in all.
    iterations: u64,
    iteration: u64,
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
}

impl Hierarchical {
    /// The policy of `node`.
    ///
    /// # Panics
    /// If it is in no site, or an epoch has no iterations.
    #[track_caller]
    pub fn new(options: HierarchicalOptions, node: NodeId) -> Self {
        let own = options.sites.iter().position(|site| site.contains(&node));
        let own = own.unwrap_or_else(|| panic!("{node} is in none of the sites {:?}", options.sites));
        assert!(options.cycle.epoch > 0, "an epoch of 0 iterations leaves no time to train");
        let cycle = Cycle::new(&options.cycle);
        Self {
            options,
            node,
            own,
            actions: VecDeque::new(),
            iterations: u64::MAX,
            iteration: 0,
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
        }
    }

    /// How often sites exchange at present.
    pub fn cycle(&self) -> Cycle {
        self.cycle
    }

    /// Whose turn it is among those of `site` in the exchange that began at this iteration.
    fn turn(&self, begun: u64, site: &[NodeId]) -> usize {
        let exchange = begun / self.cycle.skip;
        usize::try_from(exchange % site.len().max(1) as u64).expect("there are so many")
    }

    /// Whether it is this node's turn, or it comes next of the members that are left: as whoever sends to the site reckons.
    fn is_turn(&self, begun: u64) -> bool {
        let site = &self.options.sites[self.own];
        let (before, after) = site.split_at(self.turn(begun, site));
        after.iter().chain(before).find(|node| self.members.contains(node)) == Some(&self.node)
    }

    fn step(&mut self, iteration: u64, loss: f64) {
        self.iteration = iteration;
        if iteration % self.options.cycle.epoch == 1 || self.options.cycle.epoch == 1 {
            self.losses = (0.0, 0);
        }
        self.losses.0 += loss;
        self.losses.1 += 1;
        if self.options.cycle.blocks(iteration, self.iterations) {
            self.flight = None;
            self.actions.push_back(PolicyAction::Contribute(self.options.request));
        } else if self.merges() || self.begins() {
            self.actions.push_back(PolicyAction::Observe);
        }
    }

    fn merges(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.until <= self.iteration)
    }

    /// Whether an exchange begins once what is under way is merged.
    fn begins(&self) -> bool {
        let free = self.flight.is_none() || self.merges();
        free && self.iteration > 0 && self.options.sites.len() > 1 && self.iteration.is_multiple_of(self.cycle.skip)
    }

    /// Looks at the model: merges what is due, or waits for it, and begins what is due.
    fn observe(&mut self, now: Instant, parameters: Values<'_>, peers: &[NodeId]) {
        let mut model = Vec::with_capacity(parameters.len());
        parameters.for_each(|_, value| model.push(value));
        self.len = model.len();
        let Some(flight) = self.flight.as_ref().filter(|_| self.merges()) else {
            self.begin(&model, peers);
            return;
        };
        let until = if self.is_turn(flight.begun) { now + self.options.patience } else { Instant::FAR };
        self.waiting = Some(Waiting { model, until, peers: peers.to_vec() });
        self.actions.push_back(PolicyAction::Pause);
        self.take_turn(false);
        self.take_mean();
    }

    /// Begins an exchange with this model, if one is due.
    fn begin(&mut self, model: &[f64], peers: &[NodeId]) {
        if !self.begins() {
            return;
        }
        let begun = self.iteration;
        self.flight = Some(Flight { begun, until: begun + self.cycle.wait, snapshot: model.to_vec() });
        if !self.is_turn(begun) {
            return;
        }
        let values = model.iter().map(|&value| value as f32).collect();
        let (base, count) = (self.base.round.0, self.members.len() as u32);
        let parcel = Parcel { kind: Kind::Snapshot, base, begun, count, values };
        for (number, site) in self.options.sites.iter().enumerate() {
            let silent = self.sites.get(&number).map_or(0, |site| site.silent);
            if number == self.own || (silent > MOST_SILENT && !silent.is_power_of_two()) {
                continue;
            }
            // Whose turn it is there, or who comes next of those that can be reached.
            let (before, after) = site.split_at(self.turn(begun, site));
            if let Some(&to) = after.iter().chain(before).find(|node| peers.contains(node)) {
                parcel.say(to, &mut self.actions);
            }
        }
    }

    /// Where it is this node's turn: once nothing more is to be waited for, takes the mean of what has come and tells it.
    fn take_turn(&mut self, at_last: bool) {
        let (Some(flight), Some(Waiting { until, peers, .. })) = (&self.flight, &self.waiting) else { return };
        if *until == Instant::FAR {
            return;
        }
        let oldest = flight.begun.saturating_sub(self.cycle.skip);
        let len = flight.snapshot.len();
        let fits = |(parcel, came): &(Parcel, u64)| *came >= oldest && parcel.values.len() == len && parcel.count > 0;
        let reachable = |site: &[NodeId]| site.iter().any(|node| peers.contains(node));
        let others = || self.options.sites.iter().enumerate().filter(|(number, _)| *number != self.own);
        let awaited = |(number, site): (usize, &Vec<NodeId>)| {
            let known = self.sites.get(&number);
            let came = known.is_some_and(|site| site.snapshot.as_ref().is_some_and(fits));
            !came && reachable(site) && known.is_none_or(|site| site.silent < MOST_SILENT)
        };
        if !at_last && others().any(awaited) {
            return;
        }
        let mut weight = self.members.len() as f64;
        let mut sum: Vec<f64> = flight.snapshot.iter().map(|&value| weight * f64::from(value as f32)).collect();
        let mut count = 1;
        for (number, site) in self.options.sites.iter().enumerate().filter(|(number, _)| *number != self.own) {
            let known = self.sites.entry(number).or_default();
            let Some((parcel, _)) = known.snapshot.take().filter(fits) else {
                known.silent = if reachable(site) { known.silent.saturating_add(1) } else { 0 };
                continue;
            };
            known.silent = 0;
            let counts = f64::from(parcel.count);
            sum.iter_mut().zip(&parcel.values).for_each(|(sum, &value)| *sum += counts * f64::from(value));
            (weight, count) = (weight + counts, count + 1);
        }
        let values = if count > 1 { sum.iter().map(|sum| (sum / weight) as f32).collect() } else { Vec::new() };
        let parcel = Parcel { kind: Kind::Mean, base: self.base.digest.0, begun: flight.begun, count, values };
        for &member in self.members.iter().filter(|member| **member != self.node) {
            parcel.say(member, &mut self.actions);
        }
        self.mean = Some(parcel);
    }

    /// Merges the mean of the exchange under way into the model that waits for it.
    fn take_mean(&mut self) {
        let (Some(flight), Some(_)) = (&self.flight, &self.waiting) else { return };
        let (base, begun) = (self.base.digest.0, flight.begun);
        let Some(mean) = self.mean.take_if(|mean| (mean.base, mean.begun) == (base, begun)) else { return };
        let (Some(flight), Some(waiting)) = (self.flight.take(), self.waiting.take()) else { return };
        let Waiting { mut model, peers, .. } = waiting;
        // Without snapshots of others there is nothing to be merged.
        if mean.values.len() == model.len() {
            let since = self.iteration - begun;
            self.options.merge.apply(&mut model, &flight.snapshot, &mean.values, u64::from(mean.count), since);
            self.actions.push_back(PolicyAction::Adopt(model.clone()));
        }
        self.begin(&model, &peers);
        self.actions.push_back(PolicyAction::Proceed);
    }

    fn told(&mut self, from: NodeId, bytes: &[u8]) {
        let mut partial = self.partial.remove(&from);
        let parcel = assemble(&mut partial, bytes, self.len);
        self.partial.extend(partial.map(|partial| (from, partial)));
        let Some(parcel) = parcel else { return };
        let site = self.options.sites.iter().position(|site| site.contains(&from));
        match (parcel.kind, site) {
            (Kind::Mean, Some(site)) if site == self.own => self.mean = Some(parcel),
            (Kind::Snapshot, Some(site)) if site != self.own && parcel.base >= self.base.round.0 => {
                self.sites.entry(site).or_default().snapshot = Some((parcel, self.iteration));
                self.take_turn(false);
            }
            _ => return,
        }
        self.take_mean();
    }

    /// Goes on from an average.
    fn adopt(&mut self, certificate: &Certificate, with_others: bool) {
        self.base = certificate.id();
        let own = &self.options.sites[self.own];
        let of_site = certificate.members.iter().map(|member| member.node).filter(|node| own.contains(node));
        self.members = if with_others { of_site.collect() } else { vec![self.node] };
        let cycle = self.options.cycle;
        if let [ended, loss, known, skip, wait, best, bad] = core::mem::take(&mut self.averaged)[..] {
            if known > 0.0 {
                self.cycle = Cycle::of([skip, wait, best, bad].map(|number| number / known));
            }
            if ended >= 0.5 {
                // Another round may follow at the same iteration, and is not to count the epoch again.
                self.losses = (0.0, 0);
            }
            let furthest = certificate.members.iter().map(|member| member.iteration).max().unwrap_or(0);
            if ended >= 0.5 && furthest > cycle.warm_up.saturating_mul(cycle.epoch) {
                self.cycle.conclude(loss / ended, &cycle);
            }
        }
        let round = self.base.round.0;
        // What was sent before the average is part of it.
        self.sites.values_mut().for_each(|site| site.snapshot = site.snapshot.take().filter(|it| it.0.base >= round));
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
            PolicyInput::Began { iterations } => {
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
        vec![f64::from(u8::from(ends)), loss, known, skip, wait, best, bad]
    }

    fn save(&self) -> Vec<u64> {
        let mut words = Words::default();
        words.0.extend([self.iterations, self.iteration, self.len as u64]);
        words.0.extend(self.cycle.numbers().map(f64::to_bits));
        words.0.extend([self.losses.0.to_bits(), self.losses.1, self.base.round.0, self.base.digest.0]);
        words.nodes(&self.members);
        words.optional(self.flight.as_ref(), |words, flight| {
            words.0.extend([flight.begun, flight.until]);
            words.values(&flight.snapshot);
        });
        words.0.push(self.sites.len() as u64);
        for (number, site) in &self.sites {
            words.0.extend([*number as u64, u64::from(site.silent)]);
            words.optional(site.snapshot.as_ref(), |words, (parcel, came)| {
                words.0.push(*came);
                parcel.save(words);
            });
        }
        words.0.push(self.partial.len() as u64);
        for (from, parcel) in &self.partial {
            words.0.push(u64::from(from.0));
            parcel.save(&mut words);
        }
        words.optional(self.mean.as_ref(), |words, mean| mean.save(words));
        words.optional(self.waiting.as_ref(), |words, waiting| {
            words.values(&waiting.model);
            words.0.push(waiting.until.as_nanos());
            words.nodes(&waiting.peers);
        });
        words.0
    }

    fn restore(&mut self, state: &[u64]) {
        let fresh = Self::new(self.options.clone(), self.node);
        *self = fresh.clone().read(&mut Saved::new(state)).unwrap_or(fresh);
    }

    fn rejoin(&self) -> Rejoin {
        self.options.rejoin
    }
}

impl Words {
    fn nodes(&mut self, nodes: &[NodeId]) {
        self.0.push(nodes.len() as u64);
        self.0.extend(nodes.iter().map(|node| u64::from(node.0)));
    }
}

impl Saved<'_> {
    fn nodes(&mut self) -> Option<Vec<NodeId>> {
        (0..self.count()?).map(|_| self.node()).collect()
    }
}

impl Hierarchical {
    /// Goes on with what was saved; `None` if it ends too early.
    fn read(mut self, words: &mut Saved<'_>) -> Option<Self> {
        (self.iterations, self.iteration) = (words.word()?, words.word()?);
        self.len = usize::try_from(words.word()?).ok()?;
        let mut numbers = [0.0; 4];
        for number in &mut numbers {
            *number = f64::from_bits(words.word()?);
        }
        self.cycle = Cycle::of(numbers);
        self.losses = (f64::from_bits(words.word()?), words.word()?);
        self.base = CertificateId { round: Round(words.word()?), digest: Digest(words.word()?) };
        self.members = words.nodes()?;
        if words.flag()? {
            self.flight = Some(Flight { begun: words.word()?, until: words.word()?, snapshot: words.values()? });
        }
        for _ in 0..words.count()? {
            let number = usize::try_from(words.word()?).ok()?;
            let silent = u32::try_from(words.word()?).ok()?;
            let mut snapshot = None;
            if words.flag()? {
                let came = words.word()?;
                snapshot = Some((Parcel::restore(words)?, came));
            }
            self.sites.insert(number, Site { snapshot, silent });
        }
        for _ in 0..words.count()? {
            self.partial.insert(words.node()?, Parcel::restore(words)?);
        }
        self.mean = if words.flag()? { Some(Parcel::restore(words)?) } else { None };
        if words.flag()? {
            let model = words.values()?;
            let until = Instant::from_nanos(words.word()?);
            self.waiting = Some(Waiting { model, until, peers: words.nodes()? });
        }
        Some(self)
    }
}
