//! Register-blocked kernels that read patches where they lie.
//!
//! In a padded image a patch is the same pattern wherever it starts, so a convolution needs no copy of its patches:
//! [`Gather`] multiplies weights with patches, [`Correlate`] and [`Runwise`] sum products of vectors with patches over
//! positions. Thin matrices, which libraries handle at half speed, run near the peak: all accumulators of a block stay
//! in registers, and each step is a few vector loads and one broadcast per group of fused multiply-adds.
//!
//! What limits such a kernel, beside the multiply-adds themselves, is the number of loads (two a cycle, as many as
//! multiply-adds) and of pointers (fewer than twenty registers). Hence the layouts: where neighbouring *positions* are
//! broadcast they are neighbours in memory ([`Planes`](crate::convolution)), where neighbouring *elements* of a patch
//! are used together the channels are, and either way one pointer and one check serve a whole block.

mod along;
mod correlate;
mod gather;
mod runwise;

pub(crate) use along::{Along, Shifted};
pub(crate) use correlate::{Correlate, Runs};
pub(crate) use gather::{Gather, pack, packed_len};
pub(crate) use runwise::{Lines, Runwise};

/// Scalars that must follow what is read in whole vectors.
pub(crate) const MARGIN: usize = 16;

/// Rows rounded up to whole vectors of any instruction set.
pub(crate) const fn padded(rows: usize) -> usize {
    rows.next_multiple_of(16)
}
