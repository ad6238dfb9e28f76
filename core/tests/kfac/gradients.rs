//! Methods that look at gradients alone, divided among members in threads.

use crate::channels::{Channels, channels};
use crate::dense::{Device, assert_close, blocks, upload};
use kronfleet_core::backend::Backend;
use kronfleet_core::layer::Block;
use kronfleet_core::placement::{Balance, Decomposers, Load, Machine, Placement, Plan, Work};
use kronfleet_core::preconditioner::{
    ByGradient, Form, GradientMethod, Member, MuonOptions, Preconditioner, ShampooOptions, SoapOptions,
};
use kronfleet_core::seed::Seed;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

const STEPS: u64 = 7;
const PERIOD: u64 = 3;

#[derive(Clone, Debug)]
struct Case {
    /// Samples of each member's batches.
    weights: Vec<usize>,
    shapes: Vec<(usize, usize)>,
    method: GradientMethod,
    placement: Placement,
}

/// What a member ends with.
struct Seen {
    directions: Vec<Vec<f64>>,
    refreshes: u64,
    flops: u64,
    decomposed: u64,
}

impl Case {
    fn blocks(&self) -> (Vec<Block>, [usize; 2]) {
        let (blocks, parameters, statistics) = blocks(&self.shapes);
        (blocks, [statistics, parameters])
    }

    fn plan(&self) -> Plan {
        let loads: Vec<Load> = self.blocks().0.iter().map(Load::from).collect();
        let work = Work { form: Form::Eigen, batch: 8, machine: Machine::default() };
        Plan::new(&self.placement, &loads, self.weights.len(), &work)
    }

    /// A member's gradient at a step.
    fn gradient(&self, step: u64, member: usize) -> Vec<f64> {
        let mut random = Seed(step).derive("member", member as u64).random();
        (0..self.blocks().1[1]).map(|_| random.normal()).collect()
    }

    /// The mean of all, by samples, to the bit: where moments are of low rank their bases are anybody's choice, and SOAP's
    /// directions with them.
    fn mean(&self, step: u64) -> Vec<f64> {
        if self.weights.len() == 1 {
            return self.gradient(step, 0);
        }
        let total: usize = self.weights.iter().sum();
        let mut mean = vec![0.0; self.blocks().1[1]];
        for (member, &weight) in self.weights.iter().enumerate() {
            let own = self.gradient(step, member);
            mean.iter_mut().zip(own).for_each(|(mean, own)| *mean += weight as f64 * own);
        }
        mean.iter_mut().for_each(|mean| *mean /= total as f64);
        mean
    }

    /// All steps of one node on mean gradients, or of a member on its own.
    fn steps(&self, wire: Option<Channels>) -> Seen {
        let mut backend = Device::new();
        let (blocks, lengths) = self.blocks();
        let me = wire.as_ref().map(|wire| wire.me);
        let made = match wire {
            Some(wire) => {
                let member = Member { plan: self.plan(), me: wire.me, wire: Box::new(wire) };
                ByGradient::divided(&mut backend, &blocks, lengths, &self.method, member)
            }
            None => ByGradient::new(&mut backend, &blocks, lengths, &self.method),
        };
        let mut made = made.expect("memory");
        let before = *backend.counters();
        let mut directions = Vec::new();
        for now in 0..STEPS {
            let gradient = me.map_or_else(|| self.mean(now), |me| self.gradient(now, me));
            made.begin(&mut backend).expect("memory");
            made.update(&mut backend, 1).expect("memory");
            let gradient = upload(&mut backend, &gradient);
            let mut direction = upload(&mut backend, &vec![f64::NAN; lengths[1]]);
            made.precondition(&mut backend, 0.1, &gradient, None, &mut direction).expect("memory");
            assert_eq!(Preconditioner::<Device>::abandoned(&mut made), None);
            directions.push(backend.fetch(&direction, 0..lengths[1]).expect("memory"));
        }
        let refreshes = Preconditioner::<Device>::report(&made).refreshes;
        let after = backend.counters();
        let decomposed = after.eigendecompositions - before.eigendecompositions;
        Seen { directions, refreshes, flops: after.flops - before.flops, decomposed }
    }

    /// What every member ends with, and what they moved.
    fn run(&self) -> (Vec<Seen>, u64) {
        let ends = channels(&self.weights);
        let moved = Arc::clone(&ends[0].moved);
        let seen = thread::scope(|scope| {
            let members: Vec<_> = ends.into_iter().map(|end| scope.spawn(move || self.steps(Some(end)))).collect();
            members.into_iter().map(|member| member.join().expect("no panic")).collect()
        });
        (seen, moved.load(Ordering::Relaxed))
    }
}

fn methods() -> impl Strategy<Value = GradientMethod> {
    prop_oneof![
        Just(GradientMethod::Shampoo(ShampooOptions { period: PERIOD, ..ShampooOptions::default() })),
        Just(GradientMethod::Soap(SoapOptions { period: PERIOD, ..SoapOptions::default() })),
        Just(GradientMethod::Muon(MuonOptions::default())),
    ]
}

fn cases() -> impl Strategy<Value = Case> {
    let weights = (1..5_usize).prop_flat_map(|members| prop::collection::vec(1..9_usize, members));
    let shapes = prop::collection::vec((1..8_usize, 1..8_usize), 1..6);
    let how = (prop_oneof![Just(0.0), Just(1.0), 0.0..1.0], any::<bool>(), any::<bool>());
    (weights, shapes, methods(), how).prop_map(|(weights, shapes, method, (share, largest, everybody))| {
        let balance = if largest { Balance::Largest } else { Balance::Contiguous };
        let decomposers = match method {
            GradientMethod::Muon(_) => Decomposers::Nobody,
            _ if everybody => Decomposers::Everybody,
            _ => Decomposers::Owner,
        };
        let placement = Placement { balance, decomposers, ..Placement::of_gradient(share) };
        Case { weights, shapes, method, placement }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Members are one node with the mean of their gradients, and what they move is what the plan says, to the value.
    #[test]
    fn members_are_one_node_with_the_mean_gradient(case in cases()) {
        let alone = case.steps(None);
        let (members, moved) = case.run();
        for member in &members {
            prop_assert_eq!(&member.directions, &members[0].directions, "all members have the same bits");
        }
        for (found, expected) in members[0].directions.iter().zip(&alone.directions) {
            assert_close(found, expected, 1e-9);
        }
        let plan = case.plan();
        let gradients = 2 * (members.len() as u64 - 1) * case.blocks().1[1] as u64;
        // After the first gradient, and at every period.
        let refreshes = if matches!(case.method, GradientMethod::Muon(_)) { 0 } else { 3 };
        prop_assert!(members.iter().all(|member| member.refreshes == refreshes));
        for (me, member) in members.iter().enumerate() {
            prop_assert_eq!(member.decomposed, refreshes * plan.cost(me).decomposed as u64, "member {}", me);
        }
        let steps = STEPS * (gradients + plan.directions().values());
        prop_assert_eq!(moved, steps + refreshes * plan.decompositions().values());
    }
}

/// Counted by the backend: of four layers of one shape each of four owners does a quarter of the work.
#[test]
fn owners_do_their_own_layers_work_and_no_other() {
    let methods = [
        (GradientMethod::Shampoo(ShampooOptions::default()), Decomposers::Owner),
        (GradientMethod::Soap(SoapOptions::default()), Decomposers::Owner),
        (GradientMethod::Muon(MuonOptions::default()), Decomposers::Nobody),
    ];
    for (method, decomposers) in methods {
        let placement = Placement { decomposers, ..Placement::of_gradient(0.0) };
        let case = Case { weights: vec![1; 4], shapes: vec![(6, 9); 4], method, placement };
        let alone = case.steps(None).flops;
        assert!(alone > 0, "the backend counts");
        for (me, member) in case.run().0.iter().enumerate() {
            assert_eq!(4 * member.flops, alone, "member {me} of {:?}", case.method);
        }
    }
}

#[test]
fn placements_that_divide_nothing_are_refused_with_the_remedy() {
    let shampoo = GradientMethod::Shampoo(ShampooOptions::default());
    let muon = GradientMethod::Muon(MuonOptions::default());
    let of_nobody = Placement { decomposers: Decomposers::Nobody, ..Placement::of_gradient(0.0) };
    let refused = [
        (&shampoo, Placement::dp_kfac()),
        (&shampoo, of_nobody),
        (&muon, Placement::of_gradient(0.0)),
        (&shampoo, Placement { apart: true, ..Placement::of_gradient(0.0) }),
    ];
    for (method, placement) in refused {
        let reason = method.check(&placement).expect_err("refused");
        assert!(reason.contains("choose"), "{reason}");
    }
    assert_eq!(muon.check(&of_nobody), Ok(()));
}
