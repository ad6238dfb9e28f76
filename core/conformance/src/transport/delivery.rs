//! Frames arrive unaltered or not at all, and only as often and in such order as promised.

use super::exchange::{Arrival, SHORTEST, exchange, poll, send, wait};
use super::{Fabric, Promise};
use crate::check::Check;
use crate::violation::{Verdict, Violation};
use kronfleet_core::transport::{NodeId, Transport};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Sender, receiver and length of frames between `nodes` nodes; lengths are shares of the longest.
fn traffic(nodes: u32, most: usize) -> impl Strategy<Value = Vec<(u32, u32, f64)>> {
    let link = (0..nodes, 1..nodes).prop_map(move |(from, step)| (from, (from + step) % nodes));
    let frame = (link, 0.0..=1.0_f64).prop_map(|((from, to), share)| (from, to, share * share * share));
    proptest::collection::vec(frame, 1..most)
}

fn frames<T: Transport>(ends: &[T], traffic: &[(u32, u32, f64)]) -> Vec<(NodeId, NodeId, usize)> {
    let longest = ends.iter().map(T::max_frame).min().unwrap_or(SHORTEST);
    let len = |share: f64| SHORTEST + (share * (longest - SHORTEST) as f64) as usize;
    traffic.iter().map(|&(from, to, share)| (NodeId(from), NodeId(to), len(share))).collect()
}

/// Asks `law` for `cases` random inputs; the violation names the smallest input that breaks it.
fn for_random<S: Strategy>(
    name: &'static str,
    cases: u32,
    inputs: S,
    law: impl FnMut(S::Value) -> Result<(), String>,
) -> Verdict {
    // A lossy law may wait for what does not come: each shrinking step costs as much.
    let check = Check { cases, shrinking: 200, ..Check::default() };
    let law = RefCell::new(law);
    let held = check.hold(inputs, |input| (law.borrow_mut())(input));
    held.map_err(|broken| Violation { law: name, what: broken.to_string() })
}

/// Whatever arrives is bit by bit what its sender wrote, whole, and sent to this receiver.
///
/// # Errors
/// The violation, if there is one.
pub fn frames_arrive_unaltered<F: Fabric>(fabric: &mut F) -> Verdict {
    let settle = fabric.promise().settle;
    for_random("frames_arrive_unaltered", 8, traffic(3, 60), |traffic| {
        let mut ends = fabric.connect(3);
        let frames = frames(&ends, &traffic);
        for arrival in exchange(&mut ends, &frames, settle)? {
            let number = arrival.number()?;
            let sent = frames.get(number as usize);
            if sent != Some(&(arrival.from, arrival.to, arrival.bytes.len())) {
                return Err(format!(
                    "{} received {} bytes as frame {number} from {}, sent was {sent:?}",
                    arrival.to,
                    arrival.bytes.len(),
                    arrival.from
                ));
            }
        }
        Ok(())
    })
}

/// Frames too short to name themselves arrive unaltered too.
///
/// # Errors
/// The violation, if there is one.
pub fn short_frames_arrive_unaltered<F: Fabric>(fabric: &mut F) -> Verdict {
    let name = "short_frames_arrive_unaltered";
    let Promise { settle, .. } = fabric.promise();
    for_random(name, 16, proptest::collection::vec(any::<u8>(), 1..SHORTEST), |bytes| {
        let mut ends = fabric.connect(2);
        ends[0]
            .send(NodeId(1), bytes.len(), &mut |target| target.copy_from_slice(&bytes))
            .map_err(|error| format!("sending {} bytes failed: {error}", bytes.len()))?;
        let mut arrivals = Vec::new();
        let asked = std::time::Instant::now();
        while arrivals.is_empty() && asked.elapsed() < settle {
            poll(&mut ends[0], &mut Vec::new())?;
            wait(&mut ends[1], Duration::from_millis(1), &mut arrivals)?;
        }
        match arrivals.first() {
            Some(arrival) if arrival.bytes != bytes => Err(format!("{:?} arrived instead of {bytes:?}", arrival.bytes)),
            Some(_) | None => Ok(()),
        }
    })
}

/// Every frame names the node that sent it, and arrives at the node it was sent to.
///
/// # Errors
/// The violation, if there is one.
pub fn senders_are_named<F: Fabric>(fabric: &mut F) -> Verdict {
    let settle = fabric.promise().settle;
    for_random("senders_are_named", 4, traffic(4, 40), |traffic| {
        let mut ends = fabric.connect(4);
        let frames = frames(&ends, &traffic);
        for Arrival { to, from, bytes } in exchange(&mut ends, &frames, settle)? {
            // The frame's own words, not the transport's: the first eight bytes.
            let name = bytes.get(..8).map(|name| u64::from_le_bytes(name.try_into().expect("eight of them")));
            let written = u64::from(from.0) | u64::from(to.0) << 32;
            if name != Some(written) {
                return Err(format!("{to} received a frame as from {from}; it says {name:x?}, not {written:x}"));
            }
        }
        Ok(())
    })
}

/// As many frames are lost as promised, none if none are promised to be.
///
/// # Errors
/// The violation, if there is one.
pub fn losses_are_as_promised<F: Fabric>(fabric: &mut F) -> Verdict {
    let promised = fabric.promise().loss;
    count(fabric, "losses_are_as_promised", promised, |sent, arrivals| {
        sent - arrivals.iter().collect::<BTreeSet<_>>().len()
    })
}

/// As many frames arrive twice as promised, none if none are promised to, and none more often.
///
/// # Errors
/// The violation, if there is one.
pub fn copies_are_as_promised<F: Fabric>(fabric: &mut F) -> Verdict {
    let Promise { loss, duplicate, .. } = fabric.promise();
    count(fabric, "copies_are_as_promised", duplicate * (1.0 - loss), |_, arrivals| {
        arrivals.len() - arrivals.iter().collect::<BTreeSet<_>>().len()
    })
}

/// Sends many frames over one link and compares how many meet a fate with its probability.
fn count<F: Fabric>(
    fabric: &mut F,
    law: &'static str,
    probability: f64,
    fate: impl Fn(usize, &[u64]) -> usize,
) -> Verdict {
    let broken = |what| Err(Violation { law, what });
    let mut ends = fabric.connect(2);
    let frames: Vec<_> = (0..1000).map(|number| (NodeId(number % 2), NodeId(1 - number % 2), 64)).collect();
    let arrivals = match exchange(&mut ends, &frames, fabric.promise().settle) {
        Ok(arrivals) => arrivals,
        Err(what) => return broken(what),
    };
    let numbers: Result<Vec<u64>, String> = arrivals.iter().map(Arrival::number).collect();
    let numbers = match numbers {
        Ok(numbers) => numbers,
        Err(what) => return broken(what),
    };
    let found = fate(frames.len(), &numbers) as f64;
    let expected = probability * frames.len() as f64;
    // Six standard deviations of a binomial; nothing at all where nothing is promised.
    let tolerance = 6.0 * (expected * (1.0 - probability)).sqrt();
    if (found - expected).abs() > tolerance {
        return broken(format!("{found} of {} frames, expected {expected} ± {tolerance:.0}", frames.len()));
    }
    Ok(())
}

/// Frames on one link arrive in the order in which they were sent, if that is promised.
///
/// # Errors
/// The violation, if there is one.
pub fn order_is_as_promised<F: Fabric>(fabric: &mut F) -> Verdict {
    let Promise { ordered, settle, .. } = fabric.promise();
    if !ordered {
        return Ok(());
    }
    for_random("order_is_as_promised", 8, traffic(3, 80), |traffic| {
        let mut ends = fabric.connect(3);
        let frames = frames(&ends, &traffic);
        let mut last: BTreeMap<(NodeId, NodeId), u64> = BTreeMap::new();
        for arrival in exchange(&mut ends, &frames, settle)? {
            let number = arrival.number()?;
            if let Some(before) = last.insert((arrival.from, arrival.to), number)
                && before >= number
            {
                return Err(format!("{} received frame {number} after {before}", arrival.to));
            }
        }
        Ok(())
    })
}

/// Sends one frame and waits for it, so that what follows begins on a working link.
///
/// # Errors
/// If it does not arrive although nothing is promised to be lost.
pub fn greet<T: Transport>(ends: &mut [T], from: usize, to: usize, promise: Promise) -> Result<(), String> {
    let mut arrivals = Vec::new();
    let (sender, receiver) = (ends[from].local(), ends[to].local());
    send(&mut ends[from], receiver, 0, SHORTEST)?;
    let asked = std::time::Instant::now();
    while arrivals.is_empty() && asked.elapsed() < promise.settle {
        poll(&mut ends[from], &mut Vec::new())?;
        wait(&mut ends[to], Duration::from_millis(1), &mut arrivals)?;
    }
    if arrivals.is_empty() && promise.loss == 0.0 {
        return Err(format!("a frame from {sender} to {receiver} did not arrive within {:?}", promise.settle));
    }
    Ok(())
}
