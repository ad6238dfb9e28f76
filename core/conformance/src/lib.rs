//! The laws a kronfleet backend or transport obeys, as property-based tests, and mutants that break them; whole training
//! steps compared between backends; the safety invariants of a run.
//!
//! # For implementers
//! Add one line to `tests/conformance.rs` of a backend's crate:
//!
//! ```
//! kronfleet_conformance::backend_laws!(make: || kronfleet_conformance::minimal::Minimal::<f32>::new());
//! ```
//!
//! Begin with [`minimal`], a whole backend in some 200 lines, written to be copied.
#![forbid(unsafe_code)]

pub mod backend;
pub mod check;
pub mod invariants;
pub mod minimal;
pub mod required;
pub mod step;
pub mod transport;
pub mod violation;
