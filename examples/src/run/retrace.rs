//! The event logs of a run among real processes, replayed in the simulator.
//!
//! # For users
//! Logs tell who ran from when to when, who did not hear whom, and when each node came to its averaging points. A replay
//! lets the same fleet train in virtual time, with the same settings, seed and data, under these faults and at this pace;
//! and says how far the same nodes met in the same averages, and whether the results are the same to the bit. Whoever
//! wants to know why something happened in a real run looks at its replay, which is the same every time.
//!
//! # For implementers
//! `recorded` reads logs, `pace` makes steps take as long as they took, `acquaintance` lets nodes meet when they met,
//! `ending` lets them die where they died, `meetings` compares. Frames, and how long each travelled, are not recorded: links of the replay are fast and lose nothing. A run
//! whose rounds hung on such things differs, and the replay says where.

mod acquaintance;
mod ending;
mod meetings;
mod pace;
mod recorded;

pub use meetings::Repetition;
pub use recorded::Recorded;

use super::backends::Backends;
use super::display::Display;
use super::evaluation::Evaluator;
use super::lossy::{Ending, Fleet};
use super::watch::{Watch, blank};
use super::witness::Witness;
use crate::settings::Policy;
use acquaintance::Acquaintance;
use anyhow::{Result, bail};
use ending::{Fate, Verdict};
use kronfleet_core::cluster::{Occurrence, Persisted, Record, RunId};
use kronfleet_core::participant::Participant;
use kronfleet_core::seed::Seed;
use kronfleet_core::time::Duration;
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::link::LinkOptions;
use kronfleet_lossy::network::NetworkOptions;
use kronfleet_lossy::simulation::{Ended, Simulation, SimulationOptions, Start};
use kronfleet_lossy::storage::Disks;
use kronfleet_lossy::trace::Trace;
use meetings::Meetings;
use pace::{Pace, Paced};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

/// How long a frame travels: less than between any processes, so that a node waits for its recorded points rather than
/// coming late to them.
const LATENCY: Duration = Duration::from_micros(20);

/// How much longer than the recorded run its replay may take.
const GRACE: Duration = Duration::from_secs(1);

impl Fleet<'_> {
    /// Replays what event logs tell of, on the backend of the settings.
    ///
    /// # Errors
    /// If a node cannot be made, or the logs tell of one that there is not. What goes wrong later is the story's
    /// [`failure`](super::Story::failure).
    pub fn retrace(&self, recorded: &Recorded) -> Result<Ending> {
        if self.averaging.policy == Policy::Salf {
            bail!("event logs do not tell how far steps of --policy salf had come: they cannot be replayed");
        }
        if self.averaging.policy.gossips() {
            bail!(
                "event logs do not tell which messages of gossip came in time for which exchange, and hold no averages to \
                 compare: they cannot be replayed"
            );
        }
        let backends = Backends::open(self.task)?;
        self.workshop.inform(self.averaging)?;
        let nodes = self.averaging.nodes;
        if let Some(node) = recorded.lives.keys().find(|node| node.0 >= nodes) {
            bail!("the event logs tell of {node}, but the settings of {nodes} nodes");
        }
        let missing = (0..nodes).map(NodeId).find(|node| !recorded.lives.contains_key(node));
        if let Some(missing) = missing {
            bail!("there is no event log of {missing}: put the logs of all {nodes} nodes into one folder");
        }
        let story = blank(
            format!("{} on {}, replayed from event logs", self.workshop.model.name, self.workshop.data),
            self.settings.to_owned(),
            self.task.seed,
            nodes,
            self.output.target_accuracy,
        );
        let evaluator = Evaluator::new(backends.judge(self.workshop)?, nodes, self.agenda());
        let display = Display::new(nodes, self.task.iterations, self.output.quiet);
        let replay = "lossy --replay with the same folder";
        let mut watch = Watch::new(story, evaluator, display, Arc::clone(&self.stop), replay)
            .waiting(self.averaging.min_members.is_some())
            .stopping(self.output.stop_at_accuracy);
        let options = NetworkOptions {
            link: LinkOptions { latency: LATENCY, ..LinkOptions::default() },
            // Sockets and segments tell of a death at once.
            reports: true,
            faults: recorded.faults.clone(),
            ..NetworkOptions::new(nodes, Seed(self.task.seed).derive("network", 0))
        };
        let disks = Disks::default();
        let start = self.starts(recorded, &backends, &disks)?;
        let mut simulation =
            Simulation::new(SimulationOptions::new(options), Trace::hashed(self.settings), start).on(&disks);
        let (mut meetings, mut events) = (Meetings::default(), String::new());
        let ended = simulation.run(recorded.end + GRACE, |seen| {
            let online = !seen.network.offline(seen.node);
            let (now, trace) = (seen.now, seen.trace);
            let Paced { participant, fate, .. } = seen.process;
            let line = |record: &Record| {
                // What a dead node would have gone on to record has not happened.
                if fate.observe(record) == Verdict::Beyond {
                    return;
                }
                trace.line(now, format_args!("{record}"));
                let _ = writeln!(events, "{record}");
                if let Occurrence::Committed { certificate } = &record.what {
                    meetings.observe(now, certificate);
                }
            };
            watch.observe(now, seen.node, participant, online, line)
        });
        // The recorded run ended before all had finished, and so does this one.
        watch.story.interrupted |= ended != Ended::Observer;
        let (mut story, model) = watch.end();
        story.trace_hash = Some(simulation.end().0.finish()?.to_string());
        story.events = events;
        let repetition = recorded.meetings.compare(&meetings);
        let _ = write!(story.invariants, "\n\n{repetition}");
        story.repetition = Some(repetition);
        Ok((story, model))
    }

    /// What starts nodes as they were started in the recorded run.
    fn starts(&self, recorded: &Recorded, backends: &Backends, disks: &Disks) -> Result<Start<Paced>> {
        let mut starts = BTreeMap::new();
        for (&node, lives) in &recorded.lives {
            let start = |life: &recorded::Life| {
                let schedule = self.schedule(node);
                let settings = self.averaging.cluster(RunId(self.task.seed), node, life.incarnation)?;
                let training = Witness::new(backends.trainer(self.workshop, node.0)?);
                let pace = Pace::new(life.points.clone(), self.network.step_of(node));
                let acquaintance = Acquaintance::new(life.introductions.clone());
                Ok((settings, training, Fate::new(life.ending.clone()), acquaintance, pace, schedule))
            };
            starts.insert(node, lives.iter().map(start).collect::<Result<VecDeque<_>>>()?);
        }
        let (averaging, disks) = (self.averaging.clone(), disks.clone());
        Ok(Box::new(move |node, _, _, now| {
            let next = starts.get_mut(&node).and_then(VecDeque::pop_front);
            let (settings, training, fate, acquaintance, pace, schedule) =
                next.expect("a start for each life of each node");
            let persisted = Persisted::read(&mut disks.of(node)).expect("memory can be read");
            let policy = averaging.policy(node).expect("the run that is replayed had the same");
            let participant = Participant::recover(settings, now, persisted, training, policy, schedule);
            Paced::new(participant, fate, acquaintance, pace, now)
        }))
    }
}
