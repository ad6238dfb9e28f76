//! Gossip as policies carry it: the same as gossip without time and loss, and what becomes of it with both.

use crate::gossip::{Fleet, compressor, topologies};
use kronfleet_conformance::check::Check;
use kronfleet_core::cluster::Incarnation;
use kronfleet_core::gossip::{AdaGossip, Mixing, Rule, Topology, Unit};
use kronfleet_core::participant::Summary;
use kronfleet_core::policy::{AveragingPolicy, Gossip, GossipOptions, PolicyAction, PolicyInput};
use kronfleet_core::scalar::Values;
use kronfleet_core::seed::{Random, Seed};
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

const PATIENCE: Duration = Duration::from_millis(10);

/// One node.
pub(crate) struct Member {
    pub(crate) policy: Gossip<f64>,
    pub(crate) model: Vec<f64>,
    pub(crate) iteration: u64,
    starts: u64,
    /// What was last observed.
    old: Vec<f64>,
    pub(crate) paused: bool,
    away: bool,
}

/// Nodes whose policies talk, in an order drawn at random.
pub(crate) struct Hall {
    topology: Topology,
    rule: Rule,
    which: usize,
    pub(crate) members: Vec<Member>,
    /// What is on its way, in order from each to each.
    pub(crate) mail: BTreeMap<(usize, usize), VecDeque<Vec<u8>>>,
    random: Random,
    pub(crate) now: Instant,
    /// Iterations from one exchange to the next.
    pub(crate) interval: u64,
    /// What a node learns with an iteration; nothing if there is none.
    pub(crate) learn: Option<Learn>,
    /// Exchanges have the model of the exchange before.
    pub(crate) is_old: bool,
    /// No message says which of its receiver's goes with it.
    pub(crate) is_mute: bool,
    /// Whoever is away takes the others for there.
    pub(crate) is_blind: bool,
    /// Requests for whole copies.
    asked: usize,
    /// One message is to arrive with a wrong bit.
    pub(crate) flip: bool,
    /// So many of the next requests are lost.
    pub(crate) deaf: usize,
    /// From whom to whom nothing arrives, though it is under way.
    pub(crate) stuck: Option<(usize, usize)>,
    /// From whom to whom the next message that adds to a copy is lost.
    pub(crate) lost: Option<(usize, usize)>,
    /// Whoever is read back has forgotten what its compressor has kept.
    forgets: bool,
    /// Who has made so many iterations has finished, and takes part no more.
    ends: u64,
    /// How nodes have moved, if anybody wants to know.
    pub(crate) moves: Option<Vec<Move>>,
}

/// What a node had of itself and of a neighbour when an exchange of it ended.
pub(crate) struct Move {
    pub(crate) node: u32,
    pub(crate) neighbour: u32,
    pub(crate) iteration: u64,
    pub(crate) at: Instant,
    pub(crate) own: Vec<f64>,
    /// `None` if it had no copy.
    pub(crate) other: Option<Vec<f64>>,
}

/// What a node, by its number, learns with an iteration, by its number.
pub(crate) type Learn = Box<dyn Fn(usize, u64) -> Vec<f64>>;

impl Hall {
    pub(crate) fn new(topology: &Topology, rule: Rule, which: usize, models: &[Vec<f64>], seed: u64) -> Self {
        let mut hall = Self {
            topology: topology.clone(),
            rule,
            which,
            members: vec![],
            mail: BTreeMap::new(),
            random: Seed(seed).random(),
            now: Instant::ORIGIN,
            interval: 1,
            learn: None,
            is_old: false,
            is_mute: false,
            is_blind: false,
            asked: 0,
            flip: false,
            deaf: 0,
            stuck: None,
            lost: None,
            forgets: false,
            ends: u64::MAX,
            moves: None,
        };
        for (node, model) in models.iter().enumerate() {
            let (policy, model) = (hall.policy(node), model.clone());
            hall.members.push(Member {
                policy,
                model,
                iteration: 0,
                starts: 0,
                old: vec![],
                paused: false,
                away: false,
            });
        }
        (0..models.len()).for_each(|node| hall.begin(node));
        hall
    }

    /// A node begins, or begins anew with the model that it has.
    pub(crate) fn begin(&mut self, node: usize) {
        self.members[node].policy = self.policy(node);
        self.members[node].paused = false;
        self.members[node].starts += 1;
        let incarnation = Incarnation(self.members[node].starts);
        self.tell(node, PolicyInput::Began { iterations: u64::MAX, incarnation });
    }

    fn policy(&self, node: usize) -> Gossip<f64> {
        let row = Mixing::metropolis(&self.topology).row(NodeId(node as u32)).clone();
        let options =
            GossipOptions { patience: PATIENCE, interval: self.interval, ..GossipOptions::new(row, self.rule) };
        Gossip::new(options, compressor(self.which))
    }

    /// Who can be reached by a node.
    fn peers(&self, node: usize) -> Vec<NodeId> {
        let there = |&other: &usize| {
            let [here, there] = [&self.members[node], &self.members[other]];
            let is_blind = self.is_blind && here.away;
            other != node && (is_blind || !here.away && !there.away) && (there.iteration < self.ends || there.paused)
        };
        (0..self.members.len()).filter(there).map(|other| NodeId(other as u32)).collect()
    }

    fn tell(&mut self, node: usize, input: PolicyInput<'_>) {
        self.members[node].policy.handle(self.now, input);
        while let Some(action) = self.members[node].policy.poll() {
            match action {
                PolicyAction::Observe => {
                    let (model, peers) = (self.members[node].model.clone(), self.peers(node));
                    let old = std::mem::replace(&mut self.members[node].old, model.clone());
                    let model = if self.is_old { old } else { model };
                    let input = PolicyInput::Observed { parameters: Values::Double(&model), peers: &peers };
                    self.members[node].policy.handle(self.now, input);
                }
                PolicyAction::Tell { to, mut bytes } => {
                    assert!(bytes.len() <= 60 << 10, "a note of {} bytes", bytes.len());
                    self.asked += usize::from(bytes.len() == 1);
                    if bytes.len() == 1 && self.deaf > 0 {
                        self.deaf -= 1;
                        continue;
                    }
                    if self.is_mute && bytes.len() > 1 {
                        // Behind the head of a note.
                        bytes[25..33].fill(0);
                    }
                    let to = to.0 as usize;
                    let is_lost = self.members[node].away
                        || self.members[to].away
                        || self.lost.take_if(|way| *way == (node, to) && bytes[0] == 0x11).is_some();
                    if !is_lost && self.peers(node).contains(&NodeId(to as u32)) {
                        self.mail.entry((node, to)).or_default().push_back(bytes);
                    }
                }
                PolicyAction::Pause => self.members[node].paused = true,
                PolicyAction::Proceed => {
                    self.members[node].paused = false;
                    self.note_down(node);
                }
                PolicyAction::Adopt(model) => self.members[node].model = model,
                other => panic!("gossip does not {other:?}"),
            }
        }
    }

    fn note_down(&mut self, node: usize) {
        let Some(moves) = &mut self.moves else { return };
        let Member { policy, iteration, .. } = &self.members[node];
        moves.extend(self.topology.neighbours(node as u32).map(|neighbour| Move {
            node: node as u32,
            neighbour,
            iteration: *iteration,
            at: self.now,
            own: policy.own().to_vec(),
            other: policy.other(NodeId(neighbour)).map(<[f64]>::to_vec),
        }));
    }

    /// Goes away or comes back, and everybody who waits hears of it; what was on its way is lost.
    pub(crate) fn toggle(&mut self, node: usize) {
        self.members[node].away ^= true;
        self.mail.retain(|&(from, to), _| from != node && to != node);
        for other in 0..self.members.len() {
            if self.members[other].paused {
                let peers = self.peers(other);
                self.tell(other, PolicyInput::Peers(&peers));
            }
        }
    }

    /// Something happens that can: a message arrives or a node makes a step, of at most so many.
    pub(crate) fn happen(&mut self, iterations: u64) -> bool {
        self.mail.retain(|_, queue| !queue.is_empty());
        // Steps take time: who waits for nobody is not ahead for ever.
        let slowest = self.members.iter().map(|member| member.iteration).min().unwrap_or(0);
        let most = iterations.min(slowest + 8);
        let able = |member: &Member| !member.paused && member.iteration < most;
        let ready: Vec<usize> = (0..self.members.len()).filter(|&node| able(&self.members[node])).collect();
        let arrives = |way: &(usize, usize)| Some(*way) != self.stuck;
        let choices = ready.len() + self.mail.keys().filter(|way| arrives(way)).count();
        if choices == 0 {
            return false;
        }
        let choice = self.random.below(choices as u64) as usize;
        if let Some(&node) = ready.get(choice) {
            self.step(node);
        } else {
            let mut under_way = self.mail.iter_mut().filter(|(way, _)| arrives(way));
            let (&(from, to), queue) = under_way.nth(choice - ready.len()).expect("counted above");
            let mut bytes = queue.pop_front().expect("empty ones are gone");
            if self.flip && bytes.len() > 30 {
                self.flip = false;
                *bytes.last_mut().expect("it is longer") ^= 0x10;
            }
            self.tell(to, PolicyInput::Told { from: NodeId(from as u32), bytes: &bytes });
        }
        true
    }

    /// A node makes an iteration.
    pub(crate) fn step(&mut self, node: usize) {
        self.members[node].iteration += 1;
        let (iteration, summary) = (self.members[node].iteration, Summary::default());
        if let Some(learn) = &self.learn {
            let learned = learn(node, iteration);
            self.members[node].model.iter_mut().zip(learned).for_each(|(x, learned)| *x += learned);
        }
        self.tell(node, PolicyInput::Stepped { iteration, summary: &summary });
    }

    /// Until all have made so many iterations.
    pub(crate) fn run(&mut self, iterations: u64) {
        while self.members.iter().any(|member| member.iteration < iterations || member.paused) {
            if !self.happen(iterations) {
                // Only deadlines are left.
                assert!(self.pass(), "somebody waits for nothing");
            }
        }
    }

    /// The next deadline passes; whether there is one.
    pub(crate) fn pass(&mut self) -> bool {
        let timeout = |member: &Member| member.policy.timeout();
        let first = self.members.iter().map(timeout).min().expect("somebody");
        if first == Instant::FAR {
            return false;
        }
        self.now = first;
        for node in 0..self.members.len() {
            self.members[node].policy.wake(first);
            self.tell_nothing(node);
        }
        true
    }

    /// Takes the actions that a wake has led to.
    fn tell_nothing(&mut self, node: usize) {
        // Notes of other policies are none of its business.
        self.tell(node, PolicyInput::Told { from: NodeId(u32::MAX), bytes: &[] });
    }

    pub(crate) fn models(&self) -> Vec<Vec<f64>> {
        self.members.iter().map(|member| member.model.clone()).collect()
    }

    /// A node with another's model is written down and read back.
    pub(crate) fn restore(&mut self, node: usize) {
        let mut saved = self.members[node].policy.save();
        if self.forgets {
            // Behind a flag and two vectors with their lengths: what its compressor keeps, or after that and a length what it
            // has told.
            let len = self.members[node].model.len();
            let place =
                if matches!(self.rule, Rule::Partial { .. }) { 1 + (1 + len) + 1 + 2 + 1 } else { 1 + 2 * (1 + len) };
            saved[place..place + 2].fill(0);
        }
        let mut policy = self.policy(node);
        policy.restore(&saved);
        assert_eq!(policy.save(), saved);
        self.members[node].policy = policy;
    }
}

/// A part of the step that is nobody's choice.
const fn measured(step: f64) -> Rule {
    Rule::Ada(AdaGossip { decay: 0.999, epsilon: 1e-8, step, cap: 1.0, correction: true, unit: Unit::Measured })
}

const MEASURED: Rule = measured(1.0);

pub(crate) fn rules() -> impl Strategy<Value = Rule> {
    prop_oneof![
        (0.05..0.4).prop_map(|step| Rule::Choco { step }),
        (0.01..0.2).prop_map(|step| Rule::Ada(AdaGossip { step, cap: 0.3, ..AdaGossip::default() })),
        Just(MEASURED),
        (0.3..=1.0).prop_map(|step| Rule::Partial { step }),
    ]
}

/// Those that agree within some hundred exchanges.
fn agreeing() -> impl Strategy<Value = Rule> {
    let ada = |step, unit| Rule::Ada(AdaGossip { step, cap: 0.3, unit, ..AdaGossip::default() });
    prop_oneof![
        Just(Rule::Choco { step: 0.3 }),
        (0.1..0.4).prop_map(move |step| ada(step, Unit::Parameter)),
        (0.2..0.4).prop_map(move |step| ada(step, Unit::Error)),
        // All of it is too much for two nodes.
        Just(measured(0.5)),
        (0.5..=1.0).prop_map(|step| Rule::Partial { step }),
    ]
}

/// Those that draw nothing at random.
fn compressors() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0_usize), Just(1), Just(3), Just(4)]
}

type InLockstep = (Topology, Rule, usize, u64, bool);

/// Whether models move as in lockstep, in whatever order messages come; with `forgets`, who is read back has forgotten something.
fn moves_in_lockstep((topology, rule, which, seed, restores): InLockstep, forgets: bool) -> Result<(), String> {
    let mut fleet = Fleet::new(rule, &Mixing::metropolis(&topology), which, seed).beginning(rule);
    let mut hall = Hall::new(&topology, rule, which, &fleet.models, seed);
    (hall.ends, hall.forgets) = (6, forgets);
    for iteration in 1..=6 {
        fleet.gossip();
        while hall.members.iter().any(|member| member.iteration < iteration || member.paused) {
            assert!(hall.happen(6), "somebody waits for what is not on its way");
            if restores {
                let node = hall.random.below(hall.members.len() as u64) as usize;
                // Before its first exchange there is nothing to forget.
                if !forgets || !hall.members[node].policy.own().is_empty() {
                    hall.restore(node);
                }
            }
        }
    }
    hall.run(6);
    if hall.asked > 0 {
        return Err(format!("{} requests for a copy that nothing was missing of", hall.asked));
    }
    let alike = fleet.models == hall.models();
    if alike { Ok(()) } else { Err(format!("{:?} instead of {:?}", hall.models(), fleet.models)) }
}

#[test]
fn in_whatever_order_messages_come_models_move_as_in_lockstep() {
    let cases = (topologies(), rules(), compressors(), any::<u64>(), any::<bool>());
    assert_eq!(Check::default().hold(cases, |case| moves_in_lockstep(case, false)), Ok(()));
    let partial = (0.3..=1.0).prop_map(|step| Rule::Partial { step });
    let cases = (topologies(), partial, compressors(), any::<u64>(), Just(true));
    assert!(Check::default().hold(cases, |case| moves_in_lockstep(case, true)).is_err(), "what was told is forgotten");
}

#[test]
fn a_contraction_that_is_forgotten_is_noticed() {
    let course = |forgets: bool| {
        let topology = Topology::ring(6);
        let fleet = Fleet::new(MEASURED, &Mixing::metropolis(&topology), 1, 8);
        let mut hall = Hall::new(&topology, MEASURED, 1, &fleet.models, 8);
        hall.forgets = forgets;
        hall.ends = 9;
        for iteration in 1..=9 {
            hall.run(iteration);
            (0..6).for_each(|node| hall.restore(node));
        }
        let mut fleet = fleet;
        (0..9).for_each(|_| fleet.gossip());
        fleet.models == hall.models()
    };
    assert!(course(false) && !course(true));
}

#[test]
fn who_was_away_or_began_anew_agrees_with_the_others_in_the_end() {
    let graphs = prop_oneof![(3_u32..9).prop_map(Topology::ring), (2_u32..7).prop_map(Topology::complete)];
    let law = |(topology, rule, which, seed, changes): (Topology, Rule, usize, u64, usize)| {
        let fleet = Fleet::new(rule, &Mixing::metropolis(&topology), which, seed);
        let mut hall = Hall::new(&topology, rule, which, &fleet.models, seed);
        for _ in 0..changes {
            let (node, events) = (hall.random.below(hall.members.len() as u64) as usize, hall.random.below(60));
            if hall.random.chance(0.4) {
                // Nobody notices.
                hall.mail.retain(|&(from, to), _| from != node && to != node);
                hall.begin(node);
            } else {
                hall.toggle(node);
            }
            for _ in 0..events {
                hall.happen(30);
            }
        }
        for node in 0..hall.members.len() {
            if hall.members[node].away {
                hall.toggle(node);
            }
        }
        // Whoever is behind makes its iterations, too; then all have some together.
        hall.run(30);
        let before = disagreement(&hall.models());
        hall.run(430);
        let after = disagreement(&hall.models());
        if after <= 1e-2 * before + 1e-20 { Ok(()) } else { Err(format!("apart by {before}, then by {after}")) }
    };
    // Those whose error is a part of what is to be said, so that agreement has no floor.
    let cases = (graphs, agreeing(), prop_oneof![Just(0_usize), Just(1), Just(4)], any::<u64>(), 0_usize..8);
    assert_eq!(Check::default().hold(cases, law), Ok(()));
}

/// The largest difference of two models in any place.
pub(crate) fn disagreement(models: &[Vec<f64>]) -> f64 {
    let range = |place: usize| {
        let values = || models.iter().map(|model| model[place]);
        values().fold(f64::MIN, f64::max) - values().fold(f64::MAX, f64::min)
    };
    (0..models[0].len()).map(range).fold(0.0, f64::max)
}

#[test]
fn a_message_that_was_changed_on_its_way_is_noticed_and_made_good() {
    let topology = Topology::ring(5);
    let rule = Rule::Choco { step: 1.0 };
    let fleet = Fleet::new(rule, &Mixing::metropolis(&topology), 0, 3);
    // However many requests are lost, though those who are not heard go on speaking.
    for (flip, lost) in [(false, 0), (true, 0), (true, 1), (true, 2), (true, 4)] {
        let mut hall = Hall::new(&topology, rule, 0, &fleet.models, 3);
        hall.run(4);
        let asked = hall.asked;
        (hall.flip, hall.deaf) = (flip, lost);
        hall.run(200);
        let least = usize::from(flip) + lost;
        // Who goes without a copy for long makes others miss something, too: not as often as requests are lost.
        assert!((least..=least + lost).contains(&(hall.asked - asked)), "{} requests", hall.asked - asked);
        assert!(disagreement(&hall.models()) < 1e-9);
        for node in 0..5_u32 {
            for neighbour in topology.neighbours(node) {
                let copy = hall.members[neighbour as usize].policy.other(NodeId(node));
                assert_eq!(copy, Some(hall.members[node as usize].policy.own()), "{node}, kept by {neighbour}");
            }
        }
    }
}

#[test]
fn a_request_that_is_never_heard_leaves_copies_that_are_missed() {
    // What asking once came to where that one request was lost.
    let topology = Topology::ring(5);
    let rule = Rule::Choco { step: 1.0 };
    let fleet = Fleet::new(rule, &Mixing::metropolis(&topology), 0, 3);
    let mut hall = Hall::new(&topology, rule, 0, &fleet.models, 3);
    hall.run(4);
    (hall.flip, hall.deaf) = (true, usize::MAX);
    let asked = hall.asked;
    hall.run(200);
    let missing = |node: u32| {
        let held = |other| hall.members[node as usize].policy.other(NodeId(other)).is_some();
        topology.neighbours(node).filter(|&other| !held(other)).count()
    };
    let missing = (0..5).map(missing).sum::<usize>();
    assert!(missing >= 1, "a copy has come unasked");
    // From each: the first, and after 4, 8, 16 … 128 messages in vain.
    assert!((5..=7 * missing).contains(&(hall.asked - asked)), "{} requests", hall.asked - asked);
}

#[test]
fn nothing_piles_up_in_front_of_a_link_that_stands_still() {
    let published = Rule::Ada(AdaGossip { step: 0.2, cap: 0.3, ..AdaGossip::default() });
    let rules = [Rule::Choco { step: 0.3 }, published, MEASURED];
    for (which, rule) in [0, 1, 4].into_iter().flat_map(|which| rules.map(|rule| (which, rule))) {
        let topology = Topology::ring(5);
        let fleet = Fleet::new(rule, &Mixing::metropolis(&topology), which, 4);
        let mut hall = Hall::new(&topology, rule, which, &fleet.models, 4);
        hall.run(5);
        hall.stuck = Some((2, 3));
        hall.run(60);
        let under_way = |hall: &Hall| hall.mail.get(&(2, 3)).map_or(0, VecDeque::len);
        let early = under_way(&hall);
        assert!((4..24).contains(&early), "{early} messages after 55 exchanges");
        hall.run(260);
        let late = under_way(&hall);
        assert!(late <= early + 12, "{early} messages after 55 exchanges, {late} after 255");
        hall.stuck = None;
        hall.run(290);
        let before = disagreement(&hall.models());
        hall.run(590);
        let after = disagreement(&hall.models());
        assert!(after <= 1e-2 * before + 1e-12, "apart by {before}, then by {after}");
        // In step again, so that nobody ends long before another.
        (591..620).for_each(|iteration| hall.run(iteration));
        for (node, other) in [(2, 3), (3, 2)] {
            let known = hall.members[node].policy.other(NodeId(other)).is_some();
            assert!(known, "{node} has a copy of {other} again, with compressor {which}");
        }
    }
}

#[test]
fn however_often_a_copy_is_asked_for_it_is_said_once_between_two_exchanges() {
    let law = |(rule, seed, requests, exchanges): (Rule, u64, usize, u64)| {
        let topology = Topology::ring(3);
        let fleet = Fleet::new(rule, &Mixing::metropolis(&topology), 0, seed);
        let mut hall = Hall::new(&topology, rule, 0, &fleet.models, seed);
        for iteration in 1..=exchanges {
            hall.run(iteration);
            let before = hall.members[0].policy.save();
            let mut said = 0;
            for _ in 0..requests {
                hall.members[0].policy.handle(hall.now, PolicyInput::Told { from: NodeId(1), bytes: &[0x13] });
                while let Some(action) = hall.members[0].policy.poll() {
                    said += usize::from(matches!(action, PolicyAction::Tell { to: NodeId(1), .. }));
                }
                // It is remembered by whoever is read back, too.
                hall.restore(0);
            }
            if said > 1 {
                return Err(format!("{said} answers to {requests} requests after exchange {iteration}"));
            }
            hall.members[0].policy.restore(&before);
        }
        Ok(())
    };
    assert_eq!(Check::default().hold((rules(), any::<u64>(), 1_usize..20, 1_u64..6), law), Ok(()));
}

#[test]
fn a_request_that_was_not_answered_at_once_is_answered_with_the_next_exchange() {
    let rule = Rule::Choco { step: 0.3 };
    let topology = Topology::ring(3);
    let fleet = Fleet::new(rule, &Mixing::metropolis(&topology), 0, 6);
    let mut hall = Hall::new(&topology, rule, 0, &fleet.models, 6);
    (1..4).for_each(|iteration| hall.run(iteration));
    let ask = PolicyInput::Told { from: NodeId(1), bytes: &[0x13] };
    for asked in [false, true] {
        // A second one follows what has just been said.
        (0..2).filter(|_| asked).for_each(|_| hall.tell(0, ask));
        hall.mail.clear();
        hall.step(0);
        assert_eq!(hall.mail[&(0, 1)][0][0], if asked { 0x12 } else { 0x11 });
        hall.now += PATIENCE;
        hall.members[0].policy.wake(hall.now);
        hall.tell_nothing(0);
    }
}

#[test]
fn notes_of_others_and_torn_ones_are_survived() {
    let law = |(rule, seed, notes): (Rule, u64, Vec<Note>)| {
        let topology = Topology::ring(3);
        let fleet = Fleet::new(rule, &Mixing::metropolis(&topology), 0, seed);
        let mut hall = Hall::new(&topology, rule, 0, &fleet.models, seed);
        for (kind, sequence, total, offset, digest, content) in notes {
            let mut bytes = vec![kind];
            bytes.extend(sequence.to_le_bytes());
            bytes.extend(digest.to_le_bytes());
            bytes.extend(total.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            bytes.extend(content.iter().flat_map(|value: &f64| value.to_le_bytes()));
            let len = hall.random.below(bytes.len() as u64 + 1) as usize;
            // Half of them whole.
            let part = if hall.random.chance(0.5) { len } else { bytes.len() };
            hall.tell(0, PolicyInput::Told { from: NodeId(1), bytes: &bytes[..part] });
            for _ in 0..5 {
                hall.happen(40);
            }
        }
        hall.run(40);
        // In step, as nodes are whose steps take equally long.
        (41..400).for_each(|iteration| hall.run(iteration));
        let apart = disagreement(&hall.models());
        if apart < 1e-6 { Ok(()) } else { Err(format!("apart by {apart}")) }
    };
    let sequence = prop_oneof![0_u64..5, Just(u64::MAX), any::<u64>()];
    let total = prop_oneof![4 => Just(104_u32), 1 => any::<u32>()];
    let offset = prop_oneof![4 => Just(0_u32), 1 => 0_u32..104];
    // The first of them stands where a message says with which it goes.
    let content = prop_oneof![Just(13_usize), 0_usize..14].prop_flat_map(|len| {
        let value = prop_oneof![9 => -2.0..2.0, 1 => prop_oneof![Just(f64::NAN), Just(f64::MAX), Just(f64::INFINITY)]];
        proptest::collection::vec(value, len)
    });
    let note = (0x11_u8..0x14, sequence, total, offset, any::<u64>(), content);
    assert_eq!(Check::default().hold((agreeing(), any::<u64>(), proptest::collection::vec(note, 0..9)), law), Ok(()));
}

/// Kind, sequence, total, offset, digest and content.
type Note = (u8, u64, u32, u32, u64, Vec<f64>);
