//! What else goes wrong between nodes, as flags say it: `WHEN:WHO`.

use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::fault::{Fault, FaultSchedule, parse_duration};
use std::collections::BTreeSet;
use std::str::FromStr;

/// Groups of nodes that do not hear each other for a time: `20s..30s:0,1|2,3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkPartition {
    from: Instant,
    until: Instant,
    groups: Vec<BTreeSet<NodeId>>,
}

/// Nodes that others do not hear for a time, while they hear those: `20s..30s:0,1>2,3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkCut {
    from: Instant,
    until: Instant,
    sources: BTreeSet<NodeId>,
    targets: BTreeSet<NodeId>,
}

/// Nodes whose programs die and are started again with nothing in memory: `20s..30s:3,4`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCrash {
    at: Instant,
    restart: Instant,
    nodes: BTreeSet<NodeId>,
}

impl LinkPartition {
    /// Adds the cuts between every two groups.
    pub fn extend(&self, schedule: &mut FaultSchedule) {
        for (number, one) in self.groups.iter().enumerate() {
            for other in &self.groups[number + 1..] {
                schedule.partition(one.clone(), other.clone(), self.from, self.until);
            }
        }
    }

    /// All nodes that are named.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.groups.iter().flatten().copied()
    }
}

impl LinkCut {
    /// Adds the cut.
    pub fn extend(&self, schedule: &mut FaultSchedule) {
        let Self { from, until, sources, targets } = self.clone();
        schedule.faults.push(Fault::Cut { sources, targets, from, until });
    }

    /// All nodes that are named.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.sources.iter().chain(&self.targets).copied()
    }
}

impl NodeCrash {
    /// Adds the crashes.
    pub fn extend(&self, schedule: &mut FaultSchedule) {
        let &Self { at, restart, .. } = self;
        schedule.faults.extend(self.nodes.iter().map(|&node| Fault::Crash { node, at, restart }));
    }

    /// All nodes that are named.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().copied()
    }
}

impl FromStr for LinkPartition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (from, until, who) = time(text)?;
            let groups: Vec<BTreeSet<NodeId>> = who.split('|').map(nodes).collect::<Option<_>>()?;
            let named: BTreeSet<NodeId> = groups.iter().flatten().copied().collect();
            let apart = named.len() == groups.iter().map(BTreeSet::len).sum::<usize>();
            (groups.len() > 1 && apart).then_some(Self { from, until, groups })
        };
        let expected = "a time and at least two groups that share no node, such as 20s..30s:0,1|2,3";
        parse().ok_or_else(|| format!("{text:?} is no partition; expected {expected}"))
    }
}

impl FromStr for LinkCut {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (from, until, who) = time(text)?;
            let (sources, targets) = who.split_once('>')?;
            let (sources, targets) = (nodes(sources)?, nodes(targets)?);
            sources.is_disjoint(&targets).then_some(Self { from, until, sources, targets })
        };
        let expected = "a time, nodes, and others that do not hear them, such as 20s..30s:0,1>2,3";
        parse().ok_or_else(|| format!("{text:?} is no cut; expected {expected}"))
    }
}

impl FromStr for NodeCrash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (at, restart, who) = time(text)?;
            Some(Self { at, restart, nodes: nodes(who)? })
        };
        let expected = "when they die and when they are started again, and nodes, such as 20s..30s:3,4";
        parse().ok_or_else(|| format!("{text:?} is no crash; expected {expected}"))
    }
}

/// `FROM..UNTIL:REST`, with FROM before UNTIL.
fn time(text: &str) -> Option<(Instant, Instant, &str)> {
    let (when, who) = text.split_once(':')?;
    let (from, until) = when.split_once("..")?;
    let (from, until): (Duration, Duration) = (parse_duration(from)?, parse_duration(until)?);
    (from < until).then_some((Instant::ORIGIN + from, Instant::ORIGIN + until, who))
}

/// Reads `0,3,4`.
pub(super) fn nodes(list: &str) -> Option<BTreeSet<NodeId>> {
    list.split(',').map(|node| node.trim().parse().ok().map(NodeId)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Result<String, String> {
        let mut schedule = FaultSchedule::default();
        if text.contains('>') {
            text.parse::<LinkCut>()?.extend(&mut schedule);
        } else {
            text.parse::<LinkPartition>()?.extend(&mut schedule);
        }
        Ok(schedule.to_string())
    }

    #[test]
    fn partitions_and_cuts_are_faults_of_the_network() {
        let both = "cut n0,n1 n2 1000000000 2500000000\ncut n2 n0,n1 1000000000 2500000000\n";
        assert_eq!(faults("1s..2.5s:0,1|2").as_deref(), Ok(both));
        assert_eq!(faults("1s..2s:0|1|2").expect("three groups").lines().count(), 6);
        assert_eq!(faults("10ms..20ms:3>0,1").as_deref(), Ok("cut n3 n0,n1 10000000 20000000\n"));
    }

    #[test]
    fn crashes_are_one_fault_per_node() {
        let mut schedule = FaultSchedule::default();
        "2s..3.5s:4,1".parse::<NodeCrash>().expect("a crash").extend(&mut schedule);
        assert_eq!(schedule.to_string(), "crash n1 2000000000 3500000000\ncrash n4 2000000000 3500000000\n");
        for text in ["2s:1", "3s..2s:1", "2s..3s:", "2s..3s:n1", "2s..3s"] {
            let says = text.parse::<NodeCrash>().expect_err(text);
            assert!(says.contains(text) && says.contains("such as 20s..30s:3,4"), "{says}");
        }
    }

    #[test]
    fn what_is_neither_is_refused_with_an_example() {
        for text in ["1s..2s:0,1", "2s..1s:0|1", "1s:0|1", "0|1", "1..2:0|1", "1s..2s:0,1|1", "1s..2s:0>0", "1s..2s:>0"]
        {
            let says = faults(text).expect_err(text);
            assert!(says.contains(text) && says.contains("such as 20s..30s:0,1"), "{says}");
        }
    }
}
