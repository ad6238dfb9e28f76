//! What the runs of a sweep gave: `runs.csv`.

use super::files;
use super::grid::Run;
use crate::report::Folder;
use crate::run::Story;
use anyhow::{Context, Error, Result, bail};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;

/// The file's name.
const FILE: &str = "runs.csv";

/// The file's first line, without what came later.
const HEADING: &str = "settings,seed,accuracy,accuracy_early,own_mean,own_worst,iterations,iterations_own,last,\
                       bytes_to_target,rounds_to_target,offline_fraction,rounds,rounds_per_node,samples,samples_lost,bytes,virtual_seconds,seconds,failure";

/// Columns that came later, each of which files of earlier builds lack with all that follow it.
const ADDED: [&str; 3] = ["files", "build", "processor_seconds"];

/// The first line of a file that has so many of the later columns.
fn heading(added: usize) -> String {
    [&[HEADING], &ADDED[..added]].concat().join(",")
}

/// What one run gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Test accuracy of the averaged model at the end.
    pub accuracy: Option<f64>,
    /// The same as last evaluated within the first quarter of the iterations.
    pub accuracy_early: Option<f64>,
    /// Mean test accuracy of the nodes' own models at the end.
    pub own_mean: Option<f64>,
    /// The worst of them.
    pub own_worst: Option<f64>,
    /// Iterations until the averaged model first had the target accuracy.
    pub iterations: Option<u64>,
    /// Iterations until the mean of the own models' accuracies first had it.
    pub iterations_own: Option<u64>,
    /// The iteration at which the averaged model was last judged: where the run ended.
    pub last: Option<u64>,
    /// Bytes that all nodes had sent when the averaged model first had the target accuracy.
    pub bytes_to_target: Option<u64>,
    /// Rounds that a node had taken part in by then.
    pub rounds_to_target: Option<u64>,
    /// The share of all iterations that nodes made offline.
    pub offline_fraction: f64,
    /// Rounds committed, each counted once.
    pub rounds: u64,
    /// Rounds that a node took part in, on average.
    pub rounds_per_node: f64,
    /// Samples trained on.
    pub samples: u64,
    /// Samples trained on and given up.
    pub samples_lost: u64,
    /// Bytes sent by all nodes; 0 where nothing is sent.
    pub bytes: u64,
    /// The run's own seconds.
    pub virtual_seconds: f64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// The digest of the files that its settings name, as they were when it began; `None` if there are none, or it was made
    /// by an earlier build.
    pub files: Option<String>,
    /// The version and commit that it was made with; `None` if by an earlier build.
    pub build: Option<String>,
    /// Seconds of a processor, of which it takes one; `None` if it was made by an earlier build.
    pub processor_seconds: Option<f64>,
}

impl Outcome {
    /// What a story of so many iterations comes to.
    pub fn of(story: &Story, iterations: u64) -> Self {
        let own = story.own();
        let rounds: u64 = story.nodes.iter().map(|node| node.rounds).sum();
        Self {
            accuracy: story.accuracy(),
            accuracy_early: story.averaged.iter().rfind(|point| 4 * point.0 <= iterations).map(|point| point.1),
            own_mean: own.map(|own| own.0),
            own_worst: own.map(|own| own.1),
            iterations: story.reached(&story.averaged),
            iterations_own: story.reached(&story.own_mean),
            last: story.averaged.last().map(|point| point.0),
            bytes_to_target: story.traffic_to_target().map(|traffic| traffic.bytes),
            rounds_to_target: story.traffic_to_target().map(|traffic| traffic.rounds),
            offline_fraction: story.offline_fraction(),
            rounds: story.rounds_committed,
            rounds_per_node: rounds as f64 / story.nodes.len().max(1) as f64,
            samples: story.samples,
            samples_lost: story.samples_lost,
            bytes: story.bytes_sent(),
            virtual_seconds: story.virtual_seconds,
            seconds: story.seconds,
            failure: story.failure.clone(),
            ..Self::default()
        }
    }

    fn line(&self, run: &Run) -> String {
        fn cell<T: ToString>(value: &Option<T>) -> String {
            value.as_ref().map_or(String::new(), ToString::to_string)
        }
        let failure = cell(&self.failure).replace([',', '"'], ";").replace(['\n', '\r'], " ");
        let mut line = format!("{},{}", run.name(), run.seed);
        let shares = [self.accuracy, self.accuracy_early, self.own_mean, self.own_worst];
        for share in shares {
            let _ = write!(line, ",{}", cell(&share));
        }
        let counts = [self.iterations, self.iterations_own, self.last, self.bytes_to_target, self.rounds_to_target];
        for count in counts {
            let _ = write!(line, ",{}", cell(&count));
        }
        let Self { offline_fraction, rounds, rounds_per_node, samples, samples_lost, bytes, .. } = self;
        let _ = write!(line, ",{offline_fraction},{rounds},{rounds_per_node},{samples},{samples_lost},{bytes}");
        let _ = write!(line, ",{},{:.1},{failure}", self.virtual_seconds, self.seconds);
        let processor = self.processor_seconds.map(|seconds| format!("{seconds:.1}"));
        let _ = write!(line, ",{},{},{}", cell(&self.files), cell(&self.build), cell(&processor));
        line
    }

    /// A line of a file that has so many of the later columns.
    fn read(line: &str, added: usize) -> Option<(Run, Self)> {
        let mut cells = line.split(',');
        let settings = cells.next()?.split(' ').filter(|pair| !pair.is_empty());
        let settings = settings.map(|pair| pair.split_once('=').map(|(key, value)| (Run::key(key), value.to_owned())));
        let settings: BTreeMap<String, String> = settings.collect::<Option<_>>()?;
        let run = Run { seed: cells.next()?.parse().ok()?, settings };
        let mut share = || match cells.next()? {
            "" => Some(None),
            text => text.parse::<f64>().ok().map(Some),
        };
        let (accuracy, accuracy_early, own_mean, own_worst) = (share()?, share()?, share()?, share()?);
        let mut count = || match cells.next()? {
            "" => Some(None),
            text => text.parse::<u64>().ok().map(Some),
        };
        let (iterations, iterations_own, last) = (count()?, count()?, count()?);
        let (bytes_to_target, rounds_to_target) = (count()?, count()?);
        let mut outcome = Self {
            accuracy,
            accuracy_early,
            own_mean,
            own_worst,
            iterations,
            iterations_own,
            last,
            bytes_to_target,
            rounds_to_target,
            offline_fraction: cells.next()?.parse().ok()?,
            rounds: cells.next()?.parse().ok()?,
            rounds_per_node: cells.next()?.parse().ok()?,
            samples: cells.next()?.parse().ok()?,
            samples_lost: cells.next()?.parse().ok()?,
            bytes: cells.next()?.parse().ok()?,
            virtual_seconds: cells.next()?.parse().ok()?,
            seconds: cells.next()?.parse().ok()?,
            failure: Some(cells.next()?.to_owned()).filter(|failure| !failure.is_empty()),
            ..Self::default()
        };
        for column in &ADDED[..added] {
            let Some(cell) = Some(cells.next()?.to_owned()).filter(|cell| !cell.is_empty()) else { continue };
            match *column {
                "files" => outcome.files = Some(cell),
                "build" => outcome.build = Some(cell),
                _ => outcome.processor_seconds = Some(cell.parse().ok()?),
            }
        }
        cells.next().is_none().then_some((run, outcome))
    }
}

/// The outcomes of a sweep, as its folder holds them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    outcomes: BTreeMap<Run, Outcome>,
}

impl Ledger {
    /// The outcomes that a folder holds; none if it has none yet.
    ///
    /// # Errors
    /// If the file is there and cannot be read, or is of another version of this program: the message names it.
    pub fn open(folder: &Folder) -> Result<Self> {
        let path = folder.path().join(FILE);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            text => text.map_err(Error::from),
        };
        let ledger = text.and_then(|text| Self::read(&text));
        ledger.with_context(|| format!("cannot read {}; move it away or choose another --output", path.display()))
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// If it has another heading, or a line that is no outcome: the message says which.
    pub fn read(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let Some(added) = (0..=ADDED.len()).find(|&added| heading(added) == first) else {
            bail!("the first line is {first:?}, expected {:?}", heading(ADDED.len()));
        };
        let mut outcomes = BTreeMap::new();
        for (number, line) in lines.enumerate() {
            let Some((run, outcome)) = Outcome::read(line, added) else {
                bail!("line {} is no outcome of a run: {line:?}", number + 2);
            };
            outcomes.insert(run, outcome);
        }
        Ok(Self { outcomes })
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let mut text = heading(ADDED.len()) + "\n";
        for (run, outcome) in &self.outcomes {
            text += &outcome.line(run);
            text.push('\n');
        }
        text
    }

    /// What this run gave, if it is there and was made of the files that its settings name as they are now, as far as that
    /// is known.
    pub fn find(&self, run: &Run) -> Option<&Outcome> {
        let outcome = self.outcomes.get(run)?;
        let differ = outcome.files.as_ref().zip(files::digest(run)).is_some_and(|(then, now)| *then != now);
        (!differ).then_some(outcome)
    }

    /// Adds an outcome.
    pub fn add(&mut self, run: Run, outcome: Outcome) {
        self.outcomes.insert(run, outcome);
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// If the disk is full or the folder read-only.
    pub fn write(&self, folder: &Folder) -> Result<()> {
        folder.write(FILE, &self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::option::of;
    use proptest::prelude::*;

    prop_compose! {
        fn any_run()(
            seed in any::<u64>(),
            settings in proptest::collection::btree_map("[a-z][a-z-]{0,8}", "[A-Za-z0-9.:/-]{1,8}", 0..4),
        ) -> Run {
            Run { seed, settings }
        }
    }

    prop_compose! {
        fn any_outcome()(
            shares in proptest::array::uniform4(of(0.0..1.0_f64)),
            reached in proptest::array::uniform5(of(any::<u64>())),
            counts in proptest::array::uniform4(any::<u64>()),
            rest in proptest::array::uniform3(0.0..1e6_f64),
            seconds in 0_u32..10_000,
            processor in of(0_u32..10_000),
            failure in of("[a-z ]{1,20}"),
            files in of("[0-9a-f]{16}"),
            build in of("[0-9a-f. ]{1,16}"),
        ) -> Outcome {
            let [accuracy, accuracy_early, own_mean, own_worst] = shares;
            let [iterations, iterations_own, last, bytes_to_target, rounds_to_target] = reached;
            let [rounds, samples, samples_lost, bytes] = counts;
            let [offline_fraction, rounds_per_node, virtual_seconds] = rest;
            Outcome {
                accuracy, accuracy_early, own_mean, own_worst, iterations, iterations_own, last, bytes_to_target,
                rounds_to_target, offline_fraction, rounds, rounds_per_node, samples, samples_lost, bytes, virtual_seconds,
                seconds: f64::from(seconds) / 10.0, failure, files, build,
                processor_seconds: processor.map(|seconds| f64::from(seconds) / 10.0),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(entries in proptest::collection::vec((any_run(), any_outcome()), 0..6)) {
            let mut ledger = Ledger::default();
            for (run, outcome) in entries {
                ledger.add(run, outcome);
            }
            prop_assert_eq!(Ledger::read(&ledger.text()).expect("its own text"), ledger);
        }

        #[test]
        fn arbitrary_text_is_an_error_not_a_panic(text in any::<String>()) {
            let _ = Ledger::read(&text);
            let _ = Ledger::read(&format!("{}\n{text}", heading(ADDED.len())));
        }
    }

    #[test]
    fn files_of_earlier_builds_are_read_and_their_runs_found() -> Result<()> {
        let line = "batch=16 check_every=2,7,0.6,,0.3,0.1,,,195,,,0,0,0,99840,0,85588317,19.5,27.5,";
        let settings = [("batch", "16"), ("check-every", "2")].map(|(key, value)| (key.into(), value.into())).into();
        let run = Run { seed: 7, settings };
        let later = [",", ",a1b2", ",0.1.0 c3d4", ",2.5"];
        for added in 0..=ADDED.len() {
            let line = line.to_owned() + &later[1..=added].concat();
            let ledger = Ledger::read(&format!("{}\n{line}\n", heading(added)))?;
            let found = ledger.outcomes.get(&run).expect("its run");
            assert_eq!((found.accuracy, found.bytes, &found.failure), (Some(0.6), 85_588_317, &None));
            let there = [found.files.is_some(), found.build.is_some(), found.processor_seconds == Some(2.5)];
            assert_eq!(there.map(usize::from).iter().sum::<usize>(), added);
            assert!(ledger.find(&run).is_some() && Ledger::read(&ledger.text())? == ledger);
            let wide = format!("{}\n{line}", heading((added + 1) % (ADDED.len() + 1)));
            assert!(Ledger::read(&wide).is_err(), "a cell is missing or there is one more");
        }
        Ok(())
    }

    #[test]
    fn what_was_made_of_another_file_is_not_found() -> Result<()> {
        let place = tempfile::tempdir()?;
        let name = place.path().join("own.toml").display().to_string();
        fs::write(&name, "one")?;
        let run = Run { seed: 1, settings: [("model".to_owned(), name.clone())].into() };
        let mut ledger = Ledger::default();
        ledger.add(run.clone(), Outcome { files: files::digest(&run), ..Outcome::default() });
        let mut unknown = Ledger::default();
        unknown.add(run.clone(), Outcome::default());
        assert!(ledger.find(&run).is_some());
        fs::write(&name, "two")?;
        assert!(ledger.find(&run).is_none() && unknown.find(&run).is_some());
        fs::remove_file(&name)?;
        assert!(ledger.find(&run).is_some(), "nobody knows");
        Ok(())
    }

    #[test]
    fn a_file_that_is_no_text_gets_the_remedy() -> Result<()> {
        let place = tempfile::tempdir()?;
        fs::write(place.path().join(FILE), [0xff, 0xfe])?;
        let folder = Folder::create(Some(place.path()), "sweep")?;
        let error = Ledger::open(&folder).expect_err("no UTF-8").to_string();
        assert!(error.contains("--output"), "{error}");
        Ok(())
    }

    #[test]
    fn a_failure_stays_on_its_line() {
        let mut ledger = Ledger::default();
        let run = Run { seed: 1, settings: BTreeMap::new() };
        let failure = Some("a \"loss\", or two\nlines".to_owned());
        ledger.add(run.clone(), Outcome { failure, ..Outcome::default() });
        let read = Ledger::read(&ledger.text()).expect("its own text");
        let failure = read.find(&run).and_then(|outcome| outcome.failure.clone());
        assert_eq!(failure.as_deref(), Some("a ;loss;; or two lines"));
    }
}
