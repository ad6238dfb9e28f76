//! What was lost is told next time.

use super::{CompressError, Compressor};
use crate::scalar::Scalar;
use crate::seed::Random;
use alloc::vec::Vec;

/// Tells `values` to whoever has `base`: appends `C(x − b)` to `target`, puts `x̂ = b + C(x − b)`, as it is read there, in
/// place of `values`, and what is lost, `x − x̂`, in place of `lost`.
///
/// Whoever adds that to what is told next has error feedback (Seide et al. 2014; Karimireddy et al. 2019): whatever is
/// lost, the sum of all that was told and what is kept is the sum of all that was to be told.
///
/// # Errors
/// As [`Compressor::encode`]; `values` and `target` are then as they were, and `lost` means nothing.
///
/// # Panics
/// If `base` or `lost` have another length than `values`.
#[track_caller]
pub fn tell<S: Scalar, C: Compressor<S> + ?Sized>(
    values: &mut [S],
    base: &[S],
    compressor: &mut C,
    random: &mut Random,
    target: &mut Vec<u8>,
    lost: &mut [S],
) -> Result<(), CompressError> {
    assert_eq!((base.len(), lost.len()), (values.len(), values.len()), "values to tell a difference from, and to lose");
    for ((lost, &value), &base) in lost.iter_mut().zip(values.iter()).zip(base) {
        *lost = value - base;
    }
    let start = target.len();
    compressor.encode(lost, random, target)?;
    if let Err(error) = compressor.decode(&target[start..], lost) {
        target.truncate(start);
        return Err(error);
    }
    for ((value, &base), lost) in values.iter_mut().zip(base).zip(lost) {
        let whole = *value;
        *value = base + *lost;
        *lost = whole - *value;
    }
    Ok(())
}
