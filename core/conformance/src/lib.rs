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
//!
//! Programs that want no more than [`minimal`] and the [`invariants`] leave out the feature `laws`, and proptest with it.
#![forbid(unsafe_code)]

/// The code of the page on backends, as it stands there.
#[cfg(all(doctest, feature = "laws"))]
#[doc = include_str!("../../../docs/backend.md")]
pub struct Page;

/// The code of the page on transports.
#[cfg(all(doctest, feature = "laws"))]
#[doc = include_str!("../../../docs/transport.md")]
pub struct TransportPage;

#[cfg(feature = "laws")]
pub mod backend;
#[cfg(feature = "laws")]
pub mod check;
#[cfg(feature = "laws")]
pub mod compressor;
#[cfg(feature = "laws")]
pub mod count;
pub mod invariants;
pub mod minimal;
#[cfg(feature = "laws")]
pub mod partial;
#[cfg(feature = "laws")]
pub mod required;
#[cfg(feature = "laws")]
pub mod step;
#[cfg(feature = "laws")]
pub mod transport;
pub mod violation;
