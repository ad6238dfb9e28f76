//! Corrections of gradients that keep nodes together while they train apart.
//!
//! Between two averages every node follows the gradients of its own examples. Where shares of the data differ, models go
//! to different places, and the mean of places is not the place where a mean would have gone.
//!
//! - `FedProx` (Li et al. 2018, arXiv 1812.06127) pulls back: `g + μ(w − w_t)`, `w_t` being the model that was last taken over.
//! - SCAFFOLD (Karimireddy et al. 2020, arXiv 1910.06378, option II) takes away what the own gradients differ from those of
//!   all: `g + c − c_i`, with `c_i` the mean of the node's gradients from one average to the next and `c` the mean of these.
//!
//! The paper has `c_i⁺ = c_i − c + (x − y)/(Kη)` for K steps of plain gradient descent from `x` to `y`, which is the mean of
//! the gradients `g` before they were corrected. That mean is taken directly here, so that momentum, moments and
//! preconditioners may make of a gradient what they like.
//!
//! There is no server that could keep `c`, and whoever is away does not hear how it changes: every node has a `c` of its own.
//! What a node brings into a round is what it would make of it, `c + c_i⁺ − c_i`, and `c` is the mean of that over all who are
//! in the round, weighted as their models are. That is the mean of their *corrected* gradients, which travels beside the model
//! as the segment `variate`. Thus, whoever is there and whoever is away:
//!
//! - the mean over all nodes of what each has as `c` is the `c` of the paper's server, `c + |S|/N · mean(c_i⁺ − c_i)` after a
//!   round of `S`; where all are there, so is each of them;
//! - corrections of the members of a round add up, with their weights, to what they added up to before it; those of all nodes,
//!   to nothing. So where the model comes to rest, gradients of all nodes add up to nothing, and not those of the last round's
//!   members.
//!
//! Both are of nodes whose weights do not change and that forget nothing. So a node that is healed keeps its own `c` and `c_i`,
//! as one that is away does, and gives up only what it has summed on a way that it does not go on. One that is started again
//! without what it has saved has neither, and leaves in the sum what it has lost, as with the paper's server.

use crate::backend::{Backend, Buffer as _};
use crate::cluster::Contribution;
use crate::matrix::Region;
use crate::scalar::Scalar;
use crate::trainer::TrainerOptions;
use alloc::vec::Vec;

/// The segment of `c_i`.
const VARIATE: &str = "variate";

/// What is added to gradients.
pub(super) struct Drift<B: Backend> {
    /// The corrected gradient.
    gradient: B::Buffer,
    proximal: Option<Proximal<B>>,
    variate: Option<Variate<B>>,
}

struct Proximal<B: Backend> {
    /// μ.
    strength: f64,
    /// `w_t`.
    anchor: B::Buffer,
}

struct Variate<B: Backend> {
    /// `c − c_i`; zeros until the node was in a round.
    correction: B::Buffer,
    /// `c_i`, once it is known.
    own: B::Buffer,
    /// The sum of the gradients that no average counts yet.
    sum: B::Buffer,
    /// `c_i⁺`: what may be `c_i` soon.
    offered: B::Buffer,
    counts: Counts,
}

/// What corrections of gradients have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Counts {
    /// Gradients in the sum.
    summed: u64,
    /// How many of them were offered.
    offered: u64,
    /// Whether the node's own mean is known.
    known: bool,
}

impl<B: Backend> Drift<B> {
    /// As the options ask for; `None` if they ask for nothing.
    pub(super) fn new(
        backend: &mut B,
        options: &TrainerOptions,
        parameters: &B::Buffer,
    ) -> Result<Option<Self>, B::Error> {
        let len = parameters.len();
        if options.proximal == 0.0 && !options.variates {
            return Ok(None);
        }
        let gradient = backend.allocate(len)?;
        let proximal = if options.proximal > 0.0 {
            let mut anchor = backend.allocate(len)?;
            copy(backend, parameters, &mut anchor)?;
            Some(Proximal { strength: options.proximal, anchor })
        } else {
            None
        };
        let variate = if options.variates {
            Some(Variate {
                correction: backend.allocate(len)?,
                own: backend.allocate(len)?,
                sum: backend.allocate(len)?,
                offered: backend.allocate(len)?,
                counts: Counts::default(),
            })
        } else {
            None
        };
        Ok(Some(Self { gradient, proximal, variate }))
    }

    /// The gradient with everything added. Never waits.
    pub(super) fn correct(
        &mut self,
        backend: &mut B,
        gradient: &B::Buffer,
        parameters: &B::Buffer,
    ) -> Result<&B::Buffer, B::Error> {
        let all = Region::vector(0, gradient.len());
        let s = B::Scalar::of;
        copy(backend, gradient, &mut self.gradient)?;
        if let Some(Proximal { strength, anchor }) = &self.proximal {
            backend.axpby(s(*strength), parameters, s(1.0), &mut self.gradient, all)?;
            backend.axpby(s(-*strength), anchor, s(1.0), &mut self.gradient, all)?;
        }
        if let Some(variate) = &mut self.variate {
            backend.axpby(s(1.0), &variate.correction, s(1.0), &mut self.gradient, all)?;
            backend.axpby(s(1.0), gradient, s(1.0), &mut variate.sum, all)?;
            variate.counts.summed += 1;
        }
        Ok(&self.gradient)
    }

    /// Adds `c_i` to what is averaged: its segment always, what is in it only if it `reads`. Waits for the device.
    pub(super) fn contribute(
        &mut self,
        backend: &mut B,
        weight: f64,
        reads: bool,
        contribution: &mut Contribution<B::Scalar>,
    ) -> Result<(), B::Error> {
        let Some(Variate { correction, own, sum, offered, counts }) = &mut self.variate else { return Ok(()) };
        let (s, len) = (B::Scalar::of, sum.len());
        let all = Region::vector(0, len);
        // Who has made no step says what it said; who has never said anything has nothing to say.
        let weight = if counts.summed > 0 || counts.known { weight } else { 0.0 };
        let target = contribution.segment(VARIATE, len, weight);
        if !reads {
            return Ok(());
        }
        if counts.summed > 0 {
            backend.axpby(s(1.0 / counts.summed as f64), sum, s(0.0), offered, all)?;
        } else {
            copy(backend, own, offered)?;
        }
        counts.offered = counts.summed;
        let corrected = &mut self.gradient;
        copy(backend, offered, corrected)?;
        backend.axpby(s(1.0), correction, s(1.0), corrected, all)?;
        let ticket = backend.download(corrected, 0..len)?;
        backend.finish(ticket, target)
    }

    /// Takes `average` as what is common now.
    pub(super) fn adopt(
        &mut self,
        backend: &mut B,
        average: &Contribution<B::Scalar>,
        healed: bool,
        parameters: &B::Buffer,
    ) -> Result<(), B::Error> {
        if let Some(Proximal { anchor, .. }) = &mut self.proximal {
            copy(backend, parameters, anchor)?;
        }
        let Some(Variate { correction, own, sum, offered, counts }) = &mut self.variate else { return Ok(()) };
        let (s, all) = (B::Scalar::of, Region::vector(0, sum.len()));
        if healed {
            // Gradients along the way that was given up are those of other models.
            backend.fill(s(0.0), all, sum)?;
            (counts.summed, counts.offered) = (0, 0);
            return Ok(());
        }
        let Some(common) = average.find(VARIATE).filter(|segment| segment.weight > 0.0) else { return Ok(()) };
        if counts.offered > 0 {
            copy(backend, offered, own)?;
            counts.known = true;
        }
        if counts.summed == counts.offered {
            backend.fill(s(0.0), all, sum)?;
        } else {
            backend.axpby(s(-(counts.offered as f64)), offered, s(1.0), sum, all)?;
        }
        // Counts may have been read from a file.
        counts.summed = counts.summed.saturating_sub(counts.offered);
        counts.offered = 0;
        if counts.known {
            backend.upload(&common.values, correction, 0)?;
            backend.axpby(s(-1.0), own, s(1.0), correction, all)?;
        }
        Ok(())
    }

    /// Everything it goes on with but its counts.
    pub(super) fn state(&self) -> impl Iterator<Item = &B::Buffer> {
        let anchor = self.proximal.iter().map(|proximal| &proximal.anchor);
        let kept = self.variate.iter().flat_map(|variate| {
            let Variate { correction, own, sum, offered, .. } = variate;
            [correction, own, sum, offered]
        });
        anchor.chain(kept)
    }

    /// The same, to be written.
    pub(super) fn state_mut(&mut self) -> impl Iterator<Item = &mut B::Buffer> {
        let anchor = self.proximal.iter_mut().map(|proximal| &mut proximal.anchor);
        let kept = self.variate.iter_mut().flat_map(|variate| {
            let Variate { correction, own, sum, offered, .. } = variate;
            [correction, own, sum, offered]
        });
        anchor.chain(kept)
    }

    pub(super) fn counts(&self) -> Counts {
        self.variate.as_ref().map(|variate| variate.counts).unwrap_or_default()
    }

    pub(super) fn resume(&mut self, counts: Counts) {
        if let Some(variate) = &mut self.variate {
            variate.counts = counts;
        }
    }

    /// Host copies of [`state`](Self::state). Waits for the device.
    pub(super) fn save(&self, backend: &mut B) -> Result<Vec<Vec<B::Scalar>>, B::Error> {
        self.state().map(|buffer| backend.fetch(buffer, 0..buffer.len())).collect()
    }
}

fn copy<B: Backend>(backend: &mut B, from: &B::Buffer, to: &mut B::Buffer) -> Result<(), B::Error> {
    backend.axpby(B::Scalar::of(1.0), from, B::Scalar::of(0.0), to, Region::vector(0, from.len()))
}
