//! The laws of [`Transport`], one function per law, and mutants that break them.
//!
//! # For users
//! Say how a connected set of ends is made ([`Fabric`]), then, in `tests/conformance.rs`:
//!
//! ```
//! use kronfleet_conformance::transport::reference::Corridor;
//! kronfleet_conformance::transport_laws!(Corridor::default());
//! ```
//!
//! Every law becomes a test of its own. Each gets fresh ends, and none waits for ever: a law that does not
//! answer within a minute is broken.
//!
//! # For implementers
//! A law answers with a [`Verdict`] instead of panicking, so that the suite can show which law rejects
//! which [`mutant`]. Laws that are listed in [`LAWS`] are run by the macro.

pub mod death;
pub mod delivery;
pub mod exchange;
pub mod limits;
pub mod mutant;
pub mod reference;
pub mod remote;
pub mod waiting;

use crate::violation::{Verdict, Violation};
use kronfleet_core::transport::Transport;
use std::sync::mpsc::channel;
use std::time::Duration;

/// Makes ends of the transport under test.
pub trait Fabric: 'static {
    /// One node's end.
    type End: Transport + Send;

    /// The ends of `n0` up to `nodes − 1`, connected with each other and with nobody else.
    fn connect(&mut self, nodes: u32) -> Vec<Self::End>;

    /// Ends the life of a node as abruptly as the transport's users can die.
    fn kill(&mut self, end: Self::End) {
        drop(end);
    }

    /// What this transport promises.
    fn promise(&self) -> Promise;
}

/// What a transport promises beyond the laws that bind them all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Promise {
    /// The probability that a frame is lost.
    pub loss: f64,
    /// The probability that a frame arrives twice.
    pub duplicate: f64,
    /// Whether frames from one node to another arrive in the order in which they were sent.
    pub ordered: bool,
    /// Whether a dead peer is reported as down.
    pub reports: bool,
    /// After this time without an arrival, nothing is under way any more.
    pub settle: Duration,
}

impl Promise {
    /// Nothing lost, nothing doubled, in order, deaths reported; two seconds of silence are the end.
    pub const RELIABLE: Self =
        Self { loss: 0.0, duplicate: 0.0, ordered: true, reports: true, settle: Duration::from_secs(2) };
}

/// Runs a law on fresh ends; a minute without an answer breaks it.
///
/// # Errors
/// The violation, if the law is broken.
pub fn judge<F: Fabric>(
    name: &'static str,
    fabric: impl FnOnce() -> F + Send + 'static,
    law: fn(&mut F) -> Verdict,
) -> Verdict {
    let (verdict, answer) = channel();
    let court = std::thread::Builder::new().name(name.into());
    let spawned = court.spawn(move || {
        let _ = verdict.send(law(&mut fabric()));
    });
    let thread = spawned.expect("a thread can be started");
    match answer.recv_timeout(Duration::from_secs(60)) {
        Ok(verdict) => verdict,
        Err(_) if thread.is_finished() => {
            Err(Violation { law: name, what: "the transport panicked; see its message above".into() })
        }
        Err(_) => Err(Violation { law: name, what: "no answer within 60 s: a call waits for ever".into() }),
    }
}

/// Hands the list of laws to a macro, so that it is written once.
#[doc(hidden)]
#[macro_export]
macro_rules! each_transport_law {
    ([$($each:tt)*] $($argument:tt)*) => {
        $($each)*! {
            ($($argument)*)
            delivery::frames_arrive_unaltered,
            delivery::short_frames_arrive_unaltered,
            delivery::senders_are_named,
            delivery::losses_are_as_promised,
            delivery::copies_are_as_promised,
            delivery::order_is_as_promised,
            limits::frames_up_to_the_longest_are_carried,
            limits::too_long_a_frame_panics,
            limits::a_frame_to_oneself_panics,
            limits::an_unknown_receiver_is_an_error,
            waiting::receiving_honours_its_deadline,
            waiting::a_past_deadline_polls,
            waiting::sending_never_waits,
            waiting::a_full_link_leaves_fill_uncalled,
            waiting::fill_is_called_once_with_the_length,
            waiting::back_pressure_never_deadlocks,
            waiting::a_full_link_loses_nothing,
            waiting::a_frame_wakes_its_receiver,
            waiting::time_never_goes_back,
            death::a_dead_peer_is_reported,
            death::a_dead_peer_stops_nobody,
        }
    };
}

macro_rules! list {
    (() $($module:ident::$law:ident),* $(,)?) => {
        /// The names of all laws.
        pub const LAWS: &[&str] = &[$(stringify!($law)),*];

        /// Runs the law of this name on fresh ends.
        ///
        /// # Errors
        /// The violation, if the law is broken.
        ///
        /// # Panics
        /// If there is no such law.
        #[track_caller]
        pub fn judge_by<F: Fabric>(law: &str, fabric: impl FnOnce() -> F + Send + 'static) -> Verdict {
            match law {
                $(stringify!($law) => judge(stringify!($law), fabric, $module::$law),)*
                _ => panic!("`{law}` is none of the laws {LAWS:?}"),
            }
        }
    };
}

each_transport_law!([list]);

/// Makes one test of every transport law; the argument is an expression that makes a [`Fabric`].
#[macro_export]
macro_rules! transport_laws {
    ($fabric:expr) => {
        $crate::each_transport_law!([$crate::transport_law_tests] $fabric);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! transport_law_tests {
    (($fabric:expr) $($module:ident::$law:ident),* $(,)?) => {
        $(
            #[test]
            fn $law() {
                let verdict = $crate::transport::judge(
                    stringify!($law),
                    || $fabric,
                    $crate::transport::$module::$law,
                );
                if let Err(violation) = verdict {
                    panic!("{violation}");
                }
            }
        )*
    };
}
