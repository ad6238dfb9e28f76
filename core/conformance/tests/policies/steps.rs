//! Gossip among nodes that learn between exchanges, also where messages come late.

use crate::gossip::topologies;
use crate::neighbours::{Hall, disagreement};
use kronfleet_conformance::check::{Broken, Check};
use kronfleet_core::gossip::{Mixing, Row, Rule, Topology};
use kronfleet_core::seed::Seed;
use kronfleet_core::transport::NodeId;
use proptest::prelude::*;

/// Values of a model.
const LEN: usize = 12;

type Models = Vec<Vec<f64>>;

/// What a node learns: nodes go the same way, each with a way of its own beside it, so that both their mean and what they
/// differ by go on moving.
fn learned(seed: u64, node: usize, iteration: u64) -> Vec<f64> {
    let mut own = Seed(seed).derive("way", node as u64).random();
    let mut now = Seed(seed).derive("step", node as u64).derive("iteration", iteration).random();
    (0..LEN).map(|_| 1.0 + own.normal() + now.normal()).collect()
}

fn models(nodes: u32, seed: u64) -> Models {
    let mut random = Seed(seed).random();
    (0..nodes).map(|_| (0..LEN).map(|_| random.normal()).collect()).collect()
}

/// Nodes that learn, an exchange after every so many iterations.
pub(crate) fn hall(topology: &Topology, rule: Rule, which: usize, interval: u64, seed: u64) -> Hall {
    let mut hall = Hall::new(topology, rule, which, &models(topology.nodes(), seed), seed);
    hall.learn = Some(Box::new(move |node, iteration| learned(seed, node, iteration)));
    hall.interval = interval;
    (0..hall.members.len()).for_each(|node| hall.begin(node));
    hall
}

fn sums(models: &Models) -> Vec<f64> {
    (0..LEN).map(|place| models.iter().map(|model| model[place]).sum()).collect()
}

/// What all nodes learn with an iteration.
fn learned_by_all(nodes: usize, seed: u64, iteration: u64) -> Vec<f64> {
    sums(&(0..nodes).map(|node| learned(seed, node, iteration)).collect())
}

/// The largest difference in any place.
fn apart(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn mixed(mixing: &Mixing, models: &Models) -> Models {
    let mixed = |node: usize| {
        let Row { own, others } = mixing.row(NodeId(node as u32));
        let value = |place: usize| {
            let of_others = others.iter().map(|(other, weight)| weight * models[other.0 as usize][place]);
            own * models[node][place] + of_others.sum::<f64>()
        };
        (0..LEN).map(value).collect()
    };
    (0..models.len()).map(mixed).collect()
}

/// What an exchange makes of models and of what was learned since the last one.
type Exchange = fn(&Mixing, &Models, &Models) -> Models;

fn added(models: &Models, learned: &Models) -> Models {
    let sum = |(model, learned): (&Vec<f64>, &Vec<f64>)| model.iter().zip(learned).map(|(x, d)| x + d).collect();
    models.iter().zip(learned).map(sum).collect()
}

/// `x ← W(x + d)`.
fn adapt_then_combine(mixing: &Mixing, models: &Models, learned: &Models) -> Models {
    mixed(mixing, &added(models, learned))
}

/// `x ← Wx + d`.
fn combine_then_adapt(mixing: &Mixing, models: &Models, learned: &Models) -> Models {
    added(&mixed(mixing, models), learned)
}

/// `x ← Wx`.
fn combine(mixing: &Mixing, models: &Models, _: &Models) -> Models {
    mixed(mixing, models)
}

/// Whether D-PSGD, without losses, is the loop whose exchange this is.
fn is_loop(topology: &Topology, interval: u64, seed: u64, exchange: Exchange) -> Result<(), String> {
    let mixing = Mixing::metropolis(topology);
    let mut expected = models(topology.nodes(), seed);
    let mut hall = hall(topology, Rule::Choco { step: 1.0 }, 0, interval, seed);
    for number in 1..=5 {
        let mut since = vec![vec![0.0; LEN]; expected.len()];
        for iteration in (number - 1) * interval + 1..=number * interval {
            let of_each = |node| learned(seed, node, iteration);
            since = added(&since, &(0..expected.len()).map(of_each).collect());
        }
        expected = exchange(&mixing, &expected, &since);
        hall.run(number * interval);
        for (model, expected) in hall.models().iter().zip(&expected) {
            if apart(model, expected) > 1e-10 * (number * interval) as f64 {
                return Err(format!("{model:?} after exchange {number}, not {expected:?}"));
            }
        }
    }
    Ok(())
}

#[test]
fn d_psgd_learns_first_and_mixes_then() {
    let law = |(topology, interval, seed): (Topology, u64, u64)| is_loop(&topology, interval, seed, adapt_then_combine);
    assert_eq!(Check::default().hold((topologies(), 1_u64..5, any::<u64>()), law), Ok(()));
}

#[test]
fn what_learns_after_mixing_or_not_at_all_is_not_d_psgd() {
    for exchange in [combine_then_adapt, combine] {
        assert!(is_loop(&Topology::ring(5), 2, 1, exchange).is_err());
    }
}

/// Whether a fleet moves its mean by what is learned, and copies are those of the models that they are copies of.
fn moves_as_it_learns(mut hall: Hall, topology: &Topology, seed: u64, iterations: u64) -> Result<(), String> {
    let (begun, interval) = (hall.members[0].iteration, hall.interval);
    let mut expected = sums(&hall.models());
    for iteration in begun + 1..=begun + iterations {
        hall.run(iteration);
        let learned = learned_by_all(hall.members.len(), seed, iteration);
        expected.iter_mut().zip(learned).for_each(|(sum, learned)| *sum += learned);
        let found = sums(&hall.models());
        if apart(&found, &expected) > 1e-9 * iteration as f64 {
            return Err(format!("models add up to {found:?} after iteration {iteration}, not {expected:?}"));
        }
        if !iteration.is_multiple_of(interval) {
            continue;
        }
        for node in 0..topology.nodes() {
            for neighbour in topology.neighbours(node) {
                let copy = hall.members[neighbour as usize].policy.other(NodeId(node));
                if copy != Some(hall.members[node as usize].policy.own()) {
                    return Err(format!("{neighbour} has an old copy of {node} after iteration {iteration}"));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn choco_moves_the_mean_by_what_is_learned() {
    let law = |(topology, which, interval, step, seed): (Topology, usize, u64, f64, u64)| {
        let hall = hall(&topology, Rule::Choco { step }, which, interval, seed);
        moves_as_it_learns(hall, &topology, seed, 12)
    };
    let cases = (topologies(), 0_usize..5, 1_u64..4, 0.05..0.4, any::<u64>());
    assert_eq!(Check::default().hold(cases, law), Ok(()));
}

#[test]
fn exchanges_of_what_was_there_before_lose_what_is_learned() {
    let topology = Topology::ring(4);
    let mut hall = hall(&topology, Rule::Choco { step: 0.3 }, 0, 1, 1);
    hall.is_old = true;
    assert!(moves_as_it_learns(hall, &topology, 1, 12).is_err());
}

/// A message, or several, of a node to a neighbour that is late: after so many exchanges without, from whom to whom by their
/// places, and how many exchanges end before it comes.
type Late = (u64, usize, usize, u64);

/// Whether messages that came late make no difference some exchanges later.
fn comes_back_in_step(topology: &Topology, mut hall: Hall, seed: u64, late: &[Late]) -> Result<(), String> {
    let nodes = hall.members.len();
    let mut iteration = hall.members[0].iteration;
    let mut run = |hall: &mut Hall, iterations: u64| {
        (0..iterations).for_each(|_| {
            iteration += 1;
            hall.run(iteration);
            hall.restore(iteration as usize % nodes);
        });
    };
    for &(before, node, neighbour, exchanges) in late {
        run(&mut hall, before);
        let from = node % nodes;
        let others: Vec<u32> = topology.neighbours(from as u32).collect();
        if let Some(&to) = others.get(neighbour % others.len().max(1)) {
            hall.stuck = Some((from, to as usize));
        }
        run(&mut hall, exchanges);
        hall.stuck = None;
    }
    // Whoever was behind for long is waited for once it has been so for as long again.
    run(&mut hall, 8 + late.iter().map(|(before, _, _, exchanges)| before + exchanges).sum::<u64>());
    let now = hall.now;
    run(&mut hall, 4);
    if hall.now != now {
        return Err("somebody waits for what does not come".into());
    }
    moves_as_it_learns(hall, topology, seed, 4)
}

fn lates() -> impl Strategy<Value = Vec<Late>> {
    proptest::collection::vec((0_u64..4, 0_usize..9, 0_usize..8, 1_u64..7), 1..5)
}

#[test]
fn whoever_was_late_is_in_step_again() {
    let graphs = prop_oneof![(2_u32..9).prop_map(Topology::ring), (2_u32..7).prop_map(Topology::complete)];
    let law = |(topology, which, step, seed, anew, late): (Topology, usize, f64, u64, Option<usize>, Vec<Late>)| {
        let mut hall = hall(&topology, Rule::Choco { step }, which, 1, seed);
        if let Some(node) = anew {
            // Its messages are counted from 1 again.
            hall.run(3);
            hall.begin(node % hall.members.len());
        }
        comes_back_in_step(&topology, hall, seed, &late)
    };
    let which = prop_oneof![Just(0_usize), Just(1), Just(4)];
    let cases = (graphs, which, 0.05..0.4, any::<u64>(), proptest::option::of(0_usize..9), lates());
    assert_eq!(Check::default().hold(cases, law), Ok(()));
}

#[test]
fn whoever_is_not_told_what_goes_together_stays_behind() {
    // What waiting for any one message came to.
    let topology = Topology::ring(4);
    let mut hall = hall(&topology, Rule::Choco { step: 0.3 }, 0, 1, 1);
    hall.is_mute = true;
    assert!(comes_back_in_step(&topology, hall, 1, &[(3, 0, 0, 1)]).is_err());
}

#[test]
fn whoever_is_late_every_time_is_waited_for_ever_more_rarely() {
    let topology = Topology::ring(2);
    let mut hall = hall(&topology, Rule::Choco { step: 0.3 }, 0, 1, 1);
    hall.stuck = Some((1, 0));
    let ends = |hall: &mut Hall, iteration| {
        let before = hall.now;
        hall.run(iteration);
        hall.now > before
    };
    let mut late = |iteration| {
        let waits = ends(&mut hall, iteration);
        // It comes before the next exchange.
        hall.stuck = None;
        while hall.happen(iteration) {}
        hall.stuck = Some((1, 0));
        waits
    };
    let waits = (1..=70).filter(|&iteration| late(iteration)).collect::<Vec<u64>>();
    // For the first message, and after 1, 2, 4, 8 … exchanges of which it is known what goes with them.
    assert!((7..=9).contains(&waits.len()), "waits at {waits:?}");
    hall.stuck = None;
    let waits = (71..=140).filter(|&iteration| ends(&mut hall, iteration)).collect::<Vec<u64>>();
    assert!(waits.is_empty(), "waits at {waits:?}");
    assert_eq!(moves_as_it_learns(hall, &topology, 1, 4), Ok(()));
}

#[test]
fn whoever_takes_ten_times_as_long_is_waited_for_no_more_often_than_it_is_taken_for_there() {
    let topology = Topology::ring(2);
    let mut hall = hall(&topology, Rule::Choco { step: 0.3 }, 0, 1, 1);
    // How often the fast one's deadline passes while the slow one makes so many steps.
    let mut waits = |steps: u64| {
        let mut waits = 0;
        for exchange in 0..10 * steps {
            hall.step(0);
            if exchange % 10 == 0 && !hall.members[1].paused {
                hall.step(1);
            }
            // Nobody makes a step here.
            while hall.happen(0) {}
            if hall.members[0].paused {
                waits += 1;
                assert!(hall.pass(), "it waits for nothing");
            }
        }
        waits
    };
    waits(40);
    let waits = waits(40);
    // Four exchanges with each of its steps, and now and then for the one that goes with them.
    assert!((150..=165).contains(&waits), "{waits} of 400 exchanges wait");
}

#[test]
fn one_late_message_costs_less_than_a_step() {
    // Two nodes that learn 1 with each of 400 iterations; D-PSGD would have both at 400.
    let course = |is_mute: bool| {
        let topology = Topology::ring(2);
        let mut hall = Hall::new(&topology, Rule::Choco { step: 1.0 }, 0, &vec![vec![0.0]; 2], 1);
        hall.learn = Some(Box::new(|_, _| vec![1.0]));
        hall.is_mute = is_mute;
        (1..=10).for_each(|iteration| hall.run(iteration));
        hall.stuck = Some((1, 0));
        // Its deadline passes.
        hall.run(11);
        hall.stuck = None;
        (12..=400).for_each(|iteration| hall.run(iteration));
        hall.models().concat().iter().sum::<f64>() / 2.0
    };
    let (told, mute) = (course(false), course(true));
    assert!((399.0..=400.0).contains(&told), "{told} iterations learned");
    assert!(mute < 350.0, "{mute} iterations learned though one message of two was always that of the exchange before");
}

/// A node, by its place, what happens in the exchange in which it goes before it does, and how many exchanges it is away.
type Absence = (usize, u64, u64);

/// How far the mean has been moved, in the worst place, by what nodes gave to each other that not both took account of.
struct Moved {
    expected: Vec<f64>,
    iteration: u64,
    seed: u64,
    /// The largest difference between nodes.
    largest: f64,
}

impl Moved {
    fn new(hall: &Hall, seed: u64) -> Self {
        Self { expected: sums(&hall.models()), iteration: 0, seed, largest: 0.0 }
    }

    fn run(&mut self, hall: &mut Hall, iterations: u64) {
        for _ in 0..iterations {
            self.iteration += 1;
            hall.run(self.iteration);
            self.largest = self.largest.max(disagreement(&hall.models()));
            let learned = learned_by_all(hall.members.len(), self.seed, self.iteration);
            self.expected.iter_mut().zip(learned).for_each(|(sum, learned)| *sum += learned);
        }
    }
}

/// How far absences have moved the mean, in what one exchange along the edges of those who were away can.
fn moved_by_absences(topology: &Topology, mut hall: Hall, step: f64, seed: u64, absences: &[Absence]) -> f64 {
    let mixing = Mixing::metropolis(topology);
    let (mut moved, mut most) = (Moved::new(&hall, seed), 0.0);
    for &(node, events, exchanges) in absences {
        let node = node % hall.members.len();
        moved.largest = 0.0;
        for exchanges in [exchanges, 8] {
            moved.run(&mut hall, 1);
            (0..events).for_each(|_| _ = hall.happen(moved.iteration + 1));
            hall.toggle(node);
            moved.run(&mut hall, exchanges);
        }
        most += step * mixing.row(NodeId(node as u32)).others.values().sum::<f64>() * moved.largest;
    }
    apart(&sums(&hall.models()), &moved.expected) / most
}

/// Whether absences move the mean by less than one exchange along the edges of those who were away.
fn absences_move_little(rule: impl Fn(f64) -> Rule) -> Result<(), Broken> {
    let law = |(topology, which, step, seed, is_blind, absences): (Topology, usize, f64, u64, bool, Vec<Absence>)| {
        let mut hall = hall(&topology, rule(step), which, 1, seed);
        // It is lost before it knows.
        hall.is_blind = is_blind;
        let moved = moved_by_absences(&topology, hall, step, seed, &absences);
        if moved <= 1.0 { Ok(()) } else { Err(format!("{moved} exchanges")) }
    };
    let graphs = prop_oneof![(2_u32..9).prop_map(Topology::ring), (2_u32..7).prop_map(Topology::complete)];
    let which = prop_oneof![Just(0_usize), Just(1), Just(4)];
    let absences = proptest::collection::vec((0_usize..9, 0_u64..40, 1_u64..20), 1..4);
    let cases = (graphs, which, 0.05..0.4, any::<u64>(), any::<bool>(), absences);
    Check::default().hold(cases, law)
}

#[test]
fn an_absence_moves_the_mean_by_less_than_one_exchange() {
    assert_eq!(absences_move_little(|step| Rule::Choco { step }), Ok(()));
}

#[test]
fn an_absence_moves_the_mean_by_less_than_one_exchange_of_parts() {
    assert_eq!(absences_move_little(|step| Rule::Partial { step }), Ok(()));
}

#[test]
fn exchanges_that_lose_what_is_learned_move_the_mean_by_more() {
    let topology = Topology::ring(5);
    let mut hall = hall(&topology, Rule::Choco { step: 0.3 }, 0, 1, 1);
    hall.is_old = true;
    assert!(moved_by_absences(&topology, hall, 0.3, 1, &[(2, 7, 9)]) > 1.0);
}
