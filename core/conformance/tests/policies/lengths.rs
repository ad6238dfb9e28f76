//! Models of which messages cannot be said are refused when a node begins.

use kronfleet_core::cluster::Incarnation;
use kronfleet_core::compress::{CompressError, Compressor, Identity};
use kronfleet_core::gossip::{Directed, Mixing, Rule, Topology};
use kronfleet_core::policy::{
    AveragingPolicy, Gossip, GossipOptions, PolicyAction, PolicyInput, PushSum, PushSumOptions,
};
use kronfleet_core::scalar::Values;
use kronfleet_core::seed::Random;
use kronfleet_core::time::Instant;
use kronfleet_core::transport::NodeId;
use std::ops::RangeInclusive;
use std::panic::catch_unwind;

/// Takes as many bytes as values have, and may take many more.
struct Spacious {
    most: usize,
}

impl Compressor<f64> for Spacious {
    fn name(&self) -> &'static str {
        "spacious"
    }

    fn sizes(&self, len: usize) -> RangeInclusive<usize> {
        0..=self.most.max(8 * len)
    }

    fn encode(&mut self, values: &[f64], random: &mut Random, target: &mut Vec<u8>) -> Result<(), CompressError> {
        Identity.encode(values, random, target)
    }

    fn decode(&mut self, bytes: &[u8], values: &mut [f64]) -> Result<(), CompressError> {
        Identity.decode(bytes, values)
    }

    fn contraction(&self, _: usize) -> f64 {
        1.0
    }
}

/// Whether a node begins with a model of three values.
fn begins(policy: impl Fn() -> Box<dyn AveragingPolicy> + std::panic::RefUnwindSafe) -> bool {
    let begin = || {
        let mut policy = policy();
        policy.handle(Instant::ORIGIN, PolicyInput::Began { iterations: 1, incarnation: Incarnation(1) });
        assert_eq!(policy.poll(), Some(PolicyAction::Observe));
        policy.handle(Instant::ORIGIN, PolicyInput::Observed { parameters: Values::Double(&[0.0; 3]), peers: &[] });
    };
    catch_unwind(begin).is_ok()
}

#[test]
fn models_are_refused_whose_messages_would_be_longer_than_can_be_said() {
    let gossip = |most| {
        let row = Mixing::metropolis(&Topology::ring(2)).row(NodeId(0)).clone();
        let options = GossipOptions::new(row, Rule::Choco { step: 0.5 });
        begins(move || Box::new(Gossip::new(options.clone(), Box::new(Spacious { most }))))
    };
    let push = |most| {
        let graph = Directed::ring(2);
        begins(move || Box::new(PushSum::new(PushSumOptions::new(&graph, NodeId(0)), Box::new(Spacious { most }))))
    };
    // What goes together stands in front; a start, turns, a share and a weight do.
    let longest = u32::MAX as usize;
    assert!(gossip(longest - 8) && !gossip(longest - 7));
    assert!(push(longest - 32) && !push(longest - 31));
}
