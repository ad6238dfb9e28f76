//! Makes the embedded data set anew from the full Fashion-MNIST:
//! `cargo run --release --bin embed -- [--source DIRECTORY] [--target DIRECTORY]`.

use anyhow::Context as _;
use clap::Parser;
use flate2::{Compression, GzBuilder};
use kronfleet_examples::data::embedded::{FILES, SEED, TEST_PER_CLASS, TRAIN_PER_CLASS};
use kronfleet_examples::data::idx;
use kronfleet_examples::data::set::DataSet;
use kronfleet_examples::data::source::Source;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

/// Makes the embedded data set anew from the full Fashion-MNIST.
#[derive(Parser)]
struct Arguments {
    /// The full set: `fashion-mnist` where the operating system's package puts it, or a directory.
    #[arg(long, default_value = "fashion-mnist")]
    source: Source,
    /// Where the four files go.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/data"))]
    target: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let data = arguments.source.load()?;
    let subset = |set: &DataSet, per_class| set.select(&set.stratified(per_class, SEED));
    let (train, test) = (subset(&data.train, TRAIN_PER_CLASS), subset(&data.test, TEST_PER_CLASS));
    let images = |set: &DataSet| idx::write(&[set.len(), set.shape().height, set.shape().width], set.pixels());
    let labels = |set: &DataSet| idx::write(&[set.len()], set.labels());
    let files = [images(&train), labels(&train), images(&test), labels(&test)];
    for ((name, _), file) in FILES.iter().zip(files) {
        let path = arguments.target.join(name);
        // Neither name nor time in the header: the same images give the same bytes.
        let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
        encoder.write_all(&file)?;
        let bytes = encoder.finish()?;
        fs::write(&path, &bytes)
            .with_context(|| format!("cannot write {}: choose another --target", path.display()))?;
        println!("{}: {} bytes from {}", path.display(), bytes.len(), file.len());
    }
    Ok(())
}
