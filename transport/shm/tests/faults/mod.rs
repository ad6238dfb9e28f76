//! Processes that are killed at any instant, stopped, started again; segments that are in the way.

use super::remote::{Remote, flood_len};
use super::{options, prefix};
use kronfleet_core::cluster::RunId;
use kronfleet_core::seed::Seed;
use kronfleet_core::transport::{Event, NodeId, Sent, Transport};
use kronfleet_shm::header::Header;
use kronfleet_shm::{Options, Process, ShmEndpoint};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a test waits for something that is bound to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a [`ShmEndpoint`] reported, in a form that can be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Frame(NodeId, Vec<u8>),
    Up(NodeId),
    Down(NodeId),
}

/// The next event, if there is one within `span`.
fn next(end: &mut ShmEndpoint, span: Duration) -> Option<Seen> {
    let (began, mut seen) = (Instant::now(), None);
    while seen.is_none() && began.elapsed() < span {
        let deadline = end.now() + span.saturating_sub(began.elapsed());
        end.recv(deadline, &mut |event| {
            seen = Some(match event {
                Event::Frame { from, bytes } => Seen::Frame(from, bytes.to_vec()),
                Event::Up(peer) => Seen::Up(peer),
                Event::Down(peer) => Seen::Down(peer),
            });
        })
        .expect("shared memory does not fail");
    }
    seen
}

/// Waits for an event that must come, past all others.
#[track_caller]
fn until(end: &mut ShmEndpoint, wanted: &Seen) {
    let began = Instant::now();
    while next(end, PATIENCE).as_ref() != Some(wanted) {
        assert!(began.elapsed() < PATIENCE, "no {wanted:?} within {PATIENCE:?}");
    }
}

fn open(options: &Options) -> ShmEndpoint {
    ShmEndpoint::open(options).expect("a segment of our own")
}

/// A folder for segments of one test, apart from those that other tests look for.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = PathBuf::from(format!("/dev/shm/{}-{test}", prefix()));
        fs::create_dir(&path).expect("/dev/shm is writable");
        Self(path)
    }

    fn options(&self, nodes: u32, node: u32) -> Options {
        let options = Options::new("segment", RunId(1), nodes, NodeId(node));
        Options { directory: self.0.clone(), capacity: 1 << 16, ..options }
    }

    fn segments(&self) -> usize {
        fs::read_dir(&self.0).expect("our own folder").count()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_peer_killed_at_any_instant_leaves_whole_frames_and_is_reported_at_once() {
    let folder = Folder::new("kills");
    let mut here = open(&folder.options(2, 0));
    let mut random = Seed(4).random();
    let mut latest = Duration::ZERO;
    for kill in 0..50 {
        let mut peer = Remote::start(&folder.options(2, 1));
        until(&mut here, &Seen::Up(NodeId(1)));
        peer.flood(NodeId(0));
        let (mut expected, frames) = (0, random.below(400));
        let mut shot = None;
        loop {
            match next(&mut here, PATIENCE).expect("frames, and then the end") {
                Seen::Frame(NodeId(1), bytes) => {
                    assert_eq!(bytes.len(), flood_len(expected), "kill {kill}");
                    assert_eq!(bytes[..8], expected.to_le_bytes(), "kill {kill}");
                    assert!(bytes[8..].iter().all(|&byte| byte == expected as u8), "kill {kill}");
                    expected += 1;
                }
                Seen::Down(NodeId(1)) => break,
                other => panic!("{other:?} at kill {kill}"),
            }
            if expected >= frames && shot.is_none() {
                peer.shoot();
                shot = Some(Instant::now());
            }
        }
        latest = latest.max(shot.expect("it was killed before it was down").elapsed());
        let sent = here.send(NodeId(1), 16, &mut |_| panic!("a dead peer's frame is filled"));
        assert!(sent.is_err(), "kill {kill}: {sent:?}");
    }
    // Ten times what is promised: the machine may be busy.
    assert!(latest < Duration::from_millis(500), "a death was reported after {latest:?}");
    drop(here);
    assert_eq!(folder.segments(), 0);
}

#[test]
fn a_peer_that_comes_back_is_another_generation_and_gets_nothing_old() {
    let folder = Folder::new("restart");
    let mut here = open(&folder.options(2, 0));
    for generation in [1, 3, 5] {
        let mut peer = Remote::start(&folder.options(2, 1));
        until(&mut here, &Seen::Up(NodeId(1)));
        let status = &here.peers()[0];
        assert_eq!((status.node, status.generation, &status.broken), (NodeId(1), generation, &None));
        assert!(status.process.is_alive());
        let mut first = Vec::new();
        let sent = here.send(NodeId(1), 8, &mut |target| target.copy_from_slice(&generation.to_le_bytes()));
        assert_eq!(sent, Ok(Sent::Accepted));
        let began = Instant::now();
        while first.is_empty() {
            assert!(began.elapsed() < PATIENCE);
            let deadline = peer.now() + PATIENCE;
            let heard = &mut |event: Event<'_>| {
                if let Event::Frame { bytes, .. } = event {
                    first.extend_from_slice(bytes);
                }
            };
            peer.recv(deadline, heard).expect("it lives");
        }
        assert_eq!(first, generation.to_le_bytes(), "not what was sent to the one before");
        // Left lying for the dead.
        while here.send(NodeId(1), 1000, &mut |target| target.fill(0xee)) == Ok(Sent::Accepted) {}
        peer.kill();
        until(&mut here, &Seen::Down(NodeId(1)));
    }
}

#[test]
fn a_node_that_lives_is_not_replaced() {
    let folder = Folder::new("taken");
    let peer = Remote::start(&folder.options(2, 1));
    peer.stop();
    let error = ShmEndpoint::open(&folder.options(2, 1)).expect_err("it lives, though it is stopped").to_string();
    assert!(error.contains("n1 of ") && error.contains("which lives: end it first (kill -9 "), "{error}");
    peer.go_on();
}

/// How long a process must stand still in these tests before another may have its place.
const STILL: Duration = Duration::from_millis(100);

fn fencing(options: &Options) -> Options {
    Options { fence_after: Some(STILL), ..options.clone() }
}

#[test]
fn a_process_that_stands_still_is_ended_by_its_successor_in_the_middle_of_a_frame() {
    let folder = Folder::new("fence");
    let options = folder.options(2, 1);
    let mut here = open(&folder.options(2, 0));
    for life in 0..5 {
        let peer = Remote::start(&options);
        until(&mut here, &Seen::Up(NodeId(1)));
        peer.flood(NodeId(0));
        next(&mut here, PATIENCE).expect("frames");
        peer.stop();
        let began = Instant::now();
        let mut successor = open(&fencing(&options));
        assert!(began.elapsed() >= STILL, "not before it is known to stand still");
        let fenced = successor.fenced().expect("it stood still");
        assert!(!fenced.is_alive(), "life {life}: there are never two in one place");
        // Nobody has let it go on: only one signal ends a process that is stopped.
        peer.go_on();
        until(&mut here, &Seen::Down(NodeId(1)));
        until(&mut here, &Seen::Up(NodeId(1)));
        let sent = successor.send(NodeId(0), 3, &mut |target| target.copy_from_slice(b"new"));
        assert_eq!(sent, Ok(Sent::Accepted));
        assert_eq!(next(&mut here, PATIENCE), Some(Seen::Frame(NodeId(1), b"new".to_vec())), "life {life}");
        drop(successor);
        until(&mut here, &Seen::Down(NodeId(1)));
    }
}

#[test]
fn a_process_that_shows_a_sign_of_life_keeps_its_place() {
    let folder = Folder::new("beats");
    let options = folder.options(2, 1);
    // The machine may be busy; whoever lives is not waited for that long.
    let patient = Options { fence_after: Some(PATIENCE), ..options.clone() };
    let refused = || ShmEndpoint::open(&patient).expect_err("it lives").to_string();
    let peer = Remote::start(&options);
    // It looks for room for a frame without end, and for frames as often.
    let here = open(&folder.options(2, 0));
    peer.flood(NodeId(0));
    let beats = || here.peers()[0].beats;
    let before = beats();
    let began = Instant::now();
    while beats() == before {
        assert!(began.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    let error = refused();
    assert!(error.contains("n1 of ") && error.contains("which lives: end it first (kill -9 "), "{error}");
    // One that goes on before its time is over keeps it, too.
    peer.stop();
    std::thread::scope(|scope| {
        let asking = scope.spawn(refused);
        peer.go_on();
        assert!(asking.join().expect("no assertion fails").contains("which lives"));
    });
    // Another end of this very process is no other process: it is not ended for a third.
    let own = Options { node: NodeId(0), ..fencing(&options) };
    let error = ShmEndpoint::open(&own).expect_err("this process has it").to_string();
    assert!(error.contains(&format!("is process {}, which lives", std::process::id())), "{error}");
}

#[test]
fn of_many_successors_one_gets_the_place() {
    let folder = Folder::new("successors");
    let options = folder.options(2, 1);
    let peer = Remote::start(&options);
    peer.stop();
    let ends: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4).map(|_| scope.spawn(|| ShmEndpoint::open(&fencing(&options)))).collect();
        asking.into_iter().map(|asking| asking.join().expect("no assertion fails")).collect()
    });
    let (entered, refused): (Vec<_>, Vec<_>) = ends.into_iter().partition(Result::is_ok);
    assert_eq!((entered.len(), refused.len()), (1, 3), "{refused:?}");
    for refused in refused {
        let error = refused.expect_err("parted").to_string();
        assert!(error.contains("which lives"), "{error}");
    }
}

#[test]
fn a_stopped_peer_is_not_dead_and_goes_on_where_it_was() {
    let folder = Folder::new("stop");
    let mut here = open(&folder.options(2, 0));
    let mut peer = Remote::start(&folder.options(2, 1));
    until(&mut here, &Seen::Up(NodeId(1)));
    peer.stop();
    let beats = here.peers()[0].beats;
    let mut sent = 0_u64;
    while here.send(NodeId(1), 1000, &mut |target| target[..8].copy_from_slice(&sent.to_le_bytes()))
        == Ok(Sent::Accepted)
    {
        sent += 1;
    }
    assert!(sent > 50, "{sent} frames fit into 64 KiB");
    // Many times longer than a death takes to be seen.
    assert_eq!(next(&mut here, Duration::from_millis(100)), None);
    assert_eq!(here.peers()[0].beats, beats, "it does not look for frames");
    peer.go_on();
    let (mut received, began) = (0, Instant::now());
    while received < sent {
        assert!(began.elapsed() < PATIENCE);
        let deadline = peer.now() + PATIENCE;
        let heard = &mut |event: Event<'_>| {
            if let Event::Frame { bytes, .. } = event {
                assert_eq!(bytes[..8], received.to_le_bytes());
                received += 1;
            }
        };
        peer.recv(deadline, heard).expect("it lives");
    }
    assert!(here.peers()[0].beats > beats);
}

#[test]
fn room_for_a_refused_frame_wakes_the_sender() {
    let mut ends: Vec<_> = options(2).iter().map(open).collect();
    let (mut other, mut here) = (ends.remove(1), ends.remove(0));
    until(&mut here, &Seen::Up(NodeId(1)));
    while here.send(NodeId(1), 1000, &mut |_| ()).expect("it is there") == Sent::Accepted {}
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            let deadline = here.now() + PATIENCE;
            assert_eq!(here.recv(deadline, &mut |event| panic!("{event:?}")), Ok(false));
            (here.now() < deadline, here.send(NodeId(1), 1000, &mut |_| ()))
        });
        until_frame(&mut other);
        assert_eq!(waiting.join().expect("no assertion fails"), (true, Ok(Sent::Accepted)));
    });
}

fn until_frame(end: &mut ShmEndpoint) {
    while !matches!(next(end, PATIENCE).expect("a frame"), Seen::Frame(..)) {}
}

#[test]
fn another_thread_can_wake_a_waiting_node() {
    let mut here = open(&options(1)[0]);
    let waker = here.waker();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            let deadline = here.now() + PATIENCE;
            assert_eq!(here.recv(deadline, &mut |event| panic!("{event:?}")), Ok(false));
            here.now() < deadline
        });
        waker.wake();
        assert!(waiting.join().expect("no assertion fails"));
    });
}

#[test]
fn what_killed_processes_leave_is_gone_after_the_next_start_of_anything() {
    let folder = Folder::new("sweep");
    for _ in 0..5 {
        let nodes: Vec<_> = (0..3).map(|node| Remote::start(&folder.options(3, node))).collect();
        nodes[0].flood(NodeId(1));
        nodes.into_iter().for_each(Remote::kill);
        assert_eq!(folder.segments(), 1, "nobody was left to remove it");
        let other = Options { name: "other".into(), run: RunId(2), ..folder.options(2, 0) };
        drop(open(&other));
        assert_eq!(folder.segments(), 0);
    }
}

#[test]
fn the_last_survivor_removes_the_segment_that_others_died_in() {
    let folder = Folder::new("survivor");
    let here = open(&folder.options(3, 0));
    let (left, killed) = (Remote::start(&folder.options(3, 1)), Remote::start(&folder.options(3, 2)));
    killed.kill();
    drop(here);
    assert_eq!(folder.segments(), 1, "n1 is in it");
    drop(left);
    assert_eq!(folder.segments(), 0);
}

#[test]
fn everybody_dead_is_a_fresh_start_under_the_same_name() {
    let folder = Folder::new("fresh");
    let all: Vec<_> = (0..2).map(|node| Remote::start(&folder.options(2, node))).collect();
    all.into_iter().for_each(Remote::kill);
    // Not even the shape has to be the same.
    let mut here = open(&Options { run: RunId(9), capacity: 1 << 14, ..folder.options(3, 2) });
    assert_eq!(here.generation(), 1);
    assert_eq!(next(&mut here, Duration::from_millis(20)), None);
}

#[test]
fn segments_in_the_way_are_refused_with_the_reason() {
    let folder = Folder::new("refused");
    let options = folder.options(2, 0);
    let path = options.path();
    let refused = |options: &Options| ShmEndpoint::open(options).expect_err("it is in the way").to_string();

    let here = open(&folder.options(2, 1));
    let mode = fs::metadata(&path).expect("it is there").permissions().mode() & 0o7777;
    assert_eq!(mode, 0o600);
    assert!(refused(&Options { run: RunId(7), ..options.clone() }).contains("used by others with run 1, not 7"));
    assert!(refused(&Options { nodes: 3, ..options.clone() }).contains("number of nodes 2, not 3"));
    assert!(refused(&Options { capacity: 4096, ..options.clone() }).contains("bytes per ring 65536, not 4096"));
    drop(here);

    let this = Process::current().expect("/proc");
    let header = Header { run: 1, nodes: 2, capacity: 1 << 16, creator: this, namespace: 0 };
    let place = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("a writable folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our own file");
    };
    let mut earlier = header.encode();
    earlier[8] = 1;
    place(&earlier);
    assert!(refused(&options).contains("it is of version 1, this program speaks version 2; remove it if"));
    place(b"somebody's notes");
    assert!(refused(&options).contains("it is no segment of kronfleet"));
    place(&header.encode());
    assert!(refused(&options).contains("used by others with table of processes 0, not "));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("our own file");
    assert!(refused(&options).contains("has permissions 644, others could read or write it"));
    fs::remove_file(&path).expect("our own file");
    symlink("/dev/null", &path).expect("a writable folder");
    assert!(refused(&options).contains("cannot open"));
    fs::remove_file(&path).expect("our own link");

    place(&[0; 100]);
    assert_eq!(open(&options).generation(), 1, "what was never finished is begun again");
    assert!(refused(&Options { name: "../x".into(), ..options.clone() }).contains("\"../x\" cannot name a segment"));
    assert!(refused(&Options { node: NodeId(2), ..options.clone() }).contains("n2 is none of 2 nodes"));
    assert!(refused(&Options { capacity: 5000, ..options.clone() }).contains("rings of 5000 bytes cannot be"));
    let huge = Options { capacity: 1 << 30, nodes: 256, ..options.clone() };
    assert!(refused(&huge).contains("bytes of shared memory, which are not there"));
    assert_eq!(folder.segments(), 0);
}

#[test]
fn somebody_elses_segment_is_refused() {
    let folder = Folder::new("owner");
    let options = folder.options(2, 0);
    fs::write(options.path(), []).expect("a writable folder");
    if chown(options.path(), Some(65_534), None).is_err() {
        eprintln!("SKIPPED: only root can give a file away");
        return;
    }
    let error = ShmEndpoint::open(&options).expect_err("it is not ours").to_string();
    assert!(error.contains("belongs to user 65534, not to user 0: choose another name"), "{error}");
}

#[test]
fn nothing_of_these_tests_stays_in_shared_memory() {
    let name = options(2)[0].name.clone();
    let options = |node| Options::new(&name, RunId(1), 2, NodeId(node));
    let path = options(0).path();
    assert!(path.starts_with("/dev/shm"));
    let (here, there) = (open(&options(0)), Remote::start(&options(1)));
    drop(here);
    assert!(path.exists(), "n1 is in it");
    drop(there);
    assert!(!path.exists());
}
