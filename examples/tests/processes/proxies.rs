//! Nodes whose connections lead through proxies that hold everything up, each piece for another time, and that break.

use super::{Folder, TCP, result, until};
use kronfleet_core::cluster::Incarnation;
use kronfleet_core::seed::Seed;
use kronfleet_examples::run::events::{self, Entry};
use kronfleet_examples::trial::commit_of;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Everything is held up for so long at least, and for up to twice as long.
const DELAY: Duration = Duration::from_millis(10);

/// Passes on everything between whoever dials it and a target, late.
///
/// What one connection carries stays in order, as on any; what different connections carry does not.
struct Proxy {
    address: SocketAddr,
    wires: Arc<Mutex<Vec<TcpStream>>>,
    over: Arc<AtomicBool>,
}

impl Proxy {
    fn new(target: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (wires, over) = (Arc::<Mutex<Vec<TcpStream>>>::default(), Arc::<AtomicBool>::default());
        let (known, ended) = (Arc::clone(&wires), Arc::clone(&over));
        thread::spawn(move || {
            for (number, dialled) in listener.incoming().map_while(Result::ok).enumerate() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                // Nobody listens there yet, or any more: this connection ends.
                let Ok(reached) = TcpStream::connect(target) else { continue };
                let wire = |end: &TcpStream| end.try_clone().expect("a handle more");
                known.lock().expect("nobody panics").extend([wire(&dialled), wire(&reached)]);
                pass(wire(&dialled), wire(&reached), Seed(seed).derive("there", number as u64));
                pass(reached, dialled, Seed(seed).derive("back", number as u64));
            }
        });
        Self { address, wires, over }
    }

    /// Cuts all connections.
    fn cut(&self) {
        for wire in self.wires.lock().expect("nobody panics").drain(..) {
            let _ = wire.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.cut();
        // Wakes the listener's thread, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

/// Passes on what comes from `from`, each piece as late as chance wants it; on threads that end with the connection.
fn pass(mut from: TcpStream, mut to: TcpStream, seed: Seed) {
    let (late, due) = channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut random = seed.random();
        let mut bytes = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let more = random.below(DELAY.as_micros() as u64);
            let when = Instant::now() + DELAY + Duration::from_micros(more);
            if late.send((when, bytes[..count].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (when, bytes) in due.iter() {
            // This is what the proxy is for.
            let (never, timer) = channel::<()>();
            let waited = timer.recv_timeout(when.saturating_duration_since(Instant::now()));
            assert_eq!(waited, Err(RecvTimeoutError::Timeout));
            drop(never);
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// An address of this machine that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port")
}

fn entries(folder: &Folder) -> Vec<Entry> {
    let logs = (0..3).map(|node| folder.path(&format!("node{node}/events")));
    let mut entries: Vec<Entry> = logs.flat_map(|log| events::collect(Path::new(&log)).unwrap_or_default()).collect();
    entries.sort_by_key(|entry| entry.clock);
    entries
}

/// Waits for a later commit of all; answers when it was.
#[track_caller]
fn commit(folder: &Folder, after: u64) -> u64 {
    let all = commit_of(&[0, 1, 2]);
    let mut found = None;
    until("a commit of all", || {
        found = entries(folder).iter().find(|entry| entry.clock > after && all(&entry.record)).map(|entry| entry.clock);
        found.is_some()
    });
    found.expect("waited for")
}

#[test]
fn late_and_broken_connections_cost_time_and_nothing_else() {
    let folder = Folder::new("proxies");
    let listens = [free(), free(), free()];
    let proxies: Vec<Proxy> = listens.iter().enumerate().map(|(node, &to)| Proxy::new(to, node as u64)).collect();
    let join: Vec<String> = proxies.iter().map(|proxy| proxy.address.to_string()).collect();
    let nodes: Vec<Child> = (0..3)
        .map(|node| {
            let own = [
                format!("--node={node}"),
                format!("--listen={}", listens[node]),
                format!("--advertise={}", proxies[node].address),
                format!("--join={}", join.join(",")),
                format!("--output={}", folder.path(&format!("node{node}"))),
            ];
            let flags = ["--nodes=3", "--stall-budget=8s", "--iterations=1000000", "--evaluate-every=1000000"];
            let small = ["--samples=600", "--batch=16", "--preconditioner=none", "--quiet", "--json"];
            let mut command = Command::new(TCP);
            let command = command.args(own).args(flags).args(small).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("the program starts")
        })
        .collect();
    let mut seen = commit(&folder, 0);
    for proxy in [&proxies[2], &proxies[0], &proxies[1]] {
        proxy.cut();
        seen = commit(&folder, seen.max(events::clock()));
    }
    for node in &nodes {
        kill_process(Pid::from_child(node), Signal::TERM).expect("ours");
    }
    for node in nodes {
        assert_eq!(result(&node.wait_with_output().expect("it ends"))["interrupted"], true);
    }
    let entries = entries(&folder);
    let starts: std::collections::BTreeSet<Incarnation> =
        entries.iter().map(|entry| entry.record.incarnation).collect();
    assert_eq!(starts.len(), 3, "nobody was started anew");
    events::check(&entries, "behind proxies").expect("all safety invariants hold");
}
