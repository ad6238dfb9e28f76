//! Inverses applied to inputs and output gradients instead of the gradient.
//!
//! The gradient of a dense block over an unreduced batch of N samples is `∇ = dy·aᵀ`, so
//! `G⁻¹ ∇ A⁻¹ = (G⁻¹ dy)(A⁻¹ a)ᵀ`: `N(o² + i² + o·i)` multiplications where the products with ∇ take
//! `o·i·(o + i)`.

use crate::backend::{Backend, Buffer as _, Gemm, Map, MapJob};
use crate::layer::{Block, Capture, CaptureKind};
use crate::matrix::Region;
use crate::scalar::Scalar;

/// Whether the low-rank application of `block` takes fewer operations at this batch size.
pub(super) fn is_worthwhile(block: &Block, kind: CaptureKind, batch: usize) -> bool {
    let CaptureKind::Dense { inputs, outputs, bias } = kind else { return false };
    let fits = (block.parameters.rows, block.parameters.columns) == (outputs, inputs + usize::from(bias));
    let (o, i) = (block.parameters.rows as u64, block.parameters.columns as u64);
    fits && batch as u64 * (o * o + i * i + o * i) < o * i * (o + i)
}

/// Memory for `G⁻¹ dy` and `A⁻¹ a`.
pub(super) struct LowRank<B: Backend> {
    left: Option<B::Buffer>,
    right: Option<B::Buffer>,
}

/// The buffer of at least `len` scalars, made now unless it is there.
pub(super) fn grown<'a, B: Backend>(
    backend: &mut B,
    buffer: &'a mut Option<B::Buffer>,
    len: usize,
) -> Result<&'a mut B::Buffer, B::Error> {
    if buffer.as_ref().is_none_or(|buffer| buffer.len() < len) {
        *buffer = Some(backend.allocate(len)?);
    }
    Ok(buffer.as_mut().expect("the buffer has just been made sure of"))
}

impl<B: Backend> LowRank<B> {
    pub(super) const fn new() -> Self {
        Self { left: None, right: None }
    }

    /// `v[block] ← (G⁻¹ dy)(A⁻¹ a)ᵀ`; the inverses lie at `a` and `g`, the block at `parameters`.
    pub(super) fn apply(
        &mut self,
        backend: &mut B,
        (inverses, [a, g]): (&B::Buffer, [Region; 2]),
        parameters: Region,
        capture: &Capture<'_, B>,
        batch: usize,
        v: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        let (outputs, columns) = (parameters.rows, parameters.columns);
        let left = grown(backend, &mut self.left, outputs * batch)?;
        let right = grown(backend, &mut self.right, columns * batch)?;
        let (of_outputs, of_inputs) = (Region::matrix(0, outputs, batch), Region::matrix(0, columns, batch));
        backend.gemm(&[Gemm::product(g, of_outputs, of_outputs)], inverses, capture.dy, left)?;
        project(backend, inverses, a, capture, batch, right)?;
        let product = Gemm::product(of_outputs, of_inputs.transposed(), parameters);
        backend.gemm(&[product], left, right, v)
    }
}

/// `out ← M·[x; 1]` for a dense capture with a bias, `M·x` without; `M: columns × columns`, one step of it 1.
pub(super) fn project<B: Backend>(
    backend: &mut B,
    matrices: &B::Buffer,
    matrix: Region,
    capture: &Capture<'_, B>,
    batch: usize,
    out: &mut B::Buffer,
) -> Result<(), B::Error> {
    let s = B::Scalar::of;
    let CaptureKind::Dense { inputs, bias, .. } = capture.kind else {
        unreachable!("only dense captures are projected")
    };
    let columns = matrix.columns;
    let target = Region::matrix(0, columns, batch);
    if bias {
        // Every sample's last input is 1: it adds the last column.
        let last = Region { columns: batch, column_step: 0, ..matrix.column(inputs) };
        backend.map(Map::Axpby(s(1.0), s(0.0)), &[MapJob::unary(last, target)], Some(matrices), None, out)?;
    }
    let beta = if bias { s(1.0) } else { s(0.0) };
    let kernel = matrix.block(0, 0, columns, inputs);
    let product = Gemm { alpha: s(1.0), a: kernel, b: Region::matrix(0, inputs, batch), beta, c: target };
    backend.gemm(&[product], matrices, capture.x, out)
}
