//! What a node keeps that gives parts of itself away.

use crate::compress::{CompressError, Compressor, Identity};
use crate::policy::words::{Saved, Words};
use crate::scalar::Scalar;
use crate::seed::{Random, Seed};
use crate::transport::NodeId;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// What is pushed from node to node: weighted values, and what they weigh.
#[derive(Clone, Debug, PartialEq)]
pub struct Mass {
    /// `x`, or a part of it.
    pub values: Vec<f64>,
    /// `w`, or a part of it.
    pub weight: f64,
}

impl Mass {
    fn nothing(len: usize) -> Self {
        Self { values: vec![0.0; len], weight: 0.0 }
    }

    /// `self += factor · weight · (values; 1)`.
    fn add<S: Scalar>(&mut self, factor: f64, weight: f64, values: &[S]) {
        self.weight += factor * weight;
        for (sum, value) in self.values.iter_mut().zip(values) {
            *sum += factor * weight * value.wide();
        }
    }

    /// Adds what `after` is more than `before`.
    fn add_difference(&mut self, after: &Self, before: &Self) {
        self.weight += after.weight - before.weight;
        for ((sum, after), before) in self.values.iter_mut().zip(&after.values).zip(&before.values) {
            *sum += after - before;
        }
    }
}

/// One direction between two nodes, as either of them keeps it.
#[derive(Clone, Debug, PartialEq)]
struct Edge<S> {
    /// `ẑ`: what the receiver is known to have of the sender's model, the same on both to the bit.
    copy: Vec<S>,
    /// All that ever went this way.
    sum: Mass,
}

impl<S: Scalar> Edge<S> {
    fn new(len: usize) -> Self {
        Self { copy: vec![S::zero(); len], sum: Mass::nothing(len) }
    }
}

/// One node of push-sum: stochastic gradient push (SGP, Assran et al. 2018, arXiv 1811.10792), and the same with
/// compressed differences.
///
/// Every node has a mass `(x, w)`, at first its model and 1, and its model is `z = x/w`. It gives parts of its mass away,
/// and takes what others give: whoever gives need not be given by the same node, and columns of the mixing matrix add up
/// to 1, rows need not. What is given to a receiver is `a·γ·w·(ẑ; 1)` with `a = 1/(1 + receivers)` and the copy `ẑ` that
/// the receiver has by compressed differences; with nothing lost in compression and `γ = 1` it is `a·(x; w)`. Of a weight
/// below a half the part given shrinks with it.
///
/// - `Σx` and `Σw` over nodes and what is under way stay as they are, whatever is lost: both ends of a direction keep the
///   sum of all that went along it, and a [`whole`](Self::whole) message brings the difference.
/// - Memory for each value: 8 bytes and the model's own, and for each way 8 bytes and the model's own at either end.
#[derive(Clone, Debug, PartialEq)]
pub struct Push<S> {
    step: f64,
    mass: Mass,
    /// `z` as it was last given to training.
    model: Vec<S>,
    outgoing: BTreeMap<NodeId, Edge<S>>,
    incoming: BTreeMap<NodeId, Edge<S>>,
}

impl<S: Scalar> Push<S> {
    /// A node with this model and a mass of 1; `step` is `γ`, 1 where nothing is compressed and .05 to .2 where much is.
    ///
    /// # Panics
    /// If `step` is not above 0 and at most 1.
    #[track_caller]
    pub fn new(step: f64, model: &[S]) -> Self {
        assert!(step > 0.0 && step <= 1.0, "a consensus step size of {step}: nobody can give more than he has");
        let mass = Mass { values: model.iter().map(|value| value.wide()).collect(), weight: 1.0 };
        Self { step, mass, model: model.to_vec(), outgoing: BTreeMap::new(), incoming: BTreeMap::new() }
    }

    /// `(x; w)`.
    pub fn mass(&self) -> &Mass {
        &self.mass
    }

    /// All that was ever given to a node.
    pub fn given(&self, to: NodeId) -> Option<&Mass> {
        self.outgoing.get(&to).map(|edge| &edge.sum)
    }

    /// All that was ever taken from a node.
    pub fn taken(&self, from: NodeId) -> Option<&Mass> {
        self.incoming.get(&from).map(|edge| &edge.sum)
    }

    /// What a receiver is known to have of this node's model.
    pub fn copy_at(&self, to: NodeId) -> Option<&[S]> {
        self.outgoing.get(&to).map(|edge| &*edge.copy)
    }

    /// What this node has of a sender's model.
    pub fn copy_of(&self, from: NodeId) -> Option<&[S]> {
        self.incoming.get(&from).map(|edge| &*edge.copy)
    }

    /// Training has made this of the last [`model`](Self::model): `x += z − z_last`.
    ///
    /// That moves the model by `1/w` of the step. Who has given for long and was given nothing has a small `w`; below a half
    /// the step counts in proportion, so that no step is more than doubled.
    ///
    /// # Panics
    /// If it does not have the expected length.
    #[track_caller]
    pub fn learn(&mut self, model: &[S]) {
        assert_eq!(model.len(), self.model.len(), "values of a model that is pushed");
        let counts = (self.mass.weight / LEAST).min(1.0);
        for ((x, new), old) in self.mass.values.iter_mut().zip(model).zip(&mut self.model) {
            *x += counts * (new.wide() - old.wide());
            *old = *new;
        }
    }

    /// `z = x/w`, for training to go on with.
    pub fn model(&mut self) -> &[S] {
        for (z, x) in self.model.iter_mut().zip(&self.mass.values) {
            *z = S::of(x / self.mass.weight);
        }
        &self.model
    }

    /// Gives to all these nodes, and answers the message to each: `a·γ·w` and the compressed difference.
    ///
    /// # Errors
    /// If a difference cannot be encoded; nothing is given then.
    pub fn give<C: Compressor<S> + ?Sized>(
        &mut self,
        to: &[NodeId],
        compressor: &mut C,
        random: &mut Random,
    ) -> Result<Vec<(NodeId, Vec<u8>)>, CompressError> {
        let len = self.model.len();
        let share = 1.0 / (1 + to.len()) as f64;
        let weight = self.mass.weight;
        // Nobody gives until nothing is left.
        let given = self.step * weight * (weight / LEAST).min(1.0);
        let z: Vec<S> = self.mass.values.iter().map(|x| S::of(x / weight)).collect();
        let mut messages = Vec::with_capacity(to.len());
        let mut copies = Vec::with_capacity(to.len());
        for &node in to {
            let edge = self.outgoing.entry(node).or_insert_with(|| Edge::new(len));
            let difference: Vec<S> = z.iter().zip(&edge.copy).map(|(&z, &copy)| z - copy).collect();
            let mut message = given.to_le_bytes().to_vec();
            message.extend_from_slice(&share.to_le_bytes());
            compressor.encode(&difference, random, &mut message)?;
            let mut read = vec![S::zero(); len];
            compressor.decode(&message[HEAD..], &mut read)?;
            for (read, copy) in read.iter_mut().zip(&edge.copy) {
                *read += *copy;
            }
            if let Some(index) = read.iter().position(|value| !value.is_finite()) {
                return Err(CompressError::NotFinite { index, value: read[index].wide() });
            }
            copies.push(read);
            messages.push((node, message));
        }
        for (node, copy) in to.iter().zip(copies) {
            let edge = self.outgoing.get_mut(node).expect("made above");
            edge.copy = copy;
            edge.sum.add(share, given, &edge.copy);
            self.mass.add(-share, given, &edge.copy);
        }
        Ok(messages)
    }

    /// Takes what a sender gives with a message that follows the last one taken of it.
    ///
    /// # Errors
    /// If `message` is none; nothing is changed then.
    pub fn take<C: Compressor<S> + ?Sized>(
        &mut self,
        from: NodeId,
        message: &[u8],
        compressor: &mut C,
    ) -> Result<(), CompressError> {
        let len = self.model.len();
        let truncated = CompressError::Truncated { found: message.len(), least: HEAD };
        let (given, rest) = message.split_first_chunk().ok_or(truncated)?;
        let (share, body) = rest.split_first_chunk().ok_or(truncated)?;
        let [given, share] = [*given, *share].map(f64::from_le_bytes);
        if !(given > 0.0 && given.is_finite() && share > 0.0 && share < 1.0) {
            return Err(CompressError::Field("what is given"));
        }
        let mut read = vec![S::zero(); len];
        compressor.decode(body, &mut read)?;
        let edge = self.incoming.entry(from).or_insert_with(|| Edge::new(len));
        for (copy, read) in edge.copy.iter_mut().zip(read) {
            *copy += read;
        }
        edge.sum.add(share, given, &edge.copy);
        self.mass.add(share, given, &edge.copy);
        Ok(())
    }

    /// The message that makes up for all that may have been lost on the way to a node: everything given to it, and its
    /// copy.
    pub fn whole(&mut self, to: NodeId) -> Vec<u8> {
        let len = self.model.len();
        let edge = self.outgoing.entry(to).or_insert_with(|| Edge::new(len));
        let mut message = Vec::with_capacity(Self::whole_len(len));
        message.extend_from_slice(&edge.sum.weight.to_le_bytes());
        edge.sum.values.iter().for_each(|value| message.extend_from_slice(&value.to_le_bytes()));
        // Copies are finite, and random numbers are drawn by nobody.
        let encoded = Identity.encode(&edge.copy, &mut Seed(0).random(), &mut message);
        encoded.expect("copies are finite, as `give` sees to");
        message
    }

    /// Bytes of a whole message of `len` values.
    pub const fn whole_len(len: usize) -> usize {
        8 + len * (8 + S::BYTES)
    }

    /// Takes what a whole message gives more than was taken already.
    ///
    /// # Errors
    /// If `message` is none; nothing is changed then.
    pub fn take_whole(&mut self, from: NodeId, message: &[u8]) -> Result<(), CompressError> {
        let len = self.model.len();
        let expected = Self::whole_len(len);
        let (found, least, most) = (message.len(), expected, expected);
        if found < expected {
            return Err(CompressError::Truncated { found, least });
        }
        if found > expected {
            return Err(CompressError::Oversized { found, most });
        }
        let (sums, copy) = message.split_at(8 * (1 + len));
        let (numbers, _) = sums.as_chunks::<8>();
        let mut numbers = numbers.iter().map(|bytes| f64::from_le_bytes(*bytes));
        let weight = numbers.next().unwrap_or_default();
        let sum = Mass { values: numbers.collect(), weight };
        if !(weight >= 0.0 && weight.is_finite()) {
            return Err(CompressError::Field("what was given"));
        }
        if let Some(index) = sum.values.iter().position(|value| !value.is_finite()) {
            return Err(CompressError::NotFinite { index, value: sum.values[index] });
        }
        let mut read = vec![S::zero(); len];
        Identity.decode(copy, &mut read)?;
        let edge = self.incoming.entry(from).or_insert_with(|| Edge::new(len));
        self.mass.add_difference(&sum, &edge.sum);
        *edge = Edge { copy: read, sum };
        Ok(())
    }

    /// A sender has begun anew: what it gives is counted from nothing.
    pub fn forget_sender(&mut self, from: NodeId) {
        self.incoming.remove(&from);
    }

    /// A receiver has begun anew and has nothing of what it was given; the same is counted from nothing.
    pub fn forget_receiver(&mut self, to: NodeId) {
        self.outgoing.remove(&to);
    }

    /// Puts everything but the step into words.
    pub(crate) fn save(&self, words: &mut Words) {
        words.mass(&self.mass);
        words.values(&self.model);
        for edges in [&self.outgoing, &self.incoming] {
            words.0.push(edges.len() as u64);
            for (node, edge) in edges {
                words.0.push(u64::from(node.0));
                words.values(&edge.copy);
                words.mass(&edge.sum);
            }
        }
    }

    /// What was [`save`](Self::save)d; `None` if it ends too early or lengths differ.
    pub(crate) fn restore(step: f64, words: &mut Saved<'_>) -> Option<Self> {
        let (mass, model): (Mass, Vec<S>) = (mass(words)?, words.values()?);
        let len = model.len();
        let edge = |words: &mut Saved<'_>| {
            let (node, copy, sum) = (words.node()?, words.values()?, self::mass(words)?);
            (copy.len() == len && sum.values.len() == len).then_some((node, Edge { copy, sum }))
        };
        let mut edges = || (0..words.count()?).map(|_| edge(words)).collect::<Option<BTreeMap<_, _>>>();
        let (outgoing, incoming) = (edges()?, edges()?);
        (mass.values.len() == len).then_some(Self { step, mass, model, outgoing, incoming })
    }
}

/// The weight below which less is given and learnt.
const LEAST: f64 = 0.5;

/// Bytes of a message before what is compressed.
pub(crate) const HEAD: usize = 16;

impl Words {
    fn mass(&mut self, mass: &Mass) {
        self.0.push(mass.weight.to_bits());
        self.values(&mass.values);
    }
}

fn mass(words: &mut Saved<'_>) -> Option<Mass> {
    let weight = f64::from_bits(words.word()?);
    Some(Mass { weight, values: words.values()? })
}
