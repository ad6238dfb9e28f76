//! Where training and evaluation get their data.

use crate::scalar::Scalar;

/// An endless stream of training batches.
pub trait Batches<S: Scalar>: Send {
    /// Writes the next `labels.len()` samples: `x` is `channels × (samples · height · width)`, channels fastest, and
    /// every label the number of a class.
    fn fill(&mut self, x: &mut [S], labels: &mut [u32]);

    /// Where the stream is: what a checkpoint keeps.
    fn position(&self) -> u64 {
        0
    }

    /// Goes on from where [`position`](Self::position) was taken.
    fn restore(&mut self, position: u64) {
        let _ = position;
    }
}

/// A finite set of labelled examples.
pub trait Examples<S: Scalar> {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the examples from `first` on, `labels.len()` of them, in the layout of [`Batches::fill`].
    fn read(&self, first: usize, x: &mut [S], labels: &mut [u32]);
}
