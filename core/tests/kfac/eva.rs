//! Eva among members that share every step, against one node with all their samples.

use crate::channels::{Channels, channels};
use crate::dense::{Device, assert_close};
use crate::division::{Part, parameters, train};
use crate::trainer::{CLASSES, INPUTS};
use kronfleet_core::backend::{Backend, Extent};
use kronfleet_core::network::{Initialisation, Network, Shape, Spec};
use kronfleet_core::optimiser::{Sgd, SgdOptions};
use kronfleet_core::placement::{Decomposers, Load, Machine, Placement, Plan, Statistics, Work};
use kronfleet_core::preconditioner::{Eva, EvaOptions, Form, Member};
use kronfleet_core::seed::Seed;
use kronfleet_core::trainer::{Trainer, TrainerOptions};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

const STEPS: u64 = crate::division::STEPS as u64;

/// Who shares steps, and how.
#[derive(Clone, Debug)]
struct Case {
    batches: Vec<usize>,
    placement: Placement,
    options: EvaOptions,
}

impl Case {
    fn network(&self, backend: &mut Device) -> Network<Device> {
        let specs = [
            Spec::convolution("first", 3, Shape::square(2, 1, 0)),
            Spec::Tanh,
            Spec::dense("second", 5),
            Spec::Tanh,
            Spec::dense("last", CLASSES as usize),
        ];
        let capacity = self.batches.iter().sum();
        let input = Extent::new(2, 2, INPUTS / 4);
        let mut network = Network::build(backend, input, &specs, capacity).expect("the network fits");
        network.initialise(backend, Seed(2), Initialisation::Uniform).expect("memory");
        network
    }

    fn plan(&self) -> Plan {
        let network = self.network(&mut Device::new());
        let loads: Vec<Load> = network.blocks().iter().map(Load::from).collect();
        let work = Work { form: Form::Inverse, batch: self.batches[0], machine: Machine::default() };
        Plan::new(&self.placement, &loads, self.batches.len(), &work)
    }

    /// A member's part, or by itself those of the samples of a batch that are given.
    fn trainer(&self, wire: Option<Channels>, [first, batch]: [usize; 2], rate: f64) -> Trainer<Device> {
        let mut backend = Device::new();
        let network = self.network(&mut backend);
        let len = network.parameters_len();
        let blocks = network.blocks();
        let eva = match wire {
            Some(wire) => {
                let member = Member { plan: self.plan(), me: wire.me, wire: Box::new(wire) };
                Eva::divided(&mut backend, blocks, len, &self.options, member)
            }
            None => Eva::new(&mut backend, blocks, len, &self.options),
        };
        let sgd = SgdOptions { momentum: 0.9, ..SgdOptions::default() };
        let optimiser = Box::new(Sgd::new(&mut backend, len, &[], sgd).expect("memory"));
        let part = Part::new(self.batches.iter().sum(), first);
        let eva = Box::new(eva.expect("memory"));
        let options = TrainerOptions::new(batch, rate);
        Trainer::new(backend, network, eva, optimiser, Box::new(part), options).expect("memory")
    }

    fn range(&self, me: usize) -> [usize; 2] {
        [self.batches[..me].iter().sum(), self.batches[me]]
    }

    /// Parameters of every member after all steps, and how many values have moved.
    fn run(&self) -> (Vec<Vec<f64>>, u64) {
        let ends = channels(&self.batches);
        let moved = Arc::clone(&ends[0].moved);
        let parameters = thread::scope(|scope| {
            let member = |end: Channels| {
                scope.spawn(move || {
                    let range = self.range(end.me);
                    let mut trainer = self.trainer(Some(end), range, 0.05);
                    train(&mut trainer);
                    parameters(&mut trainer)
                })
            };
            let members: Vec<_> = ends.into_iter().map(member).collect();
            members.into_iter().map(|member| member.join().expect("no panic")).collect()
        });
        (parameters, moved.load(Ordering::Relaxed))
    }
}

fn options() -> EvaOptions {
    EvaOptions { damping: 0.3, ema_old: 0.8, clip: Some(1e-3), exclude: Vec::new() }
}

/// Whether holders of everybody's vectors are one node with all samples.
#[cfg(feature = "mutants")]
pub(crate) fn holds() -> bool {
    let case = Case { batches: vec![2, 5, 3], placement: Placement::d_kfac().of_vectors(), options: options() };
    let mut alone = case.trainer(None, [0, case.batches.iter().sum()], 0.05);
    train(&mut alone);
    let expected = parameters(&mut alone);
    let (members, _) = case.run();
    members.iter().all(|member| *member == members[0])
        && members[0].iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 1e-9)
}

fn cases() -> impl Strategy<Value = Case> {
    let placements = prop_oneof![
        Just(Placement::d_kfac()),
        Just(Placement::mpd(false)),
        (0.0..1.0).prop_map(Placement::kaisa),
        Just(Placement::owner_reduce()),
    ];
    let batches = (1..5_usize).prop_flat_map(|members| prop::collection::vec(1..9_usize, members));
    (placements, batches).prop_map(|(placement, batches)| {
        let placement = placement.of_vectors();
        Case { batches, placement, options: options() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Members are one node with all their samples, and what travels is what the plan says.
    #[test]
    fn divided_eva_is_that_of_one_node_with_all_samples(case in cases()) {
        let mut alone = case.trainer(None, [0, case.batches.iter().sum()], 0.05);
        train(&mut alone);
        let expected = parameters(&mut alone);
        let (members, moved) = case.run();
        prop_assert!(members.iter().all(|member| *member == members[0]), "all members have the same bits");
        assert_close(&members[0], &expected, 1e-9);
        let plan = case.plan();
        let others = members.len() as u64 - 1;
        // A vector for each factor, of as many values as it has rows.
        let rows: usize = plan.loads().iter().map(|load| load.rows + load.columns).sum();
        let once = if case.placement.statistics == Statistics::AtOwner { 1 } else { 2 };
        prop_assert_eq!(plan.statistics().values(), once * others * rows as u64);
        prop_assert_eq!(plan.decompositions().values(), 0);
        let gradients = 2 * others * expected.len() as u64;
        prop_assert_eq!(moved, STEPS * (gradients + plan.statistics().values() + plan.directions().values()));
    }
}

/// With DP-KFAC's placement a layer's owner takes the vectors of its own batches.
#[test]
fn owners_use_their_own_batches() {
    for members in 1..5 {
        let placement = Placement::dp_kfac().of_vectors();
        let case = Case { batches: vec![6; members], placement, options: EvaOptions { clip: None, ..options() } };
        let (found, moved) = case.run();
        assert!(found.iter().all(|member| *member == found[0]), "all members have the same bits");
        let plan = case.plan();
        assert_eq!(plan.statistics().values(), 0);
        let gradients = 2 * (members as u64 - 1) * found[0].len() as u64;
        assert_eq!(moved, STEPS * (gradients + plan.directions().values()));
        // By the definition: everybody's whole Eva on its own batches, of which only what an owner says of its layers counts.
        let mut nodes: Vec<_> = (0..members).map(|me| case.trainer(None, case.range(me), 0.0)).collect();
        let blocks = nodes[0].parts().1.blocks().to_vec();
        let mut x = parameters(&mut nodes[0]);
        let mut velocity = vec![0.0; x.len()];
        for _ in 0..STEPS {
            let mut mean = vec![0.0; x.len()];
            for node in &mut nodes {
                let (backend, network) = node.parts();
                backend.upload(&x, &mut network.parameters, 0).expect("a host's memory");
                node.step().expect("a host's memory");
                let (backend, network) = node.parts();
                let gradient = backend.fetch(&network.gradient, 0..x.len()).expect("a host's memory");
                mean.iter_mut().zip(&gradient).for_each(|(mean, value)| *mean += value / members as f64);
            }
            let mut direction = mean.clone();
            for (layer, block) in blocks.iter().enumerate() {
                let (backend, eva) = nodes[plan.owner(layer)].preconditioner();
                let mut gradient = backend.allocate(x.len()).expect("memory");
                backend.upload(&mean, &mut gradient, 0).expect("memory");
                let mut v = backend.allocate(x.len()).expect("memory");
                eva.precondition(backend, 1.0, &gradient, None, &mut v).expect("memory");
                let v = backend.fetch(&v, 0..x.len()).expect("memory");
                let range = block.parameters.offset..block.parameters.end();
                direction[range.clone()].copy_from_slice(&v[range]);
            }
            for ((x, velocity), direction) in x.iter_mut().zip(&mut velocity).zip(&direction) {
                *velocity = 0.9 * *velocity + direction;
                *x -= 0.05 * *velocity;
            }
        }
        assert_close(&found[0], &x, 1e-9);
    }
}

#[test]
fn placements_that_decompose_are_refused() {
    let refused = |placement: &Placement| Eva::<Device>::check(placement).expect_err("not for Eva");
    assert!(refused(&Placement::dp_kfac()).contains("choose Placement::of_vectors"));
    assert!(
        refused(&Placement { decomposers: Decomposers::Nobody, ..Placement::of_gradient(0.0) }).contains("of passes")
    );
    assert_eq!(Eva::<Device>::check(&Placement::dp_kfac().of_vectors()), Ok(()));
}
