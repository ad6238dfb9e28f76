//! Which nodes are offline when: the outage models of "Distributed K-FAC Over Unstable Networks".
//!
//! # For users
//! [`OutageOptions`] name a model, how long outages last and how many nodes may be offline at once;
//! [`OutageSchedule::new`] draws the whole run in advance, in iterations, and knows what fraction of the time
//! nodes were really offline ([`OutageSchedule::realised`]). [`OutageSchedule::faults`] turns iterations into
//! times. An offline node's links are cut both ways; it goes on training.
//!
//! Source: Yu & Tatebe, "Distributed K-FAC Over Unstable Networks", IPSJ SIG Technical Report
//! 2024-HPC-195-13; the cap, which never bound there, is enforced here.
//!
//! # For implementers
//! Every node draws its durations from its own stream, so that a cap or another node's luck never changes
//! how long its next outage is. Who goes when the cap leaves room for fewer than want to is drawn uniformly.

use crate::fault::{Fault, FaultSchedule};
use kronfleet_core::seed::{Random, Seed};
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// When a node goes offline and for how long.
///
/// Text form: `none`, `fraction:0.4:9` (target fraction, longest outage), `bernoulli:0.1:20` (probability,
/// longest outage). Outages last a uniformly drawn number of iterations, from one to the longest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum OutageModel {
    /// All nodes are always online.
    #[default]
    None,
    /// A node that is back goes offline again while the fraction of its iterations spent offline is below
    /// `fraction`. The first outages begin in iterations `1..=max_duration`, drawn uniformly.
    TimeFraction {
        /// Target fraction of the time.
        fraction: f64,
        /// The longest outage, in iterations.
        max_duration: u64,
    },
    /// At each averaging interval every online node goes offline with this probability.
    Bernoulli {
        /// Probability per averaging interval.
        probability: f64,
        /// The longest outage, in iterations.
        max_duration: u64,
    },
}

/// How many nodes may be offline at once.
///
/// Text form: a number (`3`), a part of all nodes (`P/2`), or all but some (`P-1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfflineCap {
    /// This many.
    Nodes(u32),
    /// All nodes divided by this, rounded down.
    Part(u32),
    /// All nodes but this many.
    AllBut(u32),
}

impl OfflineCap {
    /// The number for a fleet of `nodes`.
    pub fn of(self, nodes: u32) -> u32 {
        match self {
            Self::Nodes(count) => count.min(nodes),
            Self::Part(divisor) => nodes / divisor.max(1),
            Self::AllBut(online) => nodes.saturating_sub(online),
        }
    }
}

/// What outages a run has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutageOptions {
    /// When nodes go offline.
    pub model: OutageModel,
    /// How many may be offline at once.
    pub max_concurrent_offline: OfflineCap,
}

impl Default for OutageOptions {
    /// No outages; if there were any, all nodes but one might be offline.
    fn default() -> Self {
        Self { model: OutageModel::None, max_concurrent_offline: OfflineCap::AllBut(1) }
    }
}

impl OutageOptions {
    /// The largest fraction of the time that nodes can be offline in the long run under this model and cap.
    ///
    /// `min(cap / P, m / (m + 1))` with `m` the mean duration, since a node is back for one iteration at
    /// least between two outages.
    pub fn attainable(&self, nodes: u32) -> f64 {
        let max_duration = match self.model {
            OutageModel::None => return 0.0,
            OutageModel::TimeFraction { max_duration, .. } | OutageModel::Bernoulli { max_duration, .. } => {
                max_duration
            }
        };
        let mean = (1.0 + max_duration as f64) / 2.0;
        let cap = f64::from(self.max_concurrent_offline.of(nodes)) / f64::from(nodes.max(1));
        cap.min(mean / (mean + 1.0))
    }
}

/// Who is offline in which iterations of a run.
///
/// ```
/// use kronfleet_core::seed::Seed;
/// use kronfleet_lossy::outage::{OutageOptions, OutageSchedule};
///
/// let options =
///     OutageOptions { model: "fraction:0.4:9".parse().unwrap(), max_concurrent_offline: "P/2".parse().unwrap() };
/// let schedule = OutageSchedule::new(&options, 8, 285, 5, Seed(1));
/// assert!(schedule.most_offline() <= 4);
/// assert!((schedule.realised() - 0.4).abs() < 0.03);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutageSchedule {
    /// For each node its outages, in order and with at least one iteration between them; iterations count
    /// from 0.
    pub outages: Vec<Vec<Range<u64>>>,
    /// How many iterations the run has.
    pub iterations: u64,
}

impl OutageSchedule {
    /// Draws the outages of `nodes` nodes over `iterations`, averaged every `interval` iterations.
    ///
    /// Equal arguments give equal schedules.
    ///
    /// # Panics
    /// If the interval is 0.
    #[track_caller]
    pub fn new(options: &OutageOptions, nodes: u32, iterations: u64, interval: u64, seed: Seed) -> Self {
        assert!(interval > 0, "an averaging interval has at least one iteration");
        let cap = options.max_concurrent_offline.of(nodes) as usize;
        let mut fleet: Vec<Node> =
            (0..nodes).map(|node| Node::new(options.model, seed.derive("outage", node.into()))).collect();
        let mut fairness = seed.derive("outage order", 0).random();
        for iteration in 0..iterations {
            let offline = fleet.iter().filter(|node| iteration < node.back).count();
            let mut willing: Vec<usize> =
                (0..fleet.len()).filter(|&node| fleet[node].wants(options.model, iteration, interval)).collect();
            let room = cap.saturating_sub(offline);
            if willing.len() > room {
                fairness.shuffle(&mut willing);
                willing.truncate(room);
            }
            for node in willing {
                fleet[node].leave(options.model, iteration, iterations);
            }
        }
        Self { outages: fleet.into_iter().map(|node| node.outages).collect(), iterations }
    }

    /// Whether `node` is offline in `iteration`.
    pub fn offline(&self, node: NodeId, iteration: u64) -> bool {
        let outages = self.outages.get(node.0 as usize);
        outages.is_some_and(|outages| outages.iter().any(|outage| outage.contains(&iteration)))
    }

    /// The fraction of all nodes' iterations that were offline.
    pub fn realised(&self) -> f64 {
        let offline: u64 = self.outages.iter().flatten().map(|outage| outage.end - outage.start).sum();
        let all = self.outages.len() as u64 * self.iterations;
        if all == 0 { 0.0 } else { offline as f64 / all as f64 }
    }

    /// The most nodes that are offline in one iteration.
    pub fn most_offline(&self) -> u32 {
        let nodes = self.outages.len() as u32;
        let offline = |iteration| {
            let nodes = (0..nodes).map(NodeId);
            nodes.filter(|&node| self.offline(node, iteration)).count() as u32
        };
        // The number only grows where an outage begins.
        let starts = self.outages.iter().flatten().map(|outage| outage.start);
        starts.map(offline).max().unwrap_or(0)
    }

    /// The same outages in time, an iteration taking `step`.
    pub fn faults(&self, step: Duration) -> FaultSchedule {
        let time = |iteration: u64| {
            let nanoseconds = u128::from(iteration) * step.as_nanos();
            Instant::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
        };
        let nodes = self.outages.iter().enumerate();
        let faults = nodes.flat_map(|(node, outages)| {
            outages.iter().map(move |outage| Fault::Outage {
                node: NodeId(node as u32),
                from: time(outage.start),
                until: time(outage.end),
            })
        });
        FaultSchedule { faults: faults.collect() }
    }
}

/// One node while its schedule is drawn.
struct Node {
    random: Random,
    /// The first iteration in which it may go offline.
    first: u64,
    /// The first iteration in which it is online again.
    back: u64,
    offline: u64,
    outages: Vec<Range<u64>>,
}

impl Node {
    fn new(model: OutageModel, seed: Seed) -> Self {
        let mut random = seed.random();
        let first = match model {
            OutageModel::TimeFraction { max_duration, .. } => 1 + random.below(max_duration.max(1)),
            OutageModel::None | OutageModel::Bernoulli { .. } => 0,
        };
        Self { random, first, back: 0, offline: 0, outages: Vec::new() }
    }

    fn wants(&mut self, model: OutageModel, iteration: u64, interval: u64) -> bool {
        // Back means online for an iteration: else two outages would be one longer than the longest.
        let returned = !self.outages.is_empty() && iteration <= self.back;
        if iteration < self.first || iteration < self.back || returned {
            return false;
        }
        match model {
            OutageModel::None => false,
            OutageModel::TimeFraction { fraction, .. } => (self.offline as f64) < fraction * iteration as f64,
            OutageModel::Bernoulli { probability, .. } => {
                iteration.is_multiple_of(interval) && self.random.chance(probability)
            }
        }
    }

    fn leave(&mut self, model: OutageModel, iteration: u64, iterations: u64) {
        let max_duration = match model {
            OutageModel::None => return,
            OutageModel::TimeFraction { max_duration, .. } | OutageModel::Bernoulli { max_duration, .. } => {
                max_duration
            }
        };
        let duration = 1 + self.random.below(max_duration.max(1));
        self.back = iteration.saturating_add(duration);
        let outage = iteration..self.back.min(iterations);
        self.offline += outage.end - outage.start;
        self.outages.push(outage);
    }
}

/// A model or cap that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("outages `{text}`: expected {expected}")]
pub struct OutageError {
    text: String,
    expected: &'static str,
}

impl FromStr for OutageModel {
    type Err = OutageError;

    fn from_str(text: &str) -> Result<Self, OutageError> {
        parse_model(text).ok_or_else(|| OutageError {
            text: text.into(),
            expected: "`none`, `fraction:0.4:9` or `bernoulli:0.1:20` (a number from 0 to 1, then the longest outage in iterations, at least 1)",
        })
    }
}

fn parse_model(text: &str) -> Option<OutageModel> {
    if text == "none" {
        return Some(OutageModel::None);
    }
    let (name, rest) = text.split_once(':')?;
    let (share, duration) = rest.split_once(':')?;
    let share: f64 = share.parse().ok()?;
    let max_duration: u64 = duration.parse().ok()?;
    if !(0.0..=1.0).contains(&share) || max_duration == 0 {
        return None;
    }
    match name {
        "fraction" => Some(OutageModel::TimeFraction { fraction: share, max_duration }),
        "bernoulli" => Some(OutageModel::Bernoulli { probability: share, max_duration }),
        _ => None,
    }
}

impl fmt::Display for OutageModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::TimeFraction { fraction, max_duration } => write!(f, "fraction:{fraction}:{max_duration}"),
            Self::Bernoulli { probability, max_duration } => write!(f, "bernoulli:{probability}:{max_duration}"),
        }
    }
}

impl FromStr for OfflineCap {
    type Err = OutageError;

    fn from_str(text: &str) -> Result<Self, OutageError> {
        let part = |text: &str| text.parse().ok().filter(|&divisor| divisor > 0);
        let cap = if let Some(divisor) = text.strip_prefix("P/") {
            part(divisor).map(Self::Part)
        } else if let Some(online) = text.strip_prefix("P-") {
            online.parse().ok().map(Self::AllBut)
        } else {
            text.parse().ok().map(Self::Nodes)
        };
        cap.ok_or_else(|| OutageError { text: text.into(), expected: "a number of nodes such as `3`, `P/2` or `P-1`" })
    }
}

impl fmt::Display for OfflineCap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(count) => write!(f, "{count}"),
            Self::Part(divisor) => write!(f, "P/{divisor}"),
            Self::AllBut(online) => write!(f, "P-{online}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_model() -> impl Strategy<Value = OutageModel> {
        prop_oneof![
            Just(OutageModel::None),
            (0.0..=1.0, 1_u64..40)
                .prop_map(|(fraction, max_duration)| { OutageModel::TimeFraction { fraction, max_duration } }),
            (0.0..=1.0, 1_u64..40)
                .prop_map(|(probability, max_duration)| { OutageModel::Bernoulli { probability, max_duration } }),
        ]
    }

    fn any_cap() -> impl Strategy<Value = OfflineCap> {
        prop_oneof![
            (0_u32..20).prop_map(OfflineCap::Nodes),
            (1_u32..5).prop_map(OfflineCap::Part),
            (0_u32..5).prop_map(OfflineCap::AllBut),
        ]
    }

    prop_compose! {
        fn any_schedule()(
            model in any_model(),
            max_concurrent_offline in any_cap(),
            nodes in 1_u32..17,
            iterations in 0_u64..300,
            interval in 1_u64..12,
            seed in any::<u64>(),
        ) -> (OutageOptions, OutageSchedule, u32, u64) {
            let options = OutageOptions { model, max_concurrent_offline };
            let schedule = OutageSchedule::new(&options, nodes, iterations, interval, Seed(seed));
            let again = OutageSchedule::new(&options, nodes, iterations, interval, Seed(seed));
            assert_eq!(schedule, again);
            (options, schedule, nodes, interval)
        }
    }

    proptest! {
        #[test]
        fn the_cap_is_never_exceeded((options, schedule, nodes, _) in any_schedule()) {
            let cap = options.max_concurrent_offline.of(nodes);
            let mut most = 0;
            for iteration in 0..schedule.iterations {
                let offline = (0..nodes).filter(|&node| schedule.offline(NodeId(node), iteration));
                most = most.max(offline.count() as u32);
            }
            prop_assert!(most <= cap);
            prop_assert_eq!(most, schedule.most_offline());
        }

        #[test]
        fn outages_are_apart_no_longer_than_said_and_start_where_the_model_says(
            (options, schedule, _, interval) in any_schedule(),
        ) {
            for outages in &schedule.outages {
                for outage in outages {
                    let duration = outage.end - outage.start;
                    match options.model {
                        OutageModel::None => prop_assert!(false, "nobody goes offline"),
                        OutageModel::TimeFraction { max_duration, .. } => {
                            prop_assert!((1..=max_duration).contains(&duration));
                            prop_assert!(outage.start >= 1);
                        }
                        OutageModel::Bernoulli { max_duration, .. } => {
                            prop_assert!((1..=max_duration).contains(&duration));
                            prop_assert_eq!(outage.start % interval, 0);
                        }
                    }
                }
                prop_assert!(outages.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
        }

        #[test]
        fn the_fraction_is_met_where_the_cap_can_hold_it(
            share in 0.0..1.0_f64,
            max_duration in 1_u64..20,
            nodes in 1_u32..17,
            seed in any::<u64>(),
        ) {
            let mut options = OutageOptions {
                model: OutageModel::TimeFraction { fraction: 1.0, max_duration },
                max_concurrent_offline: OfflineCap::AllBut(0),
            };
            // The shortest draws in a row still leave a quarter of slack below what is attainable on average.
            let fraction = share * 0.75 * options.attainable(nodes);
            options.model = OutageModel::TimeFraction { fraction, max_duration };
            let iterations = 2000;
            let schedule = OutageSchedule::new(&options, nodes, iterations, 5, Seed(seed));
            // Feedback overshoots by one outage at most, and the first is late by one at most.
            let tolerance = 2.0 * max_duration as f64 / iterations as f64;
            prop_assert!(
                (schedule.realised() - fraction).abs() <= tolerance,
                "{} instead of {fraction}",
                schedule.realised()
            );
        }

        #[test]
        fn faults_are_the_same_outages((_, schedule, nodes, _) in any_schedule(), step in 1_u64..1000) {
            let faults = schedule.faults(Duration::from_nanos(step));
            for iteration in 0..schedule.iterations {
                let middle = Instant::from_nanos(iteration * step);
                for node in (0..nodes).map(NodeId) {
                    let offline = faults.faults.iter().any(|fault| matches!(
                        fault,
                        Fault::Outage { node: who, from, until }
                            if *who == node && *from <= middle && middle < *until
                    ));
                    prop_assert_eq!(offline, schedule.offline(node, iteration));
                }
            }
        }

        #[test]
        fn text_forms_round_trip(model in any_model(), cap in any_cap()) {
            prop_assert_eq!(model.to_string().parse::<OutageModel>().unwrap(), model);
            prop_assert_eq!(cap.to_string().parse::<OfflineCap>().unwrap(), cap);
        }

        #[test]
        fn garbage_is_refused_without_panic(text in "\\PC{0,30}") {
            let _ = text.parse::<OutageModel>();
            let _ = text.parse::<OfflineCap>();
        }
    }

    #[test]
    fn a_binding_cap_is_shared_fairly() {
        let options = OutageOptions {
            model: OutageModel::TimeFraction { fraction: 0.9, max_duration: 9 },
            max_concurrent_offline: OfflineCap::Part(4),
        };
        let schedule = OutageSchedule::new(&options, 16, 20_000, 5, Seed(3));
        for outages in &schedule.outages {
            let offline: u64 = outages.iter().map(|outage| outage.end - outage.start).sum();
            // About 950 outages of 5 ± 2.6 iterations each: 3.5 % is six standard deviations of the sum
            // and of the number of draws won.
            let share = offline as f64 / 20_000.0;
            assert!((share - 0.245).abs() < 0.035, "{share}");
        }
        assert_eq!(schedule.most_offline(), 4);
    }

    #[test]
    fn nodes_have_streams_of_their_own() {
        let options = OutageOptions {
            model: OutageModel::TimeFraction { fraction: 0.4, max_duration: 9 },
            max_concurrent_offline: OfflineCap::AllBut(0),
        };
        let few = OutageSchedule::new(&options, 3, 200, 5, Seed(1));
        let many = OutageSchedule::new(&options, 5, 200, 5, Seed(1));
        assert_eq!(few.outages[..], many.outages[..3]);
        assert_ne!(few.outages[0], few.outages[1]);
    }
}
