#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod endpoint;
mod launch;
mod mailbox;
mod pump;
mod site;

pub use endpoint::{MpiEndpoint, Waker};
pub use launch::{Seat, SeatError};
pub use site::{Site, SiteError};
