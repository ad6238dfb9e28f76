//! The numbers everything is computed in.

use core::fmt::{Debug, Display};
use core::iter::Sum;
use core::ops::{AddAssign, DivAssign, MulAssign, SubAssign};

/// A real number a backend computes with: [`f32`] or [`f64`].
///
/// Elementary functions come from [`num_traits::Float`], so generic code needs no further bound.
pub trait Scalar:
    num_traits::Float
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + Sum
    + Default
    + Debug
    + Display
    + Send
    + Sync
    + 'static
{
    /// The distance from 1 to the next larger number.
    const EPSILON: f64;
    /// Size in memory and on the wire, in bytes.
    const BYTES: usize;
    /// The type's name, as certificates, traces and files state it.
    const NAME: &'static str;

    /// The nearest number to `value`.
    fn of(value: f64) -> Self;
    /// This number in double precision, exactly.
    fn wide(self) -> f64;
    /// Writes the little-endian representation into the first [`Self::BYTES`] bytes of `target`.
    ///
    /// # Panics
    /// If `target` is shorter than [`Self::BYTES`].
    fn write_le(self, target: &mut [u8]);
    /// Reads what [`write_le`](Self::write_le) wrote.
    ///
    /// # Panics
    /// If `source` is shorter than [`Self::BYTES`].
    fn read_le(source: &[u8]) -> Self;
    /// Numbers for whoever is not generic.
    fn view(values: &[Self]) -> Values<'_>;
}

/// Numbers of either type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values<'a> {
    /// In single precision.
    Single(&'a [f32]),
    /// In double precision.
    Double(&'a [f64]),
}

impl Values<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Single(values) => values.len(),
            Self::Double(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `take` with each place and number, in double precision.
    pub fn for_each(&self, mut take: impl FnMut(usize, f64)) {
        match self {
            Self::Single(values) => values.iter().enumerate().for_each(|(place, &value)| take(place, f64::from(value))),
            Self::Double(values) => values.iter().enumerate().for_each(|(place, &value)| take(place, value)),
        }
    }
}

macro_rules! scalar {
    ($scalar:ident, $values:ident) => {
        impl Scalar for $scalar {
            const EPSILON: f64 = $scalar::EPSILON as f64;
            const BYTES: usize = size_of::<$scalar>();
            const NAME: &'static str = stringify!($scalar);

            #[inline(always)]
            fn of(value: f64) -> Self {
                value as $scalar
            }

            #[inline(always)]
            fn wide(self) -> f64 {
                f64::from(self)
            }

            #[inline]
            fn write_le(self, target: &mut [u8]) {
                target[..Self::BYTES].copy_from_slice(&self.to_le_bytes());
            }

            #[inline]
            fn read_le(source: &[u8]) -> Self {
                let mut bytes = [0; size_of::<$scalar>()];
                bytes.copy_from_slice(&source[..Self::BYTES]);
                $scalar::from_le_bytes(bytes)
            }

            fn view(values: &[Self]) -> Values<'_> {
                Values::$values(values)
            }
        }
    };
}

scalar!(f32, Single);
scalar!(f64, Double);
