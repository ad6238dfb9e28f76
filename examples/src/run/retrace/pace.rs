//! Nodes that come to their averaging points when they did in a recorded run.

use super::acquaintance::Acquaintance;
use super::ending::Fate;
use crate::run::watch::Trained;
use crate::run::witness::Witness;
use kronfleet_core::participant::Step;
use kronfleet_core::process::{Process, Work};
use kronfleet_core::storage::Write;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::{Event, NodeId};

/// The shortest step: a node that is late hurries.
const HURRY: Duration = Duration::from_micros(1);

/// When a node had made so many iterations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) iteration: u64,
    pub(super) at: Instant,
}

/// How long the steps of one start of a node take.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    points: Vec<Point>,
    /// The first point that it has not come to.
    next: usize,
    /// Its iteration at the last step.
    iteration: u64,
    /// What a step takes where nothing is recorded.
    usual: Duration,
}

impl Pace {
    pub(super) fn new(points: Vec<Point>, usual: Duration) -> Self {
        Self { points, next: 0, iteration: 0, usual }
    }

    /// How long the step takes that is begun at `now` after so many iterations: an equal share of the time until the next
    /// recorded point.
    fn step(&mut self, now: Instant, iteration: u64) -> Duration {
        let healed = iteration != self.iteration + 1 && iteration != self.iteration;
        self.iteration = iteration;
        if healed {
            // Somebody else's iterations: what was recorded earlier is not to come any more.
            self.next = self.points.partition_point(|point| point.at <= now);
        }
        while self.points.get(self.next).is_some_and(|point| point.iteration <= iteration) {
            self.next += 1;
        }
        let Some(point) = self.points.get(self.next) else { return self.usual };
        let steps = u32::try_from(point.iteration - iteration).unwrap_or(u32::MAX);
        (point.at.since(now) / steps).max(HURRY)
    }
}

/// A participant whose steps take as long as in a recorded run, that meets its peers when it met them, and dies like there.
pub(super) struct Paced {
    pub(super) participant: Trained,
    pub(super) fate: Fate,
    acquaintance: Acquaintance,
    pace: Pace,
    now: Instant,
}

impl Paced {
    pub(super) fn new(participant: Trained, fate: Fate, acquaintance: Acquaintance, pace: Pace, now: Instant) -> Self {
        Self { participant, fate, acquaintance, pace, now }
    }
}

impl Process for Paced {
    fn handle(&mut self, now: Instant, event: Event<'_>) {
        let ahead = match event {
            Event::Frame { from: peer, .. } | Event::Up(peer) => self.acquaintance.is_ahead(now, peer),
            Event::Down(_) => false,
        };
        if !ahead && !self.fate.is_over() {
            self.participant.handle(now, event);
        }
    }

    fn wake(&mut self, now: Instant) {
        self.now = now;
        if self.fate.is_over() {
            return;
        }
        while let Some(peer) = self.acquaintance.meet(now) {
            self.participant.handle(now, Event::Up(peer));
        }
        self.participant.wake(now);
    }

    fn timeout(&self) -> Instant {
        if self.fate.is_over() { Instant::FAR } else { self.participant.timeout().min(self.acquaintance.next()) }
    }

    fn poll(&mut self, now: Instant, max_frame: usize) -> Option<(NodeId, usize)> {
        if self.fate.is_over() { None } else { self.participant.poll(now, max_frame) }
    }

    fn fill(&mut self, target: &mut [u8]) {
        self.participant.fill(target);
    }

    fn discard(&mut self) {
        self.participant.discard();
    }

    fn postpone(&mut self) {
        self.participant.postpone();
    }

    fn poll_write(&mut self) -> Option<Write> {
        if self.fate.is_over() { None } else { self.participant.poll_write() }
    }

    fn written(&mut self, now: Instant, ticket: u64, durable: bool) {
        self.participant.written(now, ticket, durable);
    }
}

impl Work for Paced {
    type Task = Step<Witness>;

    fn begin(&mut self) -> Option<(Duration, Self::Task)> {
        if self.fate.is_over() {
            return None;
        }
        let (_, task) = self.participant.begin()?;
        Some((self.pace.step(self.now, self.participant.iteration()), task))
    }

    fn complete(&mut self, now: Instant, task: Self::Task) {
        self.participant.complete(now, task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(milliseconds)
    }

    #[test]
    fn steps_end_at_the_recorded_points() {
        let points = [(5, 50), (10, 150), (11, 151)].map(|(iteration, time)| Point { iteration, at: at(time) });
        let mut pace = Pace::new(points.to_vec(), Duration::from_millis(7));
        let mut now = at(0);
        for iteration in 0..5 {
            assert_eq!(pace.step(now, iteration), Duration::from_millis(10));
            now += Duration::from_millis(10);
        }
        // Its round has taken half of the time until the next.
        assert_eq!(pace.step(at(100), 5), Duration::from_millis(10));
        assert_eq!([pace.step(at(110), 6), pace.step(at(120), 7)], [Duration::from_millis(10); 2]);
        // One that comes too late hurries until it is on time again.
        assert_eq!([pace.step(at(160), 8), pace.step(at(160), 9)], [HURRY; 2]);
        assert_eq!(pace.step(at(160), 10), HURRY);
        assert_eq!(pace.step(at(161), 11), Duration::from_millis(7));
    }

    #[test]
    fn who_is_healed_skips_what_is_past() {
        let points =
            [(5, 50), (40, 150), (20, 200), (25, 300)].map(|(iteration, time)| Point { iteration, at: at(time) });
        let mut pace = Pace::new(points.to_vec(), Duration::from_millis(7));
        assert_eq!(pace.step(at(10), 0), Duration::from_millis(8));
        assert_eq!(pace.step(at(110), 38), Duration::from_millis(20));
        assert_eq!(pace.step(at(160), 15), Duration::from_millis(8), "it was set back");
    }
}
