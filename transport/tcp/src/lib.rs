#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod backoff;
pub mod book;
mod buffer;
pub mod certificates;
mod channel;
mod connection;
mod endpoint;
mod exercise;
pub mod frame;
pub mod hello;
pub mod incident;
pub mod launch;
mod link;
mod options;
pub mod parley;
pub mod reception;
mod resolver;
pub mod tls;

pub use endpoint::{TcpEndpoint, Waker};
pub use exercise::{exercise_frame, exercise_handshake};
pub use options::Options;
