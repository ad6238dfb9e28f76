//! What a node keeps that gives parts of itself away.

use super::mass::Mass;
use super::pace::{Moments, Pace};
use crate::compress::{CompressError, Compressor, Identity};
use crate::policy::words::{Saved, Words};
use crate::scalar::Scalar;
use crate::seed::{Random, Seed};
use crate::transport::NodeId;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// One direction between two nodes, as either of them keeps it.
#[derive(Clone, Debug, PartialEq)]
struct Edge<S> {
    /// `ẑ`: what the receiver is known to have of the sender's model, the same on both to the bit.
    copy: Vec<S>,
    /// All that ever went this way.
    sum: Mass,
}

/// One node of push-sum: stochastic gradient push (SGP, Assran et al. 2018, arXiv 1811.10792), and the same with
/// compressed differences.
///
/// Every node has a mass `(x, w)`, at first its model and 1 for each tensor, and its model is `z = x/w`. It gives parts of
/// its mass away, and takes what others give: whoever gives need not be given by the same node, and columns of the mixing
/// matrix add up to 1, rows need not. What is given to a receiver is `a·Γ·w·(ẑ; 1)` with `a = 1/(1 + receivers)`, the
/// [`Pace`] `Γ`, and the copy `ẑ` that the receiver has by compressed differences; with nothing lost in compression and
/// `Γ = 1` it is `a·(x; w)`. A node keeps a weight of a quarter, or of `a` where that is less, and gives what is left beyond
/// it, if that is less than `Γw(1 − a)`.
///
/// - `Σx` and `Σw` over nodes and what is under way stay as they are, whatever is lost: both ends of a direction keep the
///   sum of all that went along it, and a [`whole`](Self::whole) message brings the difference.
/// - Memory for each value: 8 bytes and the model's own, and for each way 8 bytes and the model's own at either end.
#[derive(Clone, Debug, PartialEq)]
pub struct Push<S> {
    pace: Pace,
    /// How many values each tensor has.
    lengths: Vec<usize>,
    mass: Mass,
    moments: Moments,
    /// `z` as it was last given to training.
    model: Vec<S>,
    outgoing: BTreeMap<NodeId, Edge<S>>,
    incoming: BTreeMap<NodeId, Edge<S>>,
}

/// A whole message that was read: all that a sender ever gave, and its copy.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole<S>(Edge<S>);

impl<S> Whole<S> {
    /// `ẑ`, as the sender has it.
    pub fn copy(&self) -> &[S] {
        &self.0.copy
    }

    /// All that the sender ever gave.
    pub fn given(&self) -> &Mass {
        &self.0.sum
    }
}

/// A message that was read: what it gives, and what is then known of the sender.
#[derive(Clone, Debug, PartialEq)]
pub struct Part<S> {
    share: f64,
    weights: Vec<f64>,
    edge: Edge<S>,
}

impl<S> Part<S> {
    /// `ẑ`, as the sender has it after this message.
    pub fn copy(&self) -> &[S] {
        &self.edge.copy
    }

    /// All that the sender ever gave, this message included.
    pub fn given(&self) -> &Mass {
        &self.edge.sum
    }
}

impl<S: Scalar> Push<S> {
    /// A node with this model, whose tensors have so many values each, and a mass of 1 for each of them. With `lengths`
    /// empty, all values are one tensor.
    ///
    /// # Panics
    /// If more could be given than there is, or the tensors have other than as many values as the model.
    #[track_caller]
    pub fn new(pace: Pace, lengths: &[usize], model: &[S]) -> Self {
        pace.check();
        let lengths = if lengths.is_empty() { vec![model.len()] } else { lengths.to_vec() };
        let total: usize = lengths.iter().sum();
        assert_eq!(total, model.len(), "values of tensors, and of the model that they make up");
        let weights = vec![1.0; lengths.len()];
        let mass = Mass { values: model.iter().map(|value| value.wide()).collect(), weights };
        let moments = Moments::new(lengths.len());
        let (outgoing, incoming) = (BTreeMap::new(), BTreeMap::new());
        Self { pace, lengths, mass, moments, model: model.to_vec(), outgoing, incoming }
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
    /// That moves the model by `1/w` of the step, at most four times or as many times as there are parts in what it gives, and
    /// `Σx` by all of it: every node's steps count the same, whatever it weighs, and models come to the optimum of the mean of
    /// all objectives.
    ///
    /// # Panics
    /// If it does not have the expected length.
    #[track_caller]
    pub fn learn(&mut self, model: &[S]) {
        assert_eq!(model.len(), self.model.len(), "values of a model that is pushed");
        for ((x, new), old) in self.mass.values.iter_mut().zip(model).zip(&mut self.model) {
            *x += new.wide() - old.wide();
            *old = *new;
        }
    }

    /// `z = x/w`, for training to go on with; what it was last as long as that has left the range of numbers.
    pub fn model(&mut self) -> &[S] {
        let mut model = vec![S::zero(); self.model.len()];
        self.mass.divide(&self.lengths, &mut model);
        if model.iter().all(|value| value.is_finite()) {
            self.model = model;
        }
        &self.model
    }

    /// Gives to all these nodes, and answers the message to each: `a`, `Γw` of each tensor and the compressed difference.
    ///
    /// # Errors
    /// If a difference cannot be encoded; nothing is given then.
    pub fn give<C: Compressor<S> + ?Sized>(
        &mut self,
        to: &[NodeId],
        compressor: &mut C,
        random: &mut Random,
    ) -> Result<Vec<(NodeId, Vec<u8>)>, CompressError> {
        let (len, tensors) = (self.model.len(), self.lengths.len());
        let mut z = vec![S::zero(); len];
        self.mass.divide(&self.lengths, &mut z);
        let mut messages = Vec::with_capacity(to.len());
        let mut told = Vec::with_capacity(to.len());
        for &node in to {
            let edge = self.outgoing.entry(node).or_insert_with(|| Edge::new(len, tensors));
            let difference: Vec<S> = z.iter().zip(&edge.copy).map(|(&z, &copy)| z - copy).collect();
            let mut message = vec![0; 8 + 8 * tensors];
            let head = message.len();
            compressor.encode(&difference, random, &mut message)?;
            let mut read = difference;
            compressor.decode(&message[head..], &mut read)?;
            let copies = || read.iter().zip(&edge.copy).map(|(&read, &copy)| copy + read);
            if let Some((index, value)) = copies().enumerate().find(|(_, value)| !value.is_finite()) {
                return Err(CompressError::NotFinite { index, value: value.wide() });
            }
            told.push(read);
            messages.push((node, message));
        }
        if to.is_empty() {
            return Ok(messages);
        }
        let share = 1.0 / (1 + to.len()) as f64;
        let rates = self.moments.observe(&self.pace, &self.lengths, &told);
        // With little weight left, a step of training would move the model far.
        let most = |weight: f64| ((weight - LEAST.min(share)) / (1.0 - share)).max(0.0);
        let given: Vec<f64> =
            rates.iter().zip(&self.mass.weights).map(|(rate, &weight)| (rate * weight).min(most(weight))).collect();
        for ((node, message), read) in messages.iter_mut().zip(told) {
            let numbers = core::iter::once(&share).chain(&given);
            message.chunks_exact_mut(8).zip(numbers).for_each(|(bytes, f)| bytes.copy_from_slice(&f.to_le_bytes()));
            let edge = self.outgoing.get_mut(node).expect("made above");
            edge.copy.iter_mut().zip(read).for_each(|(copy, read)| *copy += read);
            edge.sum.add(&self.lengths, share, &given, &edge.copy);
            self.mass.add(&self.lengths, -share, &given, &edge.copy);
        }
        Ok(messages)
    }

    /// Takes what a sender gives with a message that follows the last one taken of it.
    ///
    /// # Errors
    /// If `message` is none, or what it gives cannot be added; nothing is changed then.
    pub fn take<C: Compressor<S> + ?Sized>(
        &mut self,
        from: NodeId,
        message: &[u8],
        compressor: &mut C,
    ) -> Result<(), CompressError> {
        let part = self.read(from, message, compressor)?;
        self.take_part(from, part)
    }

    /// Reads a message that follows the last one taken of its sender.
    ///
    /// # Errors
    /// If `message` is none, or what it gives cannot be added to what was given before.
    pub fn read<C: Compressor<S> + ?Sized>(
        &self,
        from: NodeId,
        message: &[u8],
        compressor: &mut C,
    ) -> Result<Part<S>, CompressError> {
        let (len, tensors) = (self.model.len(), self.lengths.len());
        let head = self.head();
        let truncated = CompressError::Truncated { found: message.len(), least: head };
        let (numbers, body) = message.split_at_checked(head).ok_or(truncated)?;
        let mut numbers = numbers.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
        let share = numbers.next().unwrap_or_default();
        let weights: Vec<f64> = numbers.collect();
        let is_part = |given: &f64| *given >= 0.0 && given.is_finite();
        if !(share > 0.0 && share < 1.0 && weights.iter().all(is_part)) {
            return Err(CompressError::Field("what is given"));
        }
        let mut read = vec![S::zero(); len];
        compressor.decode(body, &mut read)?;
        let mut edge = self.incoming.get(&from).cloned().unwrap_or_else(|| Edge::new(len, tensors));
        for (copy, read) in edge.copy.iter_mut().zip(read) {
            *copy += read;
        }
        edge.sum.add(&self.lengths, share, &weights, &edge.copy);
        if !(edge.copy.iter().all(|value| value.is_finite()) && edge.sum.is_sound()) {
            return Err(CompressError::Field("what is given"));
        }
        Ok(Part { share, weights, edge })
    }

    /// Takes what a message gives that was [`read`](Self::read) since the last one of the same sender was taken.
    ///
    /// # Errors
    /// If what there is would leave the range of numbers with it; nothing is changed then.
    pub fn take_part(&mut self, from: NodeId, part: Part<S>) -> Result<(), CompressError> {
        let Part { share, weights, edge } = part;
        let mut mass = self.mass.clone();
        mass.add(&self.lengths, share, &weights, &edge.copy);
        self.hold(mass, from, edge)
    }

    /// The message that makes up for all that may have been lost on the way to a node: everything given to it, and its
    /// copy.
    pub fn whole(&mut self, to: NodeId) -> Vec<u8> {
        let (len, tensors) = (self.model.len(), self.lengths.len());
        let mut message = Vec::with_capacity(self.whole_len());
        let edge = self.outgoing.entry(to).or_insert_with(|| Edge::new(len, tensors));
        let sums = edge.sum.weights.iter().chain(&edge.sum.values);
        sums.for_each(|value| message.extend_from_slice(&value.to_le_bytes()));
        // Copies are finite, and random numbers are drawn by nobody.
        let encoded = Identity.encode(&edge.copy, &mut Seed(0).random(), &mut message);
        encoded.expect("copies are finite, as `give` sees to");
        message
    }

    /// Bytes of a message before what is compressed.
    pub fn head(&self) -> usize {
        8 + 8 * self.lengths.len()
    }

    /// Bytes of a whole message.
    pub fn whole_len(&self) -> usize {
        8 * self.lengths.len() + self.model.len() * (8 + S::BYTES)
    }

    /// Reads a whole message.
    ///
    /// # Errors
    /// If `message` is none.
    pub fn read_whole(&self, message: &[u8]) -> Result<Whole<S>, CompressError> {
        let (len, tensors) = (self.model.len(), self.lengths.len());
        let expected = self.whole_len();
        let (found, least, most) = (message.len(), expected, expected);
        if found < expected {
            return Err(CompressError::Truncated { found, least });
        }
        if found > expected {
            return Err(CompressError::Oversized { found, most });
        }
        let (sums, copy) = message.split_at(8 * (tensors + len));
        let mut numbers = sums.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
        let weights: Vec<f64> = numbers.by_ref().take(tensors).collect();
        let values: Vec<f64> = numbers.collect();
        let sum = Mass { values, weights };
        if !sum.is_sound() {
            return Err(CompressError::Field("what was given"));
        }
        let mut read = vec![S::zero(); len];
        Identity.decode(copy, &mut read)?;
        Ok(Whole(Edge { copy: read, sum }))
    }

    /// Takes what a whole message gives more than was taken already; of a sender that has begun anew, all of it.
    ///
    /// # Errors
    /// If what there is would leave the range of numbers with it, or so much would be given back that less than a quarter is
    /// left; nothing is changed then.
    pub fn take_whole(&mut self, from: NodeId, whole: Whole<S>, anew: bool) -> Result<(), CompressError> {
        let Whole(edge) = whole;
        let nothing = Mass::nothing(self.model.len(), self.lengths.len());
        let before = self.incoming.get(&from).filter(|_| !anew).map_or(&nothing, |edge| &edge.sum);
        let mass = self.mass.with_difference(&edge.sum, before);
        self.hold(mass, from, edge)
    }

    /// Goes on with a mass of which a part came from a sender.
    fn hold(&mut self, mass: Mass, from: NodeId, edge: Edge<S>) -> Result<(), CompressError> {
        let gives_back = |(&after, &before): (&f64, &f64)| after < before && after < LEAST;
        if !mass.is_sound() || mass.weights.iter().zip(&self.mass.weights).any(gives_back) {
            return Err(CompressError::Field("what is given"));
        }
        self.mass = mass;
        self.incoming.insert(from, edge);
        Ok(())
    }

    /// A receiver has begun anew and has nothing of what it was given; the same is counted from nothing.
    pub fn forget_receiver(&mut self, to: NodeId) {
        self.outgoing.remove(&to);
    }

    /// Puts everything but the pace into words.
    pub(crate) fn save(&self, words: &mut Words) {
        words.0.push(self.lengths.len() as u64);
        words.0.extend(self.lengths.iter().map(|&len| len as u64));
        self.mass.save(words);
        self.moments.save(words);
        words.values(&self.model);
        for edges in [&self.outgoing, &self.incoming] {
            words.0.push(edges.len() as u64);
            for (node, edge) in edges {
                words.0.push(u64::from(node.0));
                words.values(&edge.copy);
                edge.sum.save(words);
            }
        }
    }

    /// What was [`save`](Self::save)d by one of the same `tensors`, as [`new`](Self::new) takes them; `None` if it ends too
    /// early or lengths differ.
    pub(crate) fn restore(pace: Pace, tensors: &[usize], words: &mut Saved<'_>) -> Option<Self> {
        let count = |words: &mut Saved<'_>| words.word().and_then(|word| usize::try_from(word).ok());
        let lengths: Vec<usize> = (0..words.count()?).map(|_| count(words)).collect::<Option<_>>()?;
        let same = if tensors.is_empty() { lengths.len() == 1 } else { lengths == tensors };
        same.then_some(())?;
        let (len, tensors) = (lengths.iter().try_fold(0_usize, |sum, &len| sum.checked_add(len))?, lengths.len());
        let (mass, moments) = (Mass::restore(words, len, tensors)?, Moments::restore(words, tensors)?);
        let model: Vec<S> = words.values()?;
        let edge = |words: &mut Saved<'_>| {
            let (node, copy, sum) = (words.node()?, words.values()?, Mass::restore(words, len, tensors)?);
            (copy.len() == len).then_some((node, Edge { copy, sum }))
        };
        let mut edges = || (0..words.count()?).map(|_| edge(words)).collect::<Option<BTreeMap<_, _>>>();
        let (outgoing, incoming) = (edges()?, edges()?);
        (model.len() == len).then_some(Self { pace, lengths, mass, moments, model, outgoing, incoming })
    }
}

impl<S: Scalar> Edge<S> {
    fn new(len: usize, tensors: usize) -> Self {
        Self { copy: vec![S::zero(); len], sum: Mass::nothing(len, tensors) }
    }
}

/// The weight that is not given away.
const LEAST: f64 = 0.25;
