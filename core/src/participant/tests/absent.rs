//! Layers that nobody contributes now and then, and what is made up for that, against plain loops.

use super::layers::{Mood, Tower, close, layerwise, pace, ranges};
use super::*;
use crate::participant::layers::Absence;
use crate::seed::Seed;
use alloc::format;
use proptest::prelude::*;

/// How many layers a step reaches of a node that has moods.
fn mood(node: u32, iteration: u64, layers: usize) -> usize {
    Seed(8).derive("mood", u64::from(node) << 32 | iteration).random().below(layers as u64 + 1) as usize
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Where layers are missing at random, each contribution is as much longer as the layer was missing before; and what was
    /// counted for that is in what is saved.
    #[test]
    fn absent_layers_are_made_up_for(nodes in 1_u32..4, lengths in prop::collection::vec(1_usize..3, 1..4), iterations in 4_u64..25) {
        let (nodes, layers) = (nodes + 1, lengths.len());
        let policy = || layerwise(1.0, |policy| policy.unbiased = true);
        let len = lengths.iter().sum();
        let mut world = World::with(nodes, iterations, policy, |node| Tower::moody(node, &lengths, mood));
        for member in &mut world.members {
            member.schedule.step = 2 * STEP;
        }
        world.run(Duration::from_secs(20));
        let model = |unbiased: bool| {
            let (mut model, mut absent, mut late) = (vec![0.0; len], vec![0_u64; layers], false);
            for iteration in 1..=iterations {
                for (layer, range) in ranges(&lengths).into_iter().enumerate() {
                    let brings = |node: &u32| layer >= layers - mood(*node, iteration, layers);
                    let contributors: Vec<u32> = (0..nodes).filter(brings).collect();
                    let (before, missed) = (iteration - 1, absent[layer]);
                    let longer = if unbiased && missed < before { before as f64 / (before - missed) as f64 } else { 1.0 };
                    absent[layer] += u64::from(contributors.is_empty());
                    late |= longer > 1.0 && !contributors.is_empty();
                    for place in range.filter(|_| !contributors.is_empty()) {
                        let sum: f64 = contributors.iter().map(|&node| pace(node, iteration, place)).sum();
                        model[place] += longer.min(10.0) * sum / contributors.len() as f64;
                    }
                }
            }
            (model, late)
        };
        let (expected, made_up) = model(true);
        prop_assert_eq!(close(&world, &expected), Ok(()));
        prop_assert_eq!(close(&world, &model(false).0).is_err(), made_up, "the bias is noticed");
        let absence = &world.members[0].absence;
        prop_assert_eq!(&Absence::restore(&absence.save()), absence);
    }
}

/// What is made up for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Longer {
    /// The step since the last round, by what members have counted together.
    Shared,
    /// Everything since the last round of the node, by what members have counted together.
    Everything,
    /// The step since the last round, by what each has counted.
    Own,
}

/// What a node has at some time.
#[derive(Clone, Debug, Default)]
struct State {
    iteration: u64,
    model: Vec<f64>,
    /// The iteration and the model of its last round.
    base: Option<(u64, Vec<f64>)>,
    rounds: u64,
    absent: Vec<u64>,
}

/// One node, as a plain loop has it.
#[derive(Clone, Debug, Default)]
struct Plain {
    now: State,
    /// What it had after each iteration, before the round that may have followed: a contribution may have been to a round that
    /// others know of, and the node does not.
    brought: Vec<State>,
}

impl Plain {
    fn advance(&mut self, node: u32, lengths: &[usize], iteration: u64) {
        for iteration in self.now.iteration + 1..=iteration {
            let missing = lengths.len() - mood(node, iteration, lengths.len());
            for place in lengths[..missing].iter().sum()..self.now.model.len() {
                self.now.model[place] += pace(node, iteration, place);
            }
            self.now.iteration = iteration;
            self.brought.push(self.now.clone());
        }
    }
}

/// A fleet of moody nodes, of which one is away for some time.
#[derive(Clone, Debug)]
struct Absentee {
    nodes: u32,
    lengths: Vec<usize>,
    iterations: u64,
    who: usize,
    /// From when to when, in milliseconds.
    away: (u64, u64),
}

impl Absentee {
    fn run(&self) -> World<Tower> {
        let policy = || layerwise(1.0, |policy| policy.unbiased = true);
        let make = |node| Tower::moody(node, &self.lengths, mood);
        let mut world = World::with(self.nodes, self.iterations, policy, make);
        for member in &mut world.members {
            member.schedule.step = 2 * STEP;
        }
        world.run(Duration::from_millis(self.away.0));
        world.offline = Some(self.who);
        world.run(Duration::from_millis(self.away.1));
        world.offline = None;
        world.run(Duration::from_secs(60));
        assert!(world.members.iter().all(Participant::is_over));
        world
    }

    /// What each node has in the end, by who was in which round.
    fn models(&self, world: &World<Tower>, longer: Longer) -> Vec<Vec<f64>> {
        let mut rounds = BTreeMap::new();
        for record in &world.records {
            if let Occurrence::Committed { certificate } = &record.what {
                let round = rounds.entry(certificate.id()).or_insert_with(|| (certificate.clone(), Vec::new()));
                round.1.push(record.node.0 as usize);
            }
        }
        let layers = self.lengths.len();
        let ranges = ranges(&self.lengths);
        let model = vec![0.0; self.lengths.iter().sum()];
        let now = State { model, absent: vec![0; layers], ..State::default() };
        let mut nodes = vec![Plain { now, brought: Vec::new() }; self.nodes as usize];
        for (certificate, committed) in rounds.into_values() {
            let members = certificate.members.iter().map(|member| {
                let node = member.node.0;
                let plain = &mut nodes[node as usize];
                plain.advance(node, &self.lengths, member.iteration);
                let brought = plain.brought[member.iteration as usize - 1].clone();
                (brought, layers - mood(node, member.iteration, layers))
            });
            let members: Vec<(State, usize)> = members.collect();
            let average: Vec<Option<Vec<f64>>> = (0..layers)
                .map(|layer| {
                    let brought = members.iter().filter(|(_, missing)| layer >= *missing).map(|(state, _)| {
                        let State { iteration, model, base, rounds, absent } = state;
                        let factor = match rounds - absent[layer] {
                            0 => 1.0,
                            present => (*rounds as f64 / present as f64).min(10.0),
                        };
                        let made_up = |(at, _): &&(u64, Vec<f64>)| longer == Longer::Everything || at + 1 == *iteration;
                        let from = base.as_ref().filter(made_up).map_or(model, |(_, base)| base);
                        let place = |place: usize| from[place] + factor * (model[place] - from[place]);
                        ranges[layer].clone().map(place).collect()
                    });
                    let brought: Vec<Vec<f64>> = brought.collect();
                    let mean = |at: usize| brought.iter().map(|of| of[at]).sum::<f64>() / brought.len() as f64;
                    (!brought.is_empty()).then(|| (0..self.lengths[layer]).map(mean).collect())
                })
                .collect();
            let counted: u64 = members.iter().map(|(state, _)| state.rounds).sum();
            let shared = |of: &dyn Fn(&State) -> u64| {
                let sum: u64 = members.iter().map(|(state, _)| state.rounds * of(state)).sum();
                (sum as f64 / counted as f64).round() as u64
            };
            let together = (
                shared(&|state| state.rounds),
                (0..layers).map(|layer| shared(&|state| state.absent[layer])).collect(),
            );
            for node in committed {
                let node = &mut nodes[node].now;
                if counted > 0 && longer != Longer::Own {
                    (node.rounds, node.absent) = together.clone();
                }
                node.rounds += 1;
                for (layer, mean) in average.iter().enumerate() {
                    node.absent[layer] += u64::from(mean.is_none());
                    if let Some(mean) = mean {
                        node.model[ranges[layer].clone()].copy_from_slice(mean);
                    }
                }
                node.base = Some((node.iteration, node.model.clone()));
            }
        }
        for (node, plain) in (0..).zip(&mut nodes) {
            plain.advance(node, &self.lengths, self.iterations);
        }
        nodes.into_iter().map(|plain| plain.now.model).collect()
    }

    /// How far models are from what they should be.
    fn error(&self, world: &World<Tower>, longer: Longer) -> f64 {
        let models = self.models(world, longer).into_iter().flatten();
        let found = world.members.iter().flat_map(|member| &member.training().expect("no step is under way").model);
        found.zip(models).map(|(found, expected)| (found - expected).abs()).fold(0.0, f64::max)
    }
}

fn absentees() -> impl Strategy<Value = Absentee> {
    let lengths = prop::collection::vec(1_usize..3, 1..4);
    (3_u32..5, lengths, 60_u64..120, 0_usize..3, 0_u64..600, 200_u64..900).prop_map(
        |(nodes, lengths, iterations, who, from, span)| {
            let away = (from, from + span);
            Absentee { nodes, lengths, iterations, who, away }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_a_node_has_trained_alone_is_not_made_longer(absentee in absentees()) {
        // Some hundreds of operations on values of some tens.
        let error = absentee.error(&absentee.run(), Longer::Shared);
        prop_assert!(error < 1e-9, "{error}");
    }
}

/// It commits a round alone, as the others hear nothing of that any more; without it they hold one of the same number.
#[test]
fn a_proposer_that_leaves_after_its_commit_is_told_apart_from_the_others() {
    let absentee = Absentee { nodes: 4, lengths: vec![1], iterations: 60, who: 0, away: (46, 591) };
    let error = absentee.error(&absentee.run(), Longer::Shared);
    assert!(error < 1e-9, "{error}");
}

#[test]
fn making_all_of_a_way_longer_or_by_a_count_of_ones_own_is_noticed() {
    let mut most = [0.0_f64; 3];
    // Whoever comes back with a step that has not reached a layer that is often absent shows nothing.
    for (who, from) in [(0, 300), (1, 300), (2, 300), (0, 400), (1, 400), (2, 400)] {
        let away = (from, from + 600);
        let absentee = Absentee { nodes: 3, lengths: vec![2, 1, 1], iterations: 120, who, away };
        let world = absentee.run();
        for (most, longer) in most.iter_mut().zip([Longer::Shared, Longer::Everything, Longer::Own]) {
            *most = most.max(absentee.error(&world, longer));
        }
    }
    let [shared, everything, own] = most;
    assert!(shared < 1e-9, "{shared}");
    assert!(everything > 0.1 && own > 1e-3, "{everything}, {own}");
}

/// A fleet in which every step of every node reaches so many layers with these odds, from none to all of them.
#[derive(Clone, Debug)]
struct Odds {
    nodes: u32,
    lengths: Vec<usize>,
    of: Vec<u64>,
}

impl Odds {
    fn all(&self) -> u64 {
        self.of.iter().sum()
    }

    /// In how many of [`all`](Self::all)ⁿ rounds of n nodes nobody reaches a layer.
    fn absent(&self, layer: usize) -> u64 {
        let layers = self.lengths.len();
        self.of[..layers - layer].iter().sum::<u64>().pow(self.nodes)
    }

    /// What nodes begin with.
    fn model(&self) -> Vec<f64> {
        (0..self.lengths.iter().sum()).map(|place| pace(u32::MAX, 1, place)).collect()
    }

    /// The mean over all that chance can do of the model that `round` makes where nodes reach so many layers.
    fn mean(&self, round: impl Fn(&[usize]) -> Vec<f64>) -> Vec<f64> {
        let kinds = self.of.len();
        let mut mean = vec![0.0; self.lengths.iter().sum()];
        for number in 0..kinds.pow(self.nodes) {
            let reached: Vec<usize> = (0..self.nodes).map(|node| number / kinds.pow(node) % kinds).collect();
            let odds: u64 = reached.iter().map(|&reached| self.of[reached]).product();
            let share = odds as f64 / self.all().pow(self.nodes) as f64;
            mean.iter_mut().zip(round(&reached)).for_each(|(mean, value)| *mean += share * value);
        }
        mean
    }

    /// What a fleet makes of one round, to which the odds are known by so many rounds as have them exactly.
    fn real(&self, reached: &[usize], unbiased: bool) -> Vec<f64> {
        let (layers, model) = (self.lengths.len(), self.model());
        let mut words = vec![self.all().pow(self.nodes), layers as u64];
        words.extend((0..layers).map(|layer| self.absent(layer)));
        words.push(model.len() as u64);
        words.extend(model.iter().map(|value| value.to_bits()));
        words.push(0);
        let absence = Absence::restore(&words);
        assert_eq!(absence.save(), words);
        let policy = || layerwise(1.0, |policy| policy.unbiased = unbiased);
        let make = |node: u32| {
            let moods: [Mood; 4] = [|_, _, _| 0, |_, _, _| 1, |_, _, _| 2, |_, _, _| 3];
            let mut tower = Tower::moody(node, &self.lengths, moods[reached[node as usize]]);
            tower.model.clone_from(&model);
            tower
        };
        let mut world = World::with(self.nodes, 1, policy, make);
        for member in &mut world.members {
            member.schedule.step = 2 * STEP;
            if unbiased {
                member.absence = absence.clone();
            }
        }
        world.run(Duration::from_secs(1));
        assert!(world.members.iter().all(Participant::is_over));
        world.members[0].training().expect("no step is under way").model.clone()
    }

    /// `(w̄ − p·w)/(1 − p)` of each layer, `w̄` being the mean over those who have reached it; or one of the mistakes.
    fn plain(&self, reached: &[usize], slip: Option<Slip>) -> Vec<f64> {
        let (layers, mut model) = (self.lengths.len(), self.model());
        for (layer, range) in ranges(&self.lengths).into_iter().enumerate() {
            let brings = |node: &u32| layer >= layers - reached[*node as usize];
            let contributors: Vec<u32> = (0..self.nodes).filter(brings).collect();
            if contributors.is_empty() {
                continue;
            }
            let all = self.all().pow(self.nodes) as f64;
            // The odds that one node does not have it, and that nobody does.
            let absent = self.absent(layer) as f64 / all;
            let one = absent.powf(1.0 / f64::from(self.nodes));
            let factor = match slip {
                Some(Slip::Uncorrected) => 1.0,
                Some(Slip::OverAll) => contributors.len() as f64 / f64::from(self.nodes) / (1.0 - absent),
                Some(Slip::OfOne) => 1.0 / (1.0 - one),
                Some(Slip::Inverted) => 1.0 / absent.max(1e-3),
                None => 1.0 / (1.0 - absent),
            };
            for place in range {
                let sum: f64 = contributors.iter().map(|&node| pace(node, 1, place)).sum();
                model[place] += factor * sum / contributors.len() as f64;
            }
        }
        model
    }

    /// Whether the mean over what chance can do is what all nodes make that reach everything.
    fn is_unbiased(&self, round: impl Fn(&[usize]) -> Vec<f64>) -> Result<(), String> {
        let expected = self.plain_average();
        let mean = self.mean(round);
        // Some hundreds of values of some tens, as steps are made ten times as long at most.
        let near = mean.iter().zip(&expected).all(|(mean, expected)| (mean - expected).abs() < 1e-10);
        if near { Ok(()) } else { Err(format!("{mean:?} instead of {expected:?}")) }
    }

    fn plain_average(&self) -> Vec<f64> {
        let mean = |place| (0..self.nodes).map(|node| pace(node, 1, place)).sum::<f64>() / f64::from(self.nodes);
        self.model().iter().enumerate().map(|(place, value)| value + mean(place)).collect()
    }
}

/// What could be done wrong with layers that come at random.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Slip {
    /// Nothing is made up for.
    Uncorrected,
    /// Who has not reached a layer counts in its mean.
    OverAll,
    /// `p` is the share of rounds that one node is missed in, not all of them.
    OfOne,
    /// Steps are `1/p` times as long.
    Inverted,
}

fn odds() -> impl Strategy<Value = Odds> {
    (2_u32..=3, prop::collection::vec(1_usize..3, 1..4)).prop_flat_map(|(nodes, lengths)| {
        // One in six reaches everything at least, so that no step is to be made ten times as long.
        let of = prop::collection::vec(1_u64..3, lengths.len() + 1);
        of.prop_map(move |of| Odds { nodes, lengths: lengths.clone(), of })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Where all nodes are late with the same odds and these are known, the mean over all that chance can do is the average of
    /// nodes that are never late (SALF, arXiv 2403.18375).
    #[test]
    fn layers_that_come_at_random_are_right_in_the_mean(odds in odds()) {
        prop_assert_eq!(odds.is_unbiased(|reached| odds.real(reached, true)), Ok(()));
        prop_assert_eq!(odds.is_unbiased(|reached| odds.plain(reached, None)), Ok(()));
        prop_assert!(odds.is_unbiased(|reached| odds.real(reached, false)).is_err());
        for slip in [Slip::Uncorrected, Slip::OverAll, Slip::OfOne, Slip::Inverted] {
            prop_assert!(odds.is_unbiased(|reached| odds.plain(reached, Some(slip))).is_err(), "{:?}", slip);
        }
    }
}
