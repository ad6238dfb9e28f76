//! The data set inside the program: 10,000 + 2,000 images of Fashion-MNIST, equally many of each class.
//!
//! `data/README.md` holds its licence and says how it was made.
//!
//! Source: H. Xiao, K. Rasul, R. Vollgraf, *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
//! Learning Algorithms*, 2017.

use kronfleet_core::seed::Seed;

/// Training images of each class.
pub const TRAIN_PER_CLASS: usize = 1_000;
/// Test images of each class.
pub const TEST_PER_CLASS: usize = 200;
/// From where the images were drawn, by [`DataSet::stratified`](crate::data::set::DataSet::stratified).
pub const SEED: Seed = Seed(0x4b52_4f4e);

/// The compressed IDX files, by the names that [`Source`](crate::data::source::Source) finds in a directory too.
pub const FILES: [(&str, &[u8]); 4] = [
    ("train-images-idx3-ubyte.gz", include_bytes!("../../data/train-images-idx3-ubyte.gz")),
    ("train-labels-idx1-ubyte.gz", include_bytes!("../../data/train-labels-idx1-ubyte.gz")),
    ("t10k-images-idx3-ubyte.gz", include_bytes!("../../data/t10k-images-idx3-ubyte.gz")),
    ("t10k-labels-idx1-ubyte.gz", include_bytes!("../../data/t10k-labels-idx1-ubyte.gz")),
];
