//! Everything at once, and what must hold all the same.

use super::fleet::*;
use crate::cluster::*;
use crate::seed::Seed;
use crate::time::Duration;
use crate::transport::NodeId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

const SECOND: Duration = Duration::from_secs(1);

/// What the certificates and records of a run must satisfy.
fn check(fleet: &Fleet, contributions: &BTreeMap<(u32, u64, u64), f32>) {
    let mut by_attempt = BTreeMap::new();
    let mut known = BTreeSet::from([CertificateId::default()]);
    let mut last_round = BTreeMap::new();
    let mut committed = BTreeSet::new();
    for record in &fleet.records {
        let who = (record.node, record.incarnation);
        if let Occurrence::Committed { certificate } = &record.what {
            let id = certificate.id();
            assert_eq!(*by_attempt.entry(certificate.attempt).or_insert(id), id);
            assert!(certificate.member(record.node).is_some());
            assert!(committed.insert((who, id)), "{who:?} committed {id} twice");
            let round = last_round.insert(who, certificate.round);
            assert!(round < Some(certificate.round), "{record}");
            for parent in &certificate.parents {
                assert!(known.contains(&parent.certificate), "{record}");
                assert!(parent.certificate.round < certificate.round);
            }
            known.insert(id);
            let mut sum = 0.0;
            let mut total = 0.0;
            for member in &certificate.members {
                let key = (member.node.0, member.incarnation.0, member.turn);
                sum += member.weights[0] * f64::from(contributions[&key]);
                total += member.weights[0];
            }
            let mut average = Contribution::<f32>::default();
            average.segment("weights", LEN, total).fill((sum / total) as f32);
            assert_eq!(average.digest(), certificate.result, "{record}");
        }
        if let Occurrence::Healed { certificate, .. } = &record.what {
            let round = last_round.insert(who, certificate.round);
            assert!(round <= Some(certificate.round), "{record}");
            // A recovered certificate may be committed without any member that is still there.
            known.insert(certificate.id());
        }
    }
}

const LEN: usize = 700;

/// Nodes that contribute whenever they have an outcome, under faults drawn from `seed`.
struct Chaos {
    fleet: Fleet,
    random: crate::seed::Random,
    contributions: BTreeMap<(u32, u64, u64), f32>,
    turns: BTreeMap<u32, u64>,
    incarnation: u64,
}

impl Chaos {
    fn new(seed: u64, mode: Mode) -> Self {
        let mut random = Seed(seed).derive("chaos", 0).random();
        let size = 2 + random.below(5) as u32 + u32::from(mode == Mode::Strict);
        let faults = Faults {
            drop: random.uniform() * 0.2,
            double: random.uniform() * 0.2,
            latency: Duration::from_micros(100 + random.below(5000)),
            jitter: Duration::from_micros(random.below(20_000)),
        };
        let minimum = 1 + random.below(2) as usize;
        let fleet = {
            let rules = [Rejoin::FullWeight, Rejoin::ByProgress, Rejoin::HealFirst];
            let adapt: fn(&mut Settings) = match mode {
                Mode::Available => |_| {},
                Mode::Strict => |settings| settings.mode = Mode::Strict,
            };
            Fleet::adapted(size, faults, seed, rules[random.below(3) as usize], minimum, adapt)
        };
        let turns = (0..size).map(|node| (node, 0)).collect();
        Self { fleet, random, contributions: BTreeMap::new(), turns, incarnation: 1 }
    }

    fn contribute(&mut self) {
        let nodes: Vec<u32> = self.fleet.nodes.keys().copied().collect();
        for node in nodes {
            let turn = self.turns[&node];
            let outcomes = self.fleet.outcomes.get_mut(&node).unwrap();
            assert!(outcomes.len() <= 1);
            if turn == 0 || outcomes.pop().is_some() {
                let value = self.random.normal() as f32;
                let weight = self.random.below(4) as f64 + 0.5;
                let incarnation = self.fleet.nodes[&node].incarnation().0;
                self.contributions.insert((node, incarnation, turn + 1), value);
                self.turns.insert(node, turn + 1);
                self.fleet.contribute(node, LEN, value, weight);
            }
        }
    }

    fn strike(&mut self) {
        let size = self.turns.len() as u64;
        let node = self.random.below(size) as u32;
        match self.random.below(6) {
            0 => self.fleet.cut.clear(),
            1 => {
                let (one, other): (Vec<u32>, Vec<u32>) = self.turns.keys().partition(|_| self.random.chance(0.5));
                self.fleet.partition(&one, &other);
            }
            2 => {
                self.fleet.cut.insert((node, self.random.below(size) as u32));
            }
            3 => {
                self.fleet.kill(node);
                self.fleet.outcomes.get_mut(&node).unwrap().clear();
            }
            _ if !self.fleet.nodes.contains_key(&node) => {
                self.incarnation += 1;
                self.fleet.start(node, self.incarnation);
                self.turns.insert(node, 0);
            }
            _ => {}
        }
    }

    /// Lets time pass in which nodes contribute `pause` after their last outcome at most.
    fn run(&mut self, span: Duration, pause: Duration) {
        let end = self.fleet.now + span;
        while self.fleet.now < end {
            self.contribute();
            self.fleet.run(pause);
        }
    }

    fn calm(&mut self) {
        self.fleet.cut.clear();
        self.fleet.faults.drop = 0.0;
    }
}

/// What strict mode promises on top: one history, of which a majority has accepted every certificate.
fn check_one_history(fleet: &Fleet) {
    let mut rounds = BTreeMap::new();
    let mut accepted: BTreeMap<CertificateId, BTreeSet<NodeId>> = BTreeMap::new();
    for record in &fleet.records {
        match &record.what {
            Occurrence::Accepted { certificate, .. } => {
                accepted.entry(*certificate).or_default().insert(record.node);
            }
            Occurrence::Committed { certificate } | Occurrence::Healed { certificate, .. } => {
                let id = certificate.id();
                let first = *rounds.entry(id.round).or_insert(id);
                assert_eq!(first, id, "two commits of one round: {record}\n{}", fleet.trace());
                let by = accepted.get(&id).map_or(0, BTreeSet::len);
                assert!(by > fleet.size() / 2, "accepted by {by} of {}: {record}", fleet.size());
                assert!(!certificate.merges(), "{record}");
            }
            _ => {}
        }
    }
}

#[test]
fn strict_mode_has_one_history_whatever_happens() {
    let mut commits = 0;
    for seed in 0..2 * SEEDS {
        let mut chaos = Chaos::new(seed, Mode::Strict);
        for _ in 0..25 {
            let span = Duration::from_millis(20 + chaos.random.below(800));
            let pause = Duration::from_millis(1 + chaos.random.below(60));
            chaos.run(span, pause);
            chaos.strike();
        }
        check(&chaos.fleet, &chaos.contributions);
        check_one_history(&chaos.fleet);
        let recovered = |record: &&Record| matches!(record.what, Occurrence::Recovering { .. });
        commits += chaos.fleet.records.iter().filter(recovered).count();
    }
    assert!(commits > SEEDS as usize, "{commits} recoveries");
}

/// Lets faults come and stop; then every node that lives commits `within` some time, if `enough` of them do.
fn recovers(mode: Mode, within: Duration, enough: fn(&Fleet) -> bool, check_more: fn(&Fleet)) {
    for seed in 0..SEEDS {
        let mut chaos = Chaos::new(seed, mode);
        for _ in 0..10 {
            let span = Duration::from_millis(20 + chaos.random.below(800));
            chaos.run(span, Duration::from_millis(20));
            chaos.strike();
        }
        chaos.calm();
        if !enough(&chaos.fleet) {
            continue;
        }
        let nodes: Vec<u32> = chaos.fleet.nodes.keys().copied().collect();
        let before = chaos.fleet.records.len();
        chaos.run(within, Duration::from_millis(20));
        for node in nodes {
            let commits = chaos.fleet.records[before..].iter().any(|record| {
                record.node == NodeId(node)
                    && matches!(record.what, Occurrence::Committed { .. } | Occurrence::Healed { .. })
            });
            assert!(commits, "seed {seed}: n{node} by {}\n{}", chaos.fleet.now, chaos.fleet.trace());
        }
        check(&chaos.fleet, &chaos.contributions);
        check_more(&chaos.fleet);
    }
}

#[test]
fn once_faults_stop_strict_mode_commits_if_a_majority_lives() {
    let majority = |fleet: &Fleet| fleet.nodes.len() > fleet.size() / 2;
    recovers(Mode::Strict, 4 * SECOND, majority, check_one_history);
}

#[test]
fn once_faults_stop_a_round_commits_within_three_budgets() {
    recovers(Mode::Available, 3 * SECOND, |fleet| fleet.nodes.len() > 1, |_| {});
}

#[test]
fn certificates_state_what_happened() {
    for seed in 0..SEEDS {
        let mut chaos = Chaos::new(seed, Mode::Available);
        for _ in 0..25 {
            let span = Duration::from_millis(20 + chaos.random.below(800));
            let pause = Duration::from_millis(1 + chaos.random.below(60));
            chaos.run(span, pause);
            chaos.strike();
        }
        check(&chaos.fleet, &chaos.contributions);
    }
}

/// Runs of each kind; the simulator's conformance runs have more.
const SEEDS: u64 = 40;
