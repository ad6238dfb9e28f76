//! Who preconditions what: the published ways of dividing K-FAC's work, counted and measured.

mod measured;
mod modelled;
mod shapes;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use kronfleet_core::backend::{Backend, Gemm, Invert};
use kronfleet_core::matrix::Region;
use kronfleet_core::placement::Machine;
use kronfleet_examples::report::Folder;
use kronfleet_examples::settings::{fraction_or_one, positive};
use kronfleet_faer::Faer;
use measured::Course;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

/// Divide the work of one preconditioned step among members, in every published way.
///
/// Without --measure, operations, bytes and memory of one update (statistics, decompositions, directions) are counted, and
/// times follow from rates that are measured on this machine first and from a link's figures. With --measure, members in
/// threads of this process train on random data over a transport.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  placements --models resnet50 --members 8,16,64 --link 100gb
  placements --measure shm --models resnet20 --members 2 --batch 32"
)]
struct Arguments {
    /// Networks: resnet50, resnet152, densenet201, vgg16, transformer by their shapes, or models of the trainers
    #[arg(long, value_delimiter = ',', default_value = "resnet50,resnet152,densenet201,vgg16,transformer")]
    models: Vec<String>,
    /// Numbers of members [default: 8,16,64; measured 2]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=4096))]
    members: Vec<u16>,
    /// Samples of each member's batch
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// The link of each member
    #[arg(long, value_enum, default_value_t = Link::TenGigabit)]
    link: Link,
    /// KAISA's share of members that hold a layer's decompositions
    #[arg(long, default_value_t = 0.5, value_parser = fraction_or_one, value_name = "SHARE")]
    share: f64,
    /// Operations per second of products [default: measured]
    #[arg(long, value_parser = positive, value_name = "RATE")]
    products: Option<f64>,
    /// Operations per second of inversions [default: measured]
    #[arg(long, value_parser = positive, value_name = "RATE")]
    decompositions: Option<f64>,
    /// Measure over this transport instead
    #[arg(long, value_enum)]
    measure: Option<Medium>,
    /// Measured: steps between refreshes of decompositions
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    inverse_every: u64,
    /// Measured: whole periods to time
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    periods: u64,
    /// Print one line of JSON for every placement instead of tables
    #[arg(long)]
    json: bool,
    /// The folder for placements.md [default: runs/KIND-TIME]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// What members talk through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Medium {
    /// Shared memory
    Shm,
    /// TCP on this machine
    Tcp,
}

/// A link between two members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Link {
    /// 10 Gb/s, 20 us
    #[value(name = "10gbe")]
    TenGigabit,
    /// 100 Gb/s, 2 us
    #[value(name = "100gb")]
    HundredGigabit,
    /// 100 Mb/s, 30 ms
    Wan,
}

impl Link {
    /// Bytes per second, and seconds of latency.
    fn figures(self) -> (f64, f64) {
        match self {
            Self::TenGigabit => (1.25e9, 20e-6),
            Self::HundredGigabit => (12.5e9, 2e-6),
            Self::Wan => (12.5e6, 30e-3),
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (products, decompositions) = match (arguments.products, arguments.decompositions) {
        (Some(products), Some(decompositions)) => (products, decompositions),
        (products, decompositions) => {
            let measured = rates()?;
            (products.unwrap_or(measured.0), decompositions.unwrap_or(measured.1))
        }
    };
    let (bandwidth, latency) = arguments.link.figures();
    let machine = Machine { products, decompositions, bandwidth, latency, value: 4.0 };
    let text = match arguments.measure {
        Some(medium) => measured(&arguments, medium, machine)?,
        None => modelled(&arguments, machine)?,
    };
    if !arguments.json {
        let folder = Folder::create(arguments.output.as_deref(), "placements")?;
        folder.write("placements.md", &text)?;
        println!("report: {}", folder.path().display());
    }
    Ok(())
}

fn modelled(arguments: &Arguments, machine: Machine) -> Result<String> {
    let members = if arguments.members.is_empty() { &[8, 16, 64][..] } else { &arguments.members };
    let mut text = format!(
        "Products {:.1} GFLOP/s, inversions {:.1} GFLOP/s, links {:.2} Gb/s and {:.0} us, batches of {}; one update.\n",
        machine.products / 1e9,
        machine.decompositions / 1e9,
        machine.bandwidth * 8e-9,
        machine.latency * 1e6,
        arguments.batch
    );
    show(arguments, &text);
    for model in &arguments.models {
        for &members in members {
            let members = usize::from(members);
            let lines = modelled::lines(model, members, arguments.batch as usize, arguments.share, machine)?;
            let table = modelled::table(model, members, &lines)?;
            show(arguments, &table);
            writeln!(text, "\n{table}")?;
            if arguments.json {
                for line in &lines {
                    println!("{}", serde_json::to_string(line)?);
                }
            }
        }
    }
    Ok(text)
}

fn measured(arguments: &Arguments, medium: Medium, machine: Machine) -> Result<String> {
    let members = if arguments.members.is_empty() { &[2][..] } else { &arguments.members };
    let mut text = String::new();
    for model in &arguments.models {
        for &members in members {
            if members > 64 {
                bail!(
                    "--members {members}: 64 threads are the most that can be measured; leave out --measure to count"
                );
            }
            let course = Course {
                medium,
                model: model.clone(),
                members: members.into(),
                batch: arguments.batch as usize,
                inverse_every: arguments.inverse_every,
                periods: arguments.periods,
                machine,
            };
            let shown = |line: &measured::Measured| {
                if arguments.json {
                    println!("{}", serde_json::to_string(line).expect("numbers and names"));
                } else {
                    eprintln!("{model}, {members} members, {}: {:.1} ms", line.placement, line.milliseconds);
                }
            };
            let lines = measured::measure(&course, arguments.share, shown)?;
            let title = format!("{model}, {members} members, {medium:?}, batches of {}", arguments.batch);
            let table = format!("{title}\n\n{}", measured::table(&lines));
            show(arguments, &table);
            writeln!(text, "\n{table}")?;
        }
    }
    Ok(text)
}

fn show(arguments: &Arguments, text: &str) {
    if !arguments.json {
        println!("{text}");
    }
}

/// Edge of the matrices whose product and inverse say what this machine can do.
const EDGE: usize = 512;

/// Operations per second of products, and of inversions by Cholesky counted as `n³`, on one thread: the best of several.
fn rates() -> Result<(f64, f64)> {
    let mut backend = Faer::<f32>::new(1);
    let all = Region::matrix(0, EDGE, EDGE);
    let product = Gemm::product(all, all, all);
    let (mut a, mut b) = (backend.allocate(EDGE * EDGE)?, backend.allocate(EDGE * EDGE)?);
    let mut c = backend.allocate(EDGE * EDGE)?;
    backend.fill(0.25, all, &mut b)?;
    let (mut products, mut inversions) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..10 {
        let start = Instant::now();
        backend.gemm(&[product], &b, &b, &mut c)?;
        products = products.min(start.elapsed().as_secs_f64());
        backend.fill(0.0, all, &mut a)?;
        backend.fill(2.0, all.diagonal(), &mut a)?;
        let start = Instant::now();
        let verdict = backend.cholesky(&[all], &mut a)?;
        backend.cholesky_invert(&[Invert { factor: all, out: all }], &a, &mut c)?;
        backend.verdict(verdict, &mut [false])?;
        inversions = inversions.min(start.elapsed().as_secs_f64());
    }
    let cube = (EDGE as f64).powi(3);
    Ok((product.flops() as f64 / products, cube / inversions))
}
