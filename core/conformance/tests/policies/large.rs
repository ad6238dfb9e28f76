//! Models that are further apart than a code can say.

use kronfleet_core::cluster::Incarnation;
use kronfleet_core::compress::{Compressor, Rounding, Short};
use kronfleet_core::gossip::{AdaGossip, Mixing, Rule, Topology, Unit};
use kronfleet_core::participant::Summary;
use kronfleet_core::policy::{AveragingPolicy, Gossip, GossipOptions, PolicyAction, PolicyInput};
use kronfleet_core::scalar::Values;
use kronfleet_core::time::Instant;
use kronfleet_core::transport::NodeId;
use std::collections::VecDeque;

/// The models of two nodes after so many exchanges, of which the second begins far away.
fn exchanged(rule: Rule, exchanges: u64) -> [Vec<f64>; 2] {
    let mixing = Mixing::metropolis(&Topology::complete(2));
    let code = || -> Box<dyn Compressor<f64>> { Box::new(Short::f16(Rounding::Nearest)) };
    let policy = |node| Gossip::new(GossipOptions::new(mixing.row(NodeId(node)).clone(), rule), code());
    let mut policies = [policy(0), policy(1)];
    let mut models = [vec![1.0, 2.0], vec![3.0, 4.0]];
    let mut mail = VecDeque::new();
    let mut tell =
        |policies: &mut [Gossip<f64>; 2], models: &mut [Vec<f64>; 2], node: usize, input: PolicyInput<'_>| {
            policies[node].handle(Instant::ORIGIN, input);
            while let Some(action) = policies[node].poll() {
                match action {
                    PolicyAction::Observe => {
                        let (parameters, peers) = (Values::Double(&models[node]), &[NodeId(1 - node as u32)]);
                        policies[node].handle(Instant::ORIGIN, PolicyInput::Observed { parameters, peers });
                    }
                    PolicyAction::Tell { to, bytes } => {
                        assert!(bytes.len() > 1, "{rule:?}: somebody had to ask for a copy");
                        mail.push_back((node, to.0 as usize, bytes));
                    }
                    PolicyAction::Adopt(model) => models[node] = model,
                    PolicyAction::Pause | PolicyAction::Proceed => {}
                    other => panic!("gossip does not {other:?}"),
                }
            }
            mail.drain(..).collect::<Vec<_>>()
        };
    for node in 0..2 {
        let began = PolicyInput::Began { iterations: exchanges, incarnation: Incarnation(1) };
        assert!(tell(&mut policies, &mut models, node, began).is_empty());
    }
    for iteration in 1..=exchanges {
        if iteration == 3 {
            // No numbers would end training; these only leave the range of the code.
            models[1].iter_mut().for_each(|value| *value += 1e6);
        }
        let mut notes = VecDeque::new();
        for node in 0..2 {
            let summary = Summary::default();
            notes.extend(tell(&mut policies, &mut models, node, PolicyInput::Stepped { iteration, summary: &summary }));
        }
        while let Some((from, to, bytes)) = notes.pop_front() {
            let told = PolicyInput::Told { from: NodeId(from as u32), bytes: &bytes };
            notes.extend(tell(&mut policies, &mut models, to, told));
        }
    }
    models
}

#[test]
fn what_the_code_cannot_say_is_sent_whole() {
    let ada = AdaGossip { step: 0.5, cap: 0.5, unit: Unit::Error, ..AdaGossip::default() };
    for rule in [Rule::Choco { step: 0.5 }, Rule::Partial { step: 0.5 }, Rule::Ada(ada)] {
        let [one, other] = exchanged(rule, 40);
        for (one, other, mean) in [(one[0], other[0], 500_002.0), (one[1], other[1], 500_003.0)] {
            assert!((one - other).abs() < 1.0, "{rule:?}: {one} and {other}");
            // Two nodes see the same errors, so that AdaGossip keeps their mean, too.
            assert!((0.5 * (one + other) - mean).abs() < 1.0, "{rule:?}: {one} and {other}");
        }
    }
}
