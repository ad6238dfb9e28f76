//! How well placements train, at equal epochs: runs of the simulator, kept in a file so that they go on where they were.

use anyhow::{Context, Result, bail};
use clap::Parser;
use kronfleet_examples::report::{Align, Folder, Table};
use kronfleet_examples::run::{Fleet, Keeping, Workshop};
use kronfleet_examples::settings::JobSettings;
use kronfleet_lossy::trace::Trace;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The file that runs are kept in, a line of JSON each.
const FILE: &str = "converged.jsonl";
/// Iterations of the runs whose time gives the estimate.
const TRIAL: u64 = 12;
/// Placements, as `--inner` says them, and in which form.
const PLACEMENTS: [(&str, &str); 8] = [
    ("d-kfac", "inverse"),
    ("mpd", "inverse"),
    ("spd", "inverse"),
    ("owner-reduce", "inverse"),
    ("dp-kfac", "inverse"),
    ("mpd", "eigen"),
    ("kaisa:0.5", "eigen"),
    ("dp-kfac", "eigen"),
];

/// What is trained.
#[derive(Clone, Debug)]
pub(crate) struct Trainings {
    pub(crate) model: String,
    pub(crate) data: String,
    pub(crate) epochs: u64,
    pub(crate) batch: u64,
    pub(crate) nodes: u64,
    pub(crate) seeds: Vec<u64>,
    /// Steps from one death of an owner to the next.
    pub(crate) killed_every: u64,
}

/// A run: what it is for, and the words that `lossy` would be given.
#[derive(Clone, Debug)]
struct Run {
    kind: Kind,
    words: Vec<String>,
}

/// What a run is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Placement { inner: &'static str, form: &'static str },
    Killed { model: String, killed: bool },
}

/// The results that are there, by the words of their runs.
type Ledger = BTreeMap<String, Value>;

impl Trainings {
    /// Runs what the folder does not hold yet; answers the page.
    ///
    /// # Errors
    /// If a setting is wrong, or a run fails.
    pub(crate) fn run(&self, folder: &Folder, stop: &Arc<AtomicBool>) -> Result<String> {
        let mut ledger = read(&folder.path().join(FILE))?;
        let runs = self.runs()?;
        // The undisturbed run of DP-KFAC stands in both tables.
        let asked: BTreeMap<String, &Run> = runs.iter().map(|run| (run.key(), run)).collect();
        let missing: Vec<&Run> = asked.values().filter(|run| !ledger.contains_key(&run.key())).copied().collect();
        println!("{} runs, {} of them done, in {}", asked.len(), asked.len() - missing.len(), folder.path().display());
        self.estimate(&missing, stop)?;
        for (number, run) in missing.iter().enumerate() {
            let started = Instant::now();
            let Some(result) = perform(&run.words, stop)? else { bail!("stopped; the same command goes on") };
            let accuracy = result["accuracy"].as_f64().unwrap_or(f64::NAN);
            let seconds = started.elapsed().as_secs_f64();
            eprintln!("{} of {}: {}: {accuracy:.4} after {seconds:.0} s", number + 1, missing.len(), run.key());
            ledger.insert(run.key(), result);
            folder.write(FILE, &text(&ledger)?)?;
        }
        Ok(self.page(&runs, &ledger))
    }

    fn runs(&self) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        for &seed in &self.seeds {
            for (inner, form) in PLACEMENTS {
                let mut words = self.words(&self.model, seed)?;
                words.extend([format!("--inner={inner}"), format!("--form={form}")]);
                runs.push(Run { kind: Kind::Placement { inner, form }, words });
            }
            for model in self.disturbed() {
                for killed in [false, true] {
                    let mut words = self.words(model, seed)?;
                    words.extend(["--inner=dp-kfac".to_owned(), "--form=inverse".to_owned()]);
                    if killed {
                        words.extend(self.deaths()?);
                    }
                    runs.push(Run { kind: Kind::Killed { model: model.to_owned(), killed }, words });
                }
            }
        }
        Ok(runs)
    }

    /// The networks that are trained while owners are killed.
    fn disturbed(&self) -> Vec<&str> {
        let mut models = vec!["lenet5", self.model.as_str()];
        models.dedup();
        models
    }

    fn words(&self, model: &str, seed: u64) -> Result<Vec<String>> {
        let iterations = self.iterations()?;
        Ok(vec![
            "lossy".into(),
            format!("--model={model}"),
            format!("--data={}", self.data),
            format!("--nodes={}", self.nodes),
            format!("--batch={}", self.batch),
            format!("--iterations={iterations}"),
            format!("--evaluate-every={iterations}"),
            format!("--seed={seed}"),
            "--outages=none".into(),
            "--schedule=cosine".into(),
            "--threads=1".into(),
        ])
    }

    /// Steps of so many epochs, each step a batch of every node.
    fn iterations(&self) -> Result<u64> {
        let samples = match self.data.as_str() {
            "embedded" => 10_000,
            "fashion-mnist" => 60_000,
            other => bail!("--data {other}: choose embedded or fashion-mnist, whose sizes are known"),
        };
        Ok((self.epochs * samples).div_ceil(self.nodes * self.batch))
    }

    /// A member dies at every so many steps, one after the other, and is back ten steps later; a step takes 100 ms of virtual
    /// time. With DP-KFAC every member owns layers.
    fn deaths(&self) -> Result<Vec<String>> {
        let steps = (1..).map(|time| time * self.killed_every);
        let within = self.iterations()?.saturating_sub(20);
        let death = |(number, step): (u64, u64)| {
            format!("--crash={}ms..{}ms:{}", 100 * step, 100 * (step + 10), number % self.nodes)
        };
        Ok((1..).zip(steps.take_while(|&step| step <= within)).map(death).collect())
    }

    /// How long the missing runs will take, from a few steps of each kind.
    fn estimate(&self, missing: &[&Run], stop: &Arc<AtomicBool>) -> Result<()> {
        let mut paces: BTreeMap<&str, f64> = BTreeMap::new();
        let iterations = self.iterations()?;
        let mut total = 0.0;
        for run in missing {
            let model = run.words.iter().find(|word| word.starts_with("--model=")).map_or("", String::as_str);
            if !paces.contains_key(model) {
                let mut words: Vec<String> =
                    run.words.iter().filter(|word| !word.starts_with("--crash=")).cloned().collect();
                let step = |words: &mut Vec<String>, steps: u64| -> Result<f64> {
                    for word in words.iter_mut() {
                        if word.starts_with("--iterations=") || word.starts_with("--evaluate-every=") {
                            let flag = word.split('=').next().unwrap_or_default().to_owned();
                            *word = format!("{flag}={steps}");
                        }
                    }
                    let started = Instant::now();
                    perform(words, stop)?;
                    Ok(started.elapsed().as_secs_f64())
                };
                // What a run takes besides steps is in both.
                let pace = (step(&mut words, 2 * TRIAL)? - step(&mut words, TRIAL)?).max(0.0) / TRIAL as f64;
                paces.insert(model, pace);
            }
            total += paces[model] * iterations as f64;
        }
        println!("about {:.0} min of one core, by {TRIAL} steps of each network", (total / 60.0).ceil());
        Ok(())
    }

    fn page(&self, runs: &[Run], ledger: &Ledger) -> String {
        let seeds = self.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let mut text = format!(
            "## Trained\n\nEpochs: {} of {}; {} nodes with batches of {}, K-FAC; seeds {seeds}. Accuracy on all test images; loss \
             is the mean of the last tenth of steps.\n\n### {} under every placement\n\n",
            self.epochs, self.data, self.nodes, self.batch, self.model
        );
        let mut table = Table::new(&[
            ("placement", Align::Left),
            ("form", Align::Left),
            ("accuracy", Align::Right),
            ("of each seed", Align::Left),
            ("loss", Align::Right),
        ]);
        for (inner, form) in PLACEMENTS {
            let found = results(runs, ledger, &Kind::Placement { inner, form });
            table.row([
                inner.to_owned(),
                form.to_owned(),
                mean(&found, "accuracy"),
                each(&found),
                mean(&found, "loss_late"),
            ]);
        }
        let _ = write!(text, "{table}\n### An owner killed every {} steps, DP-KFAC\n\n", self.killed_every);
        let mut table = Table::new(&[
            ("model", Align::Left),
            ("undisturbed", Align::Right),
            ("killed", Align::Right),
            ("of each seed", Align::Left),
            ("deaths", Align::Right),
            ("abandoned steps", Align::Right),
        ]);
        for model in self.disturbed() {
            let of = |killed| results(runs, ledger, &Kind::Killed { model: model.to_owned(), killed });
            let (calm, killed) = (of(false), of(true));
            let sum =
                |key: &str| killed.iter().filter_map(|value| value["shared"][key].as_u64()).sum::<u64>().to_string();
            let deaths = self.deaths().map_or(0, |deaths| deaths.len() * killed.len());
            table.row([
                model.to_owned(),
                mean(&calm, "accuracy"),
                mean(&killed, "accuracy"),
                format!("{} → {}", each(&calm), each(&killed)),
                deaths.to_string(),
                sum("abandoned"),
            ]);
        }
        let _ = writeln!(text, "{table}");
        text
    }
}

impl Run {
    /// What it is kept under: all that is asked of it, and of which version.
    fn key(&self) -> String {
        format!("{}: {}", env!("CARGO_PKG_VERSION"), self.words[1..].join(" "))
    }
}

fn results<'a>(runs: &[Run], ledger: &'a Ledger, kind: &Kind) -> Vec<&'a Value> {
    let runs = runs.iter().filter(|run| run.kind == *kind);
    runs.filter_map(|run| ledger.get(&run.key())).collect()
}

fn mean(found: &[&Value], key: &str) -> String {
    let values: Vec<f64> = found.iter().filter_map(|value| value[key].as_f64()).collect();
    if values.is_empty() {
        return "–".to_owned();
    }
    format!("{:.4}", values.iter().sum::<f64>() / values.len() as f64)
}

fn each(found: &[&Value]) -> String {
    let values = found.iter().filter_map(|value| value["accuracy"].as_f64());
    values.map(|value| format!("{value:.4}")).collect::<Vec<_>>().join(", ")
}

/// One run on one thread; `None` if it was stopped.
fn perform(words: &[String], stop: &Arc<AtomicBool>) -> Result<Option<Value>> {
    let JobSettings { task, averaging, kfac, optimiser, network, output, .. } = JobSettings::try_parse_from(words)?;
    let workshop = Workshop::open(&task, &kfac, &optimiser, averaging.nodes, None)?.sharing(&averaging.sharing)?;
    let text = words.join(" ");
    let stop = Arc::clone(stop);
    let fleet = Fleet {
        workshop: &workshop,
        task: &task,
        averaging: &averaging,
        network: &network,
        output: &output,
        settings: &text,
        stop: Arc::clone(&stop),
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().context("cannot start a thread")?;
    let (story, _) = pool.install(|| fleet.run(fleet.faults()?, Trace::hashed(text.clone()), Keeping::default()))?;
    if story.interrupted || stop.load(Ordering::Relaxed) {
        return Ok(None);
    }
    if let Some(failure) = &story.failure {
        bail!("{text}: {failure}");
    }
    Ok(Some(serde_json::from_str(&story.json())?))
}

fn read(path: &Path) -> Result<Ledger> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Ledger::new()),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let pair = |line: &str| -> Option<(String, Value)> {
        let mut value: Value = serde_json::from_str(line).ok()?;
        let result = value.get_mut("result")?.take();
        Some((value["run"].as_str()?.to_owned(), result))
    };
    let read = |(number, line): (usize, &str)| {
        pair(line).with_context(|| {
            format!(
                "{}, line {}: no result of a run; move the file away or choose another --output",
                path.display(),
                number + 1
            )
        })
    };
    text.lines().enumerate().map(read).collect()
}

fn text(ledger: &Ledger) -> Result<String> {
    let line =
        |(run, result): (&String, &Value)| Ok(serde_json::json!({ "run": run, "result": result }).to_string() + "\n");
    ledger.iter().map(line).collect()
}
