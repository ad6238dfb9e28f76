//! Frames, streams, and whatever bytes may come.

use crate::cluster::wire::{self, *};
use crate::cluster::*;
use crate::cluster::{exercise, exercise_membership};
use crate::process::Process;
use crate::seed::Seed;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::vec;
use alloc::vec::Vec;

fn header(kind: Kind) -> Header {
    Header {
        kind,
        status: Status::Training,
        run: RunId(3),
        from: NodeId(1),
        to: NodeId(2),
        incarnation: Incarnation(4),
        to_incarnation: Incarnation(5),
        heard: 6,
        acknowledged: Acknowledged { epoch: 7, next: 8, beyond: 9 },
    }
}

fn frames() -> Vec<Frame<'static>> {
    let place = Place { epoch: 1, sequence: 2, message: 3 };
    let last = CertificateId { round: Round(1), digest: Digest(2) };
    let attempt = Attempt { sequence: 1, proposer: NodeId(2), incarnation: Incarnation(3) };
    let segment = Body::Segment { place, offset: 4, total: 9, attempt, data: b"abc" };
    [
        (Kind::Heartbeat, Body::Heartbeat { last }),
        (Kind::Acknowledge, Body::Acknowledge),
        (Kind::Segment, segment),
        (Kind::Cancel, Body::Cancel { place }),
        (Kind::Refuse, Body::Refuse { known: Incarnation(8) }),
        (Kind::Goodbye, Body::Goodbye),
    ]
    .map(|(kind, body)| Frame { header: header(kind), body })
    .into()
}

fn bytes(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = vec![0; wire::length(&frame.body)];
    encode(frame, &mut bytes);
    bytes
}

#[test]
fn what_is_encoded_is_decoded() {
    for frame in frames() {
        assert_eq!(decode(&bytes(&frame)), Ok(frame));
    }
}

#[test]
fn a_damaged_frame_is_an_error() {
    for frame in frames() {
        let whole = bytes(&frame);
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                assert!(decode(&damaged).is_err(), "byte {at} bit {bit} of {frame:?}");
            }
            assert!(decode(&whole[..at]).is_err());
        }
        let mut longer = whole;
        longer.push(0);
        assert!(decode(&longer).is_err());
    }
}

#[test]
fn another_version_is_named() {
    let mut frame = bytes(&frames()[1]);
    frame[8] = 9;
    assert_eq!(decode(&frame), Err(WireError::Version { found: 9 }));
}

#[test]
fn arbitrary_bytes_never_panic() {
    for seed in 0..300 {
        let mut random = Seed(seed).random();
        let noise: Vec<u8> = (0..random.below(3000)).map(|_| random.bits() as u8).collect();
        exercise(&noise);
        exercise_membership(&noise);
        let _ = decode(&noise);
    }
}

#[test]
fn a_full_link_holds_up_nobody_else_and_does_not_make_a_node_spin() {
    let peers = (0..4).map(NodeId).collect();
    let settings = Settings::new(RunId(1), NodeId(0), Incarnation(1), peers, Budget::default());
    let mut now = Instant::from_nanos(1);
    let mut node = Node::<f32>::new(settings, now);
    let mut frame = [0; 256];
    let mut reached = Vec::new();
    while let Some((to, len)) = node.poll(now, frame.len()) {
        if to == NodeId(2) {
            node.postpone();
        } else {
            node.fill(&mut frame[..len]);
            reached.push(to);
        }
    }
    assert_eq!(reached, [NodeId(1), NodeId(3)]);
    assert!(node.timeout() > now, "it would be woken again and again while the link is full");
    now = node.timeout();
    node.wake(now);
    let (to, len) = node.poll(now, frame.len()).expect("what was postponed");
    assert_eq!(to, NodeId(1), "peers take turns");
    node.fill(&mut frame[..len]);
    assert_eq!(node.poll(now, frame.len()).map(|(to, _)| to), Some(NodeId(2)));
}
