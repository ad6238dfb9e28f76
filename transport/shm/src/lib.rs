#![doc = include_str!("../README.md")]

mod bell;
mod endpoint;
mod error;
pub mod header;
mod layout;
mod life;
#[expect(unsafe_code, reason = "shared memory is reached through raw pointers; every block says why it is sound")]
mod memory;
mod record;
#[expect(unsafe_code, reason = "who may touch which bytes of a ring is the protocol's business, not the compiler's")]
mod ring;
#[expect(unsafe_code, reason = "who moves in under the lock is a ring's only producer or consumer")]
mod segment;

pub use endpoint::{PeerStatus, ShmEndpoint, Waker};
pub use error::OpenError;
pub use life::Process;
pub use ring::exercise_ring;
pub use segment::{Options, sweep};
