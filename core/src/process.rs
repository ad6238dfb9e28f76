//! What a driver drives: a state machine that talks in frames, and work that takes time.
//!
//! A [`Process`] never waits, reads no clock and owns no socket. [`drive`] runs one over a real
//! [`Transport`]; the simulator of `kronfleet-lossy` runs many in virtual time. A process that also has
//! something to compute (a training step) is [`Work`]: the driver takes each piece out as a [`Task`].

use crate::storage::{NoStorage, Storage, Write};
use crate::time::{Duration, Instant};
use crate::transport::{Event, NodeId, Sent, Transport, TransportError};

/// A protocol participant as a state machine.
///
/// After every [`handle`](Self::handle) and [`wake`](Self::wake) the driver sends what
/// [`poll`](Self::poll) names until it names nothing, then waits for the next event or
/// [`timeout`](Self::timeout), whichever is first.
pub trait Process {
    /// Takes in what the transport reports.
    fn handle(&mut self, now: Instant, event: Event<'_>);

    /// Acts on every deadline that is not later than `now`. Calling it early changes nothing.
    fn wake(&mut self, now: Instant);

    /// When [`wake`](Self::wake) wants to be called next; [`Instant::FAR`] if nothing is pending.
    fn timeout(&self) -> Instant;

    /// Receiver and length of the next frame to send, at most `max_frame` bytes; `None` if there is none.
    ///
    /// Asking again without [`fill`](Self::fill), [`discard`](Self::discard) or [`postpone`](Self::postpone) gives the
    /// same answer.
    fn poll(&mut self, now: Instant, max_frame: usize) -> Option<(NodeId, usize)>;

    /// Writes the frame [`poll`](Self::poll) named into `target`, of exactly the named length, and moves on.
    fn fill(&mut self, target: &mut [u8]);

    /// Drops the frame [`poll`](Self::poll) named, because its receiver cannot be reached, and moves on.
    fn discard(&mut self);

    /// Leaves the frame [`poll`](Self::poll) named for later, because the link to its receiver is full.
    ///
    /// Until the next [`wake`](Self::wake), `poll` names no frame to that receiver, and [`timeout`](Self::timeout) does
    /// not ask for time to send it one: whoever drives the process asks again when there may be room.
    fn postpone(&mut self);

    /// After how long a standstill of its own it wants to hear what has happened meanwhile before it acts; never unless
    /// said otherwise.
    ///
    /// A process that was stopped, or whose machine slept, finds its deadlines past although nobody was silent; and
    /// another start of it may have taken its place.
    fn patience(&self) -> Duration {
        Duration::MAX
    }

    /// The next thing to be made durable, in this order; asked for together with frames.
    ///
    /// Whoever drives the process answers each with [`written`](Self::written), after any time.
    fn poll_write(&mut self) -> Option<Write> {
        None
    }

    /// Takes in that the write with this ticket is durable, or has failed.
    fn written(&mut self, now: Instant, ticket: u64, durable: bool) {
        let _ = (now, ticket, durable);
    }
}

/// A process that computes something between protocol events, such as training steps.
///
/// The piece of work is a value: the driver takes it out, performs it wherever and whenever it likes
/// before the work's end, and hands it back. What the task owns meanwhile (model, backend) the process
/// cannot touch, so that a long step never holds up the protocol and never races with it.
pub trait Work {
    /// One piece of work, owning all it needs.
    type Task: Task;

    /// Hands out the next piece of work and how long it takes, if there is one to be done now.
    ///
    /// At most one piece is out at a time: until [`complete`](Self::complete) the driver does not ask again.
    /// The simulator lets this much virtual time pass; it is an option of the run, never a measurement.
    fn begin(&mut self) -> Option<(Duration, Self::Task)>;

    /// Takes the task back at `now`; only then do its results become visible to the process.
    fn complete(&mut self, now: Instant, task: Self::Task);
}

/// A piece of [`Work`] that is out of its process.
pub trait Task: Send + 'static {
    /// Does the work. May take long; runs on any thread.
    fn perform(&mut self);
}

/// How long to wait at most until a full link is tried again; some transports do not say when there is room.
const RETRY: Duration = Duration::from_micros(500);

/// Runs `process`, which keeps nothing, over `transport` until `done` says so or the transport fails.
///
/// See [`drive_with`].
///
/// # Errors
/// If the transport itself fails; an unreachable peer only loses its frame.
pub fn drive<P: Process, T: Transport + ?Sized>(
    process: &mut P,
    transport: &mut T,
    idle: Duration,
    done: impl FnMut(&mut P, Instant) -> bool,
) -> Result<(), TransportError> {
    drive_with(process, transport, &mut NoStorage, idle, done)
}

/// Runs `process` over `transport` and `storage` until `done` says so or the transport fails.
///
/// A write is waited for: peers hear nothing of this node meanwhile, so a disk slower than half the time budget
/// looks like death.
///
/// `done` is asked after every event and every write with the process and the time, before any frame that follows from
/// it is sent, and may hand work in and results out.
///
/// Where all of this has taken longer than the process's [`patience`](Process::patience), it is given what has arrived, for
/// a quarter of that time, before it is woken.
///
/// # Errors
/// If the transport itself fails; an unreachable peer only loses its frame.
pub fn drive_with<P: Process, T: Transport + ?Sized>(
    process: &mut P,
    transport: &mut T,
    storage: &mut dyn Storage,
    idle: Duration,
    mut done: impl FnMut(&mut P, Instant) -> bool,
) -> Result<(), TransportError> {
    // When the loop should have come round at the latest.
    let mut due = transport.now();
    loop {
        let mut now = transport.now();
        let patience = process.patience();
        if now.since(due) > patience {
            let until = now + patience / 4;
            while now < until {
                transport.recv(until, &mut |event| process.handle(now, event))?;
                now = transport.now();
            }
        }
        due = now;
        process.wake(now);
        let mut finished = done(process, now);
        while let Some(write) = process.poll_write() {
            let durable = storage.write(write.slot, &write.bytes).is_ok();
            let now = transport.now();
            process.written(now, write.ticket, durable);
            finished |= done(process, now);
        }
        // It may have taken a while.
        let now = transport.now();
        let mut longest = idle;
        while let Some((to, len)) = process.poll(now, transport.max_frame()) {
            match transport.send(to, len, &mut |target| process.fill(target)) {
                Ok(Sent::Accepted) => {}
                Ok(Sent::Full) => {
                    // One that takes nothing must not keep the others from hearing this node.
                    process.postpone();
                    longest = idle.min(RETRY);
                }
                Err(_) => process.discard(),
            }
        }
        if finished {
            return Ok(());
        }
        let now = transport.now();
        let deadline = process.timeout().min(now + longest);
        due += deadline.since(now);
        transport.recv(deadline, &mut |event| process.handle(now, event))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;

    /// Time passes only while somebody waits: once longer than asked for, and three frames arrive meanwhile.
    struct Waiting {
        now: Instant,
        standstill: Duration,
        arrived: VecDeque<u8>,
    }

    impl Transport for Waiting {
        fn local(&self) -> NodeId {
            NodeId(0)
        }

        fn max_frame(&self) -> usize {
            256
        }

        fn now(&self) -> Instant {
            self.now
        }

        fn send(&mut self, _: NodeId, _: usize, _: &mut dyn FnMut(&mut [u8])) -> Result<Sent, TransportError> {
            Ok(Sent::Full)
        }

        fn recv(&mut self, deadline: Instant, sink: &mut dyn FnMut(Event<'_>)) -> Result<bool, TransportError> {
            match self.arrived.pop_front() {
                Some(byte) => sink(Event::Frame { from: NodeId(1), bytes: &[byte] }),
                None => {
                    let standstill = core::mem::take(&mut self.standstill);
                    self.arrived.extend((!standstill.is_zero()).then_some([1, 2, 3]).into_iter().flatten());
                    self.now = self.now.max(deadline) + standstill;
                }
            }
            Ok(true)
        }
    }

    #[derive(Debug, PartialEq)]
    enum Call {
        Heard(u8),
        Woken,
    }

    struct Patient {
        calls: Vec<Call>,
        patience: Duration,
    }

    impl Process for Patient {
        fn handle(&mut self, _: Instant, event: Event<'_>) {
            if let Event::Frame { bytes, .. } = event {
                self.calls.push(Call::Heard(bytes[0]));
            }
        }

        fn wake(&mut self, _: Instant) {
            self.calls.push(Call::Woken);
        }

        fn timeout(&self) -> Instant {
            Instant::FAR
        }

        fn patience(&self) -> Duration {
            self.patience
        }

        fn poll(&mut self, _: Instant, _: usize) -> Option<(NodeId, usize)> {
            None
        }

        fn fill(&mut self, _: &mut [u8]) {}

        fn discard(&mut self) {}

        fn postpone(&mut self) {}
    }

    #[test]
    fn whoever_stood_still_hears_what_has_arrived_before_it_acts() {
        let driven = |patience| {
            let mut process = Patient { calls: Vec::new(), patience };
            let standstill = Duration::from_secs(10);
            let mut transport = Waiting { now: Instant::ORIGIN, standstill, arrived: VecDeque::new() };
            let ended =
                drive(&mut process, &mut transport, Duration::from_secs(1), |process, _| process.calls.len() > 4);
            ended.expect("it does not fail");
            process.calls
        };
        let [one, two, three] = [1, 2, 3].map(Call::Heard);
        assert_eq!(driven(Duration::from_secs(9)), [Call::Woken, one, two, three, Call::Woken]);
        let [one, two] = [1, 2].map(Call::Heard);
        assert_eq!(driven(Duration::from_secs(10)), [Call::Woken, Call::Woken, one, Call::Woken, two, Call::Woken]);
    }
}
