//! Members over a transport that loses nothing while it lasts.

mod pipeline;

pub use pipeline::Pipeline;

use super::Wire;
use crate::cluster::Contribution;
use crate::collective::{Broadcast, Encoding, Fault, Plan, Reduction};
use crate::error::ErrorKind;
use crate::scalar::Scalar;
use crate::time::{Duration, Instant};
use crate::transport::{Event, NodeId, Sent, Transport, TransportError};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

/// Bytes before the values of a frame: exchange, piece, whether it is a result, and nothing.
const HEADER: usize = 16;
/// Values of a piece at most: as many as the nearest caches hold three times over.
const CHUNK: usize = 8 << 10;
/// How long a full link is left alone.
const PAUSE: Duration = Duration::from_micros(100);
/// How long a member that is not there yet is left alone.
const RETRY: Duration = Duration::from_millis(1);

/// The nodes of a transport as members of shared steps: member i is node i.
///
/// Exchanges run over the [`collective`](crate::collective)s; means are summed in the order of members, so that they are
/// one bit pattern. The transport must deliver every frame while both ends live, as shared memory and TCP do. A member that
/// is lost, or of which nothing is heard for as long as `patience`, ends the exchange with an error: the group is then over,
/// and another one has to be formed.
///
/// How often two members were in an exchange together tells which one a frame belongs to, so that one may be ahead of the
/// other.
pub struct Group {
    transport: Box<dyn Transport + Send>,
    weights: Vec<f64>,
    patience: Duration,
    /// Exchanges with each member so far.
    counts: Vec<u32>,
    /// Frames of exchanges that have not begun here.
    early: VecDeque<(usize, Vec<u8>)>,
    /// Members that the transport has lost.
    lost: Vec<usize>,
    bytes: u64,
}

/// One member's part in what is going on.
enum Part<S> {
    Mean(Box<Reduction<S>>),
    Hand(Broadcast<S>),
}

/// A part, its members by their places in it, and the number of the exchange with each.
struct Running<S> {
    part: Part<S>,
    members: Vec<usize>,
    numbers: Vec<u32>,
    next: Option<Outgoing>,
}

/// What is to be sent next: to which place, which piece, and whether it is a result.
#[derive(Clone, Copy)]
struct Outgoing {
    to: usize,
    index: u32,
    reduced: bool,
}

impl<S: Scalar> Running<S> {
    fn poll(&mut self) -> Option<Outgoing> {
        if self.next.is_none() {
            self.next = match &mut self.part {
                Part::Mean(mean) => {
                    mean.poll().map(|parcel| Outgoing { to: parcel.to, index: parcel.index, reduced: parcel.reduced })
                }
                Part::Hand(hand) => hand.poll().map(|hand| Outgoing { to: hand.to, index: hand.index, reduced: true }),
            };
        }
        self.next
    }

    fn bytes(&self, out: Outgoing) -> usize {
        match &self.part {
            Part::Mean(mean) => mean.bytes(&out.into()),
            Part::Hand(hand) => hand.bytes(out.index),
        }
    }

    fn write(&self, out: Outgoing, target: &mut [u8]) {
        match &self.part {
            Part::Mean(mean) => mean.write(&out.into(), target),
            Part::Hand(hand) => hand.write(out.index, target),
        }
    }

    fn is_whole(&self) -> bool {
        match &self.part {
            Part::Mean(mean) => mean.is_whole(),
            Part::Hand(hand) => hand.is_whole(),
        }
    }

    /// The place of a member whose frame has this number, if it belongs here.
    fn place(&self, from: usize, number: u32) -> Option<usize> {
        let found = self.members.iter().position(|&member| member == from)?;
        (self.numbers[found] == number).then_some(found)
    }

    fn receive(&mut self, place: usize, bytes: &[u8]) -> Result<(), Fault> {
        let (index, reduced) = (word(bytes, 1), word(bytes, 2) != 0);
        match &mut self.part {
            Part::Mean(mean) => mean.receive(place, reduced, index, &bytes[HEADER..]),
            Part::Hand(hand) => hand.receive(place, index, &bytes[HEADER..]),
        }
    }

    /// The values that came of it.
    fn result(self) -> Vec<S> {
        match self.part {
            Part::Mean(mean) => mean.finish().into_values(),
            Part::Hand(hand) => hand.finish(),
        }
    }

    /// The members that something is awaited from.
    fn awaited(&self) -> Vec<usize> {
        let places = match &self.part {
            Part::Mean(mean) => mean.awaited(),
            Part::Hand(hand) => hand.awaited().into_iter().collect(),
        };
        places.into_iter().map(|place| self.members[place]).collect()
    }
}

impl From<Outgoing> for crate::collective::Parcel {
    fn from(Outgoing { to, index, reduced }: Outgoing) -> Self {
        Self { to, index, reduced }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[4 * at..4 * at + 4].try_into().expect("four of them"))
}

impl Group {
    /// The nodes of `transport`, of which node i counts `weights[i]` in means: the samples of its batches. Waits until all
    /// of them are there.
    ///
    /// # Errors
    /// If one is not, after `patience`; or if the transport fails.
    ///
    /// # Panics
    /// If the transport's own node is none of them, or a weight is not above 0.
    #[track_caller]
    pub fn form(
        transport: Box<dyn Transport + Send>,
        weights: Vec<f64>,
        patience: Duration,
    ) -> Result<Self, TransportError> {
        let me = transport.local();
        assert!((me.0 as usize) < weights.len(), "{me} is none of {} members", weights.len());
        assert!(weights.iter().all(|&weight| weight > 0.0), "weights above 0, not {weights:?}");
        let counts = vec![0; weights.len()];
        let mut group =
            Self { transport, weights, patience, counts, early: VecDeque::new(), lost: Vec::new(), bytes: 0 };
        group.meet()?;
        Ok(group)
    }

    /// Tells everybody that this member is there, and hears it of everybody.
    fn meet(&mut self) -> Result<(), TransportError> {
        let me = self.me();
        let mut missing: Vec<usize> = (0..self.weights.len()).filter(|&member| member != me).collect();
        let mut untold = missing.clone();
        let deadline = self.transport.now() + self.patience;
        let Self { transport, early, .. } = self;
        while !missing.is_empty() || !untold.is_empty() {
            let mut failed = None;
            untold.retain(|&member| {
                match transport.send(node(member), HEADER, &mut |target| target.fill(0)) {
                    Ok(sent) => sent == Sent::Full,
                    Err(error) => {
                        // Not there yet.
                        failed = Some(error).filter(|error| error.kind != ErrorKind::Unreachable);
                        true
                    }
                }
            });
            if let Some(error) = failed {
                return Err(error);
            }
            let now = transport.now();
            if now >= deadline {
                let member = missing.first().or(untold.first()).map_or(me, |&member| member);
                return Err(gone(node(member), "is not there: have all members been started?"));
            }
            let until = if untold.is_empty() { deadline } else { now + RETRY };
            transport.recv(until, &mut |event| {
                if let Event::Frame { from, bytes } = event {
                    let from = from.0 as usize;
                    if bytes.len() >= HEADER && word(bytes, 0) == 0 {
                        missing.retain(|&member| member != from);
                    } else {
                        early.push_back((from, bytes.to_vec()));
                    }
                }
            })?;
        }
        Ok(())
    }

    /// Bytes of values this member has sent.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn me(&self) -> usize {
        self.transport.local().0 as usize
    }

    /// A part among `members`, this one included.
    fn running<S>(&mut self, part: Part<S>, members: Vec<usize>) -> Running<S> {
        let me = self.me();
        for &member in members.iter().filter(|&&member| member != me) {
            self.counts[member] += 1;
        }
        let numbers = members.iter().map(|&member| self.counts[member]).collect();
        Running { part, members, numbers, next: None }
    }

    /// This member's part in a mean that everybody gets.
    fn averaging<S: Scalar>(&mut self, values: Vec<S>) -> Result<Running<S>, TransportError> {
        let (me, members) = (self.me(), self.weights.len());
        let plan = Plan::direct(self.chunk::<S>(values.len(), members));
        let own = Contribution::of("values", values, 1.0);
        let weights = self.weights.iter().map(|&weight| vec![weight]).collect();
        let mean = Reduction::new(plan, me, weights, Arc::new(own), Contribution::default());
        let mean = mean.map_err(|_| not_finite(me))?;
        Ok(self.running(Part::Mean(Box::new(mean)), (0..members).collect()))
    }

    /// Values of a piece at most.
    fn chunk<S: Scalar>(&self, values: usize, owners: usize) -> usize {
        let most = (self.transport.max_frame() - HEADER) / S::BYTES;
        CHUNK.min(most).min(values.div_ceil(owners)).max(1)
    }

    /// Gives what came before its time to the parts it belongs to.
    fn take_early<S: Scalar>(&mut self, parts: &mut [Running<S>]) -> Result<(), TransportError> {
        let early = core::mem::take(&mut self.early);
        for (from, bytes) in early {
            let is_early = take_in(parts, from, &bytes)?.is_some();
            if is_early {
                self.early.push_back((from, bytes));
            }
        }
        Ok(())
    }

    /// Sends all that there is room for; answers whether nothing is left to be sent or awaited, and whether a link is full.
    fn pump<S: Scalar>(&mut self, parts: &mut [Running<S>]) -> Result<(bool, bool), TransportError> {
        let (mut done, mut full) = (true, false);
        for part in parts.iter_mut() {
            while let Some(out) = part.poll() {
                if !self.send(part, out)? {
                    full = true;
                    break;
                }
                part.next = None;
            }
            done &= part.next.is_none() && part.is_whole();
        }
        Ok((done, full))
    }

    /// Gives one event to the parts, if one comes until `deadline`; answers whether one did.
    fn hear<S: Scalar>(&mut self, parts: &mut [Running<S>], deadline: Instant) -> Result<bool, TransportError> {
        let mut outcome = Ok(());
        let Self { transport, early, lost, .. } = self;
        let came = transport.recv(deadline, &mut |event| match event {
            Event::Frame { from, bytes } => {
                let from = from.0 as usize;
                match take_in(parts, from, bytes) {
                    Ok(Some(bytes)) => early.push_back((from, bytes.to_vec())),
                    Ok(None) => {}
                    Err(error) => outcome = Err(error),
                }
            }
            Event::Down(peer) => lost.push(peer.0 as usize),
            Event::Up(peer) => lost.retain(|&member| member != peer.0 as usize),
        })?;
        outcome.map(|()| came)
    }

    /// Sends and receives until every part is whole and everything of it is sent.
    fn run<S: Scalar>(&mut self, parts: &mut [Running<S>]) -> Result<(), TransportError> {
        self.take_early(parts)?;
        let mut heard = self.transport.now();
        loop {
            let (done, waits) = self.pump(parts)?;
            if done {
                return Ok(());
            }
            // Whoever has done its part may go.
            let awaited = |member: &&usize| parts.iter().any(|part| part.awaited().contains(member));
            if let Some(&member) = self.lost.iter().find(awaited) {
                return Err(gone(node(member), "is lost"));
            }
            let now = self.transport.now();
            let deadline = if waits { now + PAUSE } else { heard + self.patience };
            if self.hear(parts, deadline)? {
                heard = self.transport.now();
            } else if self.transport.now() >= heard + self.patience {
                let member = parts.iter().flat_map(Running::awaited).next().unwrap_or(0);
                let reason = format!("nothing is heard for {:?}", self.patience);
                return Err(gone(node(member), reason));
            }
        }
    }

    /// Answers whether there was room.
    fn send<S: Scalar>(&mut self, part: &Running<S>, out: Outgoing) -> Result<bool, TransportError> {
        let (to, len) = (part.members[out.to], part.bytes(out));
        let words = [part.numbers[out.to], out.index, u32::from(out.reduced), 0];
        let sent = self.transport.send(node(to), HEADER + len, &mut |target| {
            let (head, body) = target.split_at_mut(HEADER);
            head.chunks_exact_mut(4).zip(words).for_each(|(target, word)| target.copy_from_slice(&word.to_le_bytes()));
            part.write(out, body);
        })?;
        if sent == Sent::Accepted {
            self.bytes += len as u64;
        }
        Ok(sent == Sent::Accepted)
    }
}

/// Gives a frame to the part it belongs to, or back if that has not begun.
fn take_in<'a, S: Scalar>(
    parts: &mut [Running<S>],
    from: usize,
    bytes: &'a [u8],
) -> Result<Option<&'a [u8]>, TransportError> {
    if bytes.len() < HEADER {
        return Err(gone(node(from), format!("sent {} bytes, which are no exchange's", bytes.len())));
    }
    let number = word(bytes, 0);
    let found = parts.iter_mut().find_map(|part| Some((part.place(from, number)?, part)));
    let Some((place, part)) = found else { return Ok(Some(bytes)) };
    let outcome = part.receive(place, bytes);
    outcome.map(|()| None).map_err(|fault| match fault {
        Fault::NotFinite(place) => not_finite(part.members[place]),
        Fault::Shape(place) => gone(node(part.members[place]), "sent what fits nowhere: do all run the same plan?"),
    })
}

fn node(member: usize) -> NodeId {
    NodeId(member as u32)
}

fn not_finite(member: usize) -> TransportError {
    let reason = "has values that are not finite; a smaller learning rate or more damping may help".into();
    TransportError { kind: ErrorKind::Numeric, peer: Some(node(member)), reason }
}

fn gone(peer: NodeId, reason: impl Into<String>) -> TransportError {
    TransportError { kind: ErrorKind::Unreachable, peer: Some(peer), reason: reason.into() }
}

impl<S: Scalar> Wire<S> for Group {
    fn mean(&mut self, to: Option<usize>, values: &mut [S]) -> Result<(), TransportError> {
        let (me, members) = (self.me(), self.weights.len());
        let everybody: Vec<usize> = (0..members).collect();
        let Some(to) = to else {
            let mut parts = [self.averaging(values.to_vec())?];
            self.run(&mut parts)?;
            let [mean] = parts;
            values.copy_from_slice(&mean.result());
            return Ok(());
        };
        let chunk = self.chunk::<S>(values.len(), 1);
        if me != to {
            let part = Broadcast::new(0, 0, 2, values.to_vec(), chunk, Encoding::Full);
            let mut parts = [self.running(Part::Hand(part), vec![me, to])];
            return self.run(&mut parts);
        }
        let others = everybody.into_iter().filter(|&member| member != me);
        let mut parts: Vec<Running<S>> = Vec::with_capacity(members);
        for member in others {
            let part = Broadcast::new(0, 1, 2, vec![S::of(0.0); values.len()], chunk, Encoding::Full);
            parts.push(self.running(Part::Hand(part), vec![member, me]));
        }
        self.run(&mut parts)?;
        let total: f64 = self.weights.iter().sum();
        let mut sums = vec![0.0; values.len()];
        let mut parts = parts.into_iter();
        for (member, &weight) in self.weights.iter().enumerate() {
            let mut add = |values: &[S]| {
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value.wide());
            };
            match if member == me { None } else { parts.next() } {
                Some(part) => add(&part.result()),
                None => add(values),
            }
        }
        values.iter_mut().zip(sums).for_each(|(value, sum)| *value = S::of(sum / total));
        Ok(())
    }

    fn broadcast(&mut self, from: usize, to: &[usize], values: &mut [S]) -> Result<(), TransportError> {
        let me = self.me();
        let members: Vec<usize> = core::iter::once(from).chain(to.iter().copied()).collect();
        let Some(place) = members.iter().position(|&member| member == me) else { return Ok(()) };
        let chunk = self.chunk::<S>(values.len(), 1);
        let part = Broadcast::new(0, place, members.len(), values.to_vec(), chunk, Encoding::Full);
        let mut parts = [self.running(Part::Hand(part), members)];
        self.run(&mut parts)?;
        let [part] = parts;
        values.copy_from_slice(&part.result());
        Ok(())
    }
}
