//! One node against whatever bytes say: for fuzzing.

use crate::cluster::certificate::{Attempt, CertificateId, Incarnation};
use crate::cluster::node::{Node, Settings};
use crate::cluster::wire::{self, Acknowledged, Body, Frame, Header, Kind, Place, Reader, RunId, Status, WireError};
use crate::cluster::{Budget, Digest, Mode};
use crate::compress::Code;
use crate::process::Process;
use crate::time::{Duration, Instant};
use crate::transport::{Event, NodeId};
use alloc::vec;
use alloc::vec::Vec;

/// Frames that one instruction may make the node send; more would mean that it never stops.
const FRAMES: usize = 10_000;

/// Runs a node through the events that `script` describes: frames good and bad, messages of the round
/// protocol, peers coming and going, time passing, contributions and withdrawals. It does so in available mode, then
/// telling differences, and then in strict mode with a disk of which every fourth write fails.
///
/// Every sequence of bytes is a script; none makes it panic.
///
/// # Panics
/// If the node does, or sends what cannot be read.
pub fn exercise(script: &[u8]) {
    for (mode, code) in [(Mode::Available, Code::All), (Mode::Available, Code::Sign), (Mode::Strict, Code::All)] {
        let peers = (0..4).map(NodeId).collect();
        let mut settings = Settings::new(RunId(1), NodeId(0), Incarnation(1), peers, Budget::default());
        settings.mode = mode;
        settings.code = code;
        let node = Node::<f32>::new(settings, Instant::ORIGIN);
        let mut exercise = Exercise { node, now: Instant::ORIGIN, sequences: [0; 4] };
        exercise.node.set_status(Status::Training);
        let mut reader = Reader::new(script);
        while exercise.instruction(&mut reader).is_ok() {
            exercise.drain();
        }
    }
}

/// Runs a node through comings and goings that `script` describes: heartbeats and goodbyes of any incarnation, status and
/// run, to any incarnation; peers that the transport reports; time passing.
///
/// Every sequence of bytes is a script; none makes the node panic, lower an incarnation it has seen, or take part in a
/// round that it has nothing to contribute to.
///
/// # Panics
/// If the node does one of these.
pub fn exercise_membership(script: &[u8]) {
    let peers = (0..4).map(NodeId).collect();
    let settings = Settings::new(RunId(1), NodeId(0), Incarnation(2), peers, Budget::default());
    let node = Node::<f32>::new(settings, Instant::ORIGIN);
    let mut exercise = Exercise { node, now: Instant::ORIGIN, sequences: [0; 4] };
    let mut reader = Reader::new(script);
    let mut known = [Incarnation(0); 4];
    while exercise.encounter(&mut reader).is_ok() {
        exercise.drain();
        for peer in exercise.node.peers() {
            let known = &mut known[peer.node.0 as usize];
            assert!(peer.incarnation >= *known, "{} went back from {known:?} to {:?}", peer.node, peer.incarnation);
            *known = peer.incarnation;
        }
        assert!(exercise.node.last_certificate().is_none(), "a round was committed without a contribution");
    }
}

struct Exercise {
    node: Node<f32>,
    now: Instant,
    sequences: [u32; 4],
}

impl Exercise {
    fn instruction(&mut self, reader: &mut Reader<'_>) -> Result<(), WireError> {
        let code = reader.u8()?;
        let peer = NodeId(u32::from(code >> 6));
        match code & 7 {
            0 => {
                let len = usize::from(reader.u16()?);
                let bytes = reader.take(len)?;
                self.node.handle(self.now, Event::Frame { from: peer, bytes });
            }
            1 => {
                let len = usize::from(reader.u8()?);
                let body = reader.take(len)?;
                self.frame(peer, code, body);
            }
            2 => {
                let len = usize::from(reader.u16()?);
                let message = reader.take(len)?;
                self.message(peer, message);
            }
            3 => {
                self.now += Duration::from_millis(u64::from(reader.u8()?) * 4);
                self.node.wake(self.now);
            }
            4 => self.node.handle(self.now, Event::Up(peer)),
            5 => self.node.handle(self.now, Event::Down(peer)),
            6 => {
                let len = usize::from(reader.u8()?);
                let mut contribution = self.node.spare();
                contribution.clear();
                contribution.segment("weights", len, 1.0).fill(0.5);
                self.node.contribute(self.now, contribution);
            }
            _ => self.node.withdraw(self.now),
        }
        Ok(())
    }

    fn encounter(&mut self, reader: &mut Reader<'_>) -> Result<(), WireError> {
        let code = reader.u8()?;
        let from = NodeId(u32::from(code >> 6));
        match code & 7 {
            0 => self.now += Duration::from_millis(u64::from(reader.u8()?) * 4),
            1 => self.node.handle(self.now, Event::Up(from)),
            2 => self.node.handle(self.now, Event::Down(from)),
            _ => {
                let (incarnation, to_incarnation, heard) = (reader.u8()?, reader.u8()?, reader.u8()?);
                let goodbye = code & 7 == 3;
                let header = Header {
                    status: if code & 8 == 0 { Status::Training } else { Status::Observing },
                    run: RunId(1 + u64::from(code & 0x30 == 0x30)),
                    incarnation: Incarnation(u64::from(incarnation)),
                    to_incarnation: Incarnation(u64::from(to_incarnation)),
                    heard: u32::from(heard),
                    ..header(from, if goodbye { Kind::Goodbye } else { Kind::Heartbeat })
                };
                let body = if goodbye { Body::Goodbye } else { Body::Heartbeat { last: CertificateId::default() } };
                let mut bytes = vec![0; wire::length(&body)];
                wire::encode(&Frame { header, body }, &mut bytes);
                self.node.handle(self.now, Event::Frame { from, bytes: &bytes });
            }
        }
        self.node.wake(self.now);
        Ok(())
    }

    /// A frame whose check sum and addresses are right and whose body is anything.
    fn frame(&mut self, from: NodeId, code: u8, body: &[u8]) {
        let kind = Kind::ALL[usize::from(code >> 3) % Kind::ALL.len()];
        let frame = Frame { header: header(from, kind), body: Body::Goodbye };
        let mut bytes = vec![0; wire::HEADER];
        wire::encode(&frame, &mut bytes);
        bytes.extend_from_slice(body);
        bytes[12..16].copy_from_slice(&(body.len() as u32).to_le_bytes());
        let checksum = Digest::of(&bytes[8..]).0 as u32;
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        self.node.handle(self.now, Event::Frame { from, bytes: &bytes });
    }

    /// A message in a frame where everything else is right.
    fn message(&mut self, from: NodeId, message: &[u8]) {
        if message.is_empty() {
            return;
        }
        let sequence = self.sequences[from.0 as usize];
        self.sequences[from.0 as usize] += 1;
        let body = Body::Segment {
            place: Place { epoch: 1, sequence, message: sequence },
            offset: 0,
            total: message.len() as u32,
            attempt: Attempt::default(),
            data: message,
        };
        let frame = Frame { header: header(from, Kind::Segment), body };
        let mut bytes = vec![0; wire::length(&body)];
        wire::encode(&frame, &mut bytes);
        self.node.handle(self.now, Event::Frame { from, bytes: &bytes });
    }

    fn drain(&mut self) {
        let mut buffer = Vec::new();
        for _ in 0..FRAMES {
            let Some((_, len)) = self.node.poll(self.now, 512) else { break };
            buffer.resize(len, 0);
            self.node.fill(&mut buffer);
            wire::decode(&buffer).expect("what a node sends can be read");
        }
        while let Some(write) = self.node.poll_write() {
            self.node.written(self.now, write.ticket, !write.ticket.is_multiple_of(4));
        }
        while self.node.poll_record().is_some() {}
        while self.node.poll_outcome().is_some() {}
    }
}

fn header(from: NodeId, kind: Kind) -> Header {
    Header {
        kind,
        status: Status::Training,
        run: RunId(1),
        from,
        to: NodeId(0),
        incarnation: Incarnation(1),
        to_incarnation: Incarnation(1),
        heard: 0,
        acknowledged: Acknowledged::default(),
    }
}
