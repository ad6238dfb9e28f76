//! What one process, or thread, measures.

use crate::group::Group;
use crate::measurement::repetitions;
use crate::place::{Place, RUN, Task};
use crate::training::train;
use anyhow::{Context, Result, bail, ensure};
use kronfleet_core::cluster::{Budget, Contribution, Incarnation, Node, Outcome, Settings, Status};
use kronfleet_core::process::drive;
use kronfleet_core::time::Duration;
use kronfleet_core::transport::{NodeId, Transport};
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What a process tells whoever started it, a line of JSON each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Where it listens.
    Address(String),
    /// Seconds of every copy of so many bytes.
    Copies(usize, Vec<f64>),
    /// Seconds of every all-reduce of so many bytes.
    Reductions(usize, Vec<f64>),
    /// Seconds of every committed round of so many bytes.
    Rounds(usize, Vec<f64>),
    /// Seconds of an iteration of training.
    Training(f64),
    /// Nothing more follows.
    Done,
}

/// A process's whole life.
pub(crate) fn serve(place: &Place) -> Result<()> {
    #[cfg(feature = "mpi")]
    if place.transport == crate::Medium::Mpi {
        // Its standard input and output are its launcher's.
        let stream = std::os::unix::net::UnixStream::connect(&place.session)?;
        return attend(place, stream.try_clone()?, stream);
    }
    attend(place, std::io::stdin(), std::io::stdout())
}

/// Measures and tells; `input` ends when everybody has said `Done`, or when whoever started this process is gone.
fn attend(place: &Place, mut input: impl Read + Send + 'static, mut output: impl Write) -> Result<()> {
    place.bind()?;
    let (mut end, address) = place.open()?;
    let mut tell = |message: Message| {
        writeln!(output, "{}", serde_json::to_string(&message)?)?;
        Ok(output.flush()?)
    };
    if let Some(address) = address {
        tell(Message::Address(address))?;
    }
    static OVER: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(move || {
        let _ = input.read_to_end(&mut Vec::new());
        OVER.store(true, Ordering::Release);
    });
    match place.task {
        Task::Training(training) => train(&mut end, place.nodes, training, &OVER, &mut tell),
        _ => measure(&mut *end.transport, place.nodes, &place.task, &OVER, &mut tell),
    }
}

/// Measures what is asked for; stays until everybody is done.
pub(crate) fn measure(
    transport: &mut dyn Transport,
    nodes: u32,
    task: &Task,
    over: &AtomicBool,
    tell: &mut dyn FnMut(Message) -> Result<()>,
) -> Result<()> {
    match task {
        Task::Collective(sizes) => {
            let mut group = Group::new(transport, nodes);
            for &bytes in sizes {
                collective(&mut group, nodes, bytes, tell)?;
            }
            group.barrier()?;
            tell(Message::Done)
        }
        Task::Rounds(bytes) => rounds(transport, nodes, *bytes, over, tell),
        Task::Training(_) => bail!("training takes processes"),
    }
}

fn contribution(node: u32, bytes: usize) -> Contribution<f32> {
    let mut contribution = Contribution::default();
    let values = contribution.segment("values", bytes / 4, 1.0);
    for (index, value) in values.iter_mut().enumerate() {
        *value = (node + index as u32 % 7) as f32;
    }
    contribution
}

/// Panics, for this program is wrong, if that is not the mean of all [`contribution`]s.
fn check(mean: &Contribution<f32>, nodes: u32) {
    let middle = (f64::from(nodes) - 1.0) / 2.0;
    for (index, &value) in mean.segments()[0].values.iter().enumerate() {
        let expected = (middle + (index % 7) as f64) as f32;
        assert!(value == expected, "value {index} is {value} instead of {expected}");
    }
}

fn collective(
    group: &mut Group<'_>,
    nodes: u32,
    bytes: usize,
    tell: &mut dyn FnMut(Message) -> Result<()>,
) -> Result<()> {
    let own = Arc::new(contribution(group.node(), bytes));
    let mut mean = contribution(group.node(), bytes);
    let mut copies = Vec::new();
    for _ in 0..repetitions(bytes) + 2 {
        group.barrier()?;
        let start = Instant::now();
        black_box(&mut mean).segments_mut()[0].values.copy_from_slice(&black_box(&own).segments()[0].values);
        black_box(&mean);
        copies.push(start.elapsed().as_secs_f64());
    }
    tell(Message::Copies(bytes, copies.split_off(2)))?;
    drop(mean);
    let mut reduction = group.prepare(&own)?;
    let mut seconds = Vec::new();
    for repetition in 0..repetitions(bytes) + 5 {
        group.barrier()?;
        let start = Instant::now();
        group.reduce(&mut reduction, &own)?;
        seconds.push(start.elapsed().as_secs_f64());
        if repetition == 0 {
            check(reduction.result(), nodes);
        }
    }
    tell(Message::Reductions(bytes, seconds.split_off(5)))
}

fn rounds(
    transport: &mut dyn Transport,
    nodes: u32,
    bytes: usize,
    over: &AtomicBool,
    tell: &mut dyn FnMut(Message) -> Result<()>,
) -> Result<()> {
    let budget = Budget::new(Duration::from_secs(5)).context("five seconds are a budget")?;
    let (local, peers) = (transport.local(), (0..nodes).map(NodeId).collect());
    let settings = Settings {
        // Nobody commits without the others.
        minimum: nodes as usize,
        ..Settings::new(RUN, local, Incarnation(1), peers, budget)
    };
    let mut node = Node::<f32>::new(settings, transport.now());
    node.set_status(Status::Training);
    let first = transport.now();
    node.contribute(first, contribution(local.0, bytes));
    let times = repetitions(bytes).min(100) + 3;
    let mut start = Instant::now();
    let (mut seconds, mut outcome) = (Vec::new(), Ok(()));
    drive(&mut node, transport, Duration::from_millis(10), |node, now| {
        match node.poll_outcome() {
            None => {}
            Some(Outcome::Committed { average, certificate }) => {
                seconds.push(start.elapsed().as_secs_f64());
                if seconds.len() == 1 {
                    assert_eq!(certificate.members.len(), nodes as usize, "everybody takes part");
                    check(&average, nodes);
                }
                if seconds.len() < times {
                    let contribution = contribution(local.0, bytes);
                    start = Instant::now();
                    node.contribute(now, contribution);
                } else if seconds.len() == times {
                    let told = tell(Message::Rounds(bytes, seconds[3..].to_vec()));
                    outcome = told.and_then(|()| tell(Message::Done));
                }
            }
            Some(Outcome::Abandoned(_)) if seconds.is_empty() => {
                // The others were not there yet.
                start = Instant::now();
                node.contribute(now, contribution(local.0, bytes));
            }
            Some(other) => outcome = Err(anyhow::anyhow!("a round between living nodes ended as {other:?}")),
        }
        outcome.is_err() || over.load(Ordering::Acquire)
    })?;
    outcome?;
    ensure!(seconds.len() >= times, "stopped after {} of {times} rounds", seconds.len());
    Ok(())
}
