//! What a node does not take, what it gives up, and what it holds meanwhile.

use super::puppet::*;
use crate::cluster::message::{Message, Ready};
use crate::cluster::wire::{self, *};
use crate::cluster::*;
use crate::process::Process;
use crate::time::Instant;
use crate::transport::{Event, NodeId};
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

/// Whom the node last asked for a state, and from which piece on.
fn asked(stage: &Stage) -> Option<(u32, CertificateId, u32)> {
    stage.last(|to, message| match message {
        Message::HealRequest { have, from, .. } => Some((to, have, from)),
        _ => None,
    })
}

/// A committed certificate of round 1 with two values of 4.
fn committed() -> Certificate {
    let proposal = proposal(attempt(1, 0), &[ready(0, 1).member, ready(2, 1).member]);
    Certificate { result: result([4.0, 4.0]), ..proposal.certificate }
}

fn offer(certificate: &Certificate) -> Message<'static> {
    let certificate = certificate.clone();
    Message::HealOffer { certificate, iteration: 9, lengths: vec![2], weights: vec![2.0], chunk: 4096 }
}

#[test]
fn a_later_start_of_the_same_node_ends_this_one() {
    let (mut stage, _) = reducing(1);
    let known = Incarnation(2);
    stage.frame(0, Kind::Refuse, Body::Refuse { known });
    stage.node.wake(stage.now);
    stage.drain();
    assert!(matches!(stage.outcomes()[..], [Outcome::Abandoned(AbandonReason::Zombie)]));
    assert!(stage.node.is_zombie());
    assert_eq!(stage.node.timeout(), Instant::FAR, "nothing it waits for matters any more");
    stage.contribute(5.0);
    assert!(matches!(stage.outcomes()[..], [Outcome::Abandoned(AbandonReason::Zombie)]));
    assert_eq!(stage.node.poll(stage.now, 9000), None);
    let refused = |record: &&Record| matches!(record.what, Occurrence::Refused { .. });
    assert_eq!(stage.records.iter().filter(refused).count(), 1);
}

#[test]
fn donors_that_refuse_or_have_something_else_are_left_for_the_next() {
    let mut stage = Stage::new(1, 4);
    stage.contribute(3.0);
    let certificate = committed();
    let id = certificate.id();
    let donors = [2, 3, 0].map(NodeId).to_vec();
    stage.say(0, &Message::Heal { newest: id, donors });
    assert_eq!(asked(&stage), Some((2, CertificateId::default(), 0)));
    stage.say(3, &Message::HealRefuse);
    assert_eq!(asked(&stage).map(|asked| asked.0), Some(2), "3 was not asked");
    stage.say(2, &Message::HealRefuse);
    assert_eq!(asked(&stage).map(|asked| asked.0), Some(3));
    stage.say(3, &offer(&certificate));
    assert_eq!(asked(&stage), Some((3, id, 0)));
    let malformed = stage.node.counters().malformed;
    stage.say(3, &Message::HealPiece { certificate: id, index: 0, values: &bytes(4.0) });
    assert_eq!(stage.node.counters().malformed, malformed + 1, "a piece has two values");
    let rotten = [bytes(4.0), bytes(4.5)].concat();
    stage.say(3, &Message::HealPiece { certificate: id, index: 0, values: &rotten });
    let rejected = |record: &Record| matches!(record.what, Occurrence::HealRejected { donor: NodeId(3), .. });
    assert!(stage.records.iter().any(rejected));
    assert_eq!(asked(&stage).map(|asked| asked.0), Some(0));
    stage.say(0, &Message::HealRefuse);
    assert!(matches!(stage.outcomes()[..], [Outcome::Abandoned(AbandonReason::NoDonor)]));
}

#[test]
fn a_donor_of_another_shape_or_an_older_round_is_left() {
    let mut stage = Stage::new(1, 3);
    stage.contribute(3.0);
    let certificate = committed();
    let donors = [2, 0].map(NodeId).to_vec();
    stage.say(0, &Message::Heal { newest: certificate.id(), donors });
    let (iteration, chunk) = (9, 4096);
    let longer =
        Message::HealOffer { certificate: certificate.clone(), iteration, lengths: vec![3], weights: vec![2.0], chunk };
    stage.say(2, &longer);
    assert_eq!(asked(&stage).map(|asked| asked.0), Some(0));
    stage.say(0, &offer(&Certificate { round: Round(0), ..certificate }));
    assert!(matches!(stage.outcomes()[..], [Outcome::Abandoned(AbandonReason::NoDonor)]));
}

#[test]
fn whoever_alone_counts_and_is_not_finite_says_so_itself() {
    let mut stage = Stage::new(1, 2);
    stage.contribute(f32::NAN);
    let idle = Member { weights: vec![0.0], ..ready(0, 1).member };
    let mut proposal = proposal(attempt(1, 0), &[idle, stage.ready().member]);
    proposal.chunk = 1;
    stage.say(0, &Message::Propose(proposal));
    let failed = stage.last(|to, message| match message {
        Message::Failed { who, .. } => Some((to, who)),
        _ => None,
    });
    assert_eq!(failed, Some((0, NodeId(1))));
    assert!(matches!(stage.outcomes()[..], [Outcome::Abandoned(AbandonReason::NotFinite)]));
}

#[test]
fn an_attempt_that_fails_again_and_again_is_not_tried_for_ever() {
    let (mut stage, first) = reducing(1);
    let members = first.certificate.members;
    let abort = |sequence| Message::Abort { attempt: attempt(sequence, 0), why: AbortReason::Declined, who: vec![] };
    for sequence in 1..=16 {
        stage.say(0, &abort(sequence));
        assert!(stage.outcomes().is_empty(), "after {sequence} attempts");
        stage.say(0, &Message::Propose(proposal(attempt(sequence + 1, 0), &members)));
    }
    stage.say(0, &abort(17));
    assert!(matches!(stage.outcomes()[..], [Outcome::Abandoned(AbandonReason::Late)]));
}

#[test]
fn who_is_told_that_its_result_is_odd_goes_on_without_the_round() {
    for (why, expected) in [
        (AbortReason::Unequal, AbandonReason::Excluded),
        (AbortReason::Stuck, AbandonReason::Excluded),
        (AbortReason::NotFinite, AbandonReason::NotFinite),
    ] {
        let (mut stage, _) = reducing(1);
        stage.say(0, &Message::Abort { attempt: attempt(1, 0), why, who: vec![NodeId(1)] });
        assert!(matches!(stage.outcomes()[..], [Outcome::Abandoned(why)] if why == expected), "{why:?}");
    }
}

#[test]
fn a_ready_that_cannot_be_is_not_counted() {
    let mut stage = Stage::new(0, 3);
    stage.contribute(3.0);
    let two_weights = Member { weights: vec![1.0, 1.0], ..ready(1, 1).member };
    let earlier = Member { incarnation: Incarnation(9), ..ready(1, 1).member };
    for ready in [ready(2, 1), Ready { member: two_weights, ..ready(1, 1) }, Ready { member: earlier, ..ready(1, 1) }] {
        stage.say(1, &Message::Ready(ready));
    }
    stage.say(2, &Message::Ready(ready(2, 1)));
    let proposed = |stage: &Stage| {
        stage.last(|_, message| match message {
            Message::Propose(proposal) => Some(proposal.certificate.members.len()),
            _ => None,
        })
    };
    assert_eq!(proposed(&stage), None, "node 1 has said nothing that counts");
    stage.say(1, &Message::Ready(ready(1, 2)));
    stage.say(1, &Message::Ready(ready(1, 1)));
    assert_eq!(proposed(&stage), Some(3));
}

#[test]
fn whoever_comes_and_goes_all_the_time_is_told_that_it_sits_out() {
    let mut stage = Stage::adapted(0, 3, |settings| settings.quarantine = Some(Quarantine::after(2)));
    stage.contribute(3.0);
    for _ in 0..2 {
        stage.node.handle(stage.now, Event::Down(NodeId(1)));
        stage.frame(1, Kind::Heartbeat, Body::Heartbeat { last: CertificateId::default() });
    }
    // The stream began anew with each loss; the puppet's goes on.
    stage.say(1, &Message::Ready(ready(1, 1)));
    let told = stage.last(|to, message| match message {
        Message::Abandon { turn, why } => Some((to, turn, why)),
        _ => None,
    });
    assert_eq!(told, Some((1, 1, AbandonReason::Quarantined)));
}

#[test]
fn pieces_that_fit_nowhere_are_counted_and_what_came_early_is_held_until_it_is_used() {
    let (mut stage, proposal) = reducing(1);
    let attempt = proposal.certificate.attempt;
    let malformed = stage.node.counters().malformed;
    stage.say(0, &Message::Piece { attempt, reduced: false, index: 1, values: &[0; 3] });
    stage.say(0, &Message::Piece { attempt, reduced: true, index: 1, values: &bytes(1.0) });
    stage.say(0, &Message::Piece { attempt, reduced: false, index: 7, values: &bytes(1.0) });
    assert_eq!(stage.node.counters().malformed, malformed + 3);
    stage.frame(0, Kind::Acknowledge, Body::Acknowledge);
    let before = stage.node.held();
    let later = Attempt { sequence: 2, ..attempt };
    stage.say(0, &Message::Piece { attempt: later, reduced: true, index: 0, values: &bytes(4.0) });
    assert_eq!(stage.node.held(), before + 4);
    stage.node.withdraw(stage.now);
    stage.drain();
    stage.frame(0, Kind::Acknowledge, Body::Acknowledge);
    assert_eq!(stage.node.held(), 0, "everything is acknowledged, nothing is awaited");
}

#[test]
fn a_node_says_who_it_is_and_what_it_counted() {
    let (mut stage, _) = reducing(1);
    let node = &stage.node;
    assert_eq!((node.id(), node.incarnation(), node.status()), (NodeId(1), Incarnation(1), Status::Training));
    assert_eq!(node.budget(), Budget::default());
    assert_eq!(node.contribution().map(Contribution::values), Some(2));
    let counters = node.counters();
    let frames: u64 = counters.sent.iter().map(|traffic| traffic.frames).sum();
    assert_eq!(counters.total_sent().frames, frames);
    assert!(counters.total_sent().bytes >= frames * wire::HEADER as u64);
    assert_eq!(counters.total_received().frames, counters.received.iter().map(|traffic| traffic.frames).sum::<u64>());
    // A frame that is dropped, as nobody can be reached, is not sent, and does not come again at once.
    stage.now = stage.node.timeout().max(stage.now + Budget::default().heartbeat());
    stage.node.wake(stage.now);
    assert!(stage.node.poll(stage.now, 9000).is_some());
    stage.node.discard();
    assert_eq!(stage.node.poll(stage.now, 9000), None);
    assert_eq!(stage.node.counters().total_sent().frames, frames);
}

#[test]
fn records_that_nobody_takes_are_dropped_and_counted() {
    let peers = vec![NodeId(0), NodeId(1)];
    let settings = Settings::new(RunId(1), NodeId(0), Incarnation(1), peers, Budget::default());
    let mut node = Node::<f32>::new(settings, Instant::ORIGIN);
    for iteration in 0..1 << 16 {
        node.finish(Instant::ORIGIN, iteration);
    }
    assert_eq!(node.counters().records_dropped, 1);
    assert!(matches!(node.poll_record().map(|record| record.what), Some(Occurrence::Finished { iteration: 0, .. })));
}

/// Node 1 of three in strict mode.
fn strict() -> Stage {
    let mut stage = Stage::adapted(1, 3, |settings| settings.mode = Mode::Strict);
    stage.contribute(3.0);
    stage
}

#[test]
fn in_strict_mode_only_who_recovers_may_ask_and_nothing_older_than_a_promise_is_answered() {
    let mut stage = strict();
    let promised = |stage: &Stage| {
        stage.last(|_, message| match message {
            Message::Promise { attempt, .. } => Some(attempt.sequence),
            _ => None,
        })
    };
    let declined = |stage: &Stage| {
        stage.last(|_, message| match message {
            Message::Decline { attempt, heard } => Some((attempt.sequence, heard.sequence)),
            _ => None,
        })
    };
    stage.say(2, &Message::Prepare { attempt: attempt(5, 0) });
    assert_eq!(promised(&stage), None, "node 2 asks for node 0");
    stage.say(0, &Message::Prepare { attempt: attempt(5, 0) });
    assert_eq!(promised(&stage), Some(5));
    stage.say(0, &Message::Prepare { attempt: attempt(4, 0) });
    assert_eq!((promised(&stage), declined(&stage)), (Some(5), Some((4, 5))));
    let holders = vec![NodeId(0)];
    stage.say(0, &Message::Accept { attempt: attempt(3, 0), certificate: committed(), holders });
    assert_eq!(declined(&stage), Some((3, 5)));
    stage.say(2, &Message::Accept { attempt: attempt(6, 0), certificate: committed(), holders: vec![NodeId(0)] });
    assert_eq!(asked(&stage), None, "node 2 asks for node 0");
}

#[test]
fn in_strict_mode_what_is_to_be_accepted_is_fetched_from_who_has_it() {
    let mut stage = strict();
    let certificate = committed();
    let id = certificate.id();
    let accept = |sequence, holders: &[u32]| Message::Accept {
        attempt: attempt(sequence, 0),
        certificate: certificate.clone(),
        holders: holders.iter().copied().map(NodeId).collect::<Vec<_>>(),
    };
    let accepted = |stage: &Stage| {
        stage.last(|_, message| match message {
            Message::Accepted { attempt } => Some(attempt.sequence),
            _ => None,
        })
    };
    stage.say(0, &accept(5, &[]));
    assert_eq!(asked(&stage), None, "nobody has it");
    stage.say(0, &accept(6, &[2, 0]));
    assert_eq!(asked(&stage), Some((2, CertificateId::default(), 0)));
    stage.say(2, &Message::HealRefuse);
    stage.say(0, &offer(&certificate));
    assert_eq!(asked(&stage), Some((0, id, 0)));
    let rotten = [bytes(4.0), bytes(4.5)].concat();
    stage.say(0, &Message::HealPiece { certificate: id, index: 0, values: &rotten });
    assert!(stage.records.iter().any(|record| matches!(record.what, Occurrence::HealRejected { .. })));
    assert_eq!(accepted(&stage), None);
    stage.say(0, &accept(7, &[2]));
    stage.say(2, &offer(&certificate));
    let values = [bytes(4.0), bytes(4.0)].concat();
    stage.say(2, &Message::HealPiece { certificate: id, index: 0, values: &values });
    assert_eq!(accepted(&stage), Some(7));
    // It hears of the decision only now, and takes over what it has not contributed to.
    stage.say(0, &Message::Decided { certificate: id });
    assert!(matches!(&stage.outcomes()[..], [Outcome::Healed { certificate, .. }] if certificate.id() == id));
}

#[test]
fn in_strict_mode_a_decision_may_be_heard_of_before_what_was_decided_is_here() {
    let mut stage = strict();
    let certificate = committed();
    let id = certificate.id();
    stage.say(2, &Message::Decided { certificate: id });
    assert!(stage.outcomes().is_empty());
    let holders = vec![NodeId(2)];
    stage.say(0, &Message::Accept { attempt: attempt(7, 0), certificate: certificate.clone(), holders });
    stage.say(2, &offer(&certificate));
    let values = [bytes(4.0), bytes(4.0)].concat();
    stage.say(2, &Message::HealPiece { certificate: id, index: 0, values: &values });
    assert!(matches!(&stage.outcomes()[..], [Outcome::Healed { certificate, .. }] if certificate.id() == id));
    assert_eq!(stage.node.last(), id);
}

#[test]
fn frames_say_what_is_wrong_with_them() {
    let piece = |reduced| Message::Piece { attempt: attempt(3, 0), reduced, index: 5, values: &[1, 2, 3, 4] }.encode();
    let frame = |offset, data: &[u8]| {
        let header = Header {
            kind: Kind::Segment,
            status: Status::Training,
            run: RunId(1),
            from: NodeId(0),
            to: NodeId(1),
            incarnation: Incarnation(1),
            to_incarnation: Incarnation(1),
            heard: 0,
            acknowledged: Acknowledged::default(),
        };
        let place = Place { epoch: 1, sequence: 0, message: 0 };
        let total = offset + data.len() as u32;
        let body = Body::Segment { place, offset, total, attempt: attempt(3, 0), data };
        let mut bytes = vec![0; wire::length(&body)];
        wire::encode(&Frame { header, body }, &mut bytes);
        bytes
    };
    assert_eq!(wire::reduced_piece(&frame(0, &piece(true))), Some((attempt(3, 0), 5)));
    assert_eq!(wire::reduced_piece(&frame(0, &piece(false))), None);
    assert_eq!(wire::reduced_piece(&frame(8, &piece(true))), None);
    assert_eq!(wire::reduced_piece(&[]), None);
    let whole = frame(0, &piece(true));
    let says = |bytes: &[u8]| wire::decode(bytes).unwrap_err().to_string();
    // What is cut off or put on and has the right check sum all the same.
    let summed = |mut bytes: Vec<u8>| {
        let sum = Digest::of(&bytes[8..]).0 as u32;
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    };
    assert_eq!(says(&whole[..20]), "the frame ends too early");
    assert_eq!(says(&summed(whole[..whole.len() - 1].to_vec())), "the frame ends too early");
    assert_eq!(says(&summed([&whole[..], &[0]].concat())), "the frame is longer than it says");
    assert_eq!(says(&[&[0], &whole[1..]].concat()), "the frame is not of this protocol");
    let mut other = whole.clone();
    other[8] = 9;
    assert_eq!(says(&other), "the frame is of version 9; this node speaks version 3 only");
    let mut flipped = whole;
    flipped[40] ^= 1;
    assert_eq!(says(&flipped), "the frame was damaged on the way");
}

#[test]
fn what_is_said_of_a_round_of_all_with_the_most_segments_is_no_longer_than_what_is_accepted() {
    for members in [2, 8, 100, 1000] {
        let peers = (0..members).map(NodeId).collect();
        let settings = Settings::new(RunId(1), NodeId(0), Incarnation(1), peers, Budget::default());
        let longest = |segments: usize| {
            let weights = vec![1.0; segments];
            let member = |node: u32| Member { node: NodeId(node), weights: weights.clone(), ..Member::default() };
            let of = |_| Parent { certificate: CertificateId::default(), stale: true };
            let (members, parents) = ((0..members).map(member).collect(), (0..members).map(of).collect());
            let certificate = Certificate { members, parents, ..committed() };
            let lengths = vec![1; segments];
            let offer =
                Message::HealOffer { certificate: certificate.clone(), iteration: 1, lengths, weights, chunk: 1 };
            let holders = certificate.members.iter().map(|member| member.node).collect();
            let accept = Message::Accept { attempt: attempt(1, 0), certificate, holders };
            offer.encode().len().max(accept.encode().len())
        };
        let most = settings.most_segments();
        assert!(longest(most) <= settings.largest_message, "{members} nodes with {most} segments each");
        assert!(longest(most + most / 20 + 1) > settings.largest_message, "{members} nodes may have more than {most}");
    }
}
