//! Letters on their way, as a state machine over messages that arrive unaltered, once and in any order.

use super::{Letter, Route};
use crate::cluster::Contribution;
use crate::collective::{Broadcast, Encoding, Fault, Parcel, Plan, Reduction};
use crate::mutant::mutant;
use crate::scalar::Scalar;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

/// Bytes before the values of a message: letter, member whose values it is about, piece, whether it is a result.
const HEADER: usize = 16;

/// One member's part in the letters of one stage.
///
/// Everything goes its way at once. Means are summed in the order of members, so that they are one bit pattern.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Mail<S: Scalar> {
    letters: Vec<Letter<S>>,
    parts: Vec<Part<S>>,
    me: usize,
    weights: Vec<f64>,
    /// The part that is asked next.
    turn: usize,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Part<S: Scalar> {
    letter: usize,
    /// Whose values, where every member's travel apart.
    of: usize,
    way: Way<S>,
    /// The members by their places in it.
    members: Vec<usize>,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Way<S: Scalar> {
    Mean(Box<Reduction<S>>),
    Hand(Broadcast<S>),
}

impl<S: Scalar> Mail<S> {
    /// Member `me` of those who count `weights` in means, with its `letters`; messages have `longest` bytes at most.
    ///
    /// # Errors
    /// If values of its own that it sends are not finite: nothing of the stage is sent.
    ///
    /// # Panics
    /// If a letter's route names a member that there is not, or a message has no room for a value.
    #[track_caller]
    pub fn new(me: usize, weights: &[f64], letters: Vec<Letter<S>>, longest: usize) -> Result<Self, Fault> {
        let members = weights.len();
        let equal = vec![1.0; members];
        let weights = if mutant!(BatchIgnored) { &equal[..] } else { weights };
        let chunk = (longest - HEADER) / S::BYTES;
        assert!(chunk > 0, "messages of {longest} bytes have no room for a value");
        let mut parts = Vec::new();
        for (letter, Letter { route, values }) in letters.iter().enumerate() {
            let sends = match route {
                Route::Mean { .. } => members > 1,
                Route::Broadcast { from, .. } => *from == me,
            };
            if sends && !values.iter().all(|value| num_traits::Float::is_finite(*value)) {
                return Err(Fault::NotFinite(me));
            }
            if values.is_empty() || members == 1 || !route.includes(me) {
                continue;
            }
            let hand = |root: usize, list: Vec<usize>, of: usize| {
                let place = list.iter().position(|&member| member == me).expect("it has a part");
                let chunk = chunk.min(values.len());
                let hand = Broadcast::new(root, place, list.len(), values.clone(), chunk, Encoding::Full);
                Part { letter, of, way: Way::Hand(hand), members: list }
            };
            match route {
                Route::Mean { to: None } => {
                    let mut own = Contribution::default();
                    own.segment("values", values.len(), 1.0).copy_from_slice(values);
                    let plan = Plan::direct(chunk.min(values.len().div_ceil(members)));
                    let counts = weights.iter().map(|&weight| vec![weight]).collect();
                    let mean = Reduction::new(plan, me, counts, Arc::new(own), Contribution::default())?;
                    let everybody = (0..members).collect();
                    parts.push(Part { letter, of: 0, way: Way::Mean(Box::new(mean)), members: everybody });
                }
                Route::Mean { to: Some(to) } if *to == me => {
                    let others = (0..members).filter(|&member| member != me);
                    parts.extend(others.map(|member| hand(0, vec![member, me], member)));
                }
                Route::Mean { to: Some(to) } => parts.push(hand(0, vec![me, *to], me)),
                Route::Broadcast { from, to } => {
                    let list = core::iter::once(*from).chain(to.iter().copied()).collect();
                    parts.push(hand(0, list, *from));
                }
            }
        }
        Ok(Self { letters, parts, me, weights: weights.to_vec(), turn: 0 })
    }

    /// The next message and the member it goes to.
    pub fn poll(&mut self) -> Option<(usize, Vec<u8>)> {
        for _ in 0..self.parts.len() {
            let turn = self.turn;
            self.turn = (turn + 1) % self.parts.len();
            if let Some(message) = self.parts[turn].poll() {
                return Some(message);
            }
        }
        None
    }

    /// Takes in a message from a member.
    ///
    /// # Errors
    /// If it fits nowhere, or carries values that are not finite.
    pub fn receive(&mut self, from: usize, message: &[u8]) -> Result<(), Fault> {
        let Some((header, values)) = message.split_at_checked(HEADER) else { return Err(Fault::Shape(from)) };
        let word = |at: usize| {
            u32::from_le_bytes([header[4 * at], header[4 * at + 1], header[4 * at + 2], header[4 * at + 3]])
        };
        let key = (word(0) as usize, word(1) as usize);
        let part = self.parts.iter_mut().find(|part| (part.letter, part.of) == key).ok_or(Fault::Shape(from))?;
        let place = part.members.iter().position(|&member| member == from).ok_or(Fault::Shape(from))?;
        let outcome = match &mut part.way {
            Way::Mean(mean) => mean.receive(place, word(3) != 0, word(2), values),
            Way::Hand(hand) => hand.receive(place, word(2), values),
        };
        outcome.map_err(|fault| match fault {
            Fault::NotFinite(place) => Fault::NotFinite(part.members[place]),
            Fault::Shape(_) => Fault::Shape(from),
        })
    }

    /// Whether all that is awaited has come; what [`poll`](Self::poll) names has to be sent all the same.
    pub fn is_whole(&self) -> bool {
        self.parts.iter().all(Part::is_whole)
    }

    /// The members that something is awaited from, sorted.
    pub fn awaited(&self) -> Vec<usize> {
        let mut awaited = vec![false; self.weights.len()];
        for part in &self.parts {
            let places = match &part.way {
                Way::Mean(mean) => mean.awaited(),
                Way::Hand(hand) => hand.awaited().into_iter().collect(),
            };
            places.into_iter().for_each(|place| awaited[part.members[place]] = true);
        }
        (0..awaited.len()).filter(|&member| awaited[member]).collect()
    }

    /// The letters as they were answered.
    ///
    /// # Panics
    /// If something is still awaited.
    #[track_caller]
    pub fn finish(self) -> Vec<Letter<S>> {
        let Self { mut letters, parts, me, weights, .. } = self;
        let mut gathered: Vec<Vec<(usize, Vec<S>)>> = letters.iter().map(|_| Vec::new()).collect();
        for Part { letter, of, way, .. } in parts {
            match (way, &letters[letter].route) {
                (Way::Mean(mean), _) => letters[letter].values.copy_from_slice(&mean.result().segments()[0].values),
                (Way::Hand(hand), Route::Mean { to }) if *to == Some(me) => gathered[letter].push((of, hand.finish())),
                (Way::Hand(_), Route::Mean { .. }) => {}
                (Way::Hand(hand), Route::Broadcast { .. }) => letters[letter].values = hand.finish(),
            }
        }
        for (letter, mut others) in letters.iter_mut().zip(gathered).filter(|(_, others)| !others.is_empty()) {
            let own = core::mem::take(&mut letter.values);
            others.push((me, own));
            others.sort_by_key(|(member, _)| *member);
            let total: f64 = weights.iter().sum();
            let len = others[0].1.len();
            let mean =
                |at: usize| others.iter().map(|(member, values)| weights[*member] * values[at].wide()).sum::<f64>();
            letter.values = (0..len).map(|at| S::of(mean(at) / total)).collect();
        }
        letters
    }
}

impl<S: Scalar> Part<S> {
    fn poll(&mut self) -> Option<(usize, Vec<u8>)> {
        let (place, index, reduced) = match &mut self.way {
            Way::Mean(mean) => mean.poll().map(|parcel| (parcel.to, parcel.index, parcel.reduced))?,
            Way::Hand(hand) => hand.poll().map(|delivery| (delivery.to, delivery.index, true))?,
        };
        let parcel = Parcel { to: place, index, reduced };
        let len = match &self.way {
            Way::Mean(mean) => mean.bytes(&parcel),
            Way::Hand(hand) => hand.bytes(index),
        };
        let words = [self.letter as u32, self.of as u32, index, u32::from(reduced)];
        let mut message: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        message.resize(HEADER + len, 0);
        match &self.way {
            Way::Mean(mean) => mean.write(&parcel, &mut message[HEADER..]),
            Way::Hand(hand) => hand.write(index, &mut message[HEADER..]),
        }
        Some((self.members[place], message))
    }

    fn is_whole(&self) -> bool {
        match &self.way {
            Way::Mean(mean) => mean.is_whole(),
            Way::Hand(hand) => hand.is_whole(),
        }
    }
}
