//! What was lost is sent next time.

use super::{CompressError, Compressor};
use crate::scalar::Scalar;
use crate::seed::Random;
use alloc::vec;
use alloc::vec::Vec;

/// Error feedback (Seide et al. 2014; Karimireddy et al. 2019): `p = x + e`, send `Δ = C(p)`, keep `e = p − Δ`.
///
/// Whatever is lost, the sum of all that was sent and what is still kept is the sum of all that was to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Feedback<S> {
    error: Vec<S>,
    pending: Vec<S>,
}

impl<S: Scalar> Feedback<S> {
    /// Nothing lost so far, of vectors of `len` values.
    pub fn new(len: usize) -> Self {
        Self { error: vec![S::zero(); len], pending: vec![S::zero(); len] }
    }

    /// What is still to be sent, `e`.
    pub fn error(&self) -> &[S] {
        &self.error
    }

    /// Appends to `target` what `compressor` makes of `values` and what was lost before; answers with what the receiver
    /// will read.
    ///
    /// # Errors
    /// As [`Compressor::encode`]; nothing is then sent nor forgotten.
    ///
    /// # Panics
    /// If there are not as many values as at first.
    #[track_caller]
    pub fn encode<C: Compressor<S> + ?Sized>(
        &mut self,
        values: &[S],
        compressor: &mut C,
        random: &mut Random,
        target: &mut Vec<u8>,
    ) -> Result<&[S], CompressError> {
        let Self { error, pending } = self;
        assert_eq!(values.len(), error.len(), "values of a vector whose losses are kept");
        for ((pending, &error), &value) in pending.iter_mut().zip(error.iter()).zip(values) {
            *pending = value + error;
        }
        let start = target.len();
        compressor.encode(pending, random, target)?;
        // `error` holds what is read while the old one is not needed any more.
        compressor.decode(&target[start..], error)?;
        for (pending, error) in pending.iter_mut().zip(error.iter_mut()) {
            let sent = *error;
            *error = *pending - sent;
            *pending = sent;
        }
        Ok(pending)
    }
}
