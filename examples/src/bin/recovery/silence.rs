//! How long it takes until the others go on without a process that says nothing any more.

use crate::Medium;
use crate::death::noticed;
use crate::report::Line;
use anyhow::Result;
use kronfleet_examples::trial::Observed;
use rustix::process::Signal;
use std::time::Duration;

/// How often a process is stopped.
const TIMES: u32 = 3;

/// Stops one process after the other, and lets each go on once it is lost.
pub(crate) fn measure(fleet: &Observed, medium: Medium, processes: u32, budget: Duration) -> Result<Line> {
    let all: Vec<u32> = (0..processes).collect();
    let mut seconds = Vec::new();
    for time in 0..TIMES {
        let victim = time % processes;
        let stopped = fleet.signal(victim, Signal::STOP)?;
        let lost = noticed(fleet, victim, stopped, processes);
        let continued = fleet.signal(victim, Signal::CONT)?;
        seconds.push(lost?);
        fleet.commit(&all, continued)?;
    }
    let (transport, limit) = (medium.name(), Some(budget));
    Ok(Line { what: "silent", transport, processes, seconds, floor: Vec::new(), limit, more: Vec::new() })
}
