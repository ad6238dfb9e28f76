//! Gossip: after every so many iterations, models move towards those of their neighbours.
//!
//! D-PSGD (Lian et al. 2017), CHOCO-SGD (Koloskova, Stich & Jaggi 2019, arXiv 1902.00340), AdaGossip (Aketi et al.
//! 2024) and gossip of what was just told, carried by notes: no rounds, no agreement, nobody waits for anybody but its neighbours.
//!
//! # For users
//! [`Gossip`] with a [`Row`] of a mixing matrix, a [`Rule`] and any [`Compressor`]. With [`Identity`],
//! `Rule::Choco { step: 1.0 }` is D-PSGD.
//!
//! # For implementers
//! - A node keeps public copies of its neighbours' models, which each of them keeps of its own, equal to the bit. Every
//!   message carries the digest of the copy that it leads to: who finds another has missed something, takes no account of
//!   that neighbour, and asks for the copy whole.
//! - Who waits for a neighbour waits for the message that goes with this exchange, and keeps a later one for its turn, so that
//!   both move by the same two copies, and what one gains the other gives. Every message says which of its receiver's goes
//!   with it. Who has not spoken until the deadline counts by what was last known of it, and is waited for with the next
//!   exchange until both are in step again; whoever is late every time is waited for ever more rarely.
//! - Who has not spoken for two exchanges does not count until it speaks again; after four it is neither waited for nor sent
//!   anything but requests, more and more rarely: nothing piles up in front of a slow link.
//! - Who cannot be reached when an exchange begins is no neighbour: what was given to it each gives to itself
//!   ([`Mixing::without`](crate::gossip::Mixing::without)), so that the mean over nodes stays where it is once both ends know. Whoever returns is sent a
//!   whole copy, and sends one.
//! - With [`Rule::Partial`] a node that nobody follows, as in the first exchange, begins its copy with the model as it is, which
//!   costs nothing, as copies are sent whole then.
//! - A difference that the code cannot say, as one above 65,504 in fp16, is not told: the copy is sent whole.
//! - A copy is sent whole once between two exchanges at most, however often it is asked for.

mod neighbour;

use super::exchange::{Assembled, Exchange, Family, Message, Note, Turns, check_length, digest, say};
use super::words::{Saved, Words};
use super::{AveragingPolicy, PolicyAction, PolicyInput};
use crate::compress::{Compressor, Identity};
use crate::gossip::{Consensus, Row, Rule};
use crate::scalar::Scalar;
use crate::seed::Seed;
use crate::time::{Duration, Instant};
use crate::transport::NodeId;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;
use neighbour::{MATE, Neighbour};

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

/// An exchange that waits for others.
#[derive(Clone, Debug, PartialEq)]
struct Open<S> {
    model: Vec<S>,
    until: Instant,
    /// Neighbours that could be reached when it began.
    live: Vec<NodeId>,
}

/// Moves models towards those of neighbours: D-PSGD, CHOCO-SGD, AdaGossip or partial gossip, by its
/// [`rule`](GossipOptions::rule).
///
/// After every [`interval`](GossipOptions::interval) iterations a node tells each neighbour that can be reached what has
/// changed in its model, waits for one message of each, and moves. Who has missed something asks for it whole.
pub struct Gossip<S: Scalar> {
    rule: Rule,
    row: Row,
    turns: Turns<S>,
    state: State<S>,
}

/// What a policy remembers.
struct State<S> {
    neighbours: BTreeMap<NodeId, Neighbour>,
    /// `None` before the node begins.
    consensus: Option<Consensus<S>>,
    /// Messages that this node's public copy consists of.
    sequence: u64,
    /// The exchange that waits.
    open: Option<Open<S>>,
}

impl<S: Scalar> State<S> {
    /// Of one that has not begun.
    fn new(row: &Row) -> Self {
        let neighbours = row.others.keys().map(|&node| (node, Neighbour::default())).collect();
        Self { neighbours, consensus: None, sequence: 0, open: None }
    }

    /// Reads what was saved with the same options; `None` if it ends too early or late, or is of other nodes or another
    /// model.
    fn restore(rule: Rule, row: &Row, words: &mut Saved<'_>) -> Option<Self> {
        let consensus = if words.flag()? { Some(Consensus::restore(rule, row, words)?) } else { None };
        let sequence = words.word()?;
        let neighbour = |&node: &NodeId| (words.node()? == node).then_some((node, Neighbour::restore(words)?));
        let neighbours: BTreeMap<_, _> = row.others.keys().map(neighbour).collect::<Option<_>>()?;
        let open = if words.flag()? {
            let (model, until): (Vec<S>, _) = (words.values()?, Instant::from_nanos(words.word()?));
            let live = words.nodes()?;
            let len = consensus.as_ref().map(|consensus: &Consensus<S>| consensus.own().len());
            let is_known = |node: &NodeId| neighbours.contains_key(node);
            (len == Some(model.len()) && live.iter().all(is_known)).then_some(())?;
            Some(Open { model, until, live })
        } else {
            None
        };
        words.word().is_none().then_some(Self { neighbours, consensus, sequence, open })
    }
}

impl<S: Scalar> fmt::Debug for Gossip<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gossip")
            .field("rule", &self.rule)
            .field("row", &self.row)
            .field("compressor", &self.turns.compressor.name())
            .field("sequence", &self.state.sequence)
            .finish_non_exhaustive()
    }
}

impl<S: Scalar> Gossip<S> {
    /// With these options; messages are compressed by `compressor`, the same on all nodes.
    ///
    /// # Panics
    /// If `interval` is 0, or as [`Consensus::new`] does; when the node begins, if messages may have 4 GiB or more.
    #[track_caller]
    pub fn new(options: GossipOptions, compressor: Box<dyn Compressor<S>>) -> Self {
        let GossipOptions { row, rule, interval, patience, seed } = options;
        // A rule that cannot be kept is refused now.
        let _ = Consensus::<S>::new(rule, &row, 0);
        let state = State::new(&row);
        Self { rule, row, turns: Turns::new(interval, patience, seed, compressor), state }
    }

    /// The public copy of its own model; empty before the node begins.
    pub fn own(&self) -> &[S] {
        self.state.consensus.as_ref().map_or(&[], |consensus| consensus.own())
    }

    /// The public copy of a neighbour's model as of the last exchange, where there is one.
    pub fn other(&self, node: NodeId) -> Option<&[S]> {
        self.state.consensus.as_ref()?.other(node)
    }

    /// A row of the live neighbours whose copies are known, that gives to those which count.
    fn row(&self, live: &[NodeId]) -> Row {
        let Row { mut own, mut others } = self.row.clone();
        others.retain(|node, weight| {
            let neighbour = self.state.neighbours.get(node).filter(|_| live.contains(node));
            if !neighbour.is_some_and(Neighbour::counts) {
                own += core::mem::take(weight);
            }
            neighbour.is_some_and(|neighbour| neighbour.held.is_some())
        });
        Row { own, others }
    }

    /// Whoever is not among `peers` is no neighbour for now: what is on the way to it is lost, and what it has said is old.
    fn part(&mut self, peers: &[NodeId]) {
        for (node, neighbour) in &mut self.state.neighbours {
            if !peers.contains(node) {
                *neighbour = Neighbour::default();
            }
        }
    }

    /// Says the public copy of this node's model to a neighbour.
    fn say_whole(&mut self, to: NodeId) {
        let State { consensus, neighbours, sequence, .. } = &mut self.state;
        let (Some(consensus), Some(neighbour)) = (consensus, neighbours.get_mut(&to)) else {
            return;
        };
        let mut bytes = Vec::with_capacity(MATE + consensus.own().len() * S::BYTES);
        bytes.extend(neighbour.mate(*sequence));
        // Nothing is drawn where nothing is left out.
        if Identity.encode(consensus.own(), &mut self.turns.random(0), &mut bytes).is_err() {
            return;
        }
        (neighbour.follows, neighbour.whole_said) = (true, Some(*sequence));
        let digest = digest(consensus.own());
        say(Self::FAMILY, &mut self.turns.actions, to, &Message { sequence: *sequence, digest, whole: true, bytes });
    }

    fn end_if_complete(&mut self) {
        let State { open, neighbours, sequence, .. } = &self.state;
        let awaited = |node: &NodeId| neighbours.get(node).is_some_and(|known| known.is_awaited(*sequence));
        if open.as_ref().is_some_and(|open| !open.live.iter().any(awaited)) {
            self.end();
        }
    }
}

impl<S: Scalar> Exchange<S> for Gossip<S> {
    const FAMILY: Family = Family::Gossip;

    fn turns(&mut self) -> &mut Turns<S> {
        &mut self.turns
    }

    fn observed(&mut self, now: Instant, model: Vec<S>, peers: &[NodeId]) {
        let new = || Consensus::new(self.rule, &self.row, model.len());
        let consensus = self.state.consensus.get_or_insert_with(new);
        let whole = model.len().saturating_mul(S::BYTES);
        check_length(MATE.saturating_add(whole.max(*self.turns.compressor.sizes(model.len()).end())), model.len());
        if !self.turns.take_due() || model.len() != consensus.own().len() {
            return;
        }
        let mut bytes = alloc::vec![0; MATE];
        let mut random = self.turns.random(self.state.sequence);
        // Copies are sent whole to all who have none.
        let is_new = |(node, neighbour): (&NodeId, &Neighbour)| !neighbour.follows || !peers.contains(node);
        let is_free = matches!(self.rule, Rule::Partial { .. }) && self.state.neighbours.iter().all(is_new);
        let compressor: &mut dyn Compressor<S> = if is_free { &mut Identity } else { &mut *self.turns.compressor };
        if consensus.send(&model, compressor, &mut random, &mut bytes).is_err() {
            if !model.iter().all(|value| value.is_finite()) {
                // Training ends soon.
                return;
            }
            // A difference that cannot be said: this time the copy is sent whole, to all.
            consensus.copy(&model);
            self.state.neighbours.values_mut().for_each(|neighbour| neighbour.follows = false);
        }
        self.state.sequence = self.state.sequence.wrapping_add(1);
        if !consensus.own().iter().all(|value| value.is_finite()) {
            // Sums of what was sent have left the range of numbers, though the model has not: from the beginning.
            self.state.consensus = None;
            self.part(&[]);
            return;
        }
        let digest = digest(consensus.own());
        self.part(peers);
        let live: Vec<NodeId> = self.state.neighbours.keys().copied().filter(|node| peers.contains(node)).collect();
        if live.is_empty() {
            return;
        }
        let mut message = Message { sequence: self.state.sequence, digest, whole: false, bytes };
        for &to in &live {
            let neighbour = self.state.neighbours.get_mut(&to).expect("one of them");
            if neighbour.is_silent() {
                neighbour.neglect(to, &mut self.turns.actions);
            } else if neighbour.follows {
                message.bytes[..MATE].copy_from_slice(&neighbour.mate(message.sequence));
                say(Self::FAMILY, &mut self.turns.actions, to, &message);
            } else {
                self.say_whole(to);
            }
        }
        let until = self.turns.pause(now);
        self.state.open = Some(Open { model, until, live });
        self.end_if_complete();
    }

    fn told(&mut self, from: NodeId, note: Note<'_>) {
        let State { consensus, neighbours, sequence, .. } = &mut self.state;
        let (Some(consensus), Some(neighbour)) = (consensus, neighbours.get_mut(&from)) else {
            return;
        };
        match note {
            // Nothing new could be said: it is said with the next exchange.
            Note::Ask if neighbour.whole_said == Some(*sequence) => neighbour.follows = false,
            Note::Ask => self.say_whole(from),
            Note::AskAs { .. } => {}
            Note::Piece(piece) => {
                let len = consensus.own().len();
                let of_whole = Compressor::<S>::sizes(&Identity, len);
                let sizes = if piece.whole { of_whole } else { self.turns.compressor.sizes(len) };
                let can_have = |total: usize| total.checked_sub(MATE).is_some_and(|len| sizes.contains(&len));
                match neighbour.partial.add(&piece, can_have) {
                    Assembled::Wrong => neighbour.lose(from, &mut self.turns.actions),
                    Assembled::Partly => {}
                    Assembled::Message(message) => {
                        neighbour.keep(message, from, &mut self.turns.actions);
                        self.end_if_complete();
                    }
                }
            }
        }
    }

    fn until(&self) -> Instant {
        self.state.open.as_ref().map_or(Instant::FAR, |open| open.until)
    }

    /// Moves with what is there.
    fn end(&mut self) {
        let (Some(Open { mut model, live, .. }), Some(mut consensus)) =
            (self.state.open.take(), self.state.consensus.take())
        else {
            return;
        };
        let (exchange, Turns { compressor, actions, .. }) = (self.state.sequence, &mut self.turns);
        // Who has come since has its turn next time.
        for (&node, neighbour) in self.state.neighbours.iter_mut().filter(|(node, _)| live.contains(node)) {
            neighbour.end(node, exchange, &mut consensus, &mut **compressor, actions);
        }
        let row = self.row(&live);
        consensus.reweigh(&row);
        let moves = row.others.values().any(|&weight| weight > 0.0);
        if moves {
            consensus.mix(&mut model);
        }
        self.state.consensus = Some(consensus);
        self.turns.proceed(moves.then_some(&model));
    }
}

impl<S: Scalar> AveragingPolicy for Gossip<S> {
    fn name(&self) -> &'static str {
        match self.rule {
            Rule::Choco { .. } => "CHOCO-SGD",
            Rule::Ada(_) => "AdaGossip",
            Rule::Partial { .. } => "partial gossip",
        }
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
        let State { neighbours, consensus, sequence, open } = &self.state;
        let mut words = Words::default();
        words.optional(consensus.as_ref(), |words, consensus| consensus.save(words));
        words.0.push(*sequence);
        for (node, neighbour) in neighbours {
            words.0.push(u64::from(node.0));
            neighbour.save(&mut words);
        }
        words.optional(open.as_ref(), |words, open| {
            words.values(&open.model);
            words.0.push(open.until.as_nanos());
            words.nodes(&open.live);
        });
        words.0
    }

    fn restore(&mut self, state: &[u64]) {
        self.turns.reset();
        let restored = State::restore(self.rule, &self.row, &mut Saved::new(state));
        self.state = restored.unwrap_or_else(|| {
            self.turns.actions.push_back(PolicyAction::Proceed);
            State::new(&self.row)
        });
    }
}
