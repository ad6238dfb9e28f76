//! A member's part in a plan: what it sends, what it gets, and when.

use super::state;
use crate::backend::Backend;
use crate::layer::Block;
use crate::matrix::Region;
use crate::placement::{Load, Plan, Statistics, Wire};
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

/// Which work is this member's.
#[derive(Clone, Debug)]
pub(super) struct Share {
    /// For every block, whether it decomposes A and G.
    pub(super) decomposes: Vec<[bool; 2]>,
    /// For every block, whether it computes the direction.
    pub(super) holds: Vec<bool>,
}

impl Share {
    /// All of it.
    pub(super) fn all(blocks: usize) -> Self {
        Self { decomposes: vec![[true; 2]; blocks], holds: vec![true; blocks] }
    }
}

/// The exchanges of a member's steps.
///
/// What goes the same way in the same phase goes together: a bucket is known by who takes part, never by its size. Once an
/// exchange has failed, the rest of the step's are left out and the step is [`abandoned`](Self::abandoned).
pub(super) struct Division<B: Backend> {
    member: Member<B::Scalar>,
    blocks: Vec<Block>,
    parameters: usize,
    failure: Option<TransportError>,
}

impl<B: Backend> Division<B> {
    /// # Panics
    /// If the plan was made for other blocks, or there is no such member.
    #[track_caller]
    pub(super) fn new(blocks: &[Block], parameters: usize, member: Member<B::Scalar>) -> Self {
        let loads: Vec<Load> = blocks.iter().map(Load::from).collect();
        assert_eq!(loads, member.plan.loads(), "the plan was made for other blocks");
        assert!(member.me < member.plan.members(), "member {} of {}", member.me, member.plan.members());
        Self { member, blocks: blocks.to_vec(), parameters, failure: None }
    }

    pub(super) fn share(&self) -> Share {
        let Member { plan, me, .. } = &self.member;
        let layers = 0..self.blocks.len();
        Share {
            decomposes: layers
                .clone()
                .map(|layer| plan.decomposers(layer).map(|members| members.contains(me)))
                .collect(),
            holds: layers.map(|layer| plan.holders(layer).contains(me)).collect(),
        }
    }

    /// Whether this member makes statistics of a block.
    pub(super) fn observes(&self, name: &str) -> bool {
        let Member { plan, me, .. } = &self.member;
        let found = self.blocks.iter().position(|block| block.name == name);
        found.is_some_and(|layer| plan.makes_statistics(layer, *me) != [false; 2])
    }

    /// Why the step comes to nothing, if it does; the next one begins anew.
    pub(super) fn abandoned(&mut self) -> Option<TransportError> {
        self.failure.take()
    }

    /// Writes the mean of everybody's gradient, that of plain parameters included.
    pub(super) fn gradients(&mut self, backend: &mut B, own: &B::Buffer, mean: &mut B::Buffer) -> Result<(), B::Error> {
        let mut values = backend.fetch(own, 0..self.parameters)?;
        self.mean(None, &mut values);
        backend.upload(&values, mean, 0)
    }

    /// Brings the statistics of this step together where the plan wants them.
    pub(super) fn statistics(&mut self, backend: &mut B, statistics: &mut B::Buffer) -> Result<(), B::Error> {
        let places: Vec<Option<usize>> = match self.member.plan.placement().statistics {
            Statistics::OwnBatch => return Ok(()),
            Statistics::Everywhere => vec![None],
            Statistics::AtOwner => (0..self.member.plan.members()).map(Some).collect(),
        };
        let triangles = self.member.plan.placement().triangles;
        for to in places {
            let sides = self.blocks.iter().enumerate().flat_map(|(layer, block)| {
                let owners = self.member.plan.owners(layer);
                [(owners[0], block.a), (owners[1], block.g)]
            });
            let regions: Vec<_> =
                sides.filter(|(owner, _)| to.is_none_or(|to| to == *owner)).map(|(_, of)| of).collect();
            let packed: Vec<_> = regions.into_iter().map(|region| Packed { region, triangle: triangles }).collect();
            let mut values = gather(backend, statistics, &packed)?;
            self.mean(to, &mut values);
            if to.is_none_or(|to| to == self.member.me) {
                scatter(backend, statistics, &packed, &values)?;
            }
        }
        Ok(())
    }

    /// Hands out the decompositions that were made: `matrices` in the layout of the statistics and, in an eigen form, the
    /// eigenvalues, those of block i's A at `spectra[i]` and of its G after those of all A.
    pub(super) fn decompositions(
        &mut self,
        backend: &mut B,
        matrices: &mut B::Buffer,
        mut eigenvalues: Option<(&mut B::Buffer, &[Region])>,
    ) -> Result<(), B::Error> {
        let count = self.blocks.len();
        let triangle = eigenvalues.is_none() && self.member.plan.placement().triangles;
        for HandOut { from, to, factors } in self.hand_outs() {
            let matrix = |&(layer, side): &(usize, usize)| {
                let block = &self.blocks[layer];
                Packed { region: [block.a, block.g][side], triangle }
            };
            let packed: Vec<_> = factors.iter().map(matrix).collect();
            let mut values = gather(backend, matrices, &packed)?;
            let mut lengths = Vec::new();
            if let Some((buffer, spectra)) = &eigenvalues {
                lengths.extend(factors.iter().map(|(layer, side)| spectra[side * count + layer]));
                for part in state::fetch(backend, buffer, lengths.iter().copied())? {
                    values.extend(part);
                }
            }
            self.broadcast(from, &to, &mut values);
            if to.contains(&self.member.me) {
                let matrices_len: usize = packed.iter().map(Packed::len).sum();
                scatter(backend, matrices, &packed, &values[..matrices_len])?;
                if let Some((buffer, _)) = &mut eigenvalues {
                    let packed = lengths.iter().map(|&region| Packed { region, triangle: false }).collect::<Vec<_>>();
                    scatter(backend, buffer, &packed, &values[matrices_len..])?;
                }
            }
        }
        Ok(())
    }

    /// Who hands which factors, by layer and side, to whom, as far as this member has a part.
    fn hand_outs(&self) -> Vec<HandOut> {
        let Member { plan, me, .. } = &self.member;
        let mut found: Vec<HandOut> = Vec::new();
        for layer in 0..self.blocks.len() {
            for (side, decomposers) in plan.decomposers(layer).into_iter().enumerate() {
                let from = decomposers.start;
                let to: Vec<_> = plan.holders(layer).filter(|member| !decomposers.contains(member)).collect();
                if to.is_empty() || !(from == *me || to.contains(me)) {
                    continue;
                }
                match found.iter_mut().find(|found| found.from == from && found.to == to) {
                    Some(found) => found.factors.push((layer, side)),
                    None => found.push(HandOut { from, to, factors: vec![(layer, side)] }),
                }
            }
        }
        found.sort_by(|one, other| (one.from, &one.to).cmp(&(other.from, &other.to)));
        found
    }

    /// Hands out the directions that were computed.
    pub(super) fn directions(&mut self, backend: &mut B, v: &mut B::Buffer) -> Result<(), B::Error> {
        let mut turns: Vec<(usize, Vec<usize>, Vec<Packed>)> = Vec::new();
        for layer in 0..self.blocks.len() {
            let holders = self.member.plan.holders(layer);
            let others: Vec<_> = (0..self.member.plan.members()).filter(|member| !holders.contains(member)).collect();
            let count = holders.len();
            for (turn, from) in holders.enumerate() {
                let to: Vec<_> = others.iter().copied().skip(turn).step_by(count).collect();
                if to.is_empty() || !(from == self.member.me || to.contains(&self.member.me)) {
                    continue;
                }
                let packed = Packed { region: self.blocks[layer].parameters, triangle: false };
                match turns.iter_mut().find(|(other, _, _)| *other == from) {
                    Some((_, _, layers)) => layers.push(packed),
                    None => turns.push((from, to, vec![packed])),
                }
            }
        }
        turns.sort_by_key(|(from, _, _)| *from);
        for (from, to, packed) in turns {
            let mut values = gather(backend, v, &packed)?;
            self.broadcast(from, &to, &mut values);
            if from != self.member.me {
                scatter(backend, v, &packed, &values)?;
            }
        }
        Ok(())
    }

    fn mean(&mut self, to: Option<usize>, values: &mut [B::Scalar]) {
        if self.failure.is_none() && !values.is_empty() && self.member.plan.members() > 1 {
            self.failure = self.member.wire.mean(to, values).err();
        }
    }

    fn broadcast(&mut self, from: usize, to: &[usize], values: &mut [B::Scalar]) {
        if self.failure.is_none() && !values.is_empty() {
            self.failure = self.member.wire.broadcast(from, to, values).err();
        }
    }
}

/// Factors, by layer and side, that one member gives to the same others.
struct HandOut {
    from: usize,
    to: Vec<usize>,
    factors: Vec<(usize, usize)>,
}

/// How a matrix lies in a bucket.
#[derive(Clone, Copy, Debug)]
struct Packed {
    region: Region,
    /// Only on and below the diagonal; the rest is its mirror image.
    triangle: bool,
}

impl Packed {
    fn len(&self) -> usize {
        let rows = self.region.rows;
        if self.triangle { rows * (rows + 1) / 2 } else { self.region.len() }
    }
}

fn gather<B: Backend>(backend: &mut B, buffer: &B::Buffer, parts: &[Packed]) -> Result<Vec<B::Scalar>, B::Error> {
    let mut values = Vec::with_capacity(parts.iter().map(Packed::len).sum());
    let fetched = state::fetch(backend, buffer, parts.iter().map(|part| part.region))?;
    for (part, matrix) in parts.iter().zip(fetched) {
        if part.triangle {
            let rows = part.region.rows;
            (0..rows).for_each(|column| values.extend_from_slice(&matrix[column * rows + column..(column + 1) * rows]));
        } else {
            values.extend(matrix);
        }
    }
    Ok(values)
}

fn scatter<B: Backend>(
    backend: &mut B,
    buffer: &mut B::Buffer,
    parts: &[Packed],
    mut values: &[B::Scalar],
) -> Result<(), B::Error> {
    let mut mirrored = Vec::new();
    for part in parts {
        let (own, rest) = values.split_at(part.len());
        values = rest;
        if !part.triangle {
            backend.upload(own, buffer, part.region.offset)?;
            continue;
        }
        let rows = part.region.rows;
        mirrored.clear();
        mirrored.resize(rows * rows, own[0]);
        let mut next = 0;
        for column in 0..rows {
            for row in column..rows {
                mirrored[column * rows + row] = own[next];
                mirrored[row * rows + column] = own[next];
                next += 1;
            }
        }
        backend.upload(&mirrored, buffer, part.region.offset)?;
    }
    Ok(())
}
