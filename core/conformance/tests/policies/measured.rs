//! AdaGossip with steps that follow what its compressor is measured to keep.

use crate::gossip::{Node, compressor, topologies};
use crate::plain::{Plain, Slip};
use kronfleet_conformance::check::Check;
use kronfleet_core::compress::{Blockwise, Compressor, Kept, Sign, TopK};
use kronfleet_core::gossip::{
    AdaGossip, Agreement, Consensus, Mixing, Row, Rule, Topology, Tuning, Unit, agreement, bearable,
};
use kronfleet_core::seed::Seed;
use kronfleet_core::transport::NodeId;
use proptest::prelude::*;

/// The rule with nothing chosen.
fn measured() -> AdaGossip {
    AdaGossip { unit: Unit::Measured, ..AdaGossip::default() }
}

fn top<const PER_MILLION: u32>() -> Box<dyn Compressor<f64>> {
    Box::new(TopK::new(Kept::per_million(PER_MILLION)))
}

type Make = fn() -> Box<dyn Compressor<f64>>;

/// What is told, and how many exchanges nodes of the slowest graph are given to agree.
const TOLD: [(Make, u32); 4] =
    [(top::<10_000>, 2400), (top::<100_000>, 600), (|| Box::new(Sign), 1600), (|| Box::new(Blockwise), 300)];

/// All kinds of graphs, of few nodes and short ways where there is a choice.
fn graphs() -> [Topology; 9] {
    let star = (1..9).map(|node| (0, node));
    [
        Topology::ring(16),
        Topology::torus(4, 4),
        Topology::hypercube(4),
        Topology::exponential(16),
        Topology::complete(16),
        Topology::dyck(),
        Topology::social(),
        Topology::from_edges(9, star),
        Topology::from_edges(11, (0..10).map(|node| (node, node + 1)).chain([(0, 5), (2, 7), (2, 8)])),
    ]
}

/// Whether nodes come to agree to a hundredth, without having been much further apart meanwhile.
fn agree(topology: &Topology, rule: AdaGossip, told: Make, exchanges: u32) -> Result<(), String> {
    let tuning = Tuning { values: 100, exchanges, ..Tuning::default() };
    let agreement: Agreement = agreement(&Mixing::metropolis(topology), Rule::Ada(rule), &mut *told(), &tuning);
    let most = agreement.course.iter().copied().fold(0.0, f64::max);
    if agreement.last() < 1e-2 && most < 2.0 {
        return Ok(());
    }
    Err(format!("{} on {topology:?}: {}, at most {most}", told().name(), agreement.last()))
}

#[test]
fn nodes_agree_on_every_graph_through_every_compressor_without_a_choice() {
    for topology in graphs() {
        for (told, exchanges) in TOLD {
            assert_eq!(agree(&topology, measured(), told, exchanges), Ok(()));
        }
    }
}

#[test]
fn two_nodes_agree_and_go_apart_with_the_steps_of_others() {
    // What one of them leaves untold the other leaves, too, turned round: their errors are opposite.
    let mixing = Mixing::metropolis(&Topology::ring(2));
    let rule = Rule::Ada(measured());
    // How far apart two are in the end, of what two random models are.
    let law = |mut nodes: [Box<dyn Node<f64>>; 2], len: usize, which: usize, exchanges: usize, seed: u64| {
        let (mut random, mut compressor) = (Seed(seed).random(), compressor::<f64>(which));
        let mut models = [(); 2].map(|()| (0..len).map(|_| random.normal()).collect::<Vec<f64>>());
        for _ in 0..exchanges {
            let mut messages = [vec![], vec![]];
            for ((node, model), message) in nodes.iter_mut().zip(&models).zip(&mut messages) {
                node.send(model, &mut *compressor, &mut random, message);
            }
            for (at, (node, model)) in nodes.iter_mut().zip(&mut models).enumerate() {
                node.receive(NodeId(1 - at as u32), &messages[1 - at], &mut *compressor);
                node.mix(model);
            }
        }
        let square: f64 = models[0].iter().zip(&models[1]).map(|(a, b)| (a - b) * (a - b)).sum();
        let apart = (square / (2 * len) as f64).sqrt();
        if apart < 1e-2 { Ok(()) } else { Err(format!("{apart} after {exchanges} exchanges")) }
    };
    let cases = || (1_usize..30, 0_usize..5, any::<u64>());
    let check = || Check { cases: 512, shrinking: 0, ..Check::default() };
    let rows = || [0, 1].map(|node| mixing.row(NodeId(node)));
    let real = |(len, which, seed)| {
        law(rows().map(|row| Box::new(Consensus::new(rule, row, len)) as Box<dyn Node<f64>>), len, which, 500, seed)
    };
    assert_eq!(check().hold(cases(), real), Ok(()));
    let former = |(len, which, seed)| {
        let node = |row| Box::new(Plain::new(rule, row, len, Slip::PairForgotten)) as Box<dyn Node<f64>>;
        law(rows().map(node), len, which, 500, seed)
    };
    assert!(check().hold(cases(), former).is_err());
}

#[test]
fn two_that_all_others_have_left_agree_with_half_the_step_and_not_always_with_all_of_it() {
    // What each gave to the others it gives to itself: that there are none left is not to be seen in its row.
    let pairs = Mixing::metropolis(&Topology::ring(4)).without(NodeId(1), NodeId(2)).without(NodeId(3), NodeId(0));
    let last = |step, seed| {
        let tuning = Tuning { values: 12, exchanges: 500, seed: Seed(seed), ..Tuning::default() };
        agreement(&pairs, Rule::Ada(AdaGossip { step, ..measured() }), &mut *top::<300_000>(), &tuning).last()
    };
    assert!((0..64).all(|seed| last(0.5, seed) < 1.0));
    assert!((0..64).any(|seed| last(1.0, seed) > 1e3));
}

#[test]
fn steps_that_do_not_follow_what_is_kept_are_too_large_somewhere() {
    let ring = Topology::ring(16);
    let [(hundredth, exchanges), (tenth, short), ..] = TOLD;
    // A step that is good where a tenth is told, and is kept where a hundredth is.
    let fixed = AdaGossip { step: 0.2, cap: 0.4, unit: Unit::Error, ..AdaGossip::default() };
    assert_eq!(agree(&ring, fixed, tenth, short), Ok(()));
    assert!(agree(&ring, fixed, hundredth, exchanges).is_err());
}

#[test]
fn what_was_kept_is_what_was_measured() {
    let law = |(which, len, seed, scales, plain): (usize, usize, u64, Vec<f64>, bool)| {
        let mut compressor = compressor(which);
        let mut random = Seed(seed).random();
        let mixing = Mixing::metropolis(&Topology::ring(3));
        let mut node: Consensus<f64> = Consensus::new(Rule::Ada(measured()), mixing.row(NodeId(0)), len);
        let (mut sum, mut weight) = (0.0, 0.0);
        for scale in scales {
            let model: Vec<f64> = (0..len).map(|_| scale * random.normal()).collect();
            let before = node.own().to_vec();
            node.send(&model, &mut *compressor, &mut random, &mut vec![]).map_err(|error| error.to_string())?;
            let square = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
            let kept = 1.0 - square(&model, node.own()) / square(&model, &before);
            let decay = if plain { 1.0 } else { 0.9 };
            (sum, weight) = (decay * sum + kept.clamp(0.0, 1.0), decay * weight + 1.0);
        }
        let (expected, measured) = (sum / weight, node.contraction().ok_or("nothing was measured")?);
        if (expected - measured).abs() < 1e-9 { Ok(()) } else { Err(format!("{measured} instead of {expected}")) }
    };
    let cases = |plain: bool| {
        (0_usize..5, 1_usize..40, any::<u64>(), proptest::collection::vec(0.01..100.0, 1..30), Just(plain))
    };
    assert_eq!(Check::default().hold(cases(false), law), Ok(()));
    assert!(Check::default().hold(cases(true), law).is_err(), "a plain mean is another one");
}

#[test]
fn bearable_steps_add_what_the_compressor_takes_away() {
    let law = |(topology, node, kept): (Topology, u32, f64)| {
        let mixing = Mixing::metropolis(&topology);
        let row: &Row = mixing.row(NodeId(node % topology.nodes()));
        let (given, squares) = row.others.values().fold((0.0, 0.0), |(a, s), weight| (a + weight, s + weight * weight));
        let step = bearable(row, kept);
        let left = |step: f64| (1.0 - kept) * ((1.0 + step * given).powi(2) + step * step * squares);
        // Two nodes alone bear half of it.
        let is_alone = row.others.keys().all(|other| topology.neighbours(other.0).count() == 1);
        let whole = if row.others.len() == 1 && is_alone { 2.0 * step } else { step };
        let is_right = if step < 1.0 { (left(whole) - 1.0).abs() < 1e-9 } else { left(whole) <= 1.0 + 1e-9 };
        // The worst that neighbours can do, against half of it.
        let coherent = (1.0 - kept) * (1.0 + whole * given).powi(2);
        let is_right = is_right && (0.0..=1.0).contains(&step) && coherent <= 1.0 + 1e-9;
        let grows = bearable(row, (kept + 0.05).min(1.0)) >= step;
        if is_right && grows { Ok(()) } else { Err(format!("{step} for {row:?} and {kept}")) }
    };
    let kept = prop_oneof![Just(0.0), Just(1.0), Just(1e-12), 0.0..1.0];
    assert_eq!(Check::default().hold((topologies(), any::<u32>(), kept), law), Ok(()));
}

#[test]
fn no_parameter_moves_further_than_the_part_of_a_bearable_step_that_was_asked_for() {
    // How far a parameter moves, of its error, with the largest step of one.
    let most = |topology: &Topology, step: f64, len: usize, seed: u64| {
        let mixing = Mixing::metropolis(topology);
        let rule = Rule::Ada(AdaGossip { step, ..measured() });
        let mut random = Seed(seed).random();
        let mut told = TopK::new(Kept::per_million(300_000));
        let mut node: Consensus<f64> = Consensus::new(rule, mixing.row(NodeId(0)), len);
        let (mut most, mut model) = (0.0_f64, vec![0.0; len]);
        for _ in 0..6 {
            model.iter_mut().for_each(|value| *value += random.normal());
            node.send(&model, &mut told, &mut random, &mut vec![]).expect("finite");
            for other in topology.neighbours(0) {
                let difference: Vec<f64> = (0..len).map(|_| random.normal()).collect();
                let mut message = vec![];
                told.encode(&difference, &mut random, &mut message).expect("finite");
                node.receive(NodeId(other), &message, &mut told).expect("encoded above");
            }
            let row = mixing.row(NodeId(0));
            let bearable = bearable(row, node.contraction().expect("it has told something"));
            let copy = |other: &NodeId, place: usize| node.other(*other).expect("a neighbour")[place];
            let error = |place: usize| {
                row.others.iter().map(|(other, weight)| weight * (copy(other, place) - node.own()[place])).sum::<f64>()
            };
            let errors: Vec<f64> = (0..len).map(error).collect();
            let before = model.clone();
            node.mix(&mut model);
            for ((after, before), error) in model.iter().zip(&before).zip(errors) {
                // What is added is rounded with what it is added to.
                let rounding = 4.0 * f64::EPSILON * (after.abs() + before.abs() + error.abs());
                most = most.max(((after - before).abs() - rounding).max(0.0) / (bearable * error.abs()).max(1e-300));
            }
        }
        most
    };
    let steps = prop_oneof![Just(0.5), 0.05..1.0];
    let law = |(nodes, step, len, seed): (u32, f64, usize, u64)| {
        let found = most(&Topology::ring(nodes), step, len, seed);
        if found <= step * (1.0 + 1e-9) { Ok(()) } else { Err(format!("{found} of the bearable step, not {step}")) }
    };
    assert_eq!(Check::default().hold((3_u32..9, steps, 1_usize..20, any::<u64>()), law), Ok(()));
    // The bound is reached, by parameters of small errors.
    assert!((0.5 - most(&Topology::ring(5), 0.5, 20, 1)).abs() < 1e-9);
}

#[test]
fn measured_steps_know_no_units_and_equal_nodes_stay_as_they_are() {
    let mixing = Mixing::metropolis(&Topology::ring(5));
    let course = |scale: f64, equal: bool| {
        let mut random = Seed(3).random();
        let mut models: Vec<Vec<f64>> = (0..5).map(|_| (0..20).map(|_| scale * random.normal()).collect()).collect();
        if equal {
            let first = models[0].clone();
            models.fill(first);
        }
        let rule = Rule::Ada(measured());
        let mut nodes: Vec<Consensus<f64>> =
            (0..5).map(|node| Consensus::new(rule, mixing.row(NodeId(node)), 20)).collect();
        for _ in 0..20 {
            let told: Vec<Vec<u8>> = nodes
                .iter_mut()
                .zip(&models)
                .map(|(node, model)| {
                    let mut message = vec![];
                    node.send(model, &mut TopK::new(Kept::per_million(100_000)), &mut random, &mut message)
                        .expect("finite");
                    message
                })
                .collect();
            for (node, model) in nodes.iter_mut().zip(&mut models) {
                for (from, message) in (0..).map(NodeId).zip(&told) {
                    node.receive(from, message, &mut TopK::new(Kept::per_million(100_000))).expect("encoded above");
                }
                node.mix(model);
            }
        }
        models
    };
    // A power of two changes no digit.
    for scale in [-30, 30].map(|digits| 2_f64.powi(digits)) {
        let (ones, scaled) = (course(1.0, false), course(scale, false));
        assert!(ones.iter().flatten().zip(scaled.iter().flatten()).all(|(one, scaled)| scale * one == *scaled));
    }
    let equal = course(1.0, true);
    assert!(equal.iter().all(|model| *model == equal[0]) && equal != course(1.0, false));
}
