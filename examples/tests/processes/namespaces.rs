//! Nodes on machines of their own, as far as the network can tell: in network namespaces, with cables that are cut and
//! slow lines.

use super::{Folder, TCP, result, until};
use kronfleet_core::cluster::Occurrence;
use kronfleet_core::transport::NodeId;
use kronfleet_examples::run::events::{self, Entry};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// How long a lost node may stall the others.
const BUDGET: Duration = Duration::from_secs(4);

/// Machines on one switch, each with one cable. Dropping it removes them.
struct Network {
    name: String,
    nodes: u32,
}

impl Network {
    /// So many machines; why not, if they cannot be had.
    fn new(nodes: u32) -> Result<Self, String> {
        let network = Self { name: format!("kf{}", std::process::id()), nodes };
        network.build()?;
        Ok(network)
    }

    fn build(&self) -> Result<(), String> {
        let hub = self.hub();
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link add switch type bridge"))?;
        ip(&format!("-n {hub} link set switch up"))?;
        for node in 0..self.nodes {
            let machine = self.machine(node);
            ip(&format!("netns add {machine}"))?;
            ip(&format!("-n {hub} link add port{node} type veth peer name cable netns {machine}"))?;
            ip(&format!("-n {hub} link set port{node} master switch up"))?;
            ip(&format!("-n {machine} address add {}/24 dev cable", address(node)))?;
            ip(&format!("-n {machine} link set cable up"))?;
            ip(&format!("-n {machine} link set lo up"))?;
        }
        Ok(())
    }

    fn hub(&self) -> String {
        format!("{}hub", self.name)
    }

    fn machine(&self, node: u32) -> String {
        format!("{}n{node}", self.name)
    }

    /// Pulls a machine's cable out of the switch, or puts it in again.
    #[track_caller]
    fn plug(&self, node: u32, state: &str) {
        ip(&format!("-n {} link set port{node} {state}", self.hub())).expect("it was done before");
    }

    /// Makes a machine's line slow in both directions.
    #[track_caller]
    fn slow_down(&self, node: u32, rate: &str) {
        for (place, device) in [(self.hub(), format!("port{node}")), (self.machine(node), "cable".to_owned())] {
            let words = format!("-n {place} qdisc add dev {device} root tbf rate {rate} burst 32kb latency 100ms");
            tool("tc", &words).expect("a queue of the kernel");
        }
    }

    /// Starts a node on its machine.
    fn start(&self, folder: &Folder, node: u32) -> Child {
        let mut command = Command::new("ip");
        let join: Vec<String> = (0..self.nodes).map(|node| address(node) + ":29400").collect();
        let own = [
            format!("--node={node}"),
            format!("--nodes={}", self.nodes),
            format!("--listen={}:29400", address(node)),
            format!("--join={}", join.join(",")),
            format!("--output={}", folder.path(&format!("node{node}"))),
            format!("--stall-budget={}s", BUDGET.as_secs()),
        ];
        let endless = ["--iterations=1000000", "--evaluate-every=1000000", "--samples=600", "--batch=16"];
        let command = command.args(["netns", "exec", &self.machine(node), TCP]).args(own).args(endless);
        let command = command.args(["--insecure", "--quiet", "--json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ip was there before")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for node in 0..self.nodes {
            let _ = ip(&format!("netns delete {}", self.machine(node)));
        }
        let _ = ip(&format!("netns delete {}", self.hub()));
    }
}

fn address(node: u32) -> String {
    format!("10.77.0.{}", node + 1)
}

fn ip(words: &str) -> Result<(), String> {
    tool("ip", words)
}

fn tool(name: &str, words: &str) -> Result<(), String> {
    let run = Command::new(name).args(words.split(' ')).output();
    match run {
        Ok(Output { status, .. }) if status.success() => Ok(()),
        Ok(Output { stderr, .. }) => Err(format!("{name} {words}: {}", String::from_utf8_lossy(&stderr).trim())),
        Err(error) => Err(format!("{name}: {error}")),
    }
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

#[test]
fn a_cut_cable_stalls_nobody_for_longer_than_the_budget_and_a_slow_line_is_no_outage() {
    let network = match Network::new(3) {
        Ok(network) => network,
        Err(why) => {
            // Not through `eprintln!`, which tests keep to themselves.
            let _ = writeln!(std::io::stderr(), "skipped: nodes in network namespaces ({why}); it takes root and ip");
            return;
        }
    };
    let folder = Folder::new("namespaces");
    let nodes: Vec<Child> = (0..3).map(|node| network.start(&folder, node)).collect();
    let together = wait(&folder, "a commit of all", 0, commit(&[0, 1, 2]));

    let cut = events::clock();
    network.plug(2, "down");
    let lost = [0, 1].map(|node| wait(&folder, "the loss", cut.max(together), down(node, 2)));
    let stalled = Duration::from_nanos(lost.into_iter().max().expect("two") - cut);
    assert!(stalled <= BUDGET, "the others knew after {stalled:?}");
    let without = wait(&folder, "a commit of those that are left", cut, commit(&[0, 1]));
    wait(&folder, "loneliness", cut, down(2, 0));

    network.plug(2, "up");
    let again = wait(&folder, "a commit of all again", without, commit(&[0, 1, 2]));

    network.slow_down(1, "40mbit");
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
