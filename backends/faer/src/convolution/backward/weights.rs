//! The gradient of the weights, and `Σ dy · dyᵀ` beside it.

mod across;
mod along;

use super::super::Share;
use super::super::forward::window;
use crate::arena::Arenas;
use crate::kernel::padded;
use crate::parallel::Part;
use crate::reduction;
use crate::scalar::{self, Real};
use kronfleet_core::backend::{Convolution, ReduceJob};
use kronfleet_core::matrix::Region;

/// What fills the registers while the gradient of the weights is summed.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Lanes {
    Outputs,
    /// Outputs of two neighbouring positions.
    Pairs,
    /// Elements of a patch, a run at a time.
    Elements,
    Positions,
}

impl Lanes {
    /// Whichever leaves fewest lanes empty.
    pub(super) fn choose<S: Real>(shape: &Convolution) -> Self {
        let run = if shape.dilation[1] == 1 { shape.kernel[1] } else { 1 } * shape.input.channels;
        let (outputs, width) = (shape.output.channels, shape.output.width);
        let full = |rows: usize| rows as f64 / padded(rows).max(1) as f64;
        // Elements that only one of two positions sees are summed for both.
        let both = shape.kernel[1] as f64 / (shape.kernel[1] + 1) as f64;
        let paired = window(shape).pair().is_some() && 2 * outputs <= scalar::lanes::<S>();
        let pairs = if paired { both * full(2 * outputs) } else { 0.0 };
        // Positions cost a copy of `dy`.
        let positions = 0.6 * full(width);
        // Two or more full vectors of outputs share each element: that is hard to beat.
        if outputs > 16 && full(outputs) == 1.0 {
            Self::Outputs
        } else if pairs > positions.max(full(outputs)).max(full(run)) {
            Self::Pairs
        } else if positions > full(outputs).max(full(run)) {
            Self::Positions
        } else if full(run) >= full(outputs) {
            Self::Elements
        } else {
            Self::Outputs
        }
    }

    /// Whether sums of weights lie by output, element by element, rather than by element.
    pub(super) fn by_output(self) -> bool {
        matches!(self, Self::Elements | Self::Positions)
    }
}

/// Sums of one share: of `dy · patchᵀ` without the bias, of `dy`, and, where there is room, of `dy · dyᵀ`.
pub(super) fn sums<S: Real>(arenas: &Arenas<S>, shape: &Convolution, share: &Share, x: &[S], dy: &[S], sums: &mut [S]) {
    let outputs = shape.output.channels;
    let (of_weights, squares) = sums.split_at_mut(outputs * shape.patch_rows());
    let (weights, bias) = of_weights.split_at_mut(outputs * shape.patch_len());
    match Lanes::choose::<S>(shape) {
        Lanes::Positions => along::sums(arenas, shape, share, x, dy, weights, bias, squares),
        lanes => {
            across::sums(arenas, shape, share, x, dy, lanes, weights, squares);
            if shape.bias {
                let positions = share.samples().len() * shape.output.positions();
                let all = Region::matrix(share.first * shape.output.len(), outputs, positions);
                let job = ReduceJob::sum(all, Region::vector(0, outputs));
                reduction::one(&job, dy, None, Part::whole(bias));
            }
        }
    }
}
