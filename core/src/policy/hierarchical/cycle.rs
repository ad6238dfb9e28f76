//! When sites exchange and how long they let it take.

/// The knobs of a [`Cycle`]; [`new`](Self::new) has the published ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CycleOptions {
    /// Iterations of an epoch, at least 1. All average after the last one of each.
    pub epoch: u64,
    /// Epochs at the beginning in which all average after every iteration.
    pub warm_up: u64,
    /// Epochs at the end in which they do.
    pub cool_down: u64,
    /// Iterations from one exchange to the next after warming up, at least 1.
    pub skip: u64,
    /// The same where a cycle begins again.
    pub most: u64,
    /// Epochs in a row without progress after which exchanges become more frequent, at least 1.
    pub bad: u64,
    /// The share of the best loss that a loss has to be below to be progress.
    pub progress: f64,
}

impl CycleOptions {
    /// Four epochs of warming up and cooling down, an exchange every 4 iterations and every 8 where the cycle begins again,
    /// after the third epoch without 5 % of progress.
    pub const fn new(epoch: u64) -> Self {
        Self { epoch, warm_up: 4, cool_down: 4, skip: 4, most: 8, bad: 3, progress: 0.95 }
    }

    /// Whether all average after this iteration, of so many that training has; [`u64::MAX`] if that is not known.
    pub fn blocks(&self, iteration: u64, iterations: u64) -> bool {
        let warm = iteration <= self.warm_up.saturating_mul(self.epoch);
        let cooling = iterations.saturating_sub(self.cool_down.saturating_mul(self.epoch));
        // Who has come late goes on when others have finished, as between these ends.
        let cool = iterations != u64::MAX && iteration > cooling && iteration <= iterations;
        warm || cool || iteration.is_multiple_of(self.epoch) || iteration == iterations
    }
}

/// How often sites exchange, by what training has gained lately.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cycle {
    /// `gs`: iterations from one exchange to the next.
    pub skip: u64,
    /// `btw`: iterations from sending to merging, at most `skip`.
    pub wait: u64,
    /// The least loss of an epoch since warming up; 0 before the first.
    pub best: f64,
    /// Epochs in a row that were bad.
    pub bad: u64,
}

impl Cycle {
    /// After warming up.
    pub fn new(options: &CycleOptions) -> Self {
        Self { skip: options.skip.max(1), wait: 1, best: 0.0, bad: 0 }
    }

    /// Takes note of the mean loss of an epoch.
    ///
    /// An epoch is bad if its loss is no progress over the best one. After enough of them in a row, `gs ← gs/2` and
    /// `btw ← max(btw − 1, 1)`, at most `gs`; where `gs` is 1 already, the cycle begins again with the longest `gs` and a
    /// quarter of it to wait.
    pub fn conclude(&mut self, loss: f64, options: &CycleOptions) {
        let progress = self.best == 0.0 || loss < self.best * options.progress;
        if progress {
            (self.best, self.bad) = (loss, 0);
            return;
        }
        self.bad += 1;
        if self.bad < options.bad {
            return;
        }
        self.bad = 0;
        if self.skip > 1 {
            self.skip /= 2;
            self.wait = self.wait.saturating_sub(1).clamp(1, self.skip);
        } else {
            (self.skip, self.wait) = (options.most.max(1), (options.most / 4).max(1));
        }
    }

    /// As numbers of which means can be taken.
    pub(super) fn numbers(&self) -> [f64; 4] {
        [self.skip as f64, self.wait as f64, self.best, self.bad as f64]
    }

    /// Of the mean of several: whoever has parted for a time goes on from the middle.
    pub(super) fn of(numbers: [f64; 4]) -> Self {
        let [skip, wait, best, bad] = numbers;
        // What is no number is as little as there can be.
        let whole = |number: f64, least: f64| libm::round(number).max(least).min(1e9) as u64;
        let skip = whole(skip, 1.0);
        Self { skip, wait: whole(wait, 1.0).min(skip), best: best.max(0.0), bad: whole(bad, 0.0) }
    }
}
