//! Deliberately wrong transports: each breaks one sentence of the contract, and a law must notice.

use super::{Fabric, Promise};
use kronfleet_core::time::Instant;
use kronfleet_core::transport::{Event, NodeId, Sent, Transport, TransportError};
use std::cell::Cell;
use std::time::Duration;

/// What a mutant does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Flips a bit of every tenth frame.
    AltersBits,
    /// Drops the last byte of long frames.
    Truncates,
    /// Swallows every tenth frame.
    Swallows,
    /// Delivers every tenth frame twice.
    Doubles,
    /// Delivers every second frame after the one behind it.
    Reorders,
    /// Names the next node as the sender.
    NamesAnother,
    /// Calls `fill` although it is full.
    FillsWhenFull,
    /// Calls `fill` twice.
    FillsTwice,
    /// Says that it accepted a frame for which it had no room.
    LosesWhenFull,
    /// Waits for room instead of saying that there is none.
    WaitsForRoom,
    /// Waits half a second past the deadline.
    WaitsPastTheDeadline,
    /// Does not wait at all.
    ComesBackEarly,
    /// Sleeps until the deadline although a frame arrives.
    SleepsThroughFrames,
    /// Takes frames that are too long and cuts them.
    TakesTooLong,
    /// Carries frames to oneself.
    CarriesToOneself,
    /// Takes frames to nodes that do not exist.
    TakesForNobody,
    /// Does not report deaths.
    KeepsDeathsQuiet,
    /// Fails when a peer dies.
    DiesWithItsPeer,
    /// Has a clock that jumps back.
    TurnsTimeBack,
}

impl Wrong {
    /// All mutants, each with the name of the law that must reject it.
    pub const ALL: &[(Self, &'static str)] = &[
        (Self::AltersBits, "frames_arrive_unaltered"),
        (Self::Truncates, "frames_up_to_the_longest_are_carried"),
        (Self::Swallows, "losses_are_as_promised"),
        (Self::Doubles, "copies_are_as_promised"),
        (Self::Reorders, "order_is_as_promised"),
        (Self::NamesAnother, "senders_are_named"),
        (Self::FillsWhenFull, "a_full_link_leaves_fill_uncalled"),
        (Self::FillsTwice, "fill_is_called_once_with_the_length"),
        (Self::LosesWhenFull, "a_full_link_loses_nothing"),
        (Self::WaitsForRoom, "sending_never_waits"),
        (Self::WaitsPastTheDeadline, "receiving_honours_its_deadline"),
        (Self::ComesBackEarly, "receiving_honours_its_deadline"),
        (Self::SleepsThroughFrames, "a_frame_wakes_its_receiver"),
        (Self::TakesTooLong, "too_long_a_frame_panics"),
        (Self::CarriesToOneself, "a_frame_to_oneself_panics"),
        (Self::TakesForNobody, "an_unknown_receiver_is_an_error"),
        (Self::KeepsDeathsQuiet, "a_dead_peer_is_reported"),
        (Self::DiesWithItsPeer, "a_dead_peer_is_reported"),
        (Self::TurnsTimeBack, "time_never_goes_back"),
    ];
}

/// Makes ends of `fabric` that are wrong in one way.
#[derive(Clone, Copy, Debug)]
pub struct Mutant<F> {
    /// A fabric that obeys the laws.
    pub fabric: F,
    /// What its ends do wrong.
    pub wrong: Wrong,
}

impl<F: Fabric> Fabric for Mutant<F> {
    type End = MutantEnd<F::End>;

    fn connect(&mut self, nodes: u32) -> Vec<Self::End> {
        let wrong = self.wrong;
        let ends = self.fabric.connect(nodes).into_iter();
        ends.map(|end| MutantEnd { end, wrong, nodes, frames: 0, held: None, clock: Cell::new(0) }).collect()
    }

    fn kill(&mut self, end: Self::End) {
        self.fabric.kill(end.end);
    }

    fn promise(&self) -> Promise {
        self.fabric.promise()
    }
}

/// An end that is wrong in one way.
pub struct MutantEnd<T> {
    end: T,
    wrong: Wrong,
    nodes: u32,
    /// Counts received frames.
    frames: u64,
    /// A frame to be delivered later or again.
    held: Option<(NodeId, Vec<u8>)>,
    /// Counts readings of the clock.
    clock: Cell<u64>,
}

impl<T: Transport> Transport for MutantEnd<T> {
    fn local(&self) -> NodeId {
        self.end.local()
    }

    fn max_frame(&self) -> usize {
        self.end.max_frame()
    }

    fn now(&self) -> Instant {
        let reading = self.clock.replace(self.clock.get() + 1);
        let now = self.end.now();
        if self.wrong == Wrong::TurnsTimeBack && reading % 100 == 99 {
            return Instant::from_nanos(now.as_nanos() / 2);
        }
        now
    }

    fn send(&mut self, to: NodeId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<Sent, TransportError> {
        match self.wrong {
            Wrong::TakesTooLong => self.end.send(to, len.min(self.max_frame()), fill),
            Wrong::CarriesToOneself if to == self.local() => {
                let mut bytes = vec![0; len];
                fill(&mut bytes);
                self.held = Some((to, bytes));
                Ok(Sent::Accepted)
            }
            Wrong::TakesForNobody if to.0 >= self.nodes => Ok(Sent::Accepted),
            Wrong::FillsTwice => self.end.send(to, len, &mut |target| {
                fill(target);
                fill(target);
            }),
            Wrong::FillsWhenFull => {
                let mut bytes = vec![0; len];
                fill(&mut bytes);
                self.end.send(to, len, &mut |target| target.copy_from_slice(&bytes))
            }
            Wrong::LosesWhenFull => {
                let sent = self.end.send(to, len, fill)?;
                if sent == Sent::Full {
                    fill(&mut vec![0; len]);
                }
                Ok(Sent::Accepted)
            }
            Wrong::WaitsForRoom => {
                let asked = std::time::Instant::now();
                loop {
                    let sent = self.end.send(to, len, fill)?;
                    if sent == Sent::Accepted || asked.elapsed() > Duration::from_millis(400) {
                        return Ok(sent);
                    }
                    std::thread::yield_now();
                }
            }
            _ => self.end.send(to, len, fill),
        }
    }

    fn recv(&mut self, deadline: Instant, sink: &mut dyn FnMut(Event<'_>)) -> Result<bool, TransportError> {
        if let Some((from, bytes)) = self.held.take() {
            sink(Event::Frame { from, bytes: &bytes });
            return Ok(true);
        }
        let late = Duration::from_millis(500);
        match self.wrong {
            Wrong::WaitsPastTheDeadline => return self.end.recv(deadline + late, sink),
            Wrong::ComesBackEarly => return self.end.recv(Instant::ORIGIN, sink),
            Wrong::SleepsThroughFrames => {
                std::thread::park_timeout(deadline.since(self.end.now()));
                return self.end.recv(Instant::ORIGIN, sink);
            }
            _ => {}
        }
        let mut seen = Seen::Nothing;
        if !self.end.recv(deadline, &mut |event| seen = Seen::of(event))? {
            return Ok(false);
        }
        self.pass_on(seen, sink)
    }
}

/// An event, out of the transport's memory.
enum Seen {
    Nothing,
    Frame(NodeId, Vec<u8>),
    Up(NodeId),
    Down(NodeId),
}

impl Seen {
    fn of(event: Event<'_>) -> Self {
        match event {
            Event::Frame { from, bytes } => Self::Frame(from, bytes.into()),
            Event::Up(peer) => Self::Up(peer),
            Event::Down(peer) => Self::Down(peer),
        }
    }
}

impl<T: Transport> MutantEnd<T> {
    /// Gives an event to the sink, or something else.
    fn pass_on(&mut self, seen: Seen, sink: &mut dyn FnMut(Event<'_>)) -> Result<bool, TransportError> {
        let (mut from, mut bytes) = match seen {
            Seen::Frame(from, bytes) => (from, bytes),
            Seen::Up(peer) => {
                sink(Event::Up(peer));
                return Ok(true);
            }
            Seen::Down(peer) if self.wrong == Wrong::DiesWithItsPeer => {
                let kind = kronfleet_core::error::ErrorKind::Unreachable;
                return Err(TransportError { kind, peer: Some(peer), reason: "gone".into() });
            }
            Seen::Down(peer) if self.wrong != Wrong::KeepsDeathsQuiet => {
                sink(Event::Down(peer));
                return Ok(true);
            }
            Seen::Down(_) | Seen::Nothing => return Ok(false),
        };
        self.frames += 1;
        let tenth = self.frames.is_multiple_of(10);
        match self.wrong {
            Wrong::AltersBits if tenth => {
                if let Some(last) = bytes.last_mut() {
                    *last ^= 4;
                }
            }
            Wrong::Truncates if bytes.len() > 1000 => bytes.truncate(bytes.len() - 1),
            Wrong::Swallows if tenth => return Ok(false),
            Wrong::Doubles if tenth => self.held = Some((from, bytes.clone())),
            Wrong::Reorders if self.frames.is_multiple_of(2) => {
                let mut next = Seen::Nothing;
                if self.end.recv(Instant::ORIGIN, &mut |event| next = Seen::of(event))?
                    && let Seen::Frame(sender, overtaking) = next
                {
                    self.held = Some((from, bytes));
                    (from, bytes) = (sender, overtaking);
                }
            }
            Wrong::NamesAnother => from = NodeId((from.0 + 1) % self.nodes),
            _ => {}
        }
        sink(Event::Frame { from, bytes: &bytes });
        Ok(true)
    }
}
