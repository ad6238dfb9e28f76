//! What gossip keeps.

use crate::plain::{Plain, Slip};
use kronfleet_conformance::check::{Broken, Check};
use kronfleet_core::compress::{Blockwise, Compressor, Identity, Kept, Quantised, RandomK, Sign, TopK};
use kronfleet_core::gossip::{
    AdaGossip, Consensus, Mixing, Row, Rule, Topology, Tuning, Unit, agreement, kept, theoretical, tune, tune_at,
};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::seed::{Random, Seed};
use kronfleet_core::transport::NodeId;
use proptest::prelude::*;

/// Graphs of 1 to 32 nodes, some of them not connected.
pub(crate) fn topologies() -> impl Strategy<Value = Topology> {
    let any_edges = (1_u32..24).prop_flat_map(|nodes| {
        let edge = (0..nodes, 0..nodes).prop_filter("no loop", move |(a, b)| a != b || nodes == 1);
        let edges = proptest::collection::vec(edge, 0..40);
        edges.prop_map(move |edges| Topology::from_edges(nodes, edges.into_iter().filter(|(a, b)| a != b)))
    });
    prop_oneof![
        2 => (1_u32..32).prop_map(Topology::ring),
        1 => (1_u32..6, 1_u32..6).prop_map(|(rows, columns)| Topology::torus(rows, columns)),
        1 => (0_u32..6).prop_map(Topology::hypercube),
        1 => (1_u32..32).prop_map(Topology::exponential),
        1 => (1_u32..12).prop_map(Topology::complete),
        1 => Just(Topology::dyck()),
        1 => Just(Topology::social()),
        4 => any_edges,
    ]
}

/// Compressors, by number.
pub(crate) fn compressor<S: Scalar>(which: usize) -> Box<dyn Compressor<S>> {
    let kept = Kept::per_million(300_000);
    match which % 5 {
        0 => Box::new(Identity),
        1 => Box::new(TopK::new(kept)),
        2 => Box::new(RandomK::contracting(kept)),
        3 => Box::new(Sign),
        _ => Box::new(Blockwise),
    }
}

/// What keeps one node near its neighbours, told no more than it expects.
pub(crate) trait Node<S> {
    fn send(&mut self, model: &[S], compressor: &mut dyn Compressor<S>, random: &mut Random, message: &mut Vec<u8>);
    fn receive(&mut self, from: NodeId, message: &[u8], compressor: &mut dyn Compressor<S>);
    fn mix(&mut self, model: &mut [S]);
    fn own(&self) -> &[S];
    fn other(&self, node: NodeId) -> Option<&[S]>;
}

impl<S: Scalar> Node<S> for Consensus<S> {
    fn send(&mut self, model: &[S], compressor: &mut dyn Compressor<S>, random: &mut Random, message: &mut Vec<u8>) {
        self.send(model, compressor, random, message).expect("finite models");
    }

    fn receive(&mut self, from: NodeId, message: &[u8], compressor: &mut dyn Compressor<S>) {
        self.receive(from, message, compressor).expect("what was encoded");
    }

    fn mix(&mut self, model: &mut [S]) {
        self.mix(model);
    }

    fn own(&self) -> &[S] {
        self.own()
    }

    fn other(&self, node: NodeId) -> Option<&[S]> {
        self.other(node)
    }
}

/// Nodes that gossip, without any training.
pub(crate) struct Fleet<N = Consensus<f64>> {
    pub(crate) models: Vec<Vec<f64>>,
    nodes: Vec<N>,
    compressor: Box<dyn Compressor<f64>>,
    random: Random,
    /// Whether everything is told in the next exchange.
    whole: bool,
}

impl Fleet {
    pub(crate) fn new(rule: Rule, mixing: &Mixing, which: usize, seed: u64) -> Self {
        Self::of(mixing, which, seed, |row| Consensus::new(rule, row, 12))
    }
}

impl Fleet<Plain<f64>> {
    /// Nodes that do what is written, but for one slip.
    fn plain(rule: Rule, mixing: &Mixing, which: usize, seed: u64, slip: Slip) -> Self {
        Self::of(mixing, which, seed, |row| Plain::new(rule, row, 12, slip))
    }
}

impl<N: Node<f64>> Fleet<N> {
    pub(crate) fn of(mixing: &Mixing, which: usize, seed: u64, make: impl Fn(&Row) -> N) -> Self {
        let mut random = Seed(seed).random();
        let models: Vec<Vec<f64>> = (0..mixing.nodes()).map(|_| (0..12).map(|_| random.normal()).collect()).collect();
        let nodes = (0..mixing.nodes()).map(|node| make(mixing.row(NodeId(node)))).collect();
        Self { models, nodes, compressor: compressor(which), random, whole: false }
    }

    /// The same, as policies begin that gossip by this rule.
    pub(crate) fn beginning(self, rule: Rule) -> Self {
        Self { whole: matches!(rule, Rule::Partial { .. }), ..self }
    }

    /// Every node makes a step of its own; the sum of all.
    pub(crate) fn step(&mut self) -> Vec<f64> {
        let mut sums = vec![0.0; 12];
        for model in &mut self.models {
            for (value, sum) in model.iter_mut().zip(&mut sums) {
                let step = 0.3 * self.random.normal();
                *value += step;
                *sum += step;
            }
        }
        sums
    }

    pub(crate) fn gossip(&mut self) {
        let Self { models, nodes, compressor, random, whole } = self;
        let mut identity: Box<dyn Compressor<f64>> = Box::new(Identity);
        let compressor = if core::mem::take(whole) { &mut identity } else { compressor };
        let messages: Vec<Vec<u8>> = nodes
            .iter_mut()
            .zip(models.iter())
            .map(|(node, model)| {
                let mut message = vec![];
                node.send(model, &mut **compressor, random, &mut message);
                message
            })
            .collect();
        for (node, model) in nodes.iter_mut().zip(models) {
            for (from, message) in (0..).map(NodeId).zip(&messages) {
                node.receive(from, message, &mut **compressor);
            }
            node.mix(model);
        }
    }

    pub(crate) fn sums(&self) -> Vec<f64> {
        (0..12).map(|place| self.models.iter().map(|model| model[place]).sum()).collect()
    }

    /// `Σ‖x − x̄‖²`.
    pub(crate) fn disagreement(&self) -> f64 {
        let count = self.models.len() as f64;
        let sums = self.sums();
        self.models.iter().flat_map(|model| model.iter().zip(&sums).map(|(x, sum)| (x - sum / count).powi(2))).sum()
    }
}

pub(crate) fn near(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-10)
}

/// Tries a law of CHOCO on drawn graphs, compressors and steps.
fn choco<N: Node<f64>>(
    make: impl Fn(Rule, &Mixing, usize, u64) -> Fleet<N>,
    law: impl Fn(&Topology, &mut Fleet<N>) -> Result<(), String>,
) -> Result<(), Broken> {
    let cases = (topologies(), 0_usize..5, any::<u64>(), 0.05..0.4);
    Check::default().hold(cases, |(topology, which, seed, step)| {
        law(&topology, &mut make(Rule::Choco { step }, &Mixing::metropolis(&topology), which, seed))
    })
}

/// What is in all models together is what was in them at first, and what they have learnt since.
fn keeps_the_sum<N: Node<f64>>(_: &Topology, fleet: &mut Fleet<N>) -> Result<(), String> {
    let mut expected = fleet.sums();
    for _ in 0..10 {
        expected.iter_mut().zip(fleet.step()).for_each(|(sum, step)| *sum += step);
        fleet.gossip();
    }
    if near(&expected, &fleet.sums()) { Ok(()) } else { Err(format!("{:?} instead of {expected:?}", fleet.sums())) }
}

/// All who keep a copy of a node have the same, to the bit.
fn has_equal_copies<N: Node<f64>>(topology: &Topology, fleet: &mut Fleet<N>) -> Result<(), String> {
    for _ in 0..10 {
        fleet.step();
        fleet.gossip();
        for (id, node) in (0..).zip(&fleet.nodes) {
            for neighbour in topology.neighbours(id) {
                if fleet.nodes[neighbour as usize].other(NodeId(id)) != Some(node.own()) {
                    return Err(format!("{neighbour} has another copy of the model of {id} than {id} itself"));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn choco_keeps_the_sum_and_the_copies_are_alike() {
    assert_eq!(choco(Fleet::new, keeps_the_sum), Ok(()));
    assert_eq!(choco(Fleet::new, has_equal_copies), Ok(()));
}

#[test]
fn slips_that_lose_the_sum_or_part_the_copies_are_noticed() {
    let slipping = |slip| move |rule, mixing: &Mixing, which, seed| Fleet::plain(rule, mixing, which, seed, slip);
    assert_eq!(choco(slipping(Slip::None), keeps_the_sum), Ok(()));
    assert_eq!(choco(slipping(Slip::None), has_equal_copies), Ok(()));
    for slip in [Slip::Untold, Slip::SelfForgotten, Slip::NeighbourForgotten] {
        assert!(choco(slipping(slip), keeps_the_sum).is_err(), "{slip:?}");
    }
    assert!(choco(slipping(Slip::Untold), has_equal_copies).is_err());
}

#[test]
fn rows_that_are_scaled_after_a_loss_lose_the_sum() {
    // What `Mixing::without` is there for: the same loss with rows divided by what is left is noticed.
    let mixing = Mixing::metropolis(&Topology::from_edges(4, [(0, 1), (1, 2), (1, 3)])).without(NodeId(0), NodeId(1));
    let gossip = |scaled: bool| {
        let mut fleet = Fleet::new(Rule::Choco { step: 0.4 }, &mixing, 0, 5);
        if scaled {
            for (id, node) in (0..).map(NodeId).zip(&mut fleet.nodes) {
                let Row { own, others } = mixing.row(id);
                // A third was given to whom is lost.
                let scale = if id.0 < 2 { 1.0 / (1.0 - 1.0 / 4.0) } else { 1.0 };
                let others = others.iter().map(|(&other, weight)| (other, scale * weight)).collect();
                node.reweigh(&Row { own: *own, others });
            }
        }
        let before = fleet.sums();
        (0..5).for_each(|_| fleet.gossip());
        near(&before, &fleet.sums())
    };
    assert!(gossip(false) && !gossip(true));
}

/// Whether nodes move to `Wx`, steps first; or mix first.
pub(crate) fn is_d_psgd<N: Node<f64>>(
    make: impl Fn(&Mixing, u64) -> Fleet<N>,
    steps_first: bool,
) -> Result<(), Broken> {
    Check::default().hold((topologies(), any::<u64>()), |(topology, seed)| {
        let mixing = Mixing::metropolis(&topology);
        let mut fleet = make(&mixing, seed);
        for _ in 0..5 {
            let before = fleet.models.clone();
            fleet.step();
            // What is mixed, and what is added to it unmixed.
            let (mixed, added): (&[Vec<f64>], Option<&[Vec<f64>]>) =
                if steps_first { (&fleet.models, None) } else { (&before, Some(&fleet.models)) };
            let expected = (0..mixing.nodes()).map(|node| {
                let Row { own, others } = mixing.row(NodeId(node));
                let node = node as usize;
                let value = |place: usize| {
                    let of_others = others.iter().map(|(other, weight)| weight * mixed[other.0 as usize][place]);
                    let step = added.map_or(0.0, |after| after[node][place] - before[node][place]);
                    own * mixed[node][place] + of_others.sum::<f64>() + step
                };
                (0..12).map(value).collect::<Vec<f64>>()
            });
            let expected: Vec<Vec<f64>> = expected.collect();
            fleet.gossip();
            if !expected.iter().zip(&fleet.models).all(|(expected, model)| near(expected, model)) {
                return Err(format!("{:?}, not {expected:?}", fleet.models));
            }
        }
        Ok(())
    })
}

#[test]
fn choco_without_loss_and_with_whole_steps_is_d_psgd() {
    let choco = |step| move |mixing: &Mixing, seed| Fleet::new(Rule::Choco { step }, mixing, 0, seed);
    assert_eq!(is_d_psgd(choco(1.0), true), Ok(()));
    assert!(is_d_psgd(choco(1.0), false).is_err(), "it is the form that mixes first");
    assert!(is_d_psgd(choco(0.99), true).is_err());
    let slipping = |slip| move |mixing: &Mixing, seed| Fleet::plain(Rule::Choco { step: 1.0 }, mixing, 0, seed, slip);
    assert_eq!(is_d_psgd(slipping(Slip::None), true), Ok(()));
    for slip in [Slip::SelfForgotten, Slip::NeighbourForgotten] {
        assert!(is_d_psgd(slipping(slip), true).is_err(), "{slip:?}");
    }
}

/// Whether AdaGossip with `γ → ∞`, as made by `make`, is CHOCO with a step of its cap, to the bit.
fn is_choco_with_its_cap<N: Node<f64>>(
    make: impl Fn(Rule, &Mixing, usize, u64) -> Fleet<N>,
    step: f64,
) -> Result<(), Broken> {
    Check::default().hold((topologies(), 0_usize..5, any::<u64>(), 0.05..0.5), |(topology, which, seed, cap)| {
        let mixing = Mixing::metropolis(&topology);
        let ada = Rule::Ada(AdaGossip { step, cap, ..AdaGossip::default() });
        let mut fleets = [ada, Rule::Choco { step: cap }].map(|rule| make(rule, &mixing, which, seed));
        for _ in 0..6 {
            for fleet in &mut fleets {
                fleet.step();
                fleet.gossip();
            }
        }
        let [ada, choco] = fleets;
        if ada.models == choco.models { Ok(()) } else { Err(format!("{:?}, not {:?}", ada.models, choco.models)) }
    })
}

#[test]
fn ada_gossip_without_limit_is_choco_with_its_cap() {
    assert_eq!(is_choco_with_its_cap(Fleet::new, f64::INFINITY), Ok(()));
    assert!(is_choco_with_its_cap(Fleet::new, 0.1).is_err(), "some steps are below the cap");
    let slipping = |slip| move |rule, mixing: &Mixing, which, seed| Fleet::plain(rule, mixing, which, seed, slip);
    assert_eq!(is_choco_with_its_cap(slipping(Slip::None), f64::INFINITY), Ok(()));
    for slip in [Slip::CapExceeded, Slip::NoCap, Slip::MovesCapped] {
        assert!(is_choco_with_its_cap(slipping(slip), f64::INFINITY).is_err(), "{slip:?}");
    }
}

/// Whether nodes that are equal stay exactly as they are, with errors that were never anything but 0.
fn leaves_equal_nodes<N: Node<f64>>(make: impl Fn(Rule, &Mixing, usize, u64) -> Fleet<N>) -> Result<(), Broken> {
    let units = prop_oneof![Just(Unit::Parameter), Just(Unit::Error), Just(Unit::Measured)];
    let rules = prop_oneof![
        (0.05..1.0).prop_map(|step| Rule::Choco { step }),
        (any::<bool>(), units).prop_map(|(correction, unit)| Rule::Ada(AdaGossip {
            correction,
            unit,
            ..AdaGossip::default()
        })),
    ];
    // Those by which equal differences are told alike.
    let compressors = prop_oneof![Just(0_usize), Just(1), Just(3), Just(4)];
    Check::default().hold((topologies(), rules, compressors, any::<u64>()), |(topology, rule, which, seed)| {
        let mut fleet = make(rule, &Mixing::metropolis(&topology), which, seed);
        let model = fleet.models[0].clone();
        fleet.models.fill(model.clone());
        (0..4).for_each(|_| fleet.gossip());
        let same = fleet.models.iter().all(|other| *other == model);
        if same { Ok(()) } else { Err(format!("{model:?} became {:?}", fleet.models)) }
    })
}

#[test]
fn equal_nodes_stay_as_they_are() {
    assert_eq!(leaves_equal_nodes(Fleet::new), Ok(()));
    for slip in [Slip::Untold, Slip::SelfForgotten, Slip::NeighbourForgotten] {
        let slipping = |rule, mixing: &Mixing, which, seed| Fleet::plain(rule, mixing, which, seed, slip);
        assert!(leaves_equal_nodes(slipping).is_err(), "{slip:?}");
    }
}

/// Whether nodes that tell everything agree as fast as the spectral gap says, if they make this part of the step.
fn agrees_at_the_rate_of_the_gap(part: f64) -> Result<(), Broken> {
    let connected = topologies().prop_filter("it is connected", Topology::is_connected);
    Check::default().hold((connected, any::<u64>(), 0.05..0.5), |(topology, seed, step): (Topology, u64, f64)| {
        let mixing = Mixing::metropolis(&topology);
        let mut fleet = Fleet::new(Rule::Choco { step: part * step }, &mixing, 0, seed);
        let before = fleet.disagreement();
        for exchange in 1..=100 {
            fleet.gossip();
            let most = (1.0 - step * mixing.spectral_gap()).powi(2 * exchange) * before;
            if fleet.disagreement() > most * (1.0 + 1e-9) + 1e-20 {
                return Err(format!("apart by {}, not {most}, after {exchange} exchanges", fleet.disagreement()));
            }
        }
        Ok(())
    })
}

#[test]
fn nodes_agree_at_the_rate_of_the_spectral_gap() {
    assert_eq!(agrees_at_the_rate_of_the_gap(1.0), Ok(()));
    assert!(agrees_at_the_rate_of_the_gap(0.9).is_err());
}

#[test]
fn gossip_comes_to_an_agreement() {
    let mixing = Mixing::metropolis(&Topology::torus(3, 4));
    for which in 0..5 {
        // The published rule for each parameter alone stops where errors are as large as its steps.
        for (rule, rest) in [
            (Rule::Choco { step: 0.2 }, 1e-6),
            (Rule::Ada(AdaGossip { step: 0.02, cap: 0.2, ..AdaGossip::default() }), 1e-2),
        ] {
            let mut fleet = Fleet::new(rule, &mixing, which, 7);
            let before = fleet.disagreement();
            (0..600).for_each(|_| fleet.gossip());
            let after = fleet.disagreement();
            assert!(after < rest * before, "{rule:?} with compressor {which}: {before} became {after}");
        }
    }
}

#[test]
fn a_message_that_is_none_changes_nothing() {
    let mixing = Mixing::metropolis(&Topology::complete(2));
    let mut node: Consensus<f64> = Consensus::new(Rule::Choco { step: 0.5 }, mixing.row(NodeId(0)), 3);
    let before = node.clone();
    assert!(node.receive(NodeId(1), &[1, 2, 3], &mut Identity).is_err());
    assert!(node.send(&[1.0, f64::NAN, 0.0], &mut Identity, &mut Seed(1).random(), &mut vec![]).is_err());
    assert!(node.receive(NodeId(7), &[1, 2, 3], &mut Identity).is_ok(), "of a stranger");
    assert_eq!(node, before);
}

#[test]
fn a_tuned_step_is_the_best_of_those_that_are_tried() {
    let graphs = [Topology::ring(16), Topology::torus(3, 4), Topology::from_edges(9, (1..9).map(|node| (0, node)))];
    for (mixing, which) in graphs.iter().map(Mixing::metropolis).flat_map(|mixing| [(mixing.clone(), 0), (mixing, 1)]) {
        let tuning = Tuning { values: 200, exchanges: 60, ..Tuning::default() };
        let mut compressor = compressor::<f64>(which);
        let step = tune(&mixing, &mut *compressor, &tuning).expect("a step that is stable");
        let mut after = |step| agreement(&mixing, Rule::Choco { step }, &mut *compressor, &tuning).last();
        let best = after(step);
        assert!(best < 1.0, "{best} with {step}");
        let candidates = (0..tuning.candidates).map(|index| 10_f64.powf(-f64::from(index) / 5.0));
        let (found, others): (Vec<f64>, Vec<f64>) = candidates.partition(|other| (other / step - 1.0).abs() < 1e-9);
        assert_eq!(found.len(), 1, "{step} is none of the steps that are tried");
        for other in others {
            // Where copies leave the range of numbers there is nothing to compare.
            let last = after(other);
            assert!(last > best || last.is_nan(), "{other} leaves {last}, {step} leaves {best}");
        }
        // The theory's step is safe and slow.
        let theory = theoretical(mixing.spectral_gap(), 0.3, 4.0 / 3.0);
        assert!(theory < step / 100.0 && after(theory) > best && after(theory) < 1.0, "{theory} instead of {step}");
    }
}

#[test]
fn no_step_is_chosen_where_none_agrees() {
    // Values that cannot be told at all, and steps that are all too large for what is told.
    let mixing = Mixing::metropolis(&Topology::ring(16));
    let tuning = Tuning { values: 300, candidates: 2, ..Tuning::default() };
    let mut tenth = TopK::new(Kept::per_million(20_000));
    assert_eq!(tune::<f64>(&mixing, &mut tenth, &tuning), None);
    assert!(tune::<f64>(&mixing, &mut tenth, &Tuning { candidates: 11, ..tuning }).is_some());
}

#[test]
fn long_models_take_smaller_steps_where_less_of_them_is_kept() {
    let mixing = Mixing::metropolis(&Topology::ring(8));
    let tuning = Tuning { exchanges: 30, ..Tuning::default() };
    let mut levels = Quantised::contracting(4);
    let mut tuned = |values| tune::<f64>(&mixing, &mut levels, &Tuning { values, ..tuning }).expect("a stable step");
    let (short, long) = (tuned(50), tuned(800));
    let mut levels = Quantised::contracting(4);
    // Eight nodes tell one message and take three of their own and others', in 30 exchanges of eleven trials.
    let most = 8 * 4 * 30 * 11 * 50;
    assert_eq!(tune_at::<f64>(&mixing, &mut levels, &tuning, 800, u64::MAX), Some(long));
    let estimated = tune_at::<f64>(&mixing, &mut levels, &tuning, 800, most).expect("a stable step");
    let mut part = |len| kept::<f64>(&mut levels, len, tuning.seed).expect("something is kept");
    assert!((estimated - short * part(800) / part(50)).abs() < 1e-12, "{estimated} of {short}");
    assert!(estimated < short && (0.4..=2.5).contains(&(estimated / long)), "{estimated}, though {long} is best");
}

#[test]
fn a_relative_step_knows_no_units() {
    let law = |(seed, scale): (u64, f64)| {
        let mixing = Mixing::metropolis(&Topology::ring(5));
        let relative = AdaGossip { step: 0.2, cap: 0.4, unit: Unit::Error, ..AdaGossip::default() };
        let course = |scale: f64| {
            let mut fleet = Fleet::new(Rule::Ada(relative), &mixing, 0, seed);
            for model in &mut fleet.models {
                model.iter_mut().for_each(|value| *value *= scale);
            }
            for _ in 0..20 {
                fleet.gossip();
            }
            fleet.models
        };
        let (small, large) = (course(1.0), course(scale));
        for (small, large) in small.iter().flatten().zip(large.iter().flatten()) {
            if (scale * small - large).abs() > 1e-9 * scale {
                return Err(format!("{large} is not {scale} times {small}"));
            }
        }
        Ok(())
    };
    assert_eq!(Check::default().hold((any::<u64>(), (-9.0..9.0).prop_map(|digits| 10_f64.powf(digits))), law), Ok(()));
}
