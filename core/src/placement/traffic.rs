//! What travels in one phase of a step, counted exactly.

use alloc::vec::Vec;

/// Values on their way between members.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Exchange {
    /// Everybody gets the mean of what everybody has.
    AllReduce {
        /// Values of each member.
        values: usize,
    },
    /// One member gets it.
    Reduce {
        /// Who.
        to: usize,
        /// Values of each member.
        values: usize,
    },
    /// Some members get what one has.
    Broadcast {
        /// Whose it is.
        from: usize,
        /// Who gets it; not `from`.
        to: Vec<usize>,
        /// How many values.
        values: usize,
    },
}

/// All that travels in one phase.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Traffic {
    members: usize,
    exchanges: Vec<Exchange>,
}

impl Traffic {
    /// Exchanges among so many members; those that move nothing are left out.
    pub(super) fn new(members: usize, exchanges: impl IntoIterator<Item = Exchange>) -> Self {
        let moves = |exchange: &Exchange| match exchange {
            Exchange::AllReduce { values } | Exchange::Reduce { values, .. } => members > 1 && *values > 0,
            Exchange::Broadcast { to, values, .. } => !to.is_empty() && *values > 0,
        };
        Self { members, exchanges: exchanges.into_iter().filter(moves).collect() }
    }

    /// What travels, in the order of the layers.
    pub fn exchanges(&self) -> &[Exchange] {
        &self.exchanges
    }

    /// Values that go from one member to another, all together. With `P` members an all-reduce of `n` values moves
    /// `2·(P − 1)·n` of them, a reduction to one of them `(P − 1)·n`, a broadcast to `k` of them `k·n`: so many, whether
    /// they go directly, round a ring or along a tree.
    pub fn values(&self) -> u64 {
        let others = self.members as u64 - 1;
        let moved = |exchange: &Exchange| match exchange {
            Exchange::AllReduce { values } => 2 * others * *values as u64,
            Exchange::Reduce { values, .. } => others * *values as u64,
            Exchange::Broadcast { to, values, .. } => to.len() as u64 * *values as u64,
        };
        self.exchanges.iter().map(moved).sum()
    }

    /// What a member's link carries in its busier direction, in values: all-reduces go round a ring, reductions and
    /// broadcasts along a chain, in small pieces.
    pub fn load(&self, member: usize) -> f64 {
        let (mut out, mut into) = (0.0, 0.0);
        for exchange in &self.exchanges {
            match exchange {
                Exchange::AllReduce { values } => {
                    let passed = 2.0 * (1.0 - 1.0 / self.members as f64) * *values as f64;
                    out += passed;
                    into += passed;
                }
                Exchange::Reduce { to, values } => {
                    // The chain ends with `to` and begins with the member after it.
                    let (is_last, is_first) = (*to == member, (*to + 1) % self.members == member);
                    out += if is_last { 0.0 } else { *values as f64 };
                    into += if is_first { 0.0 } else { *values as f64 };
                }
                Exchange::Broadcast { from, to, values } => {
                    let passes_on = *from == member || to[..to.len() - 1].contains(&member);
                    out += if passes_on { *values as f64 } else { 0.0 };
                    into += if to.contains(&member) { *values as f64 } else { 0.0 };
                }
            }
        }
        f64::max(out, into)
    }

    /// Messages one after another from the first to the last of the longest exchange, along trees.
    pub fn hops(&self) -> u32 {
        let steps = |others: usize| (others + 1).next_power_of_two().ilog2();
        let hops = |exchange: &Exchange| match exchange {
            Exchange::AllReduce { .. } => 2 * steps(self.members - 1),
            Exchange::Reduce { .. } => steps(self.members - 1),
            Exchange::Broadcast { to, .. } => steps(to.len()),
        };
        self.exchanges.iter().map(hops).max().unwrap_or(0)
    }
}
