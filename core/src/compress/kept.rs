//! Which part of a vector is sent.

use core::fmt;
use core::str::FromStr;

/// The fraction of a vector's values that are kept, in integers, so that a tenth of a thousand is a hundred everywhere.
///
/// ```
/// use kronfleet_core::compress::Kept;
/// let tenth: Kept = "0.1".parse().unwrap();
/// assert_eq!((tenth.of(1000), tenth.of(19), tenth.of(9), tenth.of(0)), (100, 1, 1, 0));
/// assert_eq!((1000.0 * (1.0 - 0.9)) as usize, 99);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Kept {
    /// Billionths, 1 to `WHOLE`.
    parts: u32,
}

const DIGITS: usize = 9;
const WHOLE: u32 = 1_000_000_000;

impl Kept {
    /// Everything.
    pub const ALL: Self = Self { parts: WHOLE };

    /// So many of a million.
    ///
    /// # Panics
    /// If `parts` is 0 or above a million.
    #[track_caller]
    pub const fn per_million(parts: u32) -> Self {
        assert!(parts > 0 && parts <= 1_000_000, "a fraction lies above 0 and is at most 1");
        Self { parts: parts * 1000 }
    }

    /// How many of `len` values are kept: `max(1, ⌊len · fraction⌋)`, and none of none.
    pub fn of(self, len: usize) -> usize {
        // A whole of less than 2³⁰ parts cannot carry 2⁹⁸ values out of 128 bits.
        let floor = (len as u128 * u128::from(self.parts) / u128::from(WHOLE)) as usize;
        floor.max(usize::from(len > 0))
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.parts) / f64::from(WHOLE))
    }
}

/// Text that is no fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseKeptError;

impl fmt::Display for ParseKeptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no decimal fraction above 0 and up to 1 with at most 9 digits after the point; write it as 0.01")
    }
}

impl core::error::Error for ParseKeptError {}

impl FromStr for Kept {
    type Err = ParseKeptError;

    fn from_str(text: &str) -> Result<Self, ParseKeptError> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() != 1 || !digits(whole) || decimals.len() > DIGITS || !digits(decimals) {
            return Err(ParseKeptError);
        }
        let mut parts = u64::from(whole.as_bytes()[0] - b'0');
        for place in 0..DIGITS {
            parts = 10 * parts + u64::from(decimals.as_bytes().get(place).map_or(0, |digit| digit - b'0'));
        }
        match u32::try_from(parts) {
            Ok(parts) if parts > 0 && parts <= WHOLE => Ok(Self { parts }),
            _ => Err(ParseKeptError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn fractions_are_read_as_written() {
        for text in ["1", "0.1", "0.01", "0.000000001", "0.123456789"] {
            assert_eq!(text.parse::<Kept>().unwrap().to_string(), text);
        }
        for text in ["0", "1.1", "", ".5", "-0.1", "0.0000000001", "1e-3", "NaN", "0.1 ", "10"] {
            assert_eq!(text.parse::<Kept>(), Err(ParseKeptError), "{text:?}");
        }
        assert_eq!("1.".parse(), Ok(Kept::ALL));
    }

    #[test]
    fn the_largest_vectors_are_counted() {
        assert_eq!(Kept::ALL.of(usize::MAX), usize::MAX);
        assert_eq!(Kept::per_million(1).of(10), 1);
    }
}
