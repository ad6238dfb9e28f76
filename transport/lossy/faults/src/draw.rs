//! Schedules drawn from a seed: a little of everything that can go wrong.

use crate::schedule::{Damage, Decay, Fault, Mode, POINTS, Policy, Rejoin, Run, Schedule, Sickness};
use kronfleet_core::compress::Code;
use kronfleet_core::seed::{Random, Seed};
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::link::LinkOptions;
use std::collections::BTreeSet;

/// The schedule of this seed.
pub fn draw(seed: u64) -> Schedule {
    let mut random = Seed(seed).derive("schedule", 0).random();
    let mut run = run(seed, &mut random);
    let rot = run.rejoin == Rejoin::HealFirst && random.chance(0.3);
    if rot {
        // So that whoever was away is healed by a donor instead of taking the result of a round.
        run.minimum = run.nodes;
    }
    let mut dice = Dice { random, nodes: run.nodes };
    let mut faults = Vec::new();
    let strict = run.mode == Mode::Strict;
    if rot {
        for node in dice.all() {
            let (from, until) = (Instant::ORIGIN, Instant::ORIGIN + milliseconds(3_000));
            faults.push(Fault::Damage { node, how: Damage::Rot, share: 0.5, from, until });
        }
    }
    if rot && dice.random.chance(0.5) {
        // Healing takes a while, and donors are not heard any more while they give.
        run.link.bandwidth = Some(100_000 + dice.random.below(100_000));
        (run.values, run.chunk) = (257 + dice.random.below(600) as u32, 128);
        dice.donors(&mut faults);
    }
    if strict && dice.random.chance(0.4) {
        dice.storage(&mut faults);
    }
    if dice.random.chance(0.12) {
        dice.catastrophe(&mut faults);
    }
    for _ in 0..1 + dice.random.below(5) {
        dice.fault(&mut faults);
    }
    if dice.random.chance(0.08) {
        dice.finish(&mut faults);
    }
    Schedule { note: String::new(), faults, run }
}

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn run(seed: u64, random: &mut Random) -> Run {
    let nodes = 2 + random.below(5) as u32;
    let bad = random.chance(0.5);
    let latency = Duration::from_micros(100 + random.below(if bad { 8_000 } else { 1_000 }));
    let rate = |random: &mut Random, most: f64| if bad { (most * random.uniform() * 1e3).round() / 1e3 } else { 0.0 };
    let link = LinkOptions {
        loss: rate(random, 0.1),
        duplicate: rate(random, 0.1),
        reorder: rate(random, 0.3),
        hold: latency * 2,
        latency,
        jitter: if bad { latency / 2 } else { Duration::ZERO },
        bandwidth: random.chance(0.3).then(|| 500_000 + random.below(5_000_000)),
        capacity: 4_000 + random.below(100_000) as usize,
        max_frame: 256 + random.below(1_200) as usize,
    };
    let minimum = match random.below(8) {
        0 => 1 + random.below(u64::from(nodes).min(3)) as u32,
        1 => nodes,
        _ => 2,
    };
    Run {
        seed,
        mode: if seed.is_multiple_of(2) { Mode::Available } else { Mode::Strict },
        nodes,
        minimum,
        quarantine: if random.chance(0.1) { 2 + random.below(3) as u32 } else { 0 },
        policy: policy(Seed(seed).derive("policy", 0)),
        interval: 2 + random.below(5),
        rejoin: [Rejoin::FullWeight, Rejoin::ByProgress, Rejoin::HealFirst][random.below(3) as usize],
        wait: random.chance(0.15),
        // Above 256 values, several nodes share the work of a reduction.
        values: if random.chance(0.25) { 257 + random.below(600) as u32 } else { 1 + random.below(60) as u32 },
        chunk: 3 + random.below(20) as u32,
        told: told(Seed(seed).derive("told", 0)),
        budget: milliseconds(400 + 200 * random.below(4)),
        step: milliseconds(10 + 10 * random.below(3)),
        reports: random.chance(0.3),
        link,
    }
}

/// Every third run tells differences.
fn told(seed: Seed) -> Code {
    let mut random = seed.random();
    let codes = ["top:0.2", "random:0.3", "sign", "bf16", "fp16:stochastic", "8bit", "levels:8", "rank:1"];
    if random.below(3) > 0 { Code::All } else { codes[random.below(8) as usize].parse().expect("a code") }
}

/// Every third run averages by another policy than most do.
fn policy(seed: Seed) -> Policy {
    match seed.random().below(6) {
        0 => Policy::Fda,
        1 => Policy::Lasgd,
        _ => Policy::Periodic,
    }
}

struct Dice {
    random: Random,
    nodes: u32,
}

impl Dice {
    fn node(&mut self) -> NodeId {
        NodeId(self.random.below(self.nodes.into()) as u32)
    }

    fn at(&mut self) -> Instant {
        Instant::ORIGIN + milliseconds(self.random.below(2_500))
    }

    /// A span of time, often short, at times longer than any budget.
    fn length(&mut self) -> Duration {
        let most = [60, 300, 1_000, 2_000][self.random.below(4) as usize];
        milliseconds(5 + self.random.below(most))
    }

    fn span(&mut self) -> (Instant, Instant) {
        let from = self.at();
        (from, from + self.length())
    }

    fn all(&self) -> BTreeSet<NodeId> {
        (0..self.nodes).map(NodeId).collect()
    }

    /// Two groups of nodes that together are all.
    fn halves(&mut self) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
        let one = self.node();
        let side: BTreeSet<NodeId> =
            if self.random.chance(0.4) { [one].into() } else { self.some().into_iter().chain([one]).collect() };
        let rest: BTreeSet<NodeId> = self.all().difference(&side).copied().collect();
        if rest.is_empty() {
            let others = self.all().into_iter().filter(|node| *node != one).collect();
            return ([one].into(), others);
        }
        (side, rest)
    }

    fn some(&mut self) -> BTreeSet<NodeId> {
        self.all().into_iter().filter(|_| self.random.chance(0.5)).collect()
    }

    /// Whether what was killed is started again, and how long after; mostly it is.
    fn again(&mut self) -> Option<Duration> {
        self.random.chance(0.85).then(|| self.length())
    }

    fn point(&mut self) -> String {
        let often = ["ready", "proposed", "done", "accepted", "committed", "aborted", "recovering", "healed"];
        let point = if self.random.chance(0.8) {
            often[self.random.below(often.len() as u64) as usize]
        } else {
            POINTS[self.random.below(POINTS.len() as u64) as usize]
        };
        point.into()
    }

    /// Something that many nodes go through together.
    fn catastrophe(&mut self, faults: &mut Vec<Fault>) {
        let at = self.at();
        match self.random.below(5) {
            // Everything is killed at once, and comes back at once or one after another.
            0 => {
                let together = self.random.chance(0.5);
                let back = at + self.length();
                for node in self.all() {
                    let back = if together { back } else { back + self.length() };
                    faults.push(Fault::Crash { node, at, back: Some(back) });
                }
            }
            // Many join at once.
            1 => {
                let survivor = self.node();
                for node in self.all().into_iter().filter(|node| *node != survivor) {
                    faults.push(Fault::Crash { node, at: Instant::ORIGIN, back: Some(at) });
                }
            }
            // All but one leave, some of them for good.
            2 => {
                let survivor = self.node();
                for node in self.all().into_iter().filter(|node| *node != survivor) {
                    let at = at + milliseconds(self.random.below(300));
                    let back = self.again().map(|length| at + length);
                    faults.push(Fault::Leave { node, at, back });
                }
            }
            // Churn.
            3 => {
                let mut time = at;
                for _ in 0..3 + self.random.below(4) {
                    let node = self.node();
                    let back = Some(time + self.length());
                    faults.push(Fault::Crash { node, at: time, back });
                    time += milliseconds(50 + self.random.below(400));
                }
            }
            // Everyone sees a majority, but not the same one: a ring of one-way or two-way cuts.
            _ => {
                let until = at + self.length();
                let nodes = self.nodes;
                for node in 0..nodes {
                    let (one, other) = (NodeId(node), NodeId((node + nodes / 2) % nodes));
                    if one != other {
                        let (sources, targets) = ([one].into(), [other].into());
                        faults.push(Fault::Cut { sources, targets, from: at, until });
                    }
                }
            }
        }
    }

    /// Somebody who was away comes back, and one after another of the others is not heard by it any more.
    fn donors(&mut self, faults: &mut Vec<Fault>) {
        let node = self.node();
        let at = self.at();
        let back = at + self.length();
        faults.push(Fault::Crash { node, at, back: Some(back) });
        for donor in self.all().into_iter().filter(|donor| *donor != node) {
            let from = back + milliseconds(self.random.below(1_000));
            let until = from + milliseconds(100 + self.random.below(1_500));
            faults.push(Fault::Cut { sources: [donor].into(), targets: [node].into(), from, until });
        }
    }

    /// Nodes have done their iterations before others have; mostly all but one, which comes back with nothing.
    fn finish(&mut self, faults: &mut Vec<Fault>) {
        let node = self.node();
        let at = self.at();
        if self.random.chance(0.3) {
            faults.push(Fault::Finish { node, at });
            return;
        }
        let back = at + self.length();
        let crash = if self.random.chance(0.5) { at } else { Instant::ORIGIN };
        faults.push(Fault::Crash { node, at: crash, back: Some(back) });
        for other in self.all().into_iter().filter(|other| *other != node) {
            faults.push(Fault::Finish { node: other, at });
            // Donors die while they give.
            if self.random.chance(0.2) {
                let at = back + milliseconds(self.random.below(400));
                faults.push(Fault::Crash { node: other, at, back: self.again().map(|length| at + length) });
            }
        }
    }

    /// Disks that fail.
    fn storage(&mut self, faults: &mut Vec<Fault>) {
        let node = self.node();
        let (from, until) = self.span();
        match self.random.below(5) {
            0 => {
                let how = if self.random.chance(0.5) { Decay::Flip } else { Decay::Truncate };
                let back = Some(from + milliseconds(1) + self.length());
                faults.push(Fault::Crash { node, at: from, back });
                faults.push(Fault::Decay { node, how, at: from });
            }
            1 | 2 => faults.push(Fault::Disk { node, takes: None, from, until }),
            _ => {
                let takes = Some(milliseconds(20 + self.random.below(400)));
                faults.push(Fault::Disk { node, takes, from, until });
            }
        }
    }

    fn fault(&mut self, faults: &mut Vec<Fault>) {
        let node = self.node();
        let (from, until) = self.span();
        match self.random.below(25) {
            0 | 1 => {
                let at = if self.random.chance(0.2) { Instant::ORIGIN } else { from };
                let back = self.again().map(|length| from + length);
                faults.push(Fault::Crash { node, at, back });
            }
            2..=6 => {
                let (nth, frames) = (1 + self.random.below(12) as u32, self.random.below(7) as u32);
                let (on, back) = (self.point(), self.again());
                faults.push(Fault::Kill { node, on, nth, frames, back, until: from + milliseconds(500) });
            }
            7 => {
                let back = self.again().map(|length| from + length);
                faults.push(Fault::Leave { node, at: from, back });
            }
            8 => faults.push(Fault::Pause { node, from, until }),
            9 => faults.push(Fault::Ghost { node, from, until }),
            10 => {
                let factor = [0.5, 2.0, 10.0, 30.0][self.random.below(4) as usize];
                faults.push(Fault::Slow { node, factor, from, until });
            }
            11 => faults.push(Fault::Outage { node, from, until }),
            12 => {
                let period = milliseconds(40 + self.random.below(600));
                faults.push(Fault::Flap { node, period, from, until });
            }
            13 => {
                let (sources, targets) = self.halves();
                faults.push(Fault::Cut { sources, targets, from, until });
            }
            14 | 15 => {
                let (one, other) = self.halves();
                faults.push(Fault::Partition { one, other, from, until });
            }
            16 => {
                let (sources, targets) = self.halves();
                let link = self.weather();
                faults.push(Fault::Link { sources, targets, link, from, until });
            }
            17 => {
                let (sources, targets) = self.halves();
                faults.push(Fault::Clog { sources, targets, from, until });
                // They recover one after another.
                if self.random.chance(0.5) {
                    let (sources, targets) = self.halves();
                    let until = until + self.length();
                    faults.push(Fault::Clog { sources, targets, from, until });
                }
            }
            18 => {
                let how = Damage::HARMLESS[self.random.below(Damage::HARMLESS.len() as u64) as usize];
                let share = [0.05, 0.3, 1.0][self.random.below(3) as usize];
                faults.push(Fault::Damage { node, how, share, from, until });
            }
            19 => {
                let share = [0.05, 0.3, 1.0][self.random.below(3) as usize];
                faults.push(Fault::Echo { node, share, after: self.length(), from, until });
            }
            20 => {
                if self.random.chance(0.5) {
                    faults.push(Fault::Jump { node, at: from, by: self.length() });
                } else {
                    let rate = [0.5, 0.9, 1.1, 3.0][self.random.below(4) as usize];
                    faults.push(Fault::Drift { node, rate, from, until });
                }
            }
            21 => {
                let share = [0.05, 0.3, 1.0][self.random.below(3) as usize];
                faults.push(Fault::Damage { node, how: Damage::Spoil, share, from, until });
            }
            // Again and again, so that it meets every point of the protocol.
            22 => {
                let mut at = from;
                for _ in 0..1 + self.random.below(5) {
                    faults.push(Fault::Restore { node, at });
                    at += self.length();
                }
            }
            _ => {
                let with = [Sickness::Nan, Sickness::Infinite, Sickness::Shape][self.random.below(3) as usize];
                faults.push(Fault::Sick { node, with, from, until });
            }
        }
    }

    /// Links at their worst.
    fn weather(&mut self) -> LinkOptions {
        let latency = milliseconds(1 + self.random.below(80));
        let share = |random: &mut Random, most: f64| (most * random.uniform() * 1e2).round() / 1e2;
        LinkOptions {
            loss: share(&mut self.random, 0.6),
            duplicate: share(&mut self.random, 0.5),
            reorder: share(&mut self.random, 0.9),
            hold: self.length(),
            latency,
            jitter: latency.mul_f64(0.5),
            bandwidth: self.random.chance(0.4).then(|| 20_000 + self.random.below(100_000)),
            capacity: 2_000 + self.random.below(8_000) as usize,
            max_frame: 1500,
        }
    }
}
