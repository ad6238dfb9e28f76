//! Parameters told as differences from a state that members have in common, compressed, with error feedback.
//!
//! A node that has the committed state `b` brings `x̂ = b + C(x + e − b)` into a round in place of its parameters `x`, and keeps
//! `e' = x + e − x̂` for the next one (Basu et al. 2019, *Qsparse-local-SGD*, arXiv 1906.02367). Members that have `b` tell
//! each other `C(…)` alone; all others tell and are told `x̂` in full. The owner of a piece does the same with the mean `m`
//! of the `x̂`: everybody keeps `b + C(m − b)`, and the owner takes on what that loses (Tang et al. 2019, *DoubleSqueeze*,
//! arXiv 1905.05957), so that it counts in the next mean: `e' += W/w (m − b − C(m − b))`, with `w` what the owner counts and `W`
//! what all count. Where a node counts more than when `e` was left, `e` is made smaller by as much; where it counts less, as much
//! of `e` is lost.
//!
//! A segment that nobody contributed to the last round is told from the average that it was in before, by those members that
//! have it from the same round, as their [`Lineage`]s say: parts of a model that take turns, layers that nobody had in time.
//!
//! So while nobody counts less than before, `Σ w (x + e)` is the same as `W` times the average and `Σ w e'`: nothing is lost, it
//! comes later. Each block of [`BLOCK`] values is compressed by itself.

use super::{Encoding, Piece};
use crate::cluster::{CertificateId, Contribution, Digest, Digester};
use crate::compress::{self, Code, CompressError};
use crate::scalar::Scalar;
use crate::seed::Seed;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// How many values are compressed together, and are one piece of a reduction.
pub const BLOCK: usize = 4096;

/// Whether a segment is told in differences where that is possible.
pub(crate) fn is_of_parameters(name: &str) -> bool {
    name == "parameters" || name.starts_with("parameters/")
}

/// What a node has not told yet of a segment.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Left<S> {
    /// As many values as the segment has, or none where nothing is left.
    values: Vec<S>,
    /// What the values of which it is left counted.
    weight: f64,
}

/// What a node has not told yet, `e`, by segments.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Untold<S>(Vec<Left<S>>);

impl<S: Scalar> Untold<S> {
    fn of(&self, segment: usize, len: usize) -> Option<&Left<S>> {
        self.0.get(segment).filter(|left| left.values.len() == len)
    }

    /// What is left of a segment, to be added to; as many zeros if nothing was.
    fn left(&mut self, segment: usize, len: usize) -> &mut Left<S> {
        if self.0.len() <= segment {
            self.0.resize_with(segment + 1, || Left { values: Vec::new(), weight: 0.0 });
        }
        let left = &mut self.0[segment];
        if left.values.len() != len {
            left.values = vec![S::zero(); len];
        }
        left
    }

    /// Takes on what an owner's results have lost.
    pub(crate) fn take_on(&mut self, lost: &[Lost<S>]) {
        for Lost { segment, len, range, values } in lost {
            let left = &mut self.left(*segment, *len).values[range.clone()];
            left.iter_mut().zip(values).for_each(|(left, &lost)| *left += lost);
        }
    }

    /// Takes in what this node has counted in each segment of the round in which all this was left.
    pub(crate) fn count(&mut self, weights: &[f64]) {
        for (left, &weight) in self.0.iter_mut().zip(weights).filter(|(_, weight)| **weight > 0.0) {
            left.weight = weight;
        }
    }
}

/// What the result of a piece has lost, in the measure of its owner's values.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Lost<S> {
    segment: usize,
    len: usize,
    range: Range<usize>,
    values: Vec<S>,
}

/// A node's own differences in code: for each segment its blocks, none where it is told in full.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Coded(Vec<Vec<Arc<Vec<u8>>>>);

/// What values of a mean have counted together, at least, to be told from. Whoever is behind counts next to nothing: what only
/// such nodes had is nobody else's model, and results would go back to it wherever little is told.
pub(crate) const CERTAIN: f64 = 1e-3;

/// The values of a segment in a state that a node has, if they are those of a [certain](CERTAIN) mean and as many.
fn known<S: Scalar>(base: &Contribution<S>, segment: usize, len: usize) -> Option<&[S]> {
    let segment = base.segments().get(segment)?;
    (segment.weight >= CERTAIN && segment.values.len() == len).then_some(&segment.values)
}

/// Of which rounds a node's [`Bases`] are; the default if there are none.
///
/// The greatest is taken for the newest: it is, of nodes that have been in the same rounds but for those that one of them has
/// missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Lineage {
    /// The sum of their rounds.
    pub(crate) rounds: u64,
    /// Of which segments they are, and the names of their certificates.
    pub(crate) digest: Digest,
}

/// What differences are told from where it is not the last average: averages of parameters, by segment, that nobody
/// contributed to the rounds since, and of which round they are; or what all have made of an average.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Bases<S> {
    made: bool,
    of: BTreeMap<usize, (CertificateId, Vec<S>)>,
}

impl<S: Scalar> Bases<S> {
    /// None yet; `made` if differences are told from what all make of averages, and never from these.
    pub(crate) fn new(made: bool) -> Self {
        Self { made, of: BTreeMap::new() }
    }

    /// Whether differences are told from what all make of averages.
    pub(crate) fn is_made(&self) -> bool {
        self.made
    }

    /// Takes in what all who have the average of round `id` have made of its first segment.
    pub(crate) fn make(&mut self, id: CertificateId, values: &[S]) {
        self.of.insert(0, (id, values.to_vec()));
    }

    /// Keeps of the `former` state, that of round `id`, what is not in the one that comes after it, and nothing else that is.
    pub(crate) fn follow(&mut self, id: CertificateId, former: &Contribution<S>, next: &Contribution<S>) {
        for (number, segment) in next.segments().iter().enumerate() {
            if !is_of_parameters(&segment.name) {
                continue;
            }
            let len = segment.values.len();
            if known(next, number, len).is_some() {
                self.of.remove(&number);
            } else if let Some(values) = known(former, number, len).filter(|_| !self.made) {
                self.of.insert(number, (id, values.to_vec()));
            }
        }
    }

    /// See [`Lineage`].
    pub(crate) fn lineage(&self) -> Lineage {
        if self.of.is_empty() {
            return Lineage::default();
        }
        let mut digester = Digester::new();
        let mut rounds = 0_u64;
        for (&number, (id, _)) in &self.of {
            for word in [number as u64, id.round.0, id.digest.0] {
                digester.update(&word.to_le_bytes());
            }
            rounds = rounds.wrapping_add(id.round.0);
        }
        Lineage { rounds, digest: digester.finish() }
    }

    fn known(&self, segment: usize, len: usize) -> Option<&[S]> {
        self.of.get(&segment).map(|(_, values)| &values[..]).filter(|values| values.len() == len)
    }
}

/// Puts what is told in place of the parameters in `contribution`: `x̂` where there is a state `base` to tell the
/// difference from or from one of the `bases`, and `x + e` elsewhere. Answers with the code, and with what is left untold.
///
/// # Errors
/// If a value cannot be told; `contribution` then holds nothing of use.
pub(crate) fn tell<S: Scalar>(
    code: Code,
    base: Option<&Contribution<S>>,
    bases: &Bases<S>,
    untold: &Untold<S>,
    contribution: &mut Contribution<S>,
    seed: Seed,
) -> Result<(Coded, Untold<S>), CompressError> {
    let (mut coded, mut left) = (Coded::default(), Untold::default());
    let mut compressor = code.compressor::<S>();
    let mut lost = [S::zero(); BLOCK];
    for (number, segment) in contribution.segments_mut().iter_mut().enumerate() {
        coded.0.push(Vec::new());
        let len = segment.values.len();
        if !is_of_parameters(&segment.name) {
            continue;
        }
        if segment.weight == 0.0 {
            if let Some(untold) = untold.of(number, len) {
                left.left(number, len).clone_from(untold);
            }
            continue;
        }
        if let Some(untold) = untold.of(number, len) {
            // What counted little is not to count more because it comes late.
            let share = S::of((untold.weight / segment.weight).min(1.0));
            for (value, &untold) in segment.values.iter_mut().zip(&untold.values) {
                *value += share * untold;
            }
        }
        let newest = base.filter(|_| !bases.made).and_then(|base| known(base, number, len));
        let Some(base) = newest.or_else(|| bases.known(number, len)) else { continue };
        for (block, values) in segment.values.chunks_mut(BLOCK).enumerate() {
            let range = block * BLOCK..block * BLOCK + values.len();
            let (base, lost) = (&base[range.clone()], &mut lost[..values.len()]);
            let mut bytes = Vec::new();
            let mut random = seed.derive("segment", number as u64).derive("block", block as u64).random();
            if let Err(error) = compress::tell(values, base, &mut *compressor, &mut random, &mut bytes, lost) {
                // Nobody is to take it for something that was told.
                values.fill(S::of(f64::NAN));
                return Err(error);
            }
            coded.0[number].push(Arc::new(bytes));
            left.left(number, len).values[range].copy_from_slice(lost);
        }
    }
    Ok((coded, left))
}

/// How members of a reduction tell each other differences.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Differences<S> {
    /// The compressor.
    pub(crate) code: Code,
    /// Who has the state that differences are told from.
    pub(crate) based: Vec<bool>,
    /// Who of them has older averages of the same rounds, too.
    pub(crate) akin: Vec<bool>,
    /// That state, if this member has it.
    pub(crate) base: Option<Arc<Contribution<S>>>,
    /// This member's, and whether it is akin.
    pub(crate) bases: (Arc<Bases<S>>, bool),
    /// This member's differences from it.
    pub(crate) own: Arc<Coded>,
    /// What is drawn at random for results comes from here.
    pub(crate) seed: Seed,
    /// This member's results in code.
    made: BTreeMap<u32, Arc<Vec<u8>>>,
    /// What these have lost.
    lost: Vec<Lost<S>>,
}

impl<S: Scalar> Differences<S> {
    /// A member that tells `own`; without `base` it tells everything in full. All who have that are akin.
    pub(crate) fn new(
        code: Code,
        based: Vec<bool>,
        base: Option<Arc<Contribution<S>>>,
        own: Arc<Coded>,
        seed: Seed,
    ) -> Self {
        let (akin, bases) = (based.clone(), (Arc::new(Bases::default()), false));
        Self { code, based, akin, base, bases, own, seed, made: BTreeMap::new(), lost: Vec::new() }
    }

    /// The same where those who are `akin` have the same older averages, too; these are those of member `me`.
    pub(crate) fn with_bases(self, me: usize, akin: Vec<bool>, bases: Arc<Bases<S>>) -> Self {
        Self { bases: (bases, akin[me]), akin, ..self }
    }

    /// The values that differences of this piece are told from, and whether they are other than those of the state in common.
    fn from(&self, piece: &Piece, name: &str, len: usize) -> Option<(&[S], bool)> {
        let base = self.base.as_ref().filter(|_| is_of_parameters(name))?;
        let (bases, is_akin) = &self.bases;
        let newest = known(base, piece.segment, len).filter(|_| !bases.made).map(|values| (values, false));
        let bases = || bases.known(piece.segment, len).filter(|_| *is_akin).map(|values| (values, true));
        newest.or_else(bases).map(|(values, is_other)| (&values[piece.range.clone()], is_other))
    }

    /// The same, if the piece travels in code between this member and `other`.
    fn base(&self, other: usize, piece: &Piece, name: &str, len: usize) -> Option<&[S]> {
        let (values, is_other) = self.from(piece, name, len)?;
        let has = if is_other { &self.akin } else { &self.based };
        has[other].then_some(values)
    }

    /// Whether a piece of a segment called `name`, of `len` values, travels in code between this member and `other`.
    pub(super) fn travels(&self, other: usize, piece: &Piece, name: &str, len: usize) -> bool {
        self.base(other, piece, name, len).is_some()
    }

    /// The code of a piece of this member's own values, or of result `index`.
    pub(super) fn code(&self, piece: &Piece, index: u32, reduced: bool) -> Arc<Vec<u8>> {
        if reduced {
            return Arc::clone(&self.made[&index]);
        }
        Arc::clone(&self.own.0[piece.segment][piece.range.start / BLOCK])
    }

    /// Whether this member has told what it has to.
    pub(super) fn is_told(&self, segment: usize) -> bool {
        self.own.0.get(segment).is_some_and(|blocks| !blocks.is_empty())
    }

    /// Writes what `bytes` from `other` say of a piece as if it had come in full; `None` if they say nothing.
    pub(super) fn expand(&self, other: usize, piece: &Piece, name: &str, len: usize, bytes: &[u8]) -> Option<Vec<u8>> {
        let base = self.base(other, piece, name, len)?;
        let mut values = vec![S::zero(); base.len()];
        self.code.compressor::<S>().decode(bytes, &mut values).ok()?;
        for (value, &base) in values.iter_mut().zip(base) {
            *value = base + *value;
        }
        let mut full = vec![0; values.len() * S::BYTES];
        Encoding::Full.write(&values, &mut full);
        Some(full)
    }

    /// Puts what everybody is to keep in place of a mean that this member has formed, `share` being what all count over what
    /// it counts; answers whether that can be told.
    pub(super) fn conclude(
        &mut self,
        piece: &Piece,
        index: u32,
        name: &str,
        share: f64,
        mean: &mut [S],
        len: usize,
    ) -> bool {
        let Some((base, _)) = self.from(piece, name, len) else { return true };
        let mut random = self.seed.derive("result", u64::from(index)).random();
        let (mut bytes, mut values) = (Vec::new(), vec![S::zero(); mean.len()]);
        let mut compressor = self.code.compressor::<S>();
        if compress::tell(mean, base, &mut *compressor, &mut random, &mut bytes, &mut values).is_err() {
            return false;
        }
        values.iter_mut().for_each(|lost| *lost = S::of(lost.wide() * share));
        self.made.insert(index, Arc::new(bytes));
        self.lost.push(Lost { segment: piece.segment, len, range: piece.range.clone(), values });
        true
    }

    /// What this member's results have lost.
    pub(super) fn into_lost(self) -> Vec<Lost<S>> {
        self.lost
    }
}

#[cfg(test)]
mod tests;
