//! What lies between a node's thread and the thread that MPI lives on: frames in both directions, within bounds.

use kronfleet_core::transport::Sent;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

/// Bytes of the longest frame.
pub(crate) const LONGEST: usize = 64 << 10;

/// What may be on its way to one peer and not taken out of its mailbox yet, in bytes with [`OVERHEAD`].
const WINDOW: usize = 1 << 20;

/// What a frame takes of the window beyond its bytes: keeping it costs more than them.
const OVERHEAD: usize = 256;

/// What a frame of so many bytes takes of the window.
fn cost(len: usize) -> usize {
    len + OVERHEAD
}

/// Something for the node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    Frame(u32, Vec<u8>),
    Up(u32),
    Down(u32),
}

/// Something for a peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    Frame(u32, Vec<u8>),
    /// So many bytes of the window are free again.
    Credit(u32, [u8; 8]),
    Goodbye(u32),
}

/// What is known of one peer.
#[derive(Clone, Debug, Default)]
struct Peer {
    /// Whether it has said goodbye.
    gone: bool,
    /// How much of its window is taken.
    under_way: usize,
    /// How much the node has taken out and the peer does not know of.
    owed: usize,
}

#[derive(Debug, Default)]
struct State {
    outgoing: VecDeque<Errand>,
    incoming: VecDeque<Arrival>,
    peers: Vec<Peer>,
    /// Memory of frames that have been sent or taken out.
    spare: Vec<Vec<u8>>,
    woken: bool,
    /// The node has left.
    leaving: bool,
    /// And wants all others to end.
    abort: bool,
    /// MPI's thread does no more for this node.
    over: bool,
}

/// What a wait came to.
pub(crate) enum Waited {
    Arrival(Arrival),
    /// There is room again, or somebody has called.
    Woken,
    TimedOut,
    Over,
}

/// The mailbox of one node.
#[derive(Debug)]
pub(crate) struct Mailbox {
    node: u32,
    state: Mutex<State>,
    /// Something has happened that the node may wait for.
    news: Condvar,
    pump: OnceLock<Thread>,
}

impl Mailbox {
    /// That of `node` among so many, all of which are there.
    pub(crate) fn new(node: u32, nodes: u32) -> Self {
        let peers = vec![Peer::default(); nodes as usize];
        let incoming = (0..nodes).filter(|&peer| peer != node).map(Arrival::Up).collect();
        let state = Mutex::new(State { peers, incoming, ..State::default() });
        Self { node, state, news: Condvar::new(), pump: OnceLock::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing within panics halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn node(&self) -> u32 {
        self.node
    }

    pub(crate) fn nodes(&self) -> u32 {
        self.state().peers.len() as u32
    }

    /// Whether a peer has said goodbye.
    pub(crate) fn is_gone(&self, peer: u32) -> bool {
        self.state().peers[peer as usize].gone
    }

    /// Puts in a frame for a peer, if there is room.
    pub(crate) fn send(&self, to: u32, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Sent {
        let mut state = self.state();
        let peer = &mut state.peers[to as usize];
        if peer.under_way + cost(len) > WINDOW {
            return Sent::Full;
        }
        peer.under_way += cost(len);
        let mut frame = state.spare.pop().unwrap_or_default();
        drop(state);
        frame.resize(len, 0);
        fill(&mut frame);
        self.state().outgoing.push_back(Errand::Frame(to, frame));
        self.stir();
        Sent::Accepted
    }

    /// Takes out what came first; waits for it up to `span`.
    pub(crate) fn receive(&self, span: Duration) -> Waited {
        let mut state = self.state();
        if state.incoming.is_empty() && !state.woken && !state.over {
            let idle = |state: &mut State| state.incoming.is_empty() && !state.woken && !state.over;
            let waited = self.news.wait_timeout_while(state, span, idle);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if let Some(arrival) = state.incoming.pop_front() {
            return Waited::Arrival(arrival);
        }
        if std::mem::take(&mut state.woken) {
            return Waited::Woken;
        }
        if state.over { Waited::Over } else { Waited::TimedOut }
    }

    /// Takes back the memory of a frame that was taken out; its sender has room for another.
    pub(crate) fn recycle(&self, from: u32, frame: Vec<u8>) {
        let mut state = self.state();
        let peer = &mut state.peers[from as usize];
        peer.owed += cost(frame.len());
        // Often enough that a sender at full speed is told well before its window is used up.
        let told = (peer.owed >= WINDOW / 4 && !peer.gone).then(|| std::mem::take(&mut peer.owed));
        if let Some(credit) = told {
            state.outgoing.push_back(Errand::Credit(from, (credit as u64).to_le_bytes()));
        }
        state.spare.push(frame);
        drop(state);
        if told.is_some() {
            self.stir();
        }
    }

    /// Makes a wait come back early.
    pub(crate) fn wake(&self) {
        self.state().woken = true;
        self.news.notify_all();
    }

    /// The node leaves; if it says so, everybody else ends, too.
    pub(crate) fn leave(&self, abort: bool) {
        let mut state = self.state();
        state.leaving = true;
        state.abort |= abort;
        for peer in (0..state.peers.len() as u32).filter(|&peer| peer != self.node) {
            state.outgoing.push_back(Errand::Goodbye(peer));
        }
        drop(state);
        self.stir();
    }

    /// Waits until MPI's thread does no more for this node.
    pub(crate) fn wait_for_end(&self) {
        let waited = self.news.wait_while(self.state(), |state| !state.over);
        drop(waited);
    }

    fn stir(&self) {
        if let Some(pump) = self.pump.get() {
            pump.unpark();
        }
    }
}

/// What MPI's thread does.
impl Mailbox {
    /// This is MPI's thread.
    pub(crate) fn attend(&self) {
        let _ = self.pump.set(thread::current());
    }

    /// Takes out all that is to be sent.
    pub(crate) fn errands(&self, into: &mut Vec<Errand>) {
        into.extend(self.state().outgoing.drain(..));
    }

    /// Takes back the memory of what was sent.
    pub(crate) fn sent(&self, errands: impl Iterator<Item = Errand>) {
        let mut state = self.state();
        state.spare.extend(errands.filter_map(|errand| match errand {
            Errand::Frame(_, frame) => Some(frame),
            Errand::Credit(..) | Errand::Goodbye(_) => None,
        }));
    }

    /// Memory for a frame that comes in.
    pub(crate) fn blank(&self, len: usize) -> Vec<u8> {
        let mut frame = self.state().spare.pop().unwrap_or_default();
        frame.resize(len, 0);
        frame
    }

    /// A frame has come in.
    pub(crate) fn deliver(&self, from: u32, frame: Vec<u8>) {
        let mut state = self.state();
        if !state.leaving {
            state.incoming.push_back(Arrival::Frame(from, frame));
        }
        drop(state);
        self.news.notify_all();
    }

    /// A peer has room for so much more.
    pub(crate) fn credit(&self, from: u32, credit: u64) {
        let mut state = self.state();
        let peer = &mut state.peers[from as usize];
        peer.under_way = peer.under_way.saturating_sub(credit as usize);
        state.woken = true;
        drop(state);
        self.news.notify_all();
    }

    /// A peer has said goodbye.
    pub(crate) fn part(&self, from: u32) {
        let mut state = self.state();
        state.peers[from as usize].gone = true;
        state.incoming.push_back(Arrival::Down(from));
        drop(state);
        self.news.notify_all();
    }

    /// Whether everybody is to end at once.
    pub(crate) fn aborts(&self) -> bool {
        self.state().abort
    }

    /// Whether this node and all others have left, and everything is said.
    pub(crate) fn is_done(&self) -> bool {
        let state = self.state();
        let others = (0_u32..).zip(&state.peers).filter(|(peer, _)| *peer != self.node);
        state.leaving && state.outgoing.is_empty() && others.into_iter().all(|(_, peer)| peer.gone)
    }

    /// No more is done.
    pub(crate) fn end(&self) {
        self.state().over = true;
        self.news.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All frames of one mailbox, into another's.
    fn carry(from: &Mailbox, to: &Mailbox) {
        let mut errands = Vec::new();
        from.errands(&mut errands);
        for errand in &errands {
            match errand {
                Errand::Frame(peer, frame) if *peer == to.node() => to.deliver(from.node(), frame.clone()),
                Errand::Credit(peer, credit) if *peer == to.node() => {
                    to.credit(from.node(), u64::from_le_bytes(*credit));
                }
                Errand::Goodbye(_) => to.part(from.node()),
                other => panic!("{other:?} is for nobody"),
            }
        }
        from.sent(errands.into_iter());
    }

    fn take(mailbox: &Mailbox) -> Option<Arrival> {
        loop {
            match mailbox.receive(Duration::ZERO) {
                Waited::Arrival(arrival) => return Some(arrival),
                Waited::Woken => {}
                Waited::TimedOut | Waited::Over => return None,
            }
        }
    }

    #[test]
    fn a_window_is_used_again_and_again() {
        for len in [0, 1, 5000, LONGEST] {
            let (one, other) = (Mailbox::new(0, 2), Mailbox::new(1, 2));
            assert_eq!(take(&other), Some(Arrival::Up(0)));
            for _ in 0..5 {
                let sent = (0..).take_while(|_| one.send(1, len, &mut |frame| frame.fill(7)) == Sent::Accepted).count();
                assert!(sent > 0 && sent * len <= WINDOW, "{sent} frames of {len} bytes");
                carry(&one, &other);
                for _ in 0..sent {
                    assert_eq!(take(&other), Some(Arrival::Frame(0, vec![7; len])));
                    other.recycle(0, vec![7; len]);
                }
                assert_eq!(take(&other), None);
                carry(&other, &one);
            }
        }
    }

    #[test]
    fn both_have_to_leave() {
        let (one, other) = (Mailbox::new(0, 2), Mailbox::new(1, 2));
        one.leave(false);
        carry(&one, &other);
        assert!(other.is_gone(0) && !one.is_done());
        assert_eq!([take(&other), take(&other)], [Some(Arrival::Up(0)), Some(Arrival::Down(0))]);
        other.leave(false);
        carry(&other, &one);
        assert!(one.is_done() && other.is_done());
    }
}
