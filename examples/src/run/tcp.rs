//! What a trainer over TCP needs beyond the others: a place to meet, certificates, and a node's number from whoever
//! started the process.

use super::timeouts::Timeouts;
use crate::run::processes::{Connection, Launcher, Place, Preparation, Run};
use crate::settings::{Line, TcpSettings};
use crate::trial::Network;
use anyhow::{Context, Error, Result, bail};
use kronfleet_core::cluster::RunId;
use kronfleet_core::time::Duration;
use kronfleet_core::transport::{NodeId, Transport};
use kronfleet_tcp::certificates::Authority;
use kronfleet_tcp::launch::Launch;
use kronfleet_tcp::tls::Identity;
use kronfleet_tcp::{Options, TcpEndpoint, Waker};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// How long certificates that are made for one run are valid.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// Where nodes listen that have machines of their own.
const PORT: u16 = 7700;

/// How long the meeting place sleeps at most.
const IDLE: Duration = Duration::from_secs(60);

/// Prepares the process that the user, or a launcher, starts: what it starts in turn, and with which arguments.
///
/// By itself it starts all nodes on this machine and is the place where they first meet, a node without a part in the
/// training; they do not need it later. With `--node`, or where [`Launch`] finds a launcher's variables, it starts one.
///
/// # Errors
/// If the environment or the settings make no sense, or certificates cannot be made.
pub fn prepare(settings: &TcpSettings, run: Run) -> Result<Preparation> {
    let timeouts = Timeouts::derive(settings, run.budget)?.to_string();
    Ok(Preparation { timeouts, ..place(settings, run)? })
}

fn place(settings: &TcpSettings, run: Run) -> Result<Preparation> {
    let Run { id, nodes, .. } = run;
    if let (Some(slow), Some(fast)) = (settings.slow_link, settings.fast_link) {
        return scatter(settings, &Run { nodes: settings.spawn.unwrap_or(nodes), ..run }, [slow, fast])
            .context("no sites with lines of their own on this machine");
    }
    if let Some(nodes) = settings.spawn {
        return meet(settings, id, nodes);
    }
    let launch = if settings.node.is_some() { None } else { Launch::from_environment()? };
    let (node, nodes, seeds, listen) = match (settings.node, launch) {
        (Some(node), _) => (node, nodes, Vec::new(), None),
        (None, Some(launch)) => (launch.node.0, launch.nodes, launch.seeds, Some(launch.listen)),
        (None, None) => return meet(settings, id, nodes),
    };
    if node >= nodes {
        bail!("--node {node} is none of {nodes} nodes, which count from 0");
    }
    if settings.tls && settings.certificates.is_none() {
        bail!("--tls between machines needs --certificates: `kronfleet-tcp certificates` makes them");
    }
    // What the node would refuse is refused before it is started.
    options(settings, id, NodeId(node), &seeds, listen)?.check()?;
    let mut arguments = vec![format!("--nodes={nodes}"), "--elsewhere".to_owned()];
    arguments.extend((!seeds.is_empty()).then(|| format!("--join={}", seeds.join(","))));
    arguments.extend(listen.filter(|_| settings.listen.is_none()).map(|listen| format!("--listen={listen}")));
    // A later start has to be known as one, on whatever machine it is.
    let first = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_micros() as u64;
    Ok(Preparation {
        ranks: node..node + 1,
        first_start: first.max(1),
        arguments: arguments.into_iter().map(Into::into).collect(),
        ..Preparation::all(nodes)
    })
}

/// All nodes on this machine.
fn meet(settings: &TcpSettings, run: RunId, nodes: u32) -> Result<Preparation> {
    let mut arguments: Vec<OsString> = vec![format!("--nodes={nodes}").into()];
    // One more: the place where they meet.
    let folder = certificates(settings, run, nodes + 1)?;
    let made = folder.as_ref().map(TempDir::path);
    arguments.extend(made.into_iter().flat_map(|made| ["--certificates".into(), made.into()]));
    let more = "the place where nodes meet needs a certificate of its own: make one more";
    let load = |folder: &Path| Identity::load(folder, run, NodeId(nodes)).context(more);
    let identity = settings.certificates.as_deref().or(made).map(load).transpose()?;
    let end =
        TcpEndpoint::open(Options { nodes: nodes + 1, identity, relay: false, ..Options::new(run, NodeId(nodes)) })?;
    let address = end.address().context("the place where nodes meet has no address")?;
    arguments.push(format!("--join={address}").into());
    let keep = Box::new((folder, Meeting::begin(end)));
    Ok(Preparation { arguments, keep, ..Preparation::all(nodes) })
}

/// All nodes on this machine, each as if it had one of its own, behind lines that are as slow as these.
fn scatter(settings: &TcpSettings, run: &Run, lines: [Line; 2]) -> Result<Preparation> {
    let &Run { id, nodes, .. } = run;
    if settings.listen.is_some() || !settings.join.is_empty() || !settings.advertise.is_empty() {
        bail!("--slow-link gives nodes addresses of their own: leave out --listen, --join and --advertise");
    }
    run.sites.check(nodes).map_err(Error::msg)?;
    let [slow, fast] = lines.map(Line::rate);
    let (slow, fast) = (slow.map_err(Error::msg)?, fast.map_err(Error::msg)?);
    let groups = run.sites.groups(nodes);
    let sites: Vec<Vec<u32>> = groups.iter().map(|site| site.iter().map(|node| node.0).collect()).collect();
    let network = Rc::new(Network::of_sites(&sites)?);
    for (site, nodes) in (0..).zip(&sites) {
        network.slow_down_site(site, &slow)?;
        nodes.iter().try_for_each(|&node| network.slow_down(node, Some(site), &fast))?;
    }
    // Nobody else reaches these machines.
    let mut arguments: Vec<OsString> = vec![format!("--nodes={nodes}").into(), "--insecure".into()];
    let addresses: Vec<String> = (0..nodes).map(|node| format!("{}:{PORT}", network.address(node))).collect();
    arguments.push(format!("--join={}", addresses.join(",")).into());
    let folder = certificates(settings, id, nodes)?;
    arguments.extend(folder.iter().flat_map(|made| ["--certificates".into(), made.path().into()]));
    let machines = Rc::clone(&network);
    let launcher: Launcher = Box::new(move |node, program| {
        let mut command = machines.command(node, program.as_os_str());
        command.arg(format!("--listen={}", addresses[node as usize]));
        command
    });
    Ok(Preparation { arguments, launcher, keep: Box::new((folder, network)), ..Preparation::all(nodes) })
}

/// A folder with certificates for so many, if they are wanted and there are none.
fn certificates(settings: &TcpSettings, run: RunId, count: u32) -> Result<Option<TempDir>> {
    if !settings.tls || settings.certificates.is_some() {
        return Ok(None);
    }
    let made = tempfile::Builder::new().prefix("kronfleet-").tempdir().context("no folder for certificates")?;
    Authority::new(run, LIFETIME)?.write(made.path(), count, false)?;
    Ok(Some(made))
}

/// Who a node is, where it listens and whom it looks for, where a launcher has not said so otherwise.
fn options(
    settings: &TcpSettings,
    run: RunId,
    node: NodeId,
    seeds: &[String],
    listen: Option<SocketAddr>,
) -> Result<Options> {
    let usual = Options::new(run, node);
    let identity = |folder: &Path| Identity::load(folder, run, node);
    Ok(Options {
        listen: settings.listen.or(listen).or(usual.listen),
        advertise: settings.advertise.clone(),
        seeds: settings.join.iter().chain(seeds).cloned().collect(),
        identity: settings.certificates.as_deref().map(identity).transpose()?,
        insecure: settings.insecure,
        ..usual
    })
}

/// A node's end.
///
/// # Errors
/// If it cannot be opened: see [`TcpEndpoint::open`].
pub fn open(settings: &TcpSettings, place: &Place) -> Result<Connection> {
    let timeouts = Timeouts::derive(settings, place.budget)?;
    let end = TcpEndpoint::open(Options {
        incarnation: place.incarnation,
        nodes: place.nodes + 1,
        handshake: timeouts.connect,
        silence: timeouts.silence,
        backoff: timeouts.redial,
        backoff_longest: timeouts.redial_longest,
        relay_after: timeouts.relay,
        ..options(settings, place.run, place.node, &[], None)?
    })?;
    let waker = end.waker();
    Ok(Connection { transport: Box::new(end), wake: Box::new(move || waker.wake()) })
}

/// Where nodes of this machine meet first: an end that passes on addresses until it is dropped.
struct Meeting {
    over: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Meeting {
    fn begin(mut end: TcpEndpoint) -> Self {
        let over = Arc::<AtomicBool>::default();
        let (waker, ended) = (end.waker(), Arc::clone(&over));
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Acquire) {
                let deadline = end.now() + IDLE;
                if let Err(error) = end.recv(deadline, &mut |_| {}) {
                    // Whoever has met already goes on without it.
                    eprintln!("nodes cannot meet any more: {error}");
                    return;
                }
            }
        });
        Self { over, waker, thread: Some(thread) }
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // A panic of its own was printed, and is no reason for another.
            let _ = thread.join();
        }
    }
}
