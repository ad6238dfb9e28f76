//! Nodes that are slower than others, as a flag says it: `4x:6,7`.

use super::faults::nodes;
use kronfleet_core::time::Duration;
use kronfleet_core::transport::NodeId;
use std::collections::BTreeSet;
use std::str::FromStr;

/// Nodes whose steps take so many times as long as those of others: `4x:6,7`.
#[derive(Clone, Debug, PartialEq)]
pub struct SlowNodes {
    times: f64,
    nodes: BTreeSet<NodeId>,
}

impl SlowNodes {
    /// The most that a node may be slower than others.
    const MOST: f64 = 1e3;

    /// How long a step of `node` takes where one of others takes so long; `None` if it is none of these nodes.
    pub fn step(&self, node: NodeId, usual: Duration) -> Option<Duration> {
        self.nodes.contains(&node).then(|| usual.mul_f64(self.times))
    }

    /// All nodes that are named.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().copied()
    }
}

impl FromStr for SlowNodes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (times, who) = text.split_once(':')?;
            let times: f64 = times.strip_suffix('x')?.parse().ok()?;
            let nodes = nodes(who)?;
            (times > 1.0 && times <= Self::MOST).then_some(Self { times, nodes })
        };
        let expected = "how many times as long a step takes, more than 1 and at most 1000, and nodes, such as 4x:6,7";
        parse().ok_or_else(|| format!("{text:?} are no slow nodes; expected {expected}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_named_is_slower() {
        let slow: SlowNodes = "2.5x:1,4".parse().expect("two slow nodes");
        let step = |node| slow.step(NodeId(node), Duration::from_millis(100));
        let longer = Some(Duration::from_millis(250));
        assert_eq!([0, 1, 2, 3, 4].map(step), [None, longer, None, None, longer]);
    }

    #[test]
    fn what_is_no_pace_is_refused_with_an_example() {
        for text in
            ["", "4x", "1x:2", "4:1", "x:1", "0.5x:1", "1001x:1", "NaNx:1", "infx:1", "-2x:1", "4x:", "4x:n1", "4x:1,"]
        {
            let says = text.parse::<SlowNodes>().expect_err(text);
            assert!(says.contains(text) && says.contains("such as 4x:6,7"), "{says}");
        }
    }
}
