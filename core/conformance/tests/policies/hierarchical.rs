//! Hierarchical averaging: its formulas, its schedule, and fleets of sites against what they do by definition.

use kronfleet_conformance::check::{Broken, Check};
use kronfleet_core::cluster::{
    Algorithm, Attempt, Certificate, CertificateId, Digest, Incarnation, Member as Contributor, Round,
};
use kronfleet_core::participant::Summary;
use kronfleet_core::policy::{
    AveragingPolicy, Cycle, CycleOptions, Hierarchical, HierarchicalOptions, Merge, PolicyAction, PolicyInput,
};
use kronfleet_core::scalar::Values;
use kronfleet_core::seed::{Random, Seed};
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

const PATIENCE: Duration = Duration::from_millis(10);

/// A merge is what its formula says, if a step under way counts `steps` times.
fn merges_by_the_formula(steps: f64) -> Result<(), Broken> {
    let cases = (1_usize..9, 1_u64..70, 0_u64..5, any::<u64>());
    Check::default().hold(cases, |(len, snapshots, since, seed)| {
        let mut random = Seed(seed).random();
        let mut draw = || (0..len).map(|_| random.normal()).collect::<Vec<f64>>();
        let (model, snapshot) = (draw(), draw());
        let mean: Vec<f32> = draw().iter().map(|&value| value as f32).collect();
        let (s, p) = (since as f64, snapshots as f64);
        for merge in [Merge::Stale, Merge::Progress] {
            let mut merged = model.clone();
            merge.apply(&mut merged, &snapshot, &mean, snapshots, since);
            for place in 0..len {
                let (x, mean) = (model[place], f64::from(mean[place]));
                let expected = match merge {
                    Merge::Stale if since == 0 => (x + p * mean) / (1.0 + p),
                    Merge::Stale => (steps * s * x + p * mean) / (steps * s + p),
                    Merge::Progress => mean + (x - snapshot[place]),
                };
                // A handful of operations on values of a few units.
                if (merged[place] - expected).abs() > 1e-14 {
                    return Err(format!("{merge:?} gives {} instead of {expected}", merged[place]));
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_merge_weighs_what_was_under_way_as_published() {
    assert_eq!(merges_by_the_formula(2.0), Ok(()));
    assert!(merges_by_the_formula(1.0).is_err(), "steps that count once are noticed");
    for (snapshots, published) in [(2, 0.50), (4, 0.33), (8, 0.20), (64, 0.03)] {
        assert!((Merge::Stale.local_weight(snapshots, 1) - published).abs() < 0.005, "of {snapshots}");
    }
}

#[test]
fn models_that_agree_and_have_not_gone_on_stay_as_they_are() {
    let model: Vec<f64> = (0..20).map(|value| f64::from(value as f32 * 0.3)).collect();
    let mean: Vec<f32> = model.iter().map(|&value| value as f32).collect();
    for merge in [Merge::Stale, Merge::Progress] {
        let mut merged = model.clone();
        merge.apply(&mut merged, &model, &mean, 4, 1);
        assert!(merged.iter().zip(&model).all(|(a, b)| (a - b).abs() <= f64::EPSILON * b.abs()), "{merge:?}");
    }
}

#[test]
fn without_progress_exchanges_become_frequent_and_then_rare_again() {
    let options = CycleOptions::new(10);
    let mut cycle = Cycle::new(&options);
    let mut seen = Vec::new();
    // The first loss is the best one; each third one after it changes something.
    for epoch in 0..=12 {
        cycle.conclude(2.0, &options);
        if epoch % 3 == 0 {
            seen.push((cycle.skip, cycle.wait));
        }
    }
    assert_eq!(seen, [(4, 1), (2, 1), (1, 1), (8, 2), (4, 1)]);
    // Progress of 5 % begins the count again, less does not.
    cycle = Cycle::new(&options);
    for loss in [2.0, 1.95, 1.91, 1.85, 1.8, 1.77] {
        cycle.conclude(loss, &options);
    }
    assert_eq!((cycle.skip, cycle.best, cycle.bad), (4, 1.85, 2));
    cycle.conclude(1.76, &options);
    assert_eq!((cycle.skip, cycle.best, cycle.bad), (2, 1.85, 0));
}

#[test]
fn all_average_at_first_at_last_and_after_every_epoch() {
    let options = CycleOptions { warm_up: 2, cool_down: 1, ..CycleOptions::new(5) };
    let blocking = |iterations| (1..=30).filter(|&at| options.blocks(at, iterations)).collect::<Vec<u64>>();
    assert_eq!(blocking(28), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 24, 25, 26, 27, 28, 29, 30]);
    assert_eq!(blocking(u64::MAX), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 25, 30], "nobody knows the end");
}

/// A node whose site makes the same steps.
struct Member {
    policy: Hierarchical,
    model: Vec<f64>,
    iteration: u64,
    paused: bool,
    contributes: bool,
}

/// Sites whose members make the same steps, in an order drawn at random as far as these allow it.
struct Fleet {
    options: HierarchicalOptions,
    iterations: u64,
    members: Vec<Member>,
    mail: BTreeMap<(usize, usize), VecDeque<Vec<u8>>>,
    random: Random,
    now: Instant,
    round: u64,
    /// Whoever does something is put into words and read again.
    interrupted: bool,
    /// From this site nothing arrives elsewhere.
    cut_off: Option<usize>,
}

/// What a step of a site adds.
fn step(seed: u64, site: usize, iteration: u64, len: usize) -> Vec<f64> {
    let mut random = Seed(seed).derive("step", 1000 * site as u64 + iteration).random();
    (0..len).map(|_| 0.1 * random.normal()).collect()
}

impl Fleet {
    fn new(options: &HierarchicalOptions, iterations: u64, len: usize, seed: u64) -> Self {
        let nodes = options.sites.iter().flatten().count() as u32;
        let member = |node| Member {
            policy: Hierarchical::new(options.clone(), NodeId(node)),
            model: vec![0.0; len],
            iteration: 0,
            paused: false,
            contributes: false,
        };
        let mut fleet = Self {
            options: options.clone(),
            iterations,
            members: (0..nodes).map(member).collect(),
            mail: BTreeMap::new(),
            random: Seed(seed).derive("order", 0).random(),
            now: Instant::ORIGIN,
            round: 0,
            interrupted: false,
            cut_off: None,
        };
        for node in 0..nodes as usize {
            fleet.tell(node, PolicyInput::Began { iterations });
        }
        // The round by which members of a site know of each other.
        fleet.average();
        fleet
    }

    fn site(&self, node: usize) -> usize {
        let node = NodeId(node as u32);
        self.options.sites.iter().position(|site| site.contains(&node)).expect("every node has a site")
    }

    fn tell(&mut self, node: usize, input: PolicyInput<'_>) {
        let (now, others) = (self.now, 0..self.members.len());
        let peers: Vec<NodeId> = others.filter(|&other| other != node).map(|other| NodeId(other as u32)).collect();
        let member = &mut self.members[node];
        member.policy.handle(now, input);
        self.act(node, &peers);
    }

    fn act(&mut self, node: usize, peers: &[NodeId]) {
        let now = self.now;
        let member = &mut self.members[node];
        while let Some(action) = member.policy.poll() {
            match action {
                PolicyAction::Observe => {
                    let model = member.model.clone();
                    member.policy.handle(now, PolicyInput::Observed { parameters: Values::Double(&model), peers });
                }
                PolicyAction::Tell { to, bytes } => {
                    assert!(bytes.len() <= 60 << 10, "a note of {} bytes", bytes.len());
                    self.mail.entry((node, to.0 as usize)).or_default().push_back(bytes);
                }
                PolicyAction::Pause => member.paused = true,
                PolicyAction::Proceed => member.paused = false,
                PolicyAction::Adopt(model) => member.model = model,
                PolicyAction::Contribute(_) => member.contributes = true,
                other => panic!("hierarchical averaging does not {other:?}"),
            }
        }
        if self.interrupted {
            let words = member.policy.save();
            member.policy = Hierarchical::new(self.options.clone(), NodeId(node as u32));
            member.policy.restore(&words);
            assert_eq!(member.policy.save(), words, "what is read is what was written");
        }
    }

    /// All have contributed: everybody takes the mean.
    fn average(&mut self) {
        self.round += 1;
        let count = self.members.len() as f64;
        let mean = |rows: Vec<Vec<f64>>| -> Vec<f64> {
            (0..rows[0].len()).map(|place| rows.iter().map(|row| row[place]).sum::<f64>() / count).collect()
        };
        let model = mean(self.members.iter().map(|member| member.model.clone()).collect());
        let numbers = mean(self.members.iter().map(|member| member.policy.numbers()).collect());
        let members = self.members.iter().enumerate().map(|(node, member)| Contributor {
            node: NodeId(node as u32),
            incarnation: Incarnation(1),
            turn: self.round,
            iteration: member.iteration,
            samples: (0, 0),
            contribution: Digest::default(),
            parent: CertificateId::default(),
            weights: vec![1.0],
        });
        let certificate = Certificate {
            attempt: Attempt::default(),
            round: Round(self.round),
            members: members.collect(),
            algorithm: Algorithm::Direct,
            wire: "f64".into(),
            result: Digest::default(),
            parents: Vec::new(),
        };
        for node in 0..self.members.len() {
            self.members[node].model.clone_from(&model);
            self.members[node].contributes = false;
            self.tell(node, PolicyInput::Averaged(&numbers));
            self.tell(node, PolicyInput::Committed(&certificate));
        }
    }

    /// Something happens that can; answers whether anything did.
    fn happen(&mut self, seed: u64) -> bool {
        self.mail.retain(|_, queue| !queue.is_empty());
        if self.members.iter().all(|member| member.contributes) {
            self.average();
            return true;
        }
        // A step takes all of a site, and nobody is more than a step ahead of anybody.
        let done = |member: &Member| member.iteration - u64::from(member.paused);
        let slowest = self.members.iter().map(done).min().unwrap_or(0);
        let able = |member: &Member| {
            let behind = member.iteration <= slowest && member.iteration < self.iterations;
            behind && !member.paused && !member.contributes
        };
        let ready: Vec<usize> = (0..self.members.len()).filter(|&node| able(&self.members[node])).collect();
        let arrives = |&&(from, to): &&(usize, usize)| {
            let [from, to] = [self.site(from), self.site(to)];
            from == to || self.cut_off != Some(from)
        };
        let ways: Vec<(usize, usize)> = self.mail.keys().filter(arrives).copied().collect();
        let choices = ready.len() + ways.len();
        if choices == 0 {
            let next = self.members.iter().map(|member| member.policy.timeout()).min().unwrap_or(Instant::FAR);
            if next == Instant::FAR {
                return false;
            }
            self.now = self.now.max(next);
            for node in 0..self.members.len() {
                self.members[node].policy.wake(self.now);
                self.act(node, &[]);
            }
            return true;
        }
        let choice = self.random.below(choices as u64) as usize;
        if let Some(&node) = ready.get(choice) {
            let site = self.site(node);
            let member = &mut self.members[node];
            member.iteration += 1;
            let iteration = member.iteration;
            let moved = step(seed, site, iteration, member.model.len());
            member.model.iter_mut().zip(moved).for_each(|(value, moved)| *value += moved);
            let summary = Summary { samples: 1, loss: 1.0 };
            self.tell(node, PolicyInput::Stepped { iteration, summary: &summary });
        } else {
            let way @ (from, to) = ways[choice - ready.len()];
            let bytes = self.mail.get_mut(&way).and_then(VecDeque::pop_front).expect("something is under way");
            self.tell(to, PolicyInput::Told { from: NodeId(from as u32), bytes: &bytes });
        }
        true
    }

    /// Until all have made all steps; then their models.
    fn train(&mut self, seed: u64) -> Result<Vec<Vec<f64>>, String> {
        while self.happen(seed) {
            for site in &self.options.sites {
                let models = site.iter().map(|node| &self.members[node.0 as usize]);
                let same = |a: &Member, b: &Member| {
                    a.iteration != b.iteration
                        || a.paused
                        || b.paused
                        || a.contributes
                        || b.contributes
                        || a.model == b.model
                };
                if !models.clone().zip(models.skip(1)).all(|(a, b)| same(a, b)) {
                    return Err(format!("members of {site:?} differ"));
                }
            }
        }
        let ends = |member: &Member| member.iteration == self.iterations && !member.paused && !member.contributes;
        if !self.members.iter().all(ends) {
            let states = self.members.iter().map(|member| (member.iteration, member.paused, member.contributes));
            return Err(format!("it stands still at {:?}", states.collect::<Vec<_>>()));
        }
        Ok(self.members.iter().map(|member| member.model.clone()).collect())
    }
}

/// What sites have in the end where every mean comes in time: one model for each.
fn by_definition(options: &HierarchicalOptions, iterations: u64, len: usize, seed: u64) -> Vec<Vec<f64>> {
    let counts: Vec<f64> = options.sites.iter().map(|site| site.len() as f64).collect();
    let all: f64 = counts.iter().sum();
    let mean = |models: &[Vec<f64>]| -> Vec<f64> {
        let at =
            |place: usize| models.iter().zip(&counts).map(|(model, count)| count * model[place]).sum::<f64>() / all;
        (0..len).map(at).collect()
    };
    let mut models = vec![vec![0.0; len]; counts.len()];
    let mut cycle = Cycle::new(&options.cycle);
    let mut flight: Option<(u64, Vec<Vec<f64>>)> = None;
    for iteration in 1..=iterations {
        for (site, model) in models.iter_mut().enumerate() {
            let moved = step(seed, site, iteration, len);
            model.iter_mut().zip(moved).for_each(|(value, moved)| *value += moved);
        }
        if options.cycle.blocks(iteration, iterations) {
            let mean = mean(&models);
            models.iter_mut().for_each(|model| model.clone_from(&mean));
            flight = None;
            if iteration % options.cycle.epoch == 0 && iteration > options.cycle.warm_up * options.cycle.epoch {
                cycle.conclude(1.0, &options.cycle);
            }
            continue;
        }
        if let Some((begun, snapshots)) = flight.take_if(|flight| flight.0 + cycle.wait <= iteration) {
            let mean: Vec<f32> = mean(&snapshots).iter().map(|&value| value as f32).collect();
            for (model, snapshot) in models.iter_mut().zip(&snapshots) {
                options.merge.apply(model, snapshot, &mean, counts.len() as u64, iteration - begun);
            }
        }
        if flight.is_none() && iteration % cycle.skip == 0 {
            flight = Some((iteration, models.clone()));
        }
    }
    models
}

fn fleets() -> impl Strategy<Value = (HierarchicalOptions, u64, usize, u64)> {
    let sizes = prop::collection::vec(1_usize..4, 2..5);
    let cycle = (3_u64..20, 0_u64..2, 0_u64..2, prop::sample::select(vec![2_u64, 4]));
    let merge = prop::sample::select(vec![Merge::Stale, Merge::Progress]);
    (sizes, cycle, merge, 1_u64..60, 1_usize..5, any::<u64>()).prop_map(
        |(sizes, cycle, merge, iterations, len, seed)| {
            let mut nodes = (0..).map(NodeId);
            let sites = sizes.iter().map(|&size| nodes.by_ref().take(size).collect()).collect();
            let (epoch, warm_up, cool_down, skip) = cycle;
            let mut options = HierarchicalOptions::new(sites, epoch);
            // Where exchanges follow each other at once, who is a step ahead is met with the next snapshot.
            options.cycle = CycleOptions { warm_up, cool_down, skip, bad: u64::MAX, ..options.cycle };
            (options.merge, options.patience) = (merge, PATIENCE);
            (options, iterations, len, seed)
        },
    )
}

/// Fleets do what the definition says of a merge that is `mistaken(merge)`.
fn as_defined(mistaken: impl Fn(Merge) -> Merge) -> Result<(), Broken> {
    let law = |(options, iterations, len, seed): (HierarchicalOptions, u64, usize, u64)| {
        let of = HierarchicalOptions { merge: mistaken(options.merge), ..options.clone() };
        let expected = by_definition(&of, iterations, len, seed);
        let mut fleet = Fleet::new(&options, iterations, len, seed);
        let models = fleet.train(seed)?;
        for (node, model) in models.iter().enumerate() {
            let expected = &expected[fleet.site(node)];
            // Snapshots and means travel in single precision, and values are of a few units.
            let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-5;
            if !model.iter().zip(expected).all(close) {
                return Err(format!("n{node} has {model:?} instead of {expected:?}"));
            }
        }
        Ok(())
    };
    Check::default().hold(fleets(), law)
}

#[test]
fn fleets_do_what_the_definition_says_in_whatever_order_things_happen() {
    assert_eq!(as_defined(|merge| merge), Ok(()));
    // The other merge is noticed.
    let other = |merge| if merge == Merge::Stale { Merge::Progress } else { Merge::Stale };
    assert!(as_defined(other).is_err());
}

#[test]
fn whoever_is_put_into_words_at_any_time_goes_on_as_if_nothing_had_been() {
    let law = |(options, iterations, len, seed): (HierarchicalOptions, u64, usize, u64)| {
        let train = |interrupted| {
            let mut fleet = Fleet::new(&options, iterations, len, seed);
            fleet.interrupted = interrupted;
            fleet.train(seed)
        };
        if train(true)? != train(false)? { Err("models differ".into()) } else { Ok(()) }
    };
    assert_eq!(Check::default().hold(fleets(), law), Ok(()));
}

#[test]
fn nobody_waits_for_ever_for_a_site_from_which_nothing_comes() {
    let law = |((options, iterations, len, seed), cut_off): ((HierarchicalOptions, u64, usize, u64), usize)| {
        let mut fleet = Fleet::new(&options, iterations, len, seed);
        fleet.cut_off = Some(cut_off % options.sites.len());
        fleet.train(seed).map(|_| ())
    };
    assert_eq!(Check::default().hold((fleets(), 0_usize..4), law), Ok(()));
}

#[test]
fn whoever_is_interrupted_goes_on_and_torn_notes_are_survived() {
    let sites = vec![vec![NodeId(0), NodeId(1)], vec![NodeId(2)]];
    let options = HierarchicalOptions {
        cycle: CycleOptions { warm_up: 0, ..CycleOptions::new(99) },
        ..HierarchicalOptions::new(sites, 99)
    };
    let mut fleet = Fleet::new(&options, 1000, 3, 1);
    for iteration in 1..=4 {
        let summary = Summary { samples: 1, loss: 1.0 };
        fleet.tell(2, PolicyInput::Stepped { iteration, summary: &summary });
    }
    let sent: Vec<Vec<u8>> = fleet.mail.values().flatten().cloned().collect();
    assert_eq!(sent.len(), 1, "a snapshot for the member whose turn it is");
    for end in 0..sent[0].len() {
        fleet.tell(0, PolicyInput::Told { from: NodeId(2), bytes: &sent[0][..end] });
    }
    let summary = Summary { samples: 1, loss: 1.0 };
    fleet.tell(2, PolicyInput::Stepped { iteration: 5, summary: &summary });
    assert!(fleet.members[2].paused);
    fleet.tell(2, PolicyInput::Interrupted);
    assert!(!fleet.members[2].paused);
}
