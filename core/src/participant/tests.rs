//! Participants that train a handful of numbers, in virtual time.

mod absent;
mod layers;
mod overlap;

use super::*;
use crate::cluster::{Budget, Incarnation, Occurrence, Record, RunId};
use crate::error::ErrorKind;
use crate::outer::OuterOptimiser;
use crate::policy::{
    Confidence, Drifts, Dynamic, DynamicOptions, Gauge, Local, Periodic, PolicyAction, Rejoin, Request, Threshold,
};
use crate::process::{Task, Work};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// Adds its rate to its value in every step.
#[derive(Debug)]
struct Counter {
    value: f64,
    rate: f64,
    iteration: u64,
    fails_at: Option<u64>,
    healed: u32,
}

impl Training<f64> for Counter {
    fn iteration(&self) -> u64 {
        self.iteration
    }

    fn step(&mut self) -> Result<Summary, TrainingError> {
        if self.fails_at == Some(self.iteration) {
            let reason = String::from("the device is gone");
            return Err(TrainingError { kind: ErrorKind::DeviceLost, reason });
        }
        self.iteration += 1;
        self.value += self.rate;
        Ok(Summary { samples: 10, loss: 1.0, missing: 0 })
    }

    fn contribute(&mut self, request: &Request, contribution: &mut Contribution<f64>) {
        contribution.segment("weights", 3, request.weight).fill(self.value);
    }

    fn adopt(&mut self, average: &Contribution<f64>, healed: bool) {
        self.value = average.segments()[0].values[0];
        if healed {
            self.healed += 1;
            self.iteration = average.iteration;
        }
    }
}

struct World<T: Training<f64> = Counter> {
    now: Instant,
    members: Vec<Participant<T, f64>>,
    steps: BTreeMap<usize, (Instant, Step<T>)>,
    frames: VecDeque<(Instant, usize, NodeId, Vec<u8>)>,
    records: Vec<Record>,
    /// Frames from and to this member are lost.
    offline: Option<usize>,
    /// When the last step ended.
    stepped: Instant,
}

const STEP: Duration = Duration::from_millis(10);
const LATENCY: Duration = Duration::from_millis(1);

impl World {
    fn new(size: u32, iterations: u64, policy: impl Fn() -> Box<dyn AveragingPolicy>) -> Self {
        let counter = |node| Counter { value: 0.0, rate: f64::from(node), iteration: 0, fails_at: None, healed: 0 };
        Self::with(size, iterations, policy, counter)
    }
}

impl<T: Training<f64> + 'static> World<T> {
    fn with(
        size: u32,
        iterations: u64,
        policy: impl Fn() -> Box<dyn AveragingPolicy>,
        make: impl Fn(u32) -> T,
    ) -> Self {
        let member = |node: u32| {
            let peers = (0..size).map(NodeId).collect();
            let settings = Settings::new(RunId(1), NodeId(node), Incarnation(1), peers, Budget::default());
            let training = make(node);
            let schedule = Schedule { iterations, step: STEP };
            Participant::new(settings, Instant::ORIGIN, training, policy(), schedule)
        };
        Self {
            now: Instant::ORIGIN,
            members: (0..size).map(member).collect(),
            steps: BTreeMap::new(),
            frames: VecDeque::new(),
            records: Vec::new(),
            offline: None,
            stepped: Instant::ORIGIN,
        }
    }

    /// Lets time pass until all are over or `end`.
    fn run(&mut self, end: Duration) {
        let end = Instant::ORIGIN + end;
        loop {
            for index in 0..self.members.len() {
                self.after(index);
            }
            if self.members.iter().all(Participant::is_over) {
                return;
            }
            let frame = self.frames.front().map_or(Instant::FAR, |frame| frame.0);
            let step = self.steps.values().map(|step| step.0).min().unwrap_or(Instant::FAR);
            let timer = self.members.iter().map(Process::timeout).min().unwrap();
            self.now = self.now.max(frame.min(step).min(timer));
            if self.now > end {
                return;
            }
            if frame <= self.now {
                let (_, from, to, bytes) = self.frames.pop_front().unwrap();
                let event = Event::Frame { from: NodeId(from as u32), bytes: &bytes };
                self.members[to.0 as usize].handle(self.now, event);
                continue;
            }
            for index in 0..self.members.len() {
                if self.steps.get(&index).is_some_and(|step| step.0 <= self.now) {
                    let (_, mut step) = self.steps.remove(&index).unwrap();
                    step.perform();
                    self.stepped = self.now;
                    self.members[index].complete(self.now, step);
                }
                self.members[index].wake(self.now);
            }
        }
    }

    fn after(&mut self, index: usize) {
        let member = &mut self.members[index];
        while let Some((to, len)) = member.poll(self.now, 1400) {
            let mut bytes = vec![0; len];
            member.fill(&mut bytes);
            if self.offline.is_none_or(|offline| offline != index && offline != to.0 as usize) {
                self.frames.push_back((self.now + LATENCY, index, to, bytes));
            }
        }
        if !self.steps.contains_key(&index)
            && let Some((span, step)) = member.begin()
        {
            self.steps.insert(index, (self.now + span, step));
        }
        while let Some(record) = member.node_mut().poll_record() {
            self.records.push(record);
        }
    }

    fn commits(&self, node: u32) -> usize {
        self.records
            .iter()
            .filter(|record| record.node == NodeId(node))
            .filter(|record| matches!(record.what, Occurrence::Committed { .. }))
            .count()
    }
}

#[test]
fn periodic_averages_at_every_interval_until_all_are_over() {
    let mut world = World::new(3, 20, || Box::new(Periodic::new(5)));
    world.run(Duration::from_secs(2));
    for (node, member) in world.members.iter().enumerate() {
        assert!(member.is_over() && member.is_finished() && member.failure().is_none());
        assert_eq!((member.iteration(), world.commits(node as u32)), (20, 4));
        // The mean rate is 1, and the last iteration is an averaging point.
        assert_eq!(member.training().unwrap().value, 20.0);
        assert_eq!(member.node().samples(), (200, (200, 200)));
    }
}

#[test]
fn local_never_averages() {
    let mut world = World::new(2, 10, || Box::new(Local));
    world.run(Duration::from_secs(2));
    for member in &world.members {
        assert!(member.is_over());
        assert_eq!(member.training().unwrap().value, 10.0 * member.training().unwrap().rate);
        assert_eq!(member.node().samples(), (100, (0, 100)));
    }
    assert!(world.records.iter().all(|r| !matches!(r.what, Occurrence::Ready { .. })));
}

#[test]
fn an_offline_node_trains_on_and_comes_back() {
    let mut world = World::new(3, 400, || Box::new(Periodic::new(5)));
    world.run(Duration::from_millis(300));
    let before = world.commits(2);
    world.offline = Some(2);
    world.run(Duration::from_millis(2300));
    let (iterations, commits) = (world.members[2].iteration(), world.commits(2));
    assert!(iterations > 100, "it stopped training at {iterations}");
    assert!(commits <= before + 1);
    assert!(world.commits(0) > commits + 10, "the others did not go on");
    world.offline = None;
    world.run(Duration::from_secs(20));
    assert!(world.commits(2) > commits + 10, "it did not come back");
    assert!(world.members.iter().all(Participant::is_over));
    let abandoned = world
        .records
        .iter()
        .filter(|record| record.node != NodeId(2) && matches!(record.what, Occurrence::Abandoned { .. }));
    assert!(abandoned.count() <= 1);
}

#[test]
fn a_node_that_has_to_heal_adopts_the_state_of_the_others() {
    let policy = || {
        let mut policy = Periodic::new(5);
        policy.rejoin = Rejoin::HealFirst;
        Box::new(policy) as Box<dyn AveragingPolicy>
    };
    let mut world = World::new(3, 200, policy);
    world.run(Duration::from_millis(300));
    world.offline = Some(2);
    world.run(Duration::from_millis(1500));
    world.offline = None;
    world.run(Duration::from_secs(20));
    let training = world.members[2].training().unwrap();
    assert_eq!(training.healed, 1);
    let values: Vec<f64> = world.members.iter().map(|m| m.training().unwrap().value).collect();
    assert!(values.iter().all(|&value| value == values[0]), "{values:?}");
}

#[test]
fn a_failed_step_makes_its_node_leave() {
    let mut world = World::new(3, 20, || Box::new(Periodic::new(5)));
    let (_, mut step) = world.members[1].begin().unwrap();
    step.training.fails_at = Some(7);
    world.steps.insert(1, (Instant::ORIGIN + STEP, step));
    world.run(Duration::from_secs(3));
    assert_eq!(world.members[1].failure().unwrap().kind, ErrorKind::DeviceLost);
    assert!(world.members.iter().all(Participant::is_over));
    assert_eq!([world.commits(0), world.commits(1), world.commits(2)], [4, 1, 4]);
}

fn dynamic(gauge: Gauge, threshold: f64) -> Box<dyn AveragingPolicy> {
    Box::new(Dynamic::new(DynamicOptions::new(gauge, Threshold::Fixed(threshold))))
}

/// The iterations before which a node has committed, by its members' certificates.
fn committed(world: &World, node: u32) -> Vec<u64> {
    let of = |record: &Record| match &record.what {
        Occurrence::Committed { certificate, .. } if record.node == NodeId(node) => {
            certificate.member(NodeId(node)).map(|member| member.iteration)
        }
        _ => None,
    };
    world.records.iter().filter_map(of).collect()
}

#[test]
fn dynamic_policies_average_when_models_have_drifted_apart() {
    // After t steps, three values of three nodes are 0, t and 2t: Var = 2t², and the mean of ‖u‖² is 5t².
    let mut world = World::new(3, 24, || dynamic(Gauge::Naive, 79.0));
    world.run(Duration::from_secs(2));
    // Before there are peers in view, there is nobody to be apart from.
    assert_eq!(committed(&world, 0), [4, 8, 12, 16, 20, 24]);
    let mut world = World::new(3, 24, || dynamic(Gauge::Linear, 71.0));
    world.run(Duration::from_secs(2));
    // From the second average on, all go the way that the axis points, and the bound is the variance itself.
    let commits = committed(&world, 1);
    let spans: Vec<u64> = commits.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((4..=6).contains(&commits[0]) && commits.len() >= 3 && spans.iter().all(|&span| span == 6), "{commits:?}");
    let gauge = Gauge::Sketch { rows: 5, columns: 250, confidence: Confidence::Usual, drifts: Drifts::Any };
    let mut world = World::new(3, 24, || dynamic(gauge, 79.0));
    world.run(Duration::from_secs(2));
    // Three values hardly ever meet in a sketch, so that it is nearly right.
    assert!((4..=5).contains(&committed(&world, 2).len()), "{:?}", committed(&world, 2));
    for member in &world.members {
        assert!(member.is_over());
    }
}

#[test]
fn a_dynamic_policy_tunes_its_threshold() {
    let policy = || {
        let options = DynamicOptions::new(Gauge::Naive, Threshold::Tuned { most: 10 });
        Box::new(Dynamic::new(options)) as Box<dyn AveragingPolicy>
    };
    let mut world = World::new(3, 40, policy);
    world.run(Duration::from_secs(4));
    let commits = committed(&world, 0);
    // At first after one check; H = 5 then, and Θ = 25 is exceeded after 3 checks by 45; Θ = 75 after 4; Θ = 100 after 5.
    assert_eq!(commits[..4], [1, 4, 8, 13], "{commits:?}");
    assert_eq!([0, 1, 2].map(|node| committed(&world, node)), [commits.clone(), commits.clone(), commits]);
}

#[test]
fn a_lost_node_holds_up_no_check_and_comes_back() {
    let mut world = World::new(3, 400, || dynamic(Gauge::Linear, 300.0));
    world.run(Duration::from_millis(300));
    let before = world.members[0].iteration();
    world.offline = Some(2);
    world.run(Duration::from_millis(2300));
    let (alone, others) = (world.members[2].iteration(), world.members[0].iteration());
    assert!(alone > before + 100, "who was lost stopped training at {alone}");
    assert!(others > before + 100, "the others stopped training at {others}");
    assert!(world.commits(0) > world.commits(2), "the others did not go on averaging");
    world.offline = None;
    let commits = world.commits(2);
    world.run(Duration::from_secs(20));
    assert!(world.commits(2) > commits, "it did not come back");
    assert!(world.members.iter().all(Participant::is_over));
}

#[test]
fn whoever_checks_for_the_first_time_when_all_others_have_finished_is_healed() {
    let mut world = World::new(3, 100, || dynamic(Gauge::Naive, 79.0));
    world.members[2].schedule.step = 4 * STEP;
    world.offline = Some(2);
    world.run(Duration::from_secs(2));
    assert!(world.members[..2].iter().all(Participant::is_finished) && !world.members[2].is_finished());
    world.offline = None;
    world.run(Duration::from_secs(20));
    assert_eq!(world.members[2].training().unwrap().healed, 1);
    assert!(world.members.iter().all(Participant::is_over));
}

/// Looks at the model after every step, and counts how often it sees one.
#[derive(Debug, Default)]
struct Watcher {
    due: bool,
    seen: u64,
}

impl AveragingPolicy for Watcher {
    fn name(&self) -> &'static str {
        "watcher"
    }

    fn handle(&mut self, _: Instant, input: PolicyInput<'_>) {
        match input {
            PolicyInput::Stepped { .. } => self.due = true,
            PolicyInput::Observed { .. } => self.seen += 1,
            _ => {}
        }
    }

    fn poll(&mut self) -> Option<PolicyAction> {
        core::mem::take(&mut self.due).then_some(PolicyAction::Observe)
    }

    fn save(&self) -> Vec<u64> {
        vec![self.seen]
    }
}

/// Its model cannot be read in the first so many steps.
#[derive(Debug)]
struct Blind(u64, Counter);

impl Training<f64> for Blind {
    fn iteration(&self) -> u64 {
        self.1.iteration
    }

    fn step(&mut self) -> Result<Summary, TrainingError> {
        self.1.step()
    }

    fn contribute(&mut self, request: &Request, contribution: &mut Contribution<f64>) {
        let weight = if self.1.iteration > self.0 { request.weight } else { 0.0 };
        self.1.contribute(&Request { weight, ..*request }, contribution);
    }

    fn adopt(&mut self, average: &Contribution<f64>, healed: bool) {
        if average.segments()[0].weight > 0.0 {
            self.1.adopt(average, healed);
        }
    }
}

#[test]
fn a_model_that_cannot_be_read_is_shown_to_no_policy() {
    let counter = Counter { value: 0.0, rate: 1.0, iteration: 0, fails_at: None, healed: 0 };
    let make = |_| Blind(4, Counter { ..counter });
    let mut world = World::with(1, 11, || Box::new(Watcher::default()), make);
    world.run(Duration::from_secs(2));
    assert!(world.members[0].is_finished());
    assert_eq!(world.members[0].policy().save(), [7]);
}

/// Puts a value in the place of the model after the third step.
#[derive(Debug, Default)]
struct Replacer {
    due: bool,
}

impl AveragingPolicy for Replacer {
    fn name(&self) -> &'static str {
        "replacer"
    }

    fn handle(&mut self, _: Instant, input: PolicyInput<'_>) {
        self.due |= matches!(input, PolicyInput::Stepped { iteration: 3, .. });
    }

    fn poll(&mut self) -> Option<PolicyAction> {
        core::mem::take(&mut self.due).then(|| PolicyAction::Adopt(vec![100.0; 3]))
    }
}

#[test]
fn a_model_that_cannot_be_read_can_be_replaced() {
    let counter = Counter { value: 0.0, rate: 1.0, iteration: 0, fails_at: None, healed: 0 };
    let make = |_| Blind(4, Counter { ..counter });
    let mut world = World::with(1, 11, || Box::new(Replacer::default()), make);
    world.run(Duration::from_secs(2));
    assert_eq!(world.members[0].training().expect("it is finished").1.value, 108.0);
}

/// A fleet of three that averages every 5 iterations, with this outer optimiser.
fn stepping(outer: Option<OuterOptimiser>, rejoin: Rejoin) -> impl Fn() -> Box<dyn AveragingPolicy> {
    move || {
        let mut policy = Periodic::new(5);
        (policy.outer, policy.rejoin) = (outer, rejoin);
        Box::new(policy)
    }
}

#[test]
fn an_outer_optimiser_makes_a_step_of_every_average() {
    for outer in [OuterOptimiser::FEDAVGM, OuterOptimiser::DILOCO, OuterOptimiser::FEDADAM] {
        let mut world = World::new(3, 20, stepping(Some(outer), Rejoin::FullWeight));
        world.run(Duration::from_secs(2));
        // Values go up by 1 in the mean, so that each average is 5 above the model of the last one.
        let (mut w, mut m, mut v) = (0.0, 0.0, 0.0_f64);
        for _ in 0..4 {
            let way = -5.0;
            match outer {
                OuterOptimiser::Momentum { rate, momentum, nesterov } => {
                    m = momentum * m + way;
                    w -= rate * if nesterov { way + momentum * m } else { m };
                }
                OuterOptimiser::Adam { rate, momentum, decay, adaptivity } => {
                    m = momentum * m - (1.0 - momentum) * way;
                    v = decay * v + (1.0 - decay) * way * way;
                    w += rate * m / (libm::sqrt(v) + adaptivity);
                }
            }
        }
        for member in &world.members {
            assert!(member.is_over());
            let value = member.training().unwrap().value;
            assert!((value - w).abs() < 1e-12, "{value} instead of {w} with {outer:?}");
            assert_eq!(member.outer(), world.members[0].outer());
        }
    }
}

#[test]
fn what_outer_optimisers_keep_comes_with_an_average_to_whoever_was_away() {
    for outer in [OuterOptimiser::DILOCO, OuterOptimiser::FEDADAM] {
        let mut world = World::new(3, 200, stepping(Some(outer), Rejoin::HealFirst));
        world.run(Duration::from_millis(300));
        world.offline = Some(2);
        world.run(Duration::from_millis(1500));
        assert_ne!(world.members[2].outer(), world.members[0].outer());
        world.offline = None;
        world.run(Duration::from_secs(20));
        let values: Vec<f64> = world.members.iter().map(|m| m.training().unwrap().value).collect();
        assert!(values.iter().all(|&value| value == values[0]), "{values:?}");
        for member in &world.members {
            assert!(member.is_over() && member.outer() == world.members[0].outer());
        }
    }
}
