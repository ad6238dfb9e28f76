//! No averaging: every node trains for itself.

use crate::policy::{AveragingPolicy, PolicyAction, PolicyInput};
use crate::time::Instant;

/// Never averages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local;

impl AveragingPolicy for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn handle(&mut self, _: Instant, _: PolicyInput<'_>) {}

    fn poll(&mut self) -> Option<PolicyAction> {
        None
    }

    fn averages(&self) -> bool {
        false
    }
}
