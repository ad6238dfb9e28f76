//! One member of a measured group: a process of its own.

use crate::Medium;
use crate::modelled::{Named, published};
use crate::shapes::trained;
use anyhow::{Context, Result, bail};
use kronfleet_core::backend::Backend;
use kronfleet_core::cluster::RunId;
use kronfleet_core::layer::Block;
use kronfleet_core::placement::{Group, Letter, Letters, Load, Machine, Pipeline, Placement, Plan, Wire, Work};
use kronfleet_core::preconditioner::{Form, Member};
use kronfleet_core::time::Duration;
use kronfleet_core::transport::{Event, NodeId, Sent, Transport, TransportError};
use kronfleet_examples::speed::{Curvature, Workload, shared_trainer};
use kronfleet_shm::{Options, ShmEndpoint};
use kronfleet_tcp::TcpEndpoint;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// How long a member waits for another one.
const PATIENCE: Duration = Duration::from_secs(120);
/// The run that all groups of this program belong to; sessions and addresses tell them apart.
const RUN: RunId = RunId(1);

/// What a member is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) medium: Medium,
    pub(crate) model: String,
    pub(crate) node: usize,
    pub(crate) members: usize,
    /// Tells this group from all others of this machine.
    pub(crate) session: String,
    /// Where it listens.
    pub(crate) listen: IpAddr,
    /// Where member 0 listens.
    pub(crate) seed: Option<String>,
    /// Which of [`carried_out`].
    pub(crate) number: usize,
    /// KAISA's share of holders.
    pub(crate) share: f64,
    pub(crate) batch: usize,
    pub(crate) inverse_every: u64,
    pub(crate) periods: u64,
    /// By whose figures work is divided.
    pub(crate) machine: Machine,
}

/// What a member tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    /// Where it listens.
    Address(String),
    /// That it is done, and what it saw.
    Seen(Seen),
}

/// What one member saw: seconds on the wall, of the processor outside and within exchanges, and on the wall within them;
/// bytes sent and planned.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) wall: f64,
    pub(crate) computing: f64,
    pub(crate) sending: f64,
    pub(crate) exchanging: f64,
    pub(crate) bytes: u64,
    /// Bytes of a period by the plan, all members together.
    pub(crate) planned: u64,
    /// Bytes of buffers that the backend allocated in all.
    pub(crate) buffers: u64,
}

/// The published placements, and what tells how much of the exchanges the passes hide: the same one with and without.
pub(crate) fn carried_out(share: f64) -> Vec<Named> {
    let mut all = published(share);
    let after = Placement { overlapped: false, ..Placement::spd() };
    let during = Placement { overlapped: true, ..Placement::dp_kfac() };
    all.push(("SPD-KFAC, all after the passes".into(), after, Form::Inverse));
    all.push(("DP-KFAC, gradients during the passes".into(), during, Form::Inverse));
    all
}

/// What a wire counts, in bytes and nanoseconds.
#[derive(Default)]
struct Counts {
    bytes: AtomicU64,
    wall: AtomicU64,
    processor: AtomicU64,
}

impl Counts {
    fn read(&self) -> [u64; 3] {
        [&self.bytes, &self.wall, &self.processor].map(|count| count.load(Ordering::Relaxed))
    }
}

/// A wire that counts.
struct Counted {
    group: Pipeline<f32>,
    counts: Arc<Counts>,
}

impl Counted {
    fn count<T>(&mut self, exchange: impl FnOnce(&mut Pipeline<f32>) -> T) -> T {
        let (start, processor) = (Instant::now(), processor_time());
        let outcome = exchange(&mut self.group);
        let used = processor_time() - processor;
        self.counts.processor.fetch_add((1e9 * used) as u64, Ordering::Relaxed);
        self.counts.wall.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        self.counts.bytes.store(self.group.group().bytes(), Ordering::Relaxed);
        outcome
    }
}

impl Wire<f32> for Counted {
    fn mean(&mut self, to: Option<usize>, values: &mut [f32]) -> Result<(), TransportError> {
        self.count(|group| group.mean(to, values))
    }

    fn broadcast(&mut self, from: usize, to: &[usize], values: &mut [f32]) -> Result<(), TransportError> {
        self.count(|group| group.broadcast(from, to, values))
    }

    fn start(&mut self, letter: Letter<f32>) -> Result<Option<Letter<f32>>, TransportError> {
        self.count(|group| group.start(letter))
    }

    fn advance(&mut self) -> Result<(), TransportError> {
        self.count(Wire::advance)
    }

    fn settle(&mut self) -> Result<Letters<f32>, TransportError> {
        self.count(Wire::settle)
    }

    fn give_up(&mut self) {
        self.group.give_up();
    }
}

/// A member's whole life.
///
/// # Errors
/// If it cannot reach the others, or training fails.
pub(crate) fn serve(place: &Place) -> Result<()> {
    let mut output = std::io::stdout();
    let mut tell = |said: Said| -> Result<()> {
        writeln!(output, "{}", serde_json::to_string(&said)?)?;
        Ok(output.flush()?)
    };
    let end = Lent(Arc::new(Mutex::new(open(place, &mut tell)?)));
    let seen = train(place, Box::new(end.clone()))?;
    tell(Said::Seen(seen))?;
    // What this member has accepted for others may still wait here. Whoever started this process says when all have it.
    let over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&over);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Release);
    });
    let mut end = end.lock();
    while !over.load(Ordering::Acquire) {
        let deadline = end.now() + Duration::from_millis(20);
        end.recv(deadline, &mut |_| {})?;
    }
    Ok(())
}

/// An end that outlives the group it is lent to.
#[derive(Clone)]
struct Lent(Arc<Mutex<Box<dyn Transport + Send>>>);

impl Lent {
    fn lock(&self) -> MutexGuard<'_, Box<dyn Transport + Send>> {
        self.0.lock().expect("no transport panics")
    }
}

impl Transport for Lent {
    fn local(&self) -> NodeId {
        self.lock().local()
    }

    fn max_frame(&self) -> usize {
        self.lock().max_frame()
    }

    fn now(&self) -> kronfleet_core::time::Instant {
        self.lock().now()
    }

    fn send(&mut self, to: NodeId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<Sent, TransportError> {
        self.lock().send(to, len, fill)
    }

    fn recv(
        &mut self,
        deadline: kronfleet_core::time::Instant,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<bool, TransportError> {
        self.lock().recv(deadline, sink)
    }
}

fn open(place: &Place, tell: &mut dyn FnMut(Said) -> Result<()>) -> Result<Box<dyn Transport + Send>> {
    let node = NodeId(place.node as u32);
    if place.medium == Medium::Shm {
        return Ok(Box::new(ShmEndpoint::open(&Options::new(&place.session, RUN, place.members as u32, node))?));
    }
    let mut options = kronfleet_tcp::Options::new(RUN, node);
    options.listen = Some((place.listen, 0).into());
    // The network namespaces of one machine are strangers to each other.
    options.insecure = !place.listen.is_loopback();
    options.seeds = place.seed.iter().cloned().collect();
    let end = TcpEndpoint::open(options)?;
    tell(Said::Address(end.address().context("an end that listens")?.to_string()))?;
    Ok(Box::new(end))
}

fn train(place: &Place, end: Box<dyn Transport + Send>) -> Result<Seen> {
    let (_, placement, form) = carried_out(place.share).swap_remove(place.number);
    let weights = vec![place.batch as f64; place.members];
    let mut group = Some(Group::form(end, weights, PATIENCE)?);
    let counts = Arc::new(Counts::default());
    let workload = Workload {
        model: trained(&place.model)?,
        batch: place.batch,
        threads: 1,
        curvature: Some(Curvature { form, factor_every: 1, inverse_every: place.inverse_every, split_factors: 0 }),
    };
    let mut planned = 0;
    let mut trainer = shared_trainer(&workload, &mut |blocks: &[Block]| {
        let Some(group) = group.take() else { bail!("a member joins once") };
        let wire = Counted { group: Pipeline::new(group), counts: Arc::clone(&counts) };
        let loads: Vec<Load> = blocks.iter().map(Load::from).collect();
        let work = Work { form, batch: place.batch, machine: place.machine };
        let plan = Plan::new(&placement, &loads, place.members, &work);
        let each = plan.statistics().values() + plan.directions().values();
        planned = place.inverse_every * each + plan.decompositions().values();
        Ok(Member { plan, me: place.node, wire: Box::new(wire) })
    })?;
    // The gradient of everything travels, that of normalisation layers and what lies between parameters included.
    planned += place.inverse_every * 2 * (place.members as u64 - 1) * trainer.parts().1.parameters_len() as u64;
    for _ in 0..place.inverse_every {
        trainer.step()?;
    }
    let before = counts.read();
    let (start, processor) = (Instant::now(), processor_time());
    for _ in 0..place.periods * place.inverse_every {
        trainer.step()?;
    }
    let (wall, processor) = (start.elapsed().as_secs_f64(), processor_time() - processor);
    let after = counts.read();
    let [bytes, exchanging, sending] = [0, 1, 2].map(|index| after[index] - before[index]);
    Ok(Seen {
        wall,
        computing: processor - sending as f64 / 1e9,
        sending: sending as f64 / 1e9,
        exchanging: exchanging as f64 / 1e9,
        bytes,
        planned: planned * 4,
        buffers: trainer.parts().0.counters().allocated * 4,
    })
}

/// Seconds that this thread has computed.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
