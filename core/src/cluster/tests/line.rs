//! What streams make of a line of a given rate and length: they fill it, and no more.

use crate::cluster::Budget;
use crate::cluster::inbox::Inbox;
use crate::cluster::outbox::{Outbox, Post, Rank, Tail};
use crate::cluster::window::{SMALLEST, Window};
use crate::cluster::wire::{Acknowledged, HEADER, Place, SEGMENT};
use crate::time::{Duration, Instant};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

/// Bytes of a frame at most.
const MAX_FRAME: usize = 64 << 10;
/// Values of a message: as many as a round's pieces have.
const VALUES: usize = 16 << 10;

/// One way between two ends: a queue without bounds before a line of some rate, then some distance.
#[derive(Clone, Copy, Debug)]
struct Line {
    rate: f64,
    distance: Duration,
}

/// What is on its way to an end: an acknowledgement, and perhaps a part of the stream of one of the others.
struct Parcel {
    to: usize,
    from: usize,
    segment: Option<(Place, u32, u32, usize)>,
    acknowledged: Acknowledged,
    /// How long ago the last frame had come when this one was sent.
    kept: Duration,
}

/// An end of a stream: it sends to one other, and takes in what comes from it.
struct End {
    peer: usize,
    outbox: Outbox<f32>,
    inbox: Inbox,
    heard: Instant,
}

/// Ends, the lines they send on, and what is under way.
struct Lines {
    now: Instant,
    budget: Budget,
    ends: Vec<End>,
    /// Which line an end sends on; several may share one.
    sends_on: Vec<usize>,
    lines: Vec<(Line, Instant)>,
    queue: BTreeMap<(Instant, u64), Parcel>,
    number: u64,
    /// What busy ends send.
    sends: Rank,
    /// Bytes of data that have arrived at each end.
    arrived: Vec<usize>,
    sent_again: usize,
    /// The longest that a frame waited before its line, after the beginning.
    waited: Duration,
}

impl Lines {
    /// Pairs of ends, each of which has the first send to the second; ends 2k and 2k + 1 are a pair.
    fn new(budget: Budget, lines: Vec<Line>, sends_on: Vec<usize>, window: fn(Budget) -> Window) -> Self {
        let largest = 1 << 20;
        let end = |at: usize| {
            let outbox = Outbox::with_window(budget, window(budget));
            End { peer: at ^ 1, outbox, inbox: Inbox::new(budget, largest), heard: Instant::ORIGIN }
        };
        Self {
            now: Instant::ORIGIN,
            budget,
            ends: (0..sends_on.len()).map(end).collect(),
            arrived: vec![0; sends_on.len()],
            sends_on,
            sends: Rank::Bulk,
            lines: lines.into_iter().map(|line| (line, Instant::ORIGIN)).collect(),
            queue: BTreeMap::new(),
            number: 0,
            sent_again: 0,
            waited: Duration::ZERO,
        }
    }

    /// Lets `span` pass, in which these ends never run out of what they have to send.
    fn run(&mut self, span: Duration, busy: &[usize]) {
        let until = self.now + span;
        let values = Arc::new(vec![1.0_f32; VALUES]);
        loop {
            for at in 0..self.ends.len() {
                while busy.contains(&at) && self.ends[at].outbox.unsent() < 4 {
                    self.ends[at].outbox.push(match self.sends {
                        Rank::Bulk => {
                            let tail = Tail::Whole(Arc::clone(&values));
                            Post { head: vec![0; 32], tail, attempt: None, rank: Rank::Bulk }
                        }
                        Rank::Note => Post::note(vec![0; 4 * VALUES]),
                        Rank::Urgent => Post::urgent(vec![0; 4 * VALUES]),
                    });
                }
                self.send(at);
            }
            let timers = self.ends.iter().map(|end| end.outbox.timeout().min(end.inbox.due()));
            let timer = timers.min().unwrap_or(Instant::FAR);
            let parcel = self.queue.keys().next().map_or(Instant::FAR, |key| key.0);
            let next = timer.min(parcel).max(self.now);
            if next > until {
                self.now = until;
                return;
            }
            self.now = next;
            if parcel <= timer
                && let Some((_, parcel)) = self.queue.pop_first()
            {
                self.arrive(parcel);
            }
            for end in &mut self.ends {
                end.outbox.wake(next);
            }
        }
    }

    fn send(&mut self, at: usize) {
        loop {
            let End { peer, outbox, inbox, heard } = &mut self.ends[at];
            let plan = outbox.plan(MAX_FRAME - HEADER - SEGMENT);
            let segment = plan.map(|plan| {
                self.sent_again += usize::from(plan.again);
                outbox.sent(self.now, &plan);
                (plan.place, plan.offset, plan.total, plan.len as usize)
            });
            if segment.is_none() && inbox.due() > self.now {
                return;
            }
            inbox.told();
            let (acknowledged, kept) = (inbox.acknowledged(), self.now.since(*heard));
            let parcel = Parcel { to: *peer, from: at, segment, acknowledged, kept };
            let bytes = HEADER + segment.map_or(0, |(.., len)| SEGMENT + len);
            let (Line { rate, distance }, free) = &mut self.lines[self.sends_on[at]];
            let begins = (*free).max(self.now);
            self.waited = self.waited.max(begins.since(self.now));
            *free = begins + Duration::from_secs_f64(bytes as f64 / *rate);
            self.queue.insert((*free + *distance, self.number), parcel);
            self.number += 1;
        }
    }

    fn arrive(&mut self, parcel: Parcel) {
        let end = &mut self.ends[parcel.to];
        assert_eq!(end.peer, parcel.from);
        end.heard = self.now;
        end.outbox.acknowledge(self.now, parcel.acknowledged, parcel.kept);
        if let Some((place, offset, total, len)) = parcel.segment {
            self.arrived[parcel.to] += len;
            end.inbox.segment(self.now, place, offset, total, &[0; MAX_FRAME][..len]);
        }
    }

    /// Runs for some round trips, and then measures for some: the share of the `rate` that each end has received.
    fn shares(&mut self, busy: &[usize], rate: f64, trips: u32) -> Vec<f64> {
        let longest = self.lines.iter().map(|(line, _)| line.distance).max().unwrap_or_default();
        let trip = 2 * longest + self.budget.queueing();
        // Whoever begins has talked with the other end before.
        for &end in busy {
            self.ends[end].outbox.push(Post::urgent(vec![0; 100]));
            self.run(trip, &[]);
        }
        self.run(trips * trip, busy);
        self.waited = Duration::ZERO;
        self.arrived.fill(0);
        self.run(trips * trip, busy);
        self.arrived.iter().map(|&bytes| bytes as f64 / (trips * trip).as_secs_f64() / rate).collect()
    }

    /// How long a frame may wait before a line: some excess over the target until that is seen, and behind what senders
    /// may always have under way.
    fn bound(&self, rate: f64, senders: u32) -> Duration {
        2 * self.budget.queueing() + senders * Duration::from_secs_f64(2.0 * SMALLEST as f64 / rate)
    }
}

fn budget() -> impl Strategy<Value = Budget> {
    (1_u64..=5).prop_map(|seconds| Budget::new(Duration::from_secs(seconds)).expect("a usual budget"))
}

/// From 20 Mbit/s to 1 Gbit/s, and as long as the frames of a stream can fill.
fn line() -> impl Strategy<Value = Line> {
    (6.4_f64..8.1, 0.0_f64..1.0).prop_map(|(magnitude, share)| {
        let rate = libm::pow(10.0, magnitude);
        let longest = (f64::from(1 << 19) / rate).min(0.02);
        Line { rate, distance: Duration::from_secs_f64(longest * share) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_line_is_full_and_nothing_waits_long_or_is_sent_twice(budget in budget(), line in line()) {
        let mut lines = Lines::new(budget, vec![line; 2], vec![0, 1], Window::new);
        let shares = lines.shares(&[0], line.rate, 60);
        prop_assert!(shares[1] >= 0.8, "{:.2} of the line", shares[1]);
        prop_assert!(lines.waited <= lines.bound(line.rate, 1), "{:?} before the line", lines.waited);
        prop_assert_eq!(lines.sent_again, 0);
    }

    #[test]
    fn long_notes_are_windowed_like_values(budget in budget(), line in line()) {
        let mut lines = Lines::new(budget, vec![line; 2], vec![0, 1], Window::new);
        lines.sends = Rank::Note;
        let shares = lines.shares(&[0], line.rate, 60);
        prop_assert!(shares[1] >= 0.8, "{:.2} of the line", shares[1]);
        prop_assert!(lines.waited <= lines.bound(line.rate, 1), "{:?} before the line", lines.waited);
        prop_assert_eq!(lines.sent_again, 0);
    }

    #[test]
    fn two_senders_fill_a_line_and_none_starves(budget in budget(), line in line()) {
        let mut lines = Lines::new(budget, vec![line; 3], vec![0, 1, 0, 2], Window::new);
        let shares = lines.shares(&[0, 2], line.rate, 60);
        prop_assert!(shares[1] + shares[3] >= 0.8, "{shares:.2?} of the line");
        prop_assert!(shares[1].min(shares[3]) >= 0.1, "{shares:.2?} of the line");
        prop_assert!(lines.waited <= lines.bound(line.rate, 2), "{:?} before the line", lines.waited);
        prop_assert_eq!(lines.sent_again, 0);
    }

    #[test]
    fn both_ways_of_a_line_are_used(budget in budget(), line in line()) {
        let mut lines = Lines::new(budget, vec![line; 2], vec![0, 1], Window::new);
        let shares = lines.shares(&[0, 1], line.rate, 60);
        // What waits on the way back counts, too, so either way gets only a part of the queue.
        prop_assert!(shares[0] + shares[1] >= 1.25 && shares[0].min(shares[1]) >= 0.2, "{shares:.2?} of the line");
        prop_assert!(lines.waited <= lines.bound(line.rate, 1), "{:?} before the line", lines.waited);
        // Acknowledgements wait behind what the other end sends, of which a sender knows nothing: where both windows grow at
        // once, some frame or other is sent again, once in some thousand draws (1 s, 3.2776 MB/s, 17.749 ms: two frames).
        prop_assert!(lines.sent_again <= 4, "{} frames sent again", lines.sent_again);
    }
}

/// Where an end's acknowledgements had waited for company when the line was empty, its line seemed longer than it is, and it took
/// all but a twentieth.
#[test]
fn what_acknowledgements_wait_for_company_is_no_distance() {
    let budget = Budget::new(Duration::from_secs(3)).expect("a usual budget");
    let line = Line { rate: 3.41e6, distance: Duration::from_micros(1066) };
    let mut lines = Lines::new(budget, vec![line; 3], vec![0, 1, 0, 2], Window::new);
    let shares = lines.shares(&[0, 2], line.rate, 60);
    assert!(shares[1].min(shares[3]) >= 0.2, "{shares:.2?} of the line");
}

/// What the laws are there for: as many bytes as 64 frames hold, whatever the line.
#[test]
fn a_window_of_frames_breaks_the_law() {
    let line = Line { rate: 5e6, distance: Duration::from_micros(100) };
    let budget = Budget::new(Duration::from_secs(2)).expect("a usual budget");
    let mut lines = Lines::new(budget, vec![line; 2], vec![0, 1], |budget| Window::fixed(budget, 4 << 20));
    lines.shares(&[0], line.rate, 60);
    assert!(lines.waited > 3 * lines.bound(line.rate, 1), "{:?}", lines.waited);
}

/// Notes were urgent once; on a slow line the frames of long ones piled up.
#[test]
fn long_messages_without_a_window_break_the_law() {
    let line = Line { rate: 2e5, distance: Duration::from_micros(100) };
    let budget = Budget::new(Duration::from_secs(2)).expect("a usual budget");
    for (rank, keeps) in [(Rank::Note, true), (Rank::Bulk, true), (Rank::Urgent, false)] {
        let mut lines = Lines::new(budget, vec![line; 2], vec![0, 1], Window::new);
        lines.sends = rank;
        lines.shares(&[0], line.rate, 60);
        assert_eq!(lines.waited <= lines.bound(line.rate, 1), keeps, "{rank:?}: {:?}", lines.waited);
    }
}

#[test]
fn notes_pass_values_and_let_urgent_messages_pass() {
    let mut outbox = Outbox::<f32>::new(Budget::default());
    let values = Arc::new(vec![1.0_f32; 100]);
    outbox.push(Post { head: vec![0; 32], tail: Tail::Whole(values), attempt: None, rank: Rank::Bulk });
    outbox.push(Post::note(vec![0; 10]));
    outbox.push(Post::note(vec![0; 20]));
    outbox.push(Post::urgent(vec![0; 30]));
    let mut order = Vec::new();
    while let Some(plan) = outbox.plan(MAX_FRAME) {
        outbox.sent(Instant::ORIGIN, &plan);
        order.push(plan.place.message);
    }
    assert_eq!(order, [3, 1, 2, 0]);
    assert_eq!(outbox.unsent(), 0);
}

#[test]
fn what_is_urgent_passes_a_full_window() {
    let budget = Budget::default();
    let mut outbox = Outbox::<f32>::new(budget);
    let values = Arc::new(vec![1.0_f32; 1 << 20]);
    outbox.push(Post { head: vec![0; 32], tail: Tail::Whole(values), attempt: None, rank: Rank::Bulk });
    while let Some(plan) = outbox.plan(MAX_FRAME) {
        outbox.sent(Instant::ORIGIN, &plan);
    }
    outbox.push(Post::urgent(vec![0; 100]));
    let plan = outbox.plan(MAX_FRAME).expect("it does not wait");
    assert_eq!((plan.place.message, plan.len), (1, 100));
}
