//! Times all-reduces between processes of this machine, beside those of others.
//!
//! `cargo run --release --bin allreduce -- --transport shm --processes 2`

mod floor;
mod group;
mod launch;
mod measurement;
mod member;
mod peers;
mod place;
mod report;
mod training;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use measurement::{Measurements, quantile};
use place::{Place, Training};
use report::{Floors, Report};
use std::path::PathBuf;

/// Times the all-reduce between processes of this machine, beside those of Open MPI and Gloo where they are installed.
///
/// The contestants take turns, pass after pass. Each repetition begins with a barrier and counts as long as the slowest
/// process takes. Every process has a core of its own, if there are as many, as mpirun has it. Floors: the rate at which all processes at once copy so many bytes from one buffer to another, and, for
/// TCP, at which both ends of a loopback connection send and receive at once.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  allreduce --transport shm
  allreduce --transport tcp --tls --sizes 4194304
  allreduce --transport lossy --processes 4 --json"
)]
pub(crate) struct Arguments {
    /// What carries the frames
    #[arg(long, value_enum)]
    transport: Medium,
    /// How many processes take part (threads, for lossy)
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=64))]
    processes: u32,
    /// Encrypt, with certificates made for the purpose; what it costs is measured (tcp)
    #[arg(long)]
    tls: bool,
    /// Bytes of the vectors, in single precision
    #[arg(long, value_delimiter = ',', value_name = "BYTES,…", default_values_t = [4 << 10, 256 << 10, 4 << 20, 40 << 20])]
    sizes: Vec<usize>,
    /// How often every contestant has its turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    passes: u32,
    /// The Python that has torch, for Gloo; also from the environment variable KRONFLEET_PYTHON
    #[arg(long, default_value_os_t = default_python(), value_name = "PATH")]
    python: PathBuf,
    /// Train LeNet-5 for so many iterations instead, with committed rounds and with the bare collective, and print what
    /// fault tolerance costs while nobody dies (shm, tcp, mpi)
    #[arg(long, value_name = "N", conflicts_with_all = ["sizes", "no_peers"])]
    training: Option<u64>,
    /// Iterations of that from one average to the next
    #[arg(long, default_value_t = 5, value_name = "N", requires = "training", value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// Leave out MPI and Gloo
    #[arg(long)]
    no_peers: bool,
    /// Print one line of JSON per size and contestant instead of a table
    #[arg(long)]
    json: bool,
    /// What a process started by this program is told
    #[arg(long, hide = true, value_name = "JSON")]
    place: Option<String>,
}

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Medium {
    /// Shared memory between processes
    Shm,
    /// TCP over loopback between processes
    Tcp,
    /// In-process links without losses, between threads
    Lossy,
    /// The processes of an MPI job (built with --features mpi)
    #[cfg(feature = "mpi")]
    Mpi,
}

fn default_python() -> PathBuf {
    std::env::var_os("KRONFLEET_PYTHON").unwrap_or_else(|| "python3".into()).into()
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(place) = &arguments.place {
        let place: Place = serde_json::from_str(place)?;
        return member::serve(&place);
    }
    ensure!(
        !arguments.tls || arguments.transport == Medium::Tcp,
        "--tls has no effect but with --transport tcp: leave it out"
    );
    for &bytes in &arguments.sizes {
        ensure!(
            bytes >= 4 && bytes % 4 == 0,
            "{bytes} bytes are no vector of single-precision numbers: give a multiple of 4"
        );
    }
    if let Some(iterations) = arguments.training {
        ensure!(
            arguments.transport != Medium::Lossy,
            "--training takes processes: choose --transport shm or tcp; `lossy --driver threads` trains in threads"
        );
        return overhead(&arguments, iterations);
    }
    let mut measured = Measurements::default();
    let mut floors = Floors::default();
    for _ in 0..arguments.passes {
        pass(&arguments, &mut measured, &mut floors)?;
    }
    let report = Report::new(&arguments, &measured, &floors);
    if arguments.json {
        return report.print_lines();
    }
    report.print_table();
    Ok(())
}

/// Trains in both ways by turns, and prints how long an iteration takes.
fn overhead(arguments: &Arguments, iterations: u64) -> Result<()> {
    let interval = arguments.interval;
    let mut milliseconds = [Vec::new(), Vec::new()];
    for _ in 0..arguments.passes {
        for (committed, milliseconds) in [false, true].into_iter().zip(&mut milliseconds) {
            let seconds = launch::training(arguments, Training { iterations, interval, committed })?;
            milliseconds.push(1e3 * seconds);
        }
    }
    let [bare, committed] = milliseconds.map(|all| quantile(&all, 0.5));
    let overhead = committed / bare - 1.0;
    if arguments.json {
        let line = serde_json::json!({
            "transport": arguments.transport, "processes": arguments.processes, "iterations": iterations,
            "interval": interval, "bare_ms": bare, "committed_ms": committed, "overhead": overhead,
        });
        println!("{line}");
    } else {
        println!(
            "LeNet-5, an average every {interval} of {iterations} iterations, {} processes, medians of {} runs:\n\
             {bare:.3} ms an iteration with the bare collective, {committed:.3} ms with committed rounds: {:+.1} %",
            arguments.processes,
            arguments.passes,
            100.0 * overhead
        );
    }
    Ok(())
}

/// Every contestant's turn.
fn pass(arguments: &Arguments, measured: &mut Measurements, floors: &mut Floors) -> Result<()> {
    launch::collective(arguments, arguments.tls, "kronfleet", measured, floors)?;
    if arguments.tls {
        launch::collective(arguments, false, "kronfleet without TLS", measured, floors)?;
    }
    if !arguments.no_peers {
        peers::mpi(arguments, measured);
        peers::gloo(arguments, measured);
    }
    if arguments.transport == Medium::Tcp {
        for &bytes in &arguments.sizes {
            floors.loopback(bytes, floor::loopback(bytes)?);
        }
    }
    launch::rounds(arguments, measured)
}
