//! Averages of one part of the model at a time, that nobody waits for at once (Streaming DiLoCo, arXiv 2501.18512).

use crate::outer::OuterOptimiser;
use crate::policy::{AveragingPolicy, Blend, Overlap, PolicyAction, PolicyInput, Rejoin, Request};
use crate::time::Instant;
use alloc::vec;
use alloc::vec::Vec;

/// The knobs of [`Streaming`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamingOptions {
    /// H: iterations from one average of a part to the next of the same.
    pub interval: u64,
    /// P: parts of the model; they take turns every H/P iterations.
    pub parts: u32,
    /// τ: steps from contributing a part to taking in what was made of it, less than H/P.
    pub delay: u64,
    /// α: what the node's own values count then.
    pub share: f64,
    /// What is made of averages.
    pub outer: OuterOptimiser,
    /// What a contribution consists of, beside the part.
    pub request: Request,
    /// How a node that was away comes back.
    pub rejoin: Rejoin,
}

impl StreamingOptions {
    /// With the published outer optimiser and share.
    pub fn new(interval: u64, parts: u32, delay: u64) -> Self {
        Self {
            interval,
            parts,
            delay,
            share: 0.5,
            outer: OuterOptimiser::DILOCO,
            request: Request::default(),
            rejoin: Rejoin::FullWeight,
        }
    }

    /// Iterations from one part's turn to the next part's.
    pub fn period(&self) -> u64 {
        self.interval / u64::from(self.parts.max(1))
    }
}

/// Averages one of P parts of the model every H/P iterations, makes an outer step of it, and takes that in τ steps later:
/// `x ← αx + (1 − α)w`.
///
/// Parts are equal ranges of the flat parameters. All nodes that are in the same round take in all parts that somebody in it
/// has contributed; nodes that are out of step with each other contribute different ones. After the last iteration, where
/// that is known, all parts have their turn at once: nobody else could give a node that comes back later what it lacks.
#[derive(Clone, Debug)]
pub struct Streaming {
    options: StreamingOptions,
    /// How many iterations its training has in all.
    iterations: u64,
    due: Option<u32>,
    flying: bool,
    /// The last iteration is done while a contribution is under way.
    owed: bool,
}

impl Streaming {
    /// With these options.
    ///
    /// # Panics
    /// If the parts have no turn every so many whole iterations, a part is taken in later than the next has its turn, or the
    /// outer optimiser is not one with momentum.
    #[track_caller]
    pub fn new(options: StreamingOptions) -> Self {
        let StreamingOptions { interval, parts, delay, outer, .. } = options;
        assert!(parts > 0 && options.period() > 0, "{parts} parts take turns within {interval} iterations");
        assert!(delay < options.period(), "a delay of {delay} steps, and {} to the next part", options.period());
        assert!(matches!(outer, OuterOptimiser::Momentum { .. }), "parts of models are stepped with momentum");
        Self { options, iterations: u64::MAX, due: None, flying: false, owed: false }
    }
}

impl AveragingPolicy for Streaming {
    fn name(&self) -> &'static str {
        "streaming"
    }

    fn handle(&mut self, _: Instant, input: PolicyInput<'_>) {
        match input {
            PolicyInput::Began { iterations, .. } => self.iterations = iterations,
            PolicyInput::Stepped { iteration, .. } => {
                let period = self.options.period();
                let ends = self.options.parts > 1 && iteration >= self.iterations;
                let number = (iteration / period).wrapping_sub(1) % u64::from(self.options.parts);
                let turn = ends || iteration.is_multiple_of(period);
                self.due = (turn && !self.flying).then_some(number as u32);
                self.owed = ends && self.flying;
            }
            PolicyInput::Committed(_) | PolicyInput::Healed(_) | PolicyInput::Abandoned(_) => {
                self.flying = false;
                let owed = core::mem::take(&mut self.owed) && !matches!(input, PolicyInput::Healed(_));
                self.due = owed.then_some(0);
            }
            _ => {}
        }
    }

    fn poll(&mut self) -> Option<PolicyAction> {
        let StreamingOptions { parts, delay, share, request, .. } = self.options;
        let part = (self.due.take()?, parts);
        self.flying = true;
        Some(PolicyAction::Offer(request, Overlap { delay, most: delay, part, blend: Blend::Share(share) }))
    }

    fn save(&self) -> Vec<u64> {
        let due = self.due.map_or(u64::MAX, u64::from);
        vec![u64::from(self.flying), due, u64::from(self.owed), self.iterations]
    }

    fn restore(&mut self, state: &[u64]) {
        let &[flying, due, owed, iterations] = state else { return };
        let due = u32::try_from(due).ok().filter(|&due| due < self.options.parts);
        *self = Self { options: self.options, iterations, due, flying: flying == 1, owed: owed == 1 };
    }

    fn rejoin(&self) -> Rejoin {
        self.options.rejoin
    }

    fn outer(&self) -> Option<OuterOptimiser> {
        Some(self.options.outer)
    }

    fn unites(&self) -> bool {
        false
    }
}
