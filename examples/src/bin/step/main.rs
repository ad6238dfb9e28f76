//! Times training steps.
//!
//! `cargo run --release --bin step -- --model resnet20 --batch 128`

mod measurement;

use clap::{CommandFactory, FromArgMatches, Parser};
use kronfleet_core::backend::Extent;
use kronfleet_core::preconditioner::Form;
use kronfleet_examples::model::Model;
use kronfleet_examples::settings::{Form as FormChoice, Method, refuse_idle};
use kronfleet_examples::speed::{Curvature, Workload};
use measurement::{Measurement, step};

/// Times training steps on the CPU backend in single precision, on random data, beside the machine's own rate of matrix
/// products.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  step --model lenet5 --batch 64
  step --model resnet20 --batch 128 --threads 2 --form eigen
  step --model my.toml --batch 32 --preconditioner none --json"
)]
struct Arguments {
    /// The network: a name (such as lenet5, mlp, resnet20, resnet32, resnet18) or a TOML file
    #[arg(long, default_value = "lenet5", value_name = "NAME|FILE.toml")]
    model: String,
    /// Samples of a step
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Threads of the backend
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,
    /// What is done to the gradient before the optimiser (SGD with momentum) takes it
    #[arg(long, value_enum, default_value_t = Method::Kfac)]
    preconditioner: Method,
    /// How damping enters K-FAC
    #[arg(long, value_enum, default_value_t = FormChoice::Inverse)]
    form: FormChoice,
    /// Steps between updates of the factors
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    factor_every: u64,
    /// Steps between refreshes of inverses or eigenbases
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    inverse_every: u64,
    /// Whole periods to time, of which the mean counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    periods: u32,
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<()> {
    let matches = Arguments::command().get_matches();
    refuse_idle(&matches)?;
    let arguments = Arguments::from_arg_matches(&matches)?;
    let classes = 10;
    let input = match arguments.model.as_str() {
        name if name.starts_with("resnet") => Extent::new(3, 32, 32),
        _ => Extent::new(1, 28, 28),
    };
    let form = match (arguments.preconditioner, arguments.form) {
        (Method::None, _) => None,
        (Method::Ekfac, _) => Some(Form::Ekfac),
        (Method::Kfac, FormChoice::Inverse) => Some(Form::Inverse),
        (Method::Kfac, FormChoice::Eigen) => Some(Form::Eigen),
        (other, _) => anyhow::bail!("a step with {other:?} is not measured here: choose none, kfac or ekfac"),
    };
    let Arguments { factor_every, inverse_every, .. } = arguments;
    let workload = Workload {
        model: Model::choose(&arguments.model, input, classes)?,
        batch: arguments.batch as usize,
        threads: arguments.threads as usize,
        curvature: form.map(|form| Curvature { form, factor_every, inverse_every, split_factors: 0 }),
    };
    let measured = step(&workload, arguments.periods as usize)?;
    if arguments.json {
        println!("{}", serde_json::to_string(&measured)?);
    } else {
        print(&measured);
    }
    Ok(())
}

fn print(measured: &Measurement) {
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let Measurement { model, parameters, batch, threads, period, .. } = measured;
    println!("{model}, {parameters} parameters, batch {batch}, {threads} thread(s), periods of {period} steps");
    let lines = [
        ("step, mean", format!("{:.2} ms", measured.milliseconds)),
        ("step, best period", format!("{:.2} ms", measured.milliseconds_best)),
        ("operations", format!("{:.3} GFLOP", measured.flops / 1e9)),
        ("machine's products", format!("{:.1} GFLOP/s", measured.gemm_gflops)),
        ("efficiency", format!("{:.2}", measured.efficiency)),
        ("operations done", format!("{:.3} GFLOP", measured.flops_done / 1e9)),
        ("efficiency, of those", format!("{:.2}", measured.efficiency_done)),
        ("peak memory", megabytes(measured.peak_bytes)),
        ("library's buffers", megabytes(measured.library_bytes)),
        ("allocations a period", measured.allocations.to_string()),
        ("loss", format!("{:.4}", measured.loss)),
    ];
    for (what, figure) in lines {
        println!("  {what:<22}{figure:>16}");
    }
}
