//! No call waits longer than it is told to, and a full link says so.

use super::Fabric;
use super::exchange::{PATIENCE, SHORTEST, exchange, poll, send, wait, write};
use crate::violation::{Verdict, Violation};
use kronfleet_core::transport::{NodeId, Sent, Transport};
use std::time::{Duration, Instant};

/// What a busy machine may add to a call; only a call that is late three times in a row is called late.
const GRACE: Duration = Duration::from_millis(200);

/// How much a law sends at most to fill a link; a transport that takes it all is never full.
const FLOOD: usize = 64 << 20;

/// Without an event, `recv` comes back at its deadline, neither earlier nor later.
///
/// # Errors
/// The violation, if there is one.
pub fn receiving_honours_its_deadline<F: Fabric>(fabric: &mut F) -> Verdict {
    let broken = |what| Violation { law: "receiving_honours_its_deadline", what };
    let mut ends = fabric.connect(2);
    // News of the connection itself comes first.
    while wait(&mut ends[0], Duration::from_millis(20), &mut Vec::new()).map_err(broken)? {}
    let span = Duration::from_millis(30);
    let mut least = Duration::MAX;
    for _ in 0..3 {
        let deadline = ends[0].now() + span;
        let asked = Instant::now();
        let event = wait(&mut ends[0], span, &mut Vec::new()).map_err(broken)?;
        if event {
            return Err(broken("an event came although nothing was sent".into()));
        }
        let now = ends[0].now();
        if now < deadline {
            return Err(broken(format!("came back at {now} without an event, the deadline was {deadline}")));
        }
        least = least.min(asked.elapsed());
    }
    if least > span + GRACE {
        return Err(broken(format!("waited {least:?} at the least, the deadline was {span:?} away")));
    }
    Ok(())
}

/// A deadline in the past makes `recv` a poll, which still gives what is there.
///
/// # Errors
/// The violation, if there is one.
pub fn a_past_deadline_polls<F: Fabric>(fabric: &mut F) -> Verdict {
    let broken = |what| Violation { law: "a_past_deadline_polls", what };
    let mut ends = fabric.connect(2);
    let mut arrivals = Vec::new();
    let promise = fabric.promise();
    let mut least = Duration::MAX;
    for number in 0..200 {
        send(&mut ends[0], NodeId(1), number, SHORTEST).map_err(broken)?;
    }
    let began = Instant::now();
    while arrivals.is_empty() && began.elapsed() < promise.settle {
        for end in &mut ends {
            let asked = Instant::now();
            let origin = kronfleet_core::time::Instant::ORIGIN;
            let to = end.local();
            end.recv(origin, &mut |event| {
                if let kronfleet_core::transport::Event::Frame { from, bytes } = event {
                    arrivals.push(super::exchange::Arrival { to, from, bytes: bytes.into() });
                }
            })
            .map_err(|error| broken(error.to_string()))?;
            least = least.min(asked.elapsed());
        }
    }
    if least > GRACE {
        return Err(broken(format!("the quickest poll took {least:?}")));
    }
    if arrivals.is_empty() && promise.loss < 0.9 {
        return Err(broken(format!("200 frames were sent, polling gave none within {:?}", promise.settle)));
    }
    Ok(())
}

/// `send` comes back at once, also when nobody receives and the link is full.
///
/// # Errors
/// The violation, if there is one.
pub fn sending_never_waits<F: Fabric>(fabric: &mut F) -> Verdict {
    let broken = |what| Violation { law: "sending_never_waits", what };
    let mut ends = fabric.connect(2);
    let len = ends[0].max_frame();
    let mut slow = 0;
    let mut full = 0;
    for number in 0..FLOOD.div_ceil(len) as u64 {
        let asked = Instant::now();
        let accepted = send(&mut ends[0], NodeId(1), number, len).map_err(broken)?;
        if asked.elapsed() > GRACE {
            slow += 1;
        }
        if slow >= 3 {
            return Err(broken(format!("three calls took longer than {GRACE:?}, the last was accepted: {accepted}")));
        }
        full += u32::from(!accepted);
        if full >= 5 {
            break;
        }
    }
    Ok(())
}

/// If the answer is `Full`, `fill` was not called.
///
/// # Errors
/// The violation, if there is one.
pub fn a_full_link_leaves_fill_uncalled<F: Fabric>(fabric: &mut F) -> Verdict {
    let broken = |what| Violation { law: "a_full_link_leaves_fill_uncalled", what };
    let mut ends = fabric.connect(2);
    let len = ends[0].max_frame();
    let mut full = 0;
    for number in 0..FLOOD.div_ceil(len) {
        let mut filled = 0;
        let sent = ends[0]
            .send(NodeId(1), len, &mut |_| filled += 1)
            .map_err(|error| broken(format!("sending failed: {error}")))?;
        if sent == Sent::Full {
            full += 1;
            if filled > 0 {
                return Err(broken(format!("frame {number} was refused as full, yet `fill` was called")));
            }
        }
        if full >= 5 {
            break;
        }
    }
    Ok(())
}

/// `fill` is called exactly once for an accepted frame, with a slice of exactly its length.
///
/// # Errors
/// The violation, if there is one.
pub fn fill_is_called_once_with_the_length<F: Fabric>(fabric: &mut F) -> Verdict {
    let broken = |what| Violation { law: "fill_is_called_once_with_the_length", what };
    let mut ends = fabric.connect(2);
    let longest = ends[0].max_frame();
    for len in [1, 2, SHORTEST, 100, 255, 256, longest - 1, longest] {
        let mut lens = Vec::new();
        let sent = ends[0]
            .send(NodeId(1), len, &mut |target| lens.push(target.len()))
            .map_err(|error| broken(format!("sending {len} bytes failed: {error}")))?;
        let expected: &[usize] = if sent == Sent::Accepted { &[len] } else { &[] };
        if lens != expected {
            return Err(broken(format!("{sent:?} {len} bytes, but `fill` was given {lens:?}")));
        }
        // Makes room for the next.
        poll(&mut ends[1], &mut Vec::new()).map_err(broken)?;
    }
    Ok(())
}

/// Two nodes that send each other far more than fits, receiving only when they cannot send, both finish.
///
/// # Errors
/// The violation, if there is one.
pub fn back_pressure_never_deadlocks<F: Fabric>(fabric: &mut F) -> Verdict {
    let broken = |what| Violation { law: "back_pressure_never_deadlocks", what };
    let mut ends = fabric.connect(2);
    let len = ends[0].max_frame();
    // Three times what fits into one link, found by filling it, and not more than a second's work.
    let mut fits = 0;
    while fits < (4 << 20) / len as u64 && send(&mut ends[0], NodeId(1), fits, len).map_err(broken)? {
        fits += 1;
    }
    let goal = 3 * fits.max(10);
    let mut sent = [fits, 0];
    let mut moved = Instant::now();
    while sent.iter().any(|&sent| sent < goal) {
        for node in 0..2 {
            let peer = NodeId(1 - node as u32);
            while sent[node] < goal && send(&mut ends[node], peer, sent[node], len).map_err(broken)? {
                sent[node] += 1;
                moved = Instant::now();
            }
            wait(&mut ends[node], Duration::from_micros(200), &mut Vec::new()).map_err(broken)?;
        }
        if moved.elapsed() > PATIENCE {
            return Err(broken(format!("nothing could be sent for {PATIENCE:?}; {sent:?} of {goal} frames were")));
        }
    }
    Ok(())
}

/// A transport says that it is full instead of losing frames for lack of room.
///
/// # Errors
/// The violation, if there is one.
pub fn a_full_link_loses_nothing<F: Fabric>(fabric: &mut F) -> Verdict {
    let broken = |what| Violation { law: "a_full_link_loses_nothing", what };
    let promise = fabric.promise();
    let mut ends = fabric.connect(2);
    let len = 256;
    let mut accepted = 0_u64;
    while accepted < 40_000 {
        let sent = ends[0].send(NodeId(1), len, &mut |target| write(target, NodeId(0), NodeId(1), accepted));
        match sent.map_err(|error| broken(error.to_string()))? {
            Sent::Accepted => accepted += 1,
            Sent::Full => break,
        }
    }
    // What was accepted without anybody receiving must arrive once somebody does.
    let arrivals = exchange(&mut ends, &[], promise.settle).map_err(broken)?;
    let mut seen = arrivals;
    let mut silent_since = Instant::now();
    while silent_since.elapsed() < promise.settle && (seen.len() as u64) < accepted {
        let before = seen.len();
        poll(&mut ends[0], &mut Vec::new()).map_err(broken)?;
        wait(&mut ends[1], Duration::from_millis(1), &mut seen).map_err(broken)?;
        if seen.len() > before {
            silent_since = Instant::now();
        }
    }
    let mut numbers: Vec<u64> = Vec::new();
    for arrival in &seen {
        numbers.push(arrival.number().map_err(broken)?);
    }
    numbers.sort_unstable();
    numbers.dedup();
    let lost = accepted - numbers.len() as u64;
    let expected = promise.loss * accepted as f64;
    let tolerance = 6.0 * (expected * (1.0 - promise.loss)).sqrt();
    if lost as f64 > expected + tolerance {
        return Err(broken(format!("{lost} of {accepted} accepted frames were lost, expected {expected:.0}")));
    }
    Ok(())
}

/// A node that waits in `recv` is woken by a frame, not by its deadline.
///
/// # Errors
/// The violation, if there is one.
pub fn a_frame_wakes_its_receiver<F: Fabric>(fabric: &mut F) -> Verdict {
    let broken = |what| Violation { law: "a_frame_wakes_its_receiver", what };
    let promise = fabric.promise();
    let mut ends = fabric.connect(2);
    let (first, rest) = ends.split_at_mut(1);
    let (sender, receiver) = (&mut first[0], &mut rest[0]);
    let outcome = std::thread::scope(|scope| {
        let waiting = scope.spawn(move || -> Result<Duration, String> {
            let asked = Instant::now();
            let mut arrivals = Vec::new();
            while arrivals.is_empty() && asked.elapsed() < PATIENCE {
                wait(receiver, PATIENCE, &mut arrivals)?;
            }
            Ok(asked.elapsed())
        });
        let mut number = 0;
        // Again and again, for the first may be lost; the sender's own end is kept moving.
        while !waiting.is_finished() {
            send(sender, NodeId(1), number, SHORTEST)?;
            number += 1;
            wait(sender, Duration::from_millis(5), &mut Vec::new())?;
        }
        waiting.join().map_err(|_| "the receiver panicked".to_string())?
    });
    match outcome.map_err(broken)? {
        waited if waited >= PATIENCE && promise.loss < 1.0 => {
            Err(broken(format!("frames were sent all the time, the receiver woke after {waited:?}")))
        }
        _ => Ok(()),
    }
}

/// The clock of an end never goes back.
///
/// # Errors
/// The violation, if there is one.
pub fn time_never_goes_back<F: Fabric>(fabric: &mut F) -> Verdict {
    let broken = |what| Violation { law: "time_never_goes_back", what };
    let mut ends = fabric.connect(2);
    let mut last = ends[0].now();
    for number in 0..500 {
        send(&mut ends[0], NodeId(1), number, SHORTEST).map_err(broken)?;
        poll(&mut ends[1], &mut Vec::new()).map_err(broken)?;
        let now = ends[0].now();
        if now < last {
            return Err(broken(format!("{now} after {last}")));
        }
        last = now;
    }
    Ok(())
}
