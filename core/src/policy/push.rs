//! Push-sum: after every so many iterations, a node gives parts of its model away.
//!
//! Stochastic gradient push (Assran et al. 2018, arXiv 1811.10792) and its compressed form, along ways that need be neither
//! mutual nor always the same; see [`Push`].
//!
//! # For users
//! [`PushSum`] with a place in a [`Directed`] graph, and any compressor. With [`Identity`](crate::compress::Identity) and a
//! [`Pace`] of 1 it is stochastic gradient push.
//!
//! # For implementers
//! - Nothing is given to a node before it has asked. Its request says which of its starts it is, so that a later one is not
//!   taken for one that has had something already, and has it asked for all that it gives if it gives to the receiver, too;
//!   and for which exchange it waits: who has had its turn in that one answers at once, with all that it ever gave, be it
//!   nothing, so that the two are in step from then on. Whoever was lost or has missed something asks again.
//! - Every message carries the digest of the copy and of the sums that it leads to, and of the starts of both ends: what does
//!   not lead there, or would leave no weight or no numbers, is not taken, and all of it is asked for. A later start takes
//!   nothing that was meant for a former one; what is given before its request has come is lost with that.
//! - Who has given nothing in four exchanges in which it was its turn is not waited for until it gives again.
//! - What is taken while training makes a step is part of the mass at once and of the model after the step.

mod ends;

use super::exchange::{Assembled, Exchange, Family, Note, Turns, check_length, say};
use super::words::{Saved, Words};
use super::{AveragingPolicy, PolicyAction, PolicyInput};
use crate::cluster::Incarnation;
use crate::compress::Compressor;
use crate::gossip::{Directed, Pace, Place, Push};
use crate::scalar::Scalar;
use crate::seed::Seed;
use crate::time::{Duration, Instant};
use crate::transport::NodeId;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;
use ends::{HEAD, Receiver, Sender};

/// How many exchanges are looked at to see which turns one has missed who asks.
const MOST_TURNS: usize = 16;

/// The knobs of a [`PushSum`] policy.
#[derive(Clone, Debug)]
pub struct PushSumOptions {
    /// To whom it gives, and who gives to it.
    pub place: Place,
    /// How much it gives: everything where nothing is compressed, a twentieth to a fifth where much is.
    pub pace: Pace,
    /// How many values each tensor of the model has, each of which has a weight of its own; empty for one weight of all.
    pub tensors: Vec<usize>,
    /// Iterations from one exchange to the next, at least 1.
    pub interval: u64,
    /// How long an exchange waits for those whose turn it is to give.
    pub patience: Duration,
    /// What compressors draw from that choose at random.
    pub seed: Seed,
}

impl PushSumOptions {
    /// The place of a node in a graph; an exchange after every iteration, that waits for 25 ms, and a pace of 1.
    ///
    /// # Panics
    /// If there is no such node.
    #[track_caller]
    pub fn new(graph: &Directed, node: NodeId) -> Self {
        Self {
            place: graph.place(node),
            pace: Pace::Fixed(1.0),
            tensors: Vec::new(),
            interval: 1,
            patience: Duration::from_millis(25),
            seed: Seed(0),
        }
    }
}

/// Gives parts of models away and takes others': stochastic gradient push, compressed or not.
///
/// After every [`interval`](PushSumOptions::interval) iterations a node gives to those whose turn it is and that can be
/// reached, waits for those whose turn it is to give to it, and goes on with `x/w`.
pub struct PushSum<S: Scalar> {
    place: Place,
    pace: Pace,
    tensors: Vec<usize>,
    turns: Turns<S>,
    state: State<S>,
}

/// What a policy remembers.
struct State<S> {
    /// Which start of the node it is.
    birth: u64,
    receivers: BTreeMap<NodeId, Receiver>,
    senders: BTreeMap<NodeId, Sender>,
    /// `None` before the node begins.
    push: Option<Push<S>>,
    /// Exchanges so far, by iterations.
    exchange: u64,
    /// Until when the exchange waits, and whose turn it is to give.
    waiting: Option<(Instant, Vec<NodeId>)>,
}

impl<S: Scalar> State<S> {
    /// Of one that has not begun.
    fn new(place: &Place) -> Self {
        Self {
            birth: 0,
            receivers: place.receivers().into_iter().map(|node| (node, Receiver::default())).collect(),
            senders: place.senders().into_iter().map(|node| (node, Sender::default())).collect(),
            push: None,
            exchange: 0,
            waiting: None,
        }
    }

    /// Reads what was saved with the same options; `None` if it is something else.
    fn restore(pace: Pace, tensors: &[usize], place: &Place, words: &mut Saved<'_>) -> Option<Self> {
        let (birth, exchange) = (words.word()?, words.word()?);
        let push = if words.flag()? { Some(Push::restore(pace, tensors, words)?) } else { None };
        let receiver = |node: NodeId| (words.node()? == node).then_some((node, Receiver::restore(words)?));
        let receivers = place.receivers().into_iter().map(receiver).collect::<Option<_>>()?;
        let sender = |node: NodeId| (words.node()? == node).then_some((node, Sender::restore(words)?));
        let senders: BTreeMap<_, _> = place.senders().into_iter().map(sender).collect::<Option<_>>()?;
        let waiting = if words.flag()? {
            let (until, whose) = (Instant::from_nanos(words.word()?), words.nodes()?);
            whose.iter().all(|node| senders.contains_key(node)).then_some((until, whose)).map(Some)?
        } else {
            None
        };
        words.word().is_none().then_some(Self { birth, receivers, senders, push, exchange, waiting })
    }
}

impl<S: Scalar> fmt::Debug for PushSum<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushSum")
            .field("place", &self.place)
            .field("pace", &self.pace)
            .field("compressor", &self.turns.compressor.name())
            .field("exchange", &self.state.exchange)
            .finish_non_exhaustive()
    }
}

impl<S: Scalar> PushSum<S> {
    /// With these options; messages are compressed by `compressor`, the same on all nodes.
    ///
    /// # Panics
    /// If `interval` is 0, or more could be given than there is; when the node begins, as [`Push::new`] does, or if messages
    /// may have 4 GiB or more: those of what was lost have 8 bytes a value more than a model.
    #[track_caller]
    pub fn new(options: PushSumOptions, compressor: Box<dyn Compressor<S>>) -> Self {
        let PushSumOptions { place, pace, tensors, interval, patience, seed } = options;
        // A step that cannot be made is refused now.
        let _ = Push::<S>::new(pace, &[], &[]);
        let state = State::new(&place);
        Self { place, pace, tensors, turns: Turns::new(interval, patience, seed, compressor), state }
    }

    /// What it has, gives and takes; `None` before the node begins.
    pub fn push(&self) -> Option<&Push<S>> {
        self.state.push.as_ref()
    }

    fn end_if_complete(&mut self) {
        let State { waiting, senders, .. } = &self.state;
        if waiting.as_ref().is_some_and(|(_, whose)| whose.iter().all(|node| senders[node].is_done())) {
            self.end();
        }
    }
}

impl<S: Scalar> Exchange<S> for PushSum<S> {
    const FAMILY: Family = Family::Push;

    fn turns(&mut self) -> &mut Turns<S> {
        &mut self.turns
    }

    fn began(&mut self, incarnation: Incarnation) {
        self.state.birth = incarnation.0;
    }

    fn count(&mut self, exchange: u64) {
        self.state.exchange = exchange;
    }

    fn observed(&mut self, now: Instant, model: Vec<S>, peers: &[NodeId]) {
        let State { birth, receivers, senders, push, exchange, waiting } = &mut self.state;
        let push = push.get_or_insert_with(|| Push::new(self.pace, &self.tensors, &model));
        let told = push.head().saturating_add(*self.turns.compressor.sizes(model.len()).end());
        check_length(HEAD.saturating_add(push.whole_len().max(told)), model.len());
        // A model of another length than what was restored fits nothing that others have.
        let fits = model.len() == push.mass().values.len();
        if !self.turns.take_due() || !fits || !model.iter().all(|value| value.is_finite()) {
            return;
        }
        push.learn(&model);
        for (node, receiver) in receivers.iter_mut() {
            receiver.follows &= peers.contains(node);
        }
        for (&node, sender) in senders {
            if !peers.contains(&node) {
                sender.part();
            } else if sender.is_to_be_asked() {
                sender.ask(node, (*birth, *exchange), &mut self.turns.actions);
            }
        }
        let (mut to, mut from) = self.place.at(*exchange);
        to.retain(|node| peers.contains(node) && receivers[node].birth.is_some());
        from.retain(|node| peers.contains(node));
        let mut random = self.turns.random(*exchange);
        // What cannot be said is not given; a model that is no numbers ends training.
        for (node, body) in push.give(&to, &mut *self.turns.compressor, &mut random).unwrap_or_default() {
            let receiver = receivers.get_mut(&node).expect("one of them");
            say(Self::FAMILY, &mut self.turns.actions, node, &receiver.letter(push, (*birth, 1), node, &body));
        }
        *waiting = Some((self.turns.pause(now), from));
        self.end_if_complete();
    }

    fn told(&mut self, from: NodeId, note: Note<'_>) {
        let State { birth, receivers, senders, push: Some(push), exchange, .. } = &mut self.state else { return };
        let actions = &mut self.turns.actions;
        match note {
            Note::AskAs { birth: theirs, exchange: asked } => {
                if let Some(receiver) = receivers.get_mut(&from) {
                    if receiver.birth.is_some_and(|known| known != theirs) {
                        push.forget_receiver(from);
                    }
                    receiver.birth = Some(theirs);
                    receiver.follows = false;
                    // Whoever asks waits for what it was not given in its turns since, be it nothing.
                    let missed = (asked..=*exchange).take(MOST_TURNS).filter(|&turn| self.place.sends(from, turn));
                    // Who is further behind has begun later, and counts from another beginning.
                    let most = if *exchange < asked.saturating_add(MOST_TURNS as u64) { MOST_TURNS } else { 1 };
                    let turns = missed.take(most).count() as u64;
                    if turns > 0 {
                        say(Self::FAMILY, actions, from, &receiver.letter(push, (*birth, turns), from, &[]));
                    }
                }
                if let Some(sender) = senders.get_mut(&from)
                    && sender.begins_anew(theirs)
                {
                    sender.ask(from, (*birth, *exchange), actions);
                }
            }
            Note::Piece(piece) => {
                let Some(sender) = senders.get_mut(&from) else { return };
                let sizes = self.turns.compressor.sizes(push.mass().values.len());
                let [least, most] = [sizes.start(), sizes.end()].map(|size| HEAD + push.head() + size);
                let whole = HEAD + push.whole_len();
                let can_have = |total| if piece.whole { total == whole } else { (least..=most).contains(&total) };
                let taken = match sender.partial.add(&piece, can_have) {
                    Assembled::Wrong => false,
                    Assembled::Partly => return,
                    Assembled::Message(message) => {
                        sender.take(push, &mut *self.turns.compressor, (from, *birth), &message)
                    }
                };
                if taken {
                    self.end_if_complete();
                } else {
                    sender.lose(from, (*birth, *exchange), &mut self.turns.actions);
                }
            }
            Note::Ask => {}
        }
    }

    fn until(&self) -> Instant {
        self.state.waiting.as_ref().map_or(Instant::FAR, |(until, _)| *until)
    }

    fn end(&mut self) {
        let State { push: Some(push), senders, waiting, .. } = &mut self.state else { return };
        let Some((_, whose)) = waiting.take() else { return };
        for node in whose {
            senders.get_mut(&node).expect("one of them").end();
        }
        self.turns.proceed(Some(push.model()));
    }
}

impl<S: Scalar> AveragingPolicy for PushSum<S> {
    fn name(&self) -> &'static str {
        "push-sum"
    }

    fn handle(&mut self, now: Instant, input: PolicyInput<'_>) {
        self.take(now, input);
    }

    fn poll(&mut self) -> Option<PolicyAction> {
        self.turns.actions.pop_front()
    }

    fn timeout(&self) -> Instant {
        self.until()
    }

    fn wake(&mut self, now: Instant) {
        self.wake_up(now);
    }

    fn save(&self) -> Vec<u64> {
        let State { birth, receivers, senders, push, exchange, waiting } = &self.state;
        let mut words = Words::default();
        words.0.extend([*birth, *exchange]);
        words.optional(push.as_ref(), |words, push| push.save(words));
        for (node, receiver) in receivers {
            words.0.push(u64::from(node.0));
            receiver.save(&mut words);
        }
        for (node, sender) in senders {
            words.0.push(u64::from(node.0));
            sender.save(&mut words);
        }
        words.optional(waiting.as_ref(), |words, (until, whose)| {
            words.0.push(until.as_nanos());
            words.nodes(whose);
        });
        words.0
    }

    fn restore(&mut self, state: &[u64]) {
        self.turns.reset();
        let restored = State::restore(self.pace, &self.tensors, &self.place, &mut Saved::new(state));
        self.state = restored.unwrap_or_else(|| {
            self.turns.actions.push_back(PolicyAction::Proceed);
            // As of a later start than any: what others have given is not given again.
            State { birth: u64::MAX, ..State::new(&self.place) }
        });
    }
}
