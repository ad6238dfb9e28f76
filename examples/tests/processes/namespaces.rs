//! Nodes on machines of their own, as far as the network can tell: in network namespaces, with cables that are cut and
//! slow lines.

use super::{Folder, SMALL, TCP, result, run, until};
use kronfleet_core::cluster::Occurrence;
use kronfleet_core::transport::NodeId;
use kronfleet_examples::run::events::{self, Entry};
use kronfleet_examples::trial::Network;
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// How long a lost node may stall the others.
const BUDGET: Duration = Duration::from_secs(4);

/// Starts a node on its machine.
fn start(network: &Network, folder: &Folder, node: u32) -> Child {
    let join: Vec<String> = (0..3).map(|node| network.address(node) + ":29400").collect();
    let own = [
        format!("--node={node}"),
        "--nodes=3".to_owned(),
        format!("--listen={}:29400", network.address(node)),
        format!("--join={}", join.join(",")),
        format!("--output={}", folder.path(&format!("node{node}"))),
        format!("--stall-budget={}s", BUDGET.as_secs()),
    ];
    let endless = ["--iterations=1000000", "--evaluate-every=1000000", "--samples=600", "--batch=16"];
    let mut command = network.command(node, TCP);
    let command = command.args(own).args(endless).args(["--insecure", "--quiet", "--json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ip was there before")
}

/// What all nodes have recorded: their machines' clock is one and the same here.
fn entries(folder: &Folder, nodes: u32) -> Vec<Entry> {
    let logs = (0..nodes).map(|node| folder.path(&format!("node{node}/events")));
    let mut entries: Vec<Entry> = logs.flat_map(|log| events::collect(Path::new(&log)).unwrap_or_default()).collect();
    entries.sort_by_key(|entry| entry.clock);
    entries
}

/// Waits until there is a later entry like this; answers when it was.
#[track_caller]
fn wait(folder: &Folder, what: &str, after: u64, wanted: impl Fn(&Entry) -> bool) -> u64 {
    let mut found = None;
    until(what, || {
        found = entries(folder, 3).iter().find(|entry| entry.clock > after && wanted(entry)).map(|entry| entry.clock);
        found.is_some()
    });
    found.expect("waited for")
}

fn commit(members: &'static [u32]) -> impl Fn(&Entry) -> bool {
    move |entry| match &entry.record.what {
        Occurrence::Committed { certificate } => {
            certificate.members.iter().map(|member| member.node.0).eq(members.iter().copied())
        }
        _ => false,
    }
}

fn down(at: u32, lost: u32) -> impl Fn(&Entry) -> bool {
    move |entry| {
        let here = entry.record.node == NodeId(at);
        here && matches!(entry.record.what, Occurrence::Down { peer, .. } if peer == NodeId(lost))
    }
}

/// Says why there is no test.
fn skip(why: &str) {
    // Not through `eprintln!`, which tests keep to themselves.
    let _ = writeln!(std::io::stderr(), "skipped: nodes in network namespaces ({why}); it takes root, ip and tc");
}

#[test]
fn sites_behind_slow_lines_train_the_same_model_and_take_as_long_as_the_lines_do() {
    if let Err(why) = Network::of_sites(&[vec![0]]).and_then(|network| network.slow_down_site(0, "1mbit")) {
        return skip(&format!("{why:#}"));
    }
    let fleet = ["--nodes=4", "--iterations=5", "--interval=1", "--kills=0"];
    let folder = Folder::new("sites");
    let near = result(&run(TCP, &folder, &[&SMALL[..], &fleet].concat()).1);
    let lines = ["--sites=2", "--slow-link=5Mb/s", "--fast-link=200Mb/s", "--tls"];
    let far = result(&run(TCP, &folder, &[&SMALL[..], &fleet, &lines].concat()).1);
    assert_eq!((&far["weights"], &far["rounds_committed"]), (&near["weights"], &5.into()));
    // In every round two halves of a model go from site to site twice, once as contributions and once as the mean.
    let floor = 5.0 * 2.0 * 4.0 * 61_706.0 / (5e6 / 8.0);
    let seconds = far["virtual_seconds"].as_f64().expect("a number");
    assert!(seconds > floor, "{seconds} s for what takes {floor} s");
}

#[test]
fn a_cut_cable_stalls_nobody_for_longer_than_the_budget_and_a_slow_line_is_no_outage() {
    let network = match Network::new(3) {
        Ok(network) => network,
        Err(why) => return skip(&format!("{why:#}")),
    };
    let folder = Folder::new("namespaces");
    let nodes: Vec<Child> = (0..3).map(|node| start(&network, &folder, node)).collect();
    let together = wait(&folder, "a commit of all", 0, commit(&[0, 1, 2]));

    let cut = events::clock();
    network.plug(2, "down").expect("it was done before");
    // The kernel pulls it when it has the time, and not while it makes networks for others.
    let pulled = events::clock();
    let lost = [0, 1].map(|node| wait(&folder, "the loss", cut.max(together), down(node, 2)));
    let stalled = Duration::from_nanos(lost.into_iter().max().expect("two").saturating_sub(pulled));
    assert!(stalled <= BUDGET, "the others knew after {stalled:?}");
    let without = wait(&folder, "a commit of those that are left", cut, commit(&[0, 1]));
    wait(&folder, "loneliness", cut, down(2, 0));

    network.plug(2, "up").expect("it was done before");
    let again = wait(&folder, "a commit of all again", without, commit(&[0, 1, 2]));

    network.slow_down(1, None, "40mbit").expect("a queue of the kernel");
    let slowed = events::clock();
    let mut seen = again.max(slowed);
    for _ in 0..3 {
        seen = wait(&folder, "a commit over a slow line", seen, commit(&[0, 1, 2]));
    }
    assert!(!entries(&folder, 3).iter().any(|entry| entry.clock > slowed && down(0, 1)(entry)), "slow is not lost");

    for node in &nodes {
        kill_process(Pid::from_child(node), Signal::TERM).expect("ours");
    }
    for node in nodes {
        assert_eq!(result(&node.wait_with_output().expect("it ends"))["interrupted"], true);
    }
    events::check(&entries(&folder, 3), "of three machines").expect("all safety invariants hold");
}
