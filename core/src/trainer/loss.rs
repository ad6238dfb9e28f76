//! The loss of a step, which the host reads at the next.

use crate::backend::Backend;
use crate::scalar::Scalar;

/// Loss and right answers of a step.
pub(super) enum Loss<B: Backend> {
    /// On their way from the device.
    Ticket(B::Download),
    /// Known already, and taken in no earlier for that.
    Known([B::Scalar; 2]),
}

impl<B: Backend> Loss<B> {
    /// Waits for them.
    pub(super) fn read(self, backend: &mut B) -> Result<[B::Scalar; 2], B::Error> {
        match self {
            Self::Ticket(ticket) => {
                let mut values = [B::Scalar::of(0.0); 2];
                backend.finish(ticket, &mut values)?;
                Ok(values)
            }
            Self::Known(values) => Ok(values),
        }
    }
}
