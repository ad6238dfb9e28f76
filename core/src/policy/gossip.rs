//! Gossip: after every so many iterations, models move towards those of their neighbours.
//!
//! D-PSGD (Lian et al. 2017), CHOCO-SGD (Koloskova, Stich & Jaggi 2019, arXiv 1902.00340) and AdaGossip (Aketi et al.
//! 2024), carried by notes: no rounds, no agreement, nobody waits for anybody but its neighbours.
//!
//! # For users
//! [`Gossip`] with a [`Row`] of a mixing matrix, a [`Rule`] and any [`Compressor`]. With [`Identity`],
//! `Rule::Choco { step: 1.0 }` is D-PSGD.
//!
//! # For implementers
//! - A node keeps public copies of its neighbours' models, which each of them keeps of its own, equal to the bit. Every
//!   message carries the digest of the copy that it leads to: who finds another has missed something, takes no account of
//!   that neighbour, and asks for the copy whole.
//! - Who waits for a neighbour waits for *one* message of it, so that neighbours stay in step; a message that came earlier
//!   is kept for its turn. Who has not spoken until the deadline counts by what was last known of it.
//! - Who has not spoken for four exchanges is neither waited for nor counted nor sent anything but requests,
//!   more and more rarely, until it speaks again: nothing piles up in front of a slow link.
//! - Who cannot be reached when an exchange begins is no neighbour: what was given to it each gives to itself
//!   ([`Mixing::without`](crate::gossip::Mixing::without)), so that the mean over nodes stays where it is once both ends know. Whoever returns is sent a
//!   whole copy, and sends one.

pub(super) mod note;

use super::words::{Saved, Words};
use super::{AveragingPolicy, PolicyAction, PolicyInput};
use crate::cluster::{Digest, Digester};
use crate::compress::{Compressor, Identity};
use crate::gossip::{Consensus, Row, Rule};
use crate::scalar::{Scalar, Values};
use crate::seed::Seed;
use crate::time::{Duration, Instant};
use crate::transport::NodeId;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::fmt;
use note::{Note, Piece};

/// The knobs of a [`Gossip`] policy.
#[derive(Clone, Debug)]
pub struct GossipOptions {
    /// Who its neighbours are and how much it gives to each: its row of a [`Mixing`](crate::gossip::Mixing).
    pub row: Row,
    /// How models move.
    pub rule: Rule,
    /// Iterations from one exchange to the next, at least 1.
    pub interval: u64,
    /// How long an exchange waits for neighbours that seem to be there.
    pub patience: Duration,
    /// What compressors draw from that choose at random.
    pub seed: Seed,
}

impl GossipOptions {
    /// An exchange after every iteration, that waits for neighbours for 25 ms.
    pub fn new(row: Row, rule: Rule) -> Self {
        Self { row, rule, interval: 1, patience: Duration::from_millis(25), seed: Seed(0) }
    }
}

/// What a neighbour has said, all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// How many messages its copy consists of with this one.
    pub(super) sequence: u64,
    /// Of that copy.
    pub(super) digest: Digest,
    /// Whether it is the copy itself, instead of what is to be added to it.
    pub(super) whole: bool,
    pub(super) bytes: Vec<u8>,
}

/// What a node knows of a neighbour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Neighbour {
    /// Whether it has this node's public copy, unless it says otherwise.
    follows: bool,
    /// How many messages this node's copy of it consists of; `None` if there is none.
    held: Option<u64>,
    /// What has come and was not taken in yet, oldest first.
    pending: VecDeque<Message>,
    /// A message of which pieces are missing, and how long it will be.
    partial: Option<(Message, usize)>,
    /// It has been asked for its copy, which has not come.
    asked: bool,
    /// Exchanges that have ended without news of it.
    silent: u32,
    /// The sequence of its last message.
    last: u64,
}

impl Neighbour {
    /// The sequence of a message that adds to the last one.
    fn next(&self) -> Option<u64> {
        self.pending.back().map(|message| message.sequence).or(self.held)?.checked_add(1)
    }

    fn is_silent(&self) -> bool {
        self.silent >= MOST_SILENT
    }

    /// Its copy is of no use any more; asks for it if that was not done yet.
    fn lose(&mut self, node: NodeId, actions: &mut VecDeque<PolicyAction>) {
        self.held = None;
        self.pending.clear();
        self.ask(node, actions);
    }

    /// Asks for its copy, once.
    fn ask(&mut self, node: NodeId, actions: &mut VecDeque<PolicyAction>) {
        if !self.asked {
            self.asked = true;
            actions.push_back(PolicyAction::Tell { to: node, bytes: Note::Ask.encode() });
        }
    }
}

/// An exchange that waits for others.
#[derive(Clone, Debug, PartialEq)]
struct Exchange<S> {
    model: Vec<S>,
    until: Instant,
    /// Neighbours that could be reached when it began.
    live: Vec<NodeId>,
}

/// Exchanges without a message after which a neighbour is taken for silent.
const MOST_SILENT: u32 = 4;

/// A neighbour that has sent so many messages ahead of its turn is asked to begin anew.
const MOST_PENDING: usize = 4;

/// Moves models towards those of neighbours: D-PSGD, CHOCO-SGD or AdaGossip, by its [`rule`](GossipOptions::rule).
///
/// After every [`interval`](GossipOptions::interval) iterations a node tells each neighbour that can be reached what has
/// changed in its model, waits for one message of each, and moves. Who has missed something asks for it whole.
pub struct Gossip<S: Scalar> {
    options: GossipOptions,
    compressor: Box<dyn Compressor<S>>,
    actions: VecDeque<PolicyAction>,
    neighbours: BTreeMap<NodeId, Neighbour>,
    /// `None` before the node begins.
    consensus: Option<Consensus<S>>,
    /// Messages that this node's public copy consists of.
    sequence: u64,
    exchange: Option<Exchange<S>>,
    /// What is to be observed is to be exchanged.
    due: bool,
}

impl<S: Scalar> fmt::Debug for Gossip<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gossip")
            .field("options", &self.options)
            .field("compressor", &self.compressor.name())
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl<S: Scalar> Gossip<S> {
    /// With these options; messages are compressed by `compressor`, the same on all nodes.
    ///
    /// # Panics
    /// If `interval` is 0, or as [`Consensus::new`] does.
    #[track_caller]
    pub fn new(options: GossipOptions, compressor: Box<dyn Compressor<S>>) -> Self {
        assert!(options.interval > 0, "0 iterations from one exchange to the next leave no time to train");
        // A rule that cannot be kept is refused now.
        let _ = Consensus::<S>::new(options.rule, &options.row, 0);
        let neighbours = options.row.others.keys().map(|&node| (node, Neighbour::default())).collect();
        Self {
            options,
            compressor,
            actions: VecDeque::new(),
            neighbours,
            consensus: None,
            sequence: 0,
            exchange: None,
            due: false,
        }
    }

    /// The public copy of its own model; empty before the node begins.
    pub fn own(&self) -> &[S] {
        self.consensus.as_ref().map_or(&[], |consensus| consensus.own())
    }

    /// The public copy of a neighbour's model as of the last exchange, where there is one.
    pub fn other(&self, node: NodeId) -> Option<&[S]> {
        self.consensus.as_ref()?.other(node)
    }

    /// A row that gives to the live neighbours whose copies are known.
    fn row(&self, live: &[NodeId]) -> Row {
        let is_known = |node: &NodeId| {
            live.contains(node) && self.neighbours.get(node).is_some_and(|neighbour| neighbour.held.is_some())
        };
        let Row { mut own, others } = self.options.row.clone();
        let (others, left_out): (BTreeMap<_, _>, BTreeMap<_, _>) =
            others.into_iter().partition(|(node, _)| is_known(node));
        own += left_out.values().sum::<f64>();
        Row { own, others }
    }

    /// Whoever is not among `peers` is no neighbour for now: what is on the way to it is lost, and what it has said is old.
    fn part(&mut self, peers: &[NodeId]) {
        for (node, neighbour) in &mut self.neighbours {
            if !peers.contains(node) {
                *neighbour = Neighbour::default();
            }
        }
    }

    fn begin(&mut self, now: Instant, parameters: Values<'_>, peers: &[NodeId]) {
        let mut model = Vec::with_capacity(parameters.len());
        parameters.for_each(|_, value| model.push(S::of(value)));
        let consensus =
            self.consensus.get_or_insert_with(|| Consensus::new(self.options.rule, &self.options.row, model.len()));
        if !core::mem::take(&mut self.due) || model.len() != consensus.own().len() {
            return;
        }
        let mut bytes = Vec::new();
        let mut random = self.options.seed.derive("message", self.sequence).random();
        if consensus.send(&model, &mut *self.compressor, &mut random, &mut bytes).is_err() {
            // No numbers; training ends soon.
            return;
        }
        self.sequence += 1;
        if !consensus.own().iter().all(|value| value.is_finite()) {
            // Sums of what was sent have left the range of numbers, though the model has not: from the beginning.
            self.consensus = None;
            self.part(&[]);
            return;
        }
        let digest = digest(consensus.own());
        self.part(peers);
        let live: Vec<NodeId> = self.neighbours.keys().copied().filter(|node| peers.contains(node)).collect();
        if live.is_empty() {
            return;
        }
        let message = Message { sequence: self.sequence, digest, whole: false, bytes };
        for &to in &live {
            let neighbour = self.neighbours.get_mut(&to).expect("one of them");
            if neighbour.is_silent() {
                // What it has missed is sent whole once it speaks again. It is asked more and more rarely: the request or
                // the answer may have been lost, or wait in front of the link.
                neighbour.follows = false;
                neighbour.held = None;
                neighbour.asked &= !neighbour.silent.is_power_of_two();
                neighbour.ask(to, &mut self.actions);
                continue;
            }
            if neighbour.follows {
                say(&mut self.actions, to, &message);
            } else {
                self.say_whole(to);
            }
        }
        self.actions.push_back(PolicyAction::Pause);
        self.exchange = Some(Exchange { model, until: now + self.options.patience, live });
        self.end_if_complete();
    }

    /// Says the public copy of this node's model to a neighbour.
    fn say_whole(&mut self, to: NodeId) {
        let (Some(consensus), Some(neighbour)) = (&self.consensus, self.neighbours.get_mut(&to)) else {
            return;
        };
        let mut bytes = Vec::with_capacity(consensus.own().len() * S::BYTES);
        let mut random = self.options.seed.random();
        if Identity.encode(consensus.own(), &mut random, &mut bytes).is_err() {
            return;
        }
        neighbour.follows = true;
        let message = Message { sequence: self.sequence, digest: digest(consensus.own()), whole: true, bytes };
        say(&mut self.actions, to, &message);
    }

    fn end_if_complete(&mut self) {
        let awaited = |node: &NodeId| {
            self.neighbours.get(node).is_some_and(|known| known.pending.is_empty() && !known.is_silent())
        };
        if self.exchange.as_ref().is_some_and(|exchange| !exchange.live.iter().any(awaited)) {
            self.end();
        }
    }

    /// Moves with what is there.
    fn end(&mut self) {
        let (Some(Exchange { mut model, live, .. }), Some(mut consensus)) =
            (self.exchange.take(), self.consensus.take())
        else {
            return;
        };
        // Who has come since has its turn next time.
        for (&node, neighbour) in self.neighbours.iter_mut().filter(|(node, _)| live.contains(node)) {
            neighbour.silent = if neighbour.pending.is_empty() { neighbour.silent + 1 } else { 0 };
            // One at a time, but for what has been left out before.
            let turns = neighbour.pending.len().saturating_sub(1).max(1);
            for message in neighbour.pending.drain(..turns.min(neighbour.pending.len())).collect::<Vec<_>>() {
                if !take(&mut consensus, &mut *self.compressor, node, &message) {
                    neighbour.lose(node, &mut self.actions);
                    break;
                }
                neighbour.held = Some(message.sequence);
            }
        }
        let row = self.row(&live);
        consensus.reweigh(&row);
        if !row.others.is_empty() {
            consensus.mix(&mut model);
            if model.iter().all(|value| value.is_finite()) {
                self.actions.push_back(PolicyAction::Adopt(model.iter().map(|value| value.wide()).collect()));
            }
        }
        self.consensus = Some(consensus);
        self.actions.push_back(PolicyAction::Proceed);
    }

    fn told(&mut self, from: NodeId, bytes: &[u8]) {
        let (Some(consensus), Some(neighbour)) = (&self.consensus, self.neighbours.get_mut(&from)) else {
            return;
        };
        match Note::decode(bytes) {
            Some(Note::Ask) => self.say_whole(from),
            Some(Note::AskAs(_)) => {}
            Some(Note::Piece(piece)) => {
                let len = consensus.own().len();
                let sizes =
                    if piece.whole { Compressor::<S>::sizes(&Identity, len) } else { self.compressor.sizes(len) };
                let total = piece.total as usize;
                if piece.offset == 0 && sizes.contains(&total) {
                    let Piece { sequence, digest, whole, .. } = piece;
                    let bytes = Vec::with_capacity(total);
                    neighbour.partial = Some((Message { sequence, digest, whole, bytes }, total));
                }
                let begun = neighbour.partial.take();
                let fits = |message: &Message, total: usize| {
                    (message.sequence, message.whole, message.bytes.len())
                        == (piece.sequence, piece.whole, piece.offset as usize)
                        && message.bytes.len() + piece.bytes.len() <= total
                };
                let Some((mut message, total)) = begun.filter(|(message, total)| fits(message, *total)) else {
                    neighbour.lose(from, &mut self.actions);
                    return;
                };
                message.bytes.extend_from_slice(piece.bytes);
                if message.bytes.len() < total {
                    neighbour.partial = Some((message, total));
                    return;
                }
                // The answer to a request that says nothing new is that of a node which is still at the same step.
                if message.sequence != neighbour.last {
                    neighbour.silent = 0;
                }
                neighbour.last = message.sequence;
                if message.whole {
                    neighbour.asked = false;
                    neighbour.pending.clear();
                    neighbour.pending.push_back(message);
                } else if neighbour.next() == Some(message.sequence) && neighbour.pending.len() < MOST_PENDING {
                    neighbour.pending.push_back(message);
                } else {
                    neighbour.lose(from, &mut self.actions);
                }
                self.end_if_complete();
            }
            // Said by a policy of another kind.
            None => {}
        }
    }
}

/// The digest of a public copy.
pub(super) fn digest<S: Scalar>(values: &[S]) -> Digest {
    let mut digester = Digester::new();
    digester.update_values(values);
    digester.finish()
}

/// Says a message in pieces that fit into notes.
pub(super) fn say(actions: &mut VecDeque<PolicyAction>, to: NodeId, message: &Message) {
    let Message { sequence, digest, whole, bytes } = message;
    let total = u32::try_from(bytes.len()).expect("models have less than 4 GiB");
    let mut offset = 0;
    loop {
        let end = bytes.len().min(offset + note::MOST_BYTES);
        let piece = Piece {
            whole: *whole,
            sequence: *sequence,
            digest: *digest,
            total,
            offset: offset as u32,
            bytes: &bytes[offset..end],
        };
        actions.push_back(PolicyAction::Tell { to, bytes: Note::Piece(piece).encode() });
        offset = end;
        if offset == bytes.len() {
            break;
        }
    }
}

/// Takes a message in; whether it led to the copy that its sender has.
fn take<S: Scalar>(
    consensus: &mut Consensus<S>,
    compressor: &mut dyn Compressor<S>,
    from: NodeId,
    message: &Message,
) -> bool {
    let read = if message.whole {
        consensus.replace(from, &message.bytes)
    } else {
        consensus.receive(from, &message.bytes, compressor)
    };
    read.is_ok() && consensus.other(from).is_some_and(|copy| digest(copy) == message.digest)
}

impl<S: Scalar> AveragingPolicy for Gossip<S> {
    fn name(&self) -> &'static str {
        match self.options.rule {
            Rule::Choco { .. } => "CHOCO-SGD",
            Rule::Ada(_) => "AdaGossip",
        }
    }

    fn handle(&mut self, now: Instant, input: PolicyInput<'_>) {
        match input {
            PolicyInput::Began { .. } => self.actions.push_back(PolicyAction::Observe),
            PolicyInput::Stepped { iteration, .. } => {
                if iteration.is_multiple_of(self.options.interval) {
                    self.due = true;
                    self.actions.push_back(PolicyAction::Observe);
                }
            }
            PolicyInput::Observed { parameters, peers } => self.begin(now, parameters, peers),
            PolicyInput::Told { from, bytes } => self.told(from, bytes),
            // Who has finished and who was lost look the same, and what they have said last may still be on its way: the
            // deadline is near enough.
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
        self.exchange.as_ref().map_or(Instant::FAR, |exchange| exchange.until)
    }

    fn wake(&mut self, now: Instant) {
        if self.timeout() <= now {
            self.end();
        }
    }

    fn save(&self) -> Vec<u64> {
        let mut words = Words::default();
        words.optional(self.consensus.as_ref(), |words, consensus| consensus.save(words));
        words.0.push(self.sequence);
        for (node, neighbour) in &self.neighbours {
            words.0.push(u64::from(node.0));
            let flags = [u64::from(neighbour.follows), u64::from(neighbour.asked), u64::from(neighbour.silent)];
            words.0.extend(flags);
            words.0.push(neighbour.last);
            words.optional(neighbour.held.as_ref(), |words, &held| words.0.push(held));
            words.0.push(neighbour.pending.len() as u64);
            neighbour.pending.iter().for_each(|message| words.message(message));
            words.optional(neighbour.partial.as_ref(), |words, (message, total)| {
                words.message(message);
                words.0.push(*total as u64);
            });
        }
        words.optional(self.exchange.as_ref(), |words, exchange| {
            words.values(&exchange.model);
            words.0.extend([exchange.until.as_nanos(), exchange.live.len() as u64]);
            words.0.extend(exchange.live.iter().map(|node| u64::from(node.0)));
        });
        words.0
    }

    fn restore(&mut self, state: &[u64]) {
        self.actions.clear();
        self.due = false;
        if self.read(&mut Saved::new(state)).is_none() {
            self.consensus = None;
            self.exchange = None;
            self.part(&[]);
            self.actions.push_back(PolicyAction::Proceed);
        }
    }
}

impl Words {
    pub(super) fn message(&mut self, message: &Message) {
        self.0.extend([message.sequence, message.digest.0, u64::from(message.whole)]);
        self.bytes(&message.bytes);
    }
}

pub(super) fn message(words: &mut Saved<'_>) -> Option<Message> {
    let (sequence, digest, whole) = (words.word()?, Digest(words.word()?), words.flag()?);
    Some(Message { sequence, digest, whole, bytes: words.bytes()? })
}

impl<S: Scalar> Gossip<S> {
    /// Reads what was saved with the same options; `None` if it ends too early or late, or is of other nodes or another
    /// model.
    fn read(&mut self, words: &mut Saved<'_>) -> Option<()> {
        self.consensus =
            if words.flag()? { Some(Consensus::restore(self.options.rule, &self.options.row, words)?) } else { None };
        self.sequence = words.word()?;
        for (node, neighbour) in &mut self.neighbours {
            (words.node()? == *node).then_some(())?;
            let (follows, asked, silent, last) = (words.flag()?, words.flag()?, words.word()? as u32, words.word()?);
            let held = if words.flag()? { Some(words.word()?) } else { None };
            let pending = (0..words.count()?).map(|_| message(words)).collect::<Option<_>>()?;
            let partial = if words.flag()? { Some((message(words)?, words.word()? as usize)) } else { None };
            *neighbour = Neighbour { follows, held, pending, partial, asked, silent, last };
        }
        self.exchange = if words.flag()? {
            let (model, until): (Vec<S>, _) = (words.values()?, Instant::from_nanos(words.word()?));
            let live = (0..words.count()?).map(|_| words.node()).collect::<Option<Vec<_>>>()?;
            let len = self.consensus.as_ref().map(|consensus| consensus.own().len());
            let is_known = |node: &NodeId| self.neighbours.contains_key(node);
            (len == Some(model.len()) && live.iter().all(is_known)).then_some(())?;
            Some(Exchange { model, until, live })
        } else {
            None
        };
        words.word().is_none().then_some(())
    }
}
