//! The laws of the data side: formats, sources, partitions, batches.

mod batches;
mod formats;
mod partitions;
mod sources;

use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("a Vec takes every byte");
    encoder.finish().expect("a Vec takes every byte")
}

/// A file of CIFAR-10 whose records have these labels; each byte of an image tells its place.
fn cifar_file(labels: &[u8]) -> Vec<u8> {
    let image = |label: u8| (0..3072_u32).map(move |place| (place % 251) as u8 ^ label);
    labels.iter().flat_map(|&label| std::iter::once(label).chain(image(label))).collect()
}
