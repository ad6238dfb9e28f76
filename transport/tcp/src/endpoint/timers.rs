//! What is due.

use super::TcpEndpoint;
use crate::connection::{Connection, Stage};
use crate::incident::Closure;
use kronfleet_core::time::Instant;

impl TcpEndpoint {
    /// Does what is due at `now`, and notes when something will be again.
    pub(super) fn act(&mut self, now: Instant) {
        let mut next = Instant::FAR;
        if self.knocking {
            if now >= self.accept_after {
                self.accept();
            }
            if self.knocking {
                next = next.min(self.accept_after);
            }
        }
        for token in 0..self.connections.len() {
            let Some(mut connection) = self.connections[token].take() else {
                continue;
            };
            match self.examine(&mut connection, now) {
                Ok(later) => {
                    if !connection.owed.is_empty() {
                        self.owe(token, &mut connection);
                    }
                    self.connections[token] = Some(connection);
                    next = next.min(later);
                }
                Err(closure) => self.close(token, connection, closure),
            }
        }
        // Closing stirs; what it brought about is looked at here and now.
        self.timer = next.min(self.dial_due(now));
        self.judge_reach();
        for link in self.links.values() {
            if link.open.is_none() && link.hold > now {
                self.timer = self.timer.min(link.hold);
            }
        }
    }

    /// When a connection wants to be looked at again.
    ///
    /// # Errors
    /// Why it is to be closed.
    fn examine(&self, connection: &mut Connection, now: Instant) -> Result<Instant, Closure> {
        let (handshake, silence) = (self.options.handshake, self.options.silence);
        if connection.stage < Stage::Open {
            let deadline = connection.opened + handshake;
            return if now >= deadline { Err(Closure::Slow(handshake)) } else { Ok(deadline) };
        }
        if connection.readable {
            // What it says has not been looked at.
            return Ok(now + silence / 4);
        }
        let deadline = connection.heard + silence;
        if now >= deadline {
            return Err(Closure::Silent(silence));
        }
        let ask = connection.heard + silence / 4;
        if connection.asked || now < ask {
            return Ok(if connection.asked { deadline } else { ask });
        }
        connection.asked = true;
        connection.owed.ping = true;
        Ok(deadline)
    }
}
