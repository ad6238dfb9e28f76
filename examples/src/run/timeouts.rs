//! Every timeout of connections, derived from the one budget.

use crate::settings::TcpSettings;
use anyhow::{Result, bail};
use kronfleet_core::cluster::Budget;
use kronfleet_core::time::Duration;
use std::fmt;

/// The timeouts of TCP connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timeouts {
    /// How long making a connection may take: the budget, for whoever is dialled is not waited for by rounds.
    pub(super) connect: Duration,
    /// After how long a silence a connection is given up: the budget, by when the node at its end counts as lost.
    pub(super) silence: Duration,
    /// The wait before a lost connection is dialled anew, at first: 1/40. It doubles.
    pub(super) redial: Duration,
    /// The longest such wait: the budget.
    pub(super) redial_longest: Duration,
    /// How long after losing a connection frames go through others: 1/8, within what a round waits.
    pub(super) relay: Duration,
}

impl Timeouts {
    /// What follows from the budget and from what the user says otherwise.
    ///
    /// # Errors
    /// If that contradicts the budget: the message says why.
    pub(super) fn derive(settings: &TcpSettings, budget: Budget) -> Result<Self> {
        let total = budget.total();
        if let Some(connect) = settings.connect_timeout.filter(|&connect| connect > total) {
            bail!(
                "--connect-timeout {connect:?} contradicts --stall-budget {total:?}: a node that is back could not be \
                 dialled anew within the budget; make it {total:?} at most, or the budget longer"
            );
        }
        if let Some(silence) = settings.silence {
            let sound = 3 * budget.heartbeat();
            if silence < sound {
                bail!(
                    "--silence {silence:?} contradicts --stall-budget {total:?}: sound nodes say something every {:?} \
                     only, and would be cut off; make it {sound:?} at least, or the budget shorter",
                    budget.heartbeat()
                );
            }
            if silence > total {
                bail!(
                    "--silence {silence:?} contradicts --stall-budget {total:?}: a dead connection would outlast it; make \
                     it {total:?} at most, or the budget longer"
                );
            }
        }
        Ok(Self {
            connect: settings.connect_timeout.unwrap_or(total),
            silence: settings.silence.unwrap_or(total),
            redial: total / 40,
            redial_longest: total,
            relay: total / 8,
        })
    }
}

impl fmt::Display for Timeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connect, silence, redial, redial_longest, relay } = self;
        write!(
            f,
            "connect {connect:?}, silence {silence:?}, redial {redial:?} to {redial_longest:?}, relay after {relay:?}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Settings {
        #[command(flatten)]
        tcp: TcpSettings,
    }

    fn derive(flags: &[&str]) -> Result<Timeouts> {
        let settings = Settings::parse_from(["program"].iter().chain(flags));
        Timeouts::derive(&settings.tcp, Budget::new(Duration::from_secs(2)).expect("a usual budget"))
    }

    #[test]
    fn contradictions_are_refused_with_the_reason() {
        let printed = derive(&[]).expect("no contradiction").to_string();
        assert_eq!(printed, "connect 2s, silence 2s, redial 50ms to 2s, relay after 250ms");
        assert_eq!(derive(&["--silence=300ms"]).expect("no contradiction").silence, Duration::from_millis(300));
        for (flag, reason) in [
            ("--connect-timeout=3s", "dialled anew within the budget; make it 2s at most"),
            ("--silence=200ms", "every 100ms only, and would be cut off; make it 300ms at least"),
            ("--silence=3s", "a dead connection would outlast it; make it 2s at most"),
        ] {
            let says = derive(&[flag]).expect_err("a contradiction").to_string();
            assert!(says.contains("contradicts --stall-budget 2s") && says.contains(reason), "{says}");
        }
    }
}
