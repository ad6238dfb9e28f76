//! Weighted means of everybody's contributions: reduce-scatter and all-gather, piece by piece.
//!
//! Every piece has an owner, in whose hands its sum ends: one of those that count in it. [`Pattern`] says over whom. By
//! the default pattern the owner gets everybody's own values, sums in [`NodeId`](crate::transport::NodeId) order in
//! double precision, `x = Σ w_i x_i / Σ w_i`, and rounds once. Everybody, the owner included, keeps the value as it stands
//! on the wire. So the result is one bit pattern for a given list of members, however frames travelled.
//!
//! Against the exact mean, the error by [`Pattern::Direct`] and [`Pattern::Exchange`] is at most half a unit in the last
//! place of the rounded value, plus `P · 2⁻⁵² Σ w_i |x_i| / Σ w_i` from the sum in double precision; by the others, which
//! pass sums `Σ w_j x_j / Σ w_i` over some of the members, half a unit for each of the sums passed.
//!
//! Pieces go their ways independently of each other, so that long vectors are sent, summed and received at once. The
//! values that complete a sum are read where they came in; only those that come before others are copied.
//!
//! # For users
//! Send what [`poll`](Reduction::poll) names, [`write`](Reduction::write) says what; give what comes to
//! [`receive`](Reduction::receive). When a member is lost, drop the reduction: the contribution is as it was, and the
//! others begin another one.
//!
//! ```
//! use kronfleet_core::cluster::Contribution;
//! use kronfleet_core::collective::{Encoding, Pattern, Plan, Reduction};
//! use std::sync::Arc;
//!
//! let begin = |me: usize, value: f32| {
//!     let mut own = Contribution::default();
//!     own.segment("weights", 3, 1.0).fill(value);
//!     let plan = Plan { pattern: Pattern::Exchange, encoding: Encoding::Full, chunk: 2 };
//!     Reduction::new(plan, me, vec![vec![1.0]; 2], Arc::new(own), Contribution::default()).unwrap()
//! };
//! let mut members = [begin(0, 1.0), begin(1, 4.0)];
//! for from in 0..2 {
//!     while let Some(parcel) = members[from].poll() {
//!         let mut bytes = vec![0; members[from].bytes(&parcel)];
//!         members[from].write(&parcel, &mut bytes);
//!         members[parcel.to].receive(from, parcel.reduced, parcel.index, &bytes).unwrap();
//!     }
//! }
//! for member in members {
//!     assert_eq!(member.finish().segments()[0].values, [2.5; 3]);
//! }
//! ```

use crate::cluster::Contribution;
use crate::collective::differences::{Differences, Lost, is_of_parameters};
use crate::collective::sum::{Term, Values, mean};
use crate::collective::{Encoding, Pattern};
use crate::mutant::mutant;
use crate::scalar::Scalar;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::mem::take;
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

/// How a reduction is done; the same for all its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Plan {
    /// Along which links values travel.
    pub pattern: Pattern,
    /// How they stand on the wire.
    pub encoding: Encoding,
    /// Values of one piece at most.
    pub chunk: usize,
}

impl Plan {
    /// The default: directly, in full.
    pub fn direct(chunk: usize) -> Self {
        Self { pattern: Pattern::Direct, encoding: Encoding::Full, chunk }
    }
}

/// Something to be sent to another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Parcel {
    /// The member's place in the list of members.
    pub to: usize,
    /// Which piece.
    pub index: u32,
    /// Whether it is the result; if not, a sum or this member's own values on their way to one.
    pub reduced: bool,
}

/// Where the values of a [`Parcel`] are, for messages that outlive the reduction.
#[derive(Clone, Debug)]
pub enum Load<S> {
    /// In this member's contribution.
    Own(Piece),
    /// Here.
    Made(Arc<Vec<S>>),
    /// In code, as they are to be sent.
    Coded(Arc<Vec<u8>>),
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
pub struct Reduction<S> {
    plan: Plan,
    me: usize,
    weights: Vec<Vec<f64>>,
    totals: Vec<f64>,
    pieces: Vec<Piece>,
    /// Whose are the pieces of each segment, in turn: those that count in it, so that whoever only takes the result
    /// gets each value once.
    owners: Vec<Vec<usize>>,
    own: Arc<Contribution<S>>,
    /// What came of sums that lack something else.
    parts: BTreeMap<u32, Vec<Option<Vec<u8>>>>,
    /// Memory of parts that are no longer needed.
    spare: Vec<Vec<u8>>,
    /// Which sums this member has done, or has not to do.
    summed: Vec<bool>,
    there: Vec<bool>,
    missing: usize,
    /// The result where it is there, this member's sum where it is not.
    result: Contribution<S>,
    /// Results go first: others wait for them, and they still lie in the nearest cache.
    reduced: VecDeque<Parcel>,
    sums: VecDeque<Parcel>,
    /// The piece whose load was asked for last.
    #[cfg_attr(feature = "serde", serde(skip))]
    made: Option<(Parcel, Arc<Vec<S>>)>,
    /// How members tell each other differences, if they do.
    differences: Option<Differences<S>>,
}

impl<S: Scalar> Reduction<S> {
    /// Member `me` of a reduction, in which member i counts `weights[i][s]` in segment s.
    ///
    /// `memory` is used for the result.
    ///
    /// # Errors
    /// If this member's own values are not finite where nobody else looks at them.
    ///
    /// # Panics
    /// If a member does not have one weight per segment of `own`, or the plan's `chunk` is 0.
    pub fn new(
        plan: Plan,
        me: usize,
        weights: Vec<Vec<f64>>,
        own: Arc<Contribution<S>>,
        memory: Contribution<S>,
    ) -> Result<Self, Fault> {
        Self::telling(plan, me, weights, own, memory, None)
    }

    /// The same among members that tell each other differences, directly, in pieces of
    /// [`BLOCK`](super::BLOCK) values.
    ///
    /// # Errors
    /// As [`new`](Self::new); or if this member is to tell differences and has none, as its values cannot be told.
    pub(crate) fn telling(
        plan: Plan,
        me: usize,
        weights: Vec<Vec<f64>>,
        own: Arc<Contribution<S>>,
        mut memory: Contribution<S>,
        differences: Option<Differences<S>>,
    ) -> Result<Self, Fault> {
        let segments = own.segments();
        let lengths: Vec<u32> = segments.iter().map(|s| s.values.len() as u32).collect();
        for weights in &weights {
            assert_eq!(weights.len(), segments.len(), "one weight per segment");
        }
        let totals: Vec<f64> = (0..segments.len()).map(|s| weights.iter().map(|weights| weights[s]).sum()).collect();
        let counts: Vec<bool> = totals.iter().map(|&total| total > 0.0).collect();
        let owners: Vec<Vec<usize>> = (0..segments.len())
            .map(|segment| {
                let counting: Vec<usize> =
                    (0..weights.len()).filter(|&member| weights[member][segment] > 0.0).collect();
                let Some(differences) = &differences else { return counting };
                if !is_of_parameters(&segments[segment].name) {
                    return counting;
                }
                // Whoever counts little cannot take on what a result loses.
                let most = weights.iter().map(|weights| weights[segment]).fold(0.0, f64::max);
                let heavy = |member: &usize| 2.0 * weights[*member][segment] >= most;
                let (akin, others): (Vec<usize>, Vec<usize>) =
                    counting.into_iter().filter(heavy).partition(|&member| differences.akin[member]);
                // Whoever counts most is one of these; where none of them is akin, what only those have is told in full.
                if akin.is_empty() { others } else { akin }
            })
            .collect();
        memory.clear();
        for (segment, &total) in segments.iter().zip(&totals) {
            memory.segment(&segment.name, segment.values.len(), total);
        }
        let pieces = pieces(&lengths, &counts, plan.chunk);
        let mut reduction = Self {
            plan,
            me,
            weights,
            totals,
            summed: vec![false; pieces.len()],
            there: vec![false; pieces.len()],
            missing: 0,
            pieces,
            owners,
            own,
            parts: BTreeMap::new(),
            spare: Vec::new(),
            result: memory,
            reduced: VecDeque::new(),
            sums: VecDeque::new(),
            made: None,
            differences,
        };
        reduction.begin()?;
        Ok(reduction)
    }

    /// Begins another reduction of the same shape among the same members, in the same memory.
    ///
    /// # Errors
    /// If this member's own values are not finite where nobody else looks at them.
    ///
    /// # Panics
    /// If `own` has other lengths.
    #[track_caller]
    pub fn restart(&mut self, own: Arc<Contribution<S>>) -> Result<(), Fault> {
        let lengths = |contribution: &Contribution<S>| -> Vec<usize> {
            contribution.segments().iter().map(|segment| segment.values.len()).collect()
        };
        if !Arc::ptr_eq(&own, &self.own) {
            assert_eq!(lengths(&own), lengths(&self.own), "lengths of segments");
        }
        self.own = own;
        self.begin()
    }

    fn begin(&mut self) -> Result<(), Fault> {
        self.result.iteration = self.own.iteration;
        for (segment, result) in self.own.segments().iter().zip(self.result.segments_mut()) {
            if result.weight == 0.0 {
                result.values.copy_from_slice(&segment.values);
            }
        }
        self.parts.clear();
        self.reduced.clear();
        self.sums.clear();
        self.made = None;
        self.summed.fill(false);
        self.there.fill(false);
        self.missing = self.pieces.len();
        // Everybody begins with another owner, so that none is flooded.
        let members = self.weights.len();
        for turn in (0..self.pieces.len()).step_by(members) {
            for step in 0..members {
                let index = turn + (self.me + 1 + step) % members;
                if index < self.pieces.len() {
                    self.begin_piece(index)?;
                }
            }
        }
        Ok(())
    }

    fn begin_piece(&mut self, index: usize) -> Result<(), Fault> {
        let members = self.weights.len();
        let owner = self.owner(index);
        let counts = self.counts(self.me, index);
        let untold = |differences: &Differences<S>| !differences.is_told(self.pieces[index].segment);
        if counts && self.is_coded(owner, index) && self.differences.as_ref().is_some_and(untold) {
            return Err(Fault::NotFinite(self.me));
        }
        let own = |to| Parcel { to, index: index as u32, reduced: false };
        match self.plan.pattern {
            Pattern::Exchange if counts => {
                self.sums.extend((1..members).map(|step| own((self.me + step) % members)));
            }
            Pattern::Direct if owner != self.me => {
                self.summed[index] = true;
                self.sums.extend(counts.then(|| own(owner)));
            }
            _ => {}
        }
        if !self.summed[index] && self.sources(index).next().is_none() { self.sum(index, None) } else { Ok(()) }
    }

    /// What is to be sent next.
    pub fn poll(&mut self) -> Option<Parcel> {
        self.reduced.pop_front().or_else(|| self.sums.pop_front())
    }

    /// How many bytes a parcel takes that is not [`Load::Coded`].
    pub fn bytes(&self, parcel: &Parcel) -> usize {
        self.pieces[parcel.index as usize].range.len() * self.plan.encoding.bytes::<S>()
    }

    /// Writes the values of a parcel.
    ///
    /// # Panics
    /// If `target` has other than [`bytes`](Self::bytes) bytes.
    #[track_caller]
    pub fn write(&self, parcel: &Parcel, target: &mut [u8]) {
        self.plan.encoding.write(self.values(parcel), target);
    }

    /// The values of a parcel, to be kept longer than this reduction.
    pub fn load(&mut self, parcel: &Parcel) -> Load<S> {
        if let Some(differences) = self.differences.as_ref().filter(|_| self.is_coded(parcel.to, parcel.index as usize))
        {
            return Load::Coded(differences.code(&self.pieces[parcel.index as usize], parcel.index, parcel.reduced));
        }
        if self.sends_own(parcel) {
            return Load::Own(self.pieces[parcel.index as usize].clone());
        }
        let same = |made: &Parcel| (made.index, made.reduced) == (parcel.index, parcel.reduced);
        if let Some((made, values)) = &self.made
            && same(made)
        {
            return Load::Made(Arc::clone(values));
        }
        let values = Arc::new(self.values(parcel).to_vec());
        self.made = Some((*parcel, Arc::clone(&values)));
        Load::Made(values)
    }

    /// Whether a piece travels in code between this member and `other`.
    fn is_coded(&self, other: usize, index: usize) -> bool {
        let Some(differences) = &self.differences else { return false };
        let piece = &self.pieces[index];
        let segment = &self.own.segments()[piece.segment];
        differences.travels(other, piece, &segment.name, segment.values.len())
    }

    fn sends_own(&self, parcel: &Parcel) -> bool {
        !parcel.reduced && !self.plan.pattern.passes_sums()
    }

    fn values(&self, parcel: &Parcel) -> &[S] {
        let Piece { segment, range } = &self.pieces[parcel.index as usize];
        let source = if self.sends_own(parcel) { &*self.own } else { &self.result };
        &source.segments()[*segment].values[range.clone()]
    }

    /// Takes in values that member `from` sent of piece `index`: the result if they are `reduced`, else a sum or its own.
    ///
    /// What comes twice changes nothing.
    ///
    /// # Errors
    /// If the values cannot be part of a result.
    pub fn receive(&mut self, from: usize, reduced: bool, index: u32, values: &[u8]) -> Result<(), Fault> {
        let at = index as usize;
        if from == self.me || from >= self.weights.len() || at >= self.pieces.len() {
            return Err(Fault::Shape(from));
        }
        let piece = &self.pieces[at];
        let expanded;
        let values = if self.is_coded(from, at) {
            let segment = &self.own.segments()[piece.segment];
            let differences = self.differences.as_ref().expect("it is coded");
            let full = differences.expand(from, piece, &segment.name, segment.values.len(), values);
            expanded = full.ok_or(Fault::Shape(from))?;
            &expanded[..]
        } else {
            values
        };
        if piece.range.len() * self.plan.encoding.bytes::<S>() != values.len() {
            return Err(Fault::Shape(from));
        }
        if reduced {
            return self.receive_result(from, at, values);
        }
        if !self.is_source(from, at) {
            return Err(Fault::Shape(from));
        }
        if self.summed[at] {
            return Ok(());
        }
        let known = self.parts.get(&index);
        let is_there = |member: usize| known.is_some_and(|parts| parts[member].is_some());
        if is_there(from) {
            return Ok(());
        }
        if self.sources(at).all(|member| member == from || is_there(member)) {
            return self.sum(at, Some((from, values)));
        }
        let mut part = self.spare.pop().unwrap_or_default();
        part.clear();
        part.extend_from_slice(values);
        let members = self.weights.len();
        self.parts.entry(index).or_insert_with(|| vec![None; members])[from] = Some(part);
        Ok(())
    }

    fn receive_result(&mut self, from: usize, index: usize, values: &[u8]) -> Result<(), Fault> {
        let owner = self.owner(index);
        if self.plan.pattern.parent(owner, self.me, self.weights.len()) != Some(from) || !self.summed[index] {
            return Err(Fault::Shape(from));
        }
        if self.there[index] {
            return Ok(());
        }
        let Piece { segment, range } = self.pieces[index].clone();
        let target = &mut self.result.segments_mut()[segment].values[range];
        if !self.plan.encoding.read(values, target) && !mutant!(NotFinite) {
            return Err(Fault::NotFinite(from));
        }
        self.arrive(index);
        Ok(())
    }

    /// The result of a piece is there: it is passed on.
    fn arrive(&mut self, index: usize) {
        self.there[index] = true;
        self.missing -= 1;
        if self.plan.pattern != Pattern::Exchange {
            let members = self.weights.len();
            for to in self.plan.pattern.children(self.owner(index), self.me, members) {
                self.reduced.push_back(Parcel { to, index: index as u32, reduced: true });
            }
        }
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
        let members = self.weights.len();
        let mut awaited = vec![false; members];
        for index in (0..self.pieces.len()).filter(|&index| !self.there[index]) {
            if self.summed[index] {
                if let Some(parent) = self.plan.pattern.parent(self.owner(index), self.me, members) {
                    awaited[parent] = true;
                }
                continue;
            }
            let parts = self.parts.get(&(index as u32));
            for member in self.sources(index) {
                awaited[member] |= parts.is_none_or(|parts| parts[member].is_none());
            }
        }
        (0..members).filter(|&member| awaited[member]).collect()
    }

    /// The result as far as it is there.
    pub fn result(&self) -> &Contribution<S> {
        &self.result
    }

    /// The result; the weight of each of its segments is the sum of the members' weights.
    ///
    /// # Panics
    /// If it is not whole.
    #[track_caller]
    pub fn finish(self) -> Contribution<S> {
        self.finish_telling().0
    }

    /// The same, and what this member's results have lost.
    #[track_caller]
    pub(crate) fn finish_telling(self) -> (Contribution<S>, Vec<Lost<S>>) {
        assert!(self.is_whole(), "{} pieces are missing", self.missing);
        (self.result, self.differences.map_or_else(Vec::new, Differences::into_lost))
    }

    /// The member in whose hands the sum of a piece ends.
    fn owner(&self, index: usize) -> usize {
        let owners = &self.owners[self.pieces[index].segment];
        owners[index % owners.len()]
    }

    fn counts(&self, member: usize, index: usize) -> bool {
        self.weights[member][self.pieces[index].segment] > 0.0
    }

    /// Whether this member's sum of a piece takes in something of `member`.
    fn is_source(&self, member: usize, index: usize) -> bool {
        let (pattern, members, owner) = (self.plan.pattern, self.weights.len(), self.owner(index));
        match pattern {
            Pattern::Exchange => member != self.me && self.counts(member, index),
            Pattern::Direct => owner == self.me && member != self.me && self.counts(member, index),
            Pattern::Ring | Pattern::Halving => pattern.parent(owner, member, members) == Some(self.me),
        }
    }

    fn sources(&self, index: usize) -> impl Iterator<Item = usize> {
        (0..self.weights.len()).filter(move |&member| self.is_source(member, index))
    }

    /// Forms this member's sum of a piece, of which everything else has come before `last`.
    fn sum(&mut self, index: usize, last: Option<(usize, &[u8])>) -> Result<(), Fault> {
        let key = index as u32;
        let mut parts = self.parts.remove(&key).unwrap_or_default();
        let Piece { segment, range } = self.pieces[index].clone();
        let mut result = take(&mut self.result.segments_mut()[segment].values);
        let mut outcome = self.sum_into(index, &parts, last, &mut result[range.clone()]);
        if let (Ok(()), Some(differences)) = (&outcome, &mut self.differences) {
            let (own, piece) = (&self.own.segments()[segment], &self.pieces[index]);
            let share = self.totals[segment] / self.weights[self.me][segment];
            let told = differences.conclude(piece, key, &own.name, share, &mut result[range], own.values.len());
            outcome = if told { outcome } else { Err(Fault::NotFinite(self.me)) };
        }
        self.result.segments_mut()[segment].values = result;
        self.spare.extend(parts.drain(..).flatten());
        outcome?;
        self.summed[index] = true;
        let members = self.weights.len();
        match self.plan.pattern.parent(self.owner(index), self.me, members) {
            None => self.arrive(index),
            Some(to) => self.sums.push_back(Parcel { to, index: key, reduced: false }),
        }
        Ok(())
    }

    fn sum_into(
        &self,
        index: usize,
        parts: &[Option<Vec<u8>>],
        last: Option<(usize, &[u8])>,
        target: &mut [S],
    ) -> Result<(), Fault> {
        let Piece { segment, range } = &self.pieces[index];
        let (members, encoding) = (self.weights.len(), self.plan.encoding);
        let own = &self.own.segments()[*segment].values[range.clone()];
        let came = |member: usize| match last {
            Some((from, values)) if from == member => Some(values),
            _ => parts.get(member)?.as_deref(),
        };
        let mut terms = Vec::with_capacity(members);
        let absent = if mutant!(AbsentWeight) && members == 2 { 1.0 } else { 0.0 };
        let total = self.totals[*segment] + absent;
        // What others read of this member's values is what they count here, too.
        let mut rounded = Vec::new();
        if self.plan.pattern.passes_sums() {
            // This member's own value is the first term, the sums that were passed follow; those are divided already.
            let weight = self.weights[self.me][*segment];
            if weight > 0.0 {
                terms.push(Term { member: self.me, weight, values: Values::Here(own) });
            }
            for member in self.plan.pattern.children(self.owner(index), self.me, members) {
                let bytes = came(member).expect("summed when all are there");
                terms.push(Term { member, weight: total, values: Values::Came(bytes, encoding) });
            }
        } else {
            if encoding != Encoding::Full {
                rounded.extend_from_slice(own);
                encoding.round(&mut rounded);
            }
            for member in (0..members).filter(|&member| self.counts(member, index)) {
                let here = || Values::Here(if rounded.is_empty() { own } else { &rounded });
                let values = came(member).map(|bytes| Values::Came(bytes, encoding));
                let values = values.or_else(|| (member == self.me).then(here));
                terms.extend(values.map(|values| Term { member, weight: self.weights[member][*segment], values }));
            }
        }
        let finite = mean(&terms, total, target) && (encoding == Encoding::Full || encoding.round(target));
        if finite || mutant!(NotFinite) {
            return Ok(());
        }
        // The first whose values are not finite, or else the one with the largest.
        let largest = |(culprit, most): (usize, f64), term: &Term<'_, S>| {
            let size = term.values.largest();
            if size > most { (term.member, size) } else { (culprit, most) }
        };
        Err(Fault::NotFinite(terms.iter().fold((self.me, -1.0), largest).0))
    }
}

#[cfg(test)]
mod tests;
