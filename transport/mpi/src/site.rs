//! MPI as a whole: entered once, on a thread of its own, and left when nobody needs it any more.

use crate::endpoint::MpiEndpoint;
use crate::mailbox::Mailbox;
use crate::pump::pump;
use mpi::Threading;
use mpi::environment::{initialize_with_threading, threading_support};
use mpi::topology::Color;
use mpi::traits::Communicator;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// This process's part in an MPI job.
///
/// MPI can be entered once per process. It lives on a thread of its own, the only one that calls it; when the site and its
/// end are dropped, that thread leaves MPI, which waits until all other processes of the job leave it, too.
#[derive(Clone)]
pub struct Site {
    residence: Arc<Residence>,
}

/// The thread that MPI lives on; dropping this ends it.
struct Residence {
    rank: u32,
    ranks: u32,
    orders: Mutex<Option<SyncSender<Order>>>,
    thread: Option<JoinHandle<()>>,
}

/// An end for a node of this rank among the first so many.
struct Order {
    nodes: u32,
    answer: SyncSender<Option<Arc<Mailbox>>>,
}

/// Why MPI cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SiteError {
    /// It has been entered before.
    #[error("MPI can be entered once per process, and has been: clone the `Site` instead")]
    Entered,
    /// The library allows one thread per process.
    #[error("this MPI library allows processes of one thread only; use one that offers MPI_THREAD_FUNNELED")]
    Threads,
    /// Its thread has ended early.
    #[error("the thread of MPI has ended; its own message says why")]
    Ended,
}

impl Site {
    /// Enters MPI; waits until every process of the job does.
    ///
    /// Without `mpirun`, or the site's own launcher, the job is this one process.
    ///
    /// # Errors
    /// If it was entered before, or the library does not allow other threads to run beside the one that calls it.
    pub fn enter() -> Result<Self, SiteError> {
        let (ready, entered) = sync_channel(1);
        let (orders, taken) = sync_channel(1);
        let thread = std::thread::spawn(move || reside(&ready, &taken));
        let (rank, ranks) = entered.recv().unwrap_or(Err(SiteError::Ended))?;
        let (orders, thread) = (Mutex::new(Some(orders)), Some(thread));
        Ok(Self { residence: Arc::new(Residence { rank, ranks, orders, thread }) })
    }

    /// Which process of the job this is, from 0.
    pub fn rank(&self) -> u32 {
        self.residence.rank
    }

    /// How many processes the job has.
    pub fn ranks(&self) -> u32 {
        self.residence.ranks
    }

    /// The end of the node of this rank among the first so many; `None` in all other processes.
    ///
    /// Waits until *every* process of the job has called it with the same number, and until an end that was opened before
    /// is gone. Ends hear nothing of what earlier ones have sent.
    ///
    /// # Errors
    /// If MPI's thread has ended.
    pub fn open(&self, nodes: u32) -> Result<Option<MpiEndpoint>, SiteError> {
        let (answer, answered) = sync_channel(1);
        let orders = self.residence.orders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ordered = orders.is_some_and(|orders| orders.send(Order { nodes, answer }).is_ok());
        let mailbox = answered.recv().ok().filter(|_| ordered).ok_or(SiteError::Ended)?;
        Ok(mailbox.map(|mailbox| MpiEndpoint::new(self.clone(), mailbox)))
    }
}

impl Drop for Residence {
    fn drop(&mut self) {
        self.orders.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = self.thread.take() {
            // Its panic was printed, and is no reason for another.
            let _ = thread.join();
        }
    }
}

/// The life of MPI's thread.
fn reside(ready: &SyncSender<Result<(u32, u32), SiteError>>, orders: &Receiver<Order>) {
    let entered = initialize_with_threading(Threading::Funneled).ok_or(SiteError::Entered);
    let universe = match entered {
        Ok(_) if threading_support() < Threading::Funneled => Err(SiteError::Threads),
        entered => entered.map(|(universe, _)| universe),
    };
    let universe = match universe {
        Ok(universe) => universe,
        Err(error) => {
            // If nobody waits for the answer, nobody misses it.
            let _ = ready.send(Err(error));
            return;
        }
    };
    let world = universe.world();
    let (rank, ranks) = (world.rank() as u32, world.size() as u32);
    if ready.send(Ok((rank, ranks))).is_err() {
        return;
    }
    for Order { nodes, answer } in orders {
        let color = if rank < nodes { Color::with_value(0) } else { Color::undefined() };
        let Some(communicator) = world.split_by_color(color) else {
            // Nobody waits for the answer any more: so be it.
            let _ = answer.send(None);
            continue;
        };
        let mailbox = Arc::new(Mailbox::new(rank, communicator.size() as u32));
        if answer.send(Some(Arc::clone(&mailbox))).is_err() {
            mailbox.leave(false);
        }
        pump(&communicator, &mailbox);
    }
}
