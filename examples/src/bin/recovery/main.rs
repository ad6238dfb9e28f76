//! Times what a fleet of real processes does about faults, beside what the system itself needs.
//!
//! `cargo run --release --bin recovery`

mod catch_up;
mod death;
mod floor;
mod report;
mod silence;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use kronfleet_examples::settings::span;
use kronfleet_examples::trial::{Observed, fetch, serve};
use report::Line;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Times what a fleet of real processes does about faults, beside what the system itself needs.
///
/// Killed: from SIGKILL until the last survivor has recorded the loss. Silent: the same from SIGSTOP, which must be within the
/// budget. Caught up: how long a node that was killed needs for the fleet's state over a slow line (as root, in network
/// namespaces), and how long the others wait meanwhile. The trainers `shm` and `tcp` have to be built, too.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// What carries the frames; both unless given
    #[arg(long, value_enum)]
    transport: Option<Medium>,
    /// How many processes train
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=64))]
    processes: u32,
    /// How many are killed
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    kills: u32,
    /// How long a lost node may stall the others
    #[arg(long, default_value = "2s", value_name = "SPAN", value_parser = span)]
    stall_budget: Duration,
    /// The rate of the slow line, as `tc` writes it
    #[arg(long, default_value = "40mbit", value_name = "RATE")]
    rate: String,
    /// Print one line of JSON per figure instead of a table
    #[arg(long)]
    json: bool,
    /// Give so many bytes to the first that dials the address
    #[arg(long, hide = true, num_args = 2, value_names = ["ADDRESS", "BYTES"])]
    serve: Option<Vec<String>>,
    /// Take all bytes that the address gives, and say how long that took
    #[arg(long, hide = true)]
    fetch: Option<String>,
    /// Hold a connection to the address
    #[arg(long, hide = true)]
    hold: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Medium {
    Shm,
    Tcp,
}

impl Medium {
    fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Tcp => "tcp",
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some([address, bytes]) = arguments.serve.as_deref() {
        return serve(address, bytes.parse()?);
    }
    if let Some(address) = &arguments.fetch {
        let (took, bytes) = fetch(address)?;
        println!("{} {bytes}", took.as_secs_f64());
        return Ok(());
    }
    if let Some(address) = &arguments.hold {
        return floor::hold(address);
    }
    let Arguments { processes, kills, stall_budget: budget, .. } = arguments;
    let mut lines: Vec<Line> = Vec::new();
    for medium in [Medium::Shm, Medium::Tcp] {
        if arguments.transport.is_some_and(|only| only != medium) {
            continue;
        }
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let fleet = start(medium, processes, budget, folder.path())?;
        lines.push(death::measure(&fleet, medium, processes, kills)?);
        lines.push(silence::measure(&fleet, medium, processes, budget)?);
        fleet.end()?;
    }
    if arguments.transport != Some(Medium::Shm) {
        match catch_up::network(&arguments.rate) {
            Ok(network) => lines.push(catch_up::measure(&network, budget)?),
            Err(error) => eprintln!("skipped: catching up over a slow line: {error:#} (it takes root, ip and tc)"),
        }
    }
    report::print(&lines, arguments.json);
    Ok(())
}

/// A program that was built beside this one.
fn sibling(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe().context("cannot find this program")?.with_file_name(name);
    ensure!(path.exists(), "there is no {}: build it, too: cargo build --release --bins", path.display());
    Ok(path)
}

/// A fleet that trains until it is told to leave.
fn start(medium: Medium, processes: u32, budget: Duration, folder: &Path) -> Result<Observed> {
    let flags = [
        format!("--nodes={processes}"),
        format!("--stall-budget={}ms", budget.as_millis()),
        format!("--output={}", folder.display()),
    ];
    let endless =
        ["--iterations=1000000000", "--evaluate-every=1000000000", "--kills=0", "--away=1ms", "--quiet", "--json"];
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(endless).collect();
    Observed::start(&sibling(medium.name())?, &flags, folder.join("events"))
}
