//! How nodes stay together: the laws of what policies are made of.

mod ada;
mod compressors;
mod dynamic;
mod gossip;
mod hierarchical;
mod large;
mod lengths;
mod losses;
mod measured;
mod mixed;
mod mixing;
mod neighbours;
mod outer;
mod partial;
mod plain;
mod push;
mod pushers;
mod restored;
mod sketches;
mod steps;
