//! What one member has, to all others: down a tree of `⌈log₂ P⌉` steps, piece by piece.

use crate::collective::{Encoding, Fault, Pattern};
use crate::scalar::Scalar;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// The tree: the root has children at distances 1, 2, 4, …, each of these further ones.
const TREE: Pattern = Pattern::Halving;

/// A piece to be sent to another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Delivery {
    /// The member's place in the list of members.
    pub to: usize,
    /// Which piece.
    pub index: u32,
}

/// One member's part in a broadcast; every member, the root included, ends with the values as they stand on the wire.
///
/// A piece that came is passed on at once, so that long vectors are on all links together. Within the root it takes
/// `⌈log₂ P⌉ n` bytes to be sent, and `n` to be received elsewhere.
///
/// ```
/// use kronfleet_core::collective::{Broadcast, Encoding};
///
/// let mut members: Vec<_> = (0..3).map(|me| Broadcast::new(2, me, 3, vec![me as f32; 5], 2, Encoding::Full)).collect();
/// while let Some((from, delivery)) = (0..3).find_map(|from| Some((from, members[from].poll()?))) {
///     let mut bytes = vec![0; members[from].bytes(delivery.index)];
///     members[from].write(delivery.index, &mut bytes);
///     members[delivery.to].receive(from, delivery.index, &bytes).unwrap();
/// }
/// assert!(members.into_iter().all(|member| member.finish() == [2.0; 5]));
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Broadcast<S> {
    root: usize,
    me: usize,
    members: usize,
    chunk: usize,
    encoding: Encoding,
    values: Vec<S>,
    there: Vec<bool>,
    missing: usize,
    deliveries: VecDeque<Delivery>,
}

impl<S: Scalar> Broadcast<S> {
    /// Member `me` of so many; the root's `values` are what all get, those of the others are memory of the same length.
    ///
    /// Values travel in pieces of `chunk` at most.
    ///
    /// # Panics
    /// If `root` or `me` is no member, or `chunk` is 0.
    #[track_caller]
    pub fn new(root: usize, me: usize, members: usize, values: Vec<S>, chunk: usize, encoding: Encoding) -> Self {
        assert!(root < members && me < members, "root {root} and member {me} of {members}");
        let pieces = values.len().div_ceil(chunk);
        let mut broadcast = Self {
            root,
            me,
            members,
            chunk,
            encoding,
            values,
            there: vec![false; pieces],
            missing: pieces,
            deliveries: VecDeque::new(),
        };
        if root == me {
            encoding.round(&mut broadcast.values);
            (0..pieces).for_each(|index| broadcast.arrive(index));
        }
        broadcast
    }

    /// What is to be sent next.
    pub fn poll(&mut self) -> Option<Delivery> {
        self.deliveries.pop_front()
    }

    /// How many bytes a piece takes.
    pub fn bytes(&self, index: u32) -> usize {
        self.range(index as usize).len() * self.encoding.bytes::<S>()
    }

    /// Writes a piece.
    ///
    /// # Panics
    /// If `target` has other than [`bytes`](Self::bytes) bytes.
    #[track_caller]
    pub fn write(&self, index: u32, target: &mut [u8]) {
        self.encoding.write(&self.values[self.range(index as usize)], target);
    }

    /// Takes in a piece from another member; what comes twice changes nothing.
    ///
    /// # Errors
    /// If it fits nowhere.
    pub fn receive(&mut self, from: usize, index: u32, bytes: &[u8]) -> Result<(), Fault> {
        let at = index as usize;
        let expected = TREE.parent(self.root, self.me, self.members);
        if at >= self.there.len() || expected != Some(from) || bytes.len() != self.bytes(index) {
            return Err(Fault::Shape(from));
        }
        if !self.there[at] {
            let range = self.range(at);
            // What the values are is the root's business.
            self.encoding.read(bytes, &mut self.values[range]);
            self.arrive(at);
        }
        Ok(())
    }

    /// Whether everything is there; what [`poll`](Self::poll) names has to be sent all the same.
    pub fn is_whole(&self) -> bool {
        self.missing == 0
    }

    /// The member something is awaited from.
    pub fn awaited(&self) -> Option<usize> {
        TREE.parent(self.root, self.me, self.members).filter(|_| !self.is_whole())
    }

    /// The values.
    ///
    /// # Panics
    /// If they are not all there.
    #[track_caller]
    pub fn finish(self) -> Vec<S> {
        assert!(self.is_whole(), "{} pieces are missing", self.missing);
        self.values
    }

    fn range(&self, index: usize) -> Range<usize> {
        let start = index * self.chunk;
        start..(start + self.chunk).min(self.values.len())
    }

    fn arrive(&mut self, index: usize) {
        self.there[index] = true;
        self.missing -= 1;
        // The farthest first: it has the most others below it.
        for to in TREE.children(self.root, self.me, self.members).into_iter().rev() {
            self.deliveries.push_back(Delivery { to, index: index as u32 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn everybody_gets_what_the_root_has_in_any_order() {
        for seed in 0..60 {
            let mut random = Seed(seed).random();
            let members = 1 + random.below(9) as usize;
            let root = random.below(members as u64) as usize;
            let (len, chunk) = (random.below(40) as usize, 1 + random.below(9) as usize);
            let encoding = Encoding::ALL[random.below(3) as usize];
            let mut expected: Vec<f32> = (0..len).map(|_| random.normal() as f32).collect();
            let begin = |me| {
                let values = if me == root { expected.clone() } else { vec![f32::NAN; len] };
                Broadcast::new(root, me, members, values, chunk, encoding)
            };
            let mut nodes: Vec<_> = (0..members).map(begin).collect();
            let mut queue = Vec::new();
            loop {
                for (from, node) in nodes.iter_mut().enumerate() {
                    while let Some(Delivery { to, index }) = node.poll() {
                        let mut bytes = vec![0; node.bytes(index)];
                        node.write(index, &mut bytes);
                        queue.extend([(from, to, index, bytes.clone()), (from, to, index, bytes)]);
                    }
                }
                if queue.is_empty() {
                    break;
                }
                let (from, to, index, bytes) = queue.swap_remove(random.below(queue.len() as u64) as usize);
                nodes[to].receive(from, index, &bytes).expect("a piece that was asked for");
            }
            encoding.round(&mut expected);
            for node in nodes {
                assert_eq!(node.finish(), expected, "seed {seed}");
            }
        }
    }

    #[test]
    fn what_fits_nowhere_is_refused() {
        let mut broadcast = Broadcast::new(0, 1, 3, vec![0.0_f32; 2], 1, Encoding::Full);
        assert_eq!(broadcast.receive(2, 0, &[0; 4]), Err(Fault::Shape(2)));
        assert_eq!(broadcast.receive(0, 2, &[0; 4]), Err(Fault::Shape(0)));
        assert_eq!(broadcast.receive(0, 0, &[0; 3]), Err(Fault::Shape(0)));
        assert_eq!(broadcast.awaited(), Some(0));
    }
}
