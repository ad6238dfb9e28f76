//! Compares a network's step with golden values from another implementation, on both CPU backends.
//!
//! `cargo run --release --bin golden -- CASE.safetensors --model MODEL.toml`

use anyhow::Context;
use clap::Parser;
use kronfleet_examples::golden::{Case, Deviation, GROUPS, on_faer, on_nalgebra};
use kronfleet_examples::model::Model;
use kronfleet_examples::model::tensors::Tensors;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// Compares forward pass, gradients, Kronecker factors and preconditioned gradients with golden values, in double
/// precision, and prints the worst relative deviation per group.
#[derive(Parser)]
struct Arguments {
    /// Parameters, one batch and what should come of it (docs/models.md names the tensors).
    case: PathBuf,
    /// The network: a TOML file, or the name of an architecture.
    #[arg(long)]
    model: String,
    /// The largest relative deviation that passes.
    #[arg(long, default_value_t = 1e-9)]
    tolerance: f64,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let tensors = Tensors::read(&arguments.case)?;
    let (extent, classes) = Case::shape(&tensors)?;
    let model = Model::choose(&arguments.model, extent, classes)?;
    let case = Case::new(tensors, model.input)?;
    let faer = on_faer(&model, &case).context("on faer")?;
    let nalgebra = on_nalgebra(&model, &case).context("on nalgebra")?;
    Ok(report(&[("faer", faer), ("nalgebra", nalgebra)], arguments.tolerance))
}

fn report(results: &[(&str, BTreeMap<&str, Deviation>)], tolerance: f64) -> ExitCode {
    println!("{:<15} {:<9} {:>8} {:>11}  worst tensor", "group", "backend", "tensors", "deviation");
    let (mut compared, mut failed) = (0, 0);
    for group in GROUPS {
        for (backend, deviations) in results {
            let deviation = &deviations[group];
            if deviation.compared == 0 {
                println!("{group:<15} {backend:<9} {:>8} {:>11}", "none", "absent");
                continue;
            }
            compared += 1;
            // Written so that NaN fails.
            let passes = deviation.worst <= tolerance;
            failed += usize::from(!passes);
            let mark = if passes { "" } else { "  ABOVE THE TOLERANCE" };
            println!(
                "{group:<15} {backend:<9} {:>8} {:>11.2e}  {}{mark}",
                deviation.compared, deviation.worst, deviation.tensor
            );
        }
    }
    if compared == 0 {
        println!("nothing to compare: the case holds parameters and a batch only");
    } else if failed > 0 {
        println!("{failed} of {compared} comparisons above {tolerance:e}");
    } else {
        println!("all {compared} comparisons within {tolerance:e}");
    }
    if compared > 0 && failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
