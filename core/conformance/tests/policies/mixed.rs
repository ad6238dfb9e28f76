//! Fleets whose nodes have policies of different kinds: what one says is nothing to another.

use kronfleet_core::cluster::Incarnation;
use kronfleet_core::compress::Identity;
use kronfleet_core::gossip::{Directed, Mixing, Rule, Topology};
use kronfleet_core::participant::Summary;
use kronfleet_core::policy::{
    AveragingPolicy, Confidence, Drifts, Dynamic, DynamicOptions, Gauge, Gossip, GossipOptions, Hierarchical,
    HierarchicalOptions, PolicyAction, PolicyInput, PushSum, PushSumOptions, Threshold,
};
use kronfleet_core::scalar::Values;
use kronfleet_core::time::Instant;
use kronfleet_core::transport::NodeId;

const NODES: u32 = 3;
/// Values of a model.
const LEN: usize = 40;

/// Every kind of policy that talks, in some settings.
const KINDS: usize = 7;

fn policy(kind: usize, node: u32) -> Box<dyn AveragingPolicy> {
    let dynamic = |gauge, threshold| Box::new(Dynamic::new(DynamicOptions::new(gauge, Threshold::Fixed(threshold))));
    match kind {
        0 => {
            let row = Mixing::metropolis(&Topology::ring(NODES)).row(NodeId(node)).clone();
            let options = GossipOptions::new(row, Rule::Choco { step: 0.5 });
            Box::new(Gossip::<f64>::new(options, Box::new(Identity)))
        }
        1 => {
            let options = PushSumOptions::new(&Directed::ring(NODES), NodeId(node));
            Box::new(PushSum::<f64>::new(options, Box::new(Identity)))
        }
        2 => {
            let mut options = HierarchicalOptions::new((0..NODES).map(|node| vec![NodeId(node)]).collect(), 100);
            (options.cycle.warm_up, options.cycle.cool_down) = (0, 0);
            Box::new(Hierarchical::new(options, NodeId(node)))
        }
        3 => dynamic(Gauge::Naive, f64::MAX),
        4 => dynamic(Gauge::Linear, f64::MAX),
        5 => dynamic(
            Gauge::Sketch { rows: 5, columns: 64, confidence: Confidence::Usual, drifts: Drifts::Spread },
            f64::MAX,
        ),
        // It calls the others.
        _ => dynamic(Gauge::Naive, 0.0),
    }
}

/// What a policy says, once it has been shown the model as often as it asked for it.
fn said(policy: &mut dyn AveragingPolicy, node: u32, iteration: u64) -> Vec<(NodeId, Vec<u8>)> {
    let peers: Vec<NodeId> = (0..NODES).filter(|other| *other != node).map(NodeId).collect();
    let model = [f64::from(node) + iteration as f64; LEN];
    let mut notes = vec![];
    while let Some(action) = policy.poll() {
        match action {
            PolicyAction::Observe => {
                let input = PolicyInput::Observed { parameters: Values::Double(&model), peers: &peers };
                policy.handle(Instant::ORIGIN, input);
            }
            PolicyAction::Tell { to, bytes } => notes.push((to, bytes)),
            _ => {}
        }
    }
    notes
}

/// Nodes of one kind after so many steps, the notes of the last of which have not arrived, and all that was said.
fn fleet(kind: usize, iterations: u64) -> (Vec<Box<dyn AveragingPolicy>>, Vec<Vec<u8>>) {
    let mut nodes: Vec<_> = (0..NODES).map(|node| policy(kind, node)).collect();
    let mut all = vec![];
    for iteration in 0..=iterations {
        let mut mail = vec![];
        for (node, policy) in (0..).zip(&mut nodes) {
            let summary = Summary::default();
            policy.handle(
                Instant::ORIGIN,
                match iteration {
                    0 => PolicyInput::Began { iterations: u64::MAX, incarnation: Incarnation(1) },
                    _ => PolicyInput::Stepped { iteration, summary: &summary },
                },
            );
            mail.extend(said(&mut **policy, node, iteration).into_iter().map(|note| (node, note)));
        }
        while iteration < iterations && !mail.is_empty() {
            for (from, (to, bytes)) in std::mem::take(&mut mail) {
                let policy = &mut nodes[to.0 as usize];
                policy.handle(Instant::ORIGIN, PolicyInput::Told { from: NodeId(from), bytes: &bytes });
                mail.extend(said(&mut **policy, to.0, iteration).into_iter().map(|note| (to.0, note)));
                all.push(bytes);
            }
        }
        all.extend(mail.into_iter().map(|(_, (_, bytes))| bytes));
    }
    (nodes, all)
}

#[test]
fn notes_of_a_policy_of_another_kind_are_none() {
    let talk: Vec<Vec<Vec<u8>>> = (0..KINDS).map(|kind| fleet(kind, 6).1).collect();
    assert!(talk.iter().all(|notes| !notes.is_empty()), "{talk:?}");
    // Those of dynamic policies among each other are told apart by their length.
    let family = |kind: usize| kind.min(3);
    for kind in 0..KINDS {
        for other in (0..KINDS).filter(|other| family(*other) != family(kind)) {
            let (mut nodes, _) = fleet(kind, 5);
            let before = nodes[0].save();
            for bytes in &talk[other] {
                nodes[0].handle(Instant::ORIGIN, PolicyInput::Told { from: NodeId(1), bytes });
                assert_eq!(nodes[0].poll(), None, "{} answers {}", nodes[0].name(), policy(other, 0).name());
            }
            assert_eq!(nodes[0].save(), before, "{} takes notes of {}", nodes[0].name(), policy(other, 0).name());
        }
    }
    // Each understands its own.
    for (kind, talk) in talk.iter().enumerate() {
        let (mut nodes, _) = fleet(kind, 5);
        let before = nodes[0].save();
        for bytes in talk {
            nodes[0].handle(Instant::ORIGIN, PolicyInput::Told { from: NodeId(1), bytes });
        }
        assert_ne!(nodes[0].save(), before, "{} does not take its own notes", nodes[0].name());
    }
}
