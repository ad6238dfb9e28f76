//! What a preconditioner goes on with, in host memory.

use super::Report;
use crate::backend::{Backend, Buffer as _};
use crate::matrix::Region;
use crate::scalar::Scalar;
use alloc::vec;
use alloc::vec::Vec;

/// Everything that decides how a preconditioner goes on, but for the running averages it shares with other nodes
/// (see [`Preconditioner::factors`](super::Preconditioner::factors)).
#[derive(Clone, Debug, PartialEq)]
pub struct State<S> {
    /// Steps ended: what the periods count.
    pub steps: u64,
    /// The damping λ in use.
    pub damping: f64,
    /// Whether a refresh is wanted whatever the period says.
    pub refresh_due: bool,
    /// What was done so far.
    pub report: Report,
    /// How often statistics were taken in, refused ones included.
    pub updates: u64,
    /// The factor ν of the KL clip at the last step.
    pub clip: S,
    /// One for each of [`Preconditioner::blocks`](super::Preconditioner::blocks), in their order.
    pub blocks: Vec<BlockState<S>>,
    /// Flat buffers in the layout of the parameters, such as momentum; always as many.
    pub buffers: Vec<Vec<S>>,
    /// Steps that those buffers are of, where a correction depends on it.
    pub counted: u64,
    /// Its part in steps that are shared with members who come and go, if they are.
    pub shared: Option<SharedPart<S>>,
}

/// A member's part in steps that are shared with others who come and go.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SharedPart<S> {
    /// Among how many members the work is divided.
    pub members: usize,
    /// Which of them this is.
    pub me: usize,
    /// The stage whose letters are out, from 1 in the order of a step; 0 where none are.
    pub stage: u32,
    /// By block, whether there were statistics of it at the last refresh; empty before the first, or where nobody asks.
    pub known: Vec<bool>,
    /// Whether nothing was taken in since the work was last divided.
    pub divided_anew: bool,
    /// Blocks that went without curvature for want of statistics, where the report does not count them.
    pub unpreconditioned: u64,
    /// Flat buffers that the step under way goes on with, by stage; none where no letters are out.
    pub buffers: Vec<Vec<S>>,
}

impl<S: Scalar> State<S> {
    /// That of a preconditioner without curvature after `steps` steps.
    pub fn plain(steps: u64, report: Report) -> Self {
        let clip = S::of(1.0);
        Self {
            steps,
            damping: 0.0,
            refresh_due: false,
            report,
            updates: 0,
            clip,
            blocks: Vec::new(),
            buffers: Vec::new(),
            counted: 0,
            shared: None,
        }
    }
}

/// What is kept of one block.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockState<S> {
    /// How many updates of the factors it accepted.
    pub accepted: S,
    /// What the root of its damping is multiplied with after failures; 1 in the eigen forms.
    pub raised: S,
    /// Decompositions that failed in a row.
    pub failures: u32,
    /// Of A and of G the damped inverse, or the eigenvectors; column-major squares.
    pub decompositions: [Vec<S>; 2],
    /// Eigenvalues of A and G, or the sums of [`Eva`](super::Eva)'s vectors; empty in the inverse form.
    pub spectra: [Vec<S>; 2],
    /// EKFAC's second moments, shaped as the block's parameters, and their weight; empty in the other forms.
    pub moments: Vec<S>,
    /// The weight of the second moments, or of those sums; 0 without them.
    pub moment_weight: S,
    /// Whether the second moments were started from eigenvalues already.
    pub moments_started: bool,
}

/// The parts of a flat buffer that belong to `regions`, each packed.
pub(super) fn fetch<B: Backend>(
    backend: &mut B,
    buffer: &B::Buffer,
    regions: impl Iterator<Item = Region>,
) -> Result<Vec<Vec<B::Scalar>>, B::Error> {
    let regions: Vec<Region> = regions.collect();
    let mut parts = Vec::with_capacity(regions.len());
    let ranges = regions.iter().map(|region| region.offset..region.end());
    backend.read(buffer, ranges, |part| parts.push(part.to_vec()))?;
    Ok(parts)
}

/// Writes `parts` to their regions, and 0 between them.
///
/// # Panics
/// If a part has not the length of its region.
#[track_caller]
pub(super) fn upload<'a, B: Backend>(
    backend: &mut B,
    buffer: &mut B::Buffer,
    parts: impl Iterator<Item = (Region, &'a [B::Scalar])>,
) -> Result<(), B::Error> {
    let mut all = vec![B::Scalar::of(0.0); buffer.len()];
    for (region, part) in parts {
        assert_eq!(part.len(), region.len(), "scalars kept for the region at {}", region.offset);
        all[region.offset..region.end()].copy_from_slice(part);
    }
    backend.upload(&all, buffer, 0)
}

/// Whole buffers.
pub(super) fn whole<'a, B: Backend<Buffer: 'a>>(
    backend: &mut B,
    buffers: impl IntoIterator<Item = &'a B::Buffer>,
) -> Result<Vec<Vec<B::Scalar>>, B::Error> {
    buffers.into_iter().map(|buffer| backend.fetch(buffer, 0..buffer.len())).collect()
}

/// The inverse of [`whole`].
///
/// # Panics
/// If there are more or fewer, or one has another length.
#[track_caller]
pub(super) fn put_whole<'a, B: Backend<Buffer: 'a>>(
    backend: &mut B,
    buffers: impl IntoIterator<Item = &'a mut B::Buffer, IntoIter: ExactSizeIterator>,
    kept: &[Vec<B::Scalar>],
) -> Result<(), B::Error> {
    let buffers = buffers.into_iter();
    assert_eq!(kept.len(), buffers.len(), "buffers in the state of the preconditioner");
    for (buffer, kept) in buffers.zip(kept) {
        assert_eq!(kept.len(), buffer.len(), "scalars kept for a buffer of the preconditioner");
        backend.upload(kept, buffer, 0)?;
    }
    Ok(())
}
