//! Who shares every step, and how its work is divided.

use super::division::Division;
use anyhow::{Error, Result, bail};
use clap::{Args, ValueEnum};
use kronfleet_core::placement::{self, Decomposers, Placement, Statistics};
use kronfleet_core::transport::NodeId;
use std::fmt;
use std::str::FromStr;

/// How the work of a shared step is divided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Inner {
    /// Everybody decomposes everything.
    DKfac,
    /// Owners decompose; everybody has all statistics.
    Mpd,
    /// Small factors are decomposed everywhere, large ones once.
    Spd,
    /// This share of the members holds the decompositions of a layer.
    Kaisa(f64),
    /// Statistics go to the owner only.
    OwnerReduce,
    /// Owners use the statistics of their own batches.
    DpKfac,
}

impl Inner {
    /// The rule by which work is divided; decompositions are eigenvectors or inverses.
    pub fn placement(self, eigen: bool) -> Placement {
        match self {
            Self::DKfac => Placement::d_kfac(),
            Self::Mpd => Placement::mpd(eigen),
            Self::Spd => Placement::spd(),
            Self::Kaisa(share) => Placement::kaisa(share),
            Self::OwnerReduce => Placement::owner_reduce(),
            Self::DpKfac => Placement::dp_kfac(),
        }
    }
}

impl Inner {
    /// The same for a method that looks at gradients alone, and has bases or has none.
    ///
    /// # Errors
    /// If it would divide nothing; with the remedy.
    pub fn of_gradient(self, bases: bool) -> Result<Placement> {
        let owner = Placement::of_gradient(0.0);
        let placement = match self {
            Self::DKfac if bases => Placement { decomposers: Decomposers::Everybody, ..Placement::of_gradient(1.0) },
            Self::DKfac => Placement::of_gradient(1.0),
            Self::DpKfac => owner,
            Self::Kaisa(share) => Placement::of_gradient(share),
            Self::Mpd if bases => Placement::of_gradient(1.0),
            Self::Mpd => bail!(
                "--inner mpd hands bases out, of which this --preconditioner has none: choose --inner dp-kfac, whose owners \
                 hand directions out"
            ),
            Self::OwnerReduce | Self::Spd => bail!(
                "--inner {self} sends statistics of passes, but this --preconditioner looks at the mean gradient alone, \
                 which everybody has: choose --inner dp-kfac"
            ),
        };
        let decomposers = if bases { placement.decomposers } else { Decomposers::Nobody };
        Ok(Placement { decomposers, ..placement })
    }
}

impl Inner {
    /// The same for Eva, whose statistics are vectors.
    ///
    /// # Errors
    /// If there is nothing to choose by; with the remedy.
    pub fn of_vectors(self) -> Result<Placement> {
        if self == Self::Spd {
            bail!(
                "--inner spd weighs decompositions against sending them, of which --preconditioner eva has none: choose \
                 --inner d-kfac, by which everybody computes all directions"
            );
        }
        Ok(self.placement(false).of_vectors())
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DKfac => f.write_str("d-kfac"),
            Self::Mpd => f.write_str("mpd"),
            Self::Spd => f.write_str("spd"),
            Self::Kaisa(share) => write!(f, "kaisa:{share}"),
            Self::OwnerReduce => f.write_str("owner-reduce"),
            Self::DpKfac => f.write_str("dp-kfac"),
        }
    }
}

impl FromStr for Inner {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        Ok(match text {
            "d-kfac" => Self::DKfac,
            "mpd" => Self::Mpd,
            "spd" => Self::Spd,
            "owner-reduce" => Self::OwnerReduce,
            "dp-kfac" => Self::DpKfac,
            _ => {
                let share = text.strip_prefix("kaisa:").and_then(|share| share.parse().ok());
                match share.filter(|share| (0.0..=1.0).contains(share)) {
                    Some(share) => Self::Kaisa(share),
                    None => {
                        return Err(format!(
                            "{text:?} is no way to divide a step; use dp-kfac, owner-reduce, mpd, d-kfac, spd or kaisa:SHARE \
                             with a share from 0 to 1"
                        ));
                    }
                }
            }
        })
    }
}

/// How layers are dealt out to owners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Balance {
    /// The largest first, each to whoever has least so far
    #[default]
    Largest,
    /// Layers that follow each other together, the busiest owner having as little as can be
    Contiguous,
}

/// How sites that share steps among themselves stay together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// All average their weights every so many iterations.
    Periodic(u64),
    /// Sites exchange models while they train on, one member of each at a time.
    Daso,
}

impl FromStr for Outer {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "daso" {
            return Ok(Self::Daso);
        }
        let interval = text.strip_prefix("periodic:").and_then(|interval| interval.parse().ok());
        interval.filter(|interval| *interval > 0).map(Self::Periodic).ok_or_else(|| {
            format!("{text:?} is no way for sites to stay together; use periodic:N with N iterations, or daso")
        })
    }
}

/// Who shares every step, and how its work is divided.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Shared steps")]
pub struct SharingSettings {
    /// Share every step among the nodes, whoever of them is there, and divide the work of its preconditioning: dp-kfac,
    /// owner-reduce, mpd, d-kfac, spd or kaisa:SHARE. Takes the place of --policy
    #[arg(long, value_name = "PLACEMENT")]
    pub inner: Option<Inner>,
    /// With --inner: how sites, each of which shares its steps, stay together: periodic:N averages weights every N
    /// iterations; daso exchanges models while they train on, one member of each site at a time (see --daso-epoch and so
    /// on). Without this, all nodes are one site. No --outer-optimiser: averages are taken as models
    #[arg(long, value_name = "periodic:N|daso", requires = "inner")]
    pub outer: Option<Outer>,
    /// With --outer or --fast-link: into how many sites the nodes are divided, neighbours together; or how many nodes each
    /// has, such as 3+2+1
    #[arg(long, value_name = "N|N+N+N", default_value_t = Division::default())]
    pub sites: Division,
    /// With --inner: how layers are dealt out to owners
    #[arg(long, value_enum, default_value_t = Balance::Largest)]
    pub balance: Balance,
    /// With --inner mpd, spd or kaisa: let the two factors of a layer have different owners, where the busiest one then has
    /// less (spd does so anyway)
    #[arg(long)]
    pub apart: bool,
}

impl SharingSettings {
    /// The nodes that share steps with `node`, if steps are shared.
    pub fn site(&self, node: NodeId, nodes: u32) -> Option<Vec<NodeId>> {
        self.inner?;
        let one = Division::Count(1);
        let division = if self.outer.is_some() { &self.sites } else { &one };
        division.groups(nodes).into_iter().find(|site| site.contains(&node))
    }

    /// `placement` with owners chosen as these settings say.
    pub fn owners(&self, placement: Placement) -> Placement {
        let balance = match self.balance {
            Balance::Largest => placement::Balance::Largest,
            Balance::Contiguous => placement::Balance::Contiguous,
        };
        Placement { balance, apart: self.apart || placement.apart, ..placement }
    }

    /// Whether the settings fit each other.
    ///
    /// # Errors
    /// If nodes cannot be divided into these sites, or factors cannot have different owners; with the remedy.
    pub fn check(&self, nodes: u32) -> Result<()> {
        if let (true, Some(inner)) = (self.apart, self.inner)
            && inner.placement(false).statistics != Statistics::Everywhere
        {
            bail!(
                "--inner {inner} with --apart: the damping of a factor depends on the other one, and only a layer's owner has \
                 both; leave out --apart, or choose --inner mpd"
            );
        }
        if self.outer.is_some() {
            self.sites.check(nodes).map_err(Error::msg)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_read_as_it_is_written_and_others_are_refused() {
        for text in ["d-kfac", "mpd", "spd", "kaisa:0.25", "owner-reduce", "dp-kfac"] {
            assert_eq!(text.parse::<Inner>().map(|inner| inner.to_string()).as_deref(), Ok(text));
        }
        assert!("kaisa:2".parse::<Inner>().is_err_and(|error| error.contains("from 0 to 1")));
        assert!("periodic:0".parse::<Outer>().is_err());
        assert_eq!("daso".parse::<Outer>(), Ok(Outer::Daso));
    }

    #[test]
    fn sites_are_neighbours_and_all_nodes_have_one() {
        let sharing = SharingSettings {
            inner: Some(Inner::DpKfac),
            outer: Some(Outer::Periodic(5)),
            sites: Division::Count(2),
            ..SharingSettings::default()
        };
        let site = |node| sharing.site(NodeId(node), 5).expect("steps are shared");
        assert_eq!(site(0), [NodeId(0), NodeId(1), NodeId(2)]);
        assert_eq!(site(4), [NodeId(3), NodeId(4)]);
        assert!(sharing.check(1).is_err());
        let apart = SharingSettings { inner: Some(Inner::DpKfac), apart: true, ..SharingSettings::default() };
        assert!(apart.check(4).is_err_and(|error| error.to_string().contains("choose --inner mpd")));
        let apart = SharingSettings { inner: Some(Inner::Mpd), balance: Balance::Contiguous, ..apart };
        assert!(apart.check(4).is_ok());
        let placement = apart.owners(Placement::mpd(false));
        assert_eq!((placement.apart, placement.balance), (true, placement::Balance::Contiguous));
    }
}
