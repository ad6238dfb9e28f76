//! How long it takes until survivors know that a process was killed.

use crate::Medium;
use crate::floor;
use crate::report::Line;
use anyhow::Result;
use kronfleet_core::cluster::Occurrence;
use kronfleet_core::transport::NodeId;
use kronfleet_examples::trial::{Observed, loss_of};
use rustix::process::Signal;

/// Kills one process after the other, each once all are there again.
pub(crate) fn measure(fleet: &Observed, medium: Medium, processes: u32, kills: u32) -> Result<Line> {
    let all: Vec<u32> = (0..processes).collect();
    let mut seen = fleet.commit(&all, 0)?;
    let (mut seconds, mut floors) = (Vec::new(), Vec::new());
    for kill in 0..kills {
        let victim = kill % processes;
        let killed = fleet.signal(victim, Signal::KILL)?;
        seen = fleet.commit(&all, returned(fleet, victim, killed.max(seen))?)?;
        seconds.push(noticed(fleet, victim, killed, processes)?);
        floors.push(floor::death(medium)?);
    }
    let limit = Some(std::time::Duration::from_millis(50));
    let more = Vec::new();
    Ok(Line { what: "killed", transport: medium.name(), processes, seconds, floor: floors, limit, more })
}

/// When the next start of a node began.
fn returned(fleet: &Observed, node: u32, after: u64) -> Result<u64> {
    fleet.wait("its next start", after, |record| record.node == NodeId(node) && record.what == Occurrence::Started)
}

/// After how many seconds the last of the others had recorded that a node was lost.
pub(crate) fn noticed(fleet: &Observed, lost: u32, since: u64, processes: u32) -> Result<f64> {
    let mut last = since;
    for survivor in (0..processes).filter(|&node| node != lost) {
        let here = |record: &kronfleet_core::cluster::Record| record.node == NodeId(survivor) && loss_of(lost)(record);
        last = last.max(fleet.wait("the loss", since, here)?);
    }
    Ok((last - since) as f64 / 1e9)
}
