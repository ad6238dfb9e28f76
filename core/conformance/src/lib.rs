//! The laws a kronfleet backend, transport, policy or preconditioner obeys, as property-based tests, and mutants that break them.

pub mod transport;
pub mod violation;
