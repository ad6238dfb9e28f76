//! What becomes of a model when a mean arrives that was under way for some iterations.

use crate::policy::Blend;

/// How a mean of snapshots is merged into a model that has gone on since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Merge {
    /// `x ← (2S·x + Σ x_i)/(2S + P)`, and `(x + Σ x_i)/(1 + P)` for `S = 0` (DASO, arXiv 2104.05588, equation 1): of many
    /// sites little is left of the steps made meanwhile.
    #[default]
    Stale,
    /// `x ← x̄ + (x − x_snapshot)` (LASGD, arXiv 2203.13085; Overlap Local-SGD): the steps made meanwhile are kept.
    Progress,
}

impl Merge {
    /// What the model itself counts in a merge with the mean of so many snapshots after so many iterations.
    pub fn local_weight(self, snapshots: u64, since: u64) -> f64 {
        match self {
            Self::Stale => {
                let own = if since == 0 { 1.0 } else { 2.0 * since as f64 };
                own / (own + snapshots as f64)
            }
            Self::Progress => 1.0,
        }
    }

    /// Merges the `mean` of so many snapshots, this site's own `snapshot` among them, into the model.
    ///
    /// # Panics
    /// If there are not as many values of each.
    #[track_caller]
    pub fn apply(self, model: &mut [f64], snapshot: &[f64], mean: &[f32], snapshots: u64, since: u64) {
        let lengths = [snapshot.len(), mean.len()];
        assert_eq!(lengths, [model.len(); 2], "values of a snapshot and of a mean, and of the model");
        let own = self.local_weight(snapshots, since);
        for ((x, &before), &mean) in model.iter_mut().zip(snapshot).zip(mean) {
            let mean = f64::from(mean);
            *x = match self {
                Self::Stale => own * *x + (1.0 - own) * mean,
                Self::Progress => Blend::Progress.of(*x, before, mean),
            };
        }
    }
}
