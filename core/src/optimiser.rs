//! From a direction to new parameters: the [`Optimiser`] trait.
//!
//! Everything acts on flat buffers: a step is a handful of element-wise calls, whatever the network. State lies in
//! flat buffers of the parameters' layout, so that it travels and is saved like them.

mod adam;
mod quasi_global;
mod sgd;

pub use adam::{Adam, AdamOptions};
pub use quasi_global::{QuasiGlobal, QuasiGlobalOptions};
pub use sgd::{Sgd, SgdOptions};

use crate::backend::{Backend, MapJob};
use crate::layer::{Parameter, ParameterKind};
use crate::matrix::Region;
use alloc::vec::Vec;

/// How weights are pulled towards 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum WeightDecay {
    /// Not at all.
    #[default]
    None,
    /// `λw` is added to the direction, before momentum and moments see it.
    Coupled(f64),
    /// `w ← (1 − ηλ)·w` beside the step (Loshchilov & Hutter 2019).
    Decoupled(f64),
}

/// Moves parameters along directions.
pub trait Optimiser<B: Backend>: Send {
    /// `parameters ← parameters − η·…`, the rest being the optimiser's affair. Never waits.
    ///
    /// # Errors
    /// If the device fails.
    fn step(
        &mut self,
        backend: &mut B,
        learning_rate: f64,
        direction: &B::Buffer,
        parameters: &mut B::Buffer,
    ) -> Result<(), B::Error>;

    /// The state: flat buffers in the layout of the parameters, always the same number of them.
    fn state(&self) -> &[B::Buffer];

    /// The state, to be written. The caller restores [`steps`](Self::steps) with [`resume`](Self::resume).
    fn state_mut(&mut self) -> &mut [B::Buffer];

    /// Steps made so far: bias corrections depend on it.
    fn steps(&self) -> u64;

    /// Sets the number of steps made, after state was taken over from elsewhere.
    fn resume(&mut self, steps: u64);
}

/// Where weight decay acts: all of the parameters, or weight matrices and kernels alone.
///
/// Biases, scales and shifts are commonly left out, because pulling them to 0 regularises nothing.
pub fn decayed(parameters: &[Parameter], everywhere: bool) -> Vec<Region> {
    let decays = |parameter: &&Parameter| {
        everywhere || matches!(parameter.kind, ParameterKind::Dense(_) | ParameterKind::Convolution { .. })
    };
    parameters.iter().filter(decays).map(|parameter| parameter.region).collect()
}

/// The same region in both buffers, in ascending order.
fn jobs(regions: &[Region]) -> Vec<MapJob> {
    let mut jobs: Vec<MapJob> = regions.iter().map(|&region| MapJob::unary(region, region)).collect();
    jobs.sort_by_key(|job| job.out.end());
    jobs
}
