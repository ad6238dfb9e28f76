//! Sending known frames and collecting what arrives, on one thread and with a deadline.

use kronfleet_core::seed::Seed;
use kronfleet_core::transport::{Event, NodeId, Sent, Transport};
use std::time::Duration;

/// The shortest frame that says by itself what it should be.
pub const SHORTEST: usize = 16;

/// How long a law waits for something that is bound to come.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Writes the frame number `number` from `from` to `to`: its name, then bytes that depend on all of it.
pub fn write(target: &mut [u8], from: NodeId, to: NodeId, number: u64) {
    let name = [from.0 as u64 | (to.0 as u64) << 32, number];
    let mut random = Seed(name[0]).derive("frame", number).random();
    let bytes = name.into_iter().chain(std::iter::repeat_with(|| random.bits())).flat_map(u64::to_le_bytes);
    for (target, byte) in target.iter_mut().zip(bytes) {
        *target = byte;
    }
}

/// A frame that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Who received it.
    pub to: NodeId,
    /// Who sent it, as the transport says.
    pub from: NodeId,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Arrival {
    /// The number under which it was sent, if these are the bytes that were written under it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn number(&self) -> Result<u64, String> {
        let Self { to, from, bytes } = self;
        let Some(number) = bytes.get(8..16) else {
            return Err(format!("{to} received {} bytes from {from}, all had {SHORTEST} or more", bytes.len()));
        };
        let number = u64::from_le_bytes(number.try_into().expect("eight of them"));
        let mut expected = vec![0; bytes.len()];
        write(&mut expected, *from, *to, number);
        match expected.iter().zip(bytes).position(|(expected, found)| expected != found) {
            None => Ok(number),
            Some(at) => Err(format!(
                "{to} received from {from} a frame of {} bytes that was not sent: it differs at byte {at}",
                bytes.len()
            )),
        }
    }
}

/// Gives one event to `end` that is there now, if any; frames are added to `arrivals`.
///
/// # Errors
/// If the transport fails.
pub fn poll<T: Transport>(end: &mut T, arrivals: &mut Vec<Arrival>) -> Result<bool, String> {
    wait(end, Duration::ZERO, arrivals)
}

/// Waits up to `span` for an event at `end`; frames are added to `arrivals`.
///
/// # Errors
/// If the transport fails.
pub fn wait<T: Transport>(end: &mut T, span: Duration, arrivals: &mut Vec<Arrival>) -> Result<bool, String> {
    let to = end.local();
    let deadline = end.now() + span;
    let sink = &mut |event: Event<'_>| {
        if let Event::Frame { from, bytes } = event {
            arrivals.push(Arrival { to, from, bytes: bytes.into() });
        }
    };
    end.recv(deadline, sink).map_err(|error| format!("receiving at {to} failed: {error}"))
}

/// Sends one numbered frame; answers whether there was room.
///
/// # Errors
/// If the transport fails.
pub fn send<T: Transport>(end: &mut T, to: NodeId, number: u64, len: usize) -> Result<bool, String> {
    let from = end.local();
    let sent = end.send(to, len, &mut |target| write(target, from, to, number));
    sent.map(|sent| sent == Sent::Accepted).map_err(|error| format!("sending {len} bytes failed: {error}"))
}

/// Sends frames `0..` of these lengths along `(from, to)`, in order, receiving at all ends meanwhile, until
/// everything has arrived or nothing has for the time `settle`; answers the arrivals in their order.
///
/// # Errors
/// If the transport fails or has no room for longer than [`PATIENCE`].
pub fn exchange<T: Transport>(
    ends: &mut [T],
    frames: &[(NodeId, NodeId, usize)],
    settle: Duration,
) -> Result<Vec<Arrival>, String> {
    let mut arrivals = Vec::new();
    for (number, &(from, to, len)) in frames.iter().enumerate() {
        let asked = std::time::Instant::now();
        while !send(&mut ends[from.0 as usize], to, number as u64, len)? {
            if asked.elapsed() > PATIENCE {
                return Err(format!(
                    "the link from {from} to {to} stays full although everybody receives: {} of {} frames arrived in {PATIENCE:?}",
                    arrivals.len(),
                    number
                ));
            }
            receive(ends, &mut arrivals)?;
        }
    }
    let mut silent_since = std::time::Instant::now();
    while arrivals.len() < frames.len() && silent_since.elapsed() < settle {
        if receive(ends, &mut arrivals)? {
            silent_since = std::time::Instant::now();
        }
    }
    // What comes more than once comes late.
    while receive(ends, &mut arrivals)? {}
    Ok(arrivals)
}

/// Takes in what has arrived at any end, waiting a moment if nothing has; answers whether something had.
fn receive<T: Transport>(ends: &mut [T], arrivals: &mut Vec<Arrival>) -> Result<bool, String> {
    let before = arrivals.len();
    for end in &mut *ends {
        while poll(end, arrivals)? {}
    }
    if arrivals.len() == before {
        for end in ends {
            wait(end, Duration::from_micros(500), arrivals)?;
        }
    }
    Ok(arrivals.len() > before)
}
