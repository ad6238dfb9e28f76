//! A member's part in a plan: what it sends, what it gets, and when.

mod bundle;
mod packed;

pub(super) use bundle::Bundle;
pub(super) use packed::{Packed, gather, scatter};

use self::bundle::Content;
use self::packed::gathered;
use super::eigen::values_of;
use super::gaps;
use super::overlap::{Left, Overlap};
use crate::backend::Backend;
use crate::factor::{KroneckerFactors, Side, lay_out};
use crate::layer::{Block, Capture, Observer};
use crate::matrix::Region;
use crate::mutant::mutant;
use crate::placement::{Letter, Load, Plan, Route, Statistics, Wire};
use crate::scalar::Scalar;
use crate::transport::TransportError;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

/// A member's place among those who share every step.
pub struct Member<S> {
    /// Who does what; made for the blocks that have factors, in their order.
    pub plan: Plan,
    /// Which member this is.
    pub me: usize,
    /// The way to the others.
    pub wire: Box<dyn Wire<S>>,
}

/// A member's place, with a wire or without: then somebody else carries its letters.
pub(super) struct Seat<S> {
    pub(super) plan: Plan,
    pub(super) me: usize,
    pub(super) wire: Option<Box<dyn Wire<S>>>,
}

impl<S> From<Member<S>> for Seat<S> {
    fn from(Member { plan, me, wire }: Member<S>) -> Self {
        Self { plan, me, wire: Some(wire) }
    }
}

/// Which work is this member's.
#[derive(Clone, Debug)]
pub(super) struct Share {
    /// For every block, whether it decomposes A and G, or each of their diagonal blocks.
    pub(super) decomposes: Vec<[Vec<bool>; 2]>,
    /// For every block, whether it computes the direction.
    pub(super) holds: Vec<bool>,
}

impl Share {
    /// All of it.
    pub(super) fn all<B: Backend>(factors: &KroneckerFactors<B>) -> Self {
        let all = |sides: &[Vec<Side>; 2]| sides.each_ref().map(|sides| vec![true; sides.len()]);
        Self { decomposes: factors.layout().iter().map(all).collect(), holds: vec![true; factors.blocks().len()] }
    }

    /// Those of `blocks`, all in order, whose directions it computes.
    pub(super) fn held<T>(&self, blocks: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
        blocks.into_iter().zip(&self.holds).filter(|(_, holds)| **holds).map(|(block, _)| block)
    }
}

/// A member's part in the exchanges of its steps.
///
/// What goes the same way in the same phase goes together: a bucket is known by who takes part, never by its size. Once an
/// exchange has failed, the rest of the step's are left out and the step is [`abandoned`](Self::abandoned).
pub(super) struct Division<B: Backend> {
    plan: Plan,
    me: usize,
    wire: Option<Box<dyn Wire<B::Scalar>>>,
    /// The blocks, with the places where passes write their statistics.
    blocks: Vec<Block>,
    /// Where the batch's statistics lie once they are cut.
    layout: Vec<[Vec<Side>; 2]>,
    parameters: usize,
    failure: Option<TransportError>,
    overlap: Option<Overlap<B::Scalar>>,
}

impl<B: Backend> Division<B> {
    /// # Panics
    /// If the plan was made for other blocks, or there is no such member.
    #[track_caller]
    pub(super) fn new(
        blocks: &[Block],
        parameters: usize,
        limit: usize,
        Seat { plan, me, wire }: Seat<B::Scalar>,
    ) -> Self {
        let loads: Vec<Load> = blocks.iter().map(|block| Load::from(block).split(limit)).collect();
        assert_eq!(loads, plan.loads(), "the plan was made for other blocks");
        assert!(me < plan.members(), "member {me} of {}", plan.members());
        let (layout, _) = lay_out::<B::Scalar>(blocks, 0, limit);
        Self { plan, me, wire, blocks: blocks.to_vec(), layout, parameters, failure: None, overlap: None }
    }

    /// The same work with another plan.
    #[track_caller]
    pub(super) fn redivide(&mut self, plan: Plan, me: usize) {
        assert_eq!(self.plan.loads(), plan.loads(), "the plan was made for other blocks");
        assert!(me < plan.members(), "member {me} of {}", plan.members());
        (self.plan, self.me, self.failure) = (plan, me, None);
    }

    /// Has the batch's statistics where these factors have them.
    pub(super) fn lay(&mut self, factors: &KroneckerFactors<B>) {
        self.blocks = factors.blocks().to_vec();
        self.layout.clone_from(&factors.fresh().blocks);
    }

    /// Of which blocks this member makes statistics.
    pub(super) fn makes(&self) -> Vec<bool> {
        let layers = 0..self.blocks.len();
        layers.map(|layer| self.plan.makes_statistics(layer, self.me) != [false; 2]).collect()
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn me(&self) -> usize {
        self.me
    }

    pub(super) fn share(&self) -> Share {
        let layers = 0..self.blocks.len();
        let decomposes = |layer: usize| {
            let mut decomposers = self.plan.decomposers(layer);
            if mutant!(OwnersSwapped) {
                decomposers.reverse();
            }
            decomposers.map(|parts| parts.iter().map(|members| members.contains(&self.me)).collect())
        };
        Share {
            decomposes: layers.clone().map(decomposes).collect(),
            holds: layers.map(|layer| self.plan.holders(layer).contains(&self.me)).collect(),
        }
    }

    /// Of which blocks this member keeps running averages; what it has of others is as old as the last division of work.
    pub(super) fn keeps(&self) -> Vec<bool> {
        let layers = 0..self.blocks.len();
        layers.map(|layer| self.plan.keeps_statistics(layer, self.me) != [false; 2]).collect()
    }

    /// Whether this member makes statistics of a block.
    pub(super) fn observes(&self, name: &str) -> bool {
        let found = self.blocks.iter().position(|block| block.name == name);
        found.is_some_and(|layer| self.plan.makes_statistics(layer, self.me) != [false; 2])
    }

    /// Why the step comes to nothing, if it does; the next one begins anew.
    pub(super) fn abandoned(&mut self) -> Option<TransportError> {
        self.failure.take()
    }

    /// Carries letters over the wire, one after another.
    pub(super) fn carry(&mut self, bundle: &mut Bundle<B::Scalar>) {
        let Some(wire) = &mut self.wire else { return };
        for letter in bundle.letters.iter_mut().filter(|letter| !letter.values.is_empty()) {
            if self.failure.is_none() && self.plan.members() > 1 {
                self.failure = wire.carry(letter).err();
            }
        }
    }

    /// From now on means are under way while the passes go on; the blocks have these numbers in the network.
    pub(super) fn overlap(&mut self, numbers: &[usize]) {
        // Diagonal blocks are cut out of them first.
        let is_whole = self.layout.iter().flatten().all(|sides| sides.len() == 1);
        let statistics = self.plan.placement().statistics == Statistics::Everywhere && is_whole;
        self.overlap = Some(Overlap::new(numbers, statistics, self.plan.placement().triangles));
    }

    /// Whether means are under way while the passes go on.
    pub(super) fn overlaps(&self) -> bool {
        self.overlap.is_some() && self.plan.members() > 1
    }

    /// Begins a step: nothing of the one before is under way, however it ended.
    pub(super) fn begin(&mut self) {
        if let Some(overlap) = &mut self.overlap {
            overlap.begin();
        }
        if let Some(wire) = &mut self.wire {
            wire.give_up();
        }
    }

    /// Sends what a layer has written, if means are under way while the passes go on.
    fn leave(&mut self, backend: &mut B, block: usize, left: Left<'_, B>) -> Result<(), B::Error> {
        let (Some(overlap), Some(wire), None) = (&mut self.overlap, &mut self.wire, &self.failure) else {
            return Ok(());
        };
        self.failure = overlap.add(backend, &mut **wire, (block, &self.blocks), left)?.err();
        Ok(())
    }

    /// Waits for what was sent during the passes; answers whether anything was.
    pub(super) fn settle(&mut self) -> bool {
        match (&mut self.overlap, &mut self.wire, &self.failure) {
            (Some(overlap), Some(wire), None) => overlap.settle(&mut **wire).unwrap_or_else(|error| {
                self.failure = Some(error);
                true
            }),
            (overlap, ..) => overlap.is_some() && self.failure.is_some(),
        }
    }

    /// Writes the means of statistics that were sent during the passes; answers whether they were.
    pub(super) fn take_passed_statistics(
        &mut self,
        backend: &mut B,
        statistics: &mut B::Buffer,
    ) -> Result<bool, B::Error> {
        let Some(overlap) = &mut self.overlap else { return Ok(false) };
        Ok(self.failure.is_some() || overlap.take(backend, true, statistics)?)
    }

    /// Averages the gradients of what belongs to no block, those of blocks having been sent during the passes.
    pub(super) fn take_passed_gradients(
        &mut self,
        backend: &mut B,
        own: &B::Buffer,
        mean: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        let taken: Vec<Region> = self.blocks.iter().map(|block| block.parameters).collect();
        let rest = gaps(self.parameters, &taken).into_iter();
        let matrices: Vec<Packed> = rest.map(|region| Packed { region, triangle: false }).collect();
        let values = gathered(backend, own, &matrices)?;
        let mut bundle = Bundle::empty();
        bundle.add(Route::Mean { to: None }, values, Content { matrices, spectra: Vec::new() });
        self.carry(&mut bundle);
        let ([letter], [content]) = (&bundle.letters[..], &bundle.contents[..]) else { unreachable!("one letter") };
        scatter(backend, mean, &content.matrices, &letter.values, &mut Vec::new())?;
        match &mut self.overlap {
            Some(overlap) => overlap.take(backend, false, mean).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Everybody's gradient, that of plain parameters included.
    pub(super) fn gradients(&self, backend: &mut B, own: &B::Buffer) -> Result<Bundle<B::Scalar>, B::Error> {
        let mut values = Vec::with_capacity(self.parameters);
        backend.read(own, core::iter::once(0..self.parameters), |own| values.extend_from_slice(own))?;
        let mut bundle = Bundle::empty();
        bundle.add(Route::Mean { to: None }, values, Content::default());
        Ok(bundle)
    }

    /// Writes the mean of everybody's gradient.
    pub(super) fn take_gradients(
        &self,
        backend: &mut B,
        bundle: &Bundle<B::Scalar>,
        mean: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        let [letter] = &bundle.letters[..] else { unreachable!("one letter of gradients") };
        backend.upload(&letter.values, mean, 0)
    }

    /// The statistics of this step, in the layout of the running averages, on their way to where the plan wants them.
    pub(super) fn statistics(&self, backend: &mut B, statistics: &B::Buffer) -> Result<Bundle<B::Scalar>, B::Error> {
        let triangle = self.plan.placement().triangles;
        let parts = |layer: usize, side: usize| {
            let parts = self.layout[layer][side].iter();
            parts.map(|part| Packed { region: part.region, triangle }).collect()
        };
        self.means(backend, statistics, parts)
    }

    /// The same where the statistics of block i's A are a vector at `a[i]`, those of its G one at `g[i]`.
    pub(super) fn vectors(
        &self,
        backend: &mut B,
        statistics: &B::Buffer,
        [a, g]: [&[Region]; 2],
    ) -> Result<Bundle<B::Scalar>, B::Error> {
        let vector = |layer: usize, side: usize| vec![Packed { region: [a, g][side][layer], triangle: false }];
        self.means(backend, statistics, vector)
    }

    /// Parts of a buffer, by layer and side, on their way to where the plan wants statistics.
    fn means(
        &self,
        backend: &mut B,
        statistics: &B::Buffer,
        parts: impl Fn(usize, usize) -> Vec<Packed>,
    ) -> Result<Bundle<B::Scalar>, B::Error> {
        let mut bundle = Bundle::empty();
        let places: Vec<Option<usize>> = match self.plan.placement().statistics {
            Statistics::OwnBatch | Statistics::OfGradient => return Ok(bundle),
            Statistics::Everywhere => vec![None],
            Statistics::AtOwner => (0..self.plan.members()).map(Some).collect(),
        };
        for to in places {
            let owned = |(layer, side): (usize, usize)| to.is_none_or(|to| self.plan.owners(layer)[side] == to);
            let sides = (0..self.blocks.len()).flat_map(|layer| [(layer, 0), (layer, 1)]).filter(|side| owned(*side));
            let matrices: Vec<_> = sides.flat_map(|(layer, side)| parts(layer, side)).collect();
            let values = gathered(backend, statistics, &matrices)?;
            bundle.add(Route::Mean { to }, values, Content { matrices, spectra: Vec::new() });
        }
        Ok(bundle)
    }

    /// Writes the statistics where this member gets them.
    pub(super) fn take_statistics(
        &self,
        backend: &mut B,
        bundle: Bundle<B::Scalar>,
        statistics: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        for (letter, content) in bundle.letters.into_iter().zip(&bundle.contents) {
            let Letter { route: Route::Mean { to }, mut values } = letter else { continue };
            if to.is_some_and(|to| to != self.me) {
                continue;
            }
            if mutant!(ReducedTwice) {
                let own = gathered(backend, statistics, &content.matrices)?;
                values.iter_mut().zip(own).for_each(|(value, own)| *value += own);
            }
            scatter(backend, statistics, &content.matrices, &values, &mut Vec::new())?;
        }
        Ok(())
    }

    /// The decompositions that were made, on their way to all who hold them: `matrices` in this layout and, in an eigen form, the eigenvalues, those of block i's A at `spectra[i]` and of its G after those of all A.
    pub(super) fn decompositions(
        &self,
        backend: &mut B,
        (layout, matrices): (&[[Vec<Side>; 2]], &B::Buffer),
        eigenvalues: Option<(&B::Buffer, &[Region])>,
    ) -> Result<Bundle<B::Scalar>, B::Error> {
        let triangle = eigenvalues.is_none() && self.plan.placement().triangles;
        let mut bundle = Bundle::empty();
        for HandOut { from, to, factors } in self.hand_outs(layout) {
            let matrix = |side: &Side| Packed { region: side.region, triangle };
            let route = Route::Broadcast { from, to };
            if !route.includes(self.me) {
                bundle.add(route, Vec::new(), Content::default());
                continue;
            }
            let mut content = Content { matrices: factors.iter().map(matrix).collect(), spectra: Vec::new() };
            if let Some((_, spectra)) = eigenvalues {
                let lengths = factors.iter().map(|side| values_of(side, spectra));
                content.spectra = lengths.map(|region| Packed { region, triangle: false }).collect();
            }
            let mut values = self.handed(backend, matrices, &content.matrices, from)?;
            if let Some((buffer, _)) = eigenvalues {
                values.extend(self.handed(backend, buffer, &content.spectra, from)?);
            }
            bundle.add(route, values, content);
        }
        Ok(bundle)
    }

    /// Writes the decompositions that this member was given.
    pub(super) fn take_decompositions(
        &self,
        backend: &mut B,
        bundle: &Bundle<B::Scalar>,
        matrices: &mut B::Buffer,
        mut eigenvalues: Option<&mut B::Buffer>,
    ) -> Result<(), B::Error> {
        for (letter, content) in bundle.letters.iter().zip(&bundle.contents) {
            let Route::Broadcast { to, .. } = &letter.route else { continue };
            if !to.contains(&self.me) {
                continue;
            }
            let len: usize = content.matrices.iter().map(Packed::len).sum();
            scatter(backend, matrices, &content.matrices, &letter.values[..len], &mut Vec::new())?;
            if let Some(buffer) = &mut eigenvalues {
                scatter(backend, buffer, &content.spectra, &letter.values[len..], &mut Vec::new())?;
            }
        }
        Ok(())
    }

    /// What member `from` hands out; whoever gets it has room for it.
    fn handed(
        &self,
        backend: &mut B,
        buffer: &B::Buffer,
        parts: &[Packed],
        from: usize,
    ) -> Result<Vec<B::Scalar>, B::Error> {
        if from == self.me {
            return gathered(backend, buffer, parts);
        }
        Ok(vec![B::Scalar::of(0.0); parts.iter().map(Packed::len).sum()])
    }

    /// Who hands which factors to whom.
    fn hand_outs(&self, layout: &[[Vec<Side>; 2]]) -> Vec<HandOut> {
        let mut found: Vec<HandOut> = Vec::new();
        for (layer, sides) in layout.iter().enumerate() {
            let decomposers = self.plan.decomposers(layer).into_iter().flatten();
            for (side, decomposers) in sides.iter().flatten().zip(decomposers) {
                if decomposers.is_empty() {
                    continue;
                }
                let from = decomposers.start;
                let to: Vec<_> = self.plan.holders(layer).filter(|member| !decomposers.contains(member)).collect();
                if to.is_empty() {
                    continue;
                }
                let same = |found: &&mut HandOut| found.from == from && found.to == to;
                match found.iter_mut().find(same) {
                    Some(found) => found.factors.push(*side),
                    None => found.push(HandOut { from, to, factors: vec![*side] }),
                }
            }
        }
        found.sort_by(|one, other| (one.from, &one.to).cmp(&(other.from, &other.to)));
        found
    }

    /// The directions that were computed, on their way to those who hold nothing.
    pub(super) fn directions(&self, backend: &mut B, v: &B::Buffer) -> Result<Bundle<B::Scalar>, B::Error> {
        let mut turns: Vec<(usize, Vec<usize>, Vec<Packed>)> = Vec::new();
        for layer in 0..self.blocks.len() {
            let holders = self.plan.holders(layer);
            let others: Vec<_> = (0..self.plan.members()).filter(|member| !holders.contains(member)).collect();
            let count = holders.len();
            for (turn, from) in holders.enumerate() {
                let to: Vec<_> = others.iter().copied().skip(turn).step_by(count).collect();
                if to.is_empty() {
                    continue;
                }
                let packed = Packed { region: self.blocks[layer].parameters, triangle: false };
                let same = |(other, _, layers): &&mut (usize, Vec<usize>, Vec<Packed>)| {
                    *other == from || (mutant!(BucketShared) && layers.len() == 1)
                };
                match turns.iter_mut().find(same) {
                    Some((_, _, layers)) => layers.push(packed),
                    None => turns.push((from, to, vec![packed])),
                }
            }
        }
        turns.sort_by_key(|(from, _, _)| *from);
        let mut bundle = Bundle::empty();
        for (from, to, matrices) in turns {
            let route = Route::Broadcast { from, to };
            let part = route.includes(self.me);
            let values = if part { self.handed(backend, v, &matrices, from)? } else { Vec::new() };
            bundle.add(route, values, Content { matrices, spectra: Vec::new() });
        }
        Ok(bundle)
    }

    /// Writes the directions that this member was given.
    pub(super) fn take_directions(
        &self,
        backend: &mut B,
        bundle: &Bundle<B::Scalar>,
        v: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        self.take_decompositions(backend, bundle, v, None)
    }
}

impl<B: Backend> Observer<B> for Division<B> {
    fn observe(&mut self, _: &mut B, _: usize, _: usize, _: &Capture<'_, B>) -> Result<(), B::Error> {
        Ok(())
    }

    fn entered(&mut self, backend: &mut B, block: usize, statistics: &B::Buffer) -> Result<(), B::Error> {
        self.leave(backend, block, Left::Forward(statistics))
    }

    fn passed(
        &mut self,
        backend: &mut B,
        block: usize,
        gradient: &B::Buffer,
        statistics: Option<&B::Buffer>,
    ) -> Result<(), B::Error> {
        self.leave(backend, block, Left::Backward(gradient, statistics))
    }
}

/// Factors that one member gives to the same others.
struct HandOut {
    from: usize,
    to: Vec<usize>,
    factors: Vec<Side>,
}
