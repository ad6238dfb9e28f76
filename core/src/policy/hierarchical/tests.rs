//! What becomes of an exchange while a model is replaced.

use super::*;
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
