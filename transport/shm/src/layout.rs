//! Where things lie in a segment.
//!
//! | from | what |
//! |---|---|
//! | 0 | the [header](crate::header), one page |
//! | 4096 | a slot of 512 bytes per node: generation, process, bell, heartbeats, core |
//! | then | 512 bytes of positions per ordered pair of nodes |
//! | then, from a page on | the bytes of one ring per ordered pair |
//!
//! What different processes write lies 128 bytes apart: processors fetch pairs of cache lines.

use std::ops::Range;

/// A page, and the least capacity of a ring.
pub(crate) const PAGE: usize = 4096;

/// The most nodes a segment can have.
pub(crate) const MOST_NODES: u32 = 256;

const SLOT: usize = 512;
const CONTROL: usize = 512;
pub(crate) const APART: usize = 128;

/// Where things lie in a segment with so many nodes and rings of such a capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    nodes: usize,
    capacity: usize,
}

impl Layout {
    /// A layout, if it can be: 1 to [`MOST_NODES`] nodes, rings of a power of two from a page up to 1 GiB.
    pub(crate) fn new(nodes: u64, capacity: u64) -> Option<Self> {
        let sound = (1..=u64::from(MOST_NODES)).contains(&nodes)
            && (PAGE as u64..=1 << 30).contains(&capacity)
            && capacity.is_power_of_two();
        sound.then_some(Self { nodes: nodes as usize, capacity: capacity as usize })
    }

    pub(crate) fn nodes(&self) -> u32 {
        self.nodes as u32
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity as u64
    }

    /// Bytes of the whole segment.
    pub(crate) fn len(&self) -> usize {
        self.rings() + self.pairs() * self.capacity
    }

    /// Where the slot of a node begins.
    pub(crate) fn slot(&self, node: u32) -> usize {
        PAGE + node as usize * SLOT
    }

    fn pairs(&self) -> usize {
        self.nodes * (self.nodes - 1)
    }

    fn pair(&self, from: u32, to: u32) -> usize {
        let (from, to) = (from as usize, to as usize);
        assert!(from < self.nodes && to < self.nodes && from != to, "no ring from n{from} to n{to}");
        from * (self.nodes - 1) + to - usize::from(to > from)
    }

    fn controls(&self) -> usize {
        PAGE + self.nodes * SLOT
    }

    fn rings(&self) -> usize {
        (self.controls() + self.pairs() * CONTROL).next_multiple_of(PAGE)
    }

    /// Where the positions of the ring between two nodes lie.
    pub(crate) fn control(&self, from: u32, to: u32) -> usize {
        self.controls() + self.pair(from, to) * CONTROL
    }

    /// Where the bytes of the ring between two nodes lie.
    pub(crate) fn data(&self, from: u32, to: u32) -> Range<usize> {
        let start = self.rings() + self.pair(from, to) * self.capacity;
        start..start + self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_overlaps_and_everything_lies_inside(nodes in 1_u64..8, power in 12_u32..20) {
            let layout = Layout::new(nodes, 1 << power).expect("a sound layout");
            let header = 0..PAGE;
            let mut taken = Vec::from([header]);
            for node in 0..layout.nodes() {
                taken.push(layout.slot(node)..layout.slot(node) + SLOT);
                for to in (0..layout.nodes()).filter(|&to| to != node) {
                    taken.push(layout.control(node, to)..layout.control(node, to) + CONTROL);
                    taken.push(layout.data(node, to));
                }
            }
            taken.sort_by_key(|range| range.start);
            for pair in taken.windows(2) {
                prop_assert!(pair[0].end <= pair[1].start, "{:?}", pair);
            }
            prop_assert!(taken.last().expect("the header").end <= layout.len());
        }

        #[test]
        fn what_cannot_be_is_refused(nodes: u64, capacity: u64) {
            if let Some(layout) = Layout::new(nodes, capacity) {
                prop_assert!(layout.nodes() <= MOST_NODES && capacity.is_power_of_two());
            }
        }
    }
}
