//! Policies of push-sum that talk: whoever goes and comes back, nothing is lost, and nodes agree.

use crate::gossip::compressor;
use crate::push::{LEN, TENSORS, add, differs, graphs, pace};
use kronfleet_conformance::check::{Broken, Check};
use kronfleet_core::cluster::Incarnation;
use kronfleet_core::gossip::{Directed, Mass, Push, Topology};
use kronfleet_core::participant::Summary;
use kronfleet_core::policy::{AveragingPolicy, PolicyAction, PolicyInput, PushSum, PushSumOptions};
use kronfleet_core::scalar::Values;
use kronfleet_core::seed::{Random, Seed};
use kronfleet_core::time::Instant;
use kronfleet_core::transport::NodeId;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

/// One node and its policy.
struct Member {
    policy: PushSum<f64>,
    model: Vec<f64>,
    /// What the policy has last said the model is to be.
    adopted: Vec<f64>,
    iteration: u64,
    starts: u64,
    paused: bool,
    away: bool,
}

/// Nodes whose policies talk, in an order drawn at random.
struct Hall {
    graph: Directed,
    which: usize,
    adaptive: bool,
    members: Vec<Member>,
    mail: BTreeMap<(usize, usize), VecDeque<Vec<u8>>>,
    random: Random,
    now: Instant,
    /// Policies are written down and read back at any time.
    restores: bool,
    /// Which bit of the next message of parts arrives wrong.
    flip: Option<usize>,
    /// Iterations move models, each by a step drawn at random.
    trains: bool,
    /// All steps together.
    steps: Vec<f64>,
    /// Policies are shown no steps, as they must be.
    untaught: bool,
    /// The largest `Σw` since it was last looked at.
    heaviest: f64,
    /// The first who did not wait.
    hasty: Option<String>,
}

impl Hall {
    fn new(graph: &Directed, which: usize, adaptive: bool, seed: u64, restores: bool) -> Self {
        let mut random = Seed(seed).random();
        let mut hall = Self {
            graph: graph.clone(),
            which,
            adaptive,
            members: vec![],
            mail: BTreeMap::new(),
            random: Seed(seed).derive("order", 0).random(),
            now: Instant::ORIGIN,
            restores,
            flip: None,
            trains: false,
            steps: vec![0.0; LEN],
            untaught: false,
            heaviest: 0.0,
            hasty: None,
        };
        for node in 0..graph.nodes() {
            let model: Vec<f64> = (0..LEN).map(|_| random.normal()).collect();
            let (policy, adopted) = (hall.policy(node as usize), model.clone());
            hall.members.push(Member { policy, model, adopted, iteration: 0, starts: 0, paused: false, away: false });
        }
        (0..hall.members.len()).for_each(|node| hall.begin(node));
        hall
    }

    /// A start of a node begins.
    fn begin(&mut self, node: usize) {
        self.members[node].starts += 1;
        let incarnation = Incarnation(self.members[node].starts);
        self.tell(node, PolicyInput::Began { iterations: u64::MAX, incarnation });
    }

    /// A node begins anew, with the model that it has and at the same moment; what is under way to and from it is lost.
    fn restart(&mut self, node: usize) {
        self.members[node].policy = self.policy(node);
        self.members[node].paused = false;
        self.mail.retain(|&(from, to), _| from != node && to != node);
        self.begin(node);
    }

    fn policy(&self, node: usize) -> PushSum<f64> {
        let mut options = PushSumOptions::new(&self.graph, NodeId(node as u32));
        options.pace = pace(self.which, self.adaptive);
        options.tensors = TENSORS.to_vec();
        PushSum::new(options, compressor(self.which))
    }

    fn tell(&mut self, node: usize, input: PolicyInput<'_>) {
        self.members[node].policy.handle(self.now, input);
        while let Some(action) = self.members[node].policy.poll() {
            match action {
                PolicyAction::Observe => {
                    let there = |&other: &usize| other != node && !self.members[node].away && !self.members[other].away;
                    let peers: Vec<NodeId> =
                        (0..self.members.len()).filter(there).map(|other| NodeId(other as u32)).collect();
                    let Member { policy, model, adopted, .. } = &mut self.members[node];
                    let model = if self.untaught { adopted } else { model };
                    let observed = PolicyInput::Observed { parameters: Values::Double(model), peers: &peers };
                    policy.handle(self.now, observed);
                }
                PolicyAction::Tell { to, bytes } => {
                    let to = to.0 as usize;
                    if !self.members[node].away && !self.members[to].away {
                        self.mail.entry((node, to)).or_default().push_back(bytes);
                    }
                }
                PolicyAction::Pause => self.members[node].paused = true,
                PolicyAction::Proceed => self.members[node].paused = false,
                PolicyAction::Adopt(model) => {
                    self.members[node].adopted.clone_from(&model);
                    self.members[node].model = model;
                }
                _ => panic!("nobody contributes here"),
            }
        }
        if self.restores && self.random.chance(0.2) {
            let saved = self.members[node].policy.save();
            self.members[node].policy = self.policy(node);
            self.members[node].policy.restore(&saved);
            assert_eq!(self.members[node].policy.save(), saved);
        }
        self.heaviest = self.heaviest.max(self.weight());
        if self.hasty.is_none() {
            self.hasty = self.ahead();
        }
    }

    /// Lets things happen until all have made so many iterations and wait for nobody.
    fn run(&mut self, iterations: u64) {
        loop {
            self.mail.retain(|_, queue| !queue.is_empty());
            let ready: Vec<usize> = (0..self.members.len())
                .filter(|&node| !self.members[node].paused && self.members[node].iteration < iterations)
                .collect();
            let choices = ready.len() + self.mail.len();
            if choices == 0 {
                let Some(first) = self.members.iter().map(|m| m.policy.timeout()).min().filter(|&at| at < Instant::FAR)
                else {
                    return;
                };
                self.now = first;
                for node in 0..self.members.len() {
                    self.members[node].policy.wake(first);
                    self.tell(node, PolicyInput::Told { from: NodeId(u32::MAX), bytes: &[] });
                }
                continue;
            }
            let choice = self.random.below(choices as u64) as usize;
            if let Some(&node) = ready.get(choice) {
                self.members[node].iteration += 1;
                if self.trains {
                    for (value, sum) in self.members[node].model.iter_mut().zip(&mut self.steps) {
                        let step = 0.1 * self.random.normal();
                        *value += step;
                        *sum += step;
                    }
                }
                let (iteration, summary) = (self.members[node].iteration, Summary::default());
                self.tell(node, PolicyInput::Stepped { iteration, summary: &summary });
            } else {
                let (&(from, to), queue) = self.mail.iter_mut().nth(choice - ready.len()).expect("counted above");
                let mut bytes = queue.pop_front().expect("empty ones are gone");
                // A request has no digest.
                if let Some(bit) = self.flip.take_if(|_| bytes[0] != 0x14) {
                    let bit = bit % (8 * bytes.len());
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
                self.tell(to, PolicyInput::Told { from: NodeId(from as u32), bytes: &bytes });
            }
        }
    }

    /// A node goes or comes back; what is under way to and from it is lost.
    fn toggle(&mut self, node: usize) {
        self.members[node].away ^= true;
        self.mail.retain(|&(from, to), _| from != node && to != node);
    }

    /// `Σw` and `Σx` over nodes; one that has not begun has its model.
    fn held(&self) -> Mass {
        let mut sum = Mass { values: vec![0.0; LEN], weights: vec![0.0; TENSORS.len()] };
        for Member { policy, model, .. } in &self.members {
            let first = Mass { values: model.clone(), weights: vec![1.0; TENSORS.len()] };
            add(&mut sum, 1.0, Some(policy.push().map_or(&first, Push::mass)));
        }
        sum
    }

    /// The same with what is under way.
    fn all(&self) -> Mass {
        let mut sum = self.held();
        for (from, sender) in (0..).map(NodeId).zip(&self.members) {
            for (to, receiver) in (0..).map(NodeId).zip(&self.members) {
                let given = sender.policy.push().and_then(|push| push.given(to));
                add(&mut sum, 1.0, given);
                add(&mut sum, -1.0, receiver.policy.push().and_then(|push| push.taken(from)));
            }
        }
        sum
    }

    fn weight(&self) -> f64 {
        self.held().weights[0]
    }

    /// Somebody who trains on although one of those whose turn it was to give has not come to that exchange.
    fn ahead(&self) -> Option<String> {
        let ready = (0_u32..).zip(&self.members).filter(|(_, member)| !member.paused && member.iteration > 0);
        ready.into_iter().find_map(|(node, member)| {
            let at = member.iteration;
            let (_, senders) = self.graph.place(NodeId(node)).at(at);
            let late = senders.into_iter().find(|sender| self.members[sender.0 as usize].iteration < at)?;
            Some(format!("{node} goes on after exchange {at}, to which {late} has not come"))
        })
    }

    fn disagreement(&self) -> f64 {
        let range = |place: usize| {
            let values = || self.members.iter().map(|member| member.model[place]);
            values().fold(f64::MIN, f64::max) - values().fold(f64::MAX, f64::min)
        };
        (0..LEN).map(range).fold(0.0, f64::max)
    }
}

/// Nodes train while some go and come back, and then no more: what they have and what is under way is what they began with
/// and all steps, and they come to the mean of it.
fn steps_count_and_nodes_agree(untaught: bool) -> Result<(), Broken> {
    let which = prop_oneof![Just((0_usize, false)), Just((1, false)), Just((1, true))];
    let cases = (graphs(), which, any::<u64>(), 0_usize..6, any::<bool>());
    let law = |(graph, (which, adaptive), seed, changes, restores): (Directed, (usize, bool), u64, usize, bool)| {
        let mut hall = Hall::new(&graph, which, adaptive, seed, restores);
        let first = hall.held();
        let with_steps = |hall: &Hall| {
            let values = first.values.iter().zip(&hall.steps).map(|(first, steps)| first + steps).collect();
            Mass { values, weights: first.weights.clone() }
        };
        (hall.trains, hall.untaught) = (true, untaught);
        let mut iterations = 3;
        hall.run(iterations);
        for _ in 0..changes {
            let node = hall.random.below(hall.members.len() as u64) as usize;
            hall.toggle(node);
            iterations += 1 + hall.random.below(9);
            hall.run(iterations);
            if let Some(off) = differs(&hall.all(), &with_steps(&hall)) {
                return Err(format!("after {iterations} iterations, {off}"));
            }
        }
        for node in 0..hall.members.len() {
            if hall.members[node].away {
                hall.toggle(node);
            }
        }
        hall.trains = false;
        let before = hall.disagreement();
        // In step, as nodes are whose steps take equally long.
        let last = iterations + if which == 0 { 300 } else { 1500 };
        (iterations..=last).for_each(|iteration| hall.run(iteration));
        let all = with_steps(&hall);
        if let Some(off) = differs(&hall.held(), &all) {
            return Err(off);
        }
        let (after, nodes) = (hall.disagreement(), hall.members.len() as f64);
        let model = &hall.members[0].model;
        let off = model.iter().zip(&all.values).map(|(z, sum)| (z - sum / nodes).abs()).fold(0.0, f64::max);
        if after <= 1e-3 * before + 1e-9 && off <= 1e-3 * before + 1e-9 {
            Ok(())
        } else {
            Err(format!("apart by {before}, then by {after}, {off} from the mean"))
        }
    };
    Check { cases: 24, ..Check::default() }.hold(cases, law)
}

#[test]
fn policies_agree_and_keep_their_masses_and_all_steps_whoever_went_and_came_back() {
    assert_eq!(steps_count_and_nodes_agree(false), Ok(()));
    assert!(steps_count_and_nodes_agree(true).is_err());
}

#[test]
fn everybody_waits_for_first_messages_too_and_for_no_deadline() {
    let law = |(graph, seed, iterations, restores): (Directed, u64, u64, bool)| {
        let mut hall = Hall::new(&graph, 0, false, seed, restores);
        // Nobody is kept from going on before others.
        hall.run(iterations);
        if let Some(hasty) = hall.hasty {
            return Err(hasty);
        }
        if hall.now > Instant::ORIGIN { Err(format!("a deadline passed: it is {:?}", hall.now)) } else { Ok(()) }
    };
    let cases = (graphs(), any::<u64>(), 1_u64..40, any::<bool>());
    assert_eq!(Check { cases: 256, ..Check::default() }.hold(cases, law), Ok(()));
}

#[test]
fn a_message_that_was_changed_on_its_way_is_noticed_and_made_good() {
    let law = |(seed, bit, exchanges, restores): (u64, usize, u64, bool)| {
        let mut hall = Hall::new(&Directed::exponential(4), 0, false, seed, restores);
        let all = hall.held();
        (0..=exchanges).for_each(|iteration| hall.run(iteration));
        hall.flip = Some(bit);
        (exchanges + 1..exchanges + 80).for_each(|iteration| hall.run(iteration));
        if hall.flip.is_some() {
            return Err("nothing was said".into());
        }
        for (from, sender) in (0..).map(NodeId).zip(&hall.members) {
            for (to, receiver) in (0..).map(NodeId).zip(&hall.members) {
                let (sender, receiver) = (sender.policy.push(), receiver.policy.push());
                let told = sender.map(|push| (push.copy_at(to), push.given(to)));
                if told != receiver.map(|push| (push.copy_of(from), push.taken(from))) {
                    return Err(format!("what {from} has given is not what {to} has taken"));
                }
            }
        }
        if let Some(off) = differs(&hall.held(), &all) {
            return Err(off);
        }
        let apart = hall.disagreement();
        if apart < 1e-9 { Ok(()) } else { Err(format!("apart by {apart}")) }
    };
    let cases = (any::<u64>(), any::<usize>(), 0_u64..6, any::<bool>());
    assert_eq!(Check { cases: 256, ..Check::default() }.hold(cases, law), Ok(()));
}

#[test]
fn what_was_saved_with_other_tensors_is_not_taken() {
    let mut hall = Hall::new(&Directed::exponential(4), 0, false, 5, false);
    (0..6).for_each(|iteration| hall.run(iteration));
    let saved = hall.members[1].policy.save();
    let restored = |tensors: &[usize]| {
        let mut options = PushSumOptions::new(&hall.graph, NodeId(1));
        (options.pace, options.tensors) = (pace(0, false), tensors.to_vec());
        let mut policy = PushSum::<f64>::new(options, compressor(0));
        policy.restore(&saved);
        policy
    };
    assert_eq!(restored(&TENSORS).save(), saved);
    assert!(restored(&[]).push().is_none() && restored(&[LEN]).push().is_none());
}

#[test]
fn whoever_begins_anew_is_given_nothing_twice() {
    let law = |(graph, seed, restarts, restores): (Directed, u64, Vec<(usize, bool, u64)>, bool)| {
        let mut hall = Hall::new(&graph, 0, false, seed, restores);
        (0..4).for_each(|iteration| hall.run(iteration));
        let (mut iterations, mut most, before) = (4, hall.members.len() as f64, hall.disagreement());
        for (node, away, later) in restarts {
            let node = node % hall.members.len();
            // Others have noticed that it was away, or have not.
            if away {
                hall.toggle(node);
                iterations += 2;
                hall.run(iterations);
                hall.toggle(node);
            }
            // Its mass is lost with it, and it brings a new one; what others give before they have heard of it is lost, too.
            most += 1.0 - hall.members[node].policy.push().map_or(1.0, |push| push.mass().weights[0]);
            hall.restart(node);
            hall.heaviest = 0.0;
            for _ in 0..later {
                hall.run(iterations);
                iterations += 1;
            }
            if hall.heaviest > most + 1e-12 {
                return Err(format!("Σw comes to {}, though there is no more than {most}", hall.heaviest));
            }
        }
        for _ in 0..300 {
            hall.run(iterations);
            iterations += 1;
        }
        let (weight, apart) = (hall.weight(), hall.disagreement());
        if weight > 0.0 && weight <= most + 1e-12 && apart <= 1e-3 * before + 1e-9 {
            Ok(())
        } else {
            Err(format!("Σw = {weight} of at most {most}, apart by {apart}"))
        }
    };
    let restarts = proptest::collection::vec((any::<usize>(), any::<bool>(), 1_u64..9), 1..4);
    let cases = (graphs(), any::<u64>(), restarts, any::<bool>());
    assert_eq!(Check { cases: 48, ..Check::default() }.hold(cases, law), Ok(()));
}

#[test]
fn whoever_begins_anew_unnoticed_gives_and_is_given_at_once() {
    // Everybody gives to all that give to it.
    let graphs = prop_oneof![(2_u32..9).prop_map(Topology::ring), (2_u32..7).prop_map(Topology::complete)];
    let law = |(topology, seed, node, restores): (Topology, u64, usize, bool)| {
        let graph = Directed::from(&topology);
        let mut hall = Hall::new(&graph, 0, false, seed, restores);
        (0..4).for_each(|iteration| hall.run(iteration));
        let (node, begun) = (node % hall.members.len(), hall.now);
        hall.restart(node);
        (4..9).for_each(|iteration| hall.run(iteration));
        if hall.now > begun {
            return Err(format!("others wait for {node} from {begun:?} to {:?}", hall.now));
        }
        for (other, member) in (0..).zip(&hall.members).filter(|(other, _)| *other != node as u32) {
            let given = hall.members[node].policy.push().and_then(|push| push.given(NodeId(other)));
            let taken = member.policy.push().and_then(|push| push.taken(NodeId(node as u32)));
            if topology.neighbours(other).any(|neighbour| neighbour == node as u32)
                && (given.is_none() || given != taken)
            {
                return Err(format!("{other} has taken {taken:?} of {node}, which has given {given:?}"));
            }
        }
        Ok(())
    };
    let cases = (graphs, any::<u64>(), any::<usize>(), any::<bool>());
    assert_eq!(Check::default().hold(cases, law), Ok(()));
}
