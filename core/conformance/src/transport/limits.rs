//! What a transport must carry, and what it must refuse.

use super::Fabric;
use super::exchange::{SHORTEST, exchange};
use crate::violation::{Verdict, Violation};
use kronfleet_core::error::ErrorKind;
use kronfleet_core::transport::{NodeId, Transport};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The longest frame is 256 bytes at least, and frames of every length up to it are carried whole.
///
/// # Errors
/// The violation, if there is one.
pub fn frames_up_to_the_longest_are_carried<F: Fabric>(fabric: &mut F) -> Verdict {
    let broken = |what| Violation { law: "frames_up_to_the_longest_are_carried", what };
    let mut ends = fabric.connect(2);
    let longest = ends[0].max_frame();
    if longest < 256 {
        return Err(broken(format!("the longest frame has {longest} bytes, 256 is the least")));
    }
    // Often enough that a lossy link lets some through.
    let lens: Vec<usize> = [SHORTEST, 255, 256, longest / 2, longest - 1, longest].repeat(20);
    let frames: Vec<_> = lens.iter().map(|&len| (NodeId(0), NodeId(1), len.max(SHORTEST))).collect();
    let promise = fabric.promise();
    let arrivals = exchange(&mut ends, &frames, promise.settle).map_err(broken)?;
    for arrival in &arrivals {
        arrival.number().map_err(broken)?;
    }
    let whole = arrivals.iter().filter(|arrival| arrival.bytes.len() == longest).count();
    if whole == 0 && promise.loss < 0.5 {
        return Err(broken(format!("none of 20 frames of {longest} bytes, the longest, arrived")));
    }
    Ok(())
}

/// A frame longer than the longest is a bug of the caller and panics.
///
/// # Errors
/// The violation, if there is one.
pub fn too_long_a_frame_panics<F: Fabric>(fabric: &mut F) -> Verdict {
    let mut ends = fabric.connect(2);
    let len = ends[0].max_frame() + 1;
    panics("too_long_a_frame_panics", || {
        let _ = ends[0].send(NodeId(1), len, &mut |_| {});
    })
}

/// A frame to oneself is a bug of the caller and panics.
///
/// # Errors
/// The violation, if there is one.
pub fn a_frame_to_oneself_panics<F: Fabric>(fabric: &mut F) -> Verdict {
    let mut ends = fabric.connect(2);
    panics("a_frame_to_oneself_panics", || {
        let _ = ends[0].send(NodeId(0), SHORTEST, &mut |_| {});
    })
}

fn panics(law: &'static str, call: impl FnOnce()) -> Verdict {
    // The ends are dropped afterwards and not used again.
    match catch_unwind(AssertUnwindSafe(call)) {
        Err(_) => Ok(()),
        Ok(()) => Err(Violation { law, what: "`send` came back instead".into() }),
    }
}

/// Sending to a node that does not exist is an error of kind `Unreachable` and fills nothing.
///
/// # Errors
/// The violation, if there is one.
pub fn an_unknown_receiver_is_an_error<F: Fabric>(fabric: &mut F) -> Verdict {
    let broken = |what| Err(Violation { law: "an_unknown_receiver_is_an_error", what });
    let mut ends = fabric.connect(2);
    let mut filled = false;
    match ends[0].send(NodeId(1_000_000), SHORTEST, &mut |_| filled = true) {
        Ok(sent) => broken(format!("a frame to n1000000 among two nodes was {sent:?}")),
        Err(_) if filled => broken("`fill` was called although the answer is an error".into()),
        Err(error) if error.kind != ErrorKind::Unreachable => {
            broken(format!("the error is of kind {:?}: {error}", error.kind))
        }
        Err(_) => Ok(()),
    }
}
