//! Outer optimisers, against what they do by their definition where a server knows everything.

use kronfleet_conformance::check::{Broken, Check};
use kronfleet_core::cluster::Contribution;
use kronfleet_core::outer::{Outer, OuterOptimiser};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::seed::{Random, Seed};
use proptest::prelude::*;

/// The weighted mean of what nodes contribute, segment by segment, in their order.
fn mean<S: Scalar>(contributions: &[Contribution<S>]) -> Contribution<S> {
    let mut mean = contributions[0].clone();
    for (index, segment) in mean.segments_mut().iter_mut().enumerate() {
        let of = |contribution: &Contribution<S>| contribution.segments()[index].clone();
        let weight: f64 = contributions.iter().map(|contribution| of(contribution).weight).sum();
        for (place, value) in segment.values.iter_mut().enumerate() {
            let sum: f64 = contributions.iter().map(of).map(|of| of.weight * of.values[place].wide()).sum();
            *value = S::of(sum / weight);
        }
        segment.weight = weight;
    }
    mean
}

fn contribution<S: Scalar>(parameters: &[S], weight: f64) -> Contribution<S> {
    let mut contribution = Contribution::default();
    contribution.segment("parameters", parameters.len(), weight).copy_from_slice(parameters);
    contribution
}

/// What a server would keep.
#[derive(Clone, Debug)]
struct Server {
    model: Vec<f64>,
    moments: [Vec<f64>; 2],
}

impl Server {
    fn new(model: &[f64]) -> Self {
        Self { model: model.to_vec(), moments: [vec![0.0; model.len()], vec![0.0; model.len()]] }
    }

    /// The mean of two that have been apart.
    fn merged(&self, other: &Self, share: f64) -> Self {
        let mean = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| share * a + (1.0 - share) * b).collect();
        let moments = [0, 1].map(|index| mean(&self.moments[index], &other.moments[index]));
        Self { model: mean(&self.model, &other.model), moments }
    }

    fn step(&mut self, optimiser: OuterOptimiser, average: &[f64]) {
        let [first, second] = &mut self.moments;
        for (place, w) in self.model.iter_mut().enumerate() {
            let delta = *w - average[place];
            match optimiser {
                OuterOptimiser::Momentum { rate, momentum, nesterov } => {
                    first[place] = momentum * first[place] + delta;
                    *w -= rate * if nesterov { delta + momentum * first[place] } else { first[place] };
                }
                OuterOptimiser::Adam { rate, momentum, decay, adaptivity } => {
                    first[place] = momentum * first[place] - (1.0 - momentum) * delta;
                    second[place] = decay * second[place] + (1.0 - decay) * delta * delta;
                    *w += rate * first[place] / (second[place].sqrt() + adaptivity);
                }
            }
        }
    }
}

/// Some nodes that begin at the same model, and the server that would do their work.
struct Group {
    nodes: Vec<Outer<f64>>,
    server: Server,
}

impl Group {
    fn new(optimiser: OuterOptimiser, count: usize, model: &[f64]) -> Self {
        Self { nodes: vec![Outer::new(optimiser, model); count], server: Server::new(model) }
    }
}

/// What nodes have trained since their last average, and what it counts.
fn trained(nodes: &[Outer<f64>], random: &mut Random) -> Vec<(Vec<f64>, f64)> {
    let train = |node: &Outer<f64>| {
        let model = node.base().iter().map(|value| value + 0.3 * random.normal()).collect();
        (model, 0.5 + random.uniform())
    };
    nodes.iter().map(train).collect()
}

/// One round of all these nodes; answers the model that they have then.
fn round(nodes: &mut [Outer<f64>], trained: &[(Vec<f64>, f64)]) -> Result<Vec<f64>, String> {
    let contribute = |(node, (model, weight)): (&Outer<f64>, &(Vec<f64>, f64))| {
        let mut contribution = contribution(model, *weight);
        node.contribute(&mut contribution);
        contribution
    };
    let contributions: Vec<_> = nodes.iter().zip(trained).map(contribute).collect();
    let average = mean(&contributions);
    let mut models = nodes.iter_mut().map(|node| node.conclude(&average).segments()[0].values.clone());
    let model = models.next().ok_or("no nodes")?;
    if models.any(|other| other != model) {
        return Err("models differ after a round".into());
    }
    if nodes.iter().any(|node| node != &nodes[0] || node.base() != model) {
        return Err("what is kept differs after a round".into());
    }
    Ok(model)
}

/// `Σ λx` of what was trained.
fn average(trained: &[(Vec<f64>, f64)]) -> Vec<f64> {
    let all: Vec<_> = trained.iter().map(|(model, weight)| contribution(model, *weight)).collect();
    mean(&all).segments()[0].values.clone()
}

fn close(model: &[f64], expected: &[f64]) -> Result<(), String> {
    for (place, (value, expected)) in model.iter().zip(expected).enumerate() {
        // Some tens of operations on values of at most some tens.
        if (value - expected).abs() > 1e-11 {
            return Err(format!("{value} instead of {expected} in place {place}"));
        }
    }
    Ok(())
}

fn optimisers() -> impl Strategy<Value = OuterOptimiser> {
    let momentum = (0.1..1.2, 0.0..0.95, any::<bool>());
    let adam = (0.01..0.2, 0.0..0.95, 0.5..0.999, 1e-2..1.0);
    prop_oneof![
        momentum.prop_map(|(rate, momentum, nesterov)| OuterOptimiser::Momentum { rate, momentum, nesterov }),
        adam.prop_map(|(rate, momentum, decay, adaptivity)| {
            OuterOptimiser::Adam { rate, momentum, decay, adaptivity }
        }),
    ]
}

/// Nodes do what a server does that is given `mistaken(optimiser)`.
fn as_a_server(mistaken: impl Fn(OuterOptimiser) -> OuterOptimiser) -> Result<(), Broken> {
    let cases = (optimisers(), 1_usize..6, 1_usize..9, 1_usize..7, any::<u64>());
    Check::default().hold(cases, |(optimiser, count, len, rounds, seed)| {
        let mut random = Seed(seed).random();
        let start: Vec<f64> = (0..len).map(|_| random.normal()).collect();
        let mut group = Group::new(optimiser, count, &start);
        for _ in 0..rounds {
            let trained = trained(&group.nodes, &mut random);
            group.server.step(mistaken(optimiser), &average(&trained));
            close(&round(&mut group.nodes, &trained)?, &group.server.model)?;
        }
        Ok(())
    })
}

#[test]
fn nodes_do_without_a_server_what_one_would_do() {
    assert_eq!(as_a_server(|optimiser| optimiser), Ok(()));
    // The other kind of momentum is noticed, and one mean's decay in place of the other's.
    let other = |optimiser| match optimiser {
        OuterOptimiser::Momentum { rate, momentum, nesterov } => {
            OuterOptimiser::Momentum { rate, momentum, nesterov: !nesterov }
        }
        OuterOptimiser::Adam { .. } => optimiser,
    };
    assert!(as_a_server(other).is_err());
    let swapped = |optimiser| match optimiser {
        OuterOptimiser::Adam { rate, momentum, decay, adaptivity } => {
            OuterOptimiser::Adam { rate, momentum: decay, decay: momentum, adaptivity }
        }
        OuterOptimiser::Momentum { .. } => optimiser,
    };
    assert!(as_a_server(swapped).is_err());
}

#[test]
fn histories_that_parted_go_on_from_the_mean_of_what_they_have() {
    let cases = (optimisers(), 1_usize..4, 1_usize..4, 1_usize..9, any::<u64>());
    let law = |(optimiser, left, right, len, seed): (OuterOptimiser, usize, usize, usize, u64)| {
        let mut random = Seed(seed).random();
        let start: Vec<f64> = (0..len).map(|_| random.normal()).collect();
        let mut groups = [left, right].map(|count| Group::new(optimiser, count, &start));
        for group in &mut groups {
            for _ in 0..1 + random.below(3) {
                let trained = trained(&group.nodes, &mut random);
                group.server.step(optimiser, &average(&trained));
                round(&mut group.nodes, &trained)?;
            }
        }
        let [a, b] = groups;
        let mut nodes: Vec<Outer<f64>> = a.nodes.into_iter().chain(b.nodes).collect();
        let trained = trained(&nodes, &mut random);
        let weights = |part: &[(Vec<f64>, f64)]| part.iter().map(|(_, weight)| weight).sum::<f64>();
        let mut server = a.server.merged(&b.server, weights(&trained[..left]) / weights(&trained));
        server.step(optimiser, &average(&trained));
        close(&round(&mut nodes, &trained)?, &server.model)
    };
    assert_eq!(Check::default().hold(cases, law), Ok(()));
}

#[test]
fn a_rate_of_one_without_momentum_is_plain_averaging_to_the_bit() {
    let cases = (1_usize..6, 1_usize..30, any::<bool>(), any::<u64>());
    let law = |(count, len, nesterov, seed): (usize, usize, bool, u64)| {
        let mut random = Seed(seed).random();
        let mut draw = || (0..len).map(|_| random.normal() as f32).collect::<Vec<f32>>();
        let optimiser = OuterOptimiser::Momentum { rate: 1.0, momentum: 0.0, nesterov };
        let mut outer = Outer::new(optimiser, &draw());
        for _ in 0..3 {
            let plain: Vec<_> = (0..count).map(|_| contribution(&draw(), 1.0)).collect();
            let mut stepped = plain.clone();
            stepped.iter_mut().for_each(|contribution| outer.contribute(contribution));
            let (plain, stepped) = (mean(&plain), mean(&stepped));
            let made = outer.conclude(&stepped);
            if made.segments()[0].values != plain.segments()[0].values {
                return Err(format!("{made:?} is not {plain:?}"));
            }
        }
        Ok(())
    };
    assert_eq!(Check::default().hold(cases, law), Ok(()));
}

#[test]
fn an_average_of_nothing_changes_nothing() {
    for optimiser in [OuterOptimiser::DILOCO, OuterOptimiser::FEDADAM] {
        let mut outer = Outer::new(optimiser, &[1.0_f64, 2.0]);
        let before = outer.clone();
        let mut empty = contribution(&[f64::NAN, 7.0], 0.0);
        outer.contribute(&mut empty);
        outer.conclude(&empty);
        assert_eq!(outer, before);
    }
}
