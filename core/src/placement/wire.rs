//! How members reach each other within a step.

use super::{Letter, Letters, Route};
use crate::transport::TransportError;

/// A member's way to the others, for the exchanges of a [`Plan`](super::Plan).
///
/// Every member calls, in the same order, what it has a part in. A call returns when the member's part is done; waiting for
/// others is what steps that are shared cost, and the only place where they wait.
pub trait Wire<S>: Send {
    /// Makes `values` the mean of everybody's, `Σ wᵢ xᵢ / Σ wᵢ`, where member i counts the samples of its batches: at
    /// member `to` alone, or everywhere. Everybody has a part, and those who do not get the mean keep their values.
    ///
    /// Whoever gets it gets the same bits.
    ///
    /// # Errors
    /// If a member cannot be reached; the exchange came to nothing.
    fn mean(&mut self, to: Option<usize>, values: &mut [S]) -> Result<(), TransportError>;

    /// Makes `values` what member `from` has, at the members `to`; `from` and these have a part.
    ///
    /// # Errors
    /// If a member cannot be reached; the exchange came to nothing.
    fn broadcast(&mut self, from: usize, to: &[usize], values: &mut [S]) -> Result<(), TransportError>;

    /// Carries a letter.
    ///
    /// # Errors
    /// If a member cannot be reached; the exchange came to nothing.
    fn carry(&mut self, letter: &mut Letter<S>) -> Result<(), TransportError> {
        match &letter.route {
            Route::Mean { to } => self.mean(*to, &mut letter.values),
            Route::Broadcast { from, to } => self.broadcast(*from, to, &mut letter.values),
        }
    }

    /// Begins to carry a letter while its sender goes on computing. Gives it back answered if that is done at once, as a wire
    /// does that can do no better; otherwise [`settle`](Self::settle) gives it.
    ///
    /// # Errors
    /// If a member cannot be reached; the exchange came to nothing.
    fn start(&mut self, mut letter: Letter<S>) -> Result<Option<Letter<S>>, TransportError> {
        self.carry(&mut letter)?;
        Ok(Some(letter))
    }

    /// Goes on with what was started, without waiting.
    ///
    /// # Errors
    /// If a member cannot be reached; what was started came to nothing.
    fn advance(&mut self) -> Result<(), TransportError> {
        Ok(())
    }

    /// Waits for all that was started, and gives those letters in the order in which they were.
    ///
    /// # Errors
    /// If a member cannot be reached; what was started came to nothing.
    fn settle(&mut self) -> Result<Letters<S>, TransportError> {
        Ok(Letters::new())
    }

    /// Forgets all that was started and not settled: the step it belongs to comes to nothing.
    fn give_up(&mut self) {}
}
