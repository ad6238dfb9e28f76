//! Many seeds, in parallel.

use crate::draw::draw;
use crate::play::{Failure, Options, Outcome, limit, play_caught};
use crate::schedule::Schedule;
use kronfleet_conformance::invariants::Summary;
use kronfleet_core::time::Duration;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Of so many seeds one is run twice, and its traces compared.
const TWICE: u64 = 16;
/// Seeds that are run before it is asked whether enough have failed.
const BATCH: usize = 16;

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Sweep {
    /// The sum over all runs that broke nothing.
    pub total: Summary,
    /// How many were run.
    pub runs: u64,
    /// Seeds that broke something, and what, in the order of the seeds.
    pub failures: Vec<(u64, Failure)>,
    /// The longest that a fleet needed to recover.
    pub slowest: Duration,
    /// The largest share of what a node may hold for others that one held.
    pub fullest: f64,
}

/// Runs the schedules of these seeds until `most` of them have failed.
///
/// `progress` is told after every run how many have failed.
pub fn sweep(seeds: Range<u64>, most: usize, progress: impl Fn(usize) + Sync) -> Sweep {
    let sweep = Mutex::new(Sweep::default());
    let lock = || sweep.lock().unwrap_or_else(PoisonError::into_inner);
    let all: Vec<u64> = seeds.collect();
    // In batches, so that what is found first does not depend on how threads share the seeds.
    for batch in all.chunks(BATCH) {
        batch.par_iter().with_max_len(1).for_each(|&seed| {
            let options = Options { twice: seed.is_multiple_of(TWICE), verbose: false };
            let schedule = draw(seed);
            let outcome = play_caught(&schedule, options);
            let mut sweep = lock();
            sweep.take(&schedule, outcome);
            let failed = sweep.failures.len();
            drop(sweep);
            progress(failed);
        });
        if lock().failures.len() >= most {
            break;
        }
    }
    let mut sweep = sweep.into_inner().unwrap_or_else(PoisonError::into_inner);
    sweep.failures.sort_by_key(|(seed, _)| *seed);
    sweep
}

impl Sweep {
    fn take(&mut self, schedule: &Schedule, outcome: Result<Outcome, Failure>) {
        self.runs += 1;
        match outcome {
            Ok(outcome) => {
                self.total += outcome.summary;
                self.slowest = self.slowest.max(outcome.recovered);
                self.fullest = self.fullest.max(outcome.held as f64 / limit(schedule) as f64);
            }
            Err(failure) => self.failures.push((schedule.run.seed, failure)),
        }
    }
}
