//! Along which links the values of a collective travel.
//!
//! Every piece of a vector has an *owner*, in whose hands its sum ends, and a tree of members below him: sums go up, the
//! result goes down the same way. The patterns differ in their trees; owners take turns from piece to piece, so that all
//! links and members have the same to do whatever the tree.

use alloc::vec::Vec;

/// Along which links the values of a reduction travel, among `P` members and with vectors of `n` bytes.
///
/// | pattern | steps | a member sends | sums of |
/// |---|---|---|---|
/// | [`Direct`](Self::Direct) | 2 | `2 (P − 1)/P · n` | everybody's own values, in the members' order |
/// | [`Exchange`](Self::Exchange) | 1 | `(P − 1) n` | the same, to the bit |
/// | [`Ring`](Self::Ring) | `2 (P − 1)` | `2 (P − 1)/P · n` | sums of those before |
/// | [`Halving`](Self::Halving) | `2 ⌈log₂ P⌉` | `2 (P − 1)/P · n` | sums of 1, 2, 4, … members |
///
/// All of them work with any number of members and give everybody the same bits. `Direct` and `Exchange` round once;
/// the others round every sum that travels to what stands on the wire.
///
/// Recursive halving and doubling is due to Rabenseifner; see Thakur, Rabenseifner and Gropp, "Optimization of
/// Collective Communication Operations in MPICH", 2005. Here distances are counted around the circle of members, as in
/// Bruck et al., "Efficient Algorithms for All-to-All Communications in Multiport Message-Passing Systems", 1997, so
/// that numbers which are no power of two need no preparation. The ring is that of Patarasuk and Yuan, "Bandwidth
/// Optimal All-reduce Algorithms for Clusters of Workstations", 2009.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Pattern {
    /// Every piece goes to its owner, and from there to all.
    #[default]
    Direct,
    /// Everything goes to all, and each sums for itself.
    Exchange,
    /// Sums go around a ring to the owner, the result goes back around it.
    Ring,
    /// Sums go along distances of `P/2, P/4, …, 1`, the result back.
    Halving,
}

impl Pattern {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Direct, Self::Exchange, Self::Ring, Self::Halving];

    /// The pattern that is usually fastest among so many members, with vectors of so many bytes.
    ///
    /// - Two members exchange whatever they have: as many bytes as by any other pattern, in one step.
    /// - Short vectors are exchanged, too: a step costs more than the bytes.
    /// - Up to 16 members go directly, which is exact and has the fewest steps for its bytes.
    /// - More would open too many links at once: they halve.
    ///
    /// The ring is never chosen; it is for networks whose links form one.
    pub fn choose(members: usize, bytes: usize) -> Self {
        /// Bytes that all links of a member together carry in the time of a step.
        const STEP: usize = 32 << 10;
        match members {
            0..=2 => Self::Exchange,
            _ if bytes * (members - 1) <= STEP => Self::Exchange,
            3..=16 => Self::Direct,
            _ => Self::Halving,
        }
    }

    /// Whether sums of several members travel, not everybody's own values.
    pub(super) fn passes_sums(self) -> bool {
        matches!(self, Self::Ring | Self::Halving)
    }

    /// To whom `member` passes its sum of a piece; nobody if it is the owner.
    pub(super) fn parent(self, owner: usize, member: usize, members: usize) -> Option<usize> {
        let distance = (member + members - owner) % members;
        let up = match self {
            Self::Exchange => return None,
            _ if distance == 0 => return None,
            Self::Direct => 0,
            Self::Ring => distance - 1,
            Self::Halving => distance - (1 << distance.ilog2()),
        };
        Some((owner + up) % members)
    }

    /// Who passes its sum of a piece to `member`, in the order in which they are added up.
    pub(super) fn children(self, owner: usize, member: usize, members: usize) -> Vec<usize> {
        let distance = (member + members - owner) % members;
        let below: Vec<usize> = match self {
            Self::Exchange => return (0..members).filter(|&other| other != member).collect(),
            Self::Direct if distance == 0 => return (0..members).filter(|&other| other != member).collect(),
            Self::Direct => Vec::new(),
            Self::Ring => (distance + 1..members).take(1).collect(),
            Self::Halving => {
                let least = if distance == 0 { 0 } else { distance.ilog2() + 1 };
                let steps = (least..usize::BITS).map(|power| distance + (1 << power));
                let mut below: Vec<usize> = steps.take_while(|&below| below < members).collect();
                below.reverse();
                below
            }
        };
        below.into_iter().map(|below| (owner + below) % members).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_is_below_the_owner_and_below_one_other_only() {
        for pattern in [Pattern::Direct, Pattern::Ring, Pattern::Halving] {
            for members in 1..40 {
                for owner in 0..members {
                    let mut steps = 0;
                    for member in 0..members {
                        let children = pattern.children(owner, member, members);
                        let found = (0..members).filter(|&m| pattern.parent(owner, m, members) == Some(member));
                        let mut sorted = children.clone();
                        sorted.sort_unstable();
                        assert_eq!(sorted, found.collect::<Vec<_>>());
                        let mut above = member;
                        let mut up = 0;
                        while let Some(parent) = pattern.parent(owner, above, members) {
                            (above, up) = (parent, up + 1);
                            assert!(up < members, "a circle");
                        }
                        assert_eq!(above, owner);
                        steps = steps.max(up);
                    }
                    let expected = match pattern {
                        Pattern::Ring => members - 1,
                        Pattern::Halving => members.ilog2() as usize,
                        _ => 1.min(members - 1),
                    };
                    assert_eq!(steps, expected, "{pattern:?} among {members}");
                }
            }
        }
    }
}
