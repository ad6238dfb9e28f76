//! What time it is, for whoever makes steps.

use kronfleet_core::participant::Clock;
use kronfleet_core::time::Instant;
use std::sync::Arc;

/// A clock that counts from now.
pub(super) fn clock() -> Clock {
    let began = std::time::Instant::now();
    Arc::new(move || Instant::ORIGIN + began.elapsed())
}
