//! Every interleaving of a small ring, by [loom](https://docs.rs/loom):
//! `RUSTFLAGS="--cfg loom" cargo test -p kronfleet-shm --lib --release model`.
//!
//! Loom runs the ring's own code over words and cells that it watches. A cell that one end touches while the other may
//! write to it, a ring that nobody hears, a frame that is lost or altered: each fails in some interleaving, and loom
//! goes through all of them.

use super::*;
use crate::bell::Signal;
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, AtomicU64, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use std::time::Duration;

/// Cells of one record header each.
const CELLS: usize = 4;

/// A ring of four cells, and both ends' bells.
struct Small {
    head: AtomicU64,
    tail: AtomicU64,
    starved: AtomicU64,
    cells: [UnsafeCell<[u8; HEADER]>; CELLS],
}

#[derive(Clone)]
struct Shared(Arc<Small>);

impl Word for AtomicU64 {
    fn load(&self, ordering: Ordering) -> u64 {
        self.load(ordering)
    }

    fn store(&self, value: u64, ordering: Ordering) {
        self.store(value, ordering);
    }
}

impl Store for Shared {
    type Word = AtomicU64;

    fn head(&self) -> &AtomicU64 {
        &self.0.head
    }

    fn tail(&self) -> &AtomicU64 {
        &self.0.tail
    }

    fn starved(&self) -> &AtomicU64 {
        &self.0.starved
    }

    fn capacity(&self) -> u64 {
        (CELLS * HEADER) as u64
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }

    unsafe fn read<R>(&self, at: u64, len: usize, look: impl FnOnce(&[u8]) -> R) -> R {
        let first = at as usize / HEADER;
        let mut bytes = Vec::new();
        for cell in &self.0.cells[first..first + len.div_ceil(HEADER)] {
            // SAFETY: that nobody writes meanwhile is what loom checks.
            bytes.extend_from_slice(&cell.with(|cell| unsafe { *cell }));
        }
        look(&bytes[..len])
    }

    unsafe fn write<R>(&self, at: u64, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let first = at as usize / HEADER;
        let mut bytes = vec![0; len];
        let filled = fill(&mut bytes);
        bytes.resize(len.next_multiple_of(HEADER), 0);
        for (cell, bytes) in self.0.cells[first..].iter().zip(bytes.chunks_exact(HEADER)) {
            // SAFETY: that nobody else touches it meanwhile is what loom checks.
            cell.with_mut(|cell| unsafe { (*cell).copy_from_slice(bytes) });
        }
        filled
    }
}

/// A bell whose futex is a lock and a condition.
struct Futex {
    count: AtomicU32,
    sleeping: AtomicU32,
    lock: Mutex<()>,
    woken: Condvar,
}

impl Futex {
    fn new() -> Arc<Self> {
        let zero = || AtomicU32::new(0);
        Arc::new(Self { count: zero(), sleeping: zero(), lock: Mutex::new(()), woken: Condvar::new() })
    }
}

impl Signal for Futex {
    fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    fn advance(&self) {
        self.count.fetch_add(1, Ordering::Release);
    }

    fn announce(&self, sleeping: bool) {
        self.sleeping.store(u32::from(sleeping), Ordering::Relaxed);
    }

    fn is_announced(&self) -> bool {
        self.sleeping.load(Ordering::Relaxed) != 0
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    /// Without an end: whoever is not woken sleeps for ever, which loom reports.
    fn park(&self, seen: u32, _: Duration) {
        let mut held = self.lock.lock().expect("nobody panics");
        while self.count() == seen {
            held = self.woken.wait(held).expect("nobody panics");
        }
    }

    fn unpark(&self) {
        let _held = self.lock.lock().expect("nobody panics");
        self.woken.notify_all();
    }
}

fn ring() -> Shared {
    let zero = || AtomicU64::new(0);
    let cells = std::array::from_fn(|_| UnsafeCell::new([0; HEADER]));
    Shared(Arc::new(Small { head: zero(), tail: zero(), starved: zero(), cells }))
}

fn ends(ring: &Shared) -> (Producer<Shared>, Consumer<Shared>) {
    // SAFETY: once per ring.
    unsafe { (Producer::resume(ring.clone(), 1), Consumer::resume(ring.clone())) }
}

/// Sends a frame, sleeping while there is no room.
fn send(producer: &mut Producer<Shared>, frame: &[u8], room: &Futex) {
    while !producer.send(frame.len(), |target| target.copy_from_slice(frame)).expect("nothing is damaged") {
        room.sleep(Duration::MAX, || producer.is_relieved());
        producer.relieved();
    }
}

/// Receives a frame, sleeping while there is none; answers whether the producer waits for its room.
fn receive(consumer: &mut Consumer<Shared>, expected: &[u8], frame: &Futex) -> bool {
    while consumer.peek().expect("nothing is damaged").is_none() {
        frame.sleep(Duration::MAX, || consumer.is_waiting());
    }
    consumer.take(|bytes| assert_eq!(bytes, expected))
}

#[test]
fn a_sleeping_receiver_is_woken() {
    loom::model(|| {
        let (mut producer, mut consumer) = ends(&ring());
        let frame = Futex::new();
        let bell = Arc::clone(&frame);
        let writer = thread::spawn(move || {
            assert_eq!(producer.send(3, |target| target.copy_from_slice(b"one")), Ok(true));
            bell.ring();
        });
        receive(&mut consumer, b"one", &frame);
        writer.join().expect("no assertion fails");
    });
}

#[test]
fn a_starving_sender_is_woken() {
    loom::model(|| {
        let (mut producer, mut consumer) = ends(&ring());
        // Two cells each: the ring is full.
        for frame in [b"one", b"two"] {
            assert_eq!(producer.send(3, |target| target.copy_from_slice(frame)), Ok(true));
        }
        let (room, frame) = (Futex::new(), Futex::new());
        let bell = Arc::clone(&room);
        let writer = thread::spawn(move || send(&mut producer, b"end", &bell));
        if receive(&mut consumer, b"one", &frame) {
            room.ring();
        }
        writer.join().expect("no assertion fails");
        assert!(!receive(&mut consumer, b"two", &frame));
        assert!(!receive(&mut consumer, b"end", &frame));
    });
}

/// Sends these frames as far as there is room, while what has arrived is read a few times; then the rest is read.
fn cross(frames: &'static [&'static [u8]]) {
    loom::model(move || {
        let (mut producer, mut consumer) = ends(&ring());
        let writer = thread::spawn(move || {
            let sent = |frame: &&&[u8]| producer.send(frame.len(), |target| target.copy_from_slice(frame)) == Ok(true);
            frames.iter().take_while(sent).count()
        });
        let mut read = 0;
        let mut look = |consumer: &mut Consumer<Shared>| {
            let there = consumer.peek().expect("nothing is damaged").is_some();
            if there {
                consumer.take(|bytes| assert_eq!(bytes, frames[read]));
                read += 1;
            }
            there
        };
        look(&mut consumer);
        look(&mut consumer);
        let sent = writer.join().expect("no assertion fails");
        while look(&mut consumer) {}
        assert_eq!(read, sent);
    });
}

#[test]
fn frames_arrive_whole_and_in_order() {
    cross(&[b"one", b"two"]);
}

#[test]
fn a_full_ring_goes_on_behind_its_end() {
    // Two cells each: the third begins anew, or is refused.
    cross(&[b"one", b"two", b"three"]);
}

#[test]
fn padding_is_passed_over() {
    // One cell, then two: the next two do not fit before the end.
    cross(&[b"", b"one", b"two"]);
}

#[test]
fn the_successor_of_a_dead_consumer_goes_on_where_it_can() {
    loom::model(|| {
        let ring = ring();
        let (mut producer, consumer) = ends(&ring);
        let writer = thread::spawn(move || {
            let mut sent = [false; 2];
            for (number, sent) in sent.iter_mut().enumerate() {
                *sent = producer.send(1, |target| target[0] = number as u8).expect("nothing is damaged");
            }
            sent
        });
        drop(consumer);
        // SAFETY: the one before is gone.
        let mut consumer = unsafe { Consumer::resume(ring.clone()) };
        let mut last = None;
        while consumer.peek().expect("nothing is damaged").is_some() {
            consumer.take(|bytes| {
                assert!(last < Some(bytes[0]), "frames come in order");
                last = Some(bytes[0]);
            });
        }
        assert_eq!(writer.join().expect("no assertion fails"), [true; 2], "there is room for both");
        while consumer.peek().expect("nothing is damaged").is_some() {
            consumer.take(|bytes| last = Some(bytes[0]));
        }
        assert!(last.is_none_or(|last| last == 1), "the last frame is lost only with those before");
    });
}
