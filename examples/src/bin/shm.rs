//! Nodes as processes of one machine that talk through shared memory.

use anyhow::Result;
use kronfleet_examples::run::processes::{Connection, NoSettings, Place, main as train};
use kronfleet_shm::{Options, ShmEndpoint};
use std::process::ExitCode;

fn main() -> Result<ExitCode> {
    train(
        "shm",
        "Train a network among processes of this machine that talk through shared memory, and die and come back.\n\n\
         Without arguments: 4 processes, LeNet-5, K-FAC, embedded Fashion-MNIST; one process is killed on the way and \
         started again. The run folder holds metrics.csv, report.md and a plot.",
        |_: &NoSettings, place: &Place| {
            let options = Options::new(&place.session, place.run, place.nodes, place.node);
            // By then the others have gone on without whoever has this place and stands still.
            let still = place.budget.down();
            let endpoint = ShmEndpoint::open(&Options { fence_after: Some(still), ..options })?;
            if let Some(former) = endpoint.fenced() {
                eprintln!(
                    "{}: process {}, a former start that had stood still for {still:?}, was ended; {} takes its place",
                    place.node, former.pid, place.incarnation
                );
            }
            let waker = endpoint.waker();
            Ok(Connection { transport: Box::new(endpoint), wake: Box::new(move || waker.wake()) })
        },
    )
}
