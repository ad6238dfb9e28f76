//! Averaging when models have drifted apart: FDA, Federated Dynamic Averaging (Theologitis et al. 2024,
//! arXiv 2405.20988).
//!
//! With `w₀` the last average and `u = w − w₀` a node's drift, nodes tell each other a few numbers about `u` at every
//! check, and average when a bound `H` of the variance of their models exceeds `Θ`. There is no coordinator: whoever has
//! the same numbers takes the same decision, and whoever decides says so to all.
//!
//! # For users
//! [`Dynamic`] with a [`Gauge`] and a [`Threshold`]. `Θ = 0` ("Synchronous") is [`Periodic`](super::Periodic) with an
//! interval of 1.
//!
//! # For implementers
//! - A check waits for the states of all peers that train and can be reached, up to a deadline: who is lost holds up
//!   nobody, and is not counted.
//! - Checks are numbered since the last average. A check takes the states that were told for it, and no others: a state that
//!   comes after its deadline is late, one of a later check waits for its turn. Whoever hears that others have come further
//!   goes on with the number of the furthest, so that nodes are at one check again after a node was slow.
//! - A node without an average that has nobody to check with contributes all the same: where others have finished, they heal
//!   it, and nobody else ever would.
//! - A node that has missed averages has a drift `u'` since another one than the rest. Nodes remember how far they have gone
//!   from average to average, from the first model on: by what they have had in common, the two are at most some `D` apart, so
//!   that the node is within `‖u'‖ + D`, and counts with that. Nodes that have heard of each other's averages tell these ways
//!   in their next states; who does not know an average leaves its nodes out until then. Who is behind leaves the decision to
//!   others; those average at once whom nothing in common joins to somebody.
//! - A round waits for nobody for longer than [`DynamicOptions::ready`]. Who is called in the midst of a step and ends it later
//!   would only part from the callers, with a late round of its own: it waits for the next call, and leaves nothing to the callers after two.
//! - Whoever leaves decisions to others, or hears nobody, does so eight times in a row.
//! - Axes are the same only among nodes that have both ends in common; where they have not, a linear gauge counts as a
//!   naive one, which is a bound as well.

mod confidence;
mod gauge;
mod note;
mod saved;
mod sketch;
mod threshold;
mod ways;

pub use confidence::{Confidence, Drifts, SketchError};
pub use gauge::{Axis, Gauge, State};
pub use sketch::Sketcher;
pub use threshold::Threshold;

use super::exchange::digest;
use super::{AveragingPolicy, PolicyAction, PolicyInput, Rejoin, Request};
use crate::cluster::{Budget, Certificate, CertificateId, Round};
use crate::outer::OuterOptimiser;
use crate::scalar::Values;
use crate::seed::Seed;
use crate::time::{Duration, Instant};
use crate::transport::NodeId;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use note::Note;
use threshold::Limit;
use ways::{Way, Ways};

/// The knobs of a [`Dynamic`] policy.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicOptions {
    /// What nodes tell of their drift.
    pub gauge: Gauge,
    /// How far they may be apart.
    pub threshold: Threshold,
    /// Iterations from one check to the next, at least 1.
    pub check_every: u64,
    /// How long a check waits for the states of others at most; several times what a message takes, and less than the time
    /// budget. Whose steps take longer than this and others' together costs them so much at every check.
    pub patience: Duration,
    /// How long rounds wait for whoever is in the midst of a step: the node's [`Budget::ready`](crate::cluster::Budget::ready).
    pub ready: Duration,
    /// What a contribution consists of.
    pub request: Request,
    /// How a node that was away comes back.
    pub rejoin: Rejoin,
    /// What the first axis and the sketches are drawn from; the same on all nodes.
    pub seed: Seed,
    /// What is made of averages; `None` to take them as models.
    pub outer: Option<OuterOptimiser>,
}

/// By how many checks a node may be ahead: so many nobody makes from one average to the next.
const FURTHEST: u64 = 1 << 32;
/// For how many checks in a row a node leaves to others what it would have decided.
const MOST_YIELDED: u64 = 8;
/// After how many calls that came too early for it a node that is behind leaves nothing to the callers.
const MOST_PASSED: u64 = 2;

impl DynamicOptions {
    /// A check after every iteration, waiting for 25 ms at most.
    pub fn new(gauge: Gauge, threshold: Threshold) -> Self {
        Self {
            gauge,
            threshold,
            check_every: 1,
            patience: Duration::from_millis(25),
            ready: Budget::default().ready(),
            request: Request::default(),
            rejoin: Rejoin::FullWeight,
            seed: Seed(0),
            outer: None,
        }
    }
}

/// What a peer has said.
#[derive(Clone, Debug, PartialEq)]
struct Heard {
    base: CertificateId,
    before: Option<CertificateId>,
    /// From which averages `base` is how far.
    ways: Vec<Way>,
    /// Of which check since `base`.
    check: u64,
    state: State,
}

/// What a member of this node's last average may have said before that comes late.
#[derive(Clone, Debug, PartialEq)]
struct Past {
    base: CertificateId,
    /// The last check of which it may be.
    check: u64,
}

/// A check that waits for others.
#[derive(Clone, Debug, PartialEq)]
struct Check {
    state: State,
    until: Instant,
    awaited: Vec<NodeId>,
    /// Those of them that have not been heard.
    missing: BTreeSet<NodeId>,
}

/// Averages when models have drifted apart: FDA, Federated Dynamic Averaging (Theologitis et al. 2024, arXiv 2405.20988).
///
/// At every check, nodes tell each other a few numbers about how far their models have gone since the last average, and
/// average when a bound of the variance over nodes exceeds the threshold. A check waits for the peers that can be
/// reached, up to its [`patience`](DynamicOptions::patience); whoever decides to average calls the others. A node that
/// has missed averages counts with its drift and the way that averages have gone meanwhile.
#[derive(Clone, Debug)]
pub struct Dynamic {
    options: DynamicOptions,
    actions: VecDeque<PolicyAction>,
    sketcher: Option<Sketcher>,
    limit: Option<Limit>,
    /// `w₀`, and which average it is.
    origin: Vec<f64>,
    base: CertificateId,
    /// `ξ`, and which average it begins at.
    axis: Option<Axis>,
    before: Option<CertificateId>,
    past: BTreeMap<NodeId, Past>,
    /// The last check that has begun since then.
    number: u64,
    /// States of that check, and those since other averages.
    heard: BTreeMap<NodeId, Heard>,
    /// States of later checks.
    early: BTreeMap<NodeId, Heard>,
    check: Option<Check>,
    /// The number and `H` of the check that the contribution follows: of several, of the last, and of these the greatest.
    found: Option<(u64, f64)>,
    /// A peer contributes, as it has said then.
    called: Option<Instant>,
    /// How many such calls it has let pass since it contributed itself.
    passed: u64,
    /// For how many checks in a row it has left to others what it would have decided.
    yielded: u64,
    /// How far earlier averages are.
    ways: Ways,
    /// Others have been heard of another average.
    parted: bool,
    /// What is to be observed is a new `w₀`, reached with the last average or without it.
    rebase: Option<bool>,
}

impl Dynamic {
    /// With these options.
    ///
    /// # Panics
    /// If `check_every` is 0, or the gauge [cannot keep](Gauge::check) what it says.
    #[track_caller]
    pub fn new(options: DynamicOptions) -> Self {
        assert!(options.check_every > 0, "0 iterations from one check to the next leave no time to train");
        if let Err(error) = options.gauge.check() {
            panic!("{error}");
        }
        Self {
            options,
            actions: VecDeque::new(),
            sketcher: None,
            limit: None,
            origin: Vec::new(),
            base: CertificateId::default(),
            axis: None,
            before: None,
            past: BTreeMap::new(),
            number: 0,
            heard: BTreeMap::new(),
            early: BTreeMap::new(),
            check: None,
            found: None,
            called: None,
            passed: 0,
            yielded: 0,
            ways: Ways::default(),
            parted: false,
            rebase: None,
        }
    }

    /// `Θ` as it stands; `None` before the node begins.
    pub fn threshold(&self) -> Option<f64> {
        self.limit.map(|limit| limit.value)
    }

    fn begin(&mut self, parameters: Values<'_>) {
        let DynamicOptions { gauge, threshold, seed, .. } = self.options;
        self.sketcher = gauge.sketcher(parameters.len(), seed);
        self.limit = Some(Limit::new(threshold, parameters.len()));
        if gauge == Gauge::Linear {
            // Before the first average, everybody has the same random axis.
            self.axis = Axis::random(parameters.len(), seed);
            self.before = Some(CertificateId::default());
        }
    }

    /// Takes note of a new `w₀`.
    fn move_to(&mut self, parameters: Values<'_>, with_others: bool) {
        if self.limit.is_none() {
            self.begin(parameters);
        }
        let mut origin = Vec::with_capacity(parameters.len());
        parameters.for_each(|_, value| origin.push(value));
        if self.ways == Ways::default() {
            // The first model has no certificate: whoever begins with the same values begins at the same place.
            self.ways.go(CertificateId { round: Round(0), digest: digest(&origin) }, 0.0);
        }
        let squares = self.origin.iter().zip(&origin).map(|(before, after)| (after - before) * (after - before));
        if self.base != CertificateId::default() {
            self.ways.go(self.base, libm::sqrt(squares.sum()));
        }
        if self.options.gauge == Gauge::Linear && self.base != CertificateId::default() && !self.origin.is_empty() {
            self.axis = if with_others { Axis::between(&self.origin, &origin) } else { None };
        }
        self.origin = origin;
    }

    fn begin_check(&mut self, now: Instant, parameters: Values<'_>, peers: &[NodeId]) {
        if self.lacks_everything(peers) {
            self.found = None;
            self.contribute();
            return;
        }
        if peers.is_empty() || parameters.len() != self.origin.len() {
            return;
        }
        self.forget_the_past(peers);
        let mut drift = self.origin.clone();
        parameters.for_each(|place, value| drift[place] = value - drift[place]);
        let state = self.options.gauge.state(&drift, self.axis.as_ref(), self.sketcher.as_ref());
        if !state.is_finite() {
            // Others would not believe it; training ends soon.
            return;
        }
        let furthest = self.early.values().map(|heard| heard.check).max();
        self.number = self.number.saturating_add(1).max(furthest.unwrap_or(0));
        self.found = None;
        let (number, base) = (self.number, self.base);
        // What is left of a check that a call has ended.
        self.heard.retain(|_, heard| heard.base != base);
        self.heard.extend(core::mem::take(&mut self.early).into_iter().filter(|(_, heard)| heard.check == number));
        let ways = if self.parted { self.ways.told() } else { Vec::new() };
        let note = Note::State { base: self.base, before: self.before, ways, check: number, state };
        let bytes = note.encode();
        // What others read: whoever has the same states is to find the same.
        let Note::State { state, .. } = Note::decode(&bytes, self.options.gauge.more()).unwrap_or(note) else {
            return;
        };
        self.tell(peers, &bytes);
        self.actions.push_back(PolicyAction::Pause);
        let (awaited, missing) = self.awaited(peers);
        self.check = Some(Check { state, until: now + self.options.patience, awaited, missing });
        self.end_check_if_complete();
    }

    /// What was said before an absence cannot come after it; and who has gone may come back as another start, which knows
    /// nothing of the last average and numbers its checks from the first.
    fn forget_the_past(&mut self, peers: &[NodeId]) {
        self.past.retain(|node, _| peers.contains(node));
    }

    /// Whether it has no average, and none of these peers is there to check with. Where others have finished with one, a
    /// contribution is answered with that; elsewhere it comes to nothing at once.
    fn lacks_everything(&self, peers: &[NodeId]) -> bool {
        peers.is_empty() && self.base == CertificateId::default()
    }

    /// These peers, and those of them that may still be heard: whoever is at a later check says nothing of this one.
    fn awaited(&self, peers: &[NodeId]) -> (Vec<NodeId>, BTreeSet<NodeId>) {
        let is_missing = |node: &NodeId| !self.heard.contains_key(node) && !self.early.contains_key(node);
        (peers.to_vec(), peers.iter().copied().filter(is_missing).collect())
    }

    fn tell(&mut self, peers: &[NodeId], bytes: &[u8]) {
        self.actions.extend(peers.iter().map(|&to| PolicyAction::Tell { to, bytes: bytes.to_vec() }));
    }

    fn end_check_if_complete(&mut self) {
        if self.check.as_ref().is_some_and(|check| check.missing.is_empty()) {
            self.end_check();
        }
    }

    /// Decides with what is there.
    fn end_check(&mut self) {
        let Some(check) = self.check.take() else {
            return;
        };
        let mut heard = core::mem::take(&mut self.heard);
        // Whoever was lost since counts for nothing.
        heard.retain(|node, _| check.awaited.contains(node));
        heard.values().filter(|heard| heard.base == self.base).for_each(|heard| self.ways.learn(&heard.ways));
        let is_apart = |heard: &Heard| heard.base != self.base;
        self.parted = heard.values().any(is_apart) || (self.parted && !check.missing.is_empty());
        let is_behind = heard.values().any(|heard| heard.base.round > self.base.round);
        // Of what has left the range of numbers nothing is known, nor could a call say it. And the last of the others may have
        // finished meanwhile: it is they who have something to say, and not its own way.
        let is_known = |bound: &f64| bound.is_finite() && !self.lacks_everything(&check.awaited);
        let is_alone = heard.is_empty() && !self.lacks_everything(&check.awaited);
        // Who hears nobody knows nothing that could be taken off for what drifts have in common.
        let found = if is_alone { Some(check.state.norm) } else { self.bound(&check.state, &heard) }.filter(is_known);
        let exceeded = |bound| self.limit.is_some_and(|limit| limit.exceeded(self.number, bound));
        // Callers wait for no step as long as its own: who is behind calls them when it ends.
        let answers = self.passed >= MOST_PASSED;
        let wants = found.is_none_or(exceeded);
        let yields = (is_alone || (is_behind && !answers)) && self.yielded < MOST_YIELDED;
        if wants && !yields {
            let found = found.filter(|_| !is_alone);
            let call = Note::Call { base: self.base, check: self.number, found }.encode();
            self.tell(&check.awaited, &call);
            self.find(self.number, found);
            self.contribute();
        } else {
            self.yielded = if wants { self.yielded + 1 } else { 0 };
            self.actions.push_back(PolicyAction::Proceed);
        }
    }

    /// `H` of this node's state and those of others; `None` where some of them have no average in common with it. Who has
    /// not told yet what averages it has had is left out.
    fn bound(&self, own: &State, heard: &BTreeMap<NodeId, Heard>) -> Option<f64> {
        let (common, others): (Vec<&Heard>, Vec<&Heard>) = heard.values().partition(|heard| heard.base == self.base);
        let mut away = Vec::new();
        for heard in others {
            match self.ways.between(&heard.ways).or_else(|| self.ways.between(&[(heard.base, 0.0)])) {
                Some(way) => away.push(libm::sqrt(heard.state.norm) + way),
                None if heard.ways.is_empty() => {}
                None => return None,
            }
        }
        let mut states: Vec<&State> = core::iter::once(own).chain(common.iter().map(|heard| &heard.state)).collect();
        // In one order on all nodes, so that sums are the same to the last bit.
        states.sort_by(|a, b| a.order(b));
        away.sort_by(f64::total_cmp);
        let same_axis = self.axis.is_some() && common.iter().all(|heard| heard.before == self.before);
        Some(self.options.gauge.bound(&states, &away, same_axis, self.sketcher.as_ref()))
    }

    /// Takes note of what a check that is followed by a contribution has found, this node's or another's.
    fn find(&mut self, check: u64, found: Option<f64>) {
        let later = |(known, bound): (u64, f64), found: f64| known.cmp(&check).then(bound.total_cmp(&found)).is_lt();
        if let Some(found) = found.filter(|&found| self.found.is_none_or(|known| later(known, found))) {
            self.found = Some((check, found));
        }
    }

    /// Whether it contributes because it was called during its step, and the callers' round still waits for it.
    fn follows_call(&mut self, now: Instant) -> bool {
        let follows = self.called.take().map(|called| now - called <= self.options.ready);
        self.passed = self.passed.saturating_add(u64::from(follows == Some(false)));
        follows == Some(true)
    }

    fn contribute(&mut self) {
        self.check = None;
        (self.called, self.passed, self.yielded) = (None, 0, 0);
        self.actions.push_back(PolicyAction::Contribute(self.options.request));
    }

    fn take(&mut self, now: Instant, from: NodeId, bytes: &[u8]) {
        match Note::decode(bytes, self.options.gauge.more()) {
            Some(Note::State { base, before, ways, check, state }) => {
                let (is_common, is_open) = (base == self.base, self.check.is_some());
                let is_late = is_common && (check < self.number || (check == self.number && !is_open));
                // No drift goes further along an axis than it goes.
                let is_linear = self.options.gauge == Gauge::Linear;
                let is_longer = |along: &f64| along * along > state.norm * (1.0 + 1e-6);
                let is_absurd = is_linear && state.more.iter().any(is_longer);
                let is_absurd = is_absurd || is_common && check.saturating_sub(self.number) > FURTHEST;
                if is_absurd || self.is_past(from, base, check) {
                    return;
                }
                if is_common {
                    // Nothing that it said before can come after this.
                    self.past.remove(&from);
                }
                // What it said before of another average is not so any more.
                let (Self { heard, early, base: own, .. }, other) = (&mut *self, base);
                heard.retain(|node, heard| *node != from || heard.base == other);
                early.retain(|node, _| *node != from || other == *own);
                if is_late {
                    return;
                }
                let is_early = is_common && check > self.number;
                let place = if is_early { &mut self.early } else { &mut self.heard };
                // How far its average is from others stays so, whether it says it again or not.
                let known = place.get(&from).filter(|heard| heard.base == base && ways.is_empty());
                let ways = known.map_or(ways, |heard| heard.ways.clone());
                place.insert(from, Heard { base, before, ways, check, state });
                if let Some(check) = &mut self.check {
                    check.missing.remove(&from);
                }
                self.end_check_if_complete();
            }
            Some(Note::Call { base, check, found }) if !self.is_past(from, base, check) => {
                self.called = Some(now);
                // The threshold that follows is to be the caller's, whether this node has come as far as his check or not.
                let is_absurd = check.saturating_sub(self.number) > FURTHEST;
                self.find(check, found.filter(|&found| base == self.base && found >= 0.0 && !is_absurd));
                if self.check.is_some() {
                    self.contribute();
                }
            }
            Some(Note::Call { .. }) | None => {}
        }
    }

    /// Whether something was said before its sender was in the average that is this node's last.
    fn is_past(&self, from: NodeId, base: CertificateId, check: u64) -> bool {
        self.past.get(&from).is_some_and(|past| past.base == base && check <= past.check)
    }

    /// Another average is the origin from now on.
    fn adopt(&mut self, certificate: &Certificate, with_others: bool) {
        let found = self.found.take();
        let known = self.early.values().map(|heard| heard.check).chain(found.map(|(check, _)| check));
        let last = known.fold(self.number, u64::max);
        let past = |base| Past { base, check: if base == self.base { last } else { u64::MAX } };
        self.past = certificate.members.iter().map(|member| (member.node, past(member.parent))).collect();
        // Who was healed does not know the average before.
        self.before = with_others.then_some(self.base);
        self.base = certificate.id();
        self.number = 0;
        if let Some(limit) = &mut self.limit {
            limit.averaged(found);
        }
        (self.called, self.passed, self.yielded) = (None, 0, 0);
        let base = self.base;
        // Others may have had the average before this node.
        self.early = core::mem::take(&mut self.heard);
        self.early.retain(|_, heard| heard.base == base);
        self.rebase = Some(with_others);
        self.actions.push_back(PolicyAction::Observe);
    }
}

impl AveragingPolicy for Dynamic {
    fn name(&self) -> &'static str {
        match self.options.gauge {
            Gauge::Naive => "naive FDA",
            Gauge::Linear => "linear FDA",
            Gauge::Sketch { .. } => "sketch FDA",
        }
    }

    fn handle(&mut self, now: Instant, input: PolicyInput<'_>) {
        match input {
            PolicyInput::Began { .. } => {
                self.rebase = Some(true);
                self.actions.push_back(PolicyAction::Observe);
            }
            PolicyInput::Stepped { .. } if self.follows_call(now) => self.contribute(),
            PolicyInput::Stepped { iteration, .. } => {
                if iteration.is_multiple_of(self.options.check_every) {
                    self.actions.push_back(PolicyAction::Observe);
                }
            }
            PolicyInput::Observed { parameters, peers } => match self.rebase.take() {
                Some(with_others) => self.move_to(parameters, with_others),
                None => self.begin_check(now, parameters, peers),
            },
            PolicyInput::Committed(certificate) => self.adopt(certificate, true),
            PolicyInput::Healed(certificate) => self.adopt(certificate, false),
            PolicyInput::Peers(peers) => {
                self.forget_the_past(peers);
                let (awaited, missing) = self.awaited(peers);
                if let Some(check) = &mut self.check {
                    (check.awaited, check.missing) = (awaited, missing);
                    self.end_check_if_complete();
                }
            }
            PolicyInput::Told { from, bytes } => self.take(now, from, bytes),
            // What it found is not what a later average follows.
            PolicyInput::Abandoned(_) => self.found = None,
            PolicyInput::Averaged(_) | PolicyInput::Interrupted | PolicyInput::Replaced | PolicyInput::Unsaid(_) => {}
        }
    }

    fn poll(&mut self) -> Option<PolicyAction> {
        self.actions.pop_front()
    }

    fn timeout(&self) -> Instant {
        self.check.as_ref().map_or(Instant::FAR, |check| check.until)
    }

    fn wake(&mut self, now: Instant) {
        if self.timeout() <= now {
            // Patience is several times what a message takes: nothing that was said before the last average is under way.
            self.past.clear();
            self.end_check();
        }
    }

    fn save(&self) -> Vec<u64> {
        saved::write(self)
    }

    fn restore(&mut self, state: &[u64]) {
        *self = saved::read(self.options.clone(), state).unwrap_or_else(|| {
            // It begins anew with the next look at the model, and whoever was saved may have paused.
            let actions = VecDeque::from([PolicyAction::Proceed]);
            Self { actions, rebase: Some(false), ..Self::new(self.options.clone()) }
        });
    }

    fn rejoin(&self) -> Rejoin {
        self.options.rejoin
    }

    fn outer(&self) -> Option<OuterOptimiser> {
        self.options.outer
    }
}

#[cfg(test)]
mod tests;
