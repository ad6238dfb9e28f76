//! What goes wrong in a run, and when: a schedule that is known before the run begins.
//!
//! # For users
//! A [`FaultSchedule`] holds node outages (all links cut both ways, the node goes on computing), cuts
//! between groups of nodes (one-way; two make a partition), links that behave worse for a while or take
//! nothing at all, and crashes with or without a restart. Its text form is one fault per line, times in nanoseconds; a trace carries it, and a schedule recorded on one
//! transport can be played on another.
//!
//! # For implementers
//! [`FaultSchedule::events`] flattens the schedule into instants; ties keep the order of the lines.

use crate::link::LinkOptions;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Fault {
    /// All links of the node are cut, both ways, in `from..until`; it goes on computing.
    Outage {
        /// The node that is offline.
        node: NodeId,
        /// When it goes offline.
        from: Instant,
        /// When it is back.
        until: Instant,
    },
    /// Frames from any of `sources` to any of `targets` are lost in `from..until`; the other way is not touched.
    Cut {
        /// The nodes that are not heard.
        sources: BTreeSet<NodeId>,
        /// The nodes that do not hear.
        targets: BTreeSet<NodeId>,
        /// When the cut begins.
        from: Instant,
        /// When it heals.
        until: Instant,
    },
    /// Links from any of `sources` to any of `targets` behave as `options` say in `from..until`, but for the
    /// longest frame, which is the same for a whole run. Of several such faults the last of the schedule counts.
    Link {
        /// The senders.
        sources: BTreeSet<NodeId>,
        /// The receivers.
        targets: BTreeSet<NodeId>,
        /// How the links behave.
        options: LinkOptions,
        /// When this begins.
        from: Instant,
        /// When it is over.
        until: Instant,
    },
    /// Links from any of `sources` to any of `targets` take no frames in `from..until`: they are full, and their
    /// senders know. What is on them already arrives.
    Clog {
        /// The senders.
        sources: BTreeSet<NodeId>,
        /// The receivers.
        targets: BTreeSet<NodeId>,
        /// When the links clog.
        from: Instant,
        /// When they take frames again.
        until: Instant,
    },
    /// The node loses its memory and its work at `at`.
    Crash {
        /// The node that dies.
        node: NodeId,
        /// When it dies.
        at: Instant,
        /// When it is started again; [`Instant::FAR`] is never.
        restart: Instant,
    },
}

/// What changes at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Change {
    /// The node's links are cut.
    Offline(NodeId),
    /// One outage of the node is over.
    Online(NodeId),
    /// What is wrong with links, by its number in the schedule, begins.
    Cut(usize),
    /// What is wrong with links, by its number in the schedule, heals.
    Healed(usize),
    /// The node dies.
    Crash(NodeId),
    /// The node is started again.
    Restart(NodeId),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offline(node) => write!(f, "{node} offline"),
            Self::Online(node) => write!(f, "{node} online"),
            Self::Cut(number) => write!(f, "cut {number}"),
            Self::Healed(number) => write!(f, "healed {number}"),
            Self::Crash(node) => write!(f, "{node} crash"),
            Self::Restart(node) => write!(f, "{node} restart"),
        }
    }
}

/// Everything that goes wrong in a run.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FaultSchedule {
    /// The faults, in any order.
    pub faults: Vec<Fault>,
}

impl FaultSchedule {
    /// A two-way partition between `one` and `other` in `from..until`.
    pub fn partition(&mut self, one: BTreeSet<NodeId>, other: BTreeSet<NodeId>, from: Instant, until: Instant) {
        self.faults.push(Fault::Cut { sources: one.clone(), targets: other.clone(), from, until });
        self.faults.push(Fault::Cut { sources: other, targets: one, from, until });
    }

    /// All changes in the order of their times; equal times keep the order of the faults.
    pub fn events(&self) -> Vec<(Instant, Change)> {
        let mut events = Vec::with_capacity(2 * self.faults.len());
        for (number, fault) in self.faults.iter().enumerate() {
            match *fault {
                Fault::Outage { node, from, until } => {
                    events.push((from, Change::Offline(node)));
                    events.push((until, Change::Online(node)));
                }
                Fault::Cut { from, until, .. } | Fault::Link { from, until, .. } | Fault::Clog { from, until, .. } => {
                    events.push((from, Change::Cut(number)));
                    events.push((until, Change::Healed(number)));
                }
                Fault::Crash { node, at, restart } => {
                    events.push((at, Change::Crash(node)));
                    if restart < Instant::FAR {
                        events.push((restart, Change::Restart(node)));
                    }
                }
            }
        }
        events.sort_by_key(|&(at, _)| at);
        events
    }

    /// When the last fault is over; crashes without restart count when they happen.
    pub fn end(&self) -> Instant {
        self.events().last().map_or(Instant::ORIGIN, |&(at, _)| at)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outage { node, from, until } => {
                write!(f, "outage {node} {} {}", from.as_nanos(), until.as_nanos())
            }
            Self::Cut { sources, targets, from, until } => {
                write!(f, "cut {} {} {} {}", List(sources), List(targets), from.as_nanos(), until.as_nanos())
            }
            Self::Link { sources, targets, options, from, until } => {
                let (sources, targets) = (List(sources), List(targets));
                write!(f, "link {sources} {targets} {} {} {options}", from.as_nanos(), until.as_nanos())
            }
            Self::Clog { sources, targets, from, until } => {
                write!(f, "clog {} {} {} {}", List(sources), List(targets), from.as_nanos(), until.as_nanos())
            }
            Self::Crash { node, at, restart } => {
                write!(f, "crash {node} {}", at.as_nanos())?;
                if *restart < Instant::FAR {
                    write!(f, " {}", restart.as_nanos())?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for FaultSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.faults.iter().try_for_each(|fault| writeln!(f, "{fault}"))
    }
}

/// A line of a fault schedule that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "fault `{line}`: expected `outage nI FROM UNTIL`, `cut nI,nJ nK,nL FROM UNTIL`, `clog nI,nJ nK,nL FROM UNTIL`, `link nI,nJ nK,nL FROM UNTIL OPTIONS` or `crash nI AT [RESTART]`, times in nanoseconds and in order"
)]
pub struct FaultError {
    line: String,
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(line: &str) -> Result<Self, FaultError> {
        parse_fault(line).ok_or_else(|| FaultError { line: line.into() })
    }
}

impl FromStr for FaultSchedule {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(Self { faults: lines.map(str::parse).collect::<Result<_, _>>()? })
    }
}

fn parse_fault(line: &str) -> Option<Fault> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let time = |word: &str| word.parse().ok().map(Instant::from_nanos);
    let ordered = |from: Instant, until: Instant| (from <= until).then_some((from, until));
    let nodes = |list: &str| list.split(',').map(parse_node).collect::<Option<_>>();
    match *words.as_slice() {
        ["outage", node, from, until] => {
            let (from, until) = ordered(time(from)?, time(until)?)?;
            Some(Fault::Outage { node: parse_node(node)?, from, until })
        }
        ["cut", sources, targets, from, until] => {
            let (from, until) = ordered(time(from)?, time(until)?)?;
            Some(Fault::Cut { sources: nodes(sources)?, targets: nodes(targets)?, from, until })
        }
        ["clog", sources, targets, from, until] => {
            let (from, until) = ordered(time(from)?, time(until)?)?;
            Some(Fault::Clog { sources: nodes(sources)?, targets: nodes(targets)?, from, until })
        }
        ["link", sources, targets, from, until, options] => {
            let (from, until) = ordered(time(from)?, time(until)?)?;
            let options = options.parse().ok()?;
            Some(Fault::Link { sources: nodes(sources)?, targets: nodes(targets)?, options, from, until })
        }
        ["crash", node, at] => Some(Fault::Crash { node: parse_node(node)?, at: time(at)?, restart: Instant::FAR }),
        ["crash", node, at, restart] => {
            let (at, restart) = ordered(time(at)?, time(restart)?)?;
            Some(Fault::Crash { node: parse_node(node)?, at, restart })
        }
        _ => None,
    }
}

/// Reads `n3`.
pub(crate) fn parse_node(text: &str) -> Option<NodeId> {
    text.strip_prefix('n')?.parse().ok().map(NodeId)
}

/// Node names with commas between them.
struct List<'a>(&'a BTreeSet<NodeId>);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, node) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{node}")?;
        }
        Ok(())
    }
}

/// Reads a time with its unit: `250ns`, `1.5us`, `20ms`, `3s`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(split);
    let nanoseconds_each = match unit {
        "ns" => 1.0,
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(nanoseconds_each as u64).map(Duration::from_nanos);
    }
    let nanoseconds = number.parse::<f64>().ok()? * nanoseconds_each;
    (nanoseconds.is_finite() && (0.0..1.8e19).contains(&nanoseconds))
        .then(|| Duration::from_nanos(nanoseconds.round() as u64))
}

/// Writes a time with the largest unit that needs no fraction; [`parse_duration`] reads it back exactly.
pub fn write_duration(span: Duration) -> String {
    let nanoseconds = span.as_nanos();
    for (unit, each) in [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)] {
        if nanoseconds > 0 && nanoseconds.is_multiple_of(each) {
            return format!("{}{unit}", nanoseconds / each);
        }
    }
    format!("{nanoseconds}ns")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_fault() -> impl Strategy<Value = Fault> {
        let node = (0_u32..9).prop_map(NodeId);
        let nodes = proptest::collection::btree_set(node.clone(), 1..4);
        let time = 0_u64..1_000_000_000;
        let span =
            (time.clone(), time).prop_map(|(from, more)| (Instant::from_nanos(from), Instant::from_nanos(from + more)));
        prop_oneof![
            (node.clone(), span.clone()).prop_map(|(node, (from, until))| Fault::Outage { node, from, until }),
            (nodes.clone(), nodes.clone(), span.clone())
                .prop_map(|(sources, targets, (from, until))| { Fault::Cut { sources, targets, from, until } }),
            (nodes.clone(), nodes.clone(), span.clone())
                .prop_map(|(sources, targets, (from, until))| { Fault::Clog { sources, targets, from, until } }),
            (nodes.clone(), nodes, span.clone(), 0.0..=1.0).prop_map(|(sources, targets, (from, until), loss)| {
                let options = LinkOptions { loss, ..LinkOptions::default() };
                Fault::Link { sources, targets, options, from, until }
            }),
            (node, span, any::<bool>()).prop_map(|(node, (at, restart), again)| Fault::Crash {
                node,
                at,
                restart: if again { restart } else { Instant::FAR },
            }),
        ]
    }

    proptest! {
        #[test]
        fn text_form_round_trips(faults in proptest::collection::vec(any_fault(), 0..10)) {
            let schedule = FaultSchedule { faults };
            prop_assert_eq!(schedule.to_string().parse::<FaultSchedule>().unwrap(), schedule);
        }

        #[test]
        fn events_come_in_order(faults in proptest::collection::vec(any_fault(), 0..10)) {
            let events = FaultSchedule { faults }.events();
            prop_assert!(events.is_sorted_by_key(|&(at, _)| at));
        }

        #[test]
        fn durations_round_trip(nanoseconds in any::<u64>()) {
            let span = Duration::from_nanos(nanoseconds);
            prop_assert_eq!(parse_duration(&write_duration(span)), Some(span));
        }

        #[test]
        fn garbage_is_refused_without_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<FaultSchedule>();
            let _ = parse_duration(&text);
        }
    }

    #[test]
    fn durations_are_read_with_fractions() {
        assert_eq!(parse_duration("1.5ms"), Some(Duration::from_micros(1500)));
        assert_eq!(parse_duration("5"), None);
        assert_eq!(parse_duration("-1s"), None);
    }
}
