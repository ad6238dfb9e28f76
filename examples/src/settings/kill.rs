//! Points of the protocol at which a process kills itself.

use std::fmt;
use std::str::FromStr;

/// The first words of all that nodes record.
const RECORDS: [&str; 27] = [
    "started",
    "up",
    "suspect",
    "down",
    "quarantined",
    "readmitted",
    "zombie",
    "refused",
    "stranger",
    "ready",
    "proposed",
    "slow",
    "lacking",
    "recovering",
    "accepted",
    "not",
    "done",
    "committed",
    "aborted",
    "abandoned",
    "forked",
    "merged",
    "healing",
    "healed",
    "heal",
    "finished",
    "left",
];

/// A point of the protocol: the so-and-so-many-th record of a kind in a start of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillAt {
    node: u32,
    start: u64,
    word: String,
    count: u32,
}

impl KillAt {
    /// The node that it is about.
    pub fn node(&self) -> u32 {
        self.node
    }

    /// Whether it is about this start of this node.
    pub fn is_of(&self, node: u32, start: u64) -> bool {
        (self.node, self.start) == (node, start)
    }

    /// Takes note of a record, by its text; answers whether it is the one.
    pub fn is_met(&mut self, record: &str) -> bool {
        if record.split(' ').next() == Some(self.word.as_str()) && self.count > 0 {
            self.count -= 1;
            return self.count == 0;
        }
        false
    }
}

impl fmt::Display for KillAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}:{}:{}", self.node, self.start, self.word, self.count)
    }
}

impl FromStr for KillAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (who, what) = text.split_once(':')?;
            let (node, start) = who.split_once('.')?;
            let (word, count) = what.split_once(':')?;
            let count = count.parse().ok().filter(|&count| count > 0)?;
            Some(Self { node: node.parse().ok()?, start: start.parse().ok()?, word: word.to_owned(), count })
        };
        let at = read().ok_or_else(|| format!("{text:?} is no point of the protocol; write it as 1.2:done:3"))?;
        if !RECORDS.contains(&at.word.as_str()) {
            // Nobody would ever be killed there.
            return Err(format!("nodes record no {:?}; they record {}", at.word, RECORDS.join(", ")));
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_counted_and_only_its_first_word_matters() {
        let mut at: KillAt = "1.2:done:2".parse().expect("a point of the protocol");
        assert!(at.is_of(1, 2) && !at.is_of(1, 1) && !at.is_of(2, 2));
        let met: Vec<bool> = ["done a1", "not done", "done a2", "done a3"].map(|record| at.is_met(record)).into();
        assert_eq!(met, [false, false, true, false]);
        for text in ["1:done:2", "1.2:done", "1.2:done:0", "1.2::1", "1.2:Done:1"] {
            assert!(text.parse::<KillAt>().is_err(), "{text}");
        }
        assert!("1:done:2".parse::<KillAt>().is_err_and(|says| says.contains("1.2:done:3")));
        let unknown = "1.2:dnoe:1".parse::<KillAt>().expect_err("nobody records that");
        assert!(unknown.contains("\"dnoe\"") && unknown.contains("proposed"), "{unknown}");
    }
}
