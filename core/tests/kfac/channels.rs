//! Members in threads of one program, and what they send each other.

use kronfleet_core::error::ErrorKind;
use kronfleet_core::placement::{Letter, Mail, Route, Wire};
use kronfleet_core::transport::{NodeId, TransportError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// Channels from and to every member, and letters by the messages of a [`Mail`]; counts the values it sends.
pub(crate) struct Channels {
    pub(crate) me: usize,
    to: Vec<Sender<Message>>,
    from: Receiver<Message>,
    pub(crate) moved: Arc<AtomicU64>,
    /// Samples of each member's batches.
    weights: Vec<f64>,
    /// The exchange at which the member dies.
    pub(crate) dies_at: Option<u64>,
    exchanges: u64,
    /// How often each other member was in an exchange with this one.
    counts: Vec<u64>,
    /// What came for exchanges that have not begun here.
    early: Vec<Message>,
    gone: Vec<usize>,
}

/// From whom, in which exchange with the receiver, what; nothing if the sender is gone.
type Message = (usize, u64, Option<Vec<u8>>);

/// Bytes of a message at most: three values, so that there are many.
const LONGEST: usize = 16 + 3 * 8;

pub(crate) fn channels(weights: &[usize]) -> Vec<Channels> {
    let moved = Arc::new(AtomicU64::new(0));
    let (senders, receivers): (Vec<_>, Vec<_>) = weights.iter().map(|_| channel()).unzip();
    let end = |(me, from)| Channels {
        me,
        to: senders.clone(),
        from,
        moved: Arc::clone(&moved),
        weights: weights.iter().map(|&weight| weight as f64).collect(),
        dies_at: None,
        exchanges: 0,
        counts: vec![0; weights.len()],
        early: Vec::new(),
        gone: Vec::new(),
    };
    receivers.into_iter().enumerate().map(end).collect()
}

impl Drop for Channels {
    fn drop(&mut self) {
        // The other ends hold senders to each other, so that nobody hears of this by itself.
        for to in &self.to {
            let _ = to.send((self.me, 0, None));
        }
    }
}

impl Channels {
    fn exchange(&mut self, letter: &mut Letter<f64>) -> Result<(), TransportError> {
        self.exchanges += 1;
        if self.dies_at.is_some_and(|last| self.exchanges > last) {
            return Err(lost(self.me));
        }
        let members: Vec<usize> = (0..self.to.len()).filter(|&member| letter.route.includes(member)).collect();
        assert!(members.contains(&self.me), "member {} has no part in this", self.me);
        members.iter().for_each(|&member| self.counts[member] += 1);
        let mail = Mail::new(self.me, &self.weights, vec![letter.clone()], LONGEST);
        let mut mail = mail.expect("values are finite");
        let belongs = |counts: &[u64], message: &Message| counts[message.0] == message.1;
        let (now, early) =
            core::mem::take(&mut self.early).into_iter().partition(|message| belongs(&self.counts, message));
        self.early = early;
        let mut waiting: Vec<Message> = now;
        loop {
            while let Some((to, bytes)) = mail.poll() {
                self.moved.fetch_add((bytes.len() as u64 - 16) / 8, Ordering::Relaxed);
                self.to[to].send((self.me, self.counts[to], Some(bytes))).map_err(|_| lost(to))?;
            }
            if mail.is_whole() {
                break;
            }
            // Whoever is gone has sent before all that it had to.
            let awaited = mail.awaited();
            if let (true, Some(&gone)) = (waiting.is_empty(), self.gone.iter().find(|gone| awaited.contains(gone))) {
                return Err(lost(gone));
            }
            let message = match waiting.pop() {
                Some(message) => message,
                None => self.from.recv().expect("this end holds a sender, too"),
            };
            match message {
                (from, _, None) => self.gone.push(from),
                (from, _, Some(bytes)) if belongs(&self.counts, &(from, message.1, None)) => {
                    mail.receive(from, &bytes).expect("a message that fits");
                }
                _ => self.early.push(message),
            }
        }
        *letter = mail.finish().remove(0);
        Ok(())
    }
}

pub(crate) fn lost(member: usize) -> TransportError {
    let peer = Some(NodeId(member as u32));
    TransportError { kind: ErrorKind::Unreachable, peer, reason: "is gone".into() }
}

impl Wire<f64> for Channels {
    fn mean(&mut self, to: Option<usize>, values: &mut [f64]) -> Result<(), TransportError> {
        let mut letter = Letter { route: Route::Mean { to }, values: values.to_vec() };
        self.exchange(&mut letter)?;
        values.copy_from_slice(&letter.values);
        Ok(())
    }

    fn broadcast(&mut self, from: usize, to: &[usize], values: &mut [f64]) -> Result<(), TransportError> {
        let mut letter = Letter { route: Route::Broadcast { from, to: to.to_vec() }, values: values.to_vec() };
        self.exchange(&mut letter)?;
        values.copy_from_slice(&letter.values);
        Ok(())
    }
}
