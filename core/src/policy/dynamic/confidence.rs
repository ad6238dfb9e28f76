//! How much of what a sketch says may be believed.

use super::ways::TOLD;
use core::fmt;

/// How sure a sketch is that a mean drift is not shorter than it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Confidence {
    /// 95 in 100.
    #[default]
    Usual,
    /// 99 in 100.
    High,
    /// 999 in 1000.
    Highest,
}

/// Of which drifts a confidence is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drifts {
    /// Of those whose squares are spread over many more parameters than a sketch has columns, as where dense layers are
    /// trained: each bucket's sum is then close to a normal number, and a row's estimate to `‖v‖²·χ²/columns` with as many
    /// degrees of freedom as there are columns. Of models with fewer parameters than columns, what holds for
    /// [`Any`](Self::Any) is taken. Needs 16 columns.
    #[default]
    Spread,
    /// Of every one, even of a few parameters alone: proven, with two to three times as large an `ε`.
    Any,
}

/// A sketch that has no confidence to state, or cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SketchError {
    /// So many rows are none, or too many.
    Rows(usize),
    /// So many columns are none, or too many.
    Columns(usize),
    /// So few columns say nothing certain of spread drifts.
    Few(usize),
    /// A state has so many bytes, more than a note may have.
    Bytes(usize),
}

/// Rows at most: more would not tell apart what single precision does not.
const MOST_ROWS: usize = 255;
/// Columns from which on a row's estimate of a spread drift is known well enough.
const LEAST_COLUMNS: usize = 16;
/// Bytes of a note.
const MOST_BYTES: usize = 60 << 10;
/// Bytes of a state beside its sketch.
const HEAD: usize = 51 + 24 * (TOLD + 1);

impl fmt::Display for SketchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(rows) => write!(f, "a sketch of {rows} rows has no median to believe; give 1 to {MOST_ROWS}"),
            Self::Columns(columns) => {
                write!(f, "a sketch of {columns} columns holds nothing; give at least 1, below 2^31")
            }
            Self::Few(columns) => write!(
                f,
                "in sketches of {columns} columns the sums of spread drifts are not close enough to normal numbers for a \
                 confidence; give at least {LEAST_COLUMNS}, or take the one of any drift"
            ),
            Self::Bytes(bytes) => {
                write!(
                    f,
                    "a state with this sketch has {bytes} bytes, a note at most {MOST_BYTES}; give fewer columns or rows"
                )
            }
        }
    }
}

impl core::error::Error for SketchError {}

/// Whether a sketch can be told, and has a confidence to state.
pub(super) fn check(rows: usize, columns: usize, drifts: Drifts) -> Result<(), SketchError> {
    let bytes = rows.saturating_mul(columns).saturating_mul(4).saturating_add(HEAD);
    if rows == 0 || rows > MOST_ROWS {
        Err(SketchError::Rows(rows))
    } else if columns == 0 || columns >= 1 << 31 {
        Err(SketchError::Columns(columns))
    } else if columns < LEAST_COLUMNS && drifts == Drifts::Spread {
        Err(SketchError::Few(columns))
    } else if bytes > MOST_BYTES {
        Err(SketchError::Bytes(bytes))
    } else {
        Ok(())
    }
}

impl Confidence {
    /// How often it may be wrong.
    pub fn risk(self) -> f64 {
        match self {
            Self::Usual => 0.05,
            Self::High => 0.01,
            Self::Highest => 0.001,
        }
    }

    /// `ε` with which `‖v‖² < M₂/(1 + ε)` is true of a drift `v` no more often than [`risk`](Self::risk) says, over what
    /// sketches of so many rows and columns draw.
    ///
    /// The median of independent rows exceeds a value only if half of them do: with `p` the chance of one, that of the
    /// median is a tail of the binomial distribution (Alon, Matias & Szegedy 1999), which is solved for `p`. For
    /// [any](Drifts::Any) drift a row's estimate `X` has the mean `‖v‖²` and at most the variance `2‖v‖⁴/columns`, as signs are
    /// four-wise and buckets pairwise independent (Thorup & Zhang 2012), so that by Cantelli's inequality
    /// `P(X ≥ (1 + ε)‖v‖²) ≤ 2/(2 + columns·ε²)`: `ε = √(2(1 − p)/(p·columns))`. For [spread](Drifts::Spread) ones
    /// `columns·(1 + ε)` is the quantile of `χ²` that is exceeded with chance `p`, by Wilson & Hilferty's (1931)
    /// approximation: from 16 columns on and up to 15 rows, the risk is right to 2.1 %.
    ///
    /// At 5 × 250, in the order of confidence: .078, .113 and .154 for spread drifts, .185, .260 and .400 for any. The
    /// published `1/√columns` is .063, which is wrong one time in ten.
    ///
    /// # Panics
    /// If there are no rows or columns.
    #[track_caller]
    pub fn epsilon(self, rows: usize, columns: usize, drifts: Drifts) -> f64 {
        assert!(rows > 0 && columns > 0, "a sketch of {rows} × {columns} holds nothing");
        let (part, columns) = (of_row(rows, self.risk()), columns as f64);
        match drifts {
            Drifts::Any => libm::sqrt(2.0 * (1.0 - part) / (part * columns)),
            Drifts::Spread => {
                let spread = 2.0 / (9.0 * columns);
                let root = 1.0 - spread + quantile(part) * libm::sqrt(spread);
                root * root * root - 1.0
            }
        }
    }
}

/// Where a function that rises, from below 0 at `low` to above 0 at `high`, is not above 0 yet.
fn solve(mut low: f64, mut high: f64, function: impl Fn(f64) -> f64) -> f64 {
    for _ in 0..64 {
        let middle = f64::midpoint(low, high);
        if function(middle) > 0.0 {
            high = middle;
        } else {
            low = middle;
        }
    }
    low
}

/// How often a row may be wrong for the median of so many to be as seldom as `risk`.
fn of_row(rows: usize, risk: f64) -> f64 {
    // Of as many as half of them.
    let least = rows.div_ceil(2);
    let tail = |part: f64| {
        let mut term = libm::pow(1.0 - part, rows as f64);
        let mut below = 0.0;
        for wrong in 0..least {
            below += term;
            term *= part / (1.0 - part) * (rows - wrong) as f64 / (wrong + 1) as f64;
        }
        1.0 - below
    };
    solve(0.0, 0.5, |part| tail(part) - risk)
}

/// What a normal number of mean 0 and variance 1 exceeds with this chance, of at most a half.
fn quantile(chance: f64) -> f64 {
    solve(0.0, 40.0, |value| chance - 0.5 * libm::erfc(value / core::f64::consts::SQRT_2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn epsilons_are_those_of_tables() {
        let all = [Confidence::Usual, Confidence::High, Confidence::Highest];
        for (rows, columns, drifts, expected) in [
            (5, 250, Drifts::Spread, [0.078, 0.113, 0.154]),
            (5, 1000, Drifts::Spread, [0.039, 0.056, 0.076]),
            (5, 250, Drifts::Any, [0.185, 0.260, 0.400]),
            // Of one row, quantiles of χ² with 100 degrees of freedom.
            (1, 100, Drifts::Spread, [0.2434, 0.3581, 0.4945]),
            // Cantelli's inequality alone.
            (1, 38, Drifts::Any, [1.0, 2.283, 7.251]),
        ] {
            let found = all.map(|confidence| confidence.epsilon(rows, columns, drifts));
            let right = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-3);
            assert!(right, "{rows} × {columns} of {drifts:?}: {found:?} instead of {expected:?}");
        }
    }

    #[test]
    fn rows_and_columns_make_sketches_surer() {
        for drifts in [Drifts::Spread, Drifts::Any] {
            let of = |rows, columns| Confidence::High.epsilon(rows, columns, drifts);
            assert!((1..MOST_ROWS - 2).all(|rows| of(rows + 2, 64) < of(rows, 64)), "{drifts:?}");
            assert!((16..1000).all(|columns| of(5, columns + 1) < of(5, columns)), "{drifts:?}");
        }
    }

    #[test]
    fn sketches_without_a_confidence_are_refused() {
        use Drifts::{Any, Spread};
        for (rows, columns, drifts, error) in [
            (0, 64, Any, Some(SketchError::Rows(0))),
            (256, 16, Any, Some(SketchError::Rows(256))),
            (255, 16, Spread, None),
            (5, 0, Any, Some(SketchError::Columns(0))),
            (1, 1 << 31, Any, Some(SketchError::Columns(1 << 31))),
            (5, 15, Spread, Some(SketchError::Few(15))),
            (5, 15, Any, None),
            (5, 16, Spread, None),
            (5, 2500, Spread, None),
            (5, 3070, Spread, Some(SketchError::Bytes(61_667))),
        ] {
            assert_eq!(check(rows, columns, drifts).err(), error, "{rows} × {columns} of {drifts:?}");
        }
        let text = SketchError::Few(15).to_string();
        assert!(text.contains("15 columns") && text.contains("at least 16"), "{text}");
    }
}
