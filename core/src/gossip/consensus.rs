//! What a node keeps of its neighbours, and how it moves towards them.

use super::contraction::{Contraction, bearable};
use super::mixing::Row;
use crate::compress::{CompressError, Compressor, Identity};
use crate::policy::words::{Saved, Words};
use crate::scalar::Scalar;
use crate::seed::Random;
use crate::transport::NodeId;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// How a node moves towards what its neighbours are known to have.
///
/// `e = Σ_j w_ij (x̂_j − x̂_i)` is the gossip error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// CHOCO-SGD (Koloskova et al. 2019): `x += γe`. It keeps the mean over nodes. With nothing lost and `γ = 1` it is
    /// D-PSGD (Lian et al. 2017) in the form that steps first and mixes then, `x ← Σ_j w_ij x_j`.
    ///
    /// At a tenth of the values on a ring of 16, `γ ≤ 0.4` is stable in practice, and 0.6 is not.
    Choco {
        /// `γ`, the consensus step size, above 0.
        step: f64,
    },
    /// AdaGossip (Aketi et al. 2024), with a step size for each parameter.
    Ada(AdaGossip),
    /// The same as CHOCO-SGD where something was told, and nothing elsewhere: `x_k += γ Σ_j w_ij (x̂_jk − x̂_ik)` over those
    /// neighbours `j` of which, or to which, value `k` was told in this exchange, as in diffusion of parts of models
    /// (Arablouei et al. 2014, *Distributed least mean-square estimation with partial diffusion*).
    ///
    /// CHOCO makes a step by the same difference again and again until it is told anew, the more often the less is told, which
    /// its `γ` has to make up for. Here a difference counts once for each time it is told. Both ends of a link know what was,
    /// so that the mean over nodes is kept where no message is lost or late. With everything told and `γ = 1` it is D-PSGD.
    ///
    /// With `γ = 1` models agreed on every graph that was tried with the largest values, signs and 8 bits; values drawn at
    /// random can make who is silent go too far among many neighbours, where `γ = 0.5` never did. Codes that tell something of
    /// nearly every value make it CHOCO with this `γ`.
    Partial {
        /// `γ`, the consensus step size, above 0 and at most 1.
        step: f64,
    },
}

/// AdaGossip: `v ← βv + (1 − β)e²; Γ = min(cap, γ/(√ṽ + ε)); x += Γe`.
///
/// - It does *not* keep the mean over nodes: `Γ` differs from one to the next.
/// - `γ` has the [unit](Self::unit) of a parameter, or of what the node observes.
/// - With `γ → ∞` it is CHOCO with a step of `cap`, unless the cap is measured, too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaGossip {
    /// `β`, the weight of the old second moment.
    pub decay: f64,
    /// `ε`, added to the root of the second moment, in the [unit](Self::unit) of `γ`; above 0.
    pub epsilon: f64,
    /// `γ`, above 0.
    pub step: f64,
    /// The largest step of any parameter; finite.
    pub cap: f64,
    /// Whether the second moment is divided by `1 − βᵗ` after `t` steps, as it begins at 0.
    pub correction: bool,
    /// What `γ` is counted in.
    pub unit: Unit,
}

/// What AdaGossip's `γ` is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Parameters, as published.
    Parameter,
    /// The root of the mean of `ṽ` over all parameters, as the node observes it.
    ///
    /// A parameter whose error is an ordinary one then makes a step of `γ`, as with CHOCO, one whose error is half as large
    /// makes twice the step; and `γ` can be chosen as for CHOCO, by what a compressor leaves of differences
    /// ([`tune`](super::tune)), whatever models are like.
    Error,
    /// The same times [`bearable`](super::bearable)`(row, ω)`. No parameter makes a larger step than `min(γ, 1)` times that,
    /// nor than `cap`: `ω` is what the compressor has kept of the node's last ten differences or so, as
    /// [measured](Consensus::contraction).
    ///
    /// Nothing is left to be chosen: with `γ = 1` models that nobody trains agreed on every graph and with every compressor
    /// that was tried. Two neighbours whom all others have left can go apart: that there are no others they cannot see, and
    /// with `γ = 0.5` they did not. Where models are trained and little is told, it is no good choice: with a hundredth of
    /// the values told, CHOCO with a chosen step is far better (`docs/reproduce/gossip.md`). Steps follow `ω`, which falls
    /// as what is easily told has been told.
    Measured,
}

impl Default for AdaGossip {
    /// As published.
    fn default() -> Self {
        Self { decay: 0.999, epsilon: 1e-8, step: 1.0, cap: 1.0, correction: true, unit: Unit::Parameter }
    }
}

/// What a node keeps: the public copies `x̂` of its own model and of its neighbours', which all who keep one keep to the
/// bit.
///
/// An iteration is a local step, then [`send`](Self::send) once, [`receive`](Self::receive) of each neighbour's message,
/// [`mix`](Self::mix) once. Copies are kept one by one, `1 +` the number of neighbours times the size of the model, so
/// that weights can change when links die.
#[derive(Clone, Debug, PartialEq)]
pub struct Consensus<S> {
    rule: Rule,
    row: Row,
    own: Vec<S>,
    others: BTreeMap<NodeId, Vec<S>>,
    moment: Vec<S>,
    steps: u64,
    contraction: Contraction,
    /// Of rules that ask for it.
    news: Option<News>,
}

/// Which values of copies have changed since this node has last sent.
#[derive(Clone, Debug, Default, PartialEq)]
struct News {
    own: Vec<bool>,
    others: BTreeMap<NodeId, Vec<bool>>,
}

impl News {
    /// Of one who begins, if the rule asks for it.
    fn of(rule: Rule, len: usize) -> Option<Self> {
        matches!(rule, Rule::Partial { .. }).then(|| Self { own: vec![false; len], others: BTreeMap::new() })
    }

    fn hear(&mut self, from: NodeId, changed: impl Iterator<Item = bool>) {
        let known = self.others.entry(from).or_insert_with(|| vec![false; self.own.len()]);
        known.iter_mut().zip(changed).for_each(|(known, changed)| *known |= changed);
    }
}

impl<S: Scalar> Consensus<S> {
    /// For models of `len` values, with these weights; nobody knows anything of anybody yet.
    ///
    /// # Panics
    /// If a step size is not above 0, or a cap is infinite.
    #[track_caller]
    pub fn new(rule: Rule, row: &Row, len: usize) -> Self {
        match rule {
            Rule::Choco { step } => assert!(step > 0.0 && step.is_finite(), "a consensus step size of {step}"),
            Rule::Partial { step } => assert!(step > 0.0 && step <= 1.0, "a consensus step size of {step}, 1 at most"),
            Rule::Ada(AdaGossip { step, cap, epsilon, decay, .. }) => {
                assert!(step > 0.0 && cap > 0.0 && cap.is_finite(), "a consensus step size of {step}, {cap} at most");
                assert!(
                    epsilon > 0.0 && (0.0..1.0).contains(&decay),
                    "a second moment of decay {decay}, ε = {epsilon}"
                );
            }
        }
        let nothing = vec![S::zero(); len];
        let moment = if matches!(rule, Rule::Ada(_)) { nothing.clone() } else { Vec::new() };
        let others = row.others.keys().map(|&node| (node, nothing.clone())).collect();
        Self {
            rule,
            row: row.clone(),
            own: nothing,
            others,
            moment,
            steps: 0,
            contraction: Contraction::default(),
            news: News::of(rule, len),
        }
    }

    /// The public copy of its own model, `x̂_i`.
    pub fn own(&self) -> &[S] {
        &self.own
    }

    /// The public copy of a neighbour's model, `x̂_j`.
    pub fn other(&self, node: NodeId) -> Option<&[S]> {
        self.others.get(&node).map(Vec::as_slice)
    }

    /// What the compressor has kept of what this node has told, `ω = 1 − ‖d − C(d)‖²/‖d‖²` with `d = x − x̂`: a running mean
    /// with a memory of ten differences, between 0 and 1. `None` before it has told anything.
    pub fn contraction(&self) -> Option<f64> {
        self.contraction.mean()
    }

    /// Appends the message to all neighbours: `q = C(x − x̂)`, `x̂ += q` as they will read it.
    ///
    /// # Errors
    /// If `model` cannot be encoded; nothing is changed then.
    ///
    /// # Panics
    /// If it does not have the expected length.
    #[track_caller]
    pub fn send<C: Compressor<S> + ?Sized>(
        &mut self,
        model: &[S],
        compressor: &mut C,
        random: &mut Random,
        message: &mut Vec<u8>,
    ) -> Result<(), CompressError> {
        assert_eq!(model.len(), self.own.len(), "values of a model that is gossiped");
        let difference: Vec<S> = model.iter().zip(&self.own).map(|(&x, &copy)| x - copy).collect();
        let start = message.len();
        compressor.encode(&difference, random, message)?;
        let read = add(&mut self.own, &message[start..], compressor)?;
        self.contraction.observe(&difference, &read);
        if let Some(news) = &mut self.news {
            news.others.clear();
            news.own = read.iter().map(|value| *value != S::zero()).collect();
        }
        Ok(())
    }

    /// Makes the public copy `model` itself, where the difference cannot be encoded; neighbours then need it as a
    /// [whole](Self::replace).
    ///
    /// # Panics
    /// If it does not have the expected length.
    #[track_caller]
    pub fn copy(&mut self, model: &[S]) {
        assert_eq!(model.len(), self.own.len(), "values of a model that is gossiped");
        if let Some(news) = &mut self.news {
            news.others.clear();
            news.own = model.iter().zip(&self.own).map(|(x, copy)| x != copy).collect();
        }
        self.own.copy_from_slice(model);
    }

    /// Takes in a neighbour's message: `x̂_j += q_j`. One of somebody else changes nothing.
    ///
    /// # Errors
    /// If `message` is none; nothing is changed then.
    pub fn receive<C: Compressor<S> + ?Sized>(
        &mut self,
        from: NodeId,
        message: &[u8],
        compressor: &mut C,
    ) -> Result<(), CompressError> {
        let Some(copy) = self.others.get_mut(&from) else { return Ok(()) };
        let read = add(copy, message, compressor)?;
        if let Some(news) = &mut self.news {
            news.hear(from, read.iter().map(|value| *value != S::zero()));
        }
        Ok(())
    }

    /// Takes in a neighbour's public copy as a whole, uncompressed, whether or not there was one before.
    ///
    /// # Errors
    /// If `message` is none; nothing is changed then.
    pub fn replace(&mut self, from: NodeId, message: &[u8]) -> Result<(), CompressError> {
        let mut read = vec![S::zero(); self.own.len()];
        Identity.decode(message, &mut read)?;
        if let Some(news) = &mut self.news {
            match self.others.get(&from) {
                Some(copy) => news.hear(from, copy.iter().zip(&read).map(|(then, now)| then != now)),
                None => news.hear(from, read.iter().map(|_| true)),
            }
        }
        self.others.insert(from, read);
        Ok(())
    }

    /// Moves `model` towards what its neighbours are known to have.
    ///
    /// # Panics
    /// If it does not have the expected length.
    #[track_caller]
    pub fn mix(&mut self, model: &mut [S]) {
        assert_eq!(model.len(), self.own.len(), "values of a model that is gossiped");
        self.steps = self.steps.saturating_add(1);
        // In the order of nodes, so that it is the same on every machine.
        let mut errors = vec![0.0; model.len()];
        for (node, copy) in &self.others {
            let Some(&weight) = self.row.others.get(node) else {
                continue;
            };
            let differences = copy.iter().zip(&self.own).map(|(other, own)| weight * (other.wide() - own.wide()));
            match &self.news {
                None => errors.iter_mut().zip(differences).for_each(|(error, difference)| *error += difference),
                Some(News { own, others }) => {
                    let heard = others.get(node).map_or(&[][..], Vec::as_slice);
                    // Of whom nothing was heard, nothing is here.
                    let heard = heard.iter().copied().chain(core::iter::repeat(false));
                    for (((error, difference), told), heard) in errors.iter_mut().zip(differences).zip(own).zip(heard) {
                        if *told || heard {
                            *error += difference;
                        }
                    }
                }
            }
        }
        match self.rule {
            Rule::Choco { step } | Rule::Partial { step } => {
                for (x, error) in model.iter_mut().zip(errors) {
                    *x = S::of(x.wide() + step * error);
                }
            }
            Rule::Ada(AdaGossip { decay, epsilon, step, cap, correction, unit }) => {
                let corrected = 1.0 - libm::pow(decay, self.steps as f64);
                let divisor = if correction { corrected } else { 1.0 };
                for (moment, error) in self.moment.iter_mut().zip(&errors) {
                    *moment = S::of(decay * moment.wide() + (1.0 - decay) * error * error);
                }
                let mean = || self.moment.iter().map(|moment| moment.wide()).sum::<f64>() / self.moment.len() as f64;
                let unit_size = if unit == Unit::Parameter { 1.0 } else { libm::sqrt(mean() / divisor) };
                let (step, cap) = match unit {
                    Unit::Parameter | Unit::Error => (step, cap),
                    Unit::Measured => {
                        // Of nothing told, nothing is lost.
                        let most = bearable(&self.row, self.contraction().unwrap_or(1.0));
                        (step * most, cap.min(step.min(1.0) * most))
                    }
                };
                let (step, epsilon) = (step * unit_size, epsilon * unit_size);
                for ((x, moment), error) in model.iter_mut().zip(&self.moment).zip(errors) {
                    // Where no square of an error is above 0 the quotient is no number, and `min` answers the cap.
                    let rate = (step / (libm::sqrt(moment.wide() / divisor) + epsilon)).min(cap);
                    *x = S::of(x.wide() + rate * error);
                }
            }
        }
    }

    /// Goes on with other weights: copies of those who have none any more are dropped, new neighbours begin at 0.
    pub fn reweigh(&mut self, row: &Row) {
        self.others.retain(|node, _| row.others.contains_key(node));
        for &node in row.others.keys() {
            self.others.entry(node).or_insert_with(|| vec![S::zero(); self.own.len()]);
        }
        self.row = row.clone();
    }

    /// Puts everything but the rule and the weights into words.
    pub(crate) fn save(&self, words: &mut Words) {
        words.values(&self.own);
        words.values(&self.moment);
        self.contraction.save(words);
        if let Some(news) = &self.news {
            // What was heard is taken account of at once, in the same call.
            words.bytes(&news.own.iter().map(|&told| u8::from(told)).collect::<Vec<_>>());
        }
        words.0.extend([self.steps, self.others.len() as u64]);
        for (node, copy) in &self.others {
            words.0.push(u64::from(node.0));
            words.values(copy);
        }
    }

    /// What was [`save`](Self::save)d; `None` if it ends too early, lengths differ, or a copy is of no neighbour.
    pub(crate) fn restore(rule: Rule, row: &Row, words: &mut Saved<'_>) -> Option<Self> {
        let (own, moment): (Vec<S>, Vec<S>) = (words.values()?, words.values()?);
        let contraction = Contraction::restore(words)?;
        let mut news = News::of(rule, own.len());
        if let Some(news) = &mut news {
            news.own = words.bytes()?.iter().map(|&told| told != 0).collect();
            (news.own.len() == own.len()).then_some(())?;
        }
        let steps = words.word()?;
        let others: BTreeMap<NodeId, Vec<S>> =
            (0..words.count()?).map(|_| Some((words.node()?, words.values()?))).collect::<Option<_>>()?;
        let moments = if matches!(rule, Rule::Ada(_)) { own.len() } else { 0 };
        let fits = |(node, copy): (&NodeId, &Vec<S>)| row.others.contains_key(node) && copy.len() == own.len();
        (moment.len() == moments && others.iter().all(fits)).then_some(())?;
        Some(Self { rule, row: row.clone(), own, others, moment, steps, contraction, news })
    }
}

/// Adds what a message says to a copy; answers what it says.
fn add<S: Scalar, C: Compressor<S> + ?Sized>(
    copy: &mut [S],
    message: &[u8],
    compressor: &mut C,
) -> Result<Vec<S>, CompressError> {
    let mut read = vec![S::zero(); copy.len()];
    compressor.decode(message, &mut read)?;
    for (copy, &read) in copy.iter_mut().zip(&read) {
        *copy += read;
    }
    Ok(read)
}
