//! Who met at which iterations, and with what result: what a run and its replay are compared by.

use kronfleet_core::cluster::{Certificate, Digest, Incarnation, Round};
use kronfleet_core::time::Instant;
use kronfleet_core::transport::NodeId;
use std::collections::BTreeMap;
use std::fmt;

/// The members of a committed average: which start of whom, after how many iterations.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Members(Vec<(NodeId, Incarnation, u64)>);

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (node, incarnation, iteration)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{node}.{incarnation} after {iteration} iterations")?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Meeting {
    at: Instant,
    round: Round,
    members: Members,
    result: Digest,
}

/// All averages that a run has committed, in the order of their first commits.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Meetings {
    all: Vec<Meeting>,
    known: BTreeMap<Members, usize>,
}

impl Meetings {
    /// Takes note of a commit; that of another member of the same average adds nothing.
    pub(super) fn observe(&mut self, at: Instant, certificate: &Certificate) {
        let member = |member: &kronfleet_core::cluster::Member| (member.node, member.incarnation, member.iteration);
        let members = Members(certificate.members.iter().map(member).collect());
        let index = self.all.len();
        if *self.known.entry(members.clone()).or_insert(index) == index {
            self.all.push(Meeting { at, round: certificate.round, members, result: certificate.result });
        }
    }

    /// How far a replay has repeated these.
    pub(super) fn compare(&self, replay: &Self) -> Repetition {
        let found = |meeting: &&Meeting| replay.known.get(&meeting.members).map(|&index| &replay.all[index]);
        let met = self.all.iter().filter(|meeting| found(meeting).is_some()).count();
        let equal = |meeting: &&Meeting| found(meeting).is_some_and(|again| again.result == meeting.result);
        let missing = self.all.iter().position(|meeting| found(&meeting).is_none());
        let added = replay.all.iter().position(|meeting| !self.known.contains_key(&meeting.members));
        let tell = |run: &str, list: &[Meeting], index: usize| match list.get(index) {
            Some(Meeting { at, round, members, .. }) => format!("{run} {round} at {at}: {members}"),
            None => format!("{run} no more commits"),
        };
        let difference = match (missing, added) {
            (None, None) => self.all.iter().find(|meeting| !equal(meeting)).map(|meeting| {
                let Meeting { round, members, result, .. } = meeting;
                let now = found(&meeting).expect("none is missing").result;
                format!("{round} of {members} gave {result} in the recorded run and {now} now")
            }),
            (missing, added) => {
                // The earlier of both, each with what the other run did instead.
                let index = missing.unwrap_or(usize::MAX).min(added.unwrap_or(usize::MAX));
                let (recorded, now) = (tell("recorded", &self.all, index), tell("now", &replay.all, index));
                Some(format!("{recorded}; {now}"))
            }
        };
        Repetition {
            recorded: self.all.len(),
            committed: replay.all.len(),
            met,
            equal: self.all.iter().filter(equal).count(),
            difference,
        }
    }
}

/// How far the replay of event logs has repeated what they tell of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repetition {
    /// Averages that the recorded run committed.
    pub recorded: usize,
    /// Averages that the replay committed.
    pub committed: usize,
    /// Recorded averages of whose members the same starts met in the replay, after the same iterations.
    pub met: usize,
    /// Those of them that have the same result, to the bit.
    pub equal: usize,
    /// The first difference, in words.
    pub difference: Option<String>,
}

impl fmt::Display for Repetition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { recorded, committed, met, equal, difference } = self;
        write!(
            f,
            "Of {recorded} recorded averages, {met} were repeated with the same members after the same iterations, \
             {equal} of them with the same result to the bit; the replay committed {committed}."
        )?;
        match difference {
            Some(difference) => write!(f, " First difference: {difference}."),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kronfleet_core::cluster::{Algorithm, Attempt, Member};

    fn meetings(rounds: &[(&[(u32, u64)], u64)]) -> Meetings {
        let mut meetings = Meetings::default();
        for (index, &(members, result)) in rounds.iter().enumerate() {
            let member = |&(node, iteration): &(u32, u64)| Member {
                node: NodeId(node),
                incarnation: Incarnation(1),
                iteration,
                ..Member::default()
            };
            let certificate = Certificate {
                attempt: Attempt::default(),
                round: Round(1 + index as u64),
                members: members.iter().map(member).collect(),
                algorithm: Algorithm::Direct,
                wire: "f32".into(),
                result: Digest(result),
                parents: Vec::new(),
            };
            let at = Instant::from_nanos(1_000_000 * index as u64);
            // Every member commits it.
            (0..members.len()).for_each(|_| meetings.observe(at, &certificate));
        }
        meetings
    }

    #[test]
    fn the_first_difference_is_named() {
        let recorded = meetings(&[(&[(0, 5), (1, 5)], 7), (&[(0, 10), (1, 10)], 8), (&[(0, 15)], 9)]);
        let same = recorded.compare(&recorded);
        assert_eq!((same.recorded, same.met, same.equal, same.difference), (3, 3, 3, None));

        let bits = recorded.compare(&meetings(&[(&[(0, 5), (1, 5)], 7), (&[(0, 10), (1, 10)], 6), (&[(0, 15)], 5)]));
        assert_eq!((bits.met, bits.equal), (3, 1));
        assert!(
            bits.difference.is_some_and(|text| text.starts_with("r2 of n0.i1 after 10 iterations, n1.i1 after 10"))
        );

        let alone = recorded.compare(&meetings(&[(&[(0, 5), (1, 5)], 7), (&[(0, 10)], 8), (&[(0, 15)], 9)]));
        assert_eq!((alone.committed, alone.met, alone.equal), (3, 2, 2));
        let text = alone.difference.expect("one differs");
        assert!(
            text.contains("recorded r2 at 0.001000s: n0.i1 after 10 iterations, n1.i1") && text.contains("; now r2")
        );

        let fewer = recorded.compare(&meetings(&[(&[(0, 5), (1, 5)], 7)]));
        assert!(fewer.difference.is_some_and(|text| text.ends_with("now no more commits")));
        let more = meetings(&[(&[(0, 5), (1, 5)], 7)]).compare(&recorded);
        assert!(more.difference.is_some_and(|text| text.starts_with("recorded no more commits; now r2")));
    }
}
