//! A clock that runs wrong: it jumps ahead and drifts, but never goes back.

use crate::schedule::Fault;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;

/// From the time of the run to the time that a machine's clock shows, and back.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    pieces: Vec<Piece>,
}

/// From `begins` on the clock shows `shows` and more, at `rate`.
#[derive(Clone, Copy, Debug)]
struct Piece {
    begins: u64,
    shows: u64,
    rate: f64,
}

impl Piece {
    fn show(&self, time: u64) -> u64 {
        let passed = time - self.begins;
        self.shows + if self.rate == 1.0 { passed } else { (passed as f64 * self.rate) as u64 }
    }
}

impl Clock {
    /// The clock of `node` under these faults.
    pub(crate) fn new(faults: &[Fault], node: NodeId) -> Self {
        let mut jumps: Vec<(u64, Duration)> = Vec::new();
        let mut drifts: Vec<(u64, u64, f64)> = Vec::new();
        for fault in faults {
            match *fault {
                Fault::Jump { node: who, at, by } if who == node => jumps.push((at.as_nanos(), by)),
                Fault::Drift { node: who, rate, from, until } if who == node => {
                    drifts.push((from.as_nanos(), until.as_nanos(), rate));
                }
                _ => {}
            }
        }
        let ends = drifts.iter().flat_map(|&(from, until, _)| [from, until]);
        let mut times: Vec<u64> = jumps.iter().map(|&(at, _)| at).chain(ends).collect();
        times.sort_unstable();
        times.dedup();
        let mut pieces = vec![Piece { begins: 0, shows: 0, rate: 1.0 }];
        for time in times {
            let shows = pieces.last().map_or(0, |piece| piece.show(time));
            let jumped: Duration = jumps.iter().filter(|&&(at, _)| at == time).map(|&(_, by)| by).sum();
            let active = drifts.iter().filter(|&&(from, until, _)| from <= time && time < until);
            let rate = active.map(|&(.., rate)| rate).product();
            pieces.push(Piece { begins: time, shows: shows + jumped.as_nanos() as u64, rate });
        }
        Self { pieces }
    }

    /// What the clock shows at `time`.
    pub(crate) fn shows(&self, time: Instant) -> Instant {
        let time = time.as_nanos();
        let begun = self.pieces.partition_point(|piece| piece.begins <= time);
        Instant::from_nanos(self.pieces[begun - 1].show(time))
    }

    /// When the clock shows `shown` or more for the first time.
    pub(crate) fn time(&self, shown: Instant) -> Instant {
        if shown == Instant::FAR {
            return Instant::FAR;
        }
        let target = shown.as_nanos();
        let reached = self.pieces.partition_point(|piece| piece.shows <= target).max(1);
        let piece = self.pieces[reached - 1];
        let span = target - piece.shows.min(target);
        let mut time = piece.begins + if piece.rate == 1.0 { span } else { (span as f64 / piece.rate) as u64 };
        // Division rounds; the clock must have come there.
        while piece.show(time) < target {
            time += 1;
        }
        let next = self.pieces.get(reached).map_or(u64::MAX, |next| next.begins);
        Instant::from_nanos(time.min(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NODE: NodeId = NodeId(1);

    fn any_fault() -> impl Strategy<Value = Fault> {
        let at = |time: u64| Instant::from_nanos(time);
        prop_oneof![
            (0..1000_u64, 0..500_u64).prop_map(move |(time, by)| Fault::Jump {
                node: NODE,
                at: at(time),
                by: Duration::from_nanos(by)
            }),
            (0..1000_u64, 0..500_u64, 0.1..10.0).prop_map(move |(from, len, rate)| Fault::Drift {
                node: NODE,
                rate,
                from: at(from),
                until: at(from + len)
            }),
        ]
    }

    proptest! {
        #[test]
        fn it_never_goes_back_and_comes_to_every_time_it_is_asked_for(
            faults in proptest::collection::vec(any_fault(), 0..6),
            shown in 0..5000_u64,
        ) {
            let clock = Clock::new(&faults, NODE);
            let shows = |time| clock.shows(Instant::from_nanos(time));
            for time in 0..2000 {
                prop_assert!(shows(time) <= shows(time + 1));
            }
            let time = clock.time(Instant::from_nanos(shown)).as_nanos();
            prop_assert!(shows(time).as_nanos() >= shown);
            prop_assert!(time == 0 || shows(time - 1).as_nanos() < shown);
        }
    }

    #[test]
    fn without_faults_it_is_right() {
        let clock = Clock::new(&[], NODE);
        let time = Instant::from_nanos(1_234_567_891);
        assert_eq!((clock.shows(time), clock.time(time)), (time, time));
        assert_eq!(clock.time(Instant::FAR), Instant::FAR);
    }
}
