//! Names of hosts become addresses on the side: the system's resolver waits, an end must not.

use mio::Waker;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// What became of a question: the number under which it was asked, and the addresses, if there are any.
pub(crate) type Answer = (usize, Vec<SocketAddr>);

/// Asks the system for addresses; one short-lived thread for each question.
pub(crate) struct Resolver {
    waker: Arc<Waker>,
    answer: Sender<Answer>,
    answers: Receiver<Answer>,
}

impl Resolver {
    pub(crate) fn new(waker: Arc<Waker>) -> Self {
        let (answer, answers) = channel();
        Self { waker, answer, answers }
    }

    /// Asks for the addresses of `host:port`; the answer comes with a call of the waker.
    pub(crate) fn ask(&self, question: usize, host: &str) {
        let (answer, waker, host) = (self.answer.clone(), self.waker.clone(), host.to_owned());
        let asked = std::thread::Builder::new().name("resolver".into()).spawn(move || {
            // An end that is gone does not want to know.
            let _ = answer.send((question, resolve(&host)));
            let _ = waker.wake();
        });
        if asked.is_err() {
            let _ = self.answer.send((question, Vec::new()));
        }
    }

    /// The next answer that is there.
    pub(crate) fn next(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

/// The addresses of `host:port`; waits for the system's resolver.
fn resolve(host: &str) -> Vec<SocketAddr> {
    match host.to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            tracing::debug!(host, %error, "a seed's name has no address now");
            Vec::new()
        }
    }
}
