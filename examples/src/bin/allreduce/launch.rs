//! Starting processes, or threads, and hearing what they have measured.

#[cfg(feature = "mpi")]
mod job;

use crate::measurement::Measurements;
use crate::member::{Message, measure};
use crate::place::{Place, RUN, Task, Training};
use crate::report::Floors;
use crate::{Arguments, Medium};
use anyhow::{Result, bail};
use kronfleet_core::seed::Seed;
use kronfleet_core::transport::NodeId;
use kronfleet_examples::trial::Worker;
use kronfleet_lossy::endpoint::LossyNetwork;
use kronfleet_lossy::network::NetworkOptions;
use kronfleet_tcp::certificates::Authority;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;

/// Measures the bare collective at all sizes.
pub(crate) fn collective(
    arguments: &Arguments,
    tls: bool,
    name: &str,
    measured: &mut Measurements,
    floors: &mut Floors,
) -> Result<()> {
    let told = run(arguments, tls, &Task::Collective(arguments.sizes.clone()))?;
    for (bytes, seconds) in slowest(&told, |message| match message {
        Message::Copies(bytes, seconds) => Some((*bytes, seconds)),
        _ => None,
    }) {
        floors.copies(bytes, seconds);
    }
    for (bytes, seconds) in slowest(&told, |message| match message {
        Message::Reductions(bytes, seconds) => Some((*bytes, seconds)),
        _ => None,
    }) {
        measured.add(name, bytes, seconds);
    }
    Ok(())
}

/// Measures whole committed rounds at all sizes, and of a single value: what ready, propose, done and commit cost.
pub(crate) fn rounds(arguments: &Arguments, measured: &mut Measurements) -> Result<()> {
    let name = if arguments.tls { "kronfleet rounds, TLS" } else { "kronfleet rounds" };
    for bytes in [4].into_iter().chain(arguments.sizes.iter().copied()) {
        let told = run(arguments, arguments.tls, &Task::Rounds(bytes))?;
        for (bytes, seconds) in slowest(&told, |message| match message {
            Message::Rounds(bytes, seconds) => Some((*bytes, seconds)),
            _ => None,
        }) {
            measured.add(name, bytes, seconds);
        }
    }
    Ok(())
}

/// Seconds that an iteration of training takes the slowest process.
pub(crate) fn training(arguments: &Arguments, training: Training) -> Result<f64> {
    let told = run(arguments, arguments.tls, &Task::Training(training))?;
    let seconds = told.iter().flatten().filter_map(|message| match message {
        Message::Training(seconds) => Some(*seconds),
        _ => None,
    });
    Ok(seconds.fold(0.0, f64::max))
}

/// Of every repetition, how long the slowest took.
fn slowest<'a>(
    told: &'a [Vec<Message>],
    pick: impl Fn(&'a Message) -> Option<(usize, &'a Vec<f64>)>,
) -> BTreeMap<usize, Vec<f64>> {
    let mut slowest: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (bytes, seconds) in told.iter().flatten().filter_map(pick) {
        let known = slowest.entry(bytes).or_insert_with(|| vec![0.0; seconds.len()]);
        known.iter_mut().zip(seconds).for_each(|(known, &seconds)| *known = known.max(seconds));
    }
    slowest
}

fn run(arguments: &Arguments, tls: bool, task: &Task) -> Result<Vec<Vec<Message>>> {
    match arguments.transport {
        Medium::Lossy => threads(arguments.processes, task),
        Medium::Shm | Medium::Tcp => processes(arguments, tls, task),
        #[cfg(feature = "mpi")]
        Medium::Mpi => job::run(arguments.processes, task),
    }
}

/// Nodes as threads of this process, over perfect links.
fn threads(nodes: u32, task: &Task) -> Result<Vec<Vec<Message>>> {
    let network = LossyNetwork::new(NetworkOptions::new(nodes, Seed(1)));
    let over = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..nodes)
            .map(|node| {
                let (mut end, over, sender) = (network.endpoint(NodeId(node)), &over, sender.clone());
                scope.spawn(move || {
                    measure(&mut end, nodes, task, over, &mut |message| Ok(sender.send((node, message))?))
                })
            })
            .collect();
        drop(sender);
        let mut told = vec![Vec::new(); nodes as usize];
        let mut done = 0;
        for (node, message) in receiver {
            done += u32::from(matches!(message, Message::Done));
            told[node as usize].push(message);
            over.store(done == nodes, Ordering::Release);
        }
        for handle in handles {
            handle.join().expect("a measurement does not panic")?;
        }
        Ok(told)
    })
}

/// All that a process says before it is done.
fn all(mut next: impl FnMut() -> Result<Message>) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    loop {
        match next()? {
            Message::Done => return Ok(messages),
            message => messages.push(message),
        }
    }
}

/// Starts one of ours.
fn start(place: &Place) -> Result<Worker<Message>> {
    let medium = if place.transport == Medium::Shm { "shm" } else { "tcp" };
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--transport", medium, "--place", &serde_json::to_string(place)?]);
    Worker::start(command)
}

/// Nodes as processes.
fn processes(arguments: &Arguments, tls: bool, task: &Task) -> Result<Vec<Vec<Message>>> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let folder = tempfile::tempdir()?;
    let certificates = folder.path().join("certificates");
    if tls {
        let authority = Authority::new(RUN, std::time::Duration::from_secs(3600))?;
        authority.write(&certificates, arguments.processes, false)?;
    }
    let mut place = Place {
        transport: arguments.transport,
        node: 0,
        nodes: arguments.processes,
        session: format!("allreduce-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)),
        seed: None,
        certificates: tls.then_some(certificates),
        task: task.clone(),
    };
    let mut served = Vec::new();
    for node in 0..arguments.processes {
        place.node = node;
        let process = start(&place)?;
        if arguments.transport == Medium::Tcp {
            let Message::Address(address) = process.hear()? else {
                bail!("a process that does not say where it listens")
            };
            place.seed.get_or_insert(address);
        }
        served.push(process);
    }
    let told = served.iter().map(|process| all(|| process.hear())).collect::<Result<_>>()?;
    served.iter_mut().for_each(Worker::release);
    served.iter_mut().try_for_each(Worker::wait)?;
    Ok(told)
}
