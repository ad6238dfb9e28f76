//! Two streams that act as one.
//!
//! Work *beside* goes into a second stream. It begins after everything asked for before it; what is asked for after it
//! waits for it only where it uses the same memory: it must not read what is written beside, nor write what is read or
//! written there. Pieces of work beside are numbered; a buffer knows the last one that reads it and the last that writes
//! it, and the first stream knows up to which one it has waited.

use super::{Device, Memory, Pointer};
use crate::error::{CudaError, driver};
use core::cell::Cell;
use cudarc::driver::{CudaEvent, CudaStream};
use std::sync::Arc;

/// Events that are used in turn: a wait for an older piece of work waits for a later one at worst.
const EVENTS: usize = 16;

/// The second stream and what orders it.
#[derive(Debug)]
pub(super) struct Order {
    stream: Arc<CudaStream>,
    /// Where the work beside begins.
    begin: CudaEvent,
    /// Where each piece of it ends.
    ends: Vec<CudaEvent>,
    /// How many pieces there have been.
    pieces: u64,
    /// Up to which one the first stream has waited.
    joined: u64,
    /// Whether work is put beside right now.
    pub(super) within: bool,
}

impl Order {
    pub(super) fn new(first: &CudaStream) -> Result<Self, CudaError> {
        let context = first.context();
        let event = || context.new_event(None).map_err(driver("making an event"));
        let stream = context.new_stream().map_err(driver("making a stream"))?;
        let ends = (0..EVENTS).map(|_| event()).collect::<Result<_, _>>()?;
        Ok(Self { stream, begin: event()?, ends, pieces: 0, joined: 0, within: false })
    }

    pub(super) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    fn end(&self, piece: u64) -> &CudaEvent {
        &self.ends[(piece % EVENTS as u64) as usize]
    }
}

impl Device {
    /// Where memory begins that is going to be read.
    pub(crate) fn reads(&mut self, memory: &Memory) -> Pointer {
        self.join(&memory.written);
        self.pointer(memory)
    }

    /// Where memory begins that is going to be written, and perhaps read.
    pub(crate) fn writes(&mut self, memory: &Memory) -> Pointer {
        self.join(&memory.read);
        self.join(&memory.written);
        self.pointer(memory)
    }

    /// Lets the first stream wait for a piece of work beside, if it has not yet.
    fn join(&mut self, piece: &Cell<u64>) {
        let piece = piece.get();
        if piece > self.order.joined {
            // cudarc keeps a failure and reports it at the next call, before anything is done out of order.
            self.stream.context().record_err(self.stream.wait(self.order.end(piece)));
            self.order.joined = piece;
        }
    }

    /// Puts `work`, which reads `source` and writes `target`, beside what comes after it.
    pub(crate) fn beside(
        &mut self,
        source: &Memory,
        target: &Memory,
        work: impl FnOnce(&mut Self, Pointer, Pointer) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        self.bind()?;
        let order = &mut self.order;
        order.begin.record(&self.stream).map_err(driver("marking where work beside begins"))?;
        order.stream.wait(&order.begin).map_err(driver("beginning work beside"))?;
        order.pieces += 1;
        source.read.set(order.pieces);
        target.written.set(order.pieces);
        order.within = true;
        let (from, to) = (self.pointer(source), self.pointer(target));
        let outcome = work(self, from, to);
        self.order.within = false;
        let order = &self.order;
        order.end(order.pieces).record(&order.stream).map_err(driver("marking where work beside ends"))?;
        outcome
    }

    /// Where work goes now.
    pub(super) fn lane(&self) -> &Arc<CudaStream> {
        if self.order.within { &self.order.stream } else { &self.stream }
    }

    /// Makes the device this thread's, which every call needs.
    pub(super) fn bind(&self) -> Result<(), CudaError> {
        self.stream.context().bind_to_thread().map_err(driver("choosing the device"))
    }
}
