//! Members that share every step and divide its work, in threads that talk through channels.

use crate::dense::{Device, assert_close};
use crate::trainer::{CLASSES, Cloud, INPUTS};
use kronfleet_core::backend::{Backend, Extent};
use kronfleet_core::error::ErrorKind;
use kronfleet_core::network::{Initialisation, Network, Shape, Spec};
use kronfleet_core::optimiser::{Sgd, SgdOptions};
use kronfleet_core::placement::{
    Balance, Group, Letter, Load, Machine, Mail, Pipeline, Placement, Plan, Route, Wire, Work,
};
use kronfleet_core::preconditioner::{Form, Kronecker, Member, Options, Refresh};
use kronfleet_core::seed::Seed;
use kronfleet_core::time::Duration;
use kronfleet_core::trainer::{Batches, Trainer, TrainerOptions};
use kronfleet_core::transport::{NodeId, TransportError};
use kronfleet_lossy::endpoint::LossyNetwork;
use kronfleet_lossy::link::LinkOptions;
use kronfleet_lossy::network::NetworkOptions;
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

/// Channels from and to every member, and letters by the messages of a [`Mail`]; counts the values it sends.
pub(crate) struct Channels {
    pub(crate) me: usize,
    to: Vec<Sender<Message>>,
    from: Receiver<Message>,
    pub(crate) moved: Arc<AtomicU64>,
    /// Samples of each member's batches.
    weights: Vec<f64>,
    /// The exchange at which the member dies.
    dies_at: Option<u64>,
    exchanges: u64,
    /// How often each other member was in an exchange with this one.
    counts: Vec<u64>,
    /// What came for exchanges that have not begun here.
    early: Vec<Message>,
    gone: Vec<usize>,
}

/// From whom, in which exchange with the receiver, what; nothing if the sender is gone.
type Message = (usize, u64, Option<Vec<u8>>);

/// Bytes of a message at most: three values, so that there are many.
const LONGEST: usize = 16 + 3 * 8;

pub(crate) fn channels(weights: &[usize]) -> Vec<Channels> {
    let moved = Arc::new(AtomicU64::new(0));
    let (senders, receivers): (Vec<_>, Vec<_>) = weights.iter().map(|_| channel()).unzip();
    let end = |(me, from)| Channels {
        me,
        to: senders.clone(),
        from,
        moved: Arc::clone(&moved),
        weights: weights.iter().map(|&weight| weight as f64).collect(),
        dies_at: None,
        exchanges: 0,
        counts: vec![0; weights.len()],
        early: Vec::new(),
        gone: Vec::new(),
    };
    receivers.into_iter().enumerate().map(end).collect()
}

impl Drop for Channels {
    fn drop(&mut self) {
        // The other ends hold senders to each other, so that nobody hears of this by itself.
        for to in &self.to {
            let _ = to.send((self.me, 0, None));
        }
    }
}

impl Channels {
    fn exchange(&mut self, letter: &mut Letter<f64>) -> Result<(), TransportError> {
        self.exchanges += 1;
        if self.dies_at.is_some_and(|last| self.exchanges > last) {
            return Err(lost(self.me));
        }
        let members: Vec<usize> = (0..self.to.len()).filter(|&member| letter.route.includes(member)).collect();
        assert!(members.contains(&self.me), "member {} has no part in this", self.me);
        members.iter().for_each(|&member| self.counts[member] += 1);
        let mail = Mail::new(self.me, &self.weights, vec![letter.clone()], LONGEST);
        let mut mail = mail.expect("values are finite");
        let belongs = |counts: &[u64], message: &Message| counts[message.0] == message.1;
        let (now, early) =
            core::mem::take(&mut self.early).into_iter().partition(|message| belongs(&self.counts, message));
        self.early = early;
        let mut waiting: Vec<Message> = now;
        loop {
            while let Some((to, bytes)) = mail.poll() {
                self.moved.fetch_add((bytes.len() as u64 - 16) / 8, Ordering::Relaxed);
                self.to[to].send((self.me, self.counts[to], Some(bytes))).map_err(|_| lost(to))?;
            }
            if mail.is_whole() {
                break;
            }
            // Whoever is gone has sent before all that it had to.
            let awaited = mail.awaited();
            if let (true, Some(&gone)) = (waiting.is_empty(), self.gone.iter().find(|gone| awaited.contains(gone))) {
                return Err(lost(gone));
            }
            let message = match waiting.pop() {
                Some(message) => message,
                None => self.from.recv().expect("this end holds a sender, too"),
            };
            match message {
                (from, _, None) => self.gone.push(from),
                (from, _, Some(bytes)) if belongs(&self.counts, &(from, message.1, None)) => {
                    mail.receive(from, &bytes).expect("a message that fits");
                }
                _ => self.early.push(message),
            }
        }
        *letter = mail.finish().remove(0);
        Ok(())
    }
}

fn lost(member: usize) -> TransportError {
    let peer = Some(NodeId(member as u32));
    TransportError { kind: ErrorKind::Unreachable, peer, reason: "is gone".into() }
}

impl Wire<f64> for Channels {
    fn mean(&mut self, to: Option<usize>, values: &mut [f64]) -> Result<(), TransportError> {
        let mut letter = Letter { route: Route::Mean { to }, values: values.to_vec() };
        self.exchange(&mut letter)?;
        values.copy_from_slice(&letter.values);
        Ok(())
    }

    fn broadcast(&mut self, from: usize, to: &[usize], values: &mut [f64]) -> Result<(), TransportError> {
        let mut letter = Letter { route: Route::Broadcast { from, to: to.to_vec() }, values: values.to_vec() };
        self.exchange(&mut letter)?;
        values.copy_from_slice(&letter.values);
        Ok(())
    }
}

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
struct Case {
    /// Samples of each member's batches.
    batches: Vec<usize>,
    placement: Placement,
    options: Options,
    hidden: usize,
    machine: Machine,
    /// Whether means are under way while the passes go on.
    overlapped: bool,
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

    fn member(&self, wire: Option<(usize, Box<dyn Wire<f64>>)>) -> Trainer<Device> {
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
    fn run(&self) -> (Vec<Vec<f64>>, u64) {
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
}

impl Case {
    /// Parameters of every member after all steps, over groups whose means may be under way during the passes.
    fn over_groups(&self) -> Vec<Vec<f64>> {
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
        assert_close(&members[0].0, &alone, 1e-9);
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

/// What is averaged while the passes go on is what is averaged after them, to the bit, over wires that carry letters at once
/// and over groups that do not.
#[test]
fn overlapping_passes_and_exchanges_changes_no_bit() {
    let case = |placement: Placement, hidden| Case {
        batches: vec![2, 5, 3],
        placement,
        options: Options { inverse_period: 3, factor_period: 2, ..Options::default() },
        hidden,
        machine: Machine::default(),
        overlapped: false,
    };
    for placement in [Placement::spd(), Placement::d_kfac(), Placement::owner_reduce(), Placement::dp_kfac()] {
        let small = case(placement, 6);
        let expected = small.run();
        assert_eq!(
            Case { overlapped: true, ..small.clone() }.run(),
            expected,
            "{placement:?} over wires that carry at once"
        );
        assert_eq!(Case { overlapped: true, ..small }.over_groups(), expected.0, "{placement:?} over groups");
    }
    // Diagonal blocks are cut out of statistics after the passes; gradients are under way all the same.
    let mut cut = case(Placement::spd(), 6);
    cut.options.split_factors = 4;
    assert_eq!(Case { overlapped: true, ..cut.clone() }.over_groups(), cut.run().0);
    // The statistics of one layer fill a bucket, so that it is sent while the layer before it is still to come.
    let large = case(Placement::spd(), 300);
    assert_eq!(Case { overlapped: true, ..large.clone() }.over_groups(), large.over_groups());
}

/// A wire to one other member who has the same: it answers letters as they are, those that were started when they are
/// settled.
struct Echo {
    under_way: Vec<Letter<f64>>,
    /// The letter at which it fails, counted from the first that was started.
    fails_at: Option<usize>,
    /// Values of the letters that were started, and letters that were settled together.
    seen: Arc<Mutex<(Vec<usize>, Vec<usize>)>>,
}

impl Wire<f64> for Echo {
    fn mean(&mut self, _: Option<usize>, _: &mut [f64]) -> Result<(), TransportError> {
        Ok(())
    }

    fn broadcast(&mut self, _: usize, _: &[usize], _: &mut [f64]) -> Result<(), TransportError> {
        Ok(())
    }

    fn start(&mut self, letter: Letter<f64>) -> Result<Option<Letter<f64>>, TransportError> {
        let mut seen = self.seen.lock().expect("no panic");
        seen.0.push(letter.values.len());
        if self.fails_at == Some(seen.0.len()) {
            return Err(lost(1));
        }
        self.under_way.push(letter);
        Ok(None)
    }

    fn settle(&mut self) -> Result<Vec<Letter<f64>>, TransportError> {
        self.seen.lock().expect("no panic").1.push(self.under_way.len());
        Ok(core::mem::take(&mut self.under_way))
    }

    fn give_up(&mut self) {
        self.under_way.clear();
    }
}

/// What an [`Echo`] sees of a step of two members, or of several, of which the first fails.
fn echoed(placement: Placement, hidden: usize, fails_at: Option<usize>) -> (Vec<usize>, Vec<usize>) {
    let case = Case {
        batches: vec![3; 2],
        placement,
        options: Options::default(),
        hidden,
        machine: Machine::default(),
        overlapped: true,
    };
    let seen = Arc::default();
    let wire = Echo { under_way: Vec::new(), fails_at, seen: Arc::clone(&seen) };
    let mut trainer = case.member(Some((0, Box::new(wire))));
    if fails_at.is_some() {
        let error = trainer.step().expect_err("a letter that fails");
        assert!(error.reason.contains("abandoned"), "{error}");
    }
    trainer.step().expect("letters arrive");
    drop(trainer);
    Arc::into_inner(seen).expect("the trainer is gone").into_inner().expect("no panic")
}

/// Statistics of inputs leave during the forward pass, before there is any gradient; everything leaves once.
#[test]
fn statistics_of_inputs_leave_with_the_forward_pass() {
    let hidden = 400;
    let triangle = |rows: usize| rows * (rows + 1) / 2;
    let (sent, settled) = echoed(Placement::spd(), hidden, None);
    // Two channels at four positions of the kernel and a bias; three channels at nine positions of the image and a bias.
    let (patch, image) = (9, 28);
    // The last layer's but one fill a bucket. What is left of the statistics follows with the gradients.
    assert_eq!(sent[0], [patch, image, hidden + 1].map(triangle).iter().sum::<usize>());
    let classes = CLASSES as usize;
    let of_outputs = [3, hidden, 6, classes].map(triangle).iter().sum::<usize>();
    let gradients = 3 * patch + hidden * image + 6 * (hidden + 1) + classes * 7;
    assert_eq!(sent.iter().sum::<usize>(), sent[0] + triangle(7) + of_outputs + gradients);
    assert_eq!(settled, [sent.len()]);
}

/// Letters of a step that fails are no part of the next one.
#[test]
fn a_failed_step_leaves_no_letters_under_way() {
    let (_, undisturbed) = echoed(Placement::spd(), 400, None);
    for letter in 1..=undisturbed[0] {
        let (_, settled) = echoed(Placement::spd(), 400, Some(letter));
        assert_eq!(settled, undisturbed, "after letter {letter} has failed");
    }
}

#[test]
fn a_pipeline_forgets_what_was_started_when_it_fails() {
    let mut options = NetworkOptions::new(2, Seed(1));
    options.link = LinkOptions { loss: 0.0, duplicate: 0.0, reorder: 0.0, ..options.link };
    let network = LossyNetwork::new(options);
    let joined = |me: u32| {
        let group = Group::form(Box::new(network.endpoint(NodeId(me))), vec![1.0; 2], Duration::from_secs(60));
        Pipeline::<f64>::new(group.expect("both are there"))
    };
    let letter = |value: f64| Letter { route: Route::Mean { to: None }, values: vec![value; 3] };
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut wire = joined(1);
            let started = wire.start(letter(f64::NAN));
            // What it has sent is still on its way.
            (wire, started.is_err())
        });
        let mut wire = joined(0);
        let deadline = Instant::now() + core::time::Duration::from_secs(60);
        let mut failed = wire.start(letter(1.0)).err();
        while failed.is_none() {
            assert!(Instant::now() < deadline, "what the other one sends is not a number");
            thread::yield_now();
            failed = wire.advance().err();
        }
        assert_eq!(failed.map(|error| error.kind), Some(ErrorKind::Numeric));
        assert_eq!(wire.settle().expect("nothing to wait for"), []);
        drop(other.join().expect("no panic"));
    });
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
        assert_close(&members[0].0, &by_definition(&case), 1e-9);
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
    let laws = || cases.iter().all(holds) && crate::split::holds() && crate::eva::holds() && crate::elastic::holds();
    assert!(laws(), "without a mistake all laws hold");
    for mutant in Mutant::ALL.iter().copied().filter(|mutant| mutant.is_of_shared_steps()) {
        Mutant::choose(Some(mutant));
        let noticed = !catch_unwind(AssertUnwindSafe(laws)).unwrap_or(false);
        Mutant::choose(None);
        assert!(noticed, "not noticed: {}", mutant.text());
    }
}
