//! Nodes as processes that talk over TCP, on this machine or on many.

use anyhow::Result;
use kronfleet_examples::run::processes::main_with;
use kronfleet_examples::run::tcp::{open, prepare};
use std::process::ExitCode;

fn main() -> Result<ExitCode> {
    main_with(
        "tcp",
        "Train a network among processes that talk over TCP, and die and come back.\n\n\
         Without arguments: 4 processes on this machine, LeNet-5, K-FAC, embedded Fashion-MNIST; one process is killed on \
         the way and started again. The run folder holds metrics.csv, report.md and a plot. With --node, or under \
         torchrun, Slurm or Kubernetes, it is one node among many machines: see docs/running.md.",
        prepare,
        open,
    )
}
