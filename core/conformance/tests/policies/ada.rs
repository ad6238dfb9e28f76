//! AdaGossip against its equations, parameter by parameter, and what it does not keep.

use crate::gossip::{Node, compressor, topologies};
use crate::plain::{Plain, SLIPS, Slip};
use kronfleet_conformance::check::{Broken, Check};
use kronfleet_core::compress::Identity;
use kronfleet_core::gossip::{AdaGossip, Consensus, Mixing, Rule, Topology, Tuning, Unit, agreement};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::seed::Seed;
use kronfleet_core::transport::NodeId;
use proptest::prelude::*;

/// Numbers of every size between two powers of ten.
fn sizes(least: f64, most: f64) -> impl Strategy<Value = f64> {
    (least..most).prop_map(|digits| 10_f64.powf(digits))
}

/// Every option that AdaGossip has, and CHOCO now and then.
fn rules() -> impl Strategy<Value = Rule> {
    let decays = prop_oneof![Just(0.0), Just(0.999), 0.0..0.99];
    let units = prop_oneof![2 => Just(Unit::Parameter), 1 => Just(Unit::Error), 1 => Just(Unit::Measured)];
    let options = (decays, sizes(-8.0, 0.0), sizes(-3.0, 1.0), sizes(-2.0, 0.0), any::<bool>(), units);
    let ada = options.prop_map(|(decay, epsilon, step, cap, correction, unit)| {
        Rule::Ada(AdaGossip { decay, epsilon, step, cap, correction, unit })
    });
    prop_oneof![8 => ada, 1 => (0.05..1.0).prop_map(|step| Rule::Choco { step })]
}

/// Whether models move, at every exchange and in every place, to where the equations say, with this slip in them.
///
/// Nodes learn something between exchanges. What they tell is told to both, as one rounding more could have another value
/// told; what each makes of it is its own.
fn moves_as_written<S: Scalar>(slip: Slip, check: Check) -> Result<(), Broken> {
    let drifts = prop_oneof![Just(0.0), sizes(-2.0, 0.5)];
    let cases = (topologies(), rules(), 0_usize..5, any::<u64>(), sizes(-3.0, 1.5), drifts, 1_usize..9);
    check.hold(cases, |(topology, rule, which, seed, scale, drift, exchanges)| {
        let (mixing, len) = (Mixing::metropolis(&topology), 1 + (seed % 12) as usize);
        let (mut random, mut compressor) = (Seed(seed).random(), compressor::<S>(which));
        let rows = || (0..mixing.nodes()).map(|node| mixing.row(NodeId(node)));
        let mut nodes: Vec<Consensus<S>> = rows().map(|row| Consensus::new(rule, row, len)).collect();
        let mut plain: Vec<Plain<S>> = rows().map(|row| Plain::new(rule, row, len, slip)).collect();
        let mut models: Vec<Vec<S>> =
            rows().map(|_| (0..len).map(|_| S::of(scale * random.normal())).collect()).collect();
        for exchange in 1..=exchanges {
            let mut messages = vec![];
            for ((node, plain), model) in nodes.iter_mut().zip(&mut plain).zip(&mut models) {
                model.iter_mut().for_each(|x| *x += S::of(scale * drift * random.normal()));
                let mut message = vec![];
                Node::send(node, model, &mut *compressor, &mut random, &mut message);
                plain.told(model, &message, &mut *compressor);
                messages.push(message);
            }
            for (id, ((node, plain), model)) in nodes.iter_mut().zip(&mut plain).zip(&mut models).enumerate() {
                for (from, message) in (0..).map(NodeId).zip(&messages) {
                    Node::receive(node, from, message, &mut *compressor);
                    plain.receive(from, message, &mut *compressor);
                }
                if node.own() != plain.own() {
                    return Err(format!("exchange {exchange}, {id}: {:?}, not {:?}", node.own(), plain.own()));
                }
                let mut expected = model.clone();
                plain.mix(&mut expected);
                node.mix(model);
                let copies = topology.neighbours(id as u32).filter_map(|other| node.other(NodeId(other)));
                let values = copies.flatten().chain(node.own()).chain(&expected);
                // What is rounded is as large as models and copies; a step follows an error by some thirty times its part.
                let rounding =
                    1000.0 * S::EPSILON.wide() * values.fold(0.0, |most, value| value.wide().abs().max(most));
                for (x, expected) in model.iter().zip(&expected) {
                    let apart = (x.wide() - expected.wide()).abs();
                    if apart > rounding || apart.is_nan() {
                        return Err(format!("exchange {exchange}, {id}: {model:?}, not {expected:?}"));
                    }
                }
            }
        }
        Ok(())
    })
}

#[test]
fn every_parameter_moves_as_the_equations_say() {
    let check = Check { cases: 256, ..Check::default() };
    assert_eq!(moves_as_written::<f64>(Slip::None, check), Ok(()));
    assert_eq!(moves_as_written::<f32>(Slip::None, check), Ok(()));
}

#[test]
fn equations_that_are_misread_are_noticed() {
    for slip in SLIPS {
        let check = Check { cases: 256, shrinking: 0, ..Check::default() };
        assert!(moves_as_written::<f64>(slip, check).is_err(), "{slip:?}");
    }
}

/// How far the sum over a path of three nodes goes in one exchange, everything told.
fn sum_moves(rule: Rule) -> f64 {
    let mixing = Mixing::metropolis(&Topology::from_edges(3, [(0, 1), (1, 2)]));
    let mut models = [[0.0_f64], [1.0], [5.0]];
    let mut nodes = [0, 1, 2].map(|node| Consensus::new(rule, mixing.row(NodeId(node)), 1));
    let mut random = Seed(1).random();
    let mut messages = [vec![], vec![], vec![]];
    for ((node, model), message) in nodes.iter_mut().zip(&models).zip(&mut messages) {
        Node::send(node, model, &mut Identity, &mut random, message);
    }
    for (node, model) in nodes.iter_mut().zip(&mut models) {
        for (from, message) in (0..).map(NodeId).zip(&messages) {
            Node::receive(node, from, message, &mut Identity);
        }
        node.mix(model);
    }
    models.iter().flatten().sum::<f64>() - 6.0
}

#[test]
fn ada_gossip_does_not_keep_the_mean() {
    // Weights are a third each, errors 1/3, 1 and -4/3. With no memory and a small ε every node goes γ towards them, two up
    // and one down.
    let ada = AdaGossip { decay: 0.0, epsilon: 1e-12, step: 0.1, cap: 1.0, correction: false, unit: Unit::Parameter };
    assert!((sum_moves(Rule::Ada(ada)) - 0.1).abs() < 1e-9);
    assert!(sum_moves(Rule::Choco { step: 0.1 }).abs() < 1e-12);
    // Where all steps are at the cap nothing is lost.
    assert!(sum_moves(Rule::Ada(AdaGossip { step: 10.0, ..ada })).abs() < 1e-12);

    // What is counted of a whole agreement says so, too, with every unit.
    let mixing = Mixing::metropolis(&Topology::ring(8));
    let tuning = Tuning { values: 50, exchanges: 50, ..Tuning::default() };
    let moved = |rule| agreement::<f64>(&mixing, rule, &mut *compressor(1), &tuning).moved;
    assert!(moved(Rule::Choco { step: 0.3 }) < 1e-24);
    for unit in [Unit::Parameter, Unit::Error, Unit::Measured] {
        let moved = moved(Rule::Ada(AdaGossip { step: 0.1, cap: 0.4, unit, ..AdaGossip::default() }));
        assert!(moved > 1e-6 && moved < 0.1, "{unit:?}: the mean has moved by {moved}");
    }
}
