//! Policies that are written down and read back at any time go on as if they had not been.

use crate::gossip::compressor;
use crate::push::pace;
use kronfleet_conformance::check::{Broken, Check};
use kronfleet_core::cluster::{AbandonReason, Algorithm, Attempt, Certificate, Digest, Incarnation, Member, Round};
use kronfleet_core::gossip::{AdaGossip, Directed, Mixing, Rule, Topology, Unit};
use kronfleet_core::participant::Summary;
use kronfleet_core::policy::{
    Asynchronous, AveragingPolicy, Confidence, Drifts, Dynamic, DynamicOptions, Gauge, Gossip, GossipOptions,
    PolicyAction, PolicyInput, PushSum, PushSumOptions, Streaming, StreamingOptions, Threshold,
};
use kronfleet_core::scalar::Values;
use kronfleet_core::seed::{Random, Seed};
use kronfleet_core::time::Instant;
use kronfleet_core::transport::NodeId;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

const NODES: u32 = 3;
/// Values of a model.
const LEN: usize = 3;
const ITERATIONS: u64 = 12;
const EVENTS: usize = 150;

/// Makes the policy of a node.
type Make = fn(NodeId) -> Box<dyn AveragingPolicy>;

fn lasgd(_: NodeId) -> Box<dyn AveragingPolicy> {
    Box::new(Asynchronous::new(2))
}

fn streaming(_: NodeId) -> Box<dyn AveragingPolicy> {
    Box::new(Streaming::new(StreamingOptions::new(6, 3, 1)))
}

fn naive(_: NodeId) -> Box<dyn AveragingPolicy> {
    Box::new(Dynamic::new(DynamicOptions::new(Gauge::Naive, Threshold::Tuned { most: 10 })))
}

fn linear(_: NodeId) -> Box<dyn AveragingPolicy> {
    Box::new(Dynamic::new(DynamicOptions::new(Gauge::Linear, Threshold::Fixed(4.0))))
}

fn sketch(_: NodeId) -> Box<dyn AveragingPolicy> {
    let gauge = Gauge::Sketch { rows: 3, columns: 4, confidence: Confidence::Usual, drifts: Drifts::Any };
    Box::new(Dynamic::new(DynamicOptions::new(gauge, Threshold::Fixed(4.0))))
}

fn push(node: NodeId) -> Box<dyn AveragingPolicy> {
    Box::new(PushSum::<f64>::new(PushSumOptions::new(&Directed::one_peer(NODES), node), compressor(1)))
}

fn adaptive_push(node: NodeId) -> Box<dyn AveragingPolicy> {
    let mut options = PushSumOptions::new(&Directed::exponential(NODES), node);
    (options.pace, options.tensors) = (pace(1, true), vec![2, 1]);
    Box::new(PushSum::<f64>::new(options, compressor(3)))
}

fn gossip(node: NodeId, rule: Rule, which: usize) -> Box<dyn AveragingPolicy> {
    let row = Mixing::metropolis(&Topology::complete(NODES)).row(node).clone();
    Box::new(Gossip::<f64>::new(GossipOptions::new(row, rule), compressor(which)))
}

fn choco(node: NodeId) -> Box<dyn AveragingPolicy> {
    gossip(node, Rule::Choco { step: 0.3 }, 1)
}

fn ada(node: NodeId) -> Box<dyn AveragingPolicy> {
    gossip(node, Rule::Ada(AdaGossip { unit: Unit::Measured, ..AdaGossip::default() }), 1)
}

fn partial(node: NodeId) -> Box<dyn AveragingPolicy> {
    gossip(node, Rule::Partial { step: 0.5 }, 2)
}

/// One node and what its policy has it do.
struct Trainer {
    policy: Box<dyn AveragingPolicy>,
    model: Vec<f64>,
    iteration: u64,
    paused: bool,
    /// It contributes, and waits for what comes of it.
    waits: bool,
    /// It contributes and trains on.
    offers: bool,
}

/// What becomes of the words of a policy before they are read back.
type Kept = dyn Fn(&mut Vec<u64>);

/// Nodes whose policies talk and whose rounds end in one way or another, all drawn at random.
struct Fleet<'a> {
    make: Make,
    nodes: Vec<Trainer>,
    mail: BTreeMap<(u32, u32), VecDeque<Vec<u8>>>,
    random: Random,
    now: Instant,
    rounds: u64,
    /// `None` if policies are never written down.
    kept: Option<&'a Kept>,
    /// All that policies have asked for.
    asked: Vec<String>,
}

impl<'a> Fleet<'a> {
    fn new(make: Make, seed: u64, kept: Option<&'a Kept>) -> Self {
        let trainer = |node| Trainer {
            policy: make(NodeId(node)),
            model: vec![f64::from(node); LEN],
            iteration: 0,
            paused: false,
            waits: false,
            offers: false,
        };
        let (random, nodes) = (Seed(seed).random(), (0..NODES).map(trainer).collect());
        let (mail, asked) = (BTreeMap::new(), vec![]);
        let mut fleet = Self { make, nodes, mail, random, now: Instant::ORIGIN, rounds: 0, kept, asked };
        for node in 0..NODES {
            fleet.tell(node, PolicyInput::Began { iterations: ITERATIONS, incarnation: Incarnation(1) });
        }
        fleet
    }

    /// Tells a policy something and does what it asks for; then it is written down and read back.
    fn tell(&mut self, node: u32, input: PolicyInput<'_>) {
        self.nodes[node as usize].policy.handle(self.now, input);
        self.settle(node);
    }

    fn settle(&mut self, node: u32) {
        let Trainer { policy, model, paused, waits, offers, .. } = &mut self.nodes[node as usize];
        while let Some(action) = policy.poll() {
            self.asked.push(format!("{node} at {}: {action:?}", self.now));
            match action {
                PolicyAction::Observe => {
                    // Now and then somebody cannot be reached.
                    let lost = self.random.chance(0.1).then(|| self.random.below(u64::from(NODES)) as u32);
                    let is_there = |other: &u32| *other != node && Some(*other) != lost;
                    let peers: Vec<NodeId> = (0..NODES).filter(is_there).map(NodeId).collect();
                    policy.handle(self.now, PolicyInput::Observed { parameters: Values::Double(model), peers: &peers });
                }
                PolicyAction::Tell { to, bytes } => self.mail.entry((node, to.0)).or_default().push_back(bytes),
                PolicyAction::Adopt(adopted) => *model = adopted,
                PolicyAction::Pause => *paused = true,
                PolicyAction::Proceed => *paused = false,
                PolicyAction::Contribute(_) => (*waits, *paused) = (true, false),
                PolicyAction::Offer(..) => (*offers, *paused) = (true, false),
                _ => panic!("nobody gives up here"),
            }
        }
        if let Some(kept) = self.kept {
            let mut words = policy.save();
            kept(&mut words);
            *policy = (self.make)(NodeId(node));
            policy.restore(&words);
        }
        self.asked.push(format!("{node} wakes at {}", policy.timeout()));
    }

    /// What comes of the contributions that there are.
    fn conclude(&mut self) {
        let members: Vec<u32> =
            (0..NODES).filter(|&node| self.nodes[node as usize].waits || self.nodes[node as usize].offers).collect();
        self.rounds += 1;
        let certificate = Certificate {
            attempt: Attempt { sequence: self.rounds, proposer: NodeId(0), incarnation: Incarnation(1) },
            round: Round(self.rounds),
            members: members.iter().map(|&node| Member { node: NodeId(node), ..Member::default() }).collect(),
            algorithm: Algorithm::Direct,
            wire: "f64".into(),
            result: Digest(self.rounds),
            parents: vec![],
        };
        let outcome = self.random.below(8);
        let mean = |place: usize| {
            members.iter().map(|&node| self.nodes[node as usize].model[place]).sum::<f64>() / members.len() as f64
        };
        let average: Vec<f64> = (0..LEN).map(mean).collect();
        for node in members {
            let trainer = &mut self.nodes[node as usize];
            (trainer.waits, trainer.offers) = (false, false);
            if outcome > 0 {
                trainer.model.clone_from(&average);
            }
            self.tell(
                node,
                match outcome {
                    0 => PolicyInput::Abandoned(AbandonReason::Late),
                    1 => PolicyInput::Healed(&certificate),
                    _ => PolicyInput::Committed(&certificate),
                },
            );
        }
    }

    fn run(mut self) -> Vec<String> {
        for _ in 0..EVENTS {
            self.mail.retain(|_, queue| !queue.is_empty());
            let ready: Vec<u32> = (0..NODES)
                .filter(|&node| {
                    let Trainer { paused, waits, iteration, .. } = self.nodes[node as usize];
                    !paused && !waits && iteration < ITERATIONS
                })
                .collect();
            let contributed = self.nodes.iter().filter(|node| node.waits || node.offers).count();
            let choices = ready.len() + self.mail.len() + contributed;
            if choices == 0 {
                let first = self.nodes.iter().map(|node| node.policy.timeout()).min().filter(|at| *at < Instant::FAR);
                let Some(first) = first else { break };
                self.now = first;
                for node in 0..NODES {
                    self.nodes[node as usize].policy.wake(first);
                    self.settle(node);
                }
                continue;
            }
            let choice = self.random.below(choices as u64) as usize;
            if let Some(&node) = ready.get(choice) {
                let Trainer { model, iteration, .. } = &mut self.nodes[node as usize];
                *iteration += 1;
                model.iter_mut().for_each(|value| *value += self.random.normal());
                let (iteration, summary) = (*iteration, Summary::default());
                self.tell(node, PolicyInput::Stepped { iteration, summary: &summary });
            } else if let Some((&(from, to), queue)) = self.mail.iter_mut().nth(choice - ready.len()) {
                let bytes = queue.pop_front().expect("empty ones are gone");
                if self.random.chance(0.95) {
                    self.tell(to, PolicyInput::Told { from: NodeId(from), bytes: &bytes });
                }
            } else {
                self.conclude();
            }
        }
        self.asked
    }
}

/// Whether policies ask for the same if they are always written down and read back, with what is `kept`.
fn goes_on(make: Make, kept: &Kept) -> Result<(), Broken> {
    Check { shrinking: 0, ..Check::default() }.hold(any::<u64>(), |seed| {
        let [plain, restored] = [None, Some(kept)].map(|kept| Fleet::new(make, seed, kept).run());
        match plain.iter().zip(&restored).find(|(plain, restored)| plain != restored) {
            Some((plain, restored)) => Err(format!("{restored}, not {plain}")),
            None if plain.len() == restored.len() => Ok(()),
            None => Err(format!("{} actions, not {}", restored.len(), plain.len())),
        }
    })
}

const ALL: [(&str, Make); 10] = [
    ("lasgd", lasgd),
    ("streaming", streaming),
    ("naive", naive),
    ("linear", linear),
    ("sketch", sketch),
    ("push", push),
    ("adaptive push", adaptive_push),
    ("choco", choco),
    ("ada", ada),
    ("partial", partial),
];

#[test]
fn policies_that_are_read_back_go_on_as_if_they_had_not_been() {
    for (name, make) in ALL {
        assert_eq!(goes_on(make, &|_| ()), Ok(()), "{name}");
    }
}

#[test]
fn what_is_forgotten_is_noticed() {
    // Words that stand in the same place whatever else there is. The others of the first two are of what is asked for at once,
    // and the number of an exchange is counted anew with every step. Those of gossip are of the public copies: what is known of
    // neighbours stands elsewhere from one exchange to the next. Only AdaGossip needs what it has counted and measured.
    let words: [&[usize]; 10] = [
        &[1, 2, 3, 4],
        &[0, 2, 3],
        &[0, 1, 2, 3, 4, 5, 6, 7],
        &[0, 1, 2, 3, 4, 5, 6, 7],
        &[0, 1, 2, 3, 4, 5, 6, 7],
        &[0, 2, 3, 4, 5, 6, 7],
        &[0, 2, 3, 4, 5, 6, 7],
        &[0, 1, 2, 3, 4, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19],
        &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19],
        &[0, 1, 2, 3, 4, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19],
    ];
    for ((name, make), places) in ALL.into_iter().zip(words) {
        for &place in places {
            let forgets = move |words: &mut Vec<u64>| words[place] = 0;
            assert!(goes_on(make, &forgets).is_err(), "{name}: word {place}");
        }
        let loses_one = |words: &mut Vec<u64>| words.truncate(words.len() - 1);
        assert!(goes_on(make, &loses_one).is_err(), "{name}: the last word");
    }
}
