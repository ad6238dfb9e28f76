//! Rates of lines, as `tc` writes them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rate(u64);

impl Rate {
    /// Bytes per second.
    pub(crate) fn bytes(self) -> f64 {
        self.0 as f64 / 8.0
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000)];
        let found = units.iter().find_map(|(unit, bits)| Some((text.strip_suffix(unit)?, *bits)));
        let parsed = found.and_then(|(number, bits)| number.parse::<u64>().ok()?.checked_mul(bits));
        match parsed {
            Some(bits) if bits > 0 => Ok(Self(bits)),
            _ => Err(format!("{text:?} is no rate; expected kbit, mbit or gbit per second, such as 500mbit or 1gbit")),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bits if bits % 1_000_000_000 == 0 => write!(f, "{}gbit", bits / 1_000_000_000),
            bits if bits % 1_000_000 == 0 => write!(f, "{}mbit", bits / 1_000_000),
            bits => write!(f, "{}kbit", bits / 1_000),
        }
    }
}
