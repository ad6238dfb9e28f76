//! One direction of a connection between two nodes: what it does to the frames it is given.
//!
//! # For users
//! [`LinkOptions`] says how lossy, slow and narrow the links of a run are. Its text form is that of command
//! lines and traces: `loss=0.01,latency=1ms,jitter=200us,bandwidth=125000000`; what is left out keeps its
//! default, and an empty text is a perfect link.
//!
//! # For implementers
//! [`Link::offer`] decides a frame's [`Fate`] from the link's own random stream; drivers move the bytes and
//! call [`Link::release`] when the frame has left the link. Every frame draws the same number of random
//! numbers whatever the options, so that changing one option never shifts the fate of another frame.

use crate::fault::{parse_duration, write_duration};
use kronfleet_core::seed::{Random, Seed};
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;
use std::fmt;
use std::str::FromStr;

/// How the links of a run behave.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LinkOptions {
    /// Probability that a frame is lost.
    pub loss: f64,
    /// Probability that a frame arrives twice.
    pub duplicate: f64,
    /// Probability that a frame is held back by up to [`hold`](Self::hold), so that later ones overtake it.
    pub reorder: f64,
    /// The longest time a reordered or doubled frame is held back.
    pub hold: Duration,
    /// The time every frame travels.
    pub latency: Duration,
    /// The most that travel takes longer or shorter, uniformly; bounded below by no travel time at all.
    ///
    /// Frames with jitter may overtake each other.
    pub jitter: Duration,
    /// Bytes per second; `None` is without bound.
    pub bandwidth: Option<u64>,
    /// Bytes that may be on the link, waiting for their turn included, before it is full.
    pub capacity: usize,
    /// The longest frame, in bytes.
    pub max_frame: usize,
}

impl Default for LinkOptions {
    /// A perfect link: no loss, no delay, 4 MiB on their way, frames of 64 KiB.
    fn default() -> Self {
        Self {
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            hold: Duration::from_millis(1),
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            bandwidth: None,
            capacity: 4 << 20,
            max_frame: 64 << 10,
        }
    }
}

impl LinkOptions {
    /// Checks what no single value can tell.
    ///
    /// # Errors
    /// If a probability lies outside `[0, 1]`, the bandwidth is zero, frames are shorter than 256 bytes, or
    /// the capacity cannot hold one frame.
    pub fn check(&self) -> Result<(), LinkOptionsError> {
        let wrong = |reason: String| Err(LinkOptionsError { reason });
        for (name, value) in [("loss", self.loss), ("duplicate", self.duplicate), ("reorder", self.reorder)] {
            if !(0.0..=1.0).contains(&value) {
                return wrong(format!("{name}={value} is no probability: use 0 to 1"));
            }
        }
        if self.bandwidth == Some(0) {
            return wrong("bandwidth=0 delivers nothing: leave it out for no bound".into());
        }
        if self.max_frame < 256 {
            return wrong(format!("max-frame={} is below the 256 bytes every transport carries", self.max_frame));
        }
        if self.capacity < self.max_frame {
            return wrong(format!(
                "capacity={} cannot hold one frame of max-frame={} bytes: raise the one or lower the other",
                self.capacity, self.max_frame
            ));
        }
        Ok(())
    }
}

/// What is wrong with link options, and what helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("link options: {reason}")]
pub struct LinkOptionsError {
    reason: String,
}

impl FromStr for LinkOptions {
    type Err = LinkOptionsError;

    fn from_str(text: &str) -> Result<Self, LinkOptionsError> {
        let mut options = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let error = |reason: String| LinkOptionsError { reason };
            let (key, value) = part.split_once('=').ok_or_else(|| error(format!("`{part}` should be key=value")))?;
            let number = || value.parse().map_err(|_| error(format!("{key}={value}: expected a probability")));
            let bytes = || value.parse().map_err(|_| error(format!("{key}={value}: expected a number of bytes")));
            let span =
                || parse_duration(value).ok_or_else(|| error(format!("{key}={value}: expected a time such as 200us")));
            match key {
                "loss" => options.loss = number()?,
                "duplicate" => options.duplicate = number()?,
                "reorder" => options.reorder = number()?,
                "hold" => options.hold = span()?,
                "latency" => options.latency = span()?,
                "jitter" => options.jitter = span()?,
                "bandwidth" => options.bandwidth = Some(bytes()? as u64),
                "capacity" => options.capacity = bytes()?,
                "max-frame" => options.max_frame = bytes()?,
                _ => {
                    return Err(error(format!(
                        "unknown key `{key}`: use loss, duplicate, reorder, hold, latency, jitter, bandwidth, capacity, max-frame"
                    )));
                }
            }
        }
        options.check()?;
        Ok(options)
    }
}

impl fmt::Display for LinkOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "loss={},duplicate={},reorder={},hold={},latency={},jitter={}",
            self.loss,
            self.duplicate,
            self.reorder,
            write_duration(self.hold),
            write_duration(self.latency),
            write_duration(self.jitter)
        )?;
        if let Some(bandwidth) = self.bandwidth {
            write!(f, ",bandwidth={bandwidth}")?;
        }
        write!(f, ",capacity={},max-frame={}", self.capacity, self.max_frame)
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// No room: the frame was not taken.
    Full,
    /// It leaves the link at this time and reaches nobody.
    Lost(Instant),
    /// It arrives at this time, and perhaps once more at the second.
    Arrives(Instant, Option<Instant>),
}

/// One direction of a connection.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Link {
    random: Random,
    /// When everything accepted so far has been put on the wire.
    busy_until: Instant,
    on_the_way: usize,
}

impl Link {
    /// The link from `from` to `to` in the run of this seed.
    pub fn new(seed: Seed, from: NodeId, to: NodeId) -> Self {
        let index = u64::from(from.0) << 32 | u64::from(to.0);
        Self { random: seed.derive("link", index).random(), busy_until: Instant::ORIGIN, on_the_way: 0 }
    }

    /// Decides what becomes of a frame of `len` bytes offered at `now`.
    ///
    /// A frame that is not refused stays on the link until [`release`](Self::release) is called for it: at
    /// the time of its fate, once, a doubled one with its first copy.
    pub fn offer(&mut self, options: &LinkOptions, now: Instant, len: usize) -> Fate {
        let mut own = self.busy_until;
        let fate = self.offer_on(&mut own, options, now, len);
        self.busy_until = own;
        fate
    }

    /// The same over a line that other links share, with the time when everything accepted on it so far has been put on the
    /// wire.
    pub fn offer_on(&mut self, busy_until: &mut Instant, options: &LinkOptions, now: Instant, len: usize) -> Fate {
        if self.on_the_way + len > options.capacity {
            return Fate::Full;
        }
        self.on_the_way += len;
        let start = now.max(*busy_until);
        *busy_until =
            start + options.bandwidth.map_or(Duration::ZERO, |bytes_per_second| serialisation(len, bytes_per_second));
        let mut draw = || self.random.uniform();
        let (loss, duplicate, reorder) = (draw(), draw(), draw());
        let (jitter, held, held_again) = (draw(), draw(), draw());
        let earliest = (*busy_until + options.latency).as_nanos();
        let shift = (2.0 * jitter - 1.0) * options.jitter.as_nanos() as f64;
        let arrival = earliest.saturating_add_signed(shift as i64).max(busy_until.as_nanos());
        let mut arrival = Instant::from_nanos(arrival);
        if loss < options.loss {
            return Fate::Lost(arrival);
        }
        let copy = (duplicate < options.duplicate)
            .then(|| arrival + options.hold.mul_f64(held_again) + Duration::from_nanos(1));
        if reorder < options.reorder {
            arrival += options.hold.mul_f64(held);
        }
        match copy {
            Some(copy) => Fate::Arrives(arrival.min(copy), Some(arrival.max(copy))),
            None => Fate::Arrives(arrival, None),
        }
    }

    /// Makes room again for a frame of `len` bytes.
    pub fn release(&mut self, len: usize) {
        self.on_the_way -= len;
    }
}

/// How long `len` bytes take to be put on the wire.
fn serialisation(len: usize, bytes_per_second: u64) -> Duration {
    let nanoseconds = (len as u128 * 1_000_000_000).div_ceil(u128::from(bytes_per_second));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_options() -> impl Strategy<Value = LinkOptions> {
        (
            (0.0..=1.0, 0.0..=1.0, 0.0..=1.0),
            (0_u64..10_000_000, 0_u64..10_000_000, 0_u64..10_000_000),
            proptest::option::of(1_u64..1_000_000_000),
            (256_usize..4096, 0_usize..10_000),
        )
            .prop_map(|((loss, duplicate, reorder), (hold, latency, jitter), bandwidth, (frame, more))| {
                LinkOptions {
                    loss,
                    duplicate,
                    reorder,
                    hold: Duration::from_nanos(hold),
                    latency: Duration::from_nanos(latency),
                    jitter: Duration::from_nanos(jitter),
                    bandwidth,
                    capacity: frame + more,
                    max_frame: frame,
                }
            })
    }

    proptest! {
        #[test]
        fn text_form_round_trips(options in any_options()) {
            prop_assert_eq!(options.to_string().parse::<LinkOptions>().unwrap(), options);
        }

        #[test]
        fn no_frame_arrives_before_it_is_on_the_wire_nor_after_every_delay(
            options in any_options(),
            seed in any::<u64>(),
            lens in proptest::collection::vec(1_usize..256, 1..50),
        ) {
            let mut link = Link::new(Seed(seed), NodeId(0), NodeId(1));
            let mut wire = Instant::ORIGIN;
            for len in lens {
                let fate = link.offer(&options, Instant::ORIGIN, len);
                if fate == Fate::Full {
                    continue;
                }
                if let Some(bandwidth) = options.bandwidth {
                    wire += serialisation(len, bandwidth);
                }
                let latest = wire + options.latency + options.jitter + options.hold
                    + Duration::from_nanos(1);
                match fate {
                    Fate::Lost(at) => prop_assert!(wire <= at && at <= latest),
                    Fate::Arrives(at, copy) => {
                        prop_assert!(wire <= at && at <= latest);
                        prop_assert!(copy.is_none_or(|copy| at <= copy && copy <= latest));
                    }
                    Fate::Full => unreachable!("skipped above"),
                }
            }
        }

        #[test]
        fn a_link_is_full_exactly_when_its_capacity_is_used(
            seed in any::<u64>(),
            lens in proptest::collection::vec((1_usize..300, any::<bool>()), 1..100),
        ) {
            let options = LinkOptions { capacity: 1024, max_frame: 300, ..LinkOptions::default() };
            let mut link = Link::new(Seed(seed), NodeId(0), NodeId(1));
            let mut held: Vec<usize> = Vec::new();
            for (len, release) in lens {
                let full = held.iter().sum::<usize>() + len > 1024;
                prop_assert_eq!(link.offer(&options, Instant::ORIGIN, len) == Fate::Full, full);
                if !full {
                    held.push(len);
                }
                if release && let Some(first) = held.pop() {
                    link.release(first);
                }
            }
        }
    }

    #[test]
    fn losses_and_copies_come_as_often_as_advertised() {
        let options = LinkOptions { loss: 0.2, duplicate: 0.3, ..LinkOptions::default() };
        let mut link = Link::new(Seed(5), NodeId(0), NodeId(1));
        let (mut lost, mut doubled) = (0_i32, 0_i32);
        for _ in 0..10_000 {
            match link.offer(&options, Instant::ORIGIN, 1) {
                Fate::Lost(_) => lost += 1,
                Fate::Arrives(_, Some(_)) => doubled += 1,
                Fate::Arrives(_, None) => {}
                Fate::Full => panic!("every frame was released"),
            }
            link.release(1);
        }
        // Six standard deviations: sqrt(10 000 · .2 · .8) = 40, sqrt(10 000 · .24 · .76) = 43.
        assert!((lost - 2000).abs() < 240, "{lost}");
        assert!((doubled - 2400).abs() < 258, "{doubled}");
    }
}
