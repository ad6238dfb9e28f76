//! Steps that may have to end before they are done: what of the backward pass was done counts, the rest is as it was.
//!
//! The backward pass makes the gradients of the last layers first. Where time is up on the way, the layers in front have none;
//! they keep their parameters and the optimiser's state of them, and the preconditioner takes nothing in of them.

use super::{Trainer, failed};
use crate::backend::{Backend, Buffer as _};
use crate::layer::{Capture, Observer};
use crate::matrix::Region;
use crate::network::Network;
use crate::optimiser::Optimiser;
use crate::participant::{Summary, TrainingError};
use crate::scalar::Scalar;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// What a step takes that may have to end early.
pub(super) struct Partial<B: Backend> {
    /// The share of each block in the operations of a pass: its parameters times the positions at which they are used.
    shares: Vec<f64>,
    /// Of which blocks this step has a gradient.
    passed: Vec<bool>,
    /// Parameters and the optimiser's state before the step, as far as they are to be kept.
    before: Vec<B::Buffer>,
    /// Running statistics before the step.
    running: B::Buffer,
}

/// Asks on the way whether the step goes on.
pub(super) struct Limit<'a> {
    goes_on: &'a mut dyn FnMut(f64) -> bool,
    shares: &'a [f64],
    passed: &'a mut [bool],
    /// The share of the step that is done when its last backward pass begins.
    begun: f64,
    /// The share of that pass that is done.
    done: f64,
    over: bool,
}

/// What looks at a backward pass beside whoever else does.
struct Watch<'a, 'l, B: Backend> {
    other: Option<&'a mut dyn Observer<B>>,
    limit: &'a mut Limit<'l>,
}

impl<B: Backend> Partial<B> {
    fn new(backend: &mut B, network: &Network<B>, optimiser: &dyn Optimiser<B>) -> Result<Self, B::Error> {
        let works = network.blocks().iter().map(|block| (block.parameters.len() * block.positions) as f64);
        let all: f64 = works.clone().sum();
        let lengths = core::iter::once(network.parameters_len()).chain(optimiser.state().iter().map(B::Buffer::len));
        Ok(Self {
            shares: works.map(|work| work / all).collect(),
            passed: vec![false; network.blocks().len()],
            before: lengths.map(|len| backend.allocate(len)).collect::<Result<_, _>>()?,
            running: backend.allocate(network.running_len())?,
        })
    }

    /// The limit of a step of so many micro-batches.
    pub(super) fn limit<'a>(&'a mut self, goes_on: &'a mut dyn FnMut(f64) -> bool, count: usize) -> Limit<'a> {
        self.passed.fill(false);
        // A backward pass is two products of matrices where a forward pass is one.
        let begun = (count as f64 - 2.0 / 3.0) / count as f64;
        Limit { goes_on, shares: &self.shares, passed: &mut self.passed, begun, done: 0.0, over: false }
    }

    /// How many layers in front have no gradient.
    ///
    /// In residual blocks a layer may have been passed before one behind it: it counts only with all behind it.
    pub(super) fn missing(&self, whole: bool) -> usize {
        let missing = self.passed.iter().rposition(|passed| !passed).map_or(0, |last| last + 1);
        if whole && missing > 0 { self.passed.len() } else { missing }
    }

    /// Keeps running statistics, or puts them back.
    pub(super) fn copy_running(
        &mut self,
        backend: &mut B,
        running: &mut B::Buffer,
        back: bool,
    ) -> Result<(), B::Error> {
        let (from, to) = if back { (&mut self.running, running) } else { (running, &mut self.running) };
        let whole = Region::vector(0, to.len());
        backend.axpby(B::Scalar::of(1.0), from, B::Scalar::of(0.0), to, whole)
    }

    /// Keeps the first `len` scalars of parameters and state, or puts them back.
    pub(super) fn copy(
        &mut self,
        backend: &mut B,
        (parameters, optimiser): (&mut B::Buffer, &mut dyn Optimiser<B>),
        len: usize,
        back: bool,
    ) -> Result<(), B::Error> {
        let (one, zero) = (B::Scalar::of(1.0), B::Scalar::of(0.0));
        let theirs = core::iter::once(parameters).chain(optimiser.state_mut());
        for (here, there) in self.before.iter_mut().zip(theirs) {
            let (from, to) = if back { (here, there) } else { (there, here) };
            backend.axpby(one, from, zero, to, Region::vector(0, len.min(from.len())))?;
        }
        Ok(())
    }
}

impl Limit<'_> {
    /// The backward pass, until it is over or time is up. Waits for the device after every block, so that time means something.
    pub(super) fn backward<B: Backend>(
        &mut self,
        backend: &mut B,
        network: &mut Network<B>,
        batch: usize,
        statistics: Option<&mut B::Buffer>,
        observer: Option<&mut dyn Observer<B>>,
    ) -> Result<(), B::Error> {
        backend.sync()?;
        if !(self.goes_on)(self.begun) {
            return Ok(());
        }
        let mut watch = Watch { other: observer.map(|observer| observer as &mut dyn Observer<B>), limit: self };
        network.backward(backend, batch, statistics, Some(&mut watch))
    }
}

impl<B: Backend> Observer<B> for Watch<'_, '_, B> {
    fn observe(
        &mut self,
        backend: &mut B,
        block: usize,
        batch: usize,
        capture: &Capture<'_, B>,
    ) -> Result<(), B::Error> {
        self.other.as_mut().map_or(Ok(()), |other| other.observe(backend, block, batch, capture))
    }

    fn passed(
        &mut self,
        backend: &mut B,
        block: usize,
        gradient: &B::Buffer,
        statistics: Option<&B::Buffer>,
    ) -> Result<(), B::Error> {
        if let Some(other) = &mut self.other {
            other.passed(backend, block, gradient, statistics)?;
        }
        backend.sync()?;
        let limit = &mut *self.limit;
        limit.done += limit.shares[block];
        let done = limit.begun + (1.0 - limit.begun) * limit.done;
        limit.passed[block] = (limit.goes_on)(done.min(1.0));
        limit.over = !limit.passed[block];
        Ok(())
    }

    fn has_enough(&self) -> bool {
        self.limit.over
    }
}

impl<B: Backend> Trainer<B> {
    /// Makes one step as far as there is time: `goes_on` is told again and again which share of it is done, and says whether
    /// it goes on. A forward pass is a third of passes; of a backward pass, a layer's share is that of its multiplications.
    ///
    /// Once time is up, layers of which there is no gradient stay as they are, and so does the optimiser's state of them;
    /// [`Summary::missing`] counts them. If the step is to be made `whole`, no layer has one then. Of several micro-batches only the last can be interrupted. Waits for the device after
    /// each layer of the backward pass.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    ///
    /// # Panics
    /// If steps are shared.
    #[track_caller]
    pub fn step_while(&mut self, goes_on: &mut dyn FnMut(f64) -> bool, whole: bool) -> Result<Summary, TrainingError> {
        assert!(self.sharing.is_none(), "steps that are shared are whole");
        let step = self.progress.iteration;
        let mut partial = match self.partial.take() {
            Some(partial) => partial,
            None => {
                Partial::new(&mut self.backend, &self.network, &*self.optimiser).map_err(|error| failed(step, error))?
            }
        };
        let summary = self.advance_while(Some((&mut partial, goes_on, whole)));
        self.partial = Some(partial);
        summary
    }

    /// The flat parameters of each layer, one after another: its block and what comes between it and the next.
    pub(super) fn layer_ranges(&self) -> Vec<Range<usize>> {
        let len = self.network.parameters_len();
        let starts = self.network.blocks().iter().map(|block| block.parameters.offset);
        let starts: Vec<usize> = core::iter::once(0).chain(starts.skip(1)).collect();
        let ends = starts[1..].iter().copied().chain([len]);
        starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
    }
}
