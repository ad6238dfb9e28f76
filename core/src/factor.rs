//! Running averages of curvature statistics.
//!
//! The statistics of one batch lie in one flat buffer, their running averages in another of the same layout:
//! whatever is done to all factors of a network is one call of the backend over a table of regions.
//!
//! # For users
//! [`KroneckerFactors`] holds `A ≈ Σ a aᵀ / N` and `G ≈ Σ D Dᵀ / (N·S)` of every block (Grosse & Martens 2016,
//! arXiv 1602.01407, in the exact form, so that one damping means the same on every layer). What travels between
//! nodes is the pair *(values, weights)*: see [`RunningMeans`].
//!
//! # For implementers
//! Statistics that are not finite are refused, group by group, by a flag that the device computes and the device
//! reads; the host is not asked. Nothing is ever added to a running average but statistics: damping goes into copies.

mod kronecker;
mod part;
mod running;

pub use kronecker::KroneckerFactors;
pub(crate) use kronecker::{Layout, Side, lay_out};
pub(crate) use part::{Part, parts};
pub use running::RunningMeans;
