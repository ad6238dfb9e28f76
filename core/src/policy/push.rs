//! Push-sum: after every so many iterations, a node gives parts of its model away.
//!
//! Stochastic gradient push (Assran et al. 2018, arXiv 1811.10792) and its compressed form, along ways that need be neither
//! mutual nor always the same; see [`Push`].
//!
//! # For users
//! [`PushSum`] with a place in a [`Directed`] graph, and any compressor. With [`Identity`](crate::compress::Identity) and a
//! step of 1 it is stochastic gradient push.
//!
//! # For implementers
//! - Nothing is given to a node before it has asked. Its request says when it began, so that a later start of it is not
//!   taken for one that has had something already. Whoever was lost or has missed something asks again.
//! - Every message carries the digest of the copy that it leads to, as with [`Gossip`](super::Gossip).
//! - Who has given nothing in four exchanges in which it was its turn is not waited for until it gives again.
//! - What is taken while training makes a step is part of the mass at once and of the model after the step.

use super::gossip::note::{Note, Piece};
use super::gossip::{Message, digest, message, say};
use super::words::{Saved, Words};
use super::{AveragingPolicy, PolicyAction, PolicyInput};
use crate::compress::Compressor;
use crate::gossip::{Directed, HEAD, Push};
use crate::scalar::{Scalar, Values};
use crate::seed::Seed;
use crate::time::{Duration, Instant};
use crate::transport::NodeId;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::fmt;

/// The knobs of a [`PushSum`] policy.
#[derive(Clone, Debug)]
pub struct PushSumOptions {
    /// For each phase, to whom it gives.
    receivers: Vec<Vec<NodeId>>,
    /// For each phase, who gives to it.
    senders: Vec<Vec<NodeId>>,
    /// `γ`: 1 where nothing is compressed, .05 to .2 where much is.
    pub step: f64,
    /// Iterations from one exchange to the next, at least 1.
    pub interval: u64,
    /// How long an exchange waits for those whose turn it is to give.
    pub patience: Duration,
    /// What compressors draw from that choose at random.
    pub seed: Seed,
}

impl PushSumOptions {
    /// The place of a node in a graph; an exchange after every iteration, that waits for 25 ms, and a step of 1.
    ///
    /// # Panics
    /// If there is no such node.
    #[track_caller]
    pub fn new(graph: &Directed, node: NodeId) -> Self {
        let phases = 0..graph.phases();
        Self {
            receivers: phases.clone().map(|phase| graph.receivers(node.0, phase).map(NodeId).collect()).collect(),
            senders: phases.map(|phase| graph.senders(node.0, phase).map(NodeId).collect()).collect(),
            step: 1.0,
            interval: 1,
            patience: Duration::from_millis(25),
            seed: Seed(0),
        }
    }
}

/// One to whom a node gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Receiver {
    /// When the start of it began that has asked; `None` if none has.
    birth: Option<u64>,
    /// Whether it has had everything, unless it says otherwise.
    follows: bool,
    /// Messages to it.
    sequence: u64,
}

/// One that gives to a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sender {
    /// When the start of it began whose messages have been taken.
    birth: Option<u64>,
    /// Messages taken; `None` if it has to send a whole one.
    held: Option<u64>,
    /// It has been asked for that.
    asked: bool,
    /// It has given since it was last waited for.
    fresh: bool,
    /// Turns of it that have ended without anything.
    silent: u32,
    /// A message of which pieces are missing, and how long it will be.
    partial: Option<(Message, usize)>,
}

/// Turns without anything after which a sender is not waited for.
const MOST_SILENT: u32 = 4;

/// Turns without anything after which a sender is asked again, more and more rarely; one that is some times slower is not
/// asked.
const LONG_SILENT: u32 = 16;

/// Gives parts of models away and takes others': stochastic gradient push, compressed or not.
///
/// After every [`interval`](PushSumOptions::interval) iterations a node gives to those whose turn it is and that can be
/// reached, waits for those whose turn it is to give to it, and goes on with `x/w`.
pub struct PushSum<S: Scalar> {
    options: PushSumOptions,
    compressor: Box<dyn Compressor<S>>,
    actions: VecDeque<PolicyAction>,
    birth: u64,
    receivers: BTreeMap<NodeId, Receiver>,
    senders: BTreeMap<NodeId, Sender>,
    /// `None` before the node begins.
    push: Option<Push<S>>,
    /// Exchanges so far, by iterations.
    exchange: u64,
    /// Until when the exchange waits, and whose turn it is to give.
    waiting: Option<(Instant, Vec<NodeId>)>,
    /// What is to be observed is to be exchanged.
    due: bool,
}

impl<S: Scalar> fmt::Debug for PushSum<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushSum")
            .field("options", &self.options)
            .field("compressor", &self.compressor.name())
            .field("exchange", &self.exchange)
            .finish_non_exhaustive()
    }
}

impl<S: Scalar> PushSum<S> {
    /// With these options; messages are compressed by `compressor`, the same on all nodes.
    ///
    /// # Panics
    /// If `interval` is 0, or as [`Push::new`] does.
    #[track_caller]
    pub fn new(options: PushSumOptions, compressor: Box<dyn Compressor<S>>) -> Self {
        assert!(options.interval > 0, "0 iterations from one exchange to the next leave no time to train");
        // A step that cannot be made is refused now.
        let _ = Push::<S>::new(options.step, &[]);
        let all = |phases: &[Vec<NodeId>]| phases.iter().flatten().copied().collect::<Vec<_>>();
        Self {
            receivers: all(&options.receivers).into_iter().map(|node| (node, Receiver::default())).collect(),
            senders: all(&options.senders).into_iter().map(|node| (node, Sender::default())).collect(),
            options,
            compressor,
            actions: VecDeque::new(),
            birth: 0,
            push: None,
            exchange: 0,
            waiting: None,
            due: false,
        }
    }

    /// What it has, gives and takes; `None` before the node begins.
    pub fn push(&self) -> Option<&Push<S>> {
        self.push.as_ref()
    }

    fn begin(&mut self, now: Instant, parameters: Values<'_>, peers: &[NodeId]) {
        let mut model = Vec::with_capacity(parameters.len());
        parameters.for_each(|_, value| model.push(S::of(value)));
        let push = self.push.get_or_insert_with(|| Push::new(self.options.step, &model));
        if !core::mem::take(&mut self.due) || !model.iter().all(|value| value.is_finite()) {
            return;
        }
        push.learn(&model);
        for (node, receiver) in &mut self.receivers {
            receiver.follows &= peers.contains(node);
        }
        for (&node, sender) in &mut self.senders {
            if !peers.contains(&node) {
                // What it says from now on is not what follows what it said before.
                *sender = Sender { birth: sender.birth, ..Sender::default() };
            } else if sender.is_to_be_asked() {
                sender.ask(node, self.birth, &mut self.actions);
            }
        }
        let phase = (self.exchange % self.options.receivers.len() as u64) as usize;
        let known = |node: &NodeId| peers.contains(node) && self.receivers[node].birth.is_some();
        let to: Vec<NodeId> = self.options.receivers[phase].iter().copied().filter(known).collect();
        let mut random = self.options.seed.derive("message", self.exchange).random();
        // What cannot be said is not given; a model that is no numbers ends training.
        for (node, bytes) in push.give(&to, &mut *self.compressor, &mut random).unwrap_or_default() {
            let receiver = self.receivers.get_mut(&node).expect("one of them");
            receiver.sequence += 1;
            if receiver.follows {
                let letter = letter(push, self.birth, node, receiver.sequence, false, bytes);
                say(&mut self.actions, node, &letter);
            } else {
                say_whole(push, self.birth, node, receiver, &mut self.actions);
            }
        }
        let there = |node: &NodeId| peers.contains(node);
        let senders = self.options.senders[phase].iter().copied().filter(there).collect();
        self.actions.push_back(PolicyAction::Pause);
        self.waiting = Some((now + self.options.patience, senders));
        self.end_if_complete();
    }

    fn end_if_complete(&mut self) {
        let is_done = |node: &NodeId| self.senders[node].fresh || !self.senders[node].is_awaited();
        if self.waiting.as_ref().is_some_and(|(_, senders)| senders.iter().all(is_done)) {
            self.end();
        }
    }

    /// Goes on with what there is.
    fn end(&mut self) {
        let (Some((_, senders)), Some(push)) = (self.waiting.take(), &mut self.push) else {
            return;
        };
        for node in senders {
            let sender = self.senders.get_mut(&node).expect("one of them");
            sender.silent = if core::mem::take(&mut sender.fresh) { 0 } else { sender.silent.saturating_add(1) };
        }
        let model = push.model();
        if model.iter().all(|value| value.is_finite()) {
            self.actions.push_back(PolicyAction::Adopt(model.iter().map(|value| value.wide()).collect()));
        }
        self.actions.push_back(PolicyAction::Proceed);
    }

    fn told(&mut self, from: NodeId, bytes: &[u8]) {
        let Some(push) = &mut self.push else { return };
        match Note::decode(bytes) {
            Some(Note::AskAs(birth)) => {
                let Some(receiver) = self.receivers.get_mut(&from) else { return };
                if receiver.birth.is_some_and(|known| known != birth) {
                    push.forget_receiver(from);
                }
                receiver.birth = Some(birth);
                receiver.follows = false;
            }
            Some(Note::Piece(piece)) => {
                let Some(sender) = self.senders.get_mut(&from) else { return };
                let len = self.compressor.sizes(push.mass().values.len());
                let whole = BIRTH + Push::<S>::whole_len(push.mass().values.len());
                let least = BIRTH + HEAD + len.start();
                let most = BIRTH + HEAD + len.end();
                let fits = |total: usize| if piece.whole { total == whole } else { (least..=most).contains(&total) };
                let taken = match sender.assemble(&piece, fits) {
                    Assembled::Wrong => false,
                    Assembled::Partly => return,
                    Assembled::Message(message) => sender.take(push, &mut *self.compressor, from, &message),
                };
                if !taken {
                    sender.held = None;
                    sender.partial = None;
                    if !sender.asked {
                        sender.ask(from, self.birth, &mut self.actions);
                    }
                    return;
                }
                self.end_if_complete();
            }
            // Said by a policy of another kind.
            Some(Note::Ask) | None => {}
        }
    }
}

/// What a piece has led to.
enum Assembled {
    Wrong,
    Partly,
    Message(Message),
}

impl Sender {
    fn is_awaited(&self) -> bool {
        self.held.is_some() && self.silent < MOST_SILENT
    }

    /// Whether it has not been asked, or has said nothing for so long that the request or what it answered may be lost, or
    /// it may have begun anew.
    fn is_to_be_asked(&self) -> bool {
        (self.held.is_none() && !self.asked) || (self.silent >= LONG_SILENT && self.silent.is_power_of_two())
    }

    /// Asks for a whole message.
    fn ask(&mut self, node: NodeId, birth: u64, actions: &mut VecDeque<PolicyAction>) {
        self.asked = true;
        actions.push_back(PolicyAction::Tell { to: node, bytes: Note::AskAs(birth).encode() });
    }

    fn assemble(&mut self, piece: &Piece<'_>, fits: impl Fn(usize) -> bool) -> Assembled {
        let Piece { whole, sequence, digest, total, offset, bytes } = *piece;
        if offset == 0 {
            if !fits(total as usize) {
                return Assembled::Wrong;
            }
            let message = Message { sequence, digest, whole, bytes: Vec::with_capacity(total as usize) };
            self.partial = Some((message, total as usize));
        }
        let Some((mut message, total)) = self.partial.take() else { return Assembled::Wrong };
        let expected = (message.sequence, message.whole, message.bytes.len());
        if expected != (sequence, whole, offset as usize) || message.bytes.len() + bytes.len() > total {
            return Assembled::Wrong;
        }
        message.bytes.extend_from_slice(bytes);
        if message.bytes.len() < total {
            self.partial = Some((message, total));
            return Assembled::Partly;
        }
        Assembled::Message(message)
    }

    /// Whether it could be taken.
    fn take<S: Scalar>(
        &mut self,
        push: &mut Push<S>,
        compressor: &mut dyn Compressor<S>,
        from: NodeId,
        message: &Message,
    ) -> bool {
        let Some((birth, body)) = message.bytes.split_first_chunk() else { return false };
        let birth = u64::from_le_bytes(*birth);
        let read = if message.whole {
            if self.birth.is_some_and(|known| known != birth) {
                push.forget_sender(from);
            }
            self.birth = Some(birth);
            push.take_whole(from, body)
        } else if self.birth == Some(birth)
            && self.held.is_some_and(|held| held.checked_add(1) == Some(message.sequence))
        {
            push.take(from, body, compressor)
        } else {
            return false;
        };
        if read.is_err() || push.copy_of(from).is_none_or(|copy| digest(copy) != message.digest) {
            return false;
        }
        self.asked &= !message.whole;
        self.held = Some(message.sequence);
        self.fresh = true;
        true
    }
}

/// Bytes in front of a message that say when its sender began.
const BIRTH: usize = 8;

fn letter<S: Scalar>(push: &Push<S>, birth: u64, to: NodeId, sequence: u64, whole: bool, body: Vec<u8>) -> Message {
    let digest = digest(push.copy_at(to).unwrap_or_default());
    let mut bytes = Vec::with_capacity(BIRTH + body.len());
    bytes.extend_from_slice(&birth.to_le_bytes());
    bytes.extend_from_slice(&body);
    Message { sequence, digest, whole, bytes }
}

/// Says all that was ever given to a receiver.
fn say_whole<S: Scalar>(
    push: &mut Push<S>,
    birth: u64,
    to: NodeId,
    receiver: &mut Receiver,
    actions: &mut VecDeque<PolicyAction>,
) {
    let body = push.whole(to);
    receiver.follows = true;
    say(actions, to, &letter(push, birth, to, receiver.sequence, true, body));
}

impl<S: Scalar> AveragingPolicy for PushSum<S> {
    fn name(&self) -> &'static str {
        "push-sum"
    }

    fn handle(&mut self, now: Instant, input: PolicyInput<'_>) {
        match input {
            PolicyInput::Began { .. } => {
                self.birth = now.as_nanos();
                self.actions.push_back(PolicyAction::Observe);
            }
            PolicyInput::Stepped { iteration, .. } => {
                if iteration.is_multiple_of(self.options.interval) {
                    self.exchange = iteration / self.options.interval;
                    self.due = true;
                    self.actions.push_back(PolicyAction::Observe);
                }
            }
            PolicyInput::Observed { parameters, peers } => self.begin(now, parameters, peers),
            PolicyInput::Told { from, bytes } => self.told(from, bytes),
            // What was said by who has gone may still be on its way: the deadline is near enough.
            PolicyInput::Peers(_) => {}
            // Nothing is committed where nobody contributes.
            PolicyInput::Committed(_)
            | PolicyInput::Healed(_)
            | PolicyInput::Abandoned(_)
            | PolicyInput::Averaged(_)
            | PolicyInput::Interrupted => {}
        }
    }

    fn poll(&mut self) -> Option<PolicyAction> {
        self.actions.pop_front()
    }

    fn timeout(&self) -> Instant {
        self.waiting.as_ref().map_or(Instant::FAR, |(until, _)| *until)
    }

    fn wake(&mut self, now: Instant) {
        if self.timeout() <= now {
            self.end();
        }
    }

    fn save(&self) -> Vec<u64> {
        let mut words = Words::default();
        words.0.extend([self.birth, self.exchange]);
        words.optional(self.push.as_ref(), |words, push| push.save(words));
        for (node, receiver) in &self.receivers {
            words.0.extend([u64::from(node.0), u64::from(receiver.follows), receiver.sequence]);
            words.optional(receiver.birth.as_ref(), |words, &birth| words.0.push(birth));
        }
        for (node, sender) in &self.senders {
            let flags = [u64::from(sender.asked), u64::from(sender.fresh), u64::from(sender.silent)];
            words.0.push(u64::from(node.0));
            words.0.extend(flags);
            words.optional(sender.birth.as_ref(), |words, &birth| words.0.push(birth));
            words.optional(sender.held.as_ref(), |words, &held| words.0.push(held));
            words.optional(sender.partial.as_ref(), |words, (message, total)| {
                words.message(message);
                words.0.push(*total as u64);
            });
        }
        words.optional(self.waiting.as_ref(), |words, (until, senders)| {
            words.0.extend([until.as_nanos(), senders.len() as u64]);
            words.0.extend(senders.iter().map(|node| u64::from(node.0)));
        });
        words.0
    }

    fn restore(&mut self, state: &[u64]) {
        self.actions.clear();
        self.due = false;
        if self.read(&mut Saved::new(state)).is_none() {
            self.push = None;
            self.waiting = None;
            self.receivers.values_mut().for_each(|receiver| *receiver = Receiver::default());
            self.senders.values_mut().for_each(|sender| *sender = Sender::default());
            self.actions.push_back(PolicyAction::Proceed);
        }
    }
}

impl<S: Scalar> PushSum<S> {
    /// Reads what was saved with the same options; `None` if it is something else.
    fn read(&mut self, words: &mut Saved<'_>) -> Option<()> {
        let word = |words: &mut Saved<'_>| if words.flag()? { words.word().map(Some) } else { Some(None) };
        (self.birth, self.exchange) = (words.word()?, words.word()?);
        self.push = if words.flag()? { Some(Push::restore(self.options.step, words)?) } else { None };
        for (node, receiver) in &mut self.receivers {
            let (whose, follows, sequence) = (words.node()?, words.flag()?, words.word()?);
            *receiver = Receiver { follows, sequence, birth: word(words)? };
            (whose == *node).then_some(())?;
        }
        for (node, sender) in &mut self.senders {
            let (whose, asked, fresh) = (words.node()?, words.flag()?, words.flag()?);
            let silent = u32::try_from(words.word()?).ok()?;
            let (birth, held) = (word(words)?, word(words)?);
            let partial = if words.flag()? { Some((message(words)?, words.word()? as usize)) } else { None };
            *sender = Sender { birth, held, asked, fresh, silent, partial };
            (whose == *node).then_some(())?;
        }
        self.waiting = if words.flag()? {
            let until = Instant::from_nanos(words.word()?);
            let senders = (0..words.count()?).map(|_| words.node()).collect::<Option<Vec<_>>>()?;
            senders.iter().all(|node| self.senders.contains_key(node)).then_some(())?;
            Some((until, senders))
        } else {
            None
        };
        words.word().is_none().then_some(())
    }
}
