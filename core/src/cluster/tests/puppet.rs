//! One node among puppets that say exactly what a test wants said.

use crate::cluster::message::{Message, Proposal, Ready, Verdict};
use crate::cluster::wire::{self, *};
use crate::cluster::*;
use crate::collective::differences::Lineage;
use crate::process::Process;
use crate::time::Instant;
use crate::transport::{Event, NodeId};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

pub(super) struct Stage {
    pub(super) now: Instant,
    pub(super) node: Node<f32>,
    own: u32,
    sent: BTreeMap<u32, u32>,
    heard: BTreeMap<u32, Acknowledged>,
    /// What the node said to whom, oldest first.
    pub(super) said: Vec<(u32, Vec<u8>)>,
    pub(super) records: Vec<Record>,
}

const START: Instant = Instant::from_nanos(1_000_000);

impl Stage {
    /// Node `own` of `size`, which has met all others.
    pub(super) fn new(own: u32, size: u32) -> Self {
        Self::adapted(own, size, |_| {})
    }

    /// The same with other settings.
    pub(super) fn adapted(own: u32, size: u32, adapt: impl Fn(&mut Settings)) -> Self {
        let peers = (0..size).map(NodeId).collect();
        let mut settings = Settings::new(RunId(1), NodeId(own), Incarnation(1), peers, Budget::default());
        adapt(&mut settings);
        let mut node = Node::new(settings, START);
        node.set_status(Status::Training);
        let mut stage = Self {
            now: START,
            node,
            own,
            sent: BTreeMap::new(),
            heard: BTreeMap::new(),
            said: Vec::new(),
            records: Vec::new(),
        };
        for peer in (0..size).filter(|&peer| peer != own) {
            let last = CertificateId::default();
            stage.frame(peer, Kind::Heartbeat, Body::Heartbeat { last });
        }
        stage
    }

    pub(super) fn frame(&mut self, from: u32, kind: Kind, body: Body<'_>) {
        let header = Header {
            kind,
            status: Status::Training,
            run: RunId(1),
            from: NodeId(from),
            to: NodeId(self.own),
            incarnation: Incarnation(1),
            to_incarnation: Incarnation(1),
            heard: 0,
            acknowledged: self.heard.get(&from).copied().unwrap_or_default(),
        };
        let mut bytes = vec![0; wire::length(&body)];
        wire::encode(&Frame { header, body }, &mut bytes);
        self.node.handle(self.now, Event::Frame { from: NodeId(from), bytes: &bytes });
        self.drain();
    }

    pub(super) fn say(&mut self, from: u32, message: &Message<'_>) {
        let sequence = self.sent.entry(from).or_default();
        let place = Place { epoch: 1, sequence: *sequence, message: *sequence };
        *sequence += 1;
        let data = &message.encode()[..];
        let (total, attempt) = (data.len() as u32, Attempt::default());
        let body = Body::Segment { place, offset: 0, total, attempt, data };
        self.frame(from, Kind::Segment, body);
    }

    pub(super) fn drain(&mut self) {
        while let Some(write) = self.node.poll_write() {
            self.node.written(self.now, write.ticket, true);
        }
        while let Some((to, len)) = self.node.poll(self.now, 9000) {
            let mut bytes = vec![0; len];
            self.node.fill(&mut bytes);
            let frame = wire::decode(&bytes).unwrap();
            if let Body::Segment { place, data, .. } = frame.body {
                let heard = self.heard.entry(to.0).or_default();
                if (place.epoch, place.sequence) >= (heard.epoch, heard.next) {
                    let next = place.sequence + 1;
                    *heard = Acknowledged { epoch: place.epoch, next, beyond: 0 };
                    self.said.push((to.0, data.to_vec()));
                }
            }
        }
        while let Some(record) = self.node.poll_record() {
            self.records.push(record);
        }
    }

    /// Lets a tenth of the budget pass, in which all puppets show that they live.
    pub(super) fn pass(&mut self) {
        self.now += Budget::default().total() / 10;
        let peers: Vec<u32> = self.node.peers().map(|peer| peer.node.0).collect();
        for peer in peers {
            self.frame(peer, Kind::Acknowledge, Body::Acknowledge);
        }
        self.node.wake(self.now);
        self.drain();
    }

    pub(super) fn contribute(&mut self, value: f32) {
        let mut contribution = Contribution::default();
        contribution.segment("weights", 2, 1.0).fill(value);
        self.node.contribute(self.now, contribution);
        self.drain();
    }

    /// The last message of those that `keep` keeps.
    pub(super) fn last<T>(&self, keep: impl Fn(u32, Message<'_>) -> Option<T>) -> Option<T> {
        self.said.iter().rev().find_map(|(to, bytes)| keep(*to, Message::decode(bytes).unwrap()))
    }

    pub(super) fn ready(&self) -> Ready {
        let ready = self.last(|_, message| match message {
            Message::Ready(ready) => Some(ready),
            _ => None,
        });
        ready.expect("the node said that it is ready")
    }

    pub(super) fn outcomes(&mut self) -> Vec<Outcome<f32>> {
        core::iter::from_fn(|| self.node.poll_outcome()).collect()
    }
}

/// What puppet `node` says when it is ready with two values.
pub(super) fn ready(node: u32, turn: u64) -> Ready {
    let weights = vec![1.0];
    let member = Member { node: NodeId(node), incarnation: Incarnation(1), turn, weights, ..Member::default() };
    Ready {
        member,
        lengths: vec![2],
        wire: String::from("f32"),
        heard: Attempt::default(),
        released: Attempt::default(),
        ancestors: Vec::new(),
        unreachable: Vec::new(),
        accepted: CertificateId::default(),
        lineage: Lineage::default(),
    }
}

pub(super) fn attempt(sequence: u64, proposer: u32) -> Attempt {
    Attempt { sequence, proposer: NodeId(proposer), incarnation: Incarnation(1) }
}

pub(super) fn proposal(attempt: Attempt, members: &[Member]) -> Proposal {
    let parents = vec![Parent { certificate: CertificateId::default(), stale: false }];
    let certificate = Certificate {
        attempt,
        round: Round(1),
        members: members.to_vec(),
        algorithm: Algorithm::Direct,
        wire: String::from("f32"),
        result: Digest::default(),
        parents,
    };
    Proposal { certificate, lengths: vec![2], chunk: 1, lineages: Vec::new() }
}

pub(super) fn bytes(value: f32) -> [u8; 4] {
    value.to_le_bytes()
}

/// Node 1 reduces with puppet 0: it owns the second piece.
pub(super) fn reducing(sequence: u64) -> (Stage, Proposal) {
    let mut stage = Stage::new(1, 2);
    stage.contribute(3.0);
    let proposal = proposal(attempt(sequence, 0), &[ready(0, 1).member, stage.ready().member]);
    stage.say(0, &Message::Propose(proposal.clone()));
    (stage, proposal)
}

/// Puppet 0 sends its part of the second piece and the result of the first.
pub(super) fn send_pieces(stage: &mut Stage, attempt: Attempt, own: f32, reduced: f32) {
    let values = &bytes(own);
    stage.say(0, &Message::Piece { attempt, reduced: false, index: 1, values });
    let values = &bytes(reduced);
    stage.say(0, &Message::Piece { attempt, reduced: true, index: 0, values });
}

fn done(stage: &Stage) -> Option<(Attempt, Digest)> {
    stage.last(|_, message| match message {
        Message::Done { attempt, result } => Some((attempt, result)),
        _ => None,
    })
}

pub(super) fn result(values: [f32; 2]) -> Digest {
    let mut average = Contribution::default();
    average.segment("weights", 2, 2.0).copy_from_slice(&values);
    average.digest()
}

#[test]
fn a_commit_counts_once_and_an_abort_after_it_nothing() {
    let (mut stage, proposal) = reducing(1);
    let attempt = proposal.certificate.attempt;
    send_pieces(&mut stage, attempt, 5.0, 4.0);
    assert_eq!(done(&stage), Some((attempt, result([4.0, 4.0]))));
    assert!(stage.outcomes().is_empty(), "done is not committed");
    let certificate = Certificate { result: result([4.0, 4.0]), ..proposal.certificate };
    let commit = Message::Commit { certificate };
    stage.say(0, &commit);
    stage.say(0, &commit);
    stage.say(0, &Message::Abort { attempt, why: AbortReason::Lost, who: vec![NodeId(0)] });
    stage.say(0, &commit);
    assert!(matches!(stage.outcomes()[..], [Outcome::Committed { .. }]));
    assert_eq!(stage.node.counters().rounds_committed, 1);
    assert_eq!(stage.node.last().round, Round(1));
}

#[test]
fn a_commit_of_something_else_is_ignored() {
    let (mut stage, proposal) = reducing(1);
    let attempt = proposal.certificate.attempt;
    let right = Certificate { result: result([4.0, 4.0]), ..proposal.certificate };
    stage.say(0, &Message::Commit { certificate: right.clone() });
    assert!(stage.outcomes().is_empty(), "not done yet");
    send_pieces(&mut stage, attempt, 5.0, 4.0);
    let mut others = vec![right.clone(); 4];
    others[0].result = Digest(1);
    others[1].members[0].weights[0] = 2.0;
    others[2].round = Round(2);
    others[3].parents.clear();
    for certificate in others {
        stage.say(0, &Message::Commit { certificate });
    }
    assert!(stage.outcomes().is_empty());
    stage.say(0, &Message::Commit { certificate: right });
    assert_eq!(stage.outcomes().len(), 1);
}

#[test]
fn pieces_of_an_earlier_attempt_change_nothing() {
    let (mut stage, first) = reducing(1);
    let old = first.certificate.attempt;
    stage.say(0, &Message::Abort { attempt: old, why: AbortReason::Declined, who: Vec::new() });
    let members = first.certificate.members;
    let new = attempt(2, 0);
    stage.say(0, &Message::Propose(proposal(new, &members)));
    send_pieces(&mut stage, old, 7.0, 100.0);
    assert_eq!(done(&stage), None);
    send_pieces(&mut stage, new, 5.0, 4.0);
    assert_eq!(done(&stage), Some((new, result([4.0, 4.0]))));
}

#[test]
fn pieces_that_come_before_their_proposal_are_kept() {
    let mut stage = Stage::new(1, 2);
    stage.contribute(3.0);
    let new = attempt(4, 0);
    send_pieces(&mut stage, new, 5.0, 4.0);
    let members = [ready(0, 1).member, stage.ready().member];
    stage.say(0, &Message::Propose(proposal(new, &members)));
    assert_eq!(done(&stage), Some((new, result([4.0, 4.0]))));
}

#[test]
fn what_the_node_cannot_take_part_in_is_declined() {
    let (mut stage, first) = reducing(5);
    let declined = |stage: &Stage, of: Attempt| {
        stage.last(|_, message| match message {
            Message::Decline { attempt, .. } if attempt == of => Some(()),
            _ => None,
        })
    };
    let members = first.certificate.members.clone();
    let lower = proposal(attempt(4, 0), &members);
    let mut heavier = proposal(attempt(6, 0), &members);
    heavier.certificate.members[1].weights[0] = 9.0;
    let mut earlier_turn = proposal(attempt(7, 0), &members);
    earlier_turn.certificate.members[1].turn = 0;
    let mut longer = proposal(attempt(8, 0), &members);
    longer.lengths[0] = 3;
    let mut other_parent = proposal(attempt(9, 0), &members);
    other_parent.certificate.parents[0].certificate.round = Round(3);
    for proposal in [lower, heavier, earlier_turn, longer, other_parent] {
        let of = proposal.certificate.attempt;
        stage.say(0, &Message::Propose(proposal));
        assert_eq!(declined(&stage, of), Some(()), "{of}");
    }
    // None of these has disturbed the attempt under way.
    send_pieces(&mut stage, attempt(5, 0), 5.0, 4.0);
    assert_eq!(done(&stage), Some((attempt(5, 0), result([4.0, 4.0]))));
}

/// Node 0 proposes to puppets 1 and 2.
fn proposing() -> (Stage, Certificate) {
    let mut stage = Stage::new(0, 3);
    stage.contribute(3.0);
    for _ in 0..3 {
        stage.say(1, &Message::Ready(ready(1, 1)));
    }
    assert!(proposed(&stage).is_none(), "one node said it three times");
    stage.say(2, &Message::Ready(ready(2, 1)));
    let certificate = proposed(&stage).expect("all are ready");
    (stage, certificate)
}

fn proposed(stage: &Stage) -> Option<Certificate> {
    stage.last(|_, message| match message {
        Message::Propose(proposal) => Some(proposal.certificate),
        _ => None,
    })
}

fn commits(stage: &Stage) -> usize {
    let is_commit = |bytes: &[u8]| matches!(Message::decode(bytes), Ok(Message::Commit { .. }));
    stage.said.iter().filter(|(_, bytes)| is_commit(bytes)).count()
}

/// Puppets 1 and 2 hold `values`; node 0 owns the only piece.
fn send_values(stage: &mut Stage, attempt: Attempt, values: f32) {
    let bytes = [bytes(values), bytes(values)].concat();
    for puppet in [1, 2] {
        let values = &bytes;
        stage.say(puppet, &Message::Piece { attempt, reduced: false, index: 0, values });
    }
}

#[test]
fn a_commit_needs_done_from_all() {
    let (mut stage, certificate) = proposing();
    let attempt = certificate.attempt;
    assert_eq!(certificate.members.len(), 3);
    send_values(&mut stage, attempt, 6.0);
    let result = result([5.0, 5.0]);
    stage.say(1, &Message::Done { attempt, result });
    stage.say(1, &Message::Done { attempt, result });
    assert_eq!(commits(&stage), 0);
    let other = Attempt { sequence: attempt.sequence + 1, ..attempt };
    stage.say(2, &Message::Done { attempt: other, result });
    assert_eq!(commits(&stage), 0);
    stage.say(2, &Message::Done { attempt, result });
    assert_eq!(commits(&stage), 2);
    assert_eq!(stage.outcomes().len(), 1);
    stage.say(2, &Message::Done { attempt, result });
    assert_eq!(commits(&stage), 2);
}

#[test]
fn a_proposer_that_is_done_waits_for_members_that_move() {
    let (mut stage, certificate) = proposing();
    let attempt = certificate.attempt;
    send_values(&mut stage, attempt, 6.0);
    let result = result([5.0, 5.0]);
    stage.say(1, &Message::Done { attempt, result });
    for _ in 0..20 {
        stage.pass();
        stage.say(1, &Message::Answer { attempt, verdict: Verdict::Pending });
        stage.say(2, &Message::Answer { attempt, verdict: Verdict::Pending });
        stage.say(2, &Message::Progress { attempt, missing: vec![NodeId(0)] });
    }
    stage.say(2, &Message::Done { attempt, result });
    assert_eq!(commits(&stage), 2);
    assert!(matches!(stage.outcomes()[..], [Outcome::Committed { .. }]));
}

#[test]
fn an_attempt_that_stands_still_is_given_up_and_the_culprit_left_out() {
    let (mut stage, certificate) = proposing();
    let attempt = certificate.attempt;
    send_values(&mut stage, attempt, 6.0);
    stage.say(1, &Message::Done { attempt, result: result([5.0, 5.0]) });
    for _ in 0..6 {
        stage.pass();
    }
    let again = proposed(&stage).unwrap();
    let nodes: Vec<u32> = again.members.iter().map(|member| member.node.0).collect();
    assert!(again.attempt > attempt);
    assert_eq!(nodes, [0, 1]);
}

#[test]
fn whoever_has_another_digest_is_named_and_left_out() {
    let (mut stage, certificate) = proposing();
    let attempt = certificate.attempt;
    send_values(&mut stage, attempt, 6.0);
    stage.say(1, &Message::Done { attempt, result: result([5.0, 5.0]) });
    stage.say(2, &Message::Done { attempt, result: Digest(1) });
    assert_eq!(commits(&stage), 0);
    let named = stage.records.iter().any(|record| {
        matches!(&record.what, Occurrence::Aborted { why: AbortReason::Unequal, who, .. }
            if who == &[NodeId(2)])
    });
    assert!(named, "{:?}", stage.records);
}

/// Whom node 0 names if the others' results have these digests; its own is digest 0 here.
fn named_for(digests: &[u64]) -> Vec<u32> {
    let size = digests.len() as u32 + 1;
    let mut stage = Stage::new(0, size);
    stage.contribute(3.0);
    (1..size).for_each(|puppet| stage.say(puppet, &Message::Ready(ready(puppet, 1))));
    let attempt = proposed(&stage).expect("all are ready").attempt;
    let values = [bytes(6.0), bytes(6.0)].concat();
    (1..size)
        .for_each(|puppet| stage.say(puppet, &Message::Piece { attempt, reduced: false, index: 0, values: &values }));
    let own = stage.records.iter().find_map(|record| match record.what {
        Occurrence::Done { result, .. } => Some(result),
        _ => None,
    });
    for (puppet, &digest) in (1..size).zip(digests) {
        let result = if digest == 0 { own.expect("node 0 is done") } else { Digest(digest) };
        stage.say(puppet, &Message::Done { attempt, result });
    }
    assert_eq!(commits(&stage), 0, "{digests:?}");
    let named = stage.records.iter().find_map(|record| match &record.what {
        Occurrence::Aborted { why: AbortReason::Unequal, who, .. } => Some(who.iter().map(|node| node.0).collect()),
        _ => None,
    });
    named.expect("results differ")
}

#[test]
fn where_digests_are_tied_nobody_can_tell_who_is_right() {
    for (digests, named) in [
        (&[1][..], &[0, 1][..]),
        (&[1, 2], &[0, 1, 2]),
        (&[0, 1, 1], &[0, 1, 2, 3]),
        (&[0, 1, 1, 2], &[0, 1, 2, 3, 4]),
        // No tie: two against one, two against one and one, three against two.
        (&[1, 1], &[0]),
        (&[0, 1, 2], &[2, 3]),
        (&[0, 0, 1, 1], &[3, 4]),
        (&[1, 1, 1, 0], &[0, 4]),
    ] {
        assert_eq!(named_for(digests), named, "{digests:?}");
    }
}

#[test]
fn a_weight_that_is_no_weight_is_not_read() {
    for weight in [-1.0, f64::NAN, f64::INFINITY] {
        let mut bad = ready(1, 1);
        bad.member.weights[0] = weight;
        assert!(Message::decode(&Message::Ready(bad).encode()).is_err());
    }
}
