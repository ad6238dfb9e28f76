//! What an end is told when it is opened.

use crate::frame::{CONTROL, HEADER};
use crate::tls::Identity;
use kronfleet_core::cluster::{Incarnation, RunId};
use kronfleet_core::error::ErrorKind;
use kronfleet_core::seed::Seed;
use kronfleet_core::transport::{NodeId, TransportError};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// What an end is told when it is opened.
///
/// ```
/// use kronfleet_core::{cluster::RunId, transport::NodeId};
/// use kronfleet_tcp::{Options, TcpEndpoint};
/// let first = TcpEndpoint::open(Options::new(RunId(1), NodeId(0))).unwrap();
/// let seed = first.address().unwrap().to_string();
/// let second = TcpEndpoint::open(Options { seeds: vec![seed], ..Options::new(RunId(1), NodeId(1)) }).unwrap();
/// # drop(second);
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// The run; nodes of other runs are refused.
    pub run: RunId,
    /// This node.
    pub node: NodeId,
    /// Which start of this node; has to grow from start to start. The clock's microseconds unless set.
    pub incarnation: Incarnation,
    /// Nodes have lower numbers; bounds all tables. 1024 unless set.
    pub nodes: u32,
    /// Where to listen; port 0 takes a free one. `None`: only connections this node dials, others reach it through
    /// relays. A free port of 127.0.0.1 unless set.
    pub listen: Option<SocketAddr>,
    /// Where others reach this node, if that is not where it listens (address translation); at most 4.
    pub advertise: Vec<SocketAddr>,
    /// Addresses (`host:port`) of nodes of the run; any one that is alive suffices to join.
    pub seeds: Vec<String>,
    /// Certificates; without them everything travels in the clear, and only on this machine.
    pub identity: Option<Identity>,
    /// Allows other machines without certificates.
    pub insecure: bool,
    /// Bytes of the longest frame; the same at all nodes. 65,400 unless set: the frame then fits, with its header, into one
    /// packet of the loopback interface, which carries 65,483.
    pub max_frame: usize,
    /// Bytes that may wait for one peer; [`Sent::Full`](kronfleet_core::transport::Sent::Full) beyond. 1 MiB unless set.
    pub output: usize,
    /// Bytes that are read from one peer at once. 256 KiB unless set.
    pub input: usize,
    /// Connections from others that have not introduced themselves; beyond, the oldest is closed. 64 unless set.
    pub strangers: usize,
    /// How long a connection may take until both ends have introduced themselves. 5 s unless set.
    pub handshake: Duration,
    /// A connection on which nothing is heard for this long is given up; a quarter of it without news asks for a sign
    /// of life. 10 s unless set: the cluster's own detector is faster, this one finds dead connections to dial anew.
    pub silence: Duration,
    /// The wait before the first attempt to connect again; doubles from attempt to attempt. 50 ms unless set.
    pub backoff: Duration,
    /// The longest wait between attempts. 5 s unless set.
    pub backoff_longest: Duration,
    /// How long after losing a connection before frames to the peer may be relayed by others. 500 ms unless set.
    pub relay_after: Duration,
    /// Whether frames between others are relayed.
    pub relay: bool,
    /// Where jitter comes from.
    pub seed: Seed,
}

impl Options {
    /// The usual options for `node`: on this machine only, without certificates.
    pub fn new(run: RunId, node: NodeId) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            run,
            node,
            incarnation: Incarnation((since.as_micros() as u64).max(1)),
            nodes: 1024,
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            advertise: Vec::new(),
            seeds: Vec::new(),
            identity: None,
            insecure: false,
            max_frame: 65_400,
            output: 1 << 20,
            input: 256 << 10,
            strangers: 64,
            handshake: Duration::from_secs(5),
            silence: Duration::from_secs(10),
            backoff: Duration::from_millis(50),
            backoff_longest: Duration::from_secs(5),
            relay_after: Duration::from_millis(500),
            relay: true,
            seed: Seed(u64::from(node.0)),
        }
    }

    /// Refuses what would let strangers in or secrets out; [`TcpEndpoint::open`](crate::TcpEndpoint::open) does so itself.
    ///
    /// # Errors
    /// If the node would talk to other machines without certificates and without [`insecure`](Self::insecure). Names are
    /// not looked up here; what they resolve to is checked before it is dialled.
    pub fn check(&self) -> Result<(), TransportError> {
        if self.insecure || self.identity.is_some() {
            return Ok(());
        }
        let seeds = self.seeds.iter().filter_map(|seed| seed.parse::<SocketAddr>().ok());
        match self.listen.into_iter().chain(seeds).find(|address| !address.ip().is_loopback()) {
            None => Ok(()),
            Some(address) => Err(TransportError {
                kind: ErrorKind::Other,
                peer: None,
                reason: format!(
                    "{address} is not of this machine alone, and there are no certificates: anybody could join and \
                     read; make certificates with `kronfleet-tcp certificates`, or allow it with `--insecure`"
                ),
            }),
        }
    }

    /// Bytes of memory that one connection with a peer takes at most, TLS apart.
    pub fn memory_of_a_peer(&self) -> usize {
        self.output_capacity() + self.input_capacity()
    }

    /// Room for data, and for what the protocol itself has to say.
    pub(crate) fn output_capacity(&self) -> usize {
        self.output.max(self.max_frame + HEADER) + 2 * (CONTROL + HEADER)
    }

    pub(crate) fn input_capacity(&self) -> usize {
        self.input.max(self.max_frame.max(CONTROL) + HEADER)
    }
}
