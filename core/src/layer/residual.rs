//! Residual blocks (He et al. 2015).

use super::{Backward, Forward, Layer, Sequence};
use crate::backend::{Backend, Extent};
use crate::matrix::Region;
use crate::scalar::Scalar;

/// What is added to the body's output.
#[derive(Debug)]
pub enum Shortcut<B: Backend> {
    /// The input itself.
    Identity,
    /// Option A: every `stride`-th pixel of the input, channels padded with zeros on both sides.
    Subsample {
        /// Distance between the pixels carried over.
        stride: usize,
    },
    /// Layers of its own, usually a 1 × 1 convolution and a normalisation.
    Projection(Sequence<B>),
}

/// `y = body(x) + shortcut(x)`. An activation after the sum is a layer of its own.
#[derive(Debug)]
pub struct Residual<B: Backend> {
    input: Extent,
    body: Sequence<B>,
    shortcut: Shortcut<B>,
    /// The body's own output, where its last layer wants to see it again.
    body_output: Option<B::Buffer>,
    /// The projection's own output, where its last layer wants to see it again.
    projected: Option<B::Buffer>,
}

impl<B: Backend> Residual<B> {
    /// A block for samples of extent `input`.
    ///
    /// # Panics
    /// If the shortcut's output does not have the extent of the body's.
    #[track_caller]
    pub fn new(input: Extent, body: Sequence<B>, shortcut: Shortcut<B>) -> Self {
        let output = body.output();
        let fits = match &shortcut {
            Shortcut::Identity => input == output,
            Shortcut::Subsample { stride } => subsample_fits(input, output, *stride),
            Shortcut::Projection(projection) => projection.output() == output,
        };
        assert!(fits, "the shortcut from {input} does not fit the body's output {output}");
        Self { input, body, shortcut, body_output: None, projected: None }
    }
}

/// Whether every `stride`-th pixel of `input` fills the pixels of `output`, with no fewer channels.
pub(crate) fn subsample_fits(input: Extent, output: Extent, stride: usize) -> bool {
    stride > 0
        && output.channels >= input.channels
        && output.height == input.height.div_ceil(stride)
        && output.width == input.width.div_ceil(stride)
}

impl<B: Backend> Layer<B> for Residual<B> {
    fn output(&self) -> Extent {
        self.body.output()
    }

    fn scratch(&self, backend: &B, batch: usize) -> usize {
        let body = self.body.scratch(backend, batch);
        match &self.shortcut {
            Shortcut::Projection(projection) => body.max(projection.scratch(backend, batch)),
            _ => body,
        }
    }

    fn spares(&self) -> usize {
        match &self.shortcut {
            // The projection's output or input gradient waits in one to be added.
            Shortcut::Projection(projection) => self.body.spares().max(projection.spares() + 1),
            _ => self.body.spares(),
        }
    }

    fn widest(&self) -> usize {
        match &self.shortcut {
            Shortcut::Projection(projection) => {
                let ends = self.input.len().max(self.body.output().len());
                self.body.widest().max(projection.widest()).max(ends)
            }
            _ => self.body.widest(),
        }
    }

    fn reads_input(&self) -> bool {
        let by_projection = match &self.shortcut {
            Shortcut::Projection(projection) => projection.reads_input(),
            _ => false,
        };
        by_projection || self.body.reads_input()
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn observe(&mut self, block: usize, wanted: bool) {
        self.body.observe(block, wanted);
        if let Shortcut::Projection(projection) = &mut self.shortcut {
            projection.observe(block, wanted);
        }
    }

    fn lay(&mut self, block: usize, places: [Region; 2]) {
        self.body.lay(block, places);
        if let Shortcut::Projection(projection) = &mut self.shortcut {
            projection.lay(block, places);
        }
    }

    fn reserve(&mut self, backend: &mut B, batch: usize) -> Result<(), B::Error> {
        let len = self.body.output().len() * batch;
        self.body.reserve(backend, batch)?;
        if self.body.reads_output() {
            self.body_output = Some(backend.allocate(len)?);
        }
        if let Shortcut::Projection(projection) = &mut self.shortcut {
            projection.reserve(backend, batch)?;
            if projection.reads_output() {
                self.projected = Some(backend.allocate(len)?);
            }
        }
        Ok(())
    }

    fn forward(&mut self, pass: &mut Forward<'_, B>, x: &B::Buffer, y: &mut B::Buffer) -> Result<(), B::Error> {
        let (one, output) = (B::Scalar::of(1.0), self.body.output());
        let all = Region::vector(0, output.len() * pass.batch);
        match &mut self.body_output {
            Some(inner) => {
                self.body.forward(pass, x, inner)?;
                pass.backend.axpby(one, inner, B::Scalar::of(0.0), y, all)?;
            }
            None => self.body.forward(pass, x, y)?,
        }
        match &mut self.shortcut {
            Shortcut::Identity => pass.backend.axpby(one, x, one, y, all),
            Shortcut::Subsample { stride } => {
                pass.backend.subsample(self.input, output, *stride, pass.batch, true, x, y)
            }
            Shortcut::Projection(projection) => {
                if let Some(projected) = &mut self.projected {
                    projection.forward(pass, x, projected)?;
                    return pass.backend.axpby(one, projected, one, y, all);
                }
                let mut projected = pass.spare.pop().expect("a spare buffer for the projection");
                let done = projection
                    .forward(pass, x, &mut projected)
                    .and_then(|()| pass.backend.axpby(one, &projected, one, y, all));
                pass.spare.push(projected);
                done
            }
        }
    }

    fn backward(
        &mut self,
        pass: &mut Backward<'_, B>,
        x: &B::Buffer,
        y: &B::Buffer,
        dy: &B::Buffer,
        mut dx: Option<&mut B::Buffer>,
    ) -> Result<(), B::Error> {
        let (one, output) = (B::Scalar::of(1.0), self.body.output());
        let body_output = self.body_output.as_ref().unwrap_or(y);
        self.body.backward(pass, x, body_output, dy, dx.as_deref_mut())?;
        if pass.ended {
            return Ok(());
        }
        match &mut self.shortcut {
            Shortcut::Identity => {
                let Some(dx) = dx else { return Ok(()) };
                let all = Region::vector(0, output.len() * pass.batch);
                pass.backend.axpby(one, dy, one, dx, all)
            }
            Shortcut::Subsample { stride } => {
                let Some(dx) = dx else { return Ok(()) };
                pass.backend.subsample_adjoint(self.input, output, *stride, pass.batch, dy, dx)
            }
            Shortcut::Projection(projection) => {
                let projected = self.projected.as_ref().unwrap_or(y);
                let Some(dx) = dx else {
                    return projection.backward(pass, x, projected, dy, None);
                };
                let mut part = pass.spare.pop().expect("a spare buffer for the projection");
                let all = Region::vector(0, self.input.len() * pass.batch);
                let done = projection
                    .backward(pass, x, projected, dy, Some(&mut part))
                    .and_then(|()| pass.backend.axpby(one, &part, one, dx, all));
                pass.spare.push(part);
                done
            }
        }
    }
}
