//! Compressors by name.

use super::{Blockwise, Compressor, Identity, Kept, LowRank, Quantised, RandomK, Rounding, Short, Sign, TopK};
use crate::scalar::Scalar;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// A compressor by name, none of them such that differences could grow: what all nodes of a run have to agree on.
///
/// ```
/// use kronfleet_core::compress::Code;
/// let code: Code = "top:0.1".parse().unwrap();
/// assert_eq!(code.compressor::<f32>().sizes(1000).start() / 1000, 0);
/// assert_eq!(code.to_string(), "top:0.1");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Code {
    /// Everything: `all`.
    #[default]
    All,
    /// The largest values: `top:SHARE`.
    Top(Kept),
    /// Some values: `random:SHARE`.
    Random(Kept),
    /// Signs, and a magnitude: `sign`.
    Sign,
    /// Fewer bits: `bf16`.
    Bf16,
    /// The same, rounded at random: `bf16:stochastic`.
    Bf16Stochastic,
    /// Fewer bits of numbers up to 65504: `fp16`.
    Fp16,
    /// The same, rounded at random: `fp16:stochastic`.
    Fp16Stochastic,
    /// One of 255 levels: `8bit`.
    Blockwise,
    /// One of some levels above 0, at random: `levels:N`, of 1 to 16384.
    Levels(u16),
    /// A matrix of low rank: `rank:R`, of 1 to 16384.
    Rank(u16),
}

impl Code {
    /// What compresses so.
    pub fn compressor<S: Scalar>(self) -> Box<dyn Compressor<S>> {
        match self {
            Self::All => Box::new(Identity),
            Self::Top(kept) => Box::new(TopK::new(kept)),
            Self::Random(kept) => Box::new(RandomK::contracting(kept)),
            Self::Sign => Box::new(Sign),
            Self::Bf16 => Box::new(Short::bf16(Rounding::Nearest)),
            Self::Bf16Stochastic => Box::new(Short::bf16(Rounding::Stochastic)),
            Self::Fp16 => Box::new(Short::f16(Rounding::Nearest)),
            Self::Fp16Stochastic => Box::new(Short::f16(Rounding::Stochastic)),
            Self::Blockwise => Box::new(Blockwise),
            Self::Levels(levels) => Box::new(Quantised::contracting(levels)),
            Self::Rank(rank) => Box::new(LowRank::new(rank)),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Top(kept) => write!(f, "top:{kept}"),
            Self::Random(kept) => write!(f, "random:{kept}"),
            Self::Sign => f.write_str("sign"),
            Self::Bf16 => f.write_str("bf16"),
            Self::Bf16Stochastic => f.write_str("bf16:stochastic"),
            Self::Fp16 => f.write_str("fp16"),
            Self::Fp16Stochastic => f.write_str("fp16:stochastic"),
            Self::Blockwise => f.write_str("8bit"),
            Self::Levels(levels) => write!(f, "levels:{levels}"),
            Self::Rank(rank) => write!(f, "rank:{rank}"),
        }
    }
}

impl FromStr for Code {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || {
            format!(
                "{text:?} is no code; use all, top:0.1, random:0.1, sign, bf16, fp16, bf16:stochastic, 8bit, levels:7 or rank:2, \
                 for example"
            )
        };
        let kept = |share: &str| share.parse::<Kept>().map_err(|error| format!("{share:?} is {error}"));
        match text.split_once(':') {
            None => match text {
                "all" => Ok(Self::All),
                "sign" => Ok(Self::Sign),
                "bf16" => Ok(Self::Bf16),
                "fp16" => Ok(Self::Fp16),
                "8bit" => Ok(Self::Blockwise),
                _ => Err(unknown()),
            },
            Some(("bf16", "stochastic")) => Ok(Self::Bf16Stochastic),
            Some(("fp16", "stochastic")) => Ok(Self::Fp16Stochastic),
            Some(("top", share)) => kept(share).map(Self::Top),
            Some(("random", share)) => kept(share).map(Self::Random),
            Some((kind @ ("levels" | "rank"), number)) => {
                let number = number.parse().ok().filter(|number| (1..=1 << 14).contains(number));
                let number = number.ok_or_else(|| format!("{text:?} has no number from 1 to 16384"))?;
                Ok(if kind == "rank" { Self::Rank(number) } else { Self::Levels(number) })
            }
            Some(_) => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn codes_are_read_and_written() {
        let known =
            "all top:0.1 random:0.000000001 sign bf16 fp16 bf16:stochastic fp16:stochastic 8bit levels:7 rank:2 top:1";
        for text in known.split(' ') {
            let code = text.parse::<Code>().expect("a code");
            assert_eq!(code.to_string(), text);
            let rounds = code.compressor::<f32>().name().starts_with("stochastic");
            assert_eq!(rounds, text.ends_with(":stochastic"), "{text}");
        }
        for text in [
            "bf16:",
            "fp16:nearest",
            "top",
            "top:2",
            "levels:0",
            "levels:16385",
            "rank:0",
            "rank:x",
            "zip",
            "zip:3",
            "all:1",
            "",
        ] {
            assert!(text.parse::<Code>().is_err(), "{text}");
        }
    }
}
