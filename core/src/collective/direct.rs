//! Direct reduce-scatter and all-gather: every piece has one owner, who gets it from all and sends it to all.
//!
//! It puts the same bytes on the wire as a ring, `2 (P − 1)/P` of the vector per node, in two steps instead
//! of `2 (P − 1)`. The owner sums in [`NodeId`](crate::transport::NodeId) order in double precision,
//! `x = Σ w_i x_i / Σ w_i`, and rounds once; everybody, the owner included, keeps the value as it stands on
//! the wire. So the result is one bit pattern for a given list of members, however frames travelled.
//!
//! Against the exact mean, the error is at most half a unit in the last place of the rounded value, plus
//! `P · 2⁻⁵² Σ w_i |x_i| / Σ w_i` from the sum in double precision.

use crate::cluster::Contribution;
use crate::mutant::mutant;
use crate::scalar::Scalar;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// A contiguous part of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Piece {
    /// Which segment.
    pub segment: usize,
    /// Which of its values.
    pub range: Range<usize>,
}

/// The pieces of segments with these lengths, of `chunk` values at most; those that nobody counts are left out.
///
/// # Panics
/// If `chunk` is 0.
pub fn pieces(lengths: &[u32], counts: &[bool], chunk: usize) -> Vec<Piece> {
    assert!(chunk > 0, "pieces of 0 values would never end");
    let mut pieces = Vec::new();
    for (segment, (&len, &counts)) in lengths.iter().zip(counts).enumerate() {
        if counts {
            for start in (0..len as usize).step_by(chunk) {
                pieces.push(Piece { segment, range: start..(start + chunk).min(len as usize) });
            }
        }
    }
    pieces
}

/// Something to be sent to another member.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Parcel<S> {
    /// The member's place in the list of members.
    pub to: usize,
    /// Which piece.
    pub index: u32,
    /// What to send of it.
    pub load: Load<S>,
}

/// What a [`Parcel`] carries.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Load<S> {
    /// This member's own values, to the piece's owner.
    Own(Piece),
    /// The reduced values, from the piece's owner.
    Reduced(Arc<Vec<S>>),
}

/// Why a reduction cannot succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This member's value is not finite, or so large that the sum is not.
    NotFinite(usize),
    /// This member sent something that fits no piece.
    Shape(usize),
}

/// One member's part in one reduction.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Direct<S> {
    me: usize,
    members: usize,
    weights: Vec<Vec<f64>>,
    totals: Vec<f64>,
    pieces: Vec<Piece>,
    own: Arc<Contribution<S>>,
    parts: BTreeMap<u32, Vec<Option<Vec<u8>>>>,
    there: Vec<bool>,
    missing: usize,
    result: Contribution<S>,
    parcels: VecDeque<Parcel<S>>,
}

impl<S: Scalar> Direct<S> {
    /// Member `me` of a reduction, in which member i counts `weights[i][s]` in segment s.
    ///
    /// `memory` is used for the result.
    ///
    /// # Errors
    /// If this member's own values are not finite where nobody else contributes.
    ///
    /// # Panics
    /// If a member does not have one weight per segment of `own`, or `chunk` is 0.
    pub fn new(
        me: usize,
        weights: Vec<Vec<f64>>,
        chunk: usize,
        own: Arc<Contribution<S>>,
        mut memory: Contribution<S>,
    ) -> Result<Self, Fault> {
        let segments = own.segments();
        let lengths: Vec<u32> = segments.iter().map(|s| s.values.len() as u32).collect();
        for weights in &weights {
            assert_eq!(weights.len(), segments.len(), "one weight per segment");
        }
        let totals: Vec<f64> = (0..segments.len()).map(|s| weights.iter().map(|weights| weights[s]).sum()).collect();
        let counts: Vec<bool> = totals.iter().map(|&total| total > 0.0).collect();
        memory.clear();
        memory.iteration = own.iteration;
        for (segment, &total) in segments.iter().zip(&totals) {
            let values = memory.segment(&segment.name, segment.values.len(), total);
            if total == 0.0 {
                values.copy_from_slice(&segment.values);
            }
        }
        let pieces = pieces(&lengths, &counts, chunk);
        let members = weights.len();
        let mut direct = Self {
            me,
            members,
            weights,
            totals,
            there: vec![false; pieces.len()],
            missing: pieces.len(),
            pieces,
            own,
            parts: BTreeMap::new(),
            result: memory,
            parcels: VecDeque::new(),
        };
        for index in 0..direct.pieces.len() {
            let owner = index % members;
            if owner == me {
                direct.parts.insert(index as u32, vec![None; members]);
                direct.reduce_if_whole(index)?;
            } else if direct.counts(me, index) {
                let piece = direct.pieces[index].clone();
                let index = index as u32;
                direct.parcels.push_back(Parcel { to: owner, index, load: Load::Own(piece) });
            }
        }
        Ok(direct)
    }

    /// What is to be sent next.
    pub fn poll(&mut self) -> Option<Parcel<S>> {
        self.parcels.pop_front()
    }

    /// Takes in values that member `from` sent of piece `index`, its own or `reduced`.
    ///
    /// What comes twice changes nothing.
    ///
    /// # Errors
    /// If the values cannot be part of a result.
    pub fn receive(&mut self, from: usize, reduced: bool, index: u32, values: &[u8]) -> Result<(), Fault> {
        let at = index as usize;
        let fits = |piece: &Piece| piece.range.len() * S::BYTES == values.len();
        if from == self.me || from >= self.members || !self.pieces.get(at).is_some_and(fits) {
            return Err(Fault::Shape(from));
        }
        let owner = at % self.members;
        if reduced {
            if owner != from {
                return Err(Fault::Shape(from));
            }
            if self.there[at] {
                return Ok(());
            }
            let Piece { segment, range } = self.pieces[at].clone();
            let target = &mut self.result.segments_mut()[segment].values[range];
            let mut finite = true;
            for (value, bytes) in target.iter_mut().zip(values.chunks_exact(S::BYTES)) {
                *value = S::read_le(bytes);
                finite &= value.is_finite();
            }
            if !finite && !mutant!(NotFinite) {
                return Err(Fault::NotFinite(from));
            }
            self.there[at] = true;
            self.missing -= 1;
            return Ok(());
        }
        if owner != self.me || !self.counts(from, at) {
            return Err(Fault::Shape(from));
        }
        if let Some(parts) = self.parts.get_mut(&index)
            && parts[from].is_none()
        {
            parts[from] = Some(values.to_vec());
            self.reduce_if_whole(at)?;
        }
        Ok(())
    }

    /// Whether the whole result is there.
    pub fn is_whole(&self) -> bool {
        self.missing == 0
    }

    /// How many pieces are not there yet.
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// The members something is awaited from, by their places, sorted.
    pub fn awaited(&self) -> Vec<usize> {
        let mut awaited = vec![false; self.members];
        for (index, there) in self.there.iter().enumerate() {
            let owner = index % self.members;
            if *there {
                continue;
            }
            if owner != self.me {
                awaited[owner] = true;
            } else if let Some(parts) = self.parts.get(&(index as u32)) {
                for (member, part) in parts.iter().enumerate() {
                    if member != self.me && part.is_none() && self.counts(member, index) {
                        awaited[member] = true;
                    }
                }
            }
        }
        (0..self.members).filter(|&member| awaited[member]).collect()
    }

    /// The result; the weight of each of its segments is the sum of the members' weights.
    ///
    /// # Panics
    /// If it is not whole.
    #[track_caller]
    pub fn finish(self) -> Contribution<S> {
        assert!(self.is_whole(), "{} pieces are missing", self.missing);
        self.result
    }

    fn counts(&self, member: usize, index: usize) -> bool {
        self.weights[member][self.pieces[index].segment] > 0.0
    }

    fn reduce_if_whole(&mut self, index: usize) -> Result<(), Fault> {
        let key = index as u32;
        let awaits = |parts: &Vec<Option<Vec<u8>>>| {
            (0..self.members).any(|member| member != self.me && self.counts(member, index) && parts[member].is_none())
        };
        if self.parts.get(&key).is_none_or(awaits) {
            return Ok(());
        }
        let parts = self.parts.remove(&key).expect("looked up above");
        let reduced = self.reduce(index, &parts)?;
        let Piece { segment, range } = self.pieces[index].clone();
        self.result.segments_mut()[segment].values[range].copy_from_slice(&reduced);
        self.there[index] = true;
        self.missing -= 1;
        let reduced = Arc::new(reduced);
        for to in (0..self.members).filter(|&member| member != self.me) {
            let load = Load::Reduced(Arc::clone(&reduced));
            self.parcels.push_back(Parcel { to, index: key, load });
        }
        Ok(())
    }

    fn reduce(&self, index: usize, parts: &[Option<Vec<u8>>]) -> Result<Vec<S>, Fault> {
        // A block of partial sums stays in the nearest cache while all contributions pass over it.
        const BLOCK: usize = 512;
        let Piece { segment, range } = &self.pieces[index];
        let own = &self.own.segments()[*segment].values[range.clone()];
        let absent = if mutant!(AbsentWeight) && self.members == 2 { 1.0 } else { 0.0 };
        let total = self.totals[*segment] + absent;
        let mut reduced = Vec::with_capacity(own.len());
        for start in (0..own.len()).step_by(BLOCK) {
            let end = (start + BLOCK).min(own.len());
            let mut sums = [0.0_f64; BLOCK];
            let sums = &mut sums[..end - start];
            for (member, part) in parts.iter().enumerate() {
                let weight = self.weights[member][*segment];
                if weight == 0.0 {
                    continue;
                }
                if let Some(bytes) = part {
                    let bytes = &bytes[start * S::BYTES..end * S::BYTES];
                    for (sum, bytes) in sums.iter_mut().zip(bytes.chunks_exact(S::BYTES)) {
                        *sum += weight * S::read_le(bytes).wide();
                    }
                } else {
                    for (sum, value) in sums.iter_mut().zip(&own[start..end]) {
                        *sum += weight * value.wide();
                    }
                }
            }
            let mut finite = true;
            for sum in sums {
                let value = S::of(*sum / total);
                finite &= value.is_finite();
                reduced.push(value);
            }
            if !finite && !mutant!(NotFinite) {
                return Err(Fault::NotFinite(self.culprit(own, *segment, parts)));
            }
        }
        Ok(reduced)
    }

    /// Whose values make the sum something other than a number: the first that has one, or else the one
    /// with the largest.
    fn culprit(&self, own: &[S], segment: usize, parts: &[Option<Vec<u8>>]) -> usize {
        let mut worst = (self.me, -1.0);
        for (member, part) in parts.iter().enumerate() {
            let weight = self.weights[member][segment];
            let largest = |largest: f64, value: S| {
                let size = libm::fabs(value.wide());
                if size.is_finite() { largest.max(size) } else { f64::INFINITY }
            };
            let size = match part {
                Some(bytes) => bytes.chunks_exact(S::BYTES).map(S::read_le).fold(0.0, largest),
                None if member == self.me => own.iter().copied().fold(0.0, largest),
                None => 0.0,
            };
            if weight > 0.0 && size > worst.1 {
                worst = (member, size);
            }
        }
        worst.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    fn contribution(segments: &[(&[f32], f64)]) -> Arc<Contribution<f32>> {
        let mut contribution = Contribution::default();
        for (index, (values, weight)) in segments.iter().enumerate() {
            let name = ["weights", "statistics", "factor"][index];
            contribution.segment(name, values.len(), *weight).copy_from_slice(values);
        }
        Arc::new(contribution)
    }

    /// Runs all members against each other, delivering in an order drawn from `seed`, everything twice.
    fn run(inputs: &[Arc<Contribution<f32>>], chunk: usize, seed: u64) -> Result<Vec<Contribution<f32>>, Fault> {
        let weights: Vec<Vec<f64>> = inputs.iter().map(|i| i.segments().iter().map(|s| s.weight).collect()).collect();
        let mut nodes = Vec::new();
        for (me, input) in inputs.iter().enumerate() {
            let memory = Contribution::default();
            nodes.push(Direct::new(me, weights.clone(), chunk, input.clone(), memory)?);
        }
        let mut random = Seed(seed).random();
        let mut queue = Vec::new();
        loop {
            for (from, node) in nodes.iter_mut().enumerate() {
                while let Some(Parcel { to, index, load }) = node.poll() {
                    let (reduced, values) = match load {
                        Load::Own(piece) => {
                            (false, inputs[from].segments()[piece.segment].values[piece.range].to_vec())
                        }
                        Load::Reduced(values) => (true, values.to_vec()),
                    };
                    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                    queue.push((from, to, reduced, index, bytes.clone()));
                    queue.push((from, to, reduced, index, bytes));
                }
            }
            if queue.is_empty() {
                break;
            }
            let next = random.below(queue.len() as u64) as usize;
            let (from, to, reduced, index, bytes) = queue.swap_remove(next);
            nodes[to].receive(from, reduced, index, &bytes)?;
        }
        Ok(nodes.into_iter().map(Direct::finish).collect())
    }

    #[test]
    fn the_result_is_the_weighted_mean_and_has_the_same_bits_everywhere() {
        for seed in 0..60 {
            let mut random = Seed(seed).random();
            let nodes = 1 + random.below(5) as usize;
            let lens = [random.below(40) as usize, random.below(3) as usize];
            let chunk = 1 + random.below(17) as usize;
            let inputs: Vec<_> = (0..nodes)
                .map(|_| {
                    let values: Vec<Vec<f32>> =
                        lens.iter().map(|&len| (0..len).map(|_| random.normal() as f32).collect()).collect();
                    let weights = [random.below(4) as f64, random.uniform()];
                    contribution(&[(&values[0], weights[0]), (&values[1], weights[1])])
                })
                .collect();
            let results = run(&inputs, chunk, seed).unwrap();
            for (segment, &len) in lens.iter().enumerate() {
                let total: f64 = inputs.iter().map(|i| i.segments()[segment].weight).sum();
                for (node, result) in results.iter().enumerate() {
                    assert_eq!(result.segments()[segment].weight, total);
                    for at in 0..len {
                        let found = result.segments()[segment].values[at];
                        if total == 0.0 {
                            assert_eq!(found, inputs[node].segments()[segment].values[at]);
                            continue;
                        }
                        assert_eq!(found.to_bits(), results[0].segments()[segment].values[at].to_bits());
                        let terms = inputs.iter().map(|input| {
                            let segment = &input.segments()[segment];
                            segment.weight * f64::from(segment.values[at])
                        });
                        let size: f64 = terms.clone().map(f64::abs).sum::<f64>() / total;
                        let mean = terms.sum::<f64>() / total;
                        let bound = mean.abs() * f64::from(f32::EPSILON) / 2.0
                            + nodes as f64 * f64::EPSILON * size
                            + f64::from(f32::MIN_POSITIVE);
                        assert!((f64::from(found) - mean).abs() <= bound, "seed {seed}");
                    }
                }
            }
        }
    }

    #[test]
    fn whoever_is_not_finite_is_named() {
        for (culprit, bad) in [(0, f32::NAN), (1, f32::INFINITY), (2, f32::NEG_INFINITY)] {
            let inputs: Vec<_> = (0..3)
                .map(|node| {
                    let mut values = [1.0; 9];
                    if node == culprit {
                        values[5] = bad;
                    }
                    contribution(&[(&values, 1.0)])
                })
                .collect();
            assert_eq!(run(&inputs, 2, 1).unwrap_err(), Fault::NotFinite(culprit));
        }
    }

    #[test]
    fn a_value_that_does_not_count_may_be_anything() {
        let inputs = [contribution(&[(&[f32::NAN], 0.0)]), contribution(&[(&[2.0], 1.0)])];
        for result in run(&inputs, 4, 1).unwrap() {
            assert_eq!(result.segments()[0].values, [2.0]);
        }
    }

    #[test]
    fn what_fits_no_piece_is_refused() {
        let input = contribution(&[(&[1.0, 2.0], 1.0)]);
        let weights = vec![vec![1.0]; 2];
        let mut direct = Direct::new(0, weights, 1, input, Contribution::default()).unwrap();
        assert_eq!(direct.receive(1, false, 7, &[0; 4]), Err(Fault::Shape(1)));
        assert_eq!(direct.receive(1, false, 0, &[0; 3]), Err(Fault::Shape(1)));
        assert_eq!(direct.receive(0, false, 0, &[0; 4]), Err(Fault::Shape(0)));
        assert_eq!(direct.receive(1, true, 0, &[0; 4]), Err(Fault::Shape(1)));
        assert_eq!(direct.awaited(), [1]);
    }
}
