//! Ends on this machine that know each other by a seed.

use kronfleet_core::cluster::RunId;
use kronfleet_core::transport::{Event, NodeId, Transport};
use kronfleet_tcp::certificates::Authority;
use kronfleet_tcp::tls::Identity;
use kronfleet_tcp::{Options, TcpEndpoint};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::time::{Duration, Instant};

/// The run of all fleets.
pub(crate) const RUN: RunId = RunId(42);
/// How long something that is bound to happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How ends talk.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Security {
    Plain,
    Tls,
}

/// What ends of one run share.
pub(crate) struct Fleet {
    pub(crate) authority: Option<Authority>,
}

/// An identity from its parts in PEM.
pub(crate) fn identity(authority: &str, signed: &kronfleet_tcp::certificates::Signed, node: NodeId) -> Identity {
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
    Identity::new(certificate(authority), certificate(&signed.certificate), key, RUN, node).unwrap()
}

impl Fleet {
    pub(crate) fn new(security: Security) -> Self {
        let authority = (security == Security::Tls).then(|| Authority::new(RUN, Duration::from_secs(3600)).unwrap());
        Self { authority }
    }

    /// The usual options of a node of this fleet, with short waits.
    pub(crate) fn options(&self, node: u32, seeds: &[String]) -> Options {
        let node = NodeId(node);
        let identity = self
            .authority
            .as_ref()
            .map(|authority| identity(authority.certificate(), &authority.sign(node).unwrap(), node));
        Options {
            identity,
            seeds: seeds.into(),
            backoff: Duration::from_millis(5),
            backoff_longest: Duration::from_millis(100),
            relay_after: Duration::from_millis(100),
            ..Options::new(RUN, node)
        }
    }

    /// The ends of `n0` up to `nodes − 1`; all know the first.
    pub(crate) fn open(&self, nodes: u32) -> Vec<TcpEndpoint> {
        let mut ends: Vec<TcpEndpoint> = Vec::new();
        for node in 0..nodes {
            let seeds: Vec<String> = ends.first().map(seed).into_iter().collect();
            ends.push(TcpEndpoint::open(self.options(node, &seeds)).unwrap());
        }
        ends
    }
}

/// Where an end can be dialled.
pub(crate) fn seed(end: &TcpEndpoint) -> String {
    end.address().expect("it listens").to_string()
}

/// Something that happened at an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Frame(NodeId, Vec<u8>),
    Up(NodeId),
    Down(NodeId),
}

/// Gives every end a turn, and answers what each saw.
pub(crate) fn turn(ends: &mut [&mut TcpEndpoint]) -> Vec<(NodeId, Seen)> {
    let mut seen = Vec::new();
    for end in ends {
        let local = end.local();
        let deadline = end.now() + Duration::from_micros(100);
        end.recv(deadline, &mut |event| {
            seen.push((
                local,
                match event {
                    Event::Frame { from, bytes } => Seen::Frame(from, bytes.into()),
                    Event::Up(peer) => Seen::Up(peer),
                    Event::Down(peer) => Seen::Down(peer),
                },
            ));
        })
        .unwrap();
    }
    seen
}

/// Gives every end a turn, again and again, until `done` says so; answers what was seen.
#[track_caller]
pub(crate) fn until(
    what: &str,
    ends: &mut [&mut TcpEndpoint],
    mut done: impl FnMut(&mut [&mut TcpEndpoint], &[(NodeId, Seen)]) -> bool,
) -> Vec<(NodeId, Seen)> {
    let began = Instant::now();
    let mut seen = Vec::new();
    while !done(ends, &seen) {
        assert!(began.elapsed() < PATIENCE, "{what} did not happen within {PATIENCE:?}; seen: {seen:?}");
        seen.extend(turn(ends));
    }
    seen
}

/// Waits until every end has a connection to every other.
#[track_caller]
pub(crate) fn meet(ends: &mut [TcpEndpoint]) {
    let nodes = ends.len();
    let mut ends: Vec<&mut TcpEndpoint> = ends.iter_mut().collect();
    until("everybody meets everybody", &mut ends, |ends, _| {
        ends.iter().all(|end| end.neighbours().count() + 1 == nodes)
    });
}
