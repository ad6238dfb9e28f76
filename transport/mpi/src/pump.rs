//! The loop of MPI's thread: what is in the mailbox goes out, what comes goes in.

use crate::mailbox::{Errand, LONGEST, Mailbox};
use mpi::point_to_point::{Message, Status};
use mpi::request::{Request, scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, Destination, Equivalence, Source};
use std::thread;
use std::time::{Duration, Instant};

/// What a message is.
mod tag {
    use mpi::Tag;

    /// A frame.
    pub(super) const FRAME: Tag = 1;
    /// How much room there is again.
    pub(super) const CREDIT: Tag = 2;
    /// The sender leaves.
    pub(super) const GOODBYE: Tag = 3;
}

/// How long it looks for messages before it sleeps.
const WATCH: Duration = Duration::from_micros(50);
/// How long it sleeps first; nothing in MPI wakes a sleeper, so that it looks again by itself.
const FIRST_NAP: Duration = Duration::from_micros(20);
/// And at last.
const LAST_NAP: Duration = Duration::from_micros(500);

/// Ends a mailbox, however its pump ends.
struct Ending<'a>(&'a Mailbox);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Serves a mailbox until its node and all others have left.
pub(crate) fn pump(communicator: &SimpleCommunicator, mailbox: &Mailbox) {
    let _ending = Ending(mailbox);
    mailbox.attend();
    let mut errands = Vec::new();
    let (mut idle_since, mut nap) = (None, FIRST_NAP);
    loop {
        mailbox.errands(&mut errands);
        let busy = !errands.is_empty();
        if mailbox.aborts() {
            eprintln!("n{} panics and ends the whole MPI job, for the others would wait for it", mailbox.node());
            communicator.abort(101);
        }
        run(&mut errands, communicator, mailbox);
        if receive(communicator, mailbox) || busy {
            (idle_since, nap) = (None, FIRST_NAP);
            continue;
        }
        if mailbox.is_done() {
            return;
        }
        if idle_since.get_or_insert_with(Instant::now).elapsed() < WATCH {
            thread::yield_now();
        } else {
            thread::park_timeout(nap);
            nap = (nap * 2).min(LAST_NAP);
        }
    }
}

/// Sends all of them; receives meanwhile, so that peers which do the same get on, too.
///
/// Nobody waits for a slow node here: every peer's mailbox has room for what it was sent, and its pump never rests.
fn run(errands: &mut Vec<Errand>, communicator: &SimpleCommunicator, mailbox: &Mailbox) {
    scope(|scope| {
        let mut under_way: Vec<Request<'_, [u8], _>> = Vec::new();
        for errand in errands.iter() {
            let (to, bytes, tag): (u32, &[u8], _) = match errand {
                Errand::Frame(to, frame) => (*to, frame, tag::FRAME),
                Errand::Credit(to, credit) => (*to, credit, tag::CREDIT),
                Errand::Goodbye(to) => (*to, &[], tag::GOODBYE),
            };
            under_way.push(communicator.process_at_rank(to as i32).immediate_send_with_tag(scope, bytes, tag));
        }
        while !under_way.is_empty() {
            receive(communicator, mailbox);
            under_way = under_way.into_iter().filter_map(|request| request.test().err()).collect();
        }
    });
    mailbox.sent(errands.drain(..));
}

/// Takes in what has come; answers whether anything had.
fn receive(communicator: &SimpleCommunicator, mailbox: &Mailbox) -> bool {
    let mut any = false;
    while let Some((message, status)) = communicator.any_process().immediate_matched_probe() {
        accept(message, status, mailbox);
        any = true;
    }
    any
}

fn accept(message: Message, status: Status, mailbox: &Mailbox) {
    let (from, len) = (status.source_rank() as u32, status.count(u8::equivalent_datatype()) as usize);
    match status.tag() {
        tag::FRAME => {
            // Longer messages than this program sends are cut short by MPI, which ends the job.
            let mut frame = mailbox.blank(len.min(LONGEST));
            message.matched_receive_into(&mut frame[..]);
            mailbox.deliver(from, frame);
        }
        tag::CREDIT => {
            let mut credit = [0; 8];
            message.matched_receive_into(&mut credit[..]);
            mailbox.credit(from, u64::from_le_bytes(credit));
        }
        _ => {
            message.matched_receive_into(&mut [0_u8; 0][..]);
            mailbox.part(from);
        }
    }
}
