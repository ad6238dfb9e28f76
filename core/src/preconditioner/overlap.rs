//! Means that are under way while the passes go on.

use super::division::{Packed, gather, scatter};
use crate::backend::Backend;
use crate::layer::Block;
use crate::matrix::Region;
use crate::mutant::mutant;
use crate::placement::{Letter, Letters, Route, Wire};
use crate::transport::TransportError;
use alloc::vec::Vec;

/// Values of a bucket from which on it is sent: enough that a message's latency is little beside its time on the way, few
/// enough that the first is gone long before the last layer is done.
const BUCKET: usize = 64 << 10;

/// What is sent as soon as the passes have left a layer: after the forward pass the statistics of its inputs, where everybody
/// averages them; after the backward pass its gradient, and the statistics of its outputs.
///
/// Layers go into one bucket until it is full, as all of it goes the same way; the end of a pass empties none.
pub(super) struct Overlap<S> {
    /// The division's number of the network's blocks.
    layers: Vec<Option<usize>>,
    /// Whether statistics travel with gradients.
    statistics: bool,
    triangle: bool,
    values: Vec<S>,
    /// What is in the open bucket, and in those that were sent.
    open: Vec<Piece>,
    sent: Vec<Vec<Piece>>,
    answered: Letters<S>,
    /// Whether this step's gradients went this way.
    is_gone: bool,
    /// Memory of a matrix that came as a triangle.
    mirrored: Vec<S>,
}

/// A part of a bucket.
#[derive(Clone, Copy, Debug)]
struct Piece {
    of_statistics: bool,
    packed: Packed,
}

/// What a layer has written, to be sent.
pub(super) enum Left<'a, B: Backend> {
    /// By the forward pass: statistics.
    Forward(&'a B::Buffer),
    /// By the backward pass: the gradient and, if they were wanted, statistics.
    Backward(&'a B::Buffer, Option<&'a B::Buffer>),
}

impl<S: crate::scalar::Scalar> Overlap<S> {
    /// For the blocks of a network, of which `members` are divided.
    pub(super) fn new(members: &[usize], statistics: bool, triangle: bool) -> Self {
        let mut layers = alloc::vec![None; members.last().map_or(0, |last| last + 1)];
        members.iter().enumerate().for_each(|(layer, &number)| layers[number] = Some(layer));
        Self {
            layers,
            statistics,
            triangle,
            values: Vec::new(),
            open: Vec::new(),
            sent: Vec::new(),
            answered: Letters::new(),
            is_gone: false,
            mirrored: Vec::new(),
        }
    }

    /// Begins a step.
    pub(super) fn begin(&mut self) {
        self.values.clear();
        self.open.clear();
        self.sent.clear();
        self.answered.clear();
        self.is_gone = false;
    }

    /// Puts what a block has written into the bucket; sends it if it is full.
    pub(super) fn add<B: Backend<Scalar = S>>(
        &mut self,
        backend: &mut B,
        wire: &mut dyn Wire<S>,
        (number, blocks): (usize, &[Block]),
        left: Left<'_, B>,
    ) -> Result<Result<(), TransportError>, B::Error> {
        self.is_gone = true;
        let Some(&Some(layer)) = self.layers.get(number) else { return Ok(wire.advance()) };
        let block = &blocks[layer];
        let side = |region: Region| Packed { region, triangle: self.triangle };
        let (gradient, statistics) = match left {
            Left::Forward(statistics) => (None, Some((statistics, side(block.a)))),
            Left::Backward(gradient, statistics) => {
                let whole = Packed { region: block.parameters, triangle: false };
                (Some((gradient, whole)), statistics.map(|statistics| (statistics, side(block.g))))
            }
        };
        let statistics = statistics.filter(|_| self.statistics);
        for (of_statistics, part) in [(false, gradient), (true, statistics)] {
            if let Some((buffer, packed)) = part {
                gather(backend, buffer, &[packed], &mut self.values)?;
                self.open.push(Piece { of_statistics, packed });
            }
        }
        Ok(if self.values.len() >= BUCKET { self.send(wire) } else { wire.advance() })
    }

    fn send(&mut self, wire: &mut dyn Wire<S>) -> Result<(), TransportError> {
        let values = core::mem::take(&mut self.values);
        self.sent.push(core::mem::take(&mut self.open));
        if let Some(letter) = wire.start(Letter { route: Route::Mean { to: None }, values })? {
            self.answered.push(letter);
        }
        Ok(())
    }

    /// Waits for everything that was sent; answers whether this step's gradients went this way.
    pub(super) fn settle(&mut self, wire: &mut dyn Wire<S>) -> Result<bool, TransportError> {
        if !self.open.is_empty() {
            self.send(wire)?;
        }
        if self.answered.is_empty() {
            self.answered = wire.settle()?;
        }
        Ok(self.is_gone)
    }

    /// Writes the means of statistics, or of gradients, where they belong; answers whether any were sent.
    pub(super) fn take<B: Backend<Scalar = S>>(
        &mut self,
        backend: &mut B,
        of_statistics: bool,
        target: &mut B::Buffer,
    ) -> Result<bool, B::Error> {
        let mut any = false;
        for (letter, pieces) in self.answered.iter().zip(&self.sent) {
            let mut values = &letter.values[..];
            for piece in pieces {
                let (own, rest) = values.split_at(piece.packed.len());
                values = rest;
                if piece.of_statistics == of_statistics || (mutant!(StatisticsScattered) && piece.of_statistics) {
                    scatter(backend, target, &[piece.packed], own, &mut self.mirrored)?;
                    any = true;
                }
            }
        }
        Ok(any)
    }
}
