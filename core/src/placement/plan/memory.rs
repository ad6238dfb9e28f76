//! What members have memory for.

use super::{Decomposers, Plan, Statistics};
use crate::preconditioner::Form;

/// Scalars in the buffers for factors that a member of K-FAC's has
/// ([`Kronecker::divided`](crate::preconditioner::Kronecker::divided)), but for what aligns matrices and for single scalars of
/// blocks and factors. Not in it: what every member has, among it a few buffers as long as the parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Statistics of a batch: what it makes and, of factors in diagonal blocks, these cut out of it.
    pub statistics: usize,
    /// Running averages. Members that come and go have copies of all of them, whatever is said here.
    pub averages: usize,
    /// In the inverse form, what it decomposes while it does.
    pub work: usize,
    /// Decompositions that it makes or holds, those in use and those that replace them, with eigenvalues of all factors in
    /// the eigen forms.
    pub decompositions: usize,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> usize {
        self.statistics + self.averages + self.work + self.decompositions
    }
}

impl Plan {
    /// What a member has memory for.
    pub fn memory(&self, member: usize) -> Memory {
        let mut memory = Memory::default();
        // Where any factor is cut, passes write into memory of its own.
        let is_cut = self.is_cut();
        let of_passes = self.placement.statistics != Statistics::OfGradient;
        for (layer, place) in self.places.iter().enumerate() {
            let square = |rows: usize| if self.has_vectors() { rows } else { rows * rows };
            let factors = || place.factors.iter().flatten();
            let squares: usize = factors().map(|factor| square(factor.rows)).sum();
            let whole: usize = place.load.factors().map(square).iter().sum();
            if !of_passes || self.makes_statistics(layer, member) != [false; 2] {
                memory.statistics += squares + if is_cut { whole } else { 0 };
            }
            if !of_passes || self.keeps_statistics(layer, member) != [false; 2] {
                memory.averages += squares;
            }
            if self.placement.decomposers == Decomposers::Nobody {
                continue;
            }
            let decomposers = self.decomposers(layer);
            let decomposes = || decomposers.iter().flatten().map(|members| members.contains(&member));
            if self.work.form == Form::Inverse && decomposes().any(|decomposes| decomposes) {
                memory.work += squares;
            }
            let holds = self.holders(layer).contains(&member);
            let here = factors().zip(decomposes()).filter(|(_, decomposes)| holds || *decomposes);
            memory.decompositions += 2 * here.map(|(factor, _)| square(factor.rows)).sum::<usize>();
            if self.is_eigen() {
                memory.decompositions += 2 * place.load.factors().iter().sum::<usize>();
            }
        }
        memory
    }
}
