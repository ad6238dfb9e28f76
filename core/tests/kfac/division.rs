//! Members that share every step and divide its work, in threads that talk through channels.

use crate::channels::{Channels, channels};
use crate::dense::{Device, assert_close};
use crate::trainer::{CLASSES, Cloud, INPUTS};
use kronfleet_core::backend::{Backend, Extent};
use kronfleet_core::error::ErrorKind;
use kronfleet_core::network::{Initialisation, Network, Shape, Spec};
use kronfleet_core::optimiser::{Sgd, SgdOptions};
use kronfleet_core::placement::{Balance, Group, Load, Machine, Pipeline, Placement, Plan, Wire, Work};
use kronfleet_core::preconditioner::{Form, Kronecker, Member, Options, Refresh};
use kronfleet_core::seed::Seed;
use kronfleet_core::time::Duration;
use kronfleet_core::trainer::{Batches, Trainer, TrainerOptions};
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::endpoint::LossyNetwork;
use kronfleet_lossy::link::LinkOptions;
use kronfleet_lossy::network::NetworkOptions;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

/// A member's part of every batch of the union.
pub(crate) struct Part {
    cloud: Cloud,
    union: u64,
    first: u64,
    step: u64,
}

impl Part {
    /// Those from sample `first` on of every batch of `union`.
    pub(crate) fn new(union: usize, first: usize) -> Self {
        Self { cloud: Cloud { seed: Seed(4), next: 0 }, union: union as u64, first: first as u64, step: 0 }
    }
}

impl Batches<f64> for Part {
    fn fill(&mut self, x: &mut [f64], labels: &mut [u32]) {
        self.cloud.restore(self.step * self.union + self.first);
        self.cloud.fill(x, labels);
        self.step += 1;
    }

    fn position(&self) -> u64 {
        self.step
    }

    fn restore(&mut self, position: u64) {
        self.step = position;
    }
}

/// A case: who shares steps, and how.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Samples of each member's batches.
    pub(crate) batches: Vec<usize>,
    pub(crate) placement: Placement,
    pub(crate) options: Options,
    pub(crate) hidden: usize,
    pub(crate) machine: Machine,
    /// Whether means are under way while the passes go on.
    pub(crate) overlapped: bool,
}

pub(crate) const STEPS: usize = 7;

impl Case {
    fn network(&self, backend: &mut Device) -> Network<Device> {
        let specs = [
            Spec::convolution("front", 3, Shape::square(2, 1, 1)),
            Spec::Tanh,
            Spec::dense("first", self.hidden),
            Spec::Tanh,
            Spec::dense("second", 6),
            Spec::Tanh,
            Spec::dense("last", CLASSES as usize),
        ];
        let capacity = self.batches.iter().sum();
        let input = Extent::new(2, 2, INPUTS / 4);
        let mut network = Network::build(backend, input, &specs, capacity).expect("the network fits");
        network.initialise(backend, Seed(2), Initialisation::Uniform).expect("memory");
        network
    }

    fn plan(&self, network: &Network<Device>) -> Plan {
        let limit = self.options.split_factors;
        let loads: Vec<Load> = network.blocks().iter().map(|block| Load::from(block).split(limit)).collect();
        let work = Work { form: self.options.form, batch: self.batches[0], machine: self.machine };
        Plan::new(&self.placement, &loads, self.batches.len(), &work)
    }

    /// The whole union on one node, or a member's part.
    fn trainer(&self, wire: Option<Channels>) -> Trainer<Device> {
        self.member(wire.map(|wire| (wire.me, Box::new(wire) as Box<dyn Wire<f64>>)))
    }

    pub(crate) fn member(&self, wire: Option<(usize, Box<dyn Wire<f64>>)>) -> Trainer<Device> {
        let mut backend = Device::new();
        let network = self.network(&mut backend);
        let (len, statistics) = (network.parameters_len(), network.statistics_len());
        let union: usize = self.batches.iter().sum();
        let (first, batch) = match &wire {
            Some((me, _)) => (self.batches[..*me].iter().sum::<usize>(), self.batches[*me]),
            None => (0, union),
        };
        let options = self.options.clone();
        let blocks = network.blocks();
        let kfac = match wire {
            Some((me, wire)) => {
                let plan = self.plan(&network);
                let member = Member { plan, me, wire };
                let made = Kronecker::divided(&mut backend, blocks, statistics, len, options, member);
                if self.overlapped { made.map(Kronecker::overlapped) } else { made }
            }
            None => Kronecker::new(&mut backend, blocks, statistics, len, options),
        };
        let sgd = SgdOptions { momentum: 0.9, ..SgdOptions::default() };
        let optimiser = Box::new(Sgd::new(&mut backend, len, &[], sgd).expect("memory"));
        let part = Part::new(union, first);
        let options = TrainerOptions::new(batch, 0.05);
        let kfac = Box::new(kfac.expect("memory"));
        Trainer::new(backend, network, kfac, optimiser, Box::new(part), options).expect("memory")
    }

    /// Parameters of every member after all steps, with what they moved.
    pub(crate) fn run(&self) -> (Vec<Vec<f64>>, u64) {
        let (members, moved) = self.counted();
        (members.into_iter().map(|(parameters, _)| parameters).collect(), moved)
    }

    /// The same, with how many factors each member decomposed.
    fn counted(&self) -> (Vec<(Vec<f64>, u64)>, u64) {
        let ends = channels(&self.batches);
        let moved = Arc::clone(&ends[0].moved);
        let parameters: Vec<(Vec<f64>, u64)> = thread::scope(|scope| {
            let member = |end| {
                scope.spawn(move || {
                    let mut trainer = self.trainer(Some(end));
                    train(&mut trainer);
                    let counters = *trainer.parts().0.counters();
                    (parameters(&mut trainer), counters.factorisations + counters.eigendecompositions)
                })
            };
            let members: Vec<_> = ends.into_iter().map(member).collect();
            members.into_iter().map(|member| member.join().expect("no panic")).collect()
        });
        (parameters, moved.load(Ordering::Relaxed))
    }

    /// Parameters of every member after all steps, over groups whose means may be under way during the passes.
    pub(crate) fn over_groups(&self) -> Vec<Vec<f64>> {
        let members = self.batches.len() as u32;
        let mut options = NetworkOptions::new(members, Seed(1));
        options.link = LinkOptions { loss: 0.0, duplicate: 0.0, reorder: 0.0, ..options.link };
        let network = LossyNetwork::new(options);
        let weights: Vec<f64> = self.batches.iter().map(|&batch| batch as f64).collect();
        thread::scope(|scope| {
            let member = |me: u32| {
                let (end, weights) = (network.endpoint(NodeId(me)), weights.clone());
                scope.spawn(move || {
                    let group = Group::form(Box::new(end), weights, Duration::from_secs(60)).expect("all are there");
                    let wire = Box::new(Pipeline::<f64>::new(group));
                    let mut trainer = self.member(Some((me as usize, wire)));
                    train(&mut trainer);
                    parameters(&mut trainer)
                })
            };
            let members: Vec<_> = (0..members).map(member).collect();
            members.into_iter().map(|member| member.join().expect("no panic")).collect()
        })
    }
}

pub(crate) fn train(trainer: &mut Trainer<Device>) {
    for _ in 0..STEPS {
        trainer.step().expect("everybody lives");
    }
}

pub(crate) fn parameters(trainer: &mut Trainer<Device>) -> Vec<f64> {
    let (backend, network) = trainer.parts();
    backend.fetch(&network.parameters, 0..network.parameters_len()).expect("a host's memory")
}

/// Every placement that uses everybody's statistics, and any number of members.
fn cases() -> impl Strategy<Value = Case> {
    let named = prop_oneof![
        Just((Placement::d_kfac(), Form::Eigen)),
        Just((Placement::d_kfac(), Form::Inverse)),
        Just((Placement::mpd(true), Form::Eigen)),
        Just((Placement::mpd(false), Form::Inverse)),
        Just((Placement::spd(), Form::Inverse)),
        Just((Placement::spd(), Form::Eigen)),
        (0.0..1.0).prop_map(|share| (Placement::kaisa(share), Form::Eigen)),
        (0.0..1.0).prop_map(|share| (Placement::kaisa(share), Form::Inverse)),
        Just((Placement::owner_reduce(), Form::Inverse)),
        Just((Placement::owner_reduce(), Form::Eigen)),
    ];
    let members = prop::sample::select(vec![1_usize, 2, 3, 4, 7]);
    let batches = members.prop_flat_map(|members| prop::collection::vec(1..9_usize, members));
    let how = (any::<bool>(), any::<bool>(), any::<bool>(), 0..9_i32, any::<(bool, bool)>());
    let split = prop::sample::select(vec![0_usize, 0, 3, 4, 9]);
    (batches, named, how, 3..20_usize, split).prop_map(|(batches, (placement, form), how, hidden, split_factors)| {
        let (apart, largest, triangles, speed, (deferred, overlapped)) = how;
        let everywhere = placement.statistics == kronfleet_core::placement::Statistics::Everywhere;
        let balance = if largest { Balance::Largest } else { Balance::Contiguous };
        let refresh = if deferred { Refresh::Deferred } else { Refresh::Immediate };
        Case {
            batches,
            placement: Placement { apart: apart && everywhere, balance, triangles, ..placement },
            options: Options {
                form,
                refresh,
                split_factors,
                inverse_period: 3,
                factor_period: 2,
                ..Options::default()
            },
            hidden,
            // So that SPD-KFAC decomposes some factors everywhere.
            machine: Machine { bandwidth: 10.0_f64.powi(speed), latency: 0.0, ..Machine::default() },
            overlapped,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Members of any placement are one node with all their samples.
    #[test]
    fn divided_steps_are_those_of_one_node_with_all_samples(case in cases()) {
        let mut alone = case.trainer(None);
        train(&mut alone);
        let alone = parameters(&mut alone);
        let (members, moved) = case.counted();
        let plan = case.plan(&case.network(&mut Device::new()));
        for (me, (parameters, decomposed)) in members.iter().enumerate() {
            prop_assert_eq!(parameters, &members[0].0, "all members have the same bits");
            prop_assert_eq!(*decomposed, 3 * plan.cost(me).decomposed as u64, "refreshes at steps 0, 3 and 6");
        }
        assert_close(&members[0].0, &alone, 1e-6);
        // What is moved is what the plan says, to the value: updates at steps 0, 2, 4 and 6, refreshes at 0, 3 and 6, of
        // which a deferred one is handed out a step later.
        let refreshes = if case.options.refresh == Refresh::Deferred { 2 } else { 3 };
        let all = case.network(&mut Device::new()).parameters_len() as u64;
        let gradients = 2 * (members.len() as u64 - 1) * all;
        let steps = STEPS as u64 * (gradients + plan.directions().values());
        let expected = steps + 4 * plan.statistics().values() + refreshes * plan.decompositions().values();
        prop_assert_eq!(moved, expected);
    }
}

/// Members that precondition by their own batches, of any size.
fn cases_of_own_batches() -> impl Strategy<Value = Case> {
    let members = prop::sample::select(vec![1_usize, 2, 3, 4, 7]);
    let batches = members.prop_flat_map(|members| prop::collection::vec(1..9_usize, members));
    let split = prop::sample::select(vec![0_usize, 0, 3, 4, 9]);
    let form = prop_oneof![Just(Form::Inverse), Just(Form::Eigen)];
    (batches, form, 3..20_usize, split, any::<bool>(), any::<bool>()).prop_map(
        |(batches, form, hidden, split_factors, largest, overlapped)| Case {
            batches,
            placement: Placement {
                balance: if largest { Balance::Largest } else { Balance::Contiguous },
                ..Placement::dp_kfac()
            },
            options: Options { form, inverse_period: 1, clip: None, split_factors, ..Options::default() },
            hidden,
            machine: Machine::default(),
            overlapped,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// DP-KFAC by its own definition: every layer preconditions the mean gradient by its owner's batches; what is moved and
    /// decomposed is what the plan says.
    #[test]
    fn dp_kfac_preconditions_by_the_owners_batches(case in cases_of_own_batches()) {
        let (members, moved) = case.counted();
        let plan = case.plan(&case.network(&mut Device::new()));
        for (me, (parameters, decomposed)) in members.iter().enumerate() {
            prop_assert_eq!(parameters, &members[0].0, "all members have the same bits");
            prop_assert_eq!(*decomposed, (STEPS * plan.cost(me).decomposed) as u64, "a refresh at every step");
        }
        // Where a case diverges, its steps enlarge what the order of sums rounds.
        assert_close(&members[0].0, &by_definition(&case), 1e-6);
        let gradients = 2 * (members.len() - 1) * members[0].0.len();
        prop_assert_eq!(moved, STEPS as u64 * (gradients as u64 + plan.directions().values()));
    }
}

/// The same on one thread: everybody's full K-FAC on its own batches, of which only what an owner says of its layers
/// counts.
fn by_definition(case: &Case) -> Vec<f64> {
    let members = case.batches.len();
    let union: usize = case.batches.iter().sum();
    let alone = |me: usize| Case { placement: Placement::d_kfac(), ..case.clone() }.one_of(me);
    let mut nodes: Vec<_> = (0..members).map(alone).collect();
    let plan = case.plan(nodes[0].parts().1);
    let len = nodes[0].parts().1.parameters_len();
    let blocks = nodes[0].parts().1.blocks().to_vec();
    let mut velocity = vec![0.0; len];
    let mut x = parameters(&mut nodes[0]);
    // A rate of 0 leaves the parameters alone, so that gradients and factors can be read after each step.
    for _ in 0..STEPS {
        let mut mean = vec![0.0; len];
        for (node, &batch) in nodes.iter_mut().zip(&case.batches) {
            let weight = batch as f64 / union as f64;
            let (backend, network) = node.parts();
            backend.upload(&x, &mut network.parameters, 0).expect("a host's memory");
            node.step().expect("a host's memory");
            let (backend, network) = node.parts();
            let gradient = backend.fetch(&network.gradient, 0..len).expect("a host's memory");
            mean.iter_mut().zip(&gradient).for_each(|(mean, value)| *mean += weight * value);
        }
        let mut direction = mean.clone();
        for (layer, block) in blocks.iter().enumerate() {
            let (backend, kfac) = nodes[plan.owner(layer)].preconditioner();
            let mut gradient = backend.allocate(len).expect("memory");
            backend.upload(&mean, &mut gradient, 0).expect("memory");
            let mut v = backend.allocate(len).expect("memory");
            let steps = kfac.steps();
            kfac.precondition(backend, 1.0, &gradient, None, &mut v).expect("memory");
            kfac.resume(steps);
            let v = backend.fetch(&v, 0..len).expect("memory");
            let range = block.parameters.offset..block.parameters.end();
            direction[range.clone()].copy_from_slice(&v[range]);
        }
        for ((x, velocity), direction) in x.iter_mut().zip(&mut velocity).zip(&direction) {
            *velocity = 0.9 * *velocity + direction;
            *x -= 0.05 * *velocity;
        }
    }
    x
}

impl Case {
    /// Member `me` by itself, on its own samples, at a learning rate of 0.
    fn one_of(&self, me: usize) -> Trainer<Device> {
        let mut backend = Device::new();
        let network = self.network(&mut backend);
        let (len, statistics) = (network.parameters_len(), network.statistics_len());
        let union: usize = self.batches.iter().sum();
        let first: usize = self.batches[..me].iter().sum();
        let kfac = Kronecker::new(&mut backend, network.blocks(), statistics, len, self.options.clone());
        let optimiser = Box::new(Sgd::new(&mut backend, len, &[], SgdOptions::default()).expect("memory"));
        let part = Part::new(union, first);
        let options = TrainerOptions::new(self.batches[me], 0.0);
        let kfac = Box::new(kfac.expect("memory"));
        Trainer::new(backend, network, kfac, optimiser, Box::new(part), options).expect("memory")
    }
}

#[test]
fn a_step_without_a_member_changes_no_parameters() {
    let case = Case {
        batches: vec![4; 3],
        placement: Placement::dp_kfac(),
        options: Options::default(),
        hidden: 9,
        machine: Machine::default(),
        overlapped: false,
    };
    let mut ends = channels(&case.batches);
    // Gradients and one direction of the first step, then nothing.
    for (end, dies_at) in ends.iter_mut().zip([None, None, Some(5)]) {
        end.dies_at = dies_at;
    }
    let mut expected = case.trainer(None);
    let before = parameters(&mut expected);
    let outcomes: Vec<_> = thread::scope(|scope| {
        let member = |end| {
            let case = &case;
            scope.spawn(move || {
                let mut trainer = case.trainer(Some(end));
                let mut known = vec![parameters(&mut trainer)];
                loop {
                    match trainer.step() {
                        Ok(_) => known.push(parameters(&mut trainer)),
                        Err(error) => {
                            assert_eq!(error.kind, ErrorKind::Unreachable);
                            assert!(error.reason.contains("abandoned"), "{error}");
                            assert_eq!(parameters(&mut trainer), known[known.len() - 1]);
                            return known;
                        }
                    }
                }
            })
        };
        let members: Vec<_> = ends.into_iter().map(member).collect();
        members.into_iter().map(|member| member.join().expect("no panic")).collect()
    });
    assert!(outcomes.iter().all(|known| known[0] == before && known.len() <= 3), "nobody goes on alone");
}

/// Every deliberate mistake in sharing steps breaks a law; `cargo test -p kronfleet-core --features mutants --test kfac
/// mistakes`, alone, because there is one mistake at a time for the whole program.
#[cfg(feature = "mutants")]
#[test]
fn mistakes_in_sharing_steps_are_noticed() {
    use kronfleet_core::mutant::Mutant;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    // Of two layers of one size with two owners, neither of which owns everything.
    let case = |placement: Placement, form: Form| Case {
        batches: vec![2, 5, 3],
        placement,
        options: Options { form, inverse_period: 3, factor_period: 2, ..Options::default() },
        hidden: 6,
        machine: Machine::default(),
        overlapped: false,
    };
    let apart = Placement { apart: true, balance: Balance::Contiguous, ..Placement::mpd(true) };
    let cases = [
        case(apart, Form::Eigen),
        case(Placement::owner_reduce(), Form::Inverse),
        Case { overlapped: true, ..case(Placement::spd(), Form::Inverse) },
    ];
    let holds = |case: &Case| {
        let mut alone = case.trainer(None);
        train(&mut alone);
        let alone = parameters(&mut alone);
        let (members, _) = case.run();
        members.iter().all(|member| *member == members[0])
            && members[0].iter().zip(&alone).all(|(found, expected)| (found - expected).abs() < 1e-9)
    };
    let laws = || {
        cases.iter().all(holds)
            && crate::split::holds()
            && crate::eva::holds()
            && crate::elastic::holds()
            && crate::restored::holds()
    };
    assert!(laws(), "without a mistake all laws hold");
    for mutant in Mutant::ALL.iter().copied().filter(|mutant| mutant.is_of_shared_steps()) {
        Mutant::choose(Some(mutant));
        let noticed = !catch_unwind(AssertUnwindSafe(laws)).unwrap_or(false);
        Mutant::choose(None);
        assert!(noticed, "not noticed: {}", mutant.text());
    }
}
