//! How the work of a placement is dealt out, where that is left open.

use clap::Args;
use kronfleet_core::placement::{Load, Placement, Statistics};
use kronfleet_examples::settings::{Balance, SharingSettings};

/// How work is dealt out to owners.
#[derive(Args, Clone, Debug)]
pub(crate) struct Dealing {
    /// Counted: take factors of more than N rows for block-diagonal, with diagonal blocks of about N rows at most, each
    /// decomposed by itself; 0 takes none for it
    #[arg(long, default_value_t = 0, value_name = "N", conflicts_with_all = ["measure", "converge"])]
    split_factors: usize,
    /// Counted: how layers are dealt out to owners
    #[arg(long, value_enum, default_value_t = Balance::Largest, conflicts_with_all = ["measure", "converge"])]
    balance: Balance,
    /// Counted: let the two factors of a layer have different owners, where the busiest one then has less; in placements in
    /// which everybody has all statistics
    #[arg(long, conflicts_with_all = ["measure", "converge"])]
    apart: bool,
}

impl Dealing {
    pub(crate) fn layers(&self, layers: Vec<Load>) -> Vec<Load> {
        layers.into_iter().map(|load| load.split(self.split_factors)).collect()
    }

    pub(crate) fn placement(&self, placement: Placement) -> Placement {
        let apart = self.apart && placement.statistics == Statistics::Everywhere;
        SharingSettings { balance: self.balance, apart, ..SharingSettings::default() }.owners(placement)
    }
}
