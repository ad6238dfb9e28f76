//! A node's end: all rings to and from it, and who is there.

use crate::bell::Signal;
use crate::error::OpenError;
use crate::life::{Process, Watch};
use crate::record::Corrupt;
use crate::ring::longest;
use crate::segment::{Ends, Joined, Options, Segment, is_taken};
use kronfleet_core::error::ErrorKind;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::{Event, NodeId, Sent, Transport, TransportError};
use rustix::thread::sched_getcpu;
use rustix::time::{ClockId, clock_gettime};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How often a waiting node looks for frames before it sleeps, at least.
const FEWEST_SPINS: u32 = 200;

/// The same, at most: about the time of ten wake-ups.
const MOST_SPINS: u32 = 3200;

/// After so many of these looks, each time, others are let run.
const PER_YIELD: u32 = 32;

/// A sleep that is shorter than this would have been better spent looking.
///
/// Longer than a few wake-ups: two nodes that both sleep wait for each other's, and would never find out otherwise.
const NAP: Duration = Duration::from_micros(300);

/// How often peers' processes are looked at; a death is reported at most this much later.
const WATCH: Duration = Duration::from_millis(10);

/// One node's end of a shared-memory segment.
///
/// Dropping it is leaving: peers are told at once, and the last one removes the segment. A killed process is noticed
/// by its peers within 10 ms of their next [`recv`](Transport::recv) and its frames sent before are still delivered.
///
/// [`recv`](Transport::recv) may come back before its deadline without an event if there is room again for a frame
/// that was refused as [`Sent::Full`], or after [`Waker::wake`].
///
/// Its clock is the machine's, so that the times of all nodes of a segment can be compared.
///
/// ```
/// use kronfleet_core::cluster::RunId;
/// use kronfleet_core::time::Duration;
/// use kronfleet_core::transport::{Event, NodeId, Transport};
/// use kronfleet_shm::{Options, ShmEndpoint};
///
/// let name = format!("example-{}", std::process::id());
/// let open = |node| ShmEndpoint::open(&Options::new(&name, RunId(7), 2, NodeId(node)));
/// let (mut one, mut other) = (open(0)?, open(1)?);
/// one.send(NodeId(1), 5, &mut |frame| frame.copy_from_slice(b"hello"))?;
/// let mut heard = Vec::new();
/// while heard.is_empty() {
///     let deadline = other.now() + Duration::from_secs(5);
///     let event = other.recv(deadline, &mut |event| {
///         if let Event::Frame { bytes, .. } = event {
///             heard.extend_from_slice(bytes);
///         }
///     })?;
///     assert!(event, "a peer that comes up is an event, and so is its frame");
/// }
/// assert_eq!(heard, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ShmEndpoint {
    segment: Arc<Segment>,
    path: PathBuf,
    node: NodeId,
    generation: u64,
    fenced: Option<Process>,
    links: Vec<Link>,
    /// Which link is looked at first, so that a busy peer does not silence the others.
    next: usize,
    watched: Instant,
    woken: Arc<AtomicBool>,
    beats: u64,
    /// How often frames are looked for before sleeping: more where peers answer at once, fewer where it is in vain.
    spins: u32,
}

/// What this end has to do with one peer.
#[derive(Debug)]
struct Link {
    ends: Ends,
    /// The generation that was reported up and not yet down.
    up: Option<u64>,
    /// The latest generation that was up.
    last: u64,
    /// The generation under which something senseless was found; nothing is read from it any more.
    broken: Option<(u64, Corrupt)>,
    watch: Option<(u64, Watch)>,
}

/// What is known about a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who.
    pub node: NodeId,
    /// Counts its starts and ends in this segment; odd while it is there.
    pub generation: u64,
    /// The process it is in, or was.
    pub process: Process,
    /// How often it has looked for frames in [`recv`](Transport::recv), at least every 10 ms while it waits there; stands
    /// still while it is stopped or busy otherwise.
    pub beats: u64,
    /// Why frames from it are no longer read, if it has left something senseless.
    pub broken: Option<String>,
}

/// Wakes a node that waits in [`recv`](Transport::recv), from any thread.
#[derive(Clone, Debug)]
pub struct Waker {
    segment: Arc<Segment>,
    node: NodeId,
    woken: Arc<AtomicBool>,
}

impl Waker {
    /// Makes the [`recv`](Transport::recv) that the node waits in, or the next one, come back without an event.
    ///
    /// For work done on another thread, whose result the node should not sleep over.
    pub fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.segment.slot(self.node.0).bell().ring();
    }
}

impl ShmEndpoint {
    /// Joins the segment, making it if there is none; what dead processes have left is removed first.
    ///
    /// Coming back after a death is the same call, and gives a higher [`generation`](Self::generation). Waits a moment
    /// where others are joining or leaving, and for as long as [`fence_after`](Options::fence_after) says where a process
    /// that lives has the place.
    ///
    /// # Errors
    /// If it cannot be; see [`OpenError`].
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let Joined { segment, generation, ends, fenced } = Segment::join(options)?;
        let link = |ends| Link { ends, up: None, last: 0, broken: None, watch: None };
        let links = ends.into_iter().map(link).collect();
        Ok(Self {
            segment,
            path: options.path(),
            node: options.node,
            generation,
            fenced,
            links,
            next: 0,
            watched: Instant::ORIGIN,
            woken: Arc::default(),
            beats: 0,
            spins: FEWEST_SPINS,
        })
    }

    /// Which start of this node in this segment it is: odd, and higher with every start.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The process that had this node's place and stood still, and was ended for it: see
    /// [`fence_after`](Options::fence_after).
    pub fn fenced(&self) -> Option<Process> {
        self.fenced
    }

    /// Where the segment is.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Something to wake this node with.
    pub fn waker(&self) -> Waker {
        Waker { segment: Arc::clone(&self.segment), node: self.node, woken: Arc::clone(&self.woken) }
    }

    /// What is known about the peers, in their order.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let status = |link: &Link| {
            let slot = self.segment.slot(link.ends.peer.0);
            PeerStatus {
                node: link.ends.peer,
                generation: slot.generation().load(Ordering::Acquire),
                process: slot.process(),
                beats: slot.beats().load(Ordering::Relaxed),
                broken: link.broken.map(|(_, why)| why.to_string()),
            }
        };
        self.links.iter().map(status).collect()
    }

    fn generation_of(&self, peer: NodeId) -> u64 {
        self.segment.slot(peer.0).generation().load(Ordering::Acquire)
    }

    /// Gives one event to `sink`, if there is one now.
    fn poll(&mut self, sink: &mut dyn FnMut(Event<'_>)) -> bool {
        let links = self.links.len();
        for step in 0..links {
            let index = (self.next + step) % links;
            let peer = self.links[index].ends.peer;
            let generation = self.segment.slot(peer.0).generation();
            match self.links[index].poll(generation, sink) {
                Poll::Nothing => continue,
                Poll::Event => {}
                Poll::Relief => self.segment.slot(peer.0).bell().ring(),
            }
            self.next = (index + 1) % links;
            return true;
        }
        false
    }

    /// Whether [`poll`](Self::poll) may find something, or there is another reason not to sleep.
    fn news(&self) -> bool {
        let news = |link: &Link| link.has_news(self.generation_of(link.ends.peer)) || link.ends.producer.is_relieved();
        self.woken.load(Ordering::Acquire) || self.links.iter().any(news)
    }

    /// Shows peers that this process looks for frames.
    fn beat(&mut self) {
        self.beats += 1;
        self.segment.slot(self.node.0).beats().store(self.beats, Ordering::Relaxed);
    }

    /// Looks for news for a while; answers whether there are any.
    fn look(&self) -> bool {
        for spin in 1..=self.spins {
            if spin % PER_YIELD == 0 {
                // Whoever is awaited may be waiting for this very core. A node that keeps yielding to it is never idle,
                // so both would stay here beside an idle core; one that sleeps is woken on that.
                if self.shares_core() {
                    return false;
                }
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
            if self.news() {
                return true;
            }
        }
        false
    }

    /// Whether a peer that is awake was last seen on the core that this node runs on; says on which this one is.
    fn shares_core(&self) -> bool {
        let core = sched_getcpu() as u64 + 1;
        self.segment.slot(self.node.0).core().store(core, Ordering::Relaxed);
        self.links.iter().any(|link| {
            let slot = self.segment.slot(link.ends.peer.0);
            link.up.is_some() && slot.core().load(Ordering::Relaxed) == core && !slot.bell().is_announced()
        })
    }

    /// Looks for dead peers, unless that was done a moment ago.
    fn watch(&mut self, now: Instant) {
        if now.since(self.watched) < WATCH {
            return;
        }
        self.watched = now;
        for link in &mut self.links {
            let slot = self.segment.slot(link.ends.peer.0);
            let generation = slot.generation().load(Ordering::Acquire);
            if !is_taken(generation) {
                link.watch = None;
                continue;
            }
            let alive = match &link.watch {
                Some((watched, watch)) if *watched == generation => watch.is_alive(),
                _ => {
                    link.watch = slot.process().watch().map(|watch| (generation, watch));
                    link.watch.is_some()
                }
            };
            if !alive {
                link.watch = None;
                self.segment.bury(link.ends.peer.0, generation);
            }
        }
    }
}

/// What looking at a link came to.
enum Poll {
    Nothing,
    Event,
    /// An event, and the peer waits for the room that it took.
    Relief,
}

impl Link {
    /// Whether [`poll`](Self::poll) may find something in a peer of this generation.
    fn has_news(&self, generation: u64) -> bool {
        if self.broken.is_some_and(|(broken, _)| broken == generation) {
            return self.up.is_some();
        }
        let came = self.up.is_none() && is_taken(generation) && generation != self.last;
        let went = self.up.is_some_and(|up| up != generation);
        came || went || self.ends.consumer.is_waiting()
    }

    /// Gives one event to `sink`, if there is one; `slot` says which generation the peer is of.
    fn poll(&mut self, slot: &AtomicU64, sink: &mut dyn FnMut(Event<'_>)) -> Poll {
        // Read before the ring is looked at: a peer that is gone has written all it ever will, so its last frames come
        // before the news of its end.
        let generation = slot.load(Ordering::Acquire);
        if self.broken.is_some_and(|(broken, _)| broken == generation) {
            return self.down(sink);
        }
        match self.ends.consumer.peek() {
            Ok(Some(record)) if Some(record.generation) == self.up => {
                let peer = self.ends.peer;
                let starved = self.ends.consumer.take(|bytes| sink(Event::Frame { from: peer, bytes }));
                if starved { Poll::Relief } else { Poll::Event }
            }
            Ok(Some(record)) => {
                // The first frame of a life, seen before the life itself, or of one that is over by now.
                let came = record.generation;
                if !is_taken(came) || came <= self.last || came > slot.load(Ordering::Acquire) {
                    return self.fail(generation, Corrupt::Generation(came), sink);
                }
                if self.up.is_some() { self.down(sink) } else { self.rise(came, sink) }
            }
            Ok(None) => match self.up {
                Some(up) if up != generation => self.down(sink),
                None if is_taken(generation) && generation != self.last => self.rise(generation, sink),
                _ => Poll::Nothing,
            },
            Err(corrupt) => self.fail(generation, corrupt, sink),
        }
    }

    fn rise(&mut self, generation: u64, sink: &mut dyn FnMut(Event<'_>)) -> Poll {
        self.up = Some(generation);
        self.last = generation;
        self.broken = None;
        sink(Event::Up(self.ends.peer));
        Poll::Event
    }

    fn down(&mut self, sink: &mut dyn FnMut(Event<'_>)) -> Poll {
        if self.up.take().is_none() {
            return Poll::Nothing;
        }
        sink(Event::Down(self.ends.peer));
        Poll::Event
    }

    /// Nothing more is read of this life of the peer.
    fn fail(&mut self, generation: u64, why: Corrupt, sink: &mut dyn FnMut(Event<'_>)) -> Poll {
        self.broken = Some((generation, why));
        self.ends.consumer.reset();
        self.down(sink)
    }
}

impl Transport for ShmEndpoint {
    fn local(&self) -> NodeId {
        self.node
    }

    fn max_frame(&self) -> usize {
        longest(self.segment.layout.capacity())
    }

    fn now(&self) -> Instant {
        let now = clock_gettime(ClockId::Monotonic);
        // Both are positive: the clock counts from the machine's start.
        Instant::from_nanos(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
    }

    fn send(&mut self, to: NodeId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<Sent, TransportError> {
        let (from, longest) = (self.node, self.max_frame());
        assert!(to != from, "{from} sends a frame to itself");
        assert!(len <= longest, "{from} sends {len} bytes in a frame, {longest} at most");
        let unreachable = |reason| TransportError { kind: ErrorKind::Unreachable, peer: Some(to), reason };
        let nodes = self.segment.layout.nodes();
        let index = (to.0 - u32::from(to > from)) as usize;
        let Some(link) = self.links.get_mut(index).filter(|link| link.ends.peer == to) else {
            return Err(unreachable(format!("not one of the {nodes} nodes of this segment")));
        };
        let slot = self.segment.slot(to.0);
        if !is_taken(slot.generation().load(Ordering::Acquire)) {
            return Err(unreachable("not there; it can be reached once it is started".into()));
        }
        match link.ends.producer.send(len, fill) {
            Ok(true) => {
                slot.bell().ring();
                Ok(Sent::Accepted)
            }
            Ok(false) => Ok(Sent::Full),
            Err(corrupt) => Err(unreachable(format!("its ring is damaged ({corrupt}); start it again"))),
        }
    }

    fn recv(&mut self, deadline: Instant, sink: &mut dyn FnMut(Event<'_>)) -> Result<bool, TransportError> {
        self.beat();
        loop {
            if self.poll(sink) {
                return Ok(true);
            }
            let relieved = self.links.iter_mut().fold(false, |any, link| link.ends.producer.relieved() | any);
            if self.woken.swap(false, Ordering::AcqRel) || relieved {
                return Ok(false);
            }
            let now = self.now();
            if now >= deadline {
                return Ok(false);
            }
            self.watch(now);
            if self.look() {
                continue;
            }
            // Woken at times, for a killed peer rings no bell.
            let began = self.now();
            let span = deadline.since(began).min(WATCH);
            self.segment.slot(self.node.0).bell().sleep(span, || self.news());
            // Not while it spins: peers read words beside this one, and would fetch them anew each time.
            self.beat();
            let nap = self.news() && self.now().since(began) < NAP;
            self.spins = if nap { self.spins * 2 } else { self.spins / 2 }.clamp(FEWEST_SPINS, MOST_SPINS);
        }
    }
}

impl Drop for ShmEndpoint {
    fn drop(&mut self) {
        self.segment.leave(self.node.0, self.generation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kronfleet_core::cluster::RunId;
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    /// Binds this thread to a core.
    fn bind(core: usize) {
        let mut set = CpuSet::new();
        set.set(core);
        sched_setaffinity(None, &set).expect("a core that this thread may run on");
    }

    #[test]
    fn who_is_awake_on_the_same_core_is_not_looked_for() {
        let allowed = sched_getaffinity(None).expect("a thread's cores");
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
        let name = format!("cores-{}", std::process::id());
        let open = |node| ShmEndpoint::open(&Options::new(&name, RunId(1), 2, NodeId(node))).expect("our own segment");
        let (mut one, other) = (open(0), open(1));
        bind(cores[0]);
        other.shares_core();
        assert!(!one.shares_core(), "a peer that is not up yet is not awaited");
        let deadline = one.now() + Duration::from_secs(10);
        assert!(
            one.recv(deadline, &mut |event| assert_eq!(event, Event::Up(NodeId(1)))).expect("a peer that is there")
        );
        assert!(one.shares_core(), "both are on core {}", cores[0]);
        let bell = other.segment.slot(1);
        bell.bell().announce(true);
        assert!(!one.shares_core(), "a peer that sleeps needs no core");
        bell.bell().announce(false);
        if let Some(&core) = cores.get(1) {
            bind(core);
            assert!(!one.shares_core(), "cores {} and {core} are two", cores[0]);
        }
        // Its successor has not waited anywhere yet.
        drop(other);
        let successor = open(1);
        assert_eq!(successor.segment.slot(1).core().load(Ordering::Relaxed), 0);
    }
}
