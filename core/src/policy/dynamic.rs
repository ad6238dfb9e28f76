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
//! - A node that has missed an average has a drift since another `w₀`. Nobody can tell how far it is from the others, so
//!   that whoever hears of it averages.
//! - Axes are the same only among nodes that have both ends in common; where they have not, a linear gauge counts as a
//!   naive one, which is a bound as well.

mod gauge;
mod note;
mod sketch;
mod threshold;

pub use gauge::{Axis, Confidence, Gauge, State};
pub use sketch::Sketcher;
pub use threshold::Threshold;

use super::words::{Saved, Words};
use super::{AveragingPolicy, PolicyAction, PolicyInput, Rejoin, Request};
use crate::cluster::{Certificate, CertificateId, Digest, Round};
use crate::outer::OuterOptimiser;
use crate::scalar::Values;
use crate::seed::Seed;
use crate::time::{Duration, Instant};
use crate::transport::NodeId;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use note::Note;
use threshold::Limit;

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
    /// budget.
    pub patience: Duration,
    /// What a contribution consists of.
    pub request: Request,
    /// How a node that was away comes back.
    pub rejoin: Rejoin,
    /// What the first axis and the sketches are drawn from; the same on all nodes.
    pub seed: Seed,
    /// What is made of averages; `None` to take them as models.
    pub outer: Option<OuterOptimiser>,
}

impl DynamicOptions {
    /// A check after every iteration, waiting for 25 ms at most.
    pub fn new(gauge: Gauge, threshold: Threshold) -> Self {
        Self {
            gauge,
            threshold,
            check_every: 1,
            patience: Duration::from_millis(25),
            request: Request::default(),
            rejoin: Rejoin::FullWeight,
            seed: Seed(0),
            outer: None,
        }
    }
}

/// What a peer has said since the last check.
#[derive(Clone, Debug, PartialEq)]
struct Heard {
    base: CertificateId,
    before: Option<CertificateId>,
    state: State,
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
/// has missed an average makes all average that hear of it.
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
    heard: BTreeMap<NodeId, Heard>,
    check: Option<Check>,
    /// `H` of the check that the contribution follows.
    found: Option<f64>,
    /// A peer contributes.
    called: bool,
    /// What is to be observed is a new `w₀`, reached with the last average or without it.
    rebase: Option<bool>,
}

impl Dynamic {
    /// With these options.
    ///
    /// # Panics
    /// If `check_every` is 0.
    #[track_caller]
    pub fn new(options: DynamicOptions) -> Self {
        assert!(options.check_every > 0, "0 iterations from one check to the next leave no time to train");
        Self {
            options,
            actions: VecDeque::new(),
            sketcher: None,
            limit: None,
            origin: Vec::new(),
            base: CertificateId::default(),
            axis: None,
            before: None,
            heard: BTreeMap::new(),
            check: None,
            found: None,
            called: false,
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
        if self.options.gauge == Gauge::Linear && self.base != CertificateId::default() && !self.origin.is_empty() {
            self.axis = if with_others { Axis::between(&self.origin, &origin) } else { None };
        }
        self.origin = origin;
    }

    fn begin_check(&mut self, now: Instant, parameters: Values<'_>, peers: &[NodeId]) {
        if peers.is_empty() || parameters.len() != self.origin.len() {
            return;
        }
        let mut drift = self.origin.clone();
        parameters.for_each(|place, value| drift[place] = value - drift[place]);
        let state = self.options.gauge.state(&drift, self.axis.as_ref(), self.sketcher.as_ref());
        if !state.is_finite() {
            // Others would not believe it; training ends soon.
            return;
        }
        let bytes = Note::State { base: self.base, before: self.before, state: state.clone() }.encode();
        self.tell(peers, &bytes);
        self.actions.push_back(PolicyAction::Pause);
        let (awaited, missing) = self.awaited(peers);
        self.check = Some(Check { state, until: now + self.options.patience, awaited, missing });
        self.end_check_if_complete();
    }

    /// These peers, and those of them that have not been heard.
    fn awaited(&self, peers: &[NodeId]) -> (Vec<NodeId>, BTreeSet<NodeId>) {
        (peers.to_vec(), peers.iter().copied().filter(|node| !self.heard.contains_key(node)).collect())
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
        let common = heard.values().all(|heard| heard.base == self.base);
        self.found = None;
        let due = if common {
            let states: Vec<&State> =
                core::iter::once(&check.state).chain(heard.values().map(|heard| &heard.state)).collect();
            let same_axis = self.axis.is_some() && heard.values().all(|heard| heard.before == self.before);
            let bound = self.options.gauge.bound(&states, same_axis, self.sketcher.as_ref());
            self.found = Some(bound);
            self.limit.as_mut().is_some_and(|limit| limit.exceeded(bound))
        } else {
            true
        };
        if due {
            let checks = self.limit.as_ref().map_or(0, |limit| limit.checks);
            let found = self.found.map(|found| (found, checks));
            let call = Note::Call { base: self.base, found }.encode();
            self.tell(&check.awaited, &call);
            self.contribute();
        } else {
            self.actions.push_back(PolicyAction::Proceed);
        }
    }

    fn contribute(&mut self) {
        self.check = None;
        self.called = false;
        self.actions.push_back(PolicyAction::Contribute(self.options.request));
    }

    fn take(&mut self, from: NodeId, bytes: &[u8]) {
        match Note::decode(bytes, self.options.gauge.more()) {
            Some(Note::State { base, before, state }) => {
                self.heard.insert(from, Heard { base, before, state });
                if let Some(check) = &mut self.check {
                    check.missing.remove(&from);
                }
                self.end_check_if_complete();
            }
            // A call for the average that this node has made is late.
            Some(Note::Call { base, found }) if self.before != Some(base) || base == self.base => {
                self.called = true;
                let found = found.filter(|_| base == self.base);
                self.found = found.map(|(found, _)| found);
                // The threshold that follows is to be the caller's, whether this node has come as far as his last check or not.
                if let (Some(limit), Some((_, checks))) = (&mut self.limit, found) {
                    limit.checks = checks;
                }
                if self.check.is_some() {
                    self.contribute();
                }
            }
            Some(Note::Call { .. }) | None => {}
        }
    }

    /// Another average is the origin from now on.
    fn adopt(&mut self, certificate: &Certificate, with_others: bool) {
        // Who was healed does not know the average before.
        self.before = with_others.then_some(self.base);
        self.base = certificate.id();
        if let Some(limit) = &mut self.limit {
            limit.averaged(self.found.take());
        }
        self.called = false;
        let base = self.base;
        self.heard.retain(|_, heard| heard.base == base);
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
            PolicyInput::Stepped { .. } if self.called => self.contribute(),
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
                let (awaited, missing) = self.awaited(peers);
                if let Some(check) = &mut self.check {
                    (check.awaited, check.missing) = (awaited, missing);
                    self.end_check_if_complete();
                }
            }
            PolicyInput::Told { from, bytes } => self.take(from, bytes),
            PolicyInput::Abandoned(_)
            | PolicyInput::Averaged(_)
            | PolicyInput::Interrupted
            | PolicyInput::Replaced
            | PolicyInput::Unsaid(_) => {}
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
            self.end_check();
        }
    }

    fn save(&self) -> Vec<u64> {
        let mut words = Words::default();
        words.optional(self.limit.as_ref(), |words, limit| {
            words.0.extend([limit.value.to_bits(), limit.checks]);
        });
        words.values(&self.origin);
        words.id(&self.base);
        words.optional(self.axis.as_ref(), |words, axis| words.values(axis.values()));
        words.optional(self.before.as_ref(), Words::id);
        words.0.push(self.heard.len() as u64);
        for (node, heard) in &self.heard {
            words.0.push(u64::from(node.0));
            words.id(&heard.base);
            words.optional(heard.before.as_ref(), Words::id);
            words.state(&heard.state);
        }
        words.optional(self.check.as_ref(), |words, check| {
            words.state(&check.state);
            words.0.extend([check.until.as_nanos(), check.awaited.len() as u64]);
            words.0.extend(check.awaited.iter().map(|node| u64::from(node.0)));
        });
        words.optional(self.found.as_ref(), |words, found| words.0.push(found.to_bits()));
        words.0.push(u64::from(self.called));
        words.0
    }

    fn restore(&mut self, state: &[u64]) {
        let mut words = Saved::new(state);
        let read = read(self.options.clone(), &mut words).filter(|_| words.word().is_none());
        *self = read.unwrap_or_else(|| {
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

impl Words {
    fn id(&mut self, id: &CertificateId) {
        self.0.extend([id.round.0, id.digest.0]);
    }

    fn state(&mut self, state: &State) {
        self.0.push(state.norm.to_bits());
        self.values(&state.more);
    }
}

/// Reads what was saved with the same options; `None` if it ends too early or does not fit them.
fn read(options: DynamicOptions, words: &mut Saved<'_>) -> Option<Dynamic> {
    let id = |words: &mut Saved<'_>| Some(CertificateId { round: Round(words.word()?), digest: Digest(words.word()?) });
    let more = options.gauge.more();
    let state = |words: &mut Saved<'_>| {
        let state = State { norm: f64::from_bits(words.word()?), more: words.values()? };
        Some(state).filter(|state| state.more.len() == more && state.is_finite())
    };
    let mut policy = Dynamic::new(options);
    let limit = if words.flag()? { Some((f64::from_bits(words.word()?), words.word()?)) } else { None };
    policy.origin = words.values()?;
    if let Some((value, checks)) = limit {
        let DynamicOptions { gauge, threshold, seed, .. } = policy.options;
        policy.limit = Some(Limit::new(threshold, policy.origin.len()).at(value, checks));
        policy.sketcher = gauge.sketcher(policy.origin.len(), seed);
    }
    policy.base = id(words)?;
    policy.axis = if words.flag()? { Some(Axis::from_values(words.values()?)) } else { None };
    policy.axis.as_ref().is_none_or(|axis| axis.values().len() == policy.origin.len()).then_some(())?;
    policy.before = if words.flag()? { Some(id(words)?) } else { None };
    for _ in 0..words.count()? {
        let (from, base) = (words.node()?, id(words)?);
        let before = if words.flag()? { Some(id(words)?) } else { None };
        policy.heard.insert(from, Heard { base, before, state: state(words)? });
    }
    if words.flag()? {
        let (state, until) = (state(words)?, Instant::from_nanos(words.word()?));
        let awaited = (0..words.count()?).map(|_| words.node()).collect::<Option<Vec<_>>>()?;
        let (awaited, missing) = policy.awaited(&awaited);
        policy.check = Some(Check { state, until, awaited, missing });
    }
    policy.found = if words.flag()? { Some(f64::from_bits(words.word()?)) } else { None };
    policy.called = words.flag()?;
    Some(policy)
}

#[cfg(test)]
mod tests;
