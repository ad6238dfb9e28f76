//! The transport laws, with all ends in one process and with each in a process of its own, and what is particular to
//! processes: they are killed, stopped and started again.

mod faults;
mod remote;

use kronfleet_conformance::transport::{Fabric, Promise};
use kronfleet_core::cluster::RunId;
use kronfleet_core::transport::NodeId;
use kronfleet_shm::{Options, ShmEndpoint};
use remote::Remote;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What every segment of these tests is called, followed by a number.
fn prefix() -> String {
    format!("test-{}", std::process::id())
}

/// Options of nodes that meet nobody else's.
fn options(nodes: u32) -> Vec<Options> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let name = format!("{}-{}", prefix(), MADE.fetch_add(1, Ordering::Relaxed));
    // Small rings: the laws fill them.
    let options = |node| Options { capacity: 1 << 16, ..Options::new(&name, RunId(1), nodes, NodeId(node)) };
    (0..nodes).map(options).collect()
}

const PROMISE: Promise = Promise { settle: Duration::from_millis(500), ..Promise::RELIABLE };

/// All ends in this process.
struct Threads;

impl Fabric for Threads {
    type End = ShmEndpoint;

    fn connect(&mut self, nodes: u32) -> Vec<ShmEndpoint> {
        options(nodes).iter().map(|options| ShmEndpoint::open(options).expect("a segment of our own")).collect()
    }

    fn promise(&self) -> Promise {
        PROMISE
    }
}

/// Every end in a process of its own, which is killed.
struct Processes;

impl Fabric for Processes {
    type End = Remote;

    fn connect(&mut self, nodes: u32) -> Vec<Remote> {
        options(nodes).iter().map(Remote::start).collect()
    }

    fn kill(&mut self, end: Remote) {
        end.kill();
    }

    fn promise(&self) -> Promise {
        PROMISE
    }
}

mod within_a_process {
    kronfleet_conformance::transport_laws!(super::Threads);
}

mod between_processes {
    kronfleet_conformance::transport_laws!(super::Processes);
}
