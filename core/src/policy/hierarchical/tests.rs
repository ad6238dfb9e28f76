//! What becomes of an exchange while a model is replaced.

use super::*;
use crate::collective::Encoding;
use crate::participant::Summary;
use crate::scalar::Values;

/// What node 0 of two sites makes of a model that is of 5s, while the mean of snapshots of 1s and 3s was under way.
fn merged(replaced: bool) -> Vec<f64> {
    let mut options = HierarchicalOptions::new(vec![vec![NodeId(0)], vec![NodeId(1)]], 100);
    (options.merge, options.cycle.warm_up, options.cycle.cool_down) = (Merge::Progress, 0, 0);
    let mut nodes = [0, 1].map(|node| Hierarchical::new(options.clone(), NodeId(node)));
    let summary = Summary::default();
    let mut adopted = Vec::new();
    for (iteration, models) in [(4, [1.0, 3.0]), (5, [5.0, 3.0])] {
        let mut notes = Vec::new();
        if iteration == 5 && replaced {
            nodes[0].handle(Instant::ORIGIN, PolicyInput::Replaced);
        }
        for (node, value) in [0, 1].into_iter().zip(models) {
            let peers = [NodeId(1 - node)];
            let policy = &mut nodes[node as usize];
            policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration, summary: &summary });
            while let Some(action) = policy.poll() {
                match action {
                    PolicyAction::Observe => {
                        let parameters = Values::Double(&[value; 3]);
                        policy.handle(Instant::ORIGIN, PolicyInput::Observed { parameters, peers: &peers });
                    }
                    PolicyAction::Tell { to, bytes } => notes.push((node, to, bytes)),
                    PolicyAction::Adopt(model) if node == 0 => adopted = model,
                    _ => {}
                }
            }
        }
        for (from, to, bytes) in notes {
            nodes[to.0 as usize].handle(Instant::ORIGIN, PolicyInput::Told { from: NodeId(from), bytes: &bytes });
        }
    }
    adopted
}

#[test]
fn no_progress_is_taken_back_of_a_model_that_was_replaced_meanwhile() {
    assert_eq!(merged(false), [6.0; 3], "the mean, and 4 of progress");
    assert_eq!(merged(true), [2.0; 3], "the mean");
}

#[test]
fn a_line_that_still_carries_a_model_is_given_no_other() {
    let mut options = HierarchicalOptions::new(vec![vec![NodeId(0)], vec![NodeId(1)], vec![NodeId(2)]], 100);
    (options.cycle.warm_up, options.cycle.cool_down) = (0, 0);
    let mut policy = Hierarchical::new(options, NodeId(0));
    let summary = Summary::default();
    policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration: 4, summary: &summary });
    let mut told = Vec::new();
    while let Some(action) = policy.poll() {
        match action {
            PolicyAction::Observe => {
                let (parameters, peers) = (Values::Double(&[1.0; 3]), &[NodeId(1), NodeId(2)]);
                policy.handle(Instant::ORIGIN, PolicyInput::Unsaid(&[NodeId(1)]));
                policy.handle(Instant::ORIGIN, PolicyInput::Observed { parameters, peers });
            }
            PolicyAction::Tell { to, .. } => told.push(to),
            _ => {}
        }
    }
    assert_eq!(told, [NodeId(2)]);
}

#[test]
fn models_travel_between_sites_in_half_the_bits_if_so_asked_and_all_read_the_same() {
    let mut options = HierarchicalOptions::new(vec![vec![NodeId(0)], vec![NodeId(1)]], 100);
    (options.cycle.warm_up, options.cycle.cool_down, options.encoding) = (0, 0, Encoding::Bf16);
    let mut nodes = [0, 1].map(|node| Hierarchical::new(options.clone(), NodeId(node)));
    let summary = Summary::default();
    // Halfway between two short numbers, to either side of which the mean of the rounded ones lies.
    let (models, mut adopted, mut sizes) = ([1.0 + 1.0 / 256.0, 3.0], vec![Vec::new(); 2], Vec::new());
    for iteration in 4..=5 {
        let mut notes = Vec::new();
        for (node, value) in models.into_iter().enumerate() {
            let policy = &mut nodes[node];
            policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration, summary: &summary });
            while let Some(action) = policy.poll() {
                match action {
                    PolicyAction::Observe => {
                        let (parameters, peers) = (Values::Double(&[value; 100]), &[NodeId(1 - node as u32)]);
                        policy.handle(Instant::ORIGIN, PolicyInput::Observed { parameters, peers });
                    }
                    PolicyAction::Tell { to, bytes } => notes.push((node, to, bytes)),
                    PolicyAction::Adopt(model) => adopted[node] = model,
                    _ => {}
                }
            }
        }
        for (from, to, bytes) in notes {
            sizes.push(bytes.len());
            nodes[to.0 as usize]
                .handle(Instant::ORIGIN, PolicyInput::Told { from: NodeId(from as u32), bytes: &bytes });
        }
    }
    assert_eq!(sizes, [29 + 200; 2]);
    // 1 + 1/256 is rounded to 1; the stale merge is of two nodes and one step.
    let merged = |own: f64| (2.0 * own + 2.0 * 2.0) / 4.0;
    assert_eq!(adopted, [vec![merged(models[0]); 100], vec![merged(models[1]); 100]]);
}
