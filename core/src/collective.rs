//! Sums over nodes, as state machines over point-to-point messages.
//!
//! A collective neither sends nor receives: it names what is to be sent and takes in what came. The
//! [`cluster`](crate::cluster) carries its messages and decides whether its result counts.
//!
//! [`Reduction`] averages what everybody has, [`Broadcast`] gives everybody what one has; [`Pattern`] says over whom the
//! values travel, [`Encoding`] how they stand on the wire; parameters can be told as compressed differences, by blocks of
//! [`BLOCK`] values.

mod broadcast;
pub(crate) mod differences;
mod encoding;
mod pattern;
mod reduction;
mod sum;

pub use broadcast::{Broadcast, Delivery};
pub use differences::BLOCK;
pub use encoding::Encoding;
pub use pattern::Pattern;
pub use reduction::{Fault, Load, Parcel, Piece, Plan, Reduction, pieces};
