//! The studies of the documentation, run again: figures of papers beside those of this program.

use anyhow::Result;
use clap::Parser;
use kronfleet_examples::run::stop_on_signal;
use kronfleet_examples::study::{Settings, reproduce};

fn main() -> Result<()> {
    reproduce(&Settings::parse(), &stop_on_signal()?)
}
