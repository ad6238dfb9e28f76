//! What event logs say of a run: who ran when, who did not hear whom, when nodes were ready, and who met.

use super::acquaintance::Introduction;
use super::ending::{Ending, Progress};
use super::meetings::Meetings;
use super::pace::Point;
use crate::run::events::{self, Entry};
use crate::settings::{ProcessSettings, TcpSettings};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Command, CommandFactory};
use kronfleet_core::cluster::{Incarnation, Loss, Occurrence};
use kronfleet_core::time::Instant;
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::fault::{Fault, FaultSchedule};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A start of a node, as its log tells of it; times count from the first record of all.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Life {
    pub(super) incarnation: Incarnation,
    pub(super) began: Instant,
    /// Its last record.
    pub(super) last: Instant,
    /// Whether it said goodbye.
    pub(super) left: bool,
    /// When it came to its averaging points.
    pub(super) points: Vec<Point>,
    /// How it died, if it did.
    pub(super) ending: Option<Ending>,
    /// Whom it met when.
    pub(super) introductions: Vec<Introduction>,
}

/// What event logs say of a run.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The settings that decide what happens in the simulator, as text.
    pub settings: String,
    /// What went wrong, and when.
    pub faults: FaultSchedule,
    pub(super) lives: BTreeMap<NodeId, Vec<Life>>,
    pub(super) meetings: Meetings,
    /// The last record of all.
    pub(super) end: Instant,
}

impl Recorded {
    /// Reads the run folder of a trainer over processes, or the `--state` of one: `settings.toml` and `events/`.
    ///
    /// # Errors
    /// If a file is missing or makes no sense: the message names it.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("settings.toml");
        let remedy = "give the run folder of `shm` or `tcp`, or its --state";
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}; {remedy}", path.display()))?;
        let settings = simulated(&text).with_context(|| format!("the settings in {}", path.display()))?;
        let logs = folder.join("events");
        let entries = events::collect(&logs)?;
        Self::of(settings, &entries).with_context(|| format!("the event logs {}", logs.display()))
    }

    /// Makes sense of logs in the order of [`events::collect`].
    pub(in crate::run) fn of(settings: String, entries: &[Entry]) -> Result<Self> {
        let Some(first) = entries.first() else { bail!("nothing is recorded there") };
        let origin = first.clock;
        let time = |entry: &Entry| Instant::from_nanos(entry.clock - origin);
        let mut lives: BTreeMap<NodeId, Vec<Life>> = BTreeMap::new();
        let mut meetings = Meetings::default();
        for entry in entries {
            let (now, record) = (time(entry), &entry.record);
            let known = lives.entry(record.node).or_default();
            if known.last().is_none_or(|life| life.incarnation != record.incarnation) {
                let started = record.what == Occurrence::Started;
                ensure!(
                    started,
                    "{} {} records before it has started; is a log missing?",
                    record.node,
                    record.incarnation
                );
                let (incarnation, points) = (record.incarnation, Vec::new());
                known.push(Life {
                    incarnation,
                    began: now,
                    last: now,
                    left: false,
                    points,
                    ending: None,
                    introductions: Vec::new(),
                });
            }
            let life = known.last_mut().expect("just pushed, if there was none");
            life.last = now;
            match &record.what {
                Occurrence::Ready { iteration, .. } => life.points.push(Point { iteration: *iteration, at: now }),
                Occurrence::Finished { iteration, .. } => life.points.push(Point { iteration: *iteration, at: now }),
                Occurrence::Left => life.left = true,
                Occurrence::Committed { certificate } => meetings.observe(now, certificate),
                _ => {}
            }
        }
        let end = entries.last().map_or(Instant::ORIGIN, time);
        let mut faults = FaultSchedule::default();
        let losses = losses(entries, origin);
        deaths(&mut lives, &losses, end, &mut faults);
        endings(&mut lives, entries);
        introductions(&mut lives, entries, origin);
        silences(&lives, &losses, end, &mut faults);
        Ok(Self { settings, faults, lives, meetings, end })
    }
}

/// Settings of a trainer over processes as the simulator's: what only processes have is left out.
fn simulated(text: &str) -> Result<String> {
    let table: toml::Table = text.parse()?;
    let real = TcpSettings::augment_args(ProcessSettings::augment_args(Command::new("processes")));
    let real: Vec<&str> = real.get_arguments().filter_map(clap::Arg::get_long).collect();
    let known = crate::settings::JobSettings::command();
    let known: Vec<&str> = known.get_arguments().filter_map(clap::Arg::get_long).collect();
    let mut kept = toml::Table::new();
    for (key, value) in table {
        match key.as_str() {
            key if known.contains(&key) => drop(kept.insert(key.to_owned(), value)),
            key if real.contains(&key) => {}
            _ => bail!("no trainer has a flag --{key}"),
        }
    }
    kept.insert("outages".to_owned(), "none".into());
    Ok(kept.to_string())
}

/// A node lost another.
struct Lost {
    by: NodeId,
    of: NodeId,
    why: Loss,
    /// Since when it had heard nothing, if it knew.
    from: Instant,
    at: Instant,
    /// When it heard the other again.
    until: Option<Instant>,
}

fn losses(entries: &[Entry], origin: u64) -> Vec<Lost> {
    let mut losses: Vec<Lost> = Vec::new();
    let mut silent: BTreeMap<(NodeId, NodeId), Instant> = BTreeMap::new();
    for Entry { clock, record } in entries {
        let (now, by) = (Instant::from_nanos(clock - origin), record.node);
        match record.what {
            Occurrence::Suspect { peer, silent: span } => {
                let since = now.as_nanos().saturating_sub(span.as_nanos() as u64);
                silent.entry((by, peer)).or_insert(Instant::from_nanos(since));
            }
            Occurrence::Down { peer, why } => {
                let from = silent.remove(&(by, peer)).unwrap_or(now).min(now);
                losses.push(Lost { by, of: peer, why, from, at: now, until: None });
            }
            Occurrence::Up { peer, .. } => {
                silent.remove(&(by, peer));
                let open = losses.iter_mut().rev().find(|lost| lost.by == by && lost.of == peer);
                if let Some(lost) = open.filter(|lost| lost.until.is_none()) {
                    lost.until = Some(now);
                }
            }
            _ => {}
        }
    }
    losses
}

/// Adds what happened to processes: they came late, were killed and started again, or ended for good.
fn deaths(lives: &mut BTreeMap<NodeId, Vec<Life>>, losses: &[Lost], end: Instant, faults: &mut FaultSchedule) {
    for (&node, lives) in lives {
        if lives[0].began > Instant::ORIGIN {
            faults.faults.push(Fault::Crash { node, at: Instant::ORIGIN, restart: lives[0].began });
        }
        for index in 0..lives.len() {
            let next = lives.get(index + 1).map(|next| next.began);
            let life = &mut lives[index];
            // Between its last record and the first that somebody has lost it: the later it dies, the more it has sent.
            let noticed =
                losses.iter().filter(|lost| lost.of == node && lost.at >= life.last).map(|lost| lost.at).min();
            match next {
                Some(restart) => {
                    life.ending = Some(Ending { progress: Progress::default(), unheard: false });
                    let at = noticed.unwrap_or(restart).min(restart).max(life.last);
                    faults.faults.push(Fault::Crash { node, at, restart });
                }
                // One that never comes back would be waited for: nobody hears it any more.
                None if life.left || noticed.is_some_and(|at| at < end) => {
                    life.ending = Some(Ending { progress: Progress::default(), unheard: false }).filter(|_| !life.left);
                    let from = if life.left { life.last } else { noticed.unwrap_or(life.last) };
                    faults.faults.push(Fault::Outage { node, from, until: Instant::FAR });
                }
                None => {}
            }
        }
    }
}

/// Finds out how those ended that died.
fn endings(lives: &mut BTreeMap<NodeId, Vec<Life>>, entries: &[Entry]) {
    for (&node, lives) in lives {
        for life in lives.iter_mut().filter(|life| life.ending.is_some()) {
            let mut progress = Progress::default();
            let own = |entry: &&Entry| entry.record.node == node && entry.record.incarnation == life.incarnation;
            let steps = entries.iter().filter(own).filter(|entry| progress.observe(&entry.record));
            let last = steps.last().map(|entry| &entry.record.what);
            // Whoever is done has heard of the proposal; whoever has committed, that all are done, and that it is committed.
            let proposed = matches!(last, Some(Occurrence::Proposed { .. }));
            let attempt = match last {
                Some(Occurrence::Done { attempt, .. } | Occurrence::Proposed { attempt, .. }) => Some(*attempt),
                Some(Occurrence::Committed { certificate }) => Some(certificate.attempt),
                _ => None,
            };
            let heard = |entry: &Entry| match &entry.record.what {
                _ if entry.record.node == node => false,
                Occurrence::Done { attempt: done, .. } => proposed && Some(*done) == attempt,
                Occurrence::Committed { certificate } => Some(certificate.attempt) == attempt,
                _ => false,
            };
            let unheard = attempt.is_some() && !entries.iter().any(heard);
            life.ending = Some(Ending { progress, unheard });
        }
    }
}

/// Adds silences between processes that were both alive: one stood still, or what lay between them was cut.
fn silences(lives: &BTreeMap<NodeId, Vec<Life>>, losses: &[Lost], end: Instant, faults: &mut FaultSchedule) {
    for lost in losses {
        let alive = lives.get(&lost.of).is_some_and(|lives| {
            // Whoever records something afterwards was not dead.
            lives.iter().any(|life| life.began <= lost.from && lost.at < life.last)
        });
        let (source, target) = match lost.why {
            Loss::Silent | Loss::Reported => (lost.of, lost.by),
            Loss::Deaf => (lost.by, lost.of),
            Loss::Left | Loss::Replaced => continue,
        };
        if alive {
            let until = lost.until.unwrap_or(end);
            let (sources, targets) = ([source].into(), [target].into());
            faults.faults.push(Fault::Cut { sources, targets, from: lost.from, until });
        }
    }
}

/// Finds out when who met whom: connections take time to be made.
fn introductions(lives: &mut BTreeMap<NodeId, Vec<Life>>, entries: &[Entry], origin: u64) {
    let began: BTreeMap<(NodeId, Incarnation), Instant> = lives
        .iter()
        .flat_map(|(&node, lives)| lives.iter().map(move |life| ((node, life.incarnation), life.began)))
        .collect();
    for Entry { clock, record } in entries {
        let Occurrence::Up { peer, incarnation } = record.what else { continue };
        let at = Instant::from_nanos(clock - origin);
        let own = lives.get_mut(&record.node).into_iter().flatten();
        let Some(life) = own.into_iter().find(|life| life.incarnation == record.incarnation) else { continue };
        let known = life.introductions.iter().any(|known| known.peer == peer && known.incarnation == incarnation);
        // Whoever meets again was kept apart by a cut, or by a peer that stood still.
        let from = began.get(&(peer, incarnation)).filter(|_| !known).map_or(at, |&began| began.max(life.began));
        life.introductions.push(Introduction { peer, incarnation, from, at });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kronfleet_core::cluster::{Digest, Record};
    use kronfleet_core::time::Duration;

    fn entry(clock: u64, node: u32, incarnation: u64, what: Occurrence) -> Entry {
        let (node, incarnation) = (NodeId(node), Incarnation(incarnation));
        Entry { clock: 1_000 + clock, record: Record { at: Instant::ORIGIN, node, incarnation, what } }
    }

    fn up(peer: u32, incarnation: u64) -> Occurrence {
        Occurrence::Up { peer: NodeId(peer), incarnation: Incarnation(incarnation) }
    }

    fn down(peer: u32, why: Loss) -> Occurrence {
        Occurrence::Down { peer: NodeId(peer), why }
    }

    fn ready(iteration: u64) -> Occurrence {
        Occurrence::Ready { turn: 1, iteration, samples: (0, 1), contribution: Digest(0) }
    }

    #[test]
    fn deaths_silences_and_goodbyes_are_told_apart() {
        let suspect = Occurrence::Suspect { peer: NodeId(0), silent: Duration::from_nanos(5) };
        let entries = [
            entry(0, 0, 1, Occurrence::Started),
            entry(3, 1, 1, Occurrence::Started),
            entry(4, 0, 1, up(1, 1)),
            entry(6, 1, 1, up(0, 1)),
            entry(9, 0, 1, ready(5)),
            entry(10, 1, 1, ready(5)),
            // n0 stands still for a while: it goes on afterwards.
            entry(20, 1, 1, suspect),
            entry(30, 1, 1, down(0, Loss::Silent)),
            entry(50, 1, 1, up(0, 1)),
            entry(51, 0, 1, ready(10)),
            // n1 dies: it does not.
            entry(60, 0, 1, down(1, Loss::Reported)),
            entry(70, 1, 2, Occurrence::Started),
            entry(75, 0, 1, up(1, 2)),
            entry(90, 1, 2, Occurrence::Left),
            entry(91, 0, 1, down(1, Loss::Left)),
            entry(99, 0, 1, ready(15)),
        ];
        let recorded = Recorded::of(String::new(), &entries).expect("sound logs");
        let mut faults: Vec<String> = recorded.faults.to_string().lines().map(str::to_owned).collect();
        faults.sort();
        let until = u64::MAX;
        let expected = ["crash n1 0 3", "crash n1 60 70", "cut n0 n1 15 50", &format!("outage n1 90 {until}")];
        assert_eq!(faults, expected);
        let lives = &recorded.lives[&NodeId(1)];
        assert!(lives[0].ending.is_some() && lives[1].ending.is_none());
        let met = |node, life: usize| -> Vec<(u64, u64)> {
            let introductions = &recorded.lives[&NodeId(node)][life].introductions;
            introductions.iter().map(|met| (met.from.as_nanos(), met.at.as_nanos())).collect()
        };
        assert_eq!((met(0, 0), met(1, 0)), (vec![(3, 4), (70, 75)], vec![(3, 6), (50, 50)]));
        let points: Vec<u64> = recorded.lives[&NodeId(0)][0].points.iter().map(|point| point.iteration).collect();
        assert_eq!((points, recorded.end), (vec![5, 10, 15], Instant::from_nanos(99)));
        let headless = Recorded::of(String::new(), &entries[1..]).expect_err("a start is missing").to_string();
        assert!(headless.contains("n0 i1 records before it has started"), "{headless}");
    }

    #[test]
    fn settings_of_processes_are_left_out_and_unknown_ones_refused() {
        let text = "nodes = 3\nkills = 4\naway = \"1s\"\njoin = [\"a:1\"]\nlearning-rate = 0.1\n";
        let settings = simulated(text).expect("settings of a trainer");
        assert_eq!(settings, "learning-rate = 0.1\nnodes = 3\noutages = \"none\"\n");
        assert!(simulated("no-such-knob = 1\n").is_err_and(|error| error.to_string().contains("--no-such-knob")));
    }
}
