//! The studies of the documentation, run again: grids of runs, resumed where they were, and pages with what came out.

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use kronfleet_examples::run::stop_on_signal;
use kronfleet_examples::sweep::{self, SweepSettings};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// Run the studies of the documentation again.
///
/// Every study is a grid of runs in virtual time; runs that are done are kept, and the same command goes on with the rest.
#[derive(Debug, Parser)]
#[command(name = "reproduce", version)]
struct Settings {
    /// What to run
    #[arg(value_enum)]
    study: Study,
    /// The folder of MNIST, for fda; without it, fda is left out
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where pages are written, one for each study
    #[arg(long, default_value = "docs/reproduce", value_name = "DIR")]
    pages: PathBuf,
    /// Where runs are kept
    #[arg(long, default_value = "runs/reproduce", value_name = "DIR")]
    output: PathBuf,
    /// How many runs go on at once; 0 takes every core
    #[arg(long, default_value_t = 0, value_name = "N")]
    jobs: usize,
    /// The seeds, instead of those of the study
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// A setting of all runs, such as `iterations=100`; wins over the study's
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A few steps of one seed, to see that a study works; its figures mean nothing, and its page is not written. Runs are
    /// kept apart from whole ones
    #[arg(long)]
    quick: bool,
    /// Say what would be run and how long it would take
    #[arg(long)]
    dry_run: bool,
}

/// What a quick run of a study is made of.
const QUICK: [&str; 4] = ["iterations=60", "batch=8", "evaluate-every=20", "evaluate-own-every=60"];

/// A study, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Study {
    /// Averages when models have drifted apart, beside outer optimisers: LeNet-5 on the whole of MNIST.
    Fda,
    /// Neighbours instead of averages: docs/gossip.md.
    Gossip,
    /// Outer optimisers beside plain averages.
    Outer,
    /// Nodes that come and go: docs/unstable.md.
    Unstable,
    /// Every policy at every share of the time offline.
    Choosing,
    /// All of these.
    All,
}

impl Study {
    fn name(self) -> &'static str {
        match self {
            Self::Fda => "fda",
            Self::Gossip => "gossip",
            Self::Outer => "outer",
            Self::Unstable => "unstable",
            Self::Choosing => "choosing",
            Self::All => "all",
        }
    }
}

fn main() -> Result<()> {
    let settings = Settings::parse();
    let stop = stop_on_signal()?;
    let studies = match settings.study {
        Study::All => &[Study::Fda, Study::Gossip, Study::Outer, Study::Unstable, Study::Choosing][..],
        _ => std::slice::from_ref(&settings.study),
    };
    for study in studies {
        let name = study.name();
        let mut words = vec!["reproduce".to_owned(), name.to_owned(), "--quiet".to_owned()];
        if *study == Study::Fda {
            let Some(data) = &settings.data else {
                println!("fda: skipped: it needs the whole of MNIST; give its folder with --data DIR");
                continue;
            };
            words.extend(["--set".to_owned(), format!("data={}", data.display())]);
        }
        let folder = if settings.quick { format!("{name}-quick") } else { name.to_owned() };
        let output = settings.output.join(folder);
        if settings.quick {
            words.extend(QUICK.map(|set| format!("--set={set}")));
            words.extend(settings.seeds.is_empty().then(|| "--seeds=1".to_owned()));
        }
        words.extend([format!("--output={}", output.display()), format!("--jobs={}", settings.jobs)]);
        words.extend(settings.set.iter().map(|set| format!("--set={set}")));
        words.extend(settings.seeds.iter().map(|seed| format!("--seeds={seed}")));
        words.extend(settings.dry_run.then(|| "--dry-run".to_owned()));
        sweep::sweep(&SweepSettings::try_parse_from(&words)?, &stop).with_context(|| format!("the study {name}"))?;
        if settings.dry_run {
            continue;
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if settings.quick {
            continue;
        }
        let report = fs::read_to_string(output.join("report.md")).context("the report of a sweep")?;
        let page = settings.pages.join(format!("{name}.md"));
        fs::create_dir_all(&settings.pages).with_context(|| settings.pages.display().to_string())?;
        let given = settings.set.iter().map(|set| format!(" --set {set}")).collect::<String>();
        let head = format!("*Written by `cargo run --release --bin reproduce -- {name}{given}`.*\n\n");
        fs::write(&page, head + &report).with_context(|| format!("cannot write {}", page.display()))?;
        println!("{}", page.display());
    }
    Ok(())
}
