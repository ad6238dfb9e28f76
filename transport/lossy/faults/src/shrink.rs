//! The smallest schedule that still breaks the same law.
//!
//! First faults are taken away, in ever smaller groups (delta debugging: Zeller & Hildebrandt 2002), then nodes, then
//! what makes links imperfect, and then what is left is made shorter and rounder, until nothing helps any more.

use crate::play::{Failure, Options, play_caught};
use crate::schedule::{Fault, Run, Schedule};
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::link::LinkOptions;

/// Makes `schedule`, which failed with `failure`, as small as it gets with at most `runs` runs.
///
/// The schedule that comes back breaks the same law, for the reason that comes back with it.
pub fn shrink(schedule: &Schedule, failure: &Failure, runs: u32) -> (Schedule, Failure) {
    shrink_by(schedule, failure, runs, |candidate| play_caught(candidate, Options::default()).err())
}

/// The same with another judge, who says what a schedule breaks.
pub fn shrink_by(
    schedule: &Schedule,
    failure: &Failure,
    runs: u32,
    judge: impl FnMut(&Schedule) -> Option<Failure>,
) -> (Schedule, Failure) {
    let mut shrinker = Shrinker { best: schedule.clone(), failure: failure.clone(), left: runs, judge };
    loop {
        let before = shrinker.best.clone();
        shrinker.faults();
        shrinker.nodes();
        shrinker.surroundings();
        shrinker.times();
        if shrinker.best == before || shrinker.left == 0 {
            return (shrinker.best, shrinker.failure);
        }
    }
}

struct Shrinker<J> {
    best: Schedule,
    failure: Failure,
    left: u32,
    judge: J,
}

impl<J: FnMut(&Schedule) -> Option<Failure>> Shrinker<J> {
    /// Takes `candidate` if it breaks the same law.
    fn take(&mut self, candidate: Schedule) -> bool {
        if self.left == 0 || candidate == self.best {
            return false;
        }
        self.left -= 1;
        match (self.judge)(&candidate) {
            Some(failure) if failure.law == self.failure.law => {
                (self.best, self.failure) = (candidate, failure);
                true
            }
            _ => false,
        }
    }

    fn faults(&mut self) {
        let mut size = self.best.faults.len().div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < self.best.faults.len() {
                let mut candidate = self.best.clone();
                candidate.faults.drain(from..(from + size).min(candidate.faults.len()));
                if !self.take(candidate) {
                    from += size;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }

    fn nodes(&mut self) {
        while self.best.run.nodes > 1 {
            let last = NodeId(self.best.run.nodes - 1);
            let mut candidate = self.best.clone();
            candidate.run.nodes -= 1;
            candidate.run.minimum = candidate.run.minimum.min(candidate.run.nodes);
            candidate.faults = candidate.faults.iter().filter_map(|fault| fault.without(last)).collect();
            if !self.take(candidate) {
                return;
            }
        }
    }

    /// Everything that is not a fault takes its plainest form.
    fn surroundings(&mut self) {
        let plain = Run::default();
        let simpler: [fn(&mut Run, &Run); 11] = [
            |run, plain| run.link = plain.link.clone(),
            |run, _| run.link.loss = 0.0,
            |run, _| run.link.duplicate = 0.0,
            |run, _| (run.link.reorder, run.link.jitter) = (0.0, Duration::ZERO),
            |run, _| run.link.bandwidth = None,
            |run, plain| (run.values, run.chunk) = (plain.values, plain.chunk),
            |run, plain| run.told = plain.told,
            |run, plain| run.policy = plain.policy,
            |run, plain| run.minimum = plain.minimum.min(run.nodes),
            |run, plain| (run.interval, run.step, run.budget) = (plain.interval, plain.step, plain.budget),
            |run, plain| {
                (run.rejoin, run.wait, run.reports, run.quarantine) = (plain.rejoin, plain.wait, plain.reports, 0);
            },
        ];
        for simplify in simpler {
            let mut candidate = self.best.clone();
            simplify(&mut candidate.run, &plain);
            self.take(candidate);
        }
    }

    fn times(&mut self) {
        for index in 0..self.best.faults.len() {
            self.simpler(index);
            self.shorter(index);
            self.rounder(index);
        }
    }

    /// Numbers of a fault that are not times.
    fn simpler(&mut self, index: usize) {
        let mut candidate = self.best.clone();
        match &mut candidate.faults[index] {
            Fault::Kill { frames, .. } => *frames = 0,
            Fault::Link { link, .. } => *link = LinkOptions { loss: link.loss, ..LinkOptions::default() },
            Fault::Damage { share, .. } | Fault::Echo { share, .. } => *share = 1.0,
            _ => return,
        }
        self.take(candidate);
    }

    fn shorter(&mut self, index: usize) {
        loop {
            let mut candidate = self.best.clone();
            let (Some(from), Some(until)) = candidate.faults[index].span_mut() else { return };
            let length = until.since(*from);
            if length < Duration::from_millis(10) {
                return;
            }
            *until = *from + length / 2;
            if !self.take(candidate) {
                return;
            }
        }
    }

    fn rounder(&mut self, index: usize) {
        for unit in [1_000_000_000, 100_000_000, 10_000_000, 1_000_000] {
            let round = |time: Instant| Instant::from_nanos(time.as_nanos().next_multiple_of(unit));
            let mut candidate = self.best.clone();
            let (from, until) = candidate.faults[index].span_mut();
            let Some(from) = from else { return };
            *from = round(*from);
            if let Some(until) = until {
                *until = round(*until);
            }
            if self.take(candidate) {
                return;
            }
        }
    }
}
