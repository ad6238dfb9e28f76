//! What no single value of a schedule can tell.

use super::{Fault, POINTS, Run};
use kronfleet_core::cluster::Budget;
use kronfleet_core::transport::NodeId;
use std::fmt;

/// Why a schedule cannot be read: where, and what helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ScheduleError {
    /// The line, from 1, if there is one to blame.
    pub line: Option<usize>,
    /// What is wrong and what helps.
    pub reason: String,
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl Run {
    pub(super) fn check(&self) -> Result<(), String> {
        if !(1..=32).contains(&self.nodes) {
            return Err(format!("nodes = {} cannot be run: use 1 to 32", self.nodes));
        }
        if !(1..=self.nodes).contains(&self.minimum) {
            return Err(format!("minimum = {} of {} nodes: use 1 to {}", self.minimum, self.nodes, self.nodes));
        }
        for (name, value) in [("interval", self.interval), ("values", self.values.into()), ("chunk", self.chunk.into())]
        {
            if value == 0 {
                return Err(format!("{name} = 0 makes no rounds: use 1 or more"));
            }
        }
        Budget::new(self.budget).map_err(|error| error.to_string())?;
        if self.step.is_zero() {
            return Err("step = \"0ns\" would never let time pass: use 1ms or more".into());
        }
        self.link.check().map_err(|error| error.to_string())
    }
}

impl Fault {
    pub(super) fn check(&self, run: &Run) -> Result<(), String> {
        let last = run.nodes - 1;
        let known = |node: NodeId| node.0 < run.nodes;
        let unknown = |node: NodeId| format!("{node} is not one of the nodes n0 to n{last}");
        if let Some(node) = self.node()
            && !known(node)
        {
            return Err(unknown(node));
        }
        for group in self.groups() {
            if group.is_empty() {
                return Err("a group without nodes: name one, or leave the fault out".into());
            }
            if let Some(&node) = group.iter().find(|node| !known(**node)) {
                return Err(unknown(node));
            }
        }
        let mut copy = self.clone();
        if let (Some(from), Some(until)) = copy.span_mut()
            && until < from
        {
            return Err(format!("it would end at {until}, before it begins at {from}: exchange the times"));
        }
        let share = |share: f64| {
            let fits = (0.0..=1.0).contains(&share);
            fits.then_some(()).ok_or_else(|| format!("share = {share} is no share: use 0 to 1"))
        };
        let factor = |name: &str, factor: f64| {
            let fits = (0.01..=100.0).contains(&factor);
            fits.then_some(()).ok_or_else(|| format!("{name} = {factor} is out of range: use 0.01 to 100"))
        };
        match self {
            Self::Kill { on, nth, .. } => {
                if !POINTS.contains(&on.as_str()) {
                    return Err(format!("`{on}` is no point of the protocol: use {}", POINTS.join(", ")));
                }
                if *nth == 0 {
                    return Err("nth = 0 never happens: count from 1".into());
                }
            }
            Self::Flap { period, .. } if period.as_micros() < 1000 => {
                return Err(format!("period = {period:?} is too short: use 1ms or more"));
            }
            Self::Damage { share: part, .. } | Self::Echo { share: part, .. } => share(*part)?,
            Self::Slow { factor: times, .. } => factor("factor", *times)?,
            Self::Drift { rate, .. } => factor("rate", *rate)?,
            _ => {}
        }
        Ok(())
    }
}
