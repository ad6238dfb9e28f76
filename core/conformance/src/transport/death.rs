//! A peer's death is normal: it is reported and stops nobody.

use super::Fabric;
use super::delivery::greet;
use super::exchange::{PATIENCE, SHORTEST, exchange, send};
use crate::violation::{Verdict, Violation};
use kronfleet_core::transport::{Event, NodeId, Transport};
use std::time::{Duration, Instant};

/// If deaths are promised to be reported, every survivor sees the dead peer go down, and nobody else.
///
/// # Errors
/// The violation, if there is one.
pub fn a_dead_peer_is_reported<F: Fabric>(fabric: &mut F) -> Verdict {
    let broken = |what| Violation { law: "a_dead_peer_is_reported", what };
    let promise = fabric.promise();
    if !promise.reports {
        return Ok(());
    }
    let mut ends = fabric.connect(3);
    for (from, to) in [(0, 2), (1, 2), (0, 1)] {
        greet(&mut ends, from, to, promise).map_err(broken)?;
    }
    fabric.kill(ends.pop().expect("three were connected"));
    for end in &mut ends {
        let asked = Instant::now();
        let mut down = Vec::new();
        while down.is_empty() && asked.elapsed() < PATIENCE {
            let deadline = end.now() + Duration::from_millis(10);
            end.recv(deadline, &mut |event| {
                if let Event::Down(peer) = event {
                    down.push(peer);
                }
            })
            .map_err(|error| broken(format!("a peer's death is an event, not an error: {error}")))?;
        }
        if down != [NodeId(2)] {
            return Err(broken(format!("n2 died; within {PATIENCE:?} {} saw {down:?} go down", end.local())));
        }
    }
    Ok(())
}

/// Sending to a dead peer neither waits nor fails the transport, and the others go on as before.
///
/// # Errors
/// The violation, if there is one.
pub fn a_dead_peer_stops_nobody<F: Fabric>(fabric: &mut F) -> Verdict {
    let broken = |what| Violation { law: "a_dead_peer_stops_nobody", what };
    let promise = fabric.promise();
    let mut ends = fabric.connect(3);
    greet(&mut ends, 0, 2, promise).map_err(broken)?;
    fabric.kill(ends.pop().expect("three were connected"));
    let mut slow = 0;
    for number in 0..2000 {
        let asked = Instant::now();
        // Refused, full, unreachable: all fine, as long as it is said at once.
        let _ = send(&mut ends[0], NodeId(2), number, SHORTEST);
        slow += u32::from(asked.elapsed() > Duration::from_millis(200));
        if slow >= 3 {
            return Err(broken("three sends to a dead peer took longer than 200 ms".into()));
        }
    }
    let frames: Vec<_> = (0..100).map(|number| (NodeId(number % 2), NodeId(1 - number % 2), 200)).collect();
    let arrivals = exchange(&mut ends, &frames, promise.settle).map_err(broken)?;
    for arrival in &arrivals {
        arrival.number().map_err(broken)?;
    }
    if arrivals.is_empty() && promise.loss < 0.9 {
        return Err(broken("none of 100 frames between the survivors arrived".into()));
    }
    Ok(())
}
