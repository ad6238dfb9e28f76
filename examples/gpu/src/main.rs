//! Finds every GPU, tries all laws of backends on it, measures it beside the CPU, and writes one report.
//!
//! `cargo run --release --bin gpu`

mod device;
mod laws;
mod measurement;
mod peak;
mod report;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use device::{Found, find};
use kronfleet_core::backend::Backend;
use kronfleet_cuda::Cuda;
use kronfleet_faer::Faer;
use kronfleet_wgpu::Wgpu;
use laws::{Outcome, Tried};
use measurement::{Effort, Figures, Load};
use report::Section;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Finds every device that wgpu or CUDA can compute on, tries all laws of backends on it, and measures matrix products,
/// factors, inverses and K-FAC steps of LeNet-5 and ResNet-20 beside the CPU's. What comes out is one Markdown file, made
/// to be attached to an issue: it names the devices, their drivers and this program's version, and nothing else of the
/// machine.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Examples:
  gpu                              everything, on every device
  gpu --backend cuda               CUDA devices alone
  gpu --device 'RTX 4060' --laws 256
  gpu --quick                      small sizes: minutes on a CPU that stands in for a GPU

Ends with 1 where there is no device, or a law does not hold on one."
)]
struct Arguments {
    /// Look for devices of this backend only
    #[arg(long, value_enum)]
    backend: Option<Kind>,
    /// Only devices whose name contains this text, letters' case aside
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Cases that each law is tried on
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    laws: u32,
    /// Small sizes and few repetitions: to see that everything works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Where the report is written
    #[arg(long, default_value = "gpu-report.md", value_name = "FILE")]
    output: PathBuf,
}

/// The backends that compute on GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Any GPU with a Vulkan driver.
    Wgpu,
    /// NVIDIA GPUs.
    Cuda,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (devices, missing) = find(arguments.backend, arguments.device.as_deref());
    for reason in &missing {
        eprintln!("{reason}");
    }
    if devices.is_empty() {
        bail!("there is no device to try; what is missing stands above");
    }
    let effort = if arguments.quick { Effort::QUICK } else { Effort::FULL };
    let mut sections = Vec::new();
    for found in devices {
        eprintln!("{found}");
        let (tried, mut figures) = match &found {
            Found::Wgpu { device, .. } => examine(&|| Wgpu::new(device), arguments.laws, &effort),
            Found::Cuda { options, .. } => examine(&|| Cuda::new(options), arguments.laws, &effort),
        };
        let loads: Vec<Load> = figures.steps.iter().flatten().map(|step| step.load).collect();
        match found.half() {
            None => {}
            Some(Err(error)) => figures.half_steps.push(Err(error.into())),
            Some(Ok(half)) => {
                eprintln!("  in half precision:");
                figures.half_steps = measurement::steps(&|| Wgpu::new(&half), &effort, &loads);
            }
        }
        sections.push(Section { found, tried, figures });
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    eprintln!("the CPU, {threads} threads");
    // What every device was measured with.
    let steps = sections.iter().flat_map(|section| section.figures.steps.iter().flatten());
    let loads: BTreeSet<Load> = steps.map(|step| step.load).collect();
    let loads: Vec<Load> = loads.into_iter().collect();
    let cpu = measurement::measure(&|| Ok::<_, anyhow::Error>(Faer::<f32>::new(threads)), &effort, &loads);
    let text = report::write(&sections, (threads, &cpu), &effort, &missing);
    std::fs::write(&arguments.output, text)
        .with_context(|| format!("cannot write the report {}; choose another --output", arguments.output.display()))?;
    println!("report: {}", arguments.output.display());
    let broken: usize = sections.iter().map(|section| section.tried.broken()).sum();
    if broken > 0 {
        bail!("{broken} laws do not hold: please attach the report to an issue");
    }
    Ok(())
}

/// Tries and measures one device.
fn examine<B, E>(make: &dyn Fn() -> Result<B, E>, cases: u32, effort: &Effort) -> (Tried, Figures)
where
    B: Backend<Scalar = f32, Verdict: Send, Download: Send> + Send,
    E: Into<anyhow::Error>,
{
    let tried = laws::try_all(make, cases);
    // What a lost device would be measured at says nothing.
    let lost = tried.outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Unmade(_)));
    if lost {
        return (tried, Figures::default());
    }
    let figures = measurement::measure(make, effort, &[]);
    let lenet = figures.steps.iter().flatten().map(|step| step.load).find(|(name, _)| *name == "lenet5");
    let overrides = lenet.map(|load| measurement::overrides(make, effort, load)).unwrap_or_default();
    (tried, Figures { overrides, ..figures })
}
