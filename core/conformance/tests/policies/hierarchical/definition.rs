//! What sites do by definition, all at once and with nothing under way but numbers.

use kronfleet_core::policy::{Cycle, HierarchicalOptions};
use kronfleet_core::seed::Seed;
use kronfleet_core::transport::NodeId;

/// What happens to a node once all have made so many iterations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) after: u64,
    pub(super) node: usize,
    /// Whether it is lost, or comes back with nothing.
    pub(super) is_lost: bool,
}

/// Who is there of a site, in the order of its list.
pub(super) type Turn = fn(exchange: u64, site: &[NodeId], live: &[NodeId]) -> NodeId;

/// The turn goes round the list of a site; who is not there is represented by whoever comes next.
pub(super) fn next_that_is_there(exchange: u64, site: &[NodeId], live: &[NodeId]) -> NodeId {
    let (before, after) = site.split_at(exchange as usize % site.len());
    *after.iter().chain(before).find(|node| live.contains(node)).expect("somebody is there")
}

/// What sites have in the end.
pub(super) struct Course {
    /// One model for each.
    pub(super) models: Vec<Vec<f64>>,
    /// When an exchange began, who sent, and to whom.
    pub(super) exchanges: Vec<(u64, NodeId, NodeId)>,
    pub(super) cycle: Cycle,
}

/// What a step of a site adds.
pub(super) fn step(seed: u64, site: usize, iteration: u64, len: usize) -> Vec<f64> {
    let mut random = Seed(seed).derive("step", 1000 * site as u64 + iteration).random();
    (0..len).map(|_| 0.1 * random.normal()).collect()
}

/// A node's loss in a step.
pub(super) fn loss(seed: u64, node: usize, iteration: u64) -> f64 {
    0.5 + Seed(seed).derive("loss", 1000 * node as u64 + iteration).random().uniform()
}

/// The course of a run in which every mean comes in time.
pub(super) fn by_definition(
    options: &HierarchicalOptions,
    (iterations, len, seed): (u64, usize, u64),
    events: &[Event],
    turn: Turn,
) -> Course {
    let mut live = options.sites.clone();
    let nodes = live.iter().flatten().count();
    let mut models = vec![vec![0.0; len]; live.len()];
    let mut cycle = Cycle::new(&options.cycle);
    let mut flight: Option<(u64, Vec<Vec<f64>>)> = None;
    let mut exchanges = Vec::new();
    // Sums of losses and numbers of steps in this epoch.
    let mut losses = vec![(0.0, 0_u64); nodes];
    for iteration in 1..=iterations {
        for (site, model) in models.iter_mut().enumerate() {
            let moved = step(seed, site, iteration, len);
            model.iter_mut().zip(moved).for_each(|(value, moved)| *value += moved);
        }
        for node in live.iter().flatten().map(|node| node.0 as usize) {
            if iteration % options.cycle.epoch == 1 || options.cycle.epoch == 1 {
                losses[node] = (0.0, 0);
            }
            losses[node] = (losses[node].0 + loss(seed, node, iteration), losses[node].1 + 1);
        }
        if options.cycle.blocks(iteration, iterations) {
            average(&mut models, &live);
            flight = None;
            if iteration % options.cycle.epoch == 0 {
                let ended: Vec<f64> = live
                    .iter()
                    .flatten()
                    .map(|node| losses[node.0 as usize])
                    .filter(|of| of.1 > 0)
                    .map(|(sum, steps)| sum / steps as f64)
                    .collect();
                if iteration > options.cycle.warm_up * options.cycle.epoch {
                    cycle.conclude(ended.iter().sum::<f64>() / ended.len() as f64, &options.cycle);
                }
                losses.fill((0.0, 0));
            }
        } else {
            if let Some((begun, snapshots)) = flight.take_if(|flight| flight.0 + cycle.wait <= iteration) {
                let sites = live.iter().filter(|site| !site.is_empty()).count() as u64;
                let mean: Vec<f32> = mean(&snapshots, &live).iter().map(|&value| value as f32).collect();
                for (model, snapshot) in models.iter_mut().zip(&snapshots).filter(|_| sites > 1) {
                    options.merge.apply(model, snapshot, &mean, sites, iteration - begun);
                }
            }
            if flight.is_none() && iteration % cycle.skip == 0 {
                flight = Some((iteration, models.clone()));
                let there = || options.sites.iter().zip(&live).filter(|(_, live)| !live.is_empty()).enumerate();
                let whose = |(site, live): (&Vec<NodeId>, &Vec<NodeId>)| turn(iteration / cycle.skip, site, live);
                for (from, sender) in there() {
                    let others = there().filter(|(to, _)| *to != from);
                    exchanges.extend(others.map(|(_, receiver)| (iteration, whose(sender), whose(receiver))));
                }
            }
        }
        for event in events.iter().filter(|event| event.after == iteration) {
            let node = NodeId(event.node as u32);
            let site = options.sites.iter().position(|site| site.contains(&node)).expect("every node has a site");
            if event.is_lost {
                live[site].retain(|&other| other != node);
            }
            // Whoever is left begins anew from an average, and so does whoever comes back.
            average(&mut models, &live);
            flight = None;
            if !event.is_lost {
                live[site].push(node);
                live[site].sort_unstable();
                losses[event.node] = (0.0, 0);
            }
        }
    }
    exchanges.sort_unstable();
    Course { models, exchanges, cycle }
}

/// The mean of the sites' models, each as often as it has members.
fn mean(models: &[Vec<f64>], live: &[Vec<NodeId>]) -> Vec<f64> {
    let all: f64 = live.iter().map(|site| site.len() as f64).sum();
    let weighted = |place: usize| models.iter().zip(live).map(move |(model, site)| site.len() as f64 * model[place]);
    (0..models[0].len()).map(|place| weighted(place).sum::<f64>() / all).collect()
}

fn average(models: &mut [Vec<f64>], live: &[Vec<NodeId>]) {
    let mean = mean(models, live);
    models.iter_mut().for_each(|model| model.clone_from(&mean));
}
