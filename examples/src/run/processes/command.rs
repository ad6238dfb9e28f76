//! A trainer over processes as a program: its flags, and which of its two parts it plays.

use super::claim::{Claim, SUPERSEDED, Superseded};
use super::fleet::Fleet;
use super::node::{Connection, Job, Place};
use crate::run::backends::Backends;
use crate::run::display::{Display, announce};
use crate::run::evaluation::{Agenda, Evaluator};
use crate::run::lossy::Ending;
use crate::run::watch::blank;
use crate::run::workshop::Workshop;
use crate::run::{conclude, prepare as begin, set_threads, stop_on_signal};
use crate::settings::{
    AveragingSettings, Division, KfacSettings, OptimiserSettings, OutputSettings, Policy, ProcessSettings,
    TaskSettings, arguments, describe, refuse_idle,
};
use anyhow::{Context, Result, bail};
use clap::{Args, CommandFactory, FromArgMatches, Parser};
use kronfleet_core::cluster::{Budget, Incarnation, Mode, RunId};
use kronfleet_core::seed::Seed;
use kronfleet_core::transport::NodeId;
use std::any::Any;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// No settings beyond those of every trainer.
#[derive(Clone, Copy, Debug, Args)]
pub struct NoSettings {}

#[derive(Parser)]
#[command(version, args_override_self = true)]
// Real time is not virtual time: fewer nodes, a budget that real steps keep, and who was killed has nothing to bring.
#[command(mut_arg("nodes", |nodes| nodes.default_value("4")))]
#[command(mut_arg("rejoin", |rejoin| rejoin.default_value("heal")))]
#[command(mut_arg("stall_budget", |budget| budget.default_value("2s")))]
struct Settings<T: Args> {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    transport: T,
}

/// What trainers over all transports have in common.
#[derive(Args)]
struct Common {
    #[command(flatten)]
    task: TaskSettings,
    #[command(flatten)]
    averaging: AveragingSettings,
    #[command(flatten)]
    kfac: KfacSettings,
    #[command(flatten)]
    optimiser: OptimiserSettings,
    #[command(flatten)]
    processes: ProcessSettings,
    #[command(flatten)]
    output: OutputSettings,
}

/// A run, before anything of it is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its name.
    pub id: RunId,
    /// How many nodes it has.
    pub nodes: u32,
    /// Into which sites they are divided, if they are.
    pub sites: Division,
    /// What its timeouts follow from.
    pub budget: Budget,
}

/// Starts a program as a node, by its number.
pub type Launcher = Box<dyn Fn(u32, &Path) -> Command>;

/// What the process that starts the others prepares for them.
pub struct Preparation {
    /// How many nodes there are.
    pub nodes: u32,
    /// Which of them are started here.
    pub ranks: Range<u32>,
    /// The number of each one's first start; larger than that of any start of an earlier run that goes on.
    pub first_start: u64,
    /// What they are started with, besides what the user gave.
    pub arguments: Vec<OsString>,
    /// Starts this program as a node, by its number, with the arguments that are that node's alone.
    pub launcher: Launcher,
    /// Which of several processes that were started with the same flags this is, if there are several: each writes a run
    /// folder of its own, and the first alone shows what happened and saves the model.
    pub number: Option<u32>,
    /// Whether a killed process is started again.
    pub restarts: bool,
    /// The transport's timeouts, in words; empty if it has none.
    pub timeouts: String,
    /// What is kept until all have left.
    pub keep: Box<dyn Any>,
}

impl Preparation {
    /// All nodes are started here, and nothing has to be prepared.
    pub fn all(nodes: u32) -> Self {
        Self {
            nodes,
            ranks: 0..nodes,
            first_start: 1,
            arguments: Vec::new(),
            launcher: Box::new(|_, program| Command::new(program)),
            number: None,
            restarts: true,
            timeouts: String::new(),
            keep: Box::new(()),
        }
    }
}

/// Whether a trainer with these transport settings can be told so; otherwise what it would say.
#[cfg(test)]
pub(crate) fn understands<'a, T: Args>(words: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    Settings::<T>::try_parse_from(words).map(drop).map_err(|error| error.to_string())
}

/// The trainer called `kind`, `about` which its help says this; `open` opens a node's end of the transport.
///
/// `T` are the transport's own settings. The process is to end as this says: with [`SUPERSEDED`] if a later start has taken
/// its place.
///
/// # Errors
/// What went wrong, to be shown to the user.
pub fn main<T: Args>(
    kind: &'static str,
    about: &'static str,
    open: impl Fn(&T, &Place) -> Result<Connection>,
) -> Result<ExitCode> {
    main_with(kind, about, |_: &T, run| Ok(Preparation::all(run.nodes)), open)
}

/// The same, for a transport that needs something prepared before nodes are started.
///
/// # Errors
/// What went wrong, to be shown to the user.
pub fn main_with<T: Args>(
    kind: &'static str,
    about: &'static str,
    prepare: impl Fn(&T, Run) -> Result<Preparation>,
    open: impl Fn(&T, &Place) -> Result<Connection>,
) -> Result<ExitCode> {
    let command = Settings::<T>::command().name(kind).about(about);
    let given: Vec<OsString> = arguments(&command, std::env::args_os())?;
    let matches = command.clone().get_matches_from(&given);
    let Settings { common, transport } = Settings::<T>::from_arg_matches(&matches)?;
    // From here on nothing depends on the transport's type, so that the library holds it, compiled once.
    let ended = if let Some(rank) = common.processes.rank {
        node(&common, rank, &|place| open(&transport, place))
    } else {
        refuse_idle(&matches)?;
        let text = describe(&command, &matches);
        fleet(kind, &common, &text, &given, &|run| prepare(&transport, run))
    };
    match ended {
        // Not to be started again, as after other failures.
        Err(error) if error.is::<Superseded>() => {
            eprintln!("{error}");
            Ok(ExitCode::from(SUPERSEDED))
        }
        ended => ended.map(|()| ExitCode::SUCCESS),
    }
}

/// The process that the user starts.
fn fleet(
    kind: &str,
    settings: &Common,
    text: &str,
    given: &[OsString],
    prepare: &dyn Fn(Run) -> Result<Preparation>,
) -> Result<()> {
    if settings.averaging.policy == Policy::Zeros {
        bail!("--policy zeros has one model and no nodes that talk; use the simulator, `lossy`");
    }
    match (settings.averaging.mode, &settings.processes.state) {
        // What a majority has promised must outlive the processes that promised it.
        (Mode::Strict, None) => bail!(
            "--mode strict needs a folder that outlives killed processes: add --state DIR, or use --mode available"
        ),
        (Mode::Available, Some(_)) => {
            bail!("--state has no effect without --mode strict: leave it out, or choose that mode")
        }
        (Mode::Strict, Some(state)) => claim(state, text)?,
        (Mode::Available, None) => {}
    }
    let (id, nodes, budget) = (RunId(settings.task.seed), settings.averaging.nodes, settings.averaging.budget()?);
    let prepare = || prepare(Run { id, nodes, sites: settings.averaging.sharing.sites.clone(), budget });
    train(kind, settings, text, given, &prepare, &Backends::open(&settings.task)?)
}

/// A node's process.
fn node(settings: &Common, rank: u32, open: &dyn Fn(&Place) -> Result<Connection>) -> Result<()> {
    let Common { task, averaging, kfac, optimiser, processes, output } = settings;
    if rank >= averaging.nodes {
        bail!("--rank {rank} is none of {} nodes, which count from 0", averaging.nodes);
    }
    // Nodes share the machine's cores.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = (cores / averaging.nodes as usize).max(1);
    set_threads(if task.threads == 0 { share } else { task.threads })?;
    let workshop = Workshop::open(task, kfac, optimiser, averaging.nodes, output.load.as_deref())?;
    let workshop = workshop.sharing(&averaging.sharing)?.correcting(&averaging.drift);
    let place = Place {
        run: RunId(task.seed),
        session: processes.session.clone().unwrap_or_default(),
        nodes: averaging.nodes,
        node: NodeId(rank),
        incarnation: Incarnation(processes.start),
        budget: averaging.budget()?,
    };
    let agenda = Agenda::of(output, task.iterations);
    let Some(events) = &processes.events else { bail!("--rank is for processes that this program starts itself") };
    let (workshop, place) = (&workshop, &place);
    let (first, apart) = (processes.first, processes.elsewhere);
    let state = processes.state.as_deref();
    let kill_at = processes.kill_at.iter().filter(|at| at.is_of(rank, processes.start)).cloned().collect();
    let job = Job { workshop, task, averaging, agenda, events, state, place, first, apart, kill_at };
    job.serve(&Backends::of_node(task, rank)?, open)
}

/// What the first process does, which judges on `backends`.
fn train(
    kind: &str,
    settings: &Common,
    text: &str,
    given: &[OsString],
    prepare: &dyn Fn() -> Result<Preparation>,
    backends: &Backends,
) -> Result<()> {
    let Common { task, averaging, kfac, optimiser, processes, output } = settings;
    set_threads(task.threads)?;
    let stop = stop_on_signal()?;
    let started = Instant::now();
    if let Some(at) = output.stop_at_accuracy {
        bail!("--stop-at-accuracy {at}: processes train for all of --iterations: leave it out, or run `lossy` instead");
    }
    let first = prepare()?;
    let output = &own(output, first.number);
    let (nodes, all) = (first.nodes, AveragingSettings { nodes: first.nodes, ..averaging.clone() });
    // What every node would refuse is refused before one is started.
    all.cluster(RunId(task.seed), NodeId(0), Incarnation(1))?;
    if let Some(at) = processes.kill_at.iter().find(|at| at.node() >= nodes) {
        bail!("--kill-at {at} names n{}, but the nodes are n0 to n{}", at.node(), nodes - 1);
    }
    let timeouts = format!("{}\n{}", averaging.budget()?, first.timeouts);
    if !output.quiet {
        announce(timeouts.trim_end());
    }
    if let Some(caution) = averaging.caution().filter(|_| first.number.is_none_or(|number| number == 0)) {
        announce(&caution);
    }
    let workshop = Workshop::open(task, kfac, optimiser, first.nodes, output.load.as_deref())?;
    let workshop = workshop.sharing(&averaging.sharing)?.correcting(&averaging.drift);
    let kind = first.number.map_or(kind.to_owned(), |number| format!("{kind}-n{number}"));
    let folder = begin(output, &kind)?;
    let text = &with_nodes(text, first.nodes);
    // Whoever is started later with the same --output has it from then on.
    let claim = Claim::next(folder.path(), ".run")?;
    // Before anything happens: who kills all of this can replay it all the same.
    folder.write("settings.toml", text)?;
    let train = |events: &str, kills: u32, preparation: Preparation| -> Result<Ending> {
        let Preparation { nodes, ranks, first_start, arguments, launcher, restarts, keep, .. } = preparation;
        let agenda = Agenda::of(output, task.iterations);
        let evaluator = Evaluator::new(backends.judge(&workshop)?, ranks.len() as u32, agenda);
        let (model, data, method) = (&workshop.model.name, &workshop.data, workshop.method());
        let apart = ranks.len() < nodes as usize;
        let title = format!("{model} on {data} with {method}, {nodes} processes");
        let story = blank(title, text.clone(), task.seed, nodes, output.target_accuracy);
        let fleet = Fleet {
            nodes,
            ranks,
            first_start,
            iterations: task.iterations,
            // Who is one of many machines' nodes is killed by whoever likes to.
            kills: if apart || processes.churn.is_some() { 0 } else { kills },
            // Nor is there churn in the run without kills that others are compared with.
            churn: processes.churn.filter(|_| !apart && kills > 0),
            away: processes.away,
            restarts,
            session: session(),
            events: match &processes.state {
                // Invariants hold over all that has ever happened to a state.
                Some(state) => absolute(state.join(events))?,
                None => emptied(folder.path().join(events))?,
            },
            arguments: given.iter().skip(1).chain(&arguments).cloned().collect(),
            launcher,
            seed: Seed(task.seed),
            stop: stop.clone(),
        };
        let ending = fleet.train(story, evaluator, Display::new(nodes, task.iterations, output.quiet));
        drop(keep);
        ending
    };
    let (mut story, model) = train("events", processes.kills, first)?;
    // A state goes on; it cannot be trained a second time from the beginning.
    let repeated = !output.no_reference && processes.state.is_none();
    if !story.deaths.is_empty() && repeated && !story.interrupted && story.failure.is_none() {
        let reference = train("events-reference", 0, prepare()?)?.0;
        story.interrupted = reference.interrupted;
        story.failure = reference.failure.map(|failure| format!("the run without kills: {failure}"));
        story.reference = reference.averaged;
    }
    story.timeouts = timeouts.trim_end().to_owned();
    story.seconds = started.elapsed().as_secs_f64();
    claim.write(|| conclude(&folder, &workshop, output, story, model))
}

/// Settings with the number of nodes that there are, whoever said it: a flag of the transport, or a launcher.
fn with_nodes(settings: &str, nodes: u32) -> String {
    let line =
        |line: &str| if line.starts_with("nodes = ") { format!("nodes = {nodes}\n") } else { format!("{line}\n") };
    settings.lines().map(line).collect()
}

/// What this process shows and keeps, if it is the one of this number among several with the same flags.
fn own(output: &OutputSettings, number: Option<u32>) -> OutputSettings {
    let mut own = output.clone();
    if let Some(number) = number {
        own.output = own.output.map(|folder| folder.join(format!("n{number}")));
        if number > 0 {
            (own.quiet, own.json, own.save) = (true, false, None);
        }
    }
    own
}

/// Makes sure that a folder of state is this run's: of the same settings as when it was made.
fn claim(state: &Path, settings: &str) -> Result<()> {
    let path = state.join("settings.toml");
    // Who is killed, and for how long, may be different every time.
    let lasting = |line: &&str| !["kills = ", "away = ", "churn = "].iter().any(|key| line.starts_with(key));
    let settings: String = settings.lines().filter(lasting).map(|line| line.to_owned() + "\n").collect();
    match fs::read_to_string(&path) {
        Ok(known) if known == settings => Ok(()),
        Ok(_) => bail!(
            "{} says that this state is another run's; give --state another folder, or repeat that run's settings",
            path.display()
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => fs::create_dir_all(state)
            .and_then(|()| fs::write(state.join(".settings.toml"), settings))
            .and_then(|()| fs::rename(state.join(".settings.toml"), &path))
            .with_context(|| format!("cannot write {}", path.display())),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// A folder without what an earlier run has left in it.
fn emptied(folder: PathBuf) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    absolute(folder)
}

/// A folder as any process knows it, made if it is missing.
fn absolute(folder: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&folder)
        .and_then(|()| folder.canonicalize())
        .with_context(|| format!("cannot make {}", folder.display()))
}

/// A name that no other run on this machine has at the same time.
fn session() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{}-{now:x}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::{NoSettings, Settings, with_nodes};
    use crate::settings::TcpSettings;
    use clap::CommandFactory;

    #[test]
    fn no_two_flags_have_one_name() {
        Settings::<NoSettings>::command().debug_assert();
        Settings::<TcpSettings>::command().debug_assert();
    }

    #[test]
    fn settings_tell_how_many_nodes_there_were() {
        assert_eq!(with_nodes("spawn = 6\nnodes = 4\nseed = 1\n", 6), "spawn = 6\nnodes = 6\nseed = 1\n");
    }
}
