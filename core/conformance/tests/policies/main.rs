//! How nodes stay together: the laws of what policies are made of.

mod compressors;
mod dynamic;
mod gossip;
mod hierarchical;
mod measured;
mod neighbours;
mod outer;
mod push;
mod steps;
