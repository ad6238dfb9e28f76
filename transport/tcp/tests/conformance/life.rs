//! Ends come, go, get lost and are found again.

use crate::fleet::{Fleet, PATIENCE, RUN, Security, Seen, meet, seed, turn, until};
use crate::proxy::Proxy;
use kronfleet_core::cluster::Incarnation;
use kronfleet_core::error::ErrorKind;
use kronfleet_core::transport::{Event, NodeId, Sent, Transport, TransportError};
use kronfleet_tcp::hello::Refusal;
use kronfleet_tcp::incident::Closure;
use kronfleet_tcp::{Options, TcpEndpoint};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Sends `bytes` and waits until they have arrived.
#[track_caller]
fn carry(ends: &mut [&mut TcpEndpoint], from: usize, to: usize, bytes: &[u8]) {
    let (sender, receiver) = (ends[from].local(), ends[to].local());
    let mut sent = false;
    until("a frame arrives", ends, |ends, seen| {
        // It may be lost while links change.
        if !sent {
            sent = matches!(
                ends[from].send(receiver, bytes.len(), &mut |target| target.copy_from_slice(bytes)),
                Ok(Sent::Accepted)
            );
        }
        seen.contains(&(receiver, Seen::Frame(sender, bytes.to_vec())))
    });
}

/// A node that can only be dialled through `proxy`, and one that dials only.
fn through(proxy: &Proxy, fleet: &Fleet, change: impl Fn(Options) -> Options) -> [TcpEndpoint; 2] {
    let behind = Options { advertise: vec![proxy.address()], ..fleet.options(0, &[]) };
    let behind = TcpEndpoint::open(change(behind)).unwrap();
    proxy.lead_to(behind.address().unwrap());
    let outside = Options { listen: None, ..fleet.options(1, &[proxy.address().to_string()]) };
    let mut ends = [behind, TcpEndpoint::open(change(outside)).unwrap()];
    meet(&mut ends);
    ends
}

fn a_cut_link_is_down_at_once_and_comes_back(security: Security) {
    let proxy = Proxy::new(None);
    let [mut one, mut other] = through(&proxy, &Fleet::new(security), |options| options);
    let mut ends = [&mut one, &mut other];
    carry(&mut ends, 0, 1, b"before");
    for round in 0..3_u8 {
        proxy.cut();
        let mut back = [false; 2];
        let mut down = [false; 2];
        until("both see it go and come back", &mut ends, |_, seen| {
            for (node, seen) in seen {
                let node = node.0 as usize;
                down[node] |= matches!(seen, Seen::Down(_));
                back[node] |= down[node] && matches!(seen, Seen::Up(_));
            }
            back == [true; 2]
        });
        carry(&mut ends, 0, 1, &[round]);
        carry(&mut ends, 1, 0, &[round]);
    }
}

#[test]
fn a_cut_link_comes_back() {
    a_cut_link_is_down_at_once_and_comes_back(Security::Plain);
}

#[test]
fn a_cut_link_comes_back_under_tls() {
    a_cut_link_is_down_at_once_and_comes_back(Security::Tls);
}

#[test]
fn a_half_open_connection_is_found_by_its_silence() {
    let proxy = Proxy::new(None);
    let silence = Duration::from_millis(300);
    let quick = |options| Options { silence, ..options };
    let [mut one, mut other] = through(&proxy, &Fleet::new(Security::Plain), quick);
    proxy.stop();
    let mut ends = [&mut one, &mut other];
    until("both see the other go", &mut ends, |_, seen| {
        seen.contains(&(NodeId(0), Seen::Down(NodeId(1)))) && seen.contains(&(NodeId(1), Seen::Down(NodeId(0))))
    });
    let closures: Vec<_> = std::iter::from_fn(|| one.next_incident()).map(|incident| incident.closure).collect();
    assert!(closures.iter().any(|closure| matches!(closure, Closure::Silent(_) | Closure::System(_))), "{closures:?}");
}

#[test]
fn an_idle_link_stays_up() {
    let silence = Duration::from_millis(80);
    let fleet = Fleet::new(Security::Plain);
    let mut one = TcpEndpoint::open(Options { silence, ..fleet.options(0, &[]) }).unwrap();
    let mut other = TcpEndpoint::open(Options { silence, ..fleet.options(1, &[seed(&one)]) }).unwrap();
    let began = Instant::now();
    let mut ends = [&mut one, &mut other];
    let seen = until("five silences pass", &mut ends, |_, _| began.elapsed() > 5 * silence);
    assert!(!seen.iter().any(|(_, seen)| matches!(seen, Seen::Down(_))), "{seen:?}");
    assert_eq!(one.neighbours().count(), 1);
}

#[test]
fn a_farewell_is_heard_and_everything_before_it() {
    let mut ends = Fleet::new(Security::Tls).open(2);
    meet(&mut ends);
    let mut leaving = ends.pop().unwrap();
    let mut staying = ends.pop().unwrap();
    for number in 0..100_u8 {
        let sent = leaving.send(NodeId(0), 1000, &mut |target| target.fill(number)).unwrap();
        assert_eq!(sent, Sent::Accepted);
    }
    drop(leaving);
    let seen =
        until("it has left", &mut [&mut staying], |_, seen| seen.last() == Some(&(NodeId(0), Seen::Down(NodeId(1)))));
    let frames = seen.iter().filter(|(_, seen)| matches!(seen, Seen::Frame(_, bytes) if bytes.len() == 1000));
    assert_eq!(frames.count(), 100);
    assert_eq!(staying.next_incident().map(|incident| incident.closure), Some(Closure::Left));
}

/// Waits until an end fails because a later start of its node is known; the others are served meanwhile.
#[track_caller]
fn told_of_its_successor(former: &mut TcpEndpoint, others: &mut [&mut TcpEndpoint]) -> TransportError {
    let began = Instant::now();
    loop {
        let now = former.now();
        match former.recv(now, &mut |event| assert!(!matches!(event, Event::Down(_)), "{event:?}")) {
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::Superseded, "{error}");
                return error;
            }
            Ok(_) => assert!(began.elapsed() < PATIENCE, "nobody tells it"),
        }
        turn(others);
    }
}

#[test]
fn a_later_start_replaces_an_earlier_one_and_is_not_replaced_by_it() {
    let fleet = Fleet::new(Security::Plain);
    let started = |node, incarnation, seeds: &[String]| {
        let options = Options { incarnation: Incarnation(incarnation), ..fleet.options(node, seeds) };
        TcpEndpoint::open(options).unwrap()
    };
    let mut stays = started(0, 1, &[]);
    let mut first = started(1, 5, &[seed(&stays)]);
    until("they meet", &mut [&mut stays, &mut first], |ends, _| ends.iter().all(|end| end.neighbours().count() == 1));
    // The first one stands still.
    let mut second = started(1, 6, &[seed(&stays)]);
    let seen = until("the second is in", &mut [&mut stays, &mut second], |ends, seen| {
        ends[1].neighbours().count() == 1 && seen.contains(&(NodeId(0), Seen::Up(NodeId(1))))
    });
    let reports: Vec<_> = seen.into_iter().filter(|(node, _)| *node == NodeId(0)).map(|(_, seen)| seen).collect();
    assert!(reports.ends_with(&[Seen::Down(NodeId(1)), Seen::Up(NodeId(1))]), "{reports:?}");
    // It was told so before the link was closed: it never saw anybody go.
    let told = told_of_its_successor(&mut first, &mut [&mut stays, &mut second]);
    assert_eq!(told.peer, Some(NodeId(0)));
    assert!(told.reason.contains("a later start of n1, i6") && told.reason.contains("of this one, i5"), "{told}");
    // One that was away meanwhile is told when it comes back.
    let mut third = started(1, 4, &[seed(&stays)]);
    let told = told_of_its_successor(&mut third, &mut [&mut stays, &mut second]);
    assert!(told.reason.contains("i6") && told.reason.contains("i4"), "{told}");
    assert!(third.recv(third.now(), &mut |event| panic!("{event:?}")).is_err(), "it stays so");
    let incidents = std::iter::from_fn(|| third.next_incident());
    assert!(incidents.into_iter().any(|incident| incident.closure == Closure::RefusedBy(Refusal::Stale)));
    assert_eq!(second.neighbours().collect::<Vec<_>>(), [NodeId(0)]);
}

#[test]
fn any_one_live_seed_suffices_and_gossip_does_the_rest() {
    let fleet = Fleet::new(Security::Plain);
    let mut ends = fleet.open(3);
    meet(&mut ends);
    // Addresses where nobody listens any more.
    let dead = |_| {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let mut seeds: Vec<String> = (0..3).map(dead).collect();
    seeds.push(seed(&ends[2]));
    ends.push(TcpEndpoint::open(fleet.options(3, &seeds)).unwrap());
    meet(&mut ends);
    // Nobody's death matters, the first one's neither.
    drop(ends.remove(0));
    let last = seed(&ends[0]);
    let mut newcomer = TcpEndpoint::open(fleet.options(4, &[last])).unwrap();
    let [one, two, three] = &mut ends[..] else { panic!("three are left") };
    until("the newcomer meets all", &mut [one, two, three, &mut newcomer], |ends, _| ends[3].neighbours().count() == 3);
}

#[test]
fn names_are_looked_up() {
    let fleet = Fleet::new(Security::Plain);
    let first = TcpEndpoint::open(fleet.options(0, &[])).unwrap();
    let name = format!("localhost:{}", first.address().unwrap().port());
    let second = TcpEndpoint::open(fleet.options(1, &[name])).unwrap();
    meet(&mut [first, second]);
}

#[test]
fn all_may_dial_each_other_and_themselves_at_once() {
    for nodes in 2..5_u32 {
        let proxies: Vec<Proxy> = (0..nodes).map(|_| Proxy::new(None)).collect();
        let seeds: Vec<String> = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
        let fleet = Fleet::new(Security::Plain);
        let open = |node: u32| TcpEndpoint::open(fleet.options(node, &seeds)).unwrap();
        let mut ends: Vec<TcpEndpoint> = (0..nodes).map(open).collect();
        for (proxy, end) in proxies.iter().zip(&ends) {
            proxy.lead_to(end.address().unwrap());
        }
        meet(&mut ends);
        // And it stays so: nobody goes round in circles.
        let established: u64 = ends.iter().map(|end| end.counters().established).sum();
        let pairs = u64::from(nodes * (nodes - 1) / 2);
        assert!(established <= 6 * pairs, "{established} links were made for {pairs} pairs");
    }
}

fn nodes_that_only_dial_reach_each_other_through_a_third(security: Security) {
    let fleet = Fleet::new(security);
    let mut middle = TcpEndpoint::open(fleet.options(0, &[])).unwrap();
    let hidden = |node| TcpEndpoint::open(Options { listen: None, ..fleet.options(node, &[seed(&middle)]) }).unwrap();
    let (mut left, mut right) = (hidden(1), hidden(2));
    let mut ends = [&mut middle, &mut left, &mut right];
    until("all reach all", &mut ends, |ends, _| ends.iter().all(|end| end.reachable().count() == 2));
    carry(&mut ends, 1, 2, b"over there");
    carry(&mut ends, 2, 1, b"and back");
    let longest = vec![7; ends[1].max_frame()];
    carry(&mut ends, 1, 2, &longest);
    assert_eq!(middle.counters().relayed, 3);
    drop(middle);
    until("both lose both", &mut [&mut left, &mut right], |_, seen| {
        let lost = |here, there| seen.contains(&(NodeId(here), Seen::Down(NodeId(there))));
        lost(1, 0) && lost(1, 2) && lost(2, 0) && lost(2, 1)
    });
}

#[test]
fn nodes_that_only_dial_are_relayed() {
    nodes_that_only_dial_reach_each_other_through_a_third(Security::Plain);
}

#[test]
fn nodes_that_only_dial_are_relayed_under_tls() {
    nodes_that_only_dial_reach_each_other_through_a_third(Security::Tls);
}

#[test]
fn a_flooded_relay_drops_counts_and_goes_on() {
    let fleet = Fleet::new(Security::Plain);
    let mut middle = TcpEndpoint::open(fleet.options(0, &[])).unwrap();
    let hidden = |node| TcpEndpoint::open(Options { listen: None, ..fleet.options(node, &[seed(&middle)]) }).unwrap();
    let (mut left, mut right) = (hidden(1), hidden(2));
    until("all reach all", &mut [&mut middle, &mut left, &mut right], |ends, _| {
        ends.iter().all(|end| end.reachable().count() == 2)
    });
    let began = Instant::now();
    let len = left.max_frame();
    // The receiver does not receive: what the system and the relay hold is bounded.
    while middle.counters().relay_dropped == 0 {
        assert!(began.elapsed() < PATIENCE, "{:?}", middle.counters());
        while left.send(NodeId(2), len, &mut |target| target.fill(1)).unwrap() == Sent::Accepted {}
        turn(&mut [&mut middle, &mut left]);
    }
    let mut ends = [&mut middle, &mut left, &mut right];
    until("what was held is taken", &mut ends, |_, seen| {
        seen.iter().filter(|(node, seen)| *node == NodeId(2) && matches!(seen, Seen::Frame(..))).count() > 8
    });
    carry(&mut ends, 2, 1, b"alive");
}

#[test]
fn what_waits_for_a_peer_is_bounded() {
    let fleet = Fleet::new(Security::Plain);
    let small = |node, seeds: &[String]| {
        let options = Options { output: 1 << 14, input: 1 << 14, max_frame: 4096, ..fleet.options(node, seeds) };
        assert!(options.memory_of_a_peer() < 1 << 16);
        TcpEndpoint::open(options).unwrap()
    };
    let mut one = small(0, &[]);
    let other = small(1, &[seed(&one)]);
    let mut ends = [one, other];
    meet(&mut ends);
    [one, _] = ends;
    // The peer does not receive. Beyond its buffers and this end's, only the system's take bytes, which are bounded by
    // net.ipv4.tcp_wmem and tcp_rmem.
    let mut accepted = 0_usize;
    while one.send(NodeId(1), 4096, &mut |target| target.fill(0)).unwrap() == Sent::Accepted {
        accepted += 4096;
        assert!(accepted < 64 << 20, "the link is never full");
    }
    assert!(one.counters().full > 0);
}

#[test]
fn a_flood_from_one_keeps_nobody_else_out() {
    let fleet = Fleet::new(Security::Plain);
    let mut ends = fleet.open(2);
    meet(&mut ends);
    let seeds = [seed(&ends[0])];
    let (mut flooding, mut flooded) = (ends.pop().unwrap(), ends.pop().unwrap());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                let _ = flooding.send(NodeId(0), 60_000, &mut |target| target[0] = 1);
                let now = flooding.now();
                flooding.recv(now, &mut |_| {}).unwrap();
            }
        });
        let mut newcomer = TcpEndpoint::open(fleet.options(2, &seeds)).unwrap();
        let began = Instant::now();
        while flooded.neighbours().count() < 2 && began.elapsed() < PATIENCE {
            // Every frame of the flood is taken, and never is there none.
            turn(&mut [&mut newcomer]);
            for _ in 0..20 {
                let now = flooded.now();
                flooded.recv(now, &mut |_| {}).unwrap();
            }
        }
        over.store(true, Ordering::Release);
        assert_eq!(flooded.neighbours().count(), 2, "{:?}", flooded.counters());
    });
}

#[test]
fn another_thread_can_wake_an_end() {
    let mut end = TcpEndpoint::open(Fleet::new(Security::Plain).options(0, &[])).unwrap();
    let waker = end.waker();
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || waker.wake());
        let deadline = end.now() + PATIENCE;
        let event = end.recv(deadline, &mut |event| panic!("{event:?}")).unwrap();
        assert!(!event && began.elapsed() < PATIENCE);
    });
}

/// A process that is killed when this is dropped, at the latest.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_killed_process_is_down_within_50_ms() {
    let mut end = TcpEndpoint::open(Fleet::new(Security::Plain).options(0, &[])).unwrap();
    let mut least = Duration::MAX;
    // The machine may be busy: the quickest of a few counts.
    for _ in 0..10 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kronfleet-tcp"));
        command.args(["probe", "--run", &RUN.0.to_string(), "--node", "1", "--seed", &seed(&end)]);
        let mut process = Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        until("the process joins", &mut [&mut end], |ends, _| ends[0].reachable().count() == 1);
        let killed = Instant::now();
        process.0.kill().unwrap();
        until("its death is seen", &mut [&mut end], |_, seen| seen.contains(&(NodeId(0), Seen::Down(NodeId(1)))));
        least = least.min(killed.elapsed());
        if least < Duration::from_millis(50) {
            break;
        }
    }
    println!("seen after {least:?}");
    assert!(least < Duration::from_millis(50), "seen after {least:?} at the least");
}
