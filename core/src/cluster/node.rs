//! A node: membership, reliable messages, rounds and healing behind one face.

use crate::cluster::budget::Budget;
use crate::cluster::certificate::{Certificate, CertificateId, Incarnation};
use crate::cluster::contribution::Contribution;
use crate::cluster::counters::Counters;
use crate::cluster::membership::{Identity, Links};
use crate::cluster::message::Message;
use crate::cluster::mode::Mode;
use crate::cluster::outbox::Post;
use crate::cluster::peer::{Liveness, Peer};
use crate::cluster::persistence::Persisted;
use crate::cluster::quarantine::Quarantine;
use crate::cluster::record::{AbandonReason, Occurrence, Record};
use crate::cluster::rejoin::{Rejoin, Shortage};
use crate::cluster::round::Rounds;
use crate::cluster::wire::{RunId, Status};
use crate::compress::Code;
use crate::process::Process;
use crate::scalar::Scalar;
use crate::storage::Write;
use crate::time::{Duration, Instant};
use crate::transport::{Event, NodeId};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// What a node needs to know before it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Which run it belongs to.
    pub run: RunId,
    /// Who it is.
    pub node: NodeId,
    /// Which start of it; larger than that of any earlier start, and above 0.
    pub incarnation: Incarnation,
    /// Everybody who may take part; this node itself may be among them.
    pub peers: Vec<NodeId>,
    /// The time budget.
    pub budget: Budget,
    /// How many nodes a round needs, at least 1; 2 unless set.
    pub minimum: usize,
    /// What it does where fewer are left.
    pub shortage: Shortage,
    /// Which rounds may commit while nodes cannot reach each other; the same on all nodes of a run.
    pub mode: Mode,
    /// How a node that was away comes back; set by the policy.
    pub rejoin: Rejoin,
    /// Which peers sit out because they come and go all the time; none unless set, as coming and going is what this
    /// protocol is for.
    pub quarantine: Option<Quarantine>,
    /// What parameters are told in, as differences from an average in common; the same on all nodes of a run. All in full unless
    /// set.
    pub code: Code,
    /// Whether these are differences from what all make of averages; set by the policy.
    pub remade: bool,
    /// Values in one piece of a reduction at most; where differences are told it is [`BLOCK`](crate::collective::BLOCK).
    pub chunk: usize,
    /// Bytes of the longest message accepted.
    pub largest_message: usize,
}

impl Settings {
    /// Settings with the usual values for everything that can be left out.
    ///
    /// # Panics
    /// If `incarnation` is 0.
    #[track_caller]
    pub fn new(run: RunId, node: NodeId, incarnation: Incarnation, peers: Vec<NodeId>, budget: Budget) -> Self {
        assert!(incarnation > Incarnation(0), "incarnation 0 is nobody's");
        Self {
            run,
            node,
            incarnation,
            peers,
            budget,
            minimum: 2,
            shortage: Shortage::GoOn,
            mode: Mode::Available,
            rejoin: Rejoin::FullWeight,
            quarantine: None,
            code: Code::All,
            remade: false,
            // With their heads they fit into a frame of 64 KiB.
            chunk: 16_000,
            largest_message: 1 << 20,
        }
    }

    /// How many segments a contribution may have so that everything that is said of a round of all peers, and of this node, is
    /// no longer than [`largest_message`](Self::largest_message): with more, rounds of many come to nothing.
    pub fn most_segments(&self) -> usize {
        let members = self.peers.iter().filter(|peer| **peer != self.node).count() + 1;
        // A member, its parent, its number among the holders; per segment what it counts, its length and its weight.
        let (each, of_segment) = (members * (72 + 17 + 4), members * 8 + 12);
        self.largest_message.saturating_sub(each + 512) / of_segment
    }
}

/// What became of a contribution.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Outcome<S> {
    /// It is part of a committed average.
    Committed {
        /// What the average is made of.
        certificate: Arc<Certificate>,
        /// The average; a segment of weight 0 has no values that mean anything.
        average: Arc<Contribution<S>>,
    },
    /// The node had fallen behind; here is the newest committed state instead of its own.
    Healed {
        /// What the state is made of.
        certificate: Arc<Certificate>,
        /// The state.
        state: Arc<Contribution<S>>,
    },
    /// Nothing; the node goes on with what it has.
    Abandoned(AbandonReason),
}

/// A node of the cluster, as a state machine; see [`Process`] for how it is driven.
///
/// - [`contribute`](Self::contribute) begins to take part in a round; exactly one [`Outcome`] follows,
///   within the budget unless values are moving.
/// - Between contributions the node answers others, and is the proposer if it is the lowest that is up.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Node<S: Scalar> {
    links: Links<S>,
    rounds: Rounds<S>,
    /// What others said to this node's policy and it has not been told.
    notes: VecDeque<(NodeId, Vec<u8>)>,
}

/// Bytes of notes that are kept for whoever takes them.
const NOTES: usize = 4 << 20;

impl<S: Scalar> Node<S> {
    /// A node that begins at `now` for the first time, or that has nothing to remember.
    ///
    /// # Panics
    /// If `settings.largest_message` is below 64 KiB.
    #[track_caller]
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self::recover(settings, now, Persisted::default())
    }

    /// A node that begins at `now` with what an earlier start of it has made durable.
    ///
    /// # Panics
    /// If `settings.largest_message` is below 64 KiB, or the incarnation is not higher than that of the earlier start.
    #[track_caller]
    pub fn recover(settings: Settings, now: Instant, persisted: Persisted<S>) -> Self {
        let (own, before) = (settings.incarnation, persisted.incarnation);
        assert!(own > before, "{own} starts after {before}; take Persisted::next_incarnation");
        let largest = settings.largest_message;
        assert!(largest >= 1 << 16, "messages of {largest} bytes at most are too short; allow 64 KiB");
        let identity = Identity { run: settings.run, node: settings.node, incarnation: settings.incarnation };
        let mut links = Links::new(identity, settings.budget, &settings.peers, settings.largest_message, now);
        links.quarantine = settings.quarantine;
        links.record(now, Occurrence::Started);
        let rounds = Rounds::new(&settings, persisted);
        links.waits_for = rounds.waits_for();
        Self { links, rounds, notes: VecDeque::new() }
    }

    /// Who this node is.
    pub fn id(&self) -> NodeId {
        self.links.identity.node
    }

    /// Which start of it this is.
    pub fn incarnation(&self) -> Incarnation {
        self.links.identity.incarnation
    }

    /// The time budget.
    pub fn budget(&self) -> Budget {
        self.links.budget
    }

    /// What it knows of the others, in the order of their ids.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.links.peers()
    }

    /// What it knows of this one; `None` of itself, and of whoever takes no part in the run.
    pub fn peer(&self, node: NodeId) -> Option<&Peer> {
        self.links.peer(node)
    }

    /// What it tells others that it does.
    pub fn status(&self) -> Status {
        self.links.status
    }

    /// Changes what it tells others that it does.
    pub fn set_status(&mut self, status: Status) {
        self.links.status = status;
    }

    /// What it counted.
    pub fn counters(&self) -> &Counters {
        &self.links.counters
    }

    /// Bytes it holds for others: messages that are not acknowledged, or not whole, or have come too early, and writes
    /// that nobody has taken. Its contributions and results are not among them.
    pub fn held(&self) -> usize {
        self.links.held() + self.rounds.held() + self.noted()
    }

    fn noted(&self) -> usize {
        self.notes.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// The peers that train, can be reached and do not sit out, in the order of their ids.
    pub fn trainers(&self) -> impl Iterator<Item = NodeId> {
        let trains = |peer: &&Peer| peer.takes_part() && peer.status == Status::Training;
        self.links.peers().filter(trains).map(|peer| peer.node)
    }

    /// A number that changes whenever another set of peers are [`trainers`](Self::trainers).
    pub(crate) fn company(&mut self) -> u64 {
        self.links.company()
    }

    /// Says `bytes` to a peer, reliably and apart from any round, as long as it can be reached.
    ///
    /// Notes to one peer arrive in order unless it is lost on the way; they have at most 64 KiB less a byte where peers
    /// accept no longer messages. They go before the values of rounds, after what rounds have to say, and within the
    /// window, so that long ones do not pile up in front of a slow line.
    pub fn tell(&mut self, to: NodeId, bytes: &[u8]) {
        self.links.send(to, Post::note(Message::Note { bytes }.encode()));
    }

    /// To whom notes are not wholly sent yet, in the order of their ids.
    pub fn unsaid(&self) -> impl Iterator<Item = NodeId> {
        self.links.unsaid()
    }

    /// The next note that a peer has said to this node, and who.
    ///
    /// Whoever drives the node takes them; when those that nobody took have 4 MiB, further ones are dropped and counted.
    pub fn poll_note(&mut self) -> Option<(NodeId, Vec<u8>)> {
        self.notes.pop_front()
    }

    /// The next record, oldest first.
    ///
    /// Whoever drives the node takes them; beyond 65,536 that nobody took, the oldest are dropped and counted.
    pub fn poll_record(&mut self) -> Option<Record> {
        self.links.records.pop_front()
    }

    /// The last certificate it committed or was healed to; `None` before the first.
    pub fn last_certificate(&self) -> Option<&Arc<Certificate>> {
        self.rounds.last_certificate()
    }

    /// The name of that certificate; the default before the first.
    pub fn last(&self) -> CertificateId {
        self.links.last
    }

    /// The result of the last committed round, or the state it was healed to.
    pub fn last_state(&self) -> Option<&Arc<Contribution<S>>> {
        self.rounds.last_state()
    }

    /// What it has contributed and has no outcome yet.
    pub fn contribution(&self) -> Option<&Contribution<S>> {
        self.rounds.contribution()
    }

    /// All its training samples, and the range of those that no commit it knows of counts.
    pub fn samples(&self) -> (u64, (u64, u64)) {
        let range = self.rounds.samples();
        (range.1, range)
    }

    /// Takes note of samples trained on since the last call.
    pub fn count_samples(&mut self, samples: u64) {
        self.rounds.count_samples(samples);
    }

    /// A contribution to be filled in, if possible with memory of an earlier one.
    pub fn spare(&mut self) -> Contribution<S> {
        self.rounds.spare()
    }

    /// Takes in what all who have the average of `certificate` make of its first segment, before anything else is contributed:
    /// where the policy makes something of averages, differences are told from that.
    pub(crate) fn remake(&mut self, certificate: &Certificate, values: &[S]) {
        self.rounds.remake(&self.links, certificate, values);
    }

    /// Takes part in the next round with `contribution`; an earlier one without outcome is withdrawn.
    pub fn contribute(&mut self, now: Instant, contribution: Contribution<S>) {
        self.rounds.contribute(now, &mut self.links, contribution);
        self.settle(now);
    }

    /// Gives up the contribution that has no outcome yet, without one.
    pub fn withdraw(&mut self, now: Instant) {
        self.rounds.withdraw(now, &mut self.links);
        self.settle(now);
    }

    /// What became of a contribution.
    pub fn poll_outcome(&mut self) -> Option<Outcome<S>> {
        self.rounds.poll_outcome()
    }

    /// Tells others that this node has done its iterations; it goes on answering.
    pub fn finish(&mut self, now: Instant, iteration: u64) {
        self.links.status = Status::Finished;
        let uncommitted = self.rounds.samples();
        self.links.record(now, Occurrence::Finished { iteration, samples: uncommitted.1, uncommitted });
        self.links.announce(now);
    }

    /// Withdraws, and says goodbye to everybody; the frames of that still have to be sent.
    pub fn leave(&mut self, now: Instant) {
        self.rounds.withdraw(now, &mut self.links);
        self.links.record(now, Occurrence::Left);
        self.links.leave();
    }

    /// Whether it has left and all goodbyes are sent.
    pub fn has_left(&self) -> bool {
        self.links.has_left()
    }

    /// Whether another start of this node has taken its place.
    pub fn is_zombie(&self) -> bool {
        self.links.zombie
    }

    /// Whether no peer that can be reached is still training.
    pub fn nobody_needs_this_node(&self) -> bool {
        self.links.peers().all(|peer| match peer.liveness {
            Liveness::Up | Liveness::Suspect => peer.status == Status::Finished,
            Liveness::Unknown | Liveness::Down | Liveness::Left => true,
        })
    }

    /// Lets changes and messages to itself have their effect.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(change) = self.links.changes.pop_front() {
                self.rounds.changed(now, &mut self.links, change);
            } else if let Some(bytes) = self.links.own.pop_front() {
                let own = self.links.identity.node;
                self.take(now, own, &bytes);
            } else {
                break;
            }
        }
    }

    fn take(&mut self, now: Instant, from: NodeId, bytes: &[u8]) {
        match Message::decode(bytes) {
            Ok(Message::Note { bytes }) if self.noted() + bytes.len() > NOTES => self.links.counters.overflowed += 1,
            Ok(Message::Note { bytes }) => self.notes.push_back((from, bytes.to_vec())),
            Ok(Message::Departed { starts }) => self.links.learn_departures(now, from, &starts),
            Ok(message) => self.rounds.handle(now, &mut self.links, from, message),
            Err(_) => self.links.counters.malformed += 1,
        }
    }
}

impl<S: Scalar> Process for Node<S> {
    fn handle(&mut self, now: Instant, event: Event<'_>) {
        match event {
            Event::Frame { from, bytes } => {
                if let Some(message) = self.links.receive(now, from, bytes) {
                    // What happened to the sender before it said this comes first.
                    self.settle(now);
                    self.take(now, from, &message);
                }
            }
            Event::Up(node) => self.links.report(now, node, true),
            Event::Down(node) => self.links.report(now, node, false),
        }
        self.settle(now);
    }

    fn wake(&mut self, now: Instant) {
        self.links.wake(now);
        self.settle(now);
        self.rounds.wake(now, &mut self.links);
        self.settle(now);
    }

    fn timeout(&self) -> Instant {
        if self.links.zombie {
            // It acts on no deadline any more; those that stand would have it woken again and again.
            return Instant::FAR;
        }
        self.links.timeout().min(self.rounds.timeout())
    }

    fn patience(&self) -> Duration {
        // The detector's shortest: all peers may seem to be down by then, and the others have gone on without this node.
        6 * self.links.budget.heartbeat()
    }

    fn poll(&mut self, now: Instant, max_frame: usize) -> Option<(NodeId, usize)> {
        self.links.poll(now, max_frame)
    }

    fn fill(&mut self, target: &mut [u8]) {
        self.links.fill(target);
    }

    fn discard(&mut self) {
        self.links.discard();
    }

    fn postpone(&mut self) {
        self.links.postpone();
    }

    fn poll_write(&mut self) -> Option<Write> {
        self.rounds.poll_write()
    }

    fn written(&mut self, now: Instant, ticket: u64, durable: bool) {
        self.rounds.written(now, &mut self.links, ticket, durable);
        self.settle(now);
    }
}
