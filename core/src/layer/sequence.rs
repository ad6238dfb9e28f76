//! Layers one after another.

use super::{Backward, Forward, Layer};
use crate::backend::{Backend, Extent};
use crate::matrix::Region;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Layers one after another, with the memory between them.
///
/// An activation is kept only where the backward pass of the layer before or after it reads it. Cotangents pass through
/// the stack of spare buffers, except those that [`keep`](Self::keep) asks for.
#[derive(Debug)]
pub struct Sequence<B: Backend> {
    links: Vec<Link<B>>,
}

struct Link<B: Backend> {
    layer: Box<dyn Layer<B>>,
    /// Scalars of one output sample.
    len: usize,
    /// The output, unless it is the sequence's own or nobody reads it again.
    output: Option<B::Buffer>,
    /// Whether the output's cotangent stays readable after the backward pass.
    kept: bool,
    cotangent: Option<B::Buffer>,
}

impl<B: Backend> core::fmt::Debug for Link<B> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Link").field("len", &self.len).field("kept", &self.kept).finish_non_exhaustive()
    }
}

impl<B: Backend> Sequence<B> {
    /// A sequence of at least one layer.
    ///
    /// # Panics
    /// If there is no layer.
    #[track_caller]
    pub fn new(layers: Vec<Box<dyn Layer<B>>>) -> Self {
        assert!(!layers.is_empty(), "a sequence has at least one layer");
        let link = |layer: Box<dyn Layer<B>>| Link {
            len: layer.output().len(),
            layer,
            output: None,
            kept: false,
            cotangent: None,
        };
        Self { links: layers.into_iter().map(link).collect() }
    }

    /// Asks that the cotangent of layer `index`'s output stay readable; before [`reserve`](Layer::reserve).
    pub fn keep(&mut self, index: usize) {
        self.links[index].kept = true;
    }

    /// What layer `index` read in the last forward pass, if it is kept; `x` is what the sequence read.
    pub fn input<'a>(&'a self, index: usize, x: &'a B::Buffer) -> Option<&'a B::Buffer> {
        match index.checked_sub(1) {
            None => Some(x),
            Some(before) => self.links[before].output.as_ref(),
        }
    }

    /// The cotangent of layer `index`'s output in the last backward pass, if it is kept; `dy` is the sequence's.
    pub fn cotangent<'a>(&'a self, index: usize, dy: &'a B::Buffer) -> Option<&'a B::Buffer> {
        if index + 1 == self.links.len() { Some(dy) } else { self.links[index].cotangent.as_ref() }
    }

    fn last(&self) -> &Link<B> {
        self.links.last().expect("a sequence has at least one layer")
    }
}

fn spare<B: Backend>(stack: &mut Vec<B::Buffer>) -> B::Buffer {
    stack.pop().expect("as many spare buffers as the layers ask for")
}

impl<B: Backend> Layer<B> for Sequence<B> {
    fn output(&self) -> Extent {
        self.last().layer.output()
    }

    fn scratch(&self, backend: &B, batch: usize) -> usize {
        self.links.iter().map(|link| link.layer.scratch(backend, batch)).max().unwrap_or(0)
    }

    fn spares(&self) -> usize {
        let inner = self.links.iter().map(|link| link.layer.spares()).max().unwrap_or(0);
        // What a layer reads and what it writes.
        inner + 2.min(self.links.len() - 1)
    }

    fn widest(&self) -> usize {
        let between = self.links.iter().take(self.links.len() - 1).map(|link| link.len);
        let within = self.links.iter().map(|link| link.layer.widest());
        between.chain(within).max().unwrap_or(0)
    }

    fn reads_input(&self) -> bool {
        self.links[0].layer.reads_input()
    }

    fn reads_output(&self) -> bool {
        self.last().layer.reads_output()
    }

    fn observe(&mut self, block: usize, wanted: bool) {
        for link in &mut self.links {
            link.layer.observe(block, wanted);
        }
    }

    fn lay(&mut self, block: usize, places: [Region; 2]) {
        for link in &mut self.links {
            link.layer.lay(block, places);
        }
    }

    fn reserve(&mut self, backend: &mut B, batch: usize) -> Result<(), B::Error> {
        for index in 0..self.links.len() {
            let read_after = self.links.get(index + 1).is_some_and(|next| next.layer.reads_input());
            let inside = index + 1 < self.links.len();
            let link = &mut self.links[index];
            link.layer.reserve(backend, batch)?;
            if inside && (read_after || link.layer.reads_output()) {
                link.output = Some(backend.allocate(link.len * batch)?);
            }
            if inside && link.kept {
                link.cotangent = Some(backend.allocate(link.len * batch)?);
            }
        }
        Ok(())
    }

    fn forward(&mut self, pass: &mut Forward<'_, B>, x: &B::Buffer, y: &mut B::Buffer) -> Result<(), B::Error> {
        let last = self.links.len() - 1;
        // The input of the next layer, where it lives in no link.
        let mut passing: Option<B::Buffer> = None;
        for index in 0..=last {
            let (before, rest) = self.links.split_at_mut(index);
            let link = &mut rest[0];
            let input = match &passing {
                Some(passing) => passing,
                None => before.last().map_or(x, |link| link.output.as_ref().expect("outputs are kept or passing")),
            };
            let mut next = None;
            let done = if index == last {
                link.layer.forward(pass, input, y)
            } else if let Some(output) = &mut link.output {
                link.layer.forward(pass, input, output)
            } else {
                let output = next.insert(spare::<B>(pass.spare));
                link.layer.forward(pass, input, output)
            };
            pass.spare.extend(core::mem::replace(&mut passing, next));
            if done.is_err() {
                pass.spare.extend(passing);
                return done;
            }
        }
        Ok(())
    }

    fn backward(
        &mut self,
        pass: &mut Backward<'_, B>,
        x: &B::Buffer,
        y: &B::Buffer,
        dy: &B::Buffer,
        mut dx: Option<&mut B::Buffer>,
    ) -> Result<(), B::Error> {
        let last = self.links.len() - 1;
        // The cotangent of the current layer's output, where it lives in no link.
        let mut passing: Option<B::Buffer> = None;
        for index in (0..=last).rev() {
            let (before, rest) = self.links.split_at_mut(index);
            let link = &mut rest[0];
            // What is not kept is not read either: any buffer will do.
            let output = if index == last { y } else { link.output.as_ref().unwrap_or(x) };
            let cotangent = match (&passing, &link.cotangent) {
                (Some(passing), _) => passing,
                (None, Some(kept)) => kept,
                (None, None) => dy,
            };
            let mut next = None;
            let done = match before.last_mut() {
                None => link.layer.backward(pass, x, output, cotangent, dx.take()),
                Some(previous) => {
                    let input = previous.output.as_ref().unwrap_or(x);
                    let target = match &mut previous.cotangent {
                        Some(kept) => kept,
                        None => next.insert(spare::<B>(pass.spare)),
                    };
                    link.layer.backward(pass, input, output, cotangent, Some(target))
                }
            };
            pass.spare.extend(core::mem::replace(&mut passing, next));
            if done.is_err() || pass.ended {
                pass.spare.extend(passing);
                return done;
            }
        }
        Ok(())
    }
}
