//! Going on from a checkpoint.

use super::backends::Backends;
use super::lossy::Fleet;
use super::watch::{Trained, WatchState};
use super::witness::Witness;
use crate::checkpoint::{Disk, FLEET, FleetState, Layers, MODEL, Manifest, NodeState, Saved, file};
use crate::model::tensors::Tensors;
use anyhow::{Context, Result, anyhow, bail};
use kronfleet_conformance::invariants::Checker;
use kronfleet_core::backend::Extent;
use kronfleet_core::cluster::{Contribution, Node};
use kronfleet_core::network::{Network, Spec};
use kronfleet_core::participant::{Participant, Step, Training as _};
use kronfleet_core::preconditioner as memory;
use kronfleet_core::schedule::Schedule;
use kronfleet_core::trainer::{Checkpoint, Counts, Window};
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::simulation::{Parts, Snapshot};
use kronfleet_nalgebra::Nalgebra;
use std::collections::BTreeMap;

/// A fleet of the same size, as it was.
pub(super) struct Resumed {
    pub(super) snapshot: Snapshot,
    pub(super) parts: Vec<Parts<Trained>>,
    pub(super) watch: WatchState<Checker>,
}

/// What a checkpoint's `fleet.postcard` holds.
type State = FleetState<Node<f32>, f32, WatchState<Checker>>;

impl Fleet<'_> {
    /// Everything as it was in `saved`.
    pub(super) fn resume(&self, backends: &Backends, saved: &Saved) -> Result<Resumed> {
        let bytes = saved.read(&Disk, FLEET)?;
        let State { simulation: snapshot, nodes, watch } = FleetState::decode(&bytes).with_context(|| unfit(saved))?;
        if nodes.len() != self.averaging.nodes as usize {
            bail!("{}: it holds {} nodes instead of {}", unfit(saved), nodes.len(), self.averaging.nodes);
        }
        let mut trainers = Vec::new();
        for node in 0..self.averaging.nodes {
            let mut trainer = backends.trainer(self.workshop, node)?;
            let (layers, state) = trainer.save()?;
            trainers.push((trainer, layers, state));
        }
        let layers = trainers.first().map_or_else(Vec::new, |(_, layers, _)| layers.names().to_vec());
        for layer in &layers {
            let tensors = tensors(saved, &file(layer))?;
            for (node, (_, layers, state)) in trainers.iter_mut().enumerate() {
                let taken = layers.take(layer, &format!("n{node}"), &tensors, state);
                taken.map_err(|reason| anyhow!("{}: {reason} in {}", unfit(saved), file(layer)))?;
            }
        }
        let mut parts = Vec::new();
        for (node, (NodeState { participant, trainer: rest, shared, step }, (mut trainer, _, mut state))) in
            (0..).map(NodeId).zip(nodes.into_iter().zip(trainers))
        {
            rest.put(&mut state);
            if let Some(shared) = shared {
                shared.put(&mut state);
            }
            trainer.restore(&state)?;
            let training = Witness::new(trainer);
            let (training, task) = match step {
                Some(result) => (None, Some(Step::resume(training, Some(result)))),
                None => (Some(training), None),
            };
            let policy = self.averaging.policy(node)?;
            let process = Participant::resume(participant, training, policy, self.schedule(node));
            parts.push(Parts { process: Some(process), crashed: None, task });
        }
        Ok(Resumed { snapshot, parts, watch })
    }

    /// A fleet of another size that begins with what that of `saved` had in common; answers its iteration, too.
    pub(super) fn reshape(&self, backends: &Backends, saved: &Saved) -> Result<(BTreeMap<NodeId, Trained>, u64)> {
        let bytes = saved.read(&Disk, FLEET)?;
        let State { nodes, .. } = FleetState::decode(&bytes).with_context(|| unfit(saved))?;
        let rest = nodes.into_iter().next().ok_or_else(|| anyhow!("{}: it holds no nodes", unfit(saved)))?.trainer;
        let mut first = backends.trainer(self.workshop, 0)?;
        let (layers, mut state) = first.save()?;
        rest.put(&mut state);
        self.common(saved, &layers, &mut state)?;
        let mut participants = BTreeMap::new();
        for node in (0..self.averaging.nodes).map(NodeId) {
            let mut trainer = backends.trainer(self.workshop, node.0)?;
            let (_, own) = trainer.save()?;
            let state = Checkpoint { random: own.random, drift: own.drift, ..state.clone() };
            trainer.restore(&state)?;
            // What is common is what every node takes over now.
            let mut common = Contribution::default();
            trainer.show(&mut common);
            trainer.adopt(&common, false);
            participants.insert(node, self.participant(trainer, node)?);
        }
        Ok((participants, state.iteration))
    }

    /// Puts what the fleet of `saved` had in common into `state`, which holds what node 0 had of its own.
    fn common<S>(&self, saved: &Saved, layers: &Layers, state: &mut Checkpoint<S>) -> Result<()>
    where
        S: kronfleet_core::scalar::Scalar,
    {
        let unfit = |reason: String| anyhow!("{}: {reason}", unfit(saved));
        (state.parameters, state.running) = layers.take_model(&tensors(saved, MODEL)?).map_err(unfit)?;
        let mut optimiser = state.optimiser.clone();
        let mut complete = true;
        for layer in layers.names() {
            let tensors = tensors(saved, &file(layer))?;
            layers.take_factors(layer, "fleet", &tensors, &mut state.factors).map_err(unfit)?;
            for (index, buffer) in optimiser.iter_mut().enumerate() {
                let prefix = format!("fleet/optimiser/{index}");
                complete &= layers.take_parameters(layer, &prefix, &tensors, buffer).is_ok();
            }
        }
        let iteration = saved.manifest.common;
        if complete {
            state.optimiser = optimiser;
            state.optimiser_steps = iteration;
        } else {
            // Momentum of single nodes belongs to paths that were averaged away.
            state.optimiser_steps = 0;
        }
        state.iteration = iteration;
        state.preconditioner.steps = iteration;
        state.preconditioner.refresh_due = true;
        state.position = iteration * u64::from(self.task.batch);
        state.samples = state.position;
        Ok(())
    }
}

fn tensors(saved: &Saved, name: &str) -> Result<Tensors> {
    let place = saved.path.join(name);
    Ok(Tensors::parse(&saved.read(&Disk, name)?, &place.display().to_string())?)
}

fn unfit(saved: &Saved) -> String {
    format!("the checkpoint {} does not fit this run", saved.path.display())
}

/// Takes arbitrary bytes for each file of a checkpoint in turn. Whatever they are, nothing panics; what can be read is
/// written and read again as the same.
pub fn exercise_checkpoint(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes, &Manifest::voucher(bytes)) {
        let (again, voucher) = manifest.encode();
        assert_eq!(Manifest::decode(&again, &voucher), Ok(manifest));
    }
    if let Ok(tensors) = Tensors::parse(bytes, "layer") {
        let (layers, mut state) = small();
        if layers.take("fc1", "n0", &tensors, &mut state).is_ok() {
            let (mut again, mut other) = (Tensors::default(), small().1);
            layers.put("fc1", "n0", &state, &mut again);
            layers.take("fc1", "n0", &again, &mut other).expect("it was just put there");
            let mut third = Tensors::default();
            layers.put("fc1", "n0", &other, &mut third);
            assert!(format!("{again:?}") == format!("{third:?}"), "by digits, as NaN differs from itself");
        }
    }
    if let Ok(state) = State::decode(bytes) {
        let again = state.encode().expect("memory");
        State::decode(&again).expect("it was just encoded");
    }
}

/// A layer of three inputs and two outputs, `fc1`, and a trainer's state for it.
fn small() -> (Layers, Checkpoint<f32>) {
    let mut backend = Nalgebra::<f32>::new();
    let specs = [Spec::dense("fc1", 2)];
    let network = Network::build(&mut backend, Extent::flat(3), &specs, 1).expect("the layer fits");
    let layers = Layers::new(&network, network.blocks(), true);
    let [parameters, running] = layers.lens();
    let mut preconditioner = memory::State::plain(0, memory::Report::default());
    preconditioner.blocks.resize_with(layers.blocks().len(), Default::default);
    let state = Checkpoint {
        iteration: 0,
        samples: 0,
        last: (0.0, 0.0),
        parameters: vec![0.0; parameters],
        running: vec![0.0; running],
        factors: layers.no_factors(),
        optimiser: vec![vec![0.0; parameters]],
        optimiser_steps: 0,
        preconditioner,
        schedules: (Schedule::constant(0.1), None),
        window: Window::default(),
        random: [1; 4],
        position: 0,
        drift: (Vec::new(), Counts::default()),
        shared: None,
    };
    (layers, state)
}
