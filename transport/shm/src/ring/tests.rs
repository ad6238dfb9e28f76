use super::*;
use crate::bell::{Bell, Signal};
use crate::layout::PAGE;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// A ring of a page, and some room for bells.
fn ring() -> (Arc<Memory>, Mapped) {
    let layout = Layout::new(2, PAGE as u64).expect("two nodes with rings of a page");
    let memory = Arc::new(Memory::private(layout.len()).expect("memory for some pages"));
    let ring = Mapped::new(&memory, &layout, 0, 1);
    (memory, ring)
}

fn ends(ring: &Mapped, generation: u64) -> (Producer<Mapped>, Consumer<Mapped>) {
    // SAFETY: every test drops the ends it had before it makes new ones.
    unsafe { (Producer::resume(ring.clone(), generation), Consumer::resume(ring.clone())) }
}

fn received(consumer: &mut Consumer<Mapped>) -> Result<Option<Vec<u8>>, Corrupt> {
    let Some(record) = consumer.peek()? else { return Ok(None) };
    let mut frame = Vec::new();
    consumer.take(|bytes| frame.extend_from_slice(bytes));
    assert_eq!(frame.len(), record.len);
    Ok(Some(frame))
}

#[derive(Clone, Debug)]
enum Step {
    Send(Vec<u8>),
    Receive,
    /// The producer dies in the middle of filling a frame of this length, and comes back.
    Die(usize),
    /// The consumer dies, and comes back.
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![0_usize..40, 900_usize..1100, 2000..=longest(PAGE as u64)];
    prop_oneof![
        8 => (len.clone(), any::<u8>()).prop_map(|(len, first)| Step::Send((0..len).map(|i| first.wrapping_add(i as u8)).collect())),
        8 => Just(Step::Receive),
        1 => len.prop_map(Step::Die),
        1 => Just(Step::Forget),
    ]
}

proptest! {
    #[test]
    fn a_ring_is_a_queue_that_survives_its_ends(steps in proptest::collection::vec(step(), 1..200)) {
        let (_memory, ring) = ring();
        let (mut producer, mut consumer) = ends(&ring, 1);
        let mut queue: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
        let mut generation = 1;
        for step in steps {
            match step {
                Step::Send(frame) => {
                    let sent = producer.send(frame.len(), |target| target.copy_from_slice(&frame));
                    let empty = queue.is_empty();
                    if sent == Ok(true) {
                        queue.push_back((generation, frame));
                    } else {
                        prop_assert_eq!(sent, Ok(false));
                        prop_assert!(!empty, "an empty ring has room for any frame");
                    }
                }
                Step::Receive => {
                    let of = consumer.peek().expect("nothing is damaged").map(|record| record.generation);
                    let frame = received(&mut consumer).expect("nothing is damaged");
                    prop_assert_eq!(of.zip(frame), queue.pop_front());
                }
                Step::Die(len) => {
                    let died = catch_unwind(AssertUnwindSafe(|| {
                        producer.send(len, |target| {
                            target.fill(0xff);
                            std::panic::resume_unwind(Box::new(()));
                        })
                    }));
                    prop_assert!(died.is_err() || died.is_ok_and(|sent| sent == Ok(false)));
                    generation += 2;
                    // SAFETY: the one before does nothing any more.
                    producer = unsafe { Producer::resume(ring.clone(), generation) };
                }
                Step::Forget => {
                    queue.clear();
                    // SAFETY: the one before does nothing any more.
                    consumer = unsafe { Consumer::resume(ring.clone()) };
                }
            }
        }
        for (_, frame) in queue {
            prop_assert_eq!(received(&mut consumer), Ok(Some(frame)));
        }
        prop_assert_eq!(received(&mut consumer), Ok(None));
    }

    #[test]
    fn whatever_stands_in_a_ring_is_answered(bytes in proptest::collection::vec(any::<u8>(), 0..6000)) {
        exercise_ring(&bytes);
    }

    #[test]
    fn almost_sound_rings_are_answered(head in 0_u64..10_000, tail in 0_u64..10_000, at in 0_usize..256, byte: u8) {
        let record = Record { kind: Kind::Frame, len: 16, generation: 1 };
        let mut bytes = [head.to_ne_bytes(), tail.to_ne_bytes()].concat();
        for _ in 0..128 {
            bytes.extend(record.encode());
            bytes.extend([0; 16]);
        }
        bytes[16 + at] = byte;
        exercise_ring(&bytes);
    }
}

#[test]
fn refused_frames_are_announced_once_when_there_is_room() {
    let (_memory, ring) = ring();
    let (mut producer, mut consumer) = ends(&ring, 1);
    let mut sent = 0;
    while producer.send(1000, |_| ()) == Ok(true) {
        sent += 1;
    }
    assert_eq!(sent, 4);
    assert!(!producer.relieved());
    consumer.peek().expect("sound").expect("a frame");
    assert!(consumer.take(|_| ()), "the producer waits for room");
    assert!(producer.relieved() && !producer.relieved());
    consumer.peek().expect("sound").expect("a frame");
    assert!(!consumer.take(|_| ()), "the producer was told");
    assert_eq!(producer.send(1000, |_| ()), Ok(true));
}

#[test]
#[should_panic(expected = "2033 bytes in a ring that takes 2032")]
fn frames_that_may_never_fit_are_refused() {
    let (_memory, ring) = ring();
    let _ = ends(&ring, 1).0.send(2033, |_| ());
}

/// Two threads over one mapping: what ThreadSanitizer looks at. Both ends sleep on bells as endpoints do.
#[test]
fn frames_cross_threads_unaltered_and_nobody_oversleeps() {
    const FRAMES: u64 = 20_000;
    let (memory, ring) = ring();
    let (mut producer, mut consumer) = ends(&ring, 1);
    // Slots are apart from rings: their bells will do.
    let layout = Layout::new(2, PAGE as u64).expect("two nodes with rings of a page");
    let (ours, theirs) = (Bell::new(&memory, layout.slot(0)), Bell::new(&memory, layout.slot(1)));
    // Far longer than the test may take: a lost ring fails it.
    let hour = Duration::from_secs(3600);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..FRAMES {
                let len = 8 + (number % 700) as usize;
                while producer.send(len, |target| {
                    target.fill(number as u8);
                    target[..8].copy_from_slice(&number.to_ne_bytes());
                }) != Ok(true)
                {
                    ours.sleep(hour, || producer.is_relieved());
                    producer.relieved();
                }
                theirs.ring();
            }
        });
        for number in 0..FRAMES {
            while consumer.peek().expect("nothing is damaged").is_none() {
                theirs.sleep(hour, || consumer.is_waiting());
            }
            let starved = consumer.take(|bytes| {
                assert_eq!(bytes.len(), 8 + (number % 700) as usize);
                assert_eq!(bytes[..8], number.to_ne_bytes());
                assert!(bytes[8..].iter().all(|&byte| byte == number as u8));
            });
            if starved {
                ours.ring();
            }
        }
    });
}

/// The fuzz targets' corpora: what fuzzing has found stays found.
#[test]
fn corpora_are_answered() {
    let corpus = |name: &str| {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
        let files = std::fs::read_dir(folder).expect("every target has a corpus");
        let read = |entry: std::io::Result<std::fs::DirEntry>| {
            let path = entry.expect("a readable folder").path();
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("a readable file"))
        };
        files.map(read).collect::<std::collections::BTreeMap<_, _>>()
    };
    let headers = corpus("shm_header");
    assert!(crate::header::Header::parse(&headers["segment"]).is_ok());
    for bytes in headers.values() {
        let _ = crate::header::Header::parse(bytes);
    }
    let rings = corpus("shm_ring");
    for bytes in rings.values() {
        exercise_ring(bytes);
    }
    assert_eq!((exercise_ring(&rings["frames"]), exercise_ring(&rings["padding"])), (305, 33));
}
