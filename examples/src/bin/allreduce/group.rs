//! A group of nodes that do one collective operation after the other over a transport that loses nothing.

use anyhow::{Context, Result, bail, ensure};
use kronfleet_core::cluster::Contribution;
use kronfleet_core::collective::{Encoding, Fault, Parcel, Pattern, Plan, Reduction};
use kronfleet_core::error::ErrorKind;
use kronfleet_core::scalar::Scalar;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::{Event, NodeId, Sent, Transport};
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes before the values of a frame: operation, piece, whether it is reduced, and nothing.
const HEADER: usize = 16;
/// Values of a piece at most: the nearest caches hold about as many three times over, and two such frames fill a packet of
/// the loopback interface without spilling into another.
const CHUNK: usize = 8000;
/// How long nothing at all may happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// One node's part in a group whose nodes count from 0.
pub(crate) struct Group<'a> {
    transport: &'a mut dyn Transport,
    nodes: u32,
    operation: u32,
    /// Frames of the next operation: others may be ahead.
    early: VecDeque<(u32, Vec<u8>)>,
}

/// What stands before the values.
#[derive(Clone, Copy)]
struct Header {
    operation: u32,
    index: u32,
    reduced: bool,
}

impl Header {
    fn write(self, target: &mut [u8]) {
        for (target, value) in target.chunks_exact_mut(4).zip([self.operation, self.index, self.reduced.into(), 0]) {
            target.copy_from_slice(&value.to_le_bytes());
        }
    }

    fn read(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four of them"));
        Self { operation: word(0), index: word(4), reduced: word(8) != 0 }
    }
}

impl<'a> Group<'a> {
    pub(crate) fn new(transport: &'a mut dyn Transport, nodes: u32) -> Self {
        Self { transport, nodes, operation: 0, early: VecDeque::new() }
    }

    pub(crate) fn node(&self) -> u32 {
        self.transport.local().0
    }

    /// Waits until everybody has called it; before the first one, until everybody is there.
    pub(crate) fn barrier(&mut self) -> Result<()> {
        self.operation += 1;
        let Self { operation, nodes, .. } = *self;
        let mut missing: Vec<u32> = (0..nodes).filter(|&node| node != self.node()).collect();
        let mut untold = missing.clone();
        let header = Header { operation, index: 0, reduced: false };
        let deadline = self.transport.now() + PATIENCE;
        while let Some(at) = self.early.iter().position(|(_, bytes)| Header::read(bytes).operation == operation) {
            let (from, _) = self.early.remove(at).expect("just found");
            missing.retain(|&node| node != from);
        }
        while !missing.is_empty() || !untold.is_empty() {
            let mut failed = None;
            untold.retain(|&node| {
                match self.transport.send(NodeId(node), HEADER, &mut |target| header.write(target)) {
                    Ok(sent) => sent == Sent::Full,
                    Err(error) => {
                        // Not there yet.
                        failed = Some(error).filter(|error| error.kind != ErrorKind::Unreachable);
                        true
                    }
                }
            });
            if let Some(error) = failed {
                return Err(error.into());
            }
            let now = self.transport.now();
            ensure!(now < deadline, "nodes {missing:?} are not heard");
            let until = if untold.is_empty() { deadline } else { now + Duration::from_millis(1) };
            let early = &mut self.early;
            self.transport.recv(until, &mut |event| {
                if let Event::Frame { from, bytes } = event {
                    if Header::read(bytes).operation == operation {
                        missing.retain(|&node| node != from.0);
                    } else {
                        early.push_back((from.0, bytes.to_vec()));
                    }
                }
            })?;
        }
        Ok(())
    }

    /// How this group averages vectors of so many bytes in single precision.
    pub(crate) fn plan(&self, bytes: usize) -> Plan {
        let values = bytes / f32::BYTES;
        let most = (self.transport.max_frame() - HEADER) / f32::BYTES;
        let pattern = Pattern::choose(self.nodes as usize, bytes);
        let owners = if pattern == Pattern::Exchange { 1 } else { self.nodes as usize };
        let chunk = CHUNK.min(most).min(values.div_ceil(owners)).max(1);
        Plan { pattern, encoding: Encoding::Full, chunk }
    }

    /// A reduction of everybody's `own` with equal weights, to be [restarted](Self::reduce).
    pub(crate) fn prepare(&self, own: &Arc<Contribution<f32>>) -> Result<Reduction<f32>> {
        let weights = vec![vec![1.0]; self.nodes as usize];
        let plan = self.plan(own.values() * f32::BYTES);
        Reduction::new(plan, self.node() as usize, weights, Arc::clone(own), Contribution::default()).map_err(describe)
    }

    /// Averages everybody's `own`.
    pub(crate) fn reduce(&mut self, reduction: &mut Reduction<f32>, own: &Arc<Contribution<f32>>) -> Result<()> {
        self.operation += 1;
        let operation = self.operation;
        reduction.restart(Arc::clone(own)).map_err(describe)?;
        for (from, bytes) in std::mem::take(&mut self.early) {
            accept(reduction, operation, from, &bytes)?;
        }
        let mut next = reduction.poll();
        let mut heard = self.transport.now();
        loop {
            // One sent, one received: what comes is summed while it and what is sent still lie in the nearest cache.
            let mut full = false;
            if let Some(parcel) = next {
                full = !self.send(operation, reduction, &parcel)?;
                if !full {
                    next = reduction.poll();
                }
            } else if reduction.is_whole() {
                return self.push();
            }
            let deadline = match next {
                Some(_) if !full => Instant::ORIGIN,
                // A transport that was full need not say when it no longer is.
                Some(_) => self.transport.now() + Duration::from_micros(100),
                None if reduction.is_whole() => return self.push(),
                None => heard + PATIENCE,
            };
            let mut outcome = Ok(());
            let early = &mut self.early;
            let came = self.transport.recv(deadline, &mut |event| match event {
                Event::Frame { from, bytes } if Header::read(bytes).operation != operation => {
                    early.push_back((from.0, bytes.to_vec()));
                }
                Event::Frame { from, bytes } => outcome = accept(reduction, operation, from.0, bytes),
                Event::Down(peer) => outcome = Err(anyhow::anyhow!("{peer} is lost")),
                Event::Up(_) => {}
            })?;
            outcome?;
            next = next.or_else(|| reduction.poll());
            if came {
                heard = self.transport.now();
            } else if next.is_none() && self.transport.now() >= heard + PATIENCE {
                bail!("nothing is heard of members {:?}", reduction.awaited());
            }
        }
    }

    /// Lets the transport send what it still holds: it does so when there is nothing more to receive, and others wait for it.
    fn push(&mut self) -> Result<()> {
        let early = &mut self.early;
        while self.transport.recv(Instant::ORIGIN, &mut |event| {
            if let Event::Frame { from, bytes } = event {
                early.push_back((from.0, bytes.to_vec()));
            }
        })? {}
        Ok(())
    }

    /// Answers whether there was room.
    fn send(&mut self, operation: u32, reduction: &Reduction<f32>, parcel: &Parcel) -> Result<bool> {
        let header = Header { operation, index: parcel.index, reduced: parcel.reduced };
        let len = HEADER + reduction.bytes(parcel);
        let sent = self.transport.send(NodeId(parcel.to as u32), len, &mut |target| {
            let (head, body) = target.split_at_mut(HEADER);
            header.write(head);
            reduction.write(parcel, body);
        });
        Ok(sent.context("a member is lost")? == Sent::Accepted)
    }
}

fn accept(reduction: &mut Reduction<f32>, operation: u32, from: u32, bytes: &[u8]) -> Result<()> {
    let header = Header::read(bytes);
    if header.operation != operation {
        bail!("a frame of operation {} during {operation}", header.operation);
    }
    reduction.receive(from as usize, header.reduced, header.index, &bytes[HEADER..]).map_err(describe)
}

fn describe(fault: Fault) -> anyhow::Error {
    match fault {
        Fault::NotFinite(member) => anyhow::anyhow!("the values of node {member} are not finite"),
        Fault::Shape(member) => anyhow::anyhow!("node {member} sent what fits nowhere"),
    }
}
