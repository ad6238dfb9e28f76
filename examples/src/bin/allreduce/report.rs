//! What is printed.

use crate::measurement::{Measurements, quantile};
use crate::{Arguments, Medium};
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;

/// Seconds of the least that has to be done, by size.
#[derive(Debug, Default)]
pub(crate) struct Floors {
    copies: BTreeMap<usize, Vec<f64>>,
    loopback: BTreeMap<usize, Vec<f64>>,
}

impl Floors {
    pub(crate) fn copies(&mut self, bytes: usize, seconds: Vec<f64>) {
        self.copies.entry(bytes).or_default().extend(seconds);
    }

    pub(crate) fn loopback(&mut self, bytes: usize, seconds: Vec<f64>) {
        self.loopback.entry(bytes).or_default().extend(seconds);
    }
}

/// One size of one contestant.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    contestant: String,
    transport: Medium,
    processes: u32,
    /// Bytes of the vector.
    bytes: usize,
    repetitions: usize,
    /// Microseconds that the slowest process takes.
    median_us: f64,
    p99_us: f64,
    /// 10⁹ bytes per second that each node has to send at least: `2 (n − 1)/n · bytes` in the median time.
    bus_gbps: f64,
    /// 10⁹ bytes per second that every process copies when all do so at once.
    memcpy_gbps: f64,
    /// The time of one such copy over the median.
    fraction_of_memcpy: f64,
    /// 10⁹ bytes per second in each direction of one loopback connection that is used in both at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    loopback_gbps: Option<f64>,
    /// `bus_gbps` over that.
    #[serde(skip_serializing_if = "Option::is_none")]
    fraction_of_loopback: Option<f64>,
    /// This contestant's median over that of the first one.
    times_kronfleet: f64,
}

/// A contestant that did not take part.
#[derive(Debug, Serialize)]
struct Absence<'a> {
    contestant: &'a str,
    skipped: &'a str,
}

/// All that was measured.
pub(crate) struct Report<'a> {
    lines: Vec<Line>,
    absent: Vec<Absence<'a>>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(arguments: &Arguments, measured: &'a Measurements, floors: &Floors) -> Self {
        let mut lines = Vec::new();
        let nodes = f64::from(arguments.processes);
        let contestants = measured.contestants();
        let first = &contestants[0].seconds;
        for contestant in contestants {
            for (&bytes, seconds) in &contestant.seconds {
                let median = quantile(seconds, 0.5);
                let rate = |seconds: f64| if seconds > 0.0 { bytes as f64 / seconds / 1e9 } else { 0.0 };
                let sent = 2.0 * (nodes - 1.0) / nodes;
                let copy = floors.copies.get(&bytes).map_or(0.0, |seconds| quantile(seconds, 0.5));
                let loopback = floors.loopback.get(&bytes).map(|seconds| rate(quantile(seconds, 0.5)));
                lines.push(Line {
                    contestant: contestant.name.clone(),
                    transport: arguments.transport,
                    processes: arguments.processes,
                    bytes,
                    repetitions: seconds.len(),
                    median_us: 1e6 * median,
                    p99_us: 1e6 * quantile(seconds, 0.99),
                    bus_gbps: sent * rate(median),
                    memcpy_gbps: rate(copy),
                    fraction_of_memcpy: copy / median,
                    loopback_gbps: loopback,
                    fraction_of_loopback: loopback.map(|loopback| sent * rate(median) / loopback),
                    times_kronfleet: first.get(&bytes).map_or(0.0, |first| median / quantile(first, 0.5)),
                });
            }
        }
        let absent = contestants.iter().filter_map(|contestant| {
            let skipped = contestant.skipped.as_deref()?;
            Some(Absence { contestant: &contestant.name, skipped })
        });
        Self { lines, absent: absent.collect() }
    }

    /// One line of JSON each.
    pub(crate) fn print_lines(&self) -> Result<()> {
        for line in &self.lines {
            println!("{}", serde_json::to_string(line)?);
        }
        for absence in &self.absent {
            println!("{}", serde_json::to_string(absence)?);
        }
        Ok(())
    }

    pub(crate) fn print_table(&self) {
        println!(
            "{:<22} {:>9} {:>11} {:>11} {:>8} {:>8} {:>8} {:>9} {:>9} {:>10}",
            "", "bytes", "median µs", "p99 µs", "GB/s", "memcpy", "of it", "loopback", "of it", "times ours"
        );
        for line in &self.lines {
            let optional = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
            println!(
                "{:<22} {:>9} {:>11.1} {:>11.1} {:>8.2} {:>8.2} {:>8.2} {:>9} {:>9} {:>10.2}",
                line.contestant,
                size(line.bytes),
                line.median_us,
                line.p99_us,
                line.bus_gbps,
                line.memcpy_gbps,
                line.fraction_of_memcpy,
                optional(line.loopback_gbps),
                optional(line.fraction_of_loopback),
                line.times_kronfleet,
            );
        }
        println!(
            "\nGB/s: what each node has to send at least, per second. memcpy: what every process copies when all do so at \
             once; of it: the time of one such copy over the median. A round of 4 B is what ready, propose, done and \
             commit cost."
        );
        for Absence { contestant, skipped } in &self.absent {
            println!("{contestant} skipped: {skipped}");
        }
    }
}

fn size(bytes: usize) -> String {
    match bytes {
        0..0x400 => format!("{bytes} B"),
        0x400..0x10_0000 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}
