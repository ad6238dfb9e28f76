//! Placements by the clock: members in threads of this process, over a transport.

use crate::Medium;
use crate::modelled::published;
use crate::shapes::trained;
use anyhow::{Context, Result, bail, ensure};
use kronfleet_core::cluster::RunId;
use kronfleet_core::layer::Block;
use kronfleet_core::placement::{Group, Letter, Letters, Load, Machine, Pipeline, Placement, Plan, Wire, Work};
use kronfleet_core::preconditioner::{Form, Member};
use kronfleet_core::time::Duration;
use kronfleet_core::transport::{NodeId, Transport, TransportError};
use kronfleet_examples::report::{Align, Table};
use kronfleet_examples::speed::{Curvature, Workload, shared_trainer};
use kronfleet_shm::{Options, ShmEndpoint};
use kronfleet_tcp::TcpEndpoint;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

/// How long a member waits for another one.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    pub(crate) medium: Medium,
    pub(crate) model: String,
    pub(crate) members: usize,
    pub(crate) batch: usize,
    pub(crate) inverse_every: u64,
    pub(crate) periods: u64,
    pub(crate) machine: Machine,
}

/// What it came to; milliseconds per step.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) model: String,
    pub(crate) members: usize,
    pub(crate) placement: String,
    /// By the clock on the wall.
    pub(crate) milliseconds: f64,
    /// Of the processor, at the member that needs most.
    pub(crate) computing: f64,
    /// By the clock on the wall within exchanges, waiting included, at the member with most.
    pub(crate) exchanging: f64,
    /// Bytes of values that travelled in a step, all members together, gradients included: as many as planned.
    pub(crate) bytes: f64,
}

/// A wire that counts.
struct Counted {
    group: Pipeline<f32>,
    bytes: Arc<AtomicU64>,
    nanoseconds: Arc<AtomicU64>,
}

impl Counted {
    fn count<T>(&mut self, exchange: impl FnOnce(&mut Pipeline<f32>) -> T) -> T {
        let start = Instant::now();
        let outcome = exchange(&mut self.group);
        self.nanoseconds.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        self.bytes.store(self.group.group().bytes(), Ordering::Relaxed);
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

/// What one member saw: seconds on the wall, of the processor and in exchanges, bytes sent, and the loss at the end.
struct Seen {
    wall: f64,
    processor: f64,
    exchanging: f64,
    bytes: u64,
    /// Bytes of a period by the plan, all members together.
    planned: u64,
}

/// The published placements, and what tells how much of the exchanges the passes hide: the same one with and without.
fn carried_out(share: f64) -> Vec<(String, Placement, Form)> {
    let mut all = published(share);
    let after = Placement { overlapped: false, ..Placement::spd() };
    let during = Placement { overlapped: true, ..Placement::dp_kfac() };
    all.push(("SPD-KFAC, all after the passes".into(), after, Form::Inverse));
    all.push(("DP-KFAC, gradients during the passes".into(), during, Form::Inverse));
    all
}

/// Measures every published placement in turn.
///
/// # Errors
/// If a member fails, or bytes travelled that were not planned.
pub(crate) fn measure(course: &Course, share: f64, mut shown: impl FnMut(&Measured)) -> Result<Vec<Measured>> {
    let mut all = Vec::new();
    for (number, (name, placement, form)) in carried_out(share).into_iter().enumerate() {
        let plan = |blocks: &[Block]| {
            let loads: Vec<Load> = blocks.iter().map(Load::from).collect();
            let work = Work { form, batch: course.batch, machine: course.machine };
            Plan::new(&placement, &loads, course.members, &work)
        };
        let ends = endpoints(course, number)?;
        let seen: Result<Vec<Seen>> = thread::scope(|scope| {
            let member = |end| scope.spawn(|| member(course, form, &plan, end));
            let members: Vec<_> = ends.into_iter().map(member).collect();
            members.into_iter().map(|member| member.join().expect("no panic")).collect()
        });
        let seen = seen.with_context(|| name.clone())?;
        let steps = (course.periods * course.inverse_every) as f64;
        let bytes: u64 = seen.iter().map(|seen| seen.bytes).sum();
        let planned = course.periods * seen[0].planned;
        ensure!(bytes == planned, "{name}: {bytes} bytes travelled, planned were {planned}");
        let most = |of: fn(&Seen) -> f64| 1e3 * seen.iter().map(of).fold(0.0, f64::max) / steps;
        let measured = Measured {
            model: course.model.clone(),
            members: course.members,
            placement: name,
            milliseconds: most(|seen| seen.wall),
            computing: most(|seen| seen.processor),
            exchanging: most(|seen| seen.exchanging),
            bytes: bytes as f64 / steps,
        };
        shown(&measured);
        all.push(measured);
    }
    Ok(all)
}

fn endpoints(course: &Course, number: usize) -> Result<Vec<Box<dyn Transport + Send>>> {
    let run = RunId(number as u64 + 1);
    let mut ends: Vec<Box<dyn Transport + Send>> = Vec::new();
    match course.medium {
        Medium::Shm => {
            let session = format!("placements-{}-{number}", std::process::id());
            for node in 0..course.members as u32 {
                let options = Options::new(&session, run, course.members as u32, NodeId(node));
                ends.push(Box::new(ShmEndpoint::open(&options)?));
            }
        }
        Medium::Tcp => {
            let mut seeds = Vec::new();
            for node in 0..course.members as u32 {
                let mut options = kronfleet_tcp::Options::new(run, NodeId(node));
                options.seeds.clone_from(&seeds);
                let end = TcpEndpoint::open(options)?;
                if node == 0 {
                    seeds.push(end.address().context("an end that listens")?.to_string());
                }
                ends.push(Box::new(end));
            }
        }
    }
    Ok(ends)
}

fn member(
    course: &Course,
    form: Form,
    plan: &(dyn Fn(&[Block]) -> Plan + Sync),
    end: Box<dyn Transport + Send>,
) -> Result<Seen> {
    let me = end.local().0 as usize;
    let mut group = Some(Group::form(end, vec![course.batch as f64; course.members], PATIENCE)?);
    let (bytes, nanoseconds) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let workload = Workload {
        model: trained(&course.model)?,
        batch: course.batch,
        threads: 1,
        curvature: Some(Curvature { form, factor_every: 1, inverse_every: course.inverse_every }),
    };
    let mut planned = 0;
    let mut trainer = shared_trainer(&workload, &mut |blocks| {
        let Some(group) = group.take() else { bail!("a member joins once") };
        let group = Pipeline::new(group);
        let wire = Counted { group, bytes: Arc::clone(&bytes), nanoseconds: Arc::clone(&nanoseconds) };
        let plan = plan(blocks);
        let steps = course.inverse_every;
        planned = steps * (plan.statistics().values() + plan.directions().values()) + plan.decompositions().values();
        Ok(Member { plan, me, wire: Box::new(wire) })
    })?;
    // The gradient of everything travels, that of normalisation layers and what lies between parameters included.
    planned += course.inverse_every * 2 * (course.members as u64 - 1) * trainer.parts().1.parameters_len() as u64;
    for _ in 0..course.inverse_every {
        trainer.step()?;
    }
    let before = (bytes.load(Ordering::Relaxed), nanoseconds.load(Ordering::Relaxed));
    let (start, processor) = (Instant::now(), processor_time());
    for _ in 0..course.periods * course.inverse_every {
        trainer.step()?;
    }
    Ok(Seen {
        wall: start.elapsed().as_secs_f64(),
        processor: processor_time() - processor,
        exchanging: (nanoseconds.load(Ordering::Relaxed) - before.1) as f64 / 1e9,
        bytes: bytes.load(Ordering::Relaxed) - before.0,
        planned: planned * 4,
    })
}

/// Seconds that this thread has computed.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// A table of what was measured.
pub(crate) fn table(measured: &[Measured]) -> Table {
    let mut table = Table::new(&[
        ("placement", Align::Left),
        ("step", Align::Right),
        ("computing", Align::Right),
        ("exchanging", Align::Right),
        ("travels in a step", Align::Right),
    ]);
    for line in measured {
        table.row([
            line.placement.clone(),
            format!("{:.1} ms", line.milliseconds),
            format!("{:.1} ms", line.computing),
            format!("{:.1} ms", line.exchanging),
            format!("{:.2} MB", line.bytes / 1e6),
        ]);
    }
    table
}
