//! How fast a line is, as a flag says it: `10Gb/s:50us`.

use kronfleet_core::time::Duration;
use kronfleet_lossy::fault::parse_duration;
use kronfleet_lossy::link::LinkOptions;
use std::str::FromStr;

/// How fast a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Bytes per second.
    pub bandwidth: u64,
    /// How long a frame travels once it has been put on the line.
    pub latency: Duration,
}

impl Line {
    /// A link that is as fast, and otherwise as these options say.
    pub fn link(self, options: LinkOptions) -> LinkOptions {
        LinkOptions { bandwidth: Some(self.bandwidth), latency: self.latency, ..options }
    }

    /// Its speed as `tc` takes it.
    ///
    /// # Errors
    /// If frames are to travel for a time: only speeds of real lines can be held down.
    pub fn rate(self) -> Result<String, String> {
        if self.latency > Duration::ZERO {
            return Err(format!(
                "frames that travel {:?} are for `lossy`: give the line a speed alone, such as 20Mb/s",
                self.latency
            ));
        }
        Ok(format!("{}bps", self.bandwidth))
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (bandwidth, latency) = text.split_once(':').unwrap_or((text, "0s"));
        match (bytes_per_second(bandwidth), parse_duration(latency)) {
            (Some(bandwidth), Some(latency)) => Ok(Self { bandwidth, latency }),
            _ => Err(format!(
                "{text:?} is no line: give what it carries and how long a frame travels, such as 10Gb/s:50us (bits) or \
                 40MB/s:2ms (bytes)"
            )),
        }
    }
}

/// Reads `300Gb/s` (bits) and `40MB/s` (bytes).
fn bytes_per_second(text: &str) -> Option<u64> {
    let rate = text.strip_suffix("/s")?;
    let (rate, bits) = match rate.strip_suffix('B') {
        Some(rate) => (rate, 8.0),
        None => (rate.strip_suffix('b')?, 1.0),
    };
    let unit = [('k', 1e3), ('M', 1e6), ('G', 1e9)].into_iter();
    let (number, times) =
        unit.filter_map(|(name, times)| Some((rate.strip_suffix(name)?, times))).next().unwrap_or((rate, 1.0));
    let bytes = number.parse::<f64>().ok()? * times * bits / 8.0;
    (bytes.is_finite() && (1.0..1e18).contains(&bytes)).then_some(bytes.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_eighths_of_bytes_and_units_are_powers_of_a_thousand() {
        let line = |text: &str| text.parse::<Line>().map(|line| (line.bandwidth, line.latency.as_nanos()));
        assert_eq!(line("300Gb/s:5us"), Ok((37_500_000_000, 5_000)));
        assert_eq!(line("1.5MB/s"), Ok((1_500_000, 0)));
        assert_eq!(line("64kb/s:1ms"), Ok((8_000, 1_000_000)));
        assert_eq!(line("800b/s"), Ok((100, 0)));
        for wrong in ["", "10", "10Gb", "Gb/s", "-1Gb/s", "0b/s", "NaNGb/s", "1e30B/s", "1Gb/s:", "1Gb/s:5", "1Tb/s"] {
            assert!(line(wrong).is_err_and(|error| error.contains("10Gb/s:50us")), "{wrong:?}");
        }
    }
}
