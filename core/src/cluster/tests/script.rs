//! Protocol behaviour as text: what is done to a fleet, and what its nodes then say and record.
//!
//! A golden file has lines of three kinds. `# …` says what the file is about. `> …` does something to the fleet,
//! see [`Stage::perform`]. All others are what follows from it: records as in a trace, and, after `> frames`,
//! whole messages where they arrive (`0.061000s n1 -> n0 ready turn 1`).
//! `KRONFLEET_BLESS=1 cargo test -p kronfleet-core --lib script` writes the files anew; look at the difference.

use super::fleet::*;
use crate::cluster::message::{Message, Verdict};
use crate::cluster::*;
use crate::process::Process;
use crate::time::Duration;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Plays every golden file.
#[test]
fn goldens() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cluster/tests/golden");
    let mut different = Vec::new();
    let files = std::fs::read_dir(&folder).expect("the folder of golden files");
    let mut files: Vec<_> = files.map(|file| file.expect("an entry").path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for path in files {
        let expected = std::fs::read_to_string(&path).expect("a text file");
        let found = play(&expected);
        if found != expected && std::env::var_os("KRONFLEET_BLESS").is_some() {
            std::fs::write(&path, &found).expect("the file can be written");
        } else if found != expected {
            different.push(format!("{}:\n{}", path.display(), difference(&expected, &found)));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// The script with what happens now below each of its commands.
fn play(script: &str) -> String {
    let mut played = String::new();
    let mut stage: Option<Stage> = None;
    for line in script.lines() {
        if line.starts_with('#') || line.is_empty() {
            played += &format!("{line}\n");
        } else if let Some(command) = line.strip_prefix("> ") {
            played += &format!("{line}\n");
            let words: Vec<&str> = command.split_whitespace().collect();
            match &mut stage {
                None => stage = Some(Stage::new(&words)),
                Some(stage) => stage.perform(&words),
            }
            for line in stage.as_mut().expect("just made").news() {
                played += &format!("{line}\n");
            }
        }
    }
    played
}

fn difference(expected: &str, found: &str) -> String {
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let common = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
    let around =
        |lines: &[&str]| lines[common.min(lines.len())..].iter().take(6).copied().collect::<Vec<_>>().join("\n");
    format!("line {}:\nexpected\n{}\nfound\n{}", common + 1, around(&expected), around(&found))
}

struct Stage {
    fleet: Fleet,
    shown: usize,
}

impl Stage {
    /// `fleet N [minimum=M] [wait|strict|quarantine] [rejoin=full|progress|heal]`: N nodes with perfect links of 1 ms and a budget of 1 s.
    fn new(words: &[&str]) -> Self {
        let ["fleet", size, options @ ..] = words else { panic!("a script begins with > fleet N") };
        let mut minimum = 2;
        let mut rejoin = Rejoin::FullWeight;
        let mut adapt: fn(&mut Settings) = |_| {};
        for option in options {
            match option.split_once('=').unwrap_or((option, "")) {
                ("minimum", value) => minimum = number(value) as usize,
                ("rejoin", "progress") => rejoin = Rejoin::ByProgress,
                ("rejoin", "heal") => rejoin = Rejoin::HealFirst,
                ("quarantine", _) => adapt = |settings| settings.quarantine = Some(Quarantine::after(3)),
                ("strict", _) => adapt = |settings| settings.mode = Mode::Strict,
                ("wait", _) => adapt = |settings| settings.shortage = Shortage::Wait,
                _ => panic!("no option of a fleet: {option}"),
            }
        }
        let fleet = Fleet::adapted(number(size) as u32, Faults::NONE, 1, rejoin, minimum, adapt);
        Self { fleet, shown: 0 }
    }

    /// Does what a command says:
    ///
    /// - `run 60ms`: lets time pass.
    /// - `contribute 0,2 [value] [len]`: these nodes contribute `len` values (3) that are `value` (their number),
    ///   with weight 1.
    /// - `quiet`: what has happened is not shown. `frames`: messages are shown from now on.
    /// - `cut 0,1 2`: nothing passes from 0 and 1 to 2; `part 0,1 2`: nor back; `join`: everything passes again.
    /// - `report 0 1`: the transport tells 0 that 1 is lost.
    /// - `kill 1`, `start 1 7` (with that incarnation), `leave 1`, `finish 1`.
    fn perform(&mut self, words: &[&str]) {
        match words {
            ["run", span] => {
                let span = span.strip_suffix("ms").expect("a span in ms");
                self.fleet.run(Duration::from_millis(number(span)));
            }
            ["contribute", nodes, rest @ ..] => {
                for node in list(nodes) {
                    let value = rest.first().map_or(node as f32, |value| value.parse().expect("a value"));
                    let len = rest.get(1).map_or(3, |len| number(len) as usize);
                    self.fleet.contribute(node, len, value, 1.0);
                }
            }
            ["report", node, peer] => {
                let (now, peer) = (self.fleet.now, crate::transport::NodeId(number(peer) as u32));
                let node = self.fleet.nodes.get_mut(&(number(node) as u32)).expect("a node that lives");
                node.handle(now, crate::transport::Event::Down(peer));
            }
            ["quiet"] => self.shown = self.fleet.records.len(),
            ["frames"] => self.fleet.heard = Some(Vec::new()),
            ["cut", from, to] => {
                for (from, to) in pairs(from, to) {
                    self.fleet.cut.insert((from, to));
                }
            }
            ["part", one, other] => self.fleet.partition(&list(one), &list(other)),
            ["join"] => self.fleet.cut.clear(),
            ["kill", node] => self.fleet.kill(number(node) as u32),
            ["start", node, incarnation] => self.fleet.start(number(node) as u32, number(incarnation)),
            ["leave", node] => {
                let now = self.fleet.now;
                self.fleet.nodes.get_mut(&(number(node) as u32)).expect("a node that lives").leave(now);
            }
            ["finish", node] => {
                let now = self.fleet.now;
                self.fleet.nodes.get_mut(&(number(node) as u32)).expect("a node that lives").finish(now, 1);
            }
            _ => panic!("no command: {words:?}"),
        }
    }

    /// Records and messages since the last time, in order of time.
    fn news(&mut self) -> Vec<String> {
        let mut news: Vec<(crate::time::Instant, String)> = Vec::new();
        for record in &self.fleet.records[self.shown..] {
            news.push((record.at, format!("{record}")));
        }
        self.shown = self.fleet.records.len();
        if let Some(heard) = &mut self.fleet.heard {
            for Heard { at, from, to, message } in core::mem::take(heard) {
                let message = Message::decode(&message).expect("nodes say what can be read");
                news.push((at, format!("{at} n{from} -> n{to} {}", brief(&message))));
            }
        }
        news.sort_by_key(|(at, _)| *at);
        news.into_iter().map(|(_, line)| line).collect()
    }
}

/// A message in a few words.
fn brief(message: &Message<'_>) -> String {
    match message {
        Message::Ready(ready) => format!("ready turn {} of {}", ready.member.turn, ready.member.parent),
        Message::Withdraw { turn } => format!("withdraw turn {turn}"),
        Message::Propose(proposal) => {
            let members = &proposal.certificate.members;
            let members: Vec<String> =
                members.iter().map(|member| format!("{} weight {}", member.node, member.weights[0])).collect();
            format!("propose {} {}", proposal.certificate.attempt, members.join(", "))
        }
        Message::Decline { attempt, .. } => format!("decline {attempt}"),
        Message::Piece { attempt, reduced, index, .. } => {
            format!("{} {index} of {attempt}", if *reduced { "reduced piece" } else { "piece" })
        }
        Message::Progress { attempt, missing } => format!("progress {attempt} missing {}", nodes(missing)),
        Message::Done { attempt, result } => format!("done {attempt} result {result}"),
        Message::Failed { attempt, who } => format!("failed {attempt} because of {who}"),
        Message::Commit { certificate } => format!("commit {}", certificate.id()),
        Message::Abort { attempt, why, who } => format!("abort {attempt} {why} {}", nodes(who)),
        Message::Abandon { turn, why } => format!("abandon turn {turn} {why}"),
        Message::Lacking { ready, missing } => format!("lacking, {ready} are ready, missing {}", nodes(missing)),
        Message::Inquire { attempt } => format!("inquire {attempt}"),
        Message::Answer { attempt, verdict } => {
            let verdict = match verdict {
                Verdict::Committed(certificate) => format!("committed {}", certificate.id()),
                Verdict::Pending => "pending".into(),
                Verdict::Unknown => "unknown".into(),
            };
            format!("answer {attempt} {verdict}")
        }
        Message::Heal { newest, donors } => format!("heal to {newest} from {}", nodes(donors)),
        Message::HealRequest { have, from, .. } => format!("heal request {have} from piece {from}"),
        Message::HealOffer { certificate, .. } => format!("heal offer {}", certificate.id()),
        Message::HealPiece { certificate, index, .. } => format!("heal piece {index} of {certificate}"),
        Message::HealRefuse => "heal refuse".into(),
        Message::Prepare { attempt } => format!("prepare {attempt}"),
        Message::Promise { attempt, decided, accepted } => {
            let accepted = accepted.as_ref().map(|(attempt, certificate)| format!("{} in {attempt}", certificate.id()));
            format!("promise {attempt} decided {decided} accepted {}", accepted.unwrap_or_else(|| "-".into()))
        }
        Message::Accept { attempt, certificate, .. } => format!("accept {} in {attempt}", certificate.id()),
        Message::Accepted { attempt } => format!("accepted {attempt}"),
        Message::Decided { certificate } => format!("decided {certificate}"),
        Message::Departed { starts } => {
            let starts: Vec<String> = starts.iter().map(|(node, start)| format!("{node} {start}")).collect();
            format!("departed {}", starts.join(", "))
        }
        Message::Note { bytes } => format!("note of {} bytes", bytes.len()),
    }
}

fn nodes(nodes: &[crate::transport::NodeId]) -> String {
    nodes.iter().map(|node| format!("{node}")).collect::<Vec<_>>().join(",")
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

fn list(text: &str) -> Vec<u32> {
    text.split(',').map(|node| number(node) as u32).collect()
}

fn pairs(one: &str, other: &str) -> Vec<(u32, u32)> {
    let other = list(other);
    list(one).into_iter().flat_map(|from| other.iter().map(move |&to| (from, to)).collect::<Vec<_>>()).collect()
}
