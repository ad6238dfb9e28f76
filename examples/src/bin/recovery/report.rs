//! Figures beside their floors, for people and for machines.

use std::time::Duration;

/// What was measured.
pub(crate) struct Line {
    pub(crate) what: &'static str,
    pub(crate) transport: &'static str,
    pub(crate) processes: u32,
    /// Seconds, each measured once.
    pub(crate) seconds: Vec<f64>,
    /// What the system itself needs: seconds, each measured once.
    pub(crate) floor: Vec<f64>,
    /// What must be kept, in seconds.
    pub(crate) limit: Option<Duration>,
    /// What else is to be said, by name.
    pub(crate) more: Vec<(&'static str, f64)>,
}

/// Median and worst, in milliseconds.
fn milliseconds(seconds: &[f64]) -> (Option<f64>, Option<f64>) {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted.get(sorted.len() / 2).map(|median| 1e3 * median), sorted.last().map(|worst| 1e3 * worst))
}

pub(crate) fn print(lines: &[Line], json: bool) {
    for line in lines {
        let ((median, worst), (floor, floor_worst)) = (milliseconds(&line.seconds), milliseconds(&line.floor));
        let limit = line.limit.map(|limit| 1e3 * limit.as_secs_f64());
        if json {
            let mut object = serde_json::json!({
                "what": line.what,
                "transport": line.transport,
                "processes": line.processes,
                "samples": line.seconds.len(),
                "median_ms": median,
                "worst_ms": worst,
                "floor_median_ms": floor,
                "floor_worst_ms": floor_worst,
                "limit_ms": limit,
            });
            for &(name, value) in &line.more {
                object[name] = value.into();
            }
            println!("{object}");
            continue;
        }
        let show = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.1}"));
        print!(
            "{:<10} {} {} processes, {} times: {} ms, at the worst {} ms; floor {} ms, at the worst {} ms",
            line.what,
            line.transport,
            line.processes,
            line.seconds.len(),
            show(median),
            show(worst),
            show(floor),
            show(floor_worst),
        );
        limit.into_iter().for_each(|limit| print!("; limit {limit:.0} ms"));
        line.more.iter().for_each(|(name, value)| print!("; {name} {value:.3}"));
        println!();
    }
}
