//! The transport laws between the processes of an MPI job.
//!
//! Started by `cargo test`, this program starts itself under `mpirun`, with two processes and with four. There, each
//! process serves the end of its rank; a second thread of the first process judges the laws, and reaches all ends over
//! sockets. Laws that take more nodes than there are processes are left to the larger job.

use kronfleet_conformance::transport::remote::{FIRST_OWN_KIND, Remote, number, read, serve, write};
use kronfleet_conformance::transport::{Fabric, LAWS, Promise, judge_by};
use kronfleet_core::time::Instant;
use kronfleet_core::transport::{Event, NodeId, Sent, Transport, TransportError};
use kronfleet_mpi::{Seat, Site};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Where the processes of a job meet.
const FOLDER: &str = "KRONFLEET_MPI_TEST";

/// Open ends for so many nodes.
const OPEN: u8 = FIRST_OWN_KIND;
/// Drop the end.
const CLOSE: u8 = FIRST_OWN_KIND + 1;
/// Nothing more follows.
const END: u8 = FIRST_OWN_KIND + 2;

fn main() -> ExitCode {
    let seat = Seat::from_environment().expect("variables of a launcher");
    match (seat, std::env::var_os(FOLDER)) {
        (Some(seat), Some(folder)) => play(seat, Path::new(&folder)),
        _ => {
            let kept = [2, 4].map(start);
            if kept == [true; 2] { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

/// Runs a job of so many processes; answers whether the laws were kept.
fn start(ranks: u32) -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let status = Command::new("mpirun")
        // Containers run as root; more processes than cores are asked for on purpose.
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env(FOLDER, folder.path())
        .args(["--oversubscribe", "-n", &ranks.to_string()])
        .arg(std::env::current_exe().expect("this program"))
        .status()
        .expect("mpirun (Debian: openmpi-bin)");
    status.success()
}

/// One process's part.
fn play(seat: Seat, folder: &Path) -> ExitCode {
    let place = folder.join("meet");
    let judge = (seat.rank == 0).then(|| {
        let listener = UnixListener::bind(&place).expect("a socket in a folder of our own");
        std::thread::spawn(move || judge(&listener, seat.ranks))
    });
    let site = Site::enter().expect("MPI, for the first time");
    assert_eq!((site.rank(), site.ranks()), (seat.rank, seat.ranks), "MPI agrees with its launcher");
    // Entering has waited for the first process, which listened before.
    let mut stream = UnixStream::connect(place).expect("the first process listens");
    write(&mut stream, 0, &u64::from(seat.rank).to_le_bytes()).expect("the judge listens");
    loop {
        match read(&mut stream).expect("the judge says when it ends") {
            (OPEN, nodes) => {
                if let Some(mut end) = site.open(number(&nodes) as u32).expect("MPI's thread runs") {
                    assert_eq!(serve(&mut stream, &mut end).expect("the judge closes what it opens").0, CLOSE);
                }
            }
            (END, _) => break,
            (other, _) => panic!("message of unknown kind {other}"),
        }
    }
    match judge.map(std::thread::JoinHandle::join) {
        Some(Ok(0)) | None => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Judges all laws; answers how many are broken.
fn judge(listener: &UnixListener, ranks: u32) -> usize {
    let mut streams: Vec<Option<UnixStream>> = (0..ranks).map(|_| None).collect();
    for _ in 0..ranks {
        let (mut stream, _) = listener.accept().expect("another process of this job");
        // A process that does not answer for so long fails the law instead of holding it up.
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time above zero");
        let rank = number(&read(&mut stream).expect("it says which it is").1);
        streams[rank as usize] = Some(stream);
    }
    let streams: Vec<UnixStream> = streams.into_iter().map(|stream| stream.expect("each rank once")).collect();
    let mut broken = 0;
    for law in LAWS {
        let too_many = Arc::new(AtomicBool::new(false));
        let fabric = Job { streams: streams.iter().map(twin).collect(), too_many: Arc::clone(&too_many) };
        let verdict = judge_by(law, move || fabric);
        match verdict {
            Ok(()) => println!("{ranks} processes: {law} ... ok"),
            Err(_) if too_many.load(Ordering::Relaxed) => {
                println!("{ranks} processes: {law} ... left to the larger job");
            }
            Err(violation) => {
                broken += 1;
                println!("{ranks} processes: {law} ... BROKEN\n{violation}");
            }
        }
    }
    for mut stream in &streams {
        write(&mut stream, END, &[]).expect("every process listens");
    }
    broken
}

fn twin(stream: &UnixStream) -> UnixStream {
    stream.try_clone().expect("one more descriptor")
}

/// The processes of this job.
struct Job {
    streams: Vec<UnixStream>,
    /// Raised when more nodes are asked for than there are processes.
    too_many: Arc<AtomicBool>,
}

impl Fabric for Job {
    type End = End;

    fn connect(&mut self, nodes: u32) -> Vec<End> {
        if nodes as usize > self.streams.len() {
            self.too_many.store(true, Ordering::Relaxed);
            panic!("{nodes} nodes in a job of {} processes", self.streams.len());
        }
        for mut stream in &self.streams {
            write(&mut stream, OPEN, &u64::from(nodes).to_le_bytes()).expect("every process listens");
        }
        let meet =
            |(node, stream)| End(Remote::meet(NodeId(node), twin(stream)).expect("MPI opens all it is asked for"));
        (0..nodes).zip(&self.streams).map(meet).collect()
    }

    fn promise(&self) -> Promise {
        // Of deaths, only those are reported that say so: the others end the job, this program included.
        Promise { settle: Duration::from_millis(500), ..Promise::RELIABLE }
    }
}

/// The end of another process, or of this one's main thread.
struct End(Remote<UnixStream>);

impl Drop for End {
    fn drop(&mut self) {
        // It waits for the others to be closed, too; who closes them must not wait for it.
        let _ = self.0.tell(CLOSE, &[]);
    }
}

impl Transport for End {
    fn local(&self) -> NodeId {
        self.0.local()
    }

    fn max_frame(&self) -> usize {
        self.0.max_frame()
    }

    fn now(&self) -> Instant {
        self.0.now()
    }

    fn send(&mut self, to: NodeId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<Sent, TransportError> {
        self.0.send(to, len, fill)
    }

    fn recv(&mut self, deadline: Instant, sink: &mut dyn FnMut(Event<'_>)) -> Result<bool, TransportError> {
        self.0.recv(deadline, sink)
    }
}
