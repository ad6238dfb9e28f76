//! How fast a node that was killed has the fleet's state again, over a slow line.

use crate::report::Line;
use crate::sibling;
use anyhow::{Context, Result, ensure};
use kronfleet_core::cluster::{Incarnation, Occurrence, Record};
use kronfleet_core::transport::NodeId;
use kronfleet_examples::run::events::{Entry, clock};
use kronfleet_examples::trial::{Network, Observed, loss_of};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const NODES: u32 = 3;

/// The node that is killed, behind the slow line.
const VICTIM: u32 = 2;

/// Averages of all nodes that are waited for once it has caught up.
const AFTERWARDS: u32 = 3;

/// The network that is trained: 784, 512, 512 and 10 wide.
const MODEL: &str = "mlp";
const BYTES: usize = 4 * ((784 + 1) * 512 + (512 + 1) * 512 + (512 + 1) * 10);

/// A network of which one node has a slow line: what this machine may not be able to have.
pub(crate) fn network(rate: &str) -> Result<Network> {
    let network = Network::new(NODES)?;
    network.slow_down(VICTIM, None, rate)?;
    Ok(network)
}

pub(crate) fn measure(network: &Network, budget: Duration) -> Result<Line> {
    let floor = floor(network)?;
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let nodes: Vec<Observed> =
        (0..NODES).map(|node| start(network, folder.path(), node, budget)).collect::<Result<_>>()?;
    let victim = &nodes[VICTIM as usize];
    let together = victim.commit(&[0, 1, 2], 0)?;
    victim.signal(VICTIM, Signal::KILL)?;
    // It may be back before the others have come to another average without it.
    nodes[0].wait("its loss", together, loss_of(VICTIM))?;
    let again = |record: &Record| record.incarnation > Incarnation(1) && record.node == NodeId(VICTIM);
    let wait = |what, wanted: fn(&Occurrence) -> bool| {
        victim.wait(what, together, move |record| again(record) && wanted(&record.what))
    };
    let ready = wait("its first averaging", |what| matches!(what, Occurrence::Ready { .. }))?;
    let healed = wait("its catching up", |what| matches!(what, Occurrence::Healed { .. }))?;
    // Where too few others were ready for a round, one of them gave it the state.
    let began = began(&nodes[0].entries(), ready, healed).or_else(|| began(&victim.entries(), ready, healed));
    let began = began.context("nobody has brought the node up to date")?;
    let seconds = (healed - began) as f64 / 1e9;
    // From then on it takes part in full.
    let mut last = healed;
    for _ in 0..AFTERWARDS {
        last = nodes[0].commit(&[0, 1, 2], last)?;
    }
    let stalled = longest_wait(&nodes[0].entries(), ready, clock());
    for node in nodes {
        node.end()?;
    }
    let share = floor / seconds;
    Ok(Line {
        what: "caught up",
        transport: "tcp",
        processes: NODES,
        seconds: vec![seconds],
        floor: vec![floor],
        limit: None,
        more: vec![("share_of_the_line", share), ("others_waited_at_most_s", stalled)],
    })
}

/// A node on a machine of its own, which trains until it is told to leave.
fn start(network: &Network, folder: &Path, node: u32, budget: Duration) -> Result<Observed> {
    let program = sibling("tcp")?.display().to_string();
    let output = folder.join(format!("node{node}"));
    let join: Vec<String> = (0..NODES).map(|node| network.address(node) + ":29400").collect();
    let own = [
        format!("--node={node}"),
        format!("--nodes={NODES}"),
        format!("--listen={}:29400", network.address(node)),
        format!("--join={}", join.join(",")),
        format!("--output={}", output.display()),
        format!("--stall-budget={}ms", budget.as_millis()),
        format!("--model={MODEL}"),
    ];
    let endless = ["--iterations=1000000000", "--evaluate-every=1000000000", "--batch=16", "--preconditioner=none"];
    let mut command = network.command(node, &program);
    command.args(own).args(endless).args(["--interval=20", "--away=1ms", "--insecure", "--quiet", "--json"]);
    Observed::launch(&mut command, output.join("events"))
}

/// Seconds that the line takes for the model's bytes without any protocol.
fn floor(network: &Network) -> Result<f64> {
    let program = std::env::current_exe().context("cannot find this program")?.display().to_string();
    let address = network.address(0) + ":29399";
    let mut giving = network.command(0, &program);
    let giving = giving.args(["--serve", &address, &BYTES.to_string()]).stdout(Stdio::piped());
    let mut giving = giving.spawn().context("cannot start this program again")?;
    let mut said = BufReader::new(giving.stdout.take().context("it was asked for")?);
    said.read_line(&mut String::new())?;
    let taking = network.command(VICTIM, &program).args(["--fetch", &address]).output()?;
    giving.wait()?;
    said.read_to_string(&mut String::new())?;
    let text = String::from_utf8(taking.stdout)?;
    let (seconds, bytes) = text.trim().split_once(' ').context("it says how long it took")?;
    ensure!(bytes.parse() == Ok(BYTES), "{bytes} bytes came over the line instead of {BYTES}");
    Ok(seconds.parse()?)
}

/// When the round was proposed that brought the node up to date, or it asked for the state: the last time before it had it.
fn began(entries: &[Entry], ready: u64, healed: u64) -> Option<u64> {
    let with = |record: &Record| match &record.what {
        Occurrence::Proposed { members, .. } => members.contains(&NodeId(VICTIM)),
        Occurrence::Healing { .. } => record.node == NodeId(VICTIM),
        _ => false,
    };
    let mut proposed = entries.iter().filter(|entry| (ready..healed).contains(&entry.clock) && with(&entry.record));
    proposed.next_back().map(|entry| entry.clock)
}

/// The longest time that a node waited for the outcome of a round, of the waits that ended between `from` and `until`; in
/// seconds.
fn longest_wait(entries: &[Entry], from: u64, until: u64) -> f64 {
    let mut longest = 0;
    let mut since = None;
    for Entry { clock, record } in entries.iter().filter(|entry| entry.clock < until) {
        match record.what {
            Occurrence::Ready { .. } => since = Some(*clock),
            Occurrence::Committed { .. } | Occurrence::Abandoned { .. } => {
                let waited = since.take().filter(|_| *clock >= from).map_or(0, |since| clock - since);
                longest = longest.max(waited);
            }
            _ => {}
        }
    }
    longest as f64 / 1e9
}
