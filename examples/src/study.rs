//! The studies of the documentation: `reproduce`.
//!
//! # For users
//! A [`Study`] computes figures, which [`reproduce`] puts into the page of its name, with the command that gives them. What
//! stands outside of that part of the page is left alone: words are written by hand.
//!
//! # For implementers
//! A further study is a function and a line of [`STUDIES`]. Most are grids of runs, for which there is [`Call::sweep`].

mod call;
mod choosing;
mod command;
mod consensus;
mod daso;
mod fda;
mod gossip;
mod page;
mod processes;
mod scale;
mod scatter;

pub use call::Call;
pub use command::{Settings, reproduce};
pub use page::{Figures, compose};
pub use scatter::{Mark, Scatter};

use anyhow::Result;

/// Something that is shown by running it.
#[derive(Clone, Copy)]
pub struct Study {
    /// Its name on the command line, and that of its page.
    pub name: &'static str,
    /// What it shows, in a line.
    pub about: &'static str,
    /// Whether it cannot do without `--data`.
    pub needs_data: bool,
    /// Whether it has the setting of a paper for `--full`, which then needs `--data`.
    pub has_full: bool,
    /// Which data set that is, and how it is come by.
    pub data: &'static str,
    /// Whether it is a grid of runs, with seeds, settings and groups.
    pub is_grid: bool,
    /// Runs it; nothing comes out of a dry run.
    pub run: fn(&Call<'_>) -> Result<Option<Figures>>,
}

/// All studies, in the order in which `all` runs them.
pub const STUDIES: [Study; 10] = [
    Study {
        name: "fda",
        about: "Averages when models have drifted apart, to an accuracy: LeNet-5 on the whole of MNIST (--data)",
        needs_data: true,
        has_full: true,
        data: fda::DATA,
        is_grid: true,
        run: fda::run,
    },
    Study {
        name: "gossip",
        about: "Neighbours instead of averages: the whole of Fashion-MNIST",
        needs_data: false,
        has_full: true,
        data: CIFAR,
        is_grid: true,
        run: gossip::run,
    },
    Study {
        name: "daso",
        about: "Sites and slow lines between them: time to an accuracy in virtual time",
        needs_data: false,
        has_full: true,
        data: CIFAR,
        is_grid: true,
        run: daso::run,
    },
    Study {
        name: "daso-measured",
        about: "The same with steps as long as they are on this machine, and lines as fast as they are",
        needs_data: false,
        has_full: false,
        data: "",
        is_grid: true,
        run: daso::measured,
    },
    Study {
        name: "daso-processes",
        about: "Sites among real processes, on lines that are held to a rate: time to an accuracy by the clock",
        needs_data: false,
        has_full: false,
        data: "",
        is_grid: false,
        run: processes::run,
    },
    Study {
        name: "consensus",
        about: "How fast nodes agree that tell each other parts of what has changed, beside the theory: seconds",
        needs_data: false,
        has_full: false,
        data: "",
        is_grid: false,
        run: consensus::run,
    },
    Study {
        name: "scale",
        about: "What a node costs in fleets of up to a thousand, in virtual time",
        needs_data: false,
        has_full: false,
        data: "",
        is_grid: true,
        run: scale::run,
    },
    tables("outer", "Outer optimisers beside plain averages"),
    Study { has_full: true, data: CIFAR, ..tables("unstable", "Nodes that come and go") },
    Study { run: choosing::run, ..tables("choosing", "Every policy at every share of the time offline") },
];

/// What studies of neighbours, sites and outages train on with `--full`.
const CIFAR: &str = "CIFAR-10 with --full: give the folder of its binary version with --data DIR";

/// A study that is a grid of the same name, shown as it is.
const fn tables(name: &'static str, about: &'static str) -> Study {
    Study {
        name,
        about,
        needs_data: false,
        has_full: false,
        data: "",
        is_grid: true,
        run: |call| call.tables(call.name),
    }
}
