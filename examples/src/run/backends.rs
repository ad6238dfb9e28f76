//! What the nodes of a run compute with.

use super::compute::Compute;
use super::evaluation::Judge;
use super::survivor::{SurvivingJudge, Survivor};
use super::workshop::Workshop;
use crate::settings::{BackendKind, TaskSettings};
#[cfg(any(feature = "wgpu", feature = "cuda"))]
use anyhow::Context as _;
use anyhow::{Result, bail};
use kronfleet_conformance::minimal::Minimal;
use kronfleet_core::backend::Backend;
use kronfleet_faer::Faer;
use kronfleet_nalgebra::Nalgebra;

/// Backends that were opened: node i computes on the i-th of them, and so on in turn.
#[derive(Clone, Debug)]
pub struct Backends {
    opened: Vec<Opened>,
    /// After how many iterations the wgpu device is given up.
    lose_device: Option<u64>,
}

/// What makes backends of one kind.
#[derive(Clone, Debug)]
enum Opened {
    Faer,
    Nalgebra,
    Minimal,
    #[cfg(feature = "wgpu")]
    Wgpu(kronfleet_wgpu::Device),
    #[cfg(feature = "cuda")]
    Cuda(kronfleet_cuda::Options),
}

/// Something to be done with backends, whatever their type.
pub(super) trait With {
    /// What comes out of it.
    type Output;

    /// Does it with backends of `make`.
    ///
    /// # Errors
    /// If a backend cannot be made, or fails.
    fn with<B>(self, make: &(dyn Fn() -> Result<B> + Sync)) -> Result<Self::Output>
    where
        B: Backend<Scalar = f32, Buffer: Send, Verdict: Send, Download: Send> + Send + 'static;
}

impl Backends {
    /// Opens what the settings name. Says on standard error where a CPU stands in for a GPU.
    ///
    /// # Errors
    /// If a device, a driver or a library is missing; the message says what to install.
    pub fn open(task: &TaskSettings) -> Result<Self> {
        let mut opened: Vec<(BackendKind, Opened)> = Vec::new();
        for &kind in &task.backend {
            let known = opened.iter().find(|(known, _)| *known == kind).map(|(_, known)| known.clone());
            opened.push((kind, known.map_or_else(|| Opened::open(kind, task), Ok)?));
        }
        if task.tf32 && !task.backend.contains(&BackendKind::Cuda) {
            bail!("--tf32 is an option of the CUDA backend, but no node computes on it: add --backend cuda");
        }
        if task.adapter.is_some() && !task.backend.contains(&BackendKind::Wgpu) {
            bail!(
                "--adapter names what the wgpu backend computes on, but no node computes with that: add --backend wgpu"
            );
        }
        if task.half && !task.backend.contains(&BackendKind::Wgpu) {
            bail!("--half is an option of the wgpu backend, but no node computes on it: add --backend wgpu");
        }
        if task.lose_device.is_some() && !task.backend.contains(&BackendKind::Wgpu) {
            bail!("--lose-device gives a wgpu device up, but no node computes on one: add --backend wgpu");
        }
        Ok(Self { opened: opened.into_iter().map(|(_, opened)| opened).collect(), lose_device: task.lose_device })
    }

    /// Opens what one node needs, and nothing for the others.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn of_node(task: &TaskSettings, node: u32) -> Result<Self> {
        let kind = task.backend[node as usize % task.backend.len()];
        let lose_device = task.lose_device.filter(|_| kind == BackendKind::Wgpu);
        let half = task.half && kind == BackendKind::Wgpu;
        let adapter = task.adapter.clone().filter(|_| kind == BackendKind::Wgpu);
        let tf32 = task.tf32 && kind == BackendKind::Cuda;
        Self::open(&TaskSettings { backend: vec![kind], lose_device, half, adapter, tf32, ..task.clone() })
    }

    /// What a node trains with.
    ///
    /// # Errors
    /// If settings do not fit the network, or the device fails.
    pub fn trainer(&self, workshop: &Workshop, node: u32) -> Result<Survivor> {
        let opened = &self.opened[node as usize % self.opened.len()];
        let compute = opened.with(MakeTrainer { workshop, node })?;
        if !opened.can_be_lost() {
            return Ok(Survivor::new(compute));
        }
        let own = workshop.clone();
        let spare = move || Opened::Faer.with(MakeTrainer { workshop: &own, node });
        let survivor = Survivor::with_spare(compute, Box::new(spare));
        Ok(match (self.lose_device, opened) {
            #[cfg(feature = "wgpu")]
            (Some(iteration), Opened::Wgpu(device)) => {
                let device = device.clone();
                survivor.with_misfortune(iteration, Box::new(move || device.destroy()))
            }
            _ => survivor,
        })
    }

    /// What judges models on the test set: the first of the backends, once per thread.
    ///
    /// # Errors
    /// If the device fails.
    pub fn judge(&self, workshop: &Workshop) -> Result<SurvivingJudge> {
        let opened = &self.opened[0];
        let judge = opened.with(MakeJudge { workshop })?;
        if !opened.can_be_lost() {
            return Ok(SurvivingJudge::new(judge, None));
        }
        let own = workshop.clone();
        Ok(SurvivingJudge::new(judge, Some(Box::new(move || Opened::Faer.with(MakeJudge { workshop: &own })))))
    }

    /// Does something with the first of the backends.
    ///
    /// # Errors
    /// As [`With::with`].
    pub(super) fn with<W: With>(&self, what: W) -> Result<W::Output> {
        self.opened[0].with(what)
    }
}

impl Opened {
    fn open(kind: BackendKind, task: &TaskSettings) -> Result<Self> {
        Ok(match kind {
            BackendKind::Faer => Self::Faer,
            BackendKind::Nalgebra => Self::Nalgebra,
            BackendKind::Minimal => Self::Minimal,
            BackendKind::Wgpu => wgpu(task)?,
            BackendKind::Cuda => cuda(task)?,
        })
    }

    /// Whether its devices can go while the process stays.
    fn can_be_lost(&self) -> bool {
        !matches!(self, Self::Faer | Self::Nalgebra | Self::Minimal)
    }

    fn with<W: With>(&self, what: W) -> Result<W::Output> {
        match self {
            Self::Faer => what.with(&|| Ok(Faer::<f32>::new(1))),
            Self::Nalgebra => what.with(&|| Ok(Nalgebra::<f32>::new())),
            Self::Minimal => what.with(&|| Ok(Minimal::<f32>::new())),
            #[cfg(feature = "wgpu")]
            Self::Wgpu(device) => what.with(&|| kronfleet_wgpu::Wgpu::new(device).context(NO_WGPU)),
            #[cfg(feature = "cuda")]
            Self::Cuda(options) => what.with(&|| kronfleet_cuda::Cuda::new(options).context(NO_CUDA)),
        }
    }
}

#[cfg(feature = "wgpu")]
const NO_WGPU: &str = "--backend wgpu cannot be had";
#[cfg(feature = "cuda")]
const NO_CUDA: &str = "--backend cuda cannot be had";

#[cfg(feature = "wgpu")]
fn wgpu(task: &TaskSettings) -> Result<Opened> {
    use kronfleet_wgpu::{Choice, Device, Options};
    let adapter = task.adapter.as_ref().map_or(Choice::Best, |name| Choice::Named(name.clone()));
    let options = Options { adapter, half: task.half, ..Options::default() };
    let device = Device::open_with(&options).context(NO_WGPU)?;
    if task.adapter.is_none() && !device.adapter().is_gpu {
        eprintln!("warning: no GPU was found; {} computes in its place, slowly", device.adapter());
    }
    if let Some(warning) = device.warning() {
        eprintln!("warning: {warning}");
    }
    Ok(Opened::Wgpu(device))
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(_: &TaskSettings) -> Result<Opened> {
    bail!("--backend wgpu: this program was built without wgpu; build it again with --features kronfleet-examples/wgpu")
}

#[cfg(feature = "cuda")]
fn cuda(task: &TaskSettings) -> Result<Opened> {
    let options = kronfleet_cuda::Options { tensor_float: task.tf32, ..kronfleet_cuda::Options::default() };
    // Made to see that it can be, before anything else is.
    kronfleet_cuda::Cuda::new(&options).context(NO_CUDA)?;
    Ok(Opened::Cuda(options))
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: &TaskSettings) -> Result<Opened> {
    bail!("--backend cuda: this program was built without CUDA; build it again with --features kronfleet-examples/cuda")
}

struct MakeTrainer<'a> {
    workshop: &'a Workshop,
    node: u32,
}

impl With for MakeTrainer<'_> {
    type Output = Box<dyn Compute>;

    fn with<B>(self, make: &(dyn Fn() -> Result<B> + Sync)) -> Result<Self::Output>
    where
        B: Backend<Scalar = f32, Buffer: Send, Verdict: Send, Download: Send> + Send + 'static,
    {
        Ok(Box::new(self.workshop.trainer(make()?, self.node)?))
    }
}

struct MakeJudge<'a> {
    workshop: &'a Workshop,
}

impl With for MakeJudge<'_> {
    type Output = Box<dyn Judge + Send>;

    fn with<B>(self, make: &(dyn Fn() -> Result<B> + Sync)) -> Result<Self::Output>
    where
        B: Backend<Scalar = f32, Buffer: Send, Verdict: Send, Download: Send> + Send + 'static,
    {
        let backends = (0..rayon::current_num_threads()).map(|_| make()).collect::<Result<_>>()?;
        Ok(Box::new(self.workshop.judge(backends)?))
    }
}
