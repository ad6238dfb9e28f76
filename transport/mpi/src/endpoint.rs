//! A node's end.

use crate::mailbox::{Arrival, LONGEST, Mailbox, Waited};
use crate::site::Site;
use kronfleet_core::error::ErrorKind;
use kronfleet_core::time::Instant;
use kronfleet_core::transport::{Event, NodeId, Sent, Transport, TransportError};
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::thread;

/// One node's end of an MPI job: [`Site::open`] makes it.
///
/// Dropping it says goodbye and waits until all others have, too: MPI lets nobody go alone. If the thread panics
/// meanwhile, the whole job is ended instead, for it would wait for ever.
pub struct MpiEndpoint {
    mailbox: Arc<Mailbox>,
    /// MPI is left after this end.
    _site: Site,
}

/// Makes a waiting [`recv`](Transport::recv) come back early; from any thread.
#[derive(Clone, Debug)]
pub struct Waker {
    mailbox: Arc<Mailbox>,
}

impl Waker {
    /// Wakes the end, or makes its next wait come back at once.
    pub fn wake(&self) {
        self.mailbox.wake();
    }
}

impl MpiEndpoint {
    pub(crate) fn new(site: Site, mailbox: Arc<Mailbox>) -> Self {
        Self { mailbox, _site: site }
    }

    /// What wakes this end.
    pub fn waker(&self) -> Waker {
        Waker { mailbox: Arc::clone(&self.mailbox) }
    }
}

impl Transport for MpiEndpoint {
    fn local(&self) -> NodeId {
        NodeId(self.mailbox.node())
    }

    fn max_frame(&self) -> usize {
        LONGEST
    }

    fn now(&self) -> Instant {
        let now = clock_gettime(ClockId::Monotonic);
        // Both are positive: the clock counts from the machine's start.
        Instant::from_nanos(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
    }

    fn send(&mut self, to: NodeId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<Sent, TransportError> {
        let (from, nodes) = (self.local(), self.mailbox.nodes());
        assert!(to != from, "{from} sends a frame to itself");
        assert!(len <= LONGEST, "{from} sends {len} bytes in a frame, {LONGEST} at most");
        let unreachable = |reason| TransportError { kind: ErrorKind::Unreachable, peer: Some(to), reason };
        if to.0 >= nodes {
            return Err(unreachable(format!("not one of the {nodes} nodes of this job")));
        }
        if self.mailbox.is_gone(to.0) {
            return Err(unreachable("it has left, and an MPI job takes nobody back; start the job again".into()));
        }
        Ok(self.mailbox.send(to.0, len, fill))
    }

    fn recv(&mut self, deadline: Instant, sink: &mut dyn FnMut(Event<'_>)) -> Result<bool, TransportError> {
        match self.mailbox.receive(deadline.since(self.now())) {
            Waited::Arrival(Arrival::Frame(from, frame)) => {
                sink(Event::Frame { from: NodeId(from), bytes: &frame });
                self.mailbox.recycle(from, frame);
                Ok(true)
            }
            Waited::Arrival(Arrival::Up(peer)) => {
                sink(Event::Up(NodeId(peer)));
                Ok(true)
            }
            Waited::Arrival(Arrival::Down(peer)) => {
                sink(Event::Down(NodeId(peer)));
                Ok(true)
            }
            Waited::Woken | Waited::TimedOut => Ok(false),
            Waited::Over => Err(TransportError {
                kind: ErrorKind::Other,
                peer: None,
                reason: "the thread of MPI has ended; its own message says why".into(),
            }),
        }
    }
}

impl Drop for MpiEndpoint {
    fn drop(&mut self) {
        self.mailbox.leave(thread::panicking());
        self.mailbox.wait_for_end();
    }
}
