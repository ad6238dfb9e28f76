//! Every policy, whatever nodes do about gradients and whenever they are away.

use super::{Folder, Keep, run};

/// What rounds are committed by, and what has none.
const POLICIES: [(&[&str], bool); 23] = [
    (&["--policy=periodic"], true),
    (&["--policy=fda:naive", "--theta=0.001"], true),
    (&["--policy=fda:linear", "--theta=0.001"], true),
    (&["--policy=fda:sketch", "--theta=0.001", "--columns=20"], true),
    (&["--policy=fda:linear", "--theta=auto", "--check-every=2"], true),
    (&["--policy=daso", "--daso-epoch=6", "--daso-skip=2"], true),
    (&["--policy=daso", "--daso-epoch=6", "--daso-skip=2", "--daso-merge=progress"], true),
    (&["--policy=lasgd"], true),
    (&["--policy=streaming", "--interval=4", "--fragments=2"], true),
    (&["--policy=salf", "--stall-budget=400ms"], true),
    (&["--outer-optimiser=fedavgm"], true),
    (&["--outer-optimiser=fedadam", "--outer-rate=0.01"], true),
    (&["--outer-optimiser=diloco"], true),
    (&["--prox=0.1"], true),
    (&["--scaffold"], true),
    (&["--compress=top:0.1"], true),
    (&["--policy=gossip:dpsgd"], false),
    (&["--policy=gossip:choco"], false),
    (&["--policy=gossip:ada"], false),
    (&["--policy=gossip:partial"], false),
    (&["--policy=gossip:sgp", "--topology=one-peer"], false),
    (&["--policy=gossip:push", "--topology=directed-ring"], false),
    (&["--policy=gossip:push-ada", "--topology=directed-ring"], false),
];

const OUTAGES: [&[&str]; 3] = [
    &["--outages=none"],
    &["--outages=time-fraction", "--offline-fraction=0.3"],
    &["--outages=bernoulli", "--offline-fraction=0.3"],
];

const METHODS: [&[&str]; 8] = [
    &["--preconditioner=none"],
    &["--form=inverse"],
    &["--form=eigen"],
    &["--preconditioner=ekfac"],
    &["--preconditioner=eva"],
    &["--preconditioner=shampoo"],
    &["--preconditioner=soap"],
    &["--preconditioner=muon"],
];

/// Each policy with each of the others once: every preconditioner, and every outage model with some of them.
#[test]
fn every_policy_runs_with_every_preconditioner_and_under_every_outage_model() {
    let folder = Folder::new("product");
    let common = ["--nodes=3", "--iterations=8", "--interval=2", "--max-duration=3", "--inverse-every=3"];
    for (place, (policy, rounds)) in POLICIES.into_iter().enumerate() {
        let statistics: &[&str] = if rounds { &[] } else { &["--local-statistics"] };
        for (turn, method) in METHODS.into_iter().enumerate() {
            let outages = OUTAGES[(place + turn) % OUTAGES.len()];
            let flags = [&common[..], policy, statistics, outages, method].concat();
            let (story, model) = run(&folder, &flags, Keep::Nothing);
            let done = story.nodes.iter().all(|node| node.iterations >= 8 && node.loss.is_finite());
            let averaged = !rounds || story.rounds_committed >= 1;
            // A sign of life has some tens of bytes.
            let said = story.nodes.iter().all(|node| node.bytes_sent >= 1000);
            assert!(done && averaged && said && model.is_some(), "{}: {:?}", flags.join(" "), story.nodes);
        }
    }
}
