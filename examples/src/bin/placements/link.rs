//! Links between members, by their figures.

use clap::ValueEnum;
use kronfleet_core::placement::Machine;

/// A link of each member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Link {
    /// 10 Gb/s, 20 us
    #[value(name = "10gbe")]
    TenGigabit,
    /// 100 Gb/s, 2 us
    #[value(name = "100gb")]
    HundredGigabit,
    /// 100 Mb/s, 30 ms
    Wan,
}

impl Link {
    /// Bytes per second, and seconds of latency.
    fn figures(self) -> (f64, f64) {
        match self {
            Self::TenGigabit => (1.25e9, 20e-6),
            Self::HundredGigabit => (12.5e9, 2e-6),
            Self::Wan => (12.5e6, 30e-3),
        }
    }

    /// As flags and files say it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TenGigabit => "10gbe",
            Self::HundredGigabit => "100gb",
            Self::Wan => "wan",
        }
    }

    /// In words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::TenGigabit => "10 Gb/s and 20 µs",
            Self::HundredGigabit => "100 Gb/s and 2 µs",
            Self::Wan => "100 Mb/s and 30 ms",
        }
    }

    /// The same machine behind this link.
    pub(crate) fn behind(self, machine: Machine) -> Machine {
        let (bandwidth, latency) = self.figures();
        Machine { bandwidth, latency, ..machine }
    }
}
