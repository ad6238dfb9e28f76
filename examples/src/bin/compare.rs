//! Does K-FAC earn its keep? One node, K-FAC against a grid of SGD settings, to a target accuracy.

use anyhow::{Result, anyhow, bail};
use clap::{CommandFactory, FromArgMatches, Parser};
use kronfleet_examples::report::{Align, Curve, Folder, Table, accuracy_over_iterations};
use kronfleet_examples::run::{Judge, Workshop, set_threads, stop_on_signal};
use kronfleet_examples::settings::{
    KfacSettings, Method, OptimiserSettings, OutputSettings, TaskSettings, arguments, given, positive, refuse_idle,
};
use kronfleet_faer::Faer;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Train one node with K-FAC and with every SGD setting of a grid until each reaches the target accuracy.
///
/// Time is that of training steps alone, on one thread; evaluations are left out on both sides.
#[derive(Parser)]
#[command(name = "compare", version, args_override_self = true)]
struct Settings {
    /// Learning rates of SGD
    #[arg(long, value_delimiter = ',', default_value = "0.01,0.02,0.03,0.05,0.07", value_parser = positive)]
    rates: Vec<f64>,
    /// Momenta of SGD
    #[arg(long, value_delimiter = ',', default_value = "0.9,0.95", value_parser = positive)]
    momenta: Vec<f64>,
    /// Seeds, the first of which is --seed
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    #[command(flatten)]
    task: TaskSettings,
    #[command(flatten)]
    kfac: KfacSettings,
    #[command(flatten)]
    optimiser: OptimiserSettings,
    #[command(flatten)]
    output: OutputSettings,
}

/// Flags that all trainers share and this program has no use for, and why.
const IDLE: [(&str, &str); 7] = [
    ("backend", "both sides run on faer"),
    ("partition", "one node has all samples"),
    ("save", "models are judged and thrown away"),
    ("json", "the results are tables, in compare.md and compare.csv"),
    ("require", "the results are tables"),
    ("quiet", "there are no progress bars"),
    ("no-reference", "there are no outages to leave out"),
];

/// What this comparison sets otherwise than the trainers do.
const DEFAULTS: [(&str, &str); 8] = [
    ("data", "fashion-mnist"),
    ("batch", "256"),
    ("iterations", "1200"),
    ("schedule", "constant"),
    ("evaluate_every", "10"),
    ("target_accuracy", "0.88"),
    ("learning_rate", "0.03"),
    ("inverse_every", "5"),
];

/// What one run came to.
struct Course {
    points: Vec<(u64, f64)>,
    /// Iteration and training time at which the target was reached.
    reached: Option<(u64, Duration)>,
    /// Training time of all iterations made.
    time: Duration,
}

fn main() -> Result<()> {
    let command = IDLE.iter().fold(Settings::command(), |command, &(name, _)| {
        command.mut_arg(name.replace('-', "_"), |argument| argument.hide(true))
    });
    let command = DEFAULTS
        .iter()
        .fold(command, |command, &(name, value)| command.mut_arg(name, |argument| argument.default_value(value)));
    let arguments = arguments(&command, std::env::args_os())?;
    let matches = command.get_matches_from(arguments);
    if let Some((name, because)) = IDLE.iter().find(|(name, _)| given(&matches, name)) {
        bail!("--{name} has no effect here: {because}; leave it out");
    }
    refuse_idle(&matches)?;
    let settings = Settings::from_arg_matches(&matches)?;
    if settings.kfac.preconditioner == Method::None {
        bail!("--preconditioner none leaves nothing to compare: use kfac or ekfac");
    }
    set_threads(settings.task.threads)?;
    let stop = stop_on_signal()?;
    let mut rows: Vec<(String, Vec<Course>)> = Vec::new();
    let kfac = format!("K-FAC η={} μ={}", settings.optimiser.learning_rate, settings.optimiser.momentum);
    rows.push((kfac, courses(&settings, &settings.kfac, &settings.optimiser, &stop)?));
    let plain = KfacSettings { preconditioner: Method::None, ..settings.kfac.clone() };
    for &momentum in &settings.momenta {
        for &learning_rate in &settings.rates {
            let optimiser = OptimiserSettings { learning_rate, momentum, ..settings.optimiser.clone() };
            rows.push((format!("SGD η={learning_rate} μ={momentum}"), courses(&settings, &plain, &optimiser, &stop)?));
        }
    }
    let text = tables(&settings, &rows);
    println!("{text}");
    let folder = Folder::create(settings.output.output.as_deref(), "compare")?;
    folder.write("compare.md", &text)?;
    let mut csv = String::from("setting,seed,iteration,accuracy\n");
    for (name, courses) in &rows {
        for (seed, course) in courses.iter().enumerate() {
            for (iteration, accuracy) in &course.points {
                let _ = writeln!(csv, "{name},{},{iteration},{accuracy}", settings.task.seed + seed as u64);
            }
        }
    }
    folder.write("compare.csv", &csv)?;
    folder.write("compare.svg", &plot(&settings, &rows)?)?;
    println!("report: {}", folder.path().display());
    Ok(())
}

fn courses(
    settings: &Settings,
    kfac: &KfacSettings,
    optimiser: &OptimiserSettings,
    stop: &AtomicBool,
) -> Result<Vec<Course>> {
    let seeds = settings.task.seed..settings.task.seed + settings.seeds;
    seeds.map(|seed| course(settings, kfac, optimiser, seed, stop)).collect()
}

fn course(
    settings: &Settings,
    kfac: &KfacSettings,
    optimiser: &OptimiserSettings,
    seed: u64,
    stop: &AtomicBool,
) -> Result<Course> {
    let task = TaskSettings { seed, ..settings.task.clone() };
    let workshop = Workshop::open(&task, kfac, optimiser, 1, settings.output.load.as_deref())?;
    let mut judge = workshop.judge((0..rayon::current_num_threads()).map(|_| Faer::<f32>::new(1)).collect())?;
    let mut trainer = workshop.trainer(Faer::<f32>::new(1), 0)?;
    let mut course = Course { points: Vec::new(), reached: None, time: Duration::ZERO };
    for iteration in 1..=task.iterations {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let started = Instant::now();
        if let Err(error) = trainer.step() {
            // A learning rate that is too large for the problem is a result, too.
            eprintln!("{} η={} seed {seed}: {error}", workshop.method(), optimiser.learning_rate);
            break;
        }
        course.time += started.elapsed();
        if !iteration.is_multiple_of(settings.output.evaluate_every) {
            continue;
        }
        let (backend, network) = trainer.parts();
        let accuracy = judge_network(&mut judge, backend, network)?;
        course.points.push((iteration, accuracy));
        if accuracy >= settings.output.target_accuracy {
            course.reached = Some((iteration, course.time));
            break;
        }
    }
    let last = course.points.last().copied().unwrap_or_default();
    eprintln!(
        "{} η={} μ={} seed {seed}: accuracy {:.4} at iteration {}, {:.2} s",
        workshop.method(),
        optimiser.learning_rate,
        optimiser.momentum,
        last.1,
        last.0,
        course.time.as_secs_f64()
    );
    Ok(course)
}

fn judge_network(
    judge: &mut impl Judge,
    backend: &mut Faer<f32>,
    network: &kronfleet_core::network::Network<Faer<f32>>,
) -> Result<f64> {
    use kronfleet_core::backend::Backend as _;
    let mut fetch = |buffer, len| backend.fetch(buffer, 0..len).map_err(|error| anyhow!("{error}"));
    let parameters = fetch(&network.parameters, network.parameters_len())?;
    let running = fetch(&network.running, network.running_len())?;
    judge.accuracy(&parameters, &running)
}

/// Mean over seeds, if all reached the target.
fn mean(courses: &[Course], of: impl Fn(&(u64, Duration)) -> f64) -> Option<f64> {
    let reached: Vec<f64> = courses.iter().filter_map(|course| course.reached.as_ref().map(&of)).collect();
    (!reached.is_empty() && reached.len() == courses.len()).then(|| reached.iter().sum::<f64>() / reached.len() as f64)
}

fn tables(settings: &Settings, rows: &[(String, Vec<Course>)]) -> String {
    let iterations = |courses: &[Course]| mean(courses, |reached| reached.0 as f64);
    let seconds = |courses: &[Course]| mean(courses, |reached| reached.1.as_secs_f64());
    let target = settings.output.target_accuracy;
    let mut table = Table::new(&[
        ("setting", Align::Left),
        (&format!("iterations to {target}"), Align::Right),
        ("seconds of training", Align::Right),
        ("milliseconds per step", Align::Right),
    ]);
    let show =
        |value: Option<f64>, digits: usize| value.map_or("not reached".into(), |value| format!("{value:.digits$}"));
    for (name, courses) in rows {
        let steps: u64 = courses.iter().filter_map(|course| course.points.last()).map(|point| point.0).sum();
        let time: f64 = courses.iter().map(|course| course.time.as_secs_f64()).sum();
        let step = (steps > 0).then(|| 1e3 * time / steps as f64);
        table.row([name.clone(), show(iterations(courses), 0), show(seconds(courses), 2), show(step, 2)]);
    }
    let best =
        |of: &dyn Fn(&[Course]) -> Option<f64>| rows[1..].iter().filter_map(|row| of(&row.1)).min_by(f64::total_cmp);
    let mut text = table.to_string();
    let ratio = |text: &mut String, what: &str, ours: Option<f64>, best: Option<f64>| {
        let _ = match (ours, best) {
            (Some(ours), Some(best)) => writeln!(text, "{what}: {:.2} of the best SGD setting", ours / best),
            _ => writeln!(text, "{what}: the target was not reached by both"),
        };
    };
    text.push('\n');
    ratio(&mut text, "K-FAC, iterations", iterations(&rows[0].1), best(&iterations));
    ratio(&mut text, "K-FAC, time", seconds(&rows[0].1), best(&seconds));
    text
}

fn plot(settings: &Settings, rows: &[(String, Vec<Course>)]) -> Result<String> {
    let curves: Vec<Curve> = rows
        .iter()
        .filter_map(|(name, courses)| courses.first().map(|course| (name, &course.points)))
        .map(|(name, points)| Curve {
            name: name.clone(),
            points: points.iter().map(|&(iteration, accuracy)| (iteration as f64, accuracy)).collect(),
        })
        .collect();
    let title = format!("{}, one node, batch {}: test accuracy", settings.task.model, settings.task.batch);
    accuracy_over_iterations(&title, &curves, 0, &[], Some(settings.output.target_accuracy))
}
