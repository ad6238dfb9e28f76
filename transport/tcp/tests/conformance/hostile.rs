//! Whatever comes over the wire, the end says why it closes a connection, and goes on.

use crate::fleet::{Fleet, PATIENCE, RUN, Security, meet, seed, turn, until};
use kronfleet_core::cluster::{Incarnation, RunId};
use kronfleet_core::transport::{NodeId, Transport};
use kronfleet_tcp::frame::{self, ANYBODY, FrameError, GREATEST_VERSION, HEADER, Kind, LEAST_VERSION};
use kronfleet_tcp::hello::{Generation, Hello, Refusal};
use kronfleet_tcp::incident::{Closure, Incident};
use kronfleet_tcp::{Options, TcpEndpoint};
use proptest::prelude::*;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;
use tracing::Level;

/// A frame as bytes.
fn framed(kind: Kind, target: NodeId, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER + body.len()];
    frame::encode(GREATEST_VERSION, kind, NodeId(1), target, &mut bytes, |target| target.copy_from_slice(body));
    bytes
}

/// What `n1` says when it introduces itself to an end with the usual options.
fn hello() -> Hello {
    Hello {
        least: LEAST_VERSION,
        greatest: GREATEST_VERSION,
        run: RUN,
        generation: Generation { incarnation: Incarnation(1), dialled: 1 },
        longest: 65_400,
        addresses: Vec::new(),
    }
}

fn said(hello: &Hello) -> Vec<u8> {
    let mut body = vec![0; hello.length()];
    hello.write(&mut body);
    framed(Kind::Hello, ANYBODY, &body)
}

/// Waits for the next connection to end.
#[track_caller]
fn incident(end: &mut TcpEndpoint) -> Incident {
    let mut found = None;
    until("a connection ends", &mut [end], |ends, _| {
        found = found.take().or(ends[0].next_incident());
        found.is_some()
    });
    found.expect("just found")
}

/// Sends `bytes` to a fresh end and closes the sending side; answers why the end closed the connection, and what it
/// said before.
#[track_caller]
fn verdict(bytes: &[u8]) -> (Closure, Vec<u8>) {
    let mut end = TcpEndpoint::open(Fleet::new(Security::Plain).options(0, &[])).unwrap();
    let mut stranger = TcpStream::connect(end.address().unwrap()).unwrap();
    // The end may close before everything is written.
    let _ = stranger.write_all(bytes);
    let _ = stranger.shutdown(Shutdown::Write);
    let closure = incident(&mut end).closure;
    stranger.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = Vec::new();
    let _ = stranger.read_to_end(&mut answer);
    (closure, answer)
}

/// Why the answer says that the connection is refused.
fn refusal(answer: &[u8]) -> Refusal {
    let header = frame::header(answer, &Default::default()).unwrap().expect("a whole header");
    assert_eq!(header.kind, Kind::Refuse);
    Refusal::read(frame::body(answer, &header).unwrap().expect("a whole frame")).unwrap()
}

#[test]
fn garbage_closes_its_connection() {
    let (closure, _) = verdict(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(closure, Closure::Frame(FrameError::Magic { found: *b"GET " }));
}

#[test]
fn what_ends_within_a_frame_is_truncated() {
    let whole = said(&hello());
    let (closure, _) = verdict(&whole[..whole.len() - 1]);
    assert_eq!(closure, Closure::Frame(FrameError::Truncated { found: whole.len() - 1 }));
}

#[test]
fn other_versions_are_refused_with_the_reason() {
    for (least, greatest) in [(1, LEAST_VERSION - 1), (GREATEST_VERSION + 1, GREATEST_VERSION + 2)] {
        let (closure, answer) = verdict(&said(&Hello { least, greatest, ..hello() }));
        assert_eq!(closure, Closure::Refused(Refusal::Version));
        assert_eq!(refusal(&answer), Refusal::Version);
        assert!(closure.to_string().contains("bring all nodes to the same release"), "{closure}");
    }
}

#[test]
fn other_limits_are_refused_with_the_reason() {
    let (closure, answer) = verdict(&said(&Hello { longest: 65, ..hello() }));
    assert_eq!((closure, refusal(&answer)), (Closure::Refused(Refusal::Longest), Refusal::Longest));
}

#[test]
fn frames_before_the_hello_are_refused() {
    let (closure, answer) = verdict(&framed(Kind::Data, NodeId(0), b"hello?"));
    assert_eq!(closure, Closure::Frame(FrameError::Kind { found: Kind::Data as u8 }));
    assert_eq!(refusal(&answer), Refusal::Frame);
}

#[test]
fn oversized_frames_are_refused_by_their_header_alone() {
    let mut bytes = said(&hello());
    let mut header = framed(Kind::Data, NodeId(0), b"");
    header[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    bytes.extend(header);
    let (closure, _) = verdict(&bytes);
    let (length, limit) = (u32::MAX as usize, 65_400);
    assert_eq!(closure, Closure::Frame(FrameError::Oversized { length, limit }));
}

#[test]
fn damaged_frames_are_noticed() {
    let mut bytes = said(&hello());
    bytes.extend(framed(Kind::Data, NodeId(0), b"some bytes"));
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(verdict(&bytes).0, Closure::Frame(FrameError::Checksum));
}

#[test]
fn a_stranger_who_begins_with_a_refusal_ends_no_node() {
    // Stale, and the latest start there can be.
    let mut body = vec![Refusal::ALL.iter().position(|&refusal| refusal == Refusal::Stale).expect("one of all") as u8];
    body.extend(u64::MAX.to_le_bytes());
    assert_eq!(Refusal::newest(&body), Some(Incarnation(u64::MAX)));
    let mut end = TcpEndpoint::open(Fleet::new(Security::Plain).options(0, &[])).unwrap();
    let mut stranger = TcpStream::connect(end.address().unwrap()).unwrap();
    stranger.write_all(&framed(Kind::Refuse, ANYBODY, &body)).unwrap();
    let closure = incident(&mut end).closure;
    assert_eq!(closure, Closure::Frame(FrameError::Kind { found: Kind::Refuse as u8 }));
    let now = end.now();
    end.recv(now, &mut |event| panic!("{event:?}")).expect("nobody has taken its place");
}

#[test]
fn forged_origins_are_refused() {
    let mut bytes = said(&hello());
    let mut forged = vec![0; HEADER];
    frame::encode(GREATEST_VERSION, Kind::Ping, NodeId(2), NodeId(0), &mut forged, |_| {});
    bytes.extend(forged);
    assert_eq!(verdict(&bytes).0, Closure::Frame(FrameError::Field("origin or target")));
}

#[test]
fn other_runs_are_refused_at_both_ends() {
    let fleet = Fleet::new(Security::Plain);
    let mut one = TcpEndpoint::open(fleet.options(0, &[])).unwrap();
    let other = Options { run: RunId(43), ..fleet.options(1, &[seed(&one)]) };
    let mut other = TcpEndpoint::open(other).unwrap();
    let (mut here, mut there) = (None, None);
    until("both know why", &mut [&mut one, &mut other], |ends, _| {
        here = here.take().or(ends[0].next_incident());
        there = there.take().or(ends[1].next_incident());
        here.is_some() && there.is_some()
    });
    assert_eq!(here.unwrap().closure, Closure::Refused(Refusal::Run));
    assert_eq!(there.unwrap().closure, Closure::RefusedBy(Refusal::Run));
}

#[test]
fn connections_that_a_later_one_of_the_same_start_has_overtaken_are_refused_as_such() {
    let mut end = TcpEndpoint::open(Fleet::new(Security::Plain).options(0, &[])).unwrap();
    let introduce = |end: &TcpEndpoint, incarnation, dialled| {
        let mut peer = TcpStream::connect(end.address().unwrap()).unwrap();
        let generation = Generation { incarnation: Incarnation(incarnation), dialled };
        peer.write_all(&said(&Hello { generation, ..hello() })).unwrap();
        peer
    };
    let _open = introduce(&end, 2, 5);
    until("the first is let in", &mut [&mut end], |ends, _| ends[0].neighbours().count() == 1);
    let (overtaken, stale) = ((Refusal::Overtaken, Level::DEBUG), (Refusal::Stale, Level::WARN));
    for (incarnation, dialled, (expected, level)) in [(2, 4, overtaken), (2, 5, overtaken), (1, 9, stale)] {
        let mut late = introduce(&end, incarnation, dialled);
        let closure = incident(&mut end).closure;
        assert_eq!(closure, Closure::Refused(expected));
        assert_eq!([closure.level(), Closure::RefusedBy(expected).level()], [level; 2]);
        late.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = Vec::new();
        let _ = late.read_to_end(&mut answer);
        assert_eq!(refusal(&answer), expected);
    }
    assert_eq!(end.neighbours().count(), 1, "the first one stays");
}

#[test]
fn strangers_who_say_nothing_have_to_make_room_and_to_leave() {
    let fleet = Fleet::new(Security::Plain);
    let options = Options { strangers: 4, handshake: Duration::from_millis(300), ..fleet.options(0, &[]) };
    let mut end = TcpEndpoint::open(options).unwrap();
    let strangers: Vec<_> = (0..20).map(|_| TcpStream::connect(end.address().unwrap()).unwrap()).collect();
    let mut closures = Vec::new();
    until("all strangers are gone", &mut [&mut end], |ends, _| {
        closures.extend(std::iter::from_fn(|| ends[0].next_incident()).map(|incident| incident.closure));
        closures.len() == strangers.len()
    });
    let crowded = closures.iter().filter(|closure| **closure == Closure::Crowded).count();
    let slow = closures.iter().filter(|closure| matches!(closure, Closure::Slow(_))).count();
    assert_eq!((crowded, slow), (16, 4), "{closures:?}");
    // A friend is welcome all the same.
    let friend = TcpEndpoint::open(fleet.options(1, &[seed(&end)])).unwrap();
    meet(&mut [end, friend]);
}

#[test]
fn any_bytes_close_their_connection_and_nothing_else() {
    let mut friends = Fleet::new(Security::Plain).open(2);
    meet(&mut friends);
    let friends = std::cell::RefCell::new(friends);
    let start = prop_oneof![Just(Vec::new()), Just(said(&hello())[..HEADER].to_vec()), Just(said(&hello()))];
    let damage = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4);
    let bytes = (start, damage, proptest::collection::vec(any::<u8>(), 0..64));
    let check = kronfleet_conformance::check::Check { cases: 64, shrinking: 50, ..Default::default() };
    check
        .hold(bytes, |(mut bytes, damage, rest)| {
            bytes.extend(rest);
            for (at, byte) in damage {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            let mut friends = friends.borrow_mut();
            let mut stranger = TcpStream::connect(friends[0].address().unwrap()).unwrap();
            let _ = stranger.write_all(&bytes);
            drop(stranger);
            // It introduced itself as n1: at worst that one has to come back.
            let began = std::time::Instant::now();
            while friends[0].next_incident().is_none() && began.elapsed() < PATIENCE {
                let [one, other] = &mut friends[..] else { unreachable!("two friends") };
                turn(&mut [one, other]);
            }
            if began.elapsed() >= PATIENCE {
                return Err("the connection was not closed".into());
            }
            Ok(())
        })
        .unwrap();
    meet(&mut friends.borrow_mut());
    assert_eq!(friends.borrow()[0].local(), NodeId(0));
}

/// The fuzz targets' corpora: what fuzzing has found stays found.
#[test]
fn corpora() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (corpus, target) in [
        ("tcp_frame", kronfleet_tcp::exercise_frame as fn(&[u8])),
        ("tcp_handshake", kronfleet_tcp::exercise_handshake),
    ] {
        let folder = folder.join(corpus);
        let files = std::fs::read_dir(&folder).expect("every target has a corpus");
        let seeds: Vec<_> = files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
        assert!(!seeds.is_empty(), "{} is empty", folder.display());
        seeds.iter().for_each(|seed| target(seed));
    }
}

/// Seeds reach the depths they are there for: the handshake's let a peer in.
#[test]
fn seeds_of_the_handshake_are_sound() {
    let seed = include_bytes!("../../../../fuzz/corpus/tcp_handshake/session");
    let mut reception = kronfleet_tcp::reception::Reception::new();
    let bytes = &seed[1..];
    reception.vacant()[..bytes.len()].copy_from_slice(bytes);
    reception.filled(bytes.len());
    let terms = kronfleet_tcp::parley::Terms { run: RunId(7), node: NodeId(0), nodes: 8, longest: 1000 };
    let (header, body) = reception.first().unwrap().unwrap();
    let greeting = terms.judge(kronfleet_tcp::parley::Role::Accepted, &header, body).unwrap();
    assert!(matches!(
        greeting,
        kronfleet_tcp::parley::Greeting::Hello { peer: NodeId(1), version: GREATEST_VERSION, .. }
    ));
}
