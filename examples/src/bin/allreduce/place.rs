//! What a process is told when it is started, and its end of the transport.

use crate::Medium;
use anyhow::{Context, Result};
use kronfleet_core::cluster::RunId;
use kronfleet_core::transport::{NodeId, Transport};
use kronfleet_shm::ShmEndpoint;
use kronfleet_tcp::TcpEndpoint;
use kronfleet_tcp::tls::Identity;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) transport: Medium,
    pub(crate) node: u32,
    pub(crate) nodes: u32,
    /// Tells this fleet from all others of this machine.
    pub(crate) session: String,
    /// Where node 0 listens.
    pub(crate) seed: Option<String>,
    /// Where the certificates are, if there are any.
    pub(crate) certificates: Option<PathBuf>,
    pub(crate) task: Task,
}

/// What is to be measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// The bare collective on vectors of so many bytes.
    Collective(Vec<usize>),
    /// Whole committed rounds on vectors of so many bytes.
    Rounds(usize),
    /// A network's training.
    Training(Training),
}

/// How a network is trained.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Training {
    pub(crate) iterations: u64,
    /// Iterations from one average to the next.
    pub(crate) interval: u64,
    /// Whether averages are committed rounds; if not, the bare collective.
    pub(crate) committed: bool,
}

/// One node's end.
pub(crate) struct End {
    pub(crate) transport: Box<dyn Transport>,
    /// Makes a waiting `recv` come back.
    pub(crate) wake: Box<dyn Fn() + Send + Sync>,
}

/// The run that all fleets of this program belong to; their sessions differ.
pub(crate) const RUN: RunId = RunId(1);

/// Binds this thread to the core of one of so many nodes, if there are as many cores.
pub(crate) fn bind_to_core_of(node: u32, nodes: u32) -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    if allowed.count() >= nodes
        && let Some(core) = cores.nth(node as usize)
    {
        let mut own = CpuSet::new();
        own.set(core);
        sched_setaffinity(None, &own).with_context(|| format!("n{node} cannot be bound to core {core}"))?;
    }
    Ok(())
}

impl Place {
    /// Binds this process to a core of its own, if there are as many as processes: `mpirun` does so with those that it is
    /// compared with, and the system may leave two that yield to each other on one core.
    pub(crate) fn bind(&self) -> Result<()> {
        // MPI's processes are bound by their launcher.
        if matches!(self.transport, Medium::Shm | Medium::Tcp) {
            bind_to_core_of(self.node, self.nodes)
        } else {
            Ok(())
        }
    }

    /// This process's end, and where it listens if others have to know.
    pub(crate) fn open(&self) -> Result<(End, Option<String>)> {
        let node = NodeId(self.node);
        if self.transport == Medium::Shm {
            let options = kronfleet_shm::Options::new(&self.session, RUN, self.nodes, node);
            let endpoint = ShmEndpoint::open(&options)?;
            let waker = endpoint.waker();
            return Ok((End { transport: Box::new(endpoint), wake: Box::new(move || waker.wake()) }, None));
        }
        #[cfg(feature = "mpi")]
        if self.transport == Medium::Mpi {
            let end = kronfleet_mpi::Site::enter()?.open(self.nodes)?;
            let end = end.context("this process is one of the nodes")?;
            let waker = end.waker();
            return Ok((End { transport: Box::new(end), wake: Box::new(move || waker.wake()) }, None));
        }
        let mut options = kronfleet_tcp::Options::new(RUN, node);
        options.seeds = self.seed.iter().cloned().collect();
        if let Some(folder) = &self.certificates {
            options.identity = Some(Identity::load(folder, RUN, node)?);
        }
        let endpoint = TcpEndpoint::open(options)?;
        let address = endpoint.address().context("an end that listens")?.to_string();
        let waker = endpoint.waker();
        Ok((End { transport: Box::new(endpoint), wake: Box::new(move || waker.wake()) }, Some(address)))
    }
}
