#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod backoff;
pub mod book;
mod buffer;
pub mod certificates;
mod channel;
mod connection;
mod endpoint;
pub mod frame;
pub mod hello;
pub mod incident;
mod link;
mod options;
pub mod parley;
pub mod reception;
mod resolver;
pub mod tls;

pub use endpoint::{TcpEndpoint, Waker};
pub use options::Options;
