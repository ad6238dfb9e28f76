//! How a process died in a recorded run: what it did last, and whether anybody heard of it.
//!
//! The moment is known only to lie between its last record and the first record of its loss, and the simulator's rounds
//! are faster than real ones. So a replayed node falls silent when it is about to record more than was recorded.

use kronfleet_core::cluster::{Occurrence, Record};
use std::collections::BTreeMap;

/// What a node recorded since it was last ready: how often each kind of step in a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// After how many iterations it was ready; 0 before the first time.
    iteration: u64,
    steps: BTreeMap<&'static str, u32>,
}

impl Progress {
    /// Takes note of a record; answers whether it is a step in a round.
    pub(super) fn observe(&mut self, record: &Record) -> bool {
        let step = match &record.what {
            Occurrence::Ready { iteration, .. } => {
                *self = Self { iteration: *iteration, steps: BTreeMap::new() };
                return true;
            }
            Occurrence::Proposed { .. } => "proposed",
            Occurrence::Recovering { .. } => "recovering",
            Occurrence::Accepted { .. } => "accepted",
            Occurrence::Done { .. } => "done",
            Occurrence::Committed { .. } => "committed",
            Occurrence::Healed { .. } => "healed",
            Occurrence::Finished { .. } => "finished",
            _ => return false,
        };
        *self.steps.entry(step).or_default() += 1;
        true
    }
}

/// How a start of a node ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// What it had recorded since it was last ready.
    pub(super) progress: Progress,
    /// Whether it died with its last record, before anybody heard of that.
    pub(super) unheard: bool,
}

/// What becomes of a record of a replayed node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It lives on.
    Alive,
    /// It dies with this record.
    Last,
    /// It had died before.
    Beyond,
}

/// A replayed node on its way to its recorded end.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    ending: Option<Ending>,
    progress: Progress,
    over: bool,
}

impl Fate {
    /// One that dies like this, or lives on.
    pub(super) fn new(ending: Option<Ending>) -> Self {
        Self { ending, ..Self::default() }
    }

    /// Whether it has died, and whoever drives it only does not know yet.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Takes note of a record that it makes.
    pub(super) fn observe(&mut self, record: &Record) -> Verdict {
        if self.over {
            return Verdict::Beyond;
        }
        let Some(ending) = &self.ending else { return Verdict::Alive };
        let before = self.progress.clone();
        if !self.progress.observe(record) {
            return Verdict::Alive;
        }
        let (now, last) = (&self.progress, &ending.progress);
        let exceeds = |step: (&&str, &u32)| last.steps.get(*step.0).is_none_or(|most| step.1 > most);
        // It has got as far as it got, and this is one more.
        if before.iteration == last.iteration && (now.iteration != last.iteration || now.steps.iter().any(exceeds)) {
            self.over = true;
            return Verdict::Beyond;
        }
        if ending.unheard && now == last {
            self.over = true;
            return Verdict::Last;
        }
        Verdict::Alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kronfleet_core::cluster::{Attempt, Digest, Incarnation};
    use kronfleet_core::time::Instant;
    use kronfleet_core::transport::NodeId;

    fn record(what: Occurrence) -> Record {
        Record { at: Instant::ORIGIN, node: NodeId(1), incarnation: Incarnation(1), what }
    }

    fn ready(iteration: u64) -> Record {
        record(Occurrence::Ready { turn: 1, iteration, samples: (0, 1), contribution: Digest(0) })
    }

    fn done() -> Record {
        record(Occurrence::Done { attempt: Attempt::default(), result: Digest(0) })
    }

    fn verdicts(ending: &Ending, records: &[Record]) -> Vec<Verdict> {
        let mut fate = Fate::new(Some(ending.clone()));
        records.iter().map(|record| fate.observe(record)).collect()
    }

    #[test]
    fn it_records_nothing_beyond_its_end_and_dies_with_what_nobody_heard() {
        let mut progress = Progress::default();
        for record in [ready(5), done(), ready(10), done()] {
            progress.observe(&record);
        }
        let heard = Ending { progress, unheard: false };
        let records = [ready(5), done(), done(), ready(10), done(), record(Occurrence::Left), ready(15)];
        let mut expected = [Verdict::Alive; 7];
        expected[6] = Verdict::Beyond;
        assert_eq!(verdicts(&heard, &records), expected);
        let again = [ready(5), done(), ready(10), done(), done(), ready(15)];
        assert_eq!(verdicts(&heard, &again)[3..], [Verdict::Alive, Verdict::Beyond, Verdict::Beyond]);
        let unheard = Ending { unheard: true, ..heard };
        assert_eq!(verdicts(&unheard, &again)[2..], [Verdict::Alive, Verdict::Last, Verdict::Beyond, Verdict::Beyond]);
        assert!(!Fate::new(None).is_over() && Fate::new(None).observe(&done()) == Verdict::Alive);
    }
}
