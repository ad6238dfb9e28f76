//! Who computes and who sends what when nodes that share every step also share the work of preconditioning it.
//!
//! Nodes that average their gradients at every step would all do the same second-order work. A [`Placement`] is a rule
//! that divides it; a [`Plan`] is the rule applied to the layers of one network and a number of members: every layer's
//! owner, everything that travels, and what it costs each member. What the published systems do are values of it:
//!
//! | | statistics | decomposed by | held by |
//! |---|---|---|---|
//! | [`d_kfac`](Placement::d_kfac) | averaged everywhere | everybody | everybody |
//! | [`mpd`](Placement::mpd), eigen form | averaged everywhere | the owner | everybody |
//! | [`mpd`](Placement::mpd), inverse form | averaged everywhere | the owner | the owner |
//! | [`spd`](Placement::spd) | averaged everywhere, while the passes go on | whatever is cheaper | everybody |
//! | [`kaisa`](Placement::kaisa) | averaged everywhere | the owner | a share of the members |
//! | [`owner_reduce`](Placement::owner_reduce) | averaged at the owner | the owner | the owner |
//! | [`dp_kfac`](Placement::dp_kfac) | of the owner's batch alone | the owner | the owner |
//! | [`of_vectors`](Placement::of_vectors) of any of these | as there, vectors | nobody | as there |
//! | [`of_gradient`](Placement::of_gradient) | of the mean gradient, by the owner | the owner | a share of the members |
//!
//! Gradients are averaged everywhere in each of them. The last one is for methods that look at nothing else
//! ([`ByGradient`](crate::preconditioner::ByGradient)).
//!
//! Sources: Osawa et al. 2019 (D-KFAC, MPD-KFAC); Shi et al. 2021 (SPD-KFAC, arXiv 2107.06533); Pauloski et al. 2021
//! (KAISA, arXiv 2107.01739); Zhang et al. 2022 (DP-KFAC, arXiv 2206.15143).
//!
//! # For users
//! ```
//! use kronfleet_core::placement::{Load, Machine, Placement, Plan, Work};
//! use kronfleet_core::preconditioner::Form;
//!
//! let layers = [Load::new(16, 28, 1024), Load::new(32, 145, 256), Load::new(10, 65, 1)];
//! let work = Work { form: Form::Inverse, batch: 32, machine: Machine::default() };
//! let plan = Plan::new(&Placement::dp_kfac(), &layers, 2, &work);
//! // The largest layer is one member's, the others the other's; statistics do not travel.
//! assert_eq!((plan.owner(0), plan.owner(1), plan.owner(2)), (1, 0, 1));
//! assert_eq!(plan.statistics().values(), 0);
//! assert_eq!(plan.directions().values(), 16 * 28 + 32 * 145 + 10 * 65);
//! ```

mod assignment;
mod cost;
mod group;
mod letter;
mod mail;
mod plan;
mod traffic;
mod wire;

pub use assignment::{Balance, assign};
pub use cost::{Cost, Machine, Seconds, Work};
pub use group::{Group, Pipeline};
pub use letter::{Letter, Letters, Route};
pub use mail::Mail;
pub use plan::{Load, Memory, Plan};
pub use traffic::{Exchange, Traffic};
pub use wire::Wire;

/// Where the statistics of a layer come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Statistics {
    /// Everybody has the mean over all members' batches.
    Everywhere,
    /// The layer's owner has it.
    AtOwner,
    /// The layer's owner takes those of its own batch; nothing travels and nobody else makes any.
    OwnBatch,
    /// They are of the mean gradient, which everybody has: whoever decomposes makes them, and nothing travels. For methods
    /// that look at gradients alone, such as Shampoo.
    OfGradient,
}

/// Who decomposes a factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Decomposers {
    /// Everybody, so that no decomposition travels.
    Everybody,
    /// Its owner.
    Owner,
    /// Everybody where that is done sooner than the owner's decomposition is there, by the figures of the [`Machine`].
    Cheaper,
    /// Nobody, as there is nothing to decompose: Muon, and Eva, whose statistics of passes are vectors.
    Nobody,
}

/// A rule by which the work of preconditioning is divided.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Placement {
    /// Where statistics come together.
    pub statistics: Statistics,
    /// Who decomposes.
    pub decomposers: Decomposers,
    /// The share of the members that hold a layer's decompositions and apply them: 0 is the owner alone, 1 everybody.
    /// The others get the directions that the holders compute.
    pub holders: f64,
    /// Whether the two factors of a layer may have different owners: they have where the busiest member has less then.
    pub apart: bool,
    /// How owners are chosen.
    pub balance: Balance,
    /// Whether statistics and inverses travel as triangles.
    pub triangles: bool,
    /// Whether statistics travel while the passes still go on.
    pub overlapped: bool,
}

impl Placement {
    /// Whether the parts fit each other.
    ///
    /// # Errors
    /// If a member would have to decompose, or to compute directions with, what it has no statistics of; with the remedy.
    pub fn check(&self) -> Result<(), &'static str> {
        let alone = matches!(self.statistics, Statistics::AtOwner | Statistics::OwnBatch);
        let of_gradient = self.statistics == Statistics::OfGradient;
        if !(0.0..=1.0).contains(&self.holders) {
            return Err("the share of holders is a number from 0 to 1");
        }
        let nobody = self.decomposers == Decomposers::Nobody;
        if alone && self.decomposers != Decomposers::Owner && !nobody {
            return Err(
                "statistics that owners alone have can be decomposed by owners alone: choose Decomposers::Owner",
            );
        }
        if alone && self.apart {
            return Err(
                "the damping of a factor depends on the other one: owners of single factors need the statistics \
                        of both, so choose Statistics::Everywhere or apart = false",
            );
        }
        if of_gradient && self.apart {
            return Err("both factors of a layer are made of one gradient, by one member: choose apart = false");
        }
        if of_gradient && self.overlapped {
            return Err("statistics of the mean gradient do not travel during passes: choose overlapped = false");
        }
        if of_gradient && self.decomposers == Decomposers::Cheaper {
            return Err(
                "both factors of a layer are made of one gradient, by one member or by all who hold it: choose \
                        Decomposers::Owner or Everybody",
            );
        }
        if alone && nobody && self.holders > 0.0 {
            return Err(
                "vectors that owners alone have are never handed on, so that other holders would compute with none: choose \
                        holders = 0 or Statistics::Everywhere",
            );
        }
        if nobody && self.apart {
            return Err("a layer's vectors belong together: choose apart = false");
        }
        Ok(())
    }

    /// Everybody does everything, on averaged statistics.
    pub const fn d_kfac() -> Self {
        Self {
            statistics: Statistics::Everywhere,
            decomposers: Decomposers::Everybody,
            holders: 1.0,
            apart: false,
            balance: Balance::Largest,
            triangles: false,
            overlapped: false,
        }
    }

    /// Owners decompose: in the eigen forms everybody then gets the bases, in the inverse form the directions.
    pub const fn mpd(eigen: bool) -> Self {
        let holders = if eigen { 1.0 } else { 0.0 };
        Self { decomposers: Decomposers::Owner, holders, ..Self::d_kfac() }
    }

    /// Triangles of statistics travel during the passes; small factors are decomposed everywhere, large ones once.
    pub const fn spd() -> Self {
        Self { decomposers: Decomposers::Cheaper, apart: true, triangles: true, overlapped: true, ..Self::d_kfac() }
    }

    /// A share of the members, from 0 to 1, holds the decompositions of a layer.
    pub const fn kaisa(share: f64) -> Self {
        Self { decomposers: Decomposers::Owner, holders: share, ..Self::d_kfac() }
    }

    /// Statistics go to the owner only.
    pub const fn owner_reduce() -> Self {
        Self { statistics: Statistics::AtOwner, holders: 0.0, triangles: true, ..Self::mpd(false) }
    }

    /// Owners use the statistics of their own batches.
    pub const fn dp_kfac() -> Self {
        Self { statistics: Statistics::OwnBatch, ..Self::owner_reduce() }
    }

    /// The same for statistics of passes that are vectors, one for each factor, and need no decomposition: those of
    /// [`Eva`](crate::preconditioner::Eva). Holders compute directions with them.
    pub const fn of_vectors(self) -> Self {
        Self { decomposers: Decomposers::Nobody, apart: false, triangles: false, overlapped: false, ..self }
    }

    /// Owners make statistics of the mean gradient and decompose them; a share of the members, from 0 to 1, computes
    /// directions with the result.
    pub const fn of_gradient(share: f64) -> Self {
        Self { statistics: Statistics::OfGradient, ..Self::kaisa(share) }
    }
}
