//! What happened in a run: hashed always, written down on request, compared on replay.
//!
//! # For users
//! A trace file is text: a header with the run's options (lines the caller can read back) and its fault
//! schedule, then one line per event with the virtual time in nanoseconds first and the low half of the
//! running hash last, then `end` and the hash. Frames are always hashed, content included; they get lines
//! of their own only if asked for.
//!
//! [`Recording::read`] gives options and faults back; a run made from them with [`Trace::compared`] fails at
//! [`finish`](Trace::finish) with the first line that differs. Because every line carries the running hash, a
//! difference in frames that were not written down shows in the next line that was. A recording may have ended before
//! the run had, for it was interrupted: a run that gets that far in the same state [`is_over`](Trace::is_over), and what
//! it does afterwards is neither compared nor hashed.

use crate::fault::{FaultError, FaultSchedule};
use kronfleet_core::time::Instant;
use kronfleet_core::transport::NodeId;
use std::fmt::{self, Write as _};
use std::io::{self, BufRead, Write};
use std::str::FromStr;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const MAGIC: &str = "kronfleet-trace 2";

/// The hash of everything that happened in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TraceHash(pub u64);

impl fmt::Display for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What happened to a frame, as the trace knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameEvent {
    /// A link took it and will deliver it.
    Sent,
    /// A link took it and delivers it twice.
    Doubled,
    /// A link took it and loses it.
    Lost,
    /// It met a cut, an outage or a dead node.
    Cut,
    /// It arrived.
    Delivered,
}

impl FrameEvent {
    fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Doubled => "doubled",
            Self::Lost => "lost",
            Self::Cut => "cut",
            Self::Delivered => "delivered",
        }
    }
}

/// The running trace of a run.
pub struct Trace {
    /// Of the header and of every event: xxh3 of its bytes, seeded with the hash before. So one number is all that a
    /// run has to remember of what happened.
    hash: u64,
    target: Target,
    frames: bool,
    options: String,
    /// The number of the line being written or compared, from 1.
    line: u64,
    text: String,
}

enum Target {
    Nothing,
    File(Box<dyn Write + Send>),
    Recording(Comparison),
    Failed(TraceError),
    /// The recording ended before the run.
    Over,
}

/// A recording that a run is compared with.
struct Comparison {
    lines: Lines,
    /// The next line of it, if there is one.
    next: Option<String>,
}

impl Comparison {
    fn new(lines: Lines) -> Result<Self, TraceError> {
        let mut comparison = Self { lines, next: None };
        comparison.advance()?;
        Ok(comparison)
    }

    /// The line that was next.
    fn advance(&mut self) -> Result<Option<String>, TraceError> {
        let next = self.lines.next().transpose()?;
        Ok(std::mem::replace(&mut self.next, next))
    }

    /// Whether the recording ends here, in the state of this hash.
    fn ends(&self, hash: TraceHash) -> bool {
        self.next.as_deref().and_then(|line| line.strip_prefix("end ")) == Some(&hash.to_string())
    }

    /// Compares the next line with `found`.
    fn expect(&mut self, line: u64, found: &str) -> Result<(), TraceError> {
        let expected = self.advance()?.unwrap_or_else(|| "(the end of the file)".into());
        if expected == found {
            return Ok(());
        }
        Err(TraceError::Differs { line, expected, found: found.into() })
    }
}

type Lines = io::Lines<Box<dyn BufRead + Send>>;

impl Trace {
    /// A trace that is only hashed. `options` is whatever text tells runs apart; it is part of the hash.
    pub fn hashed(options: impl Into<String>) -> Self {
        Self::new(Target::Nothing, options.into(), false)
    }

    /// A trace written to `file`; with `frames`, every frame has lines of its own.
    pub fn written(file: impl Write + Send + 'static, options: impl Into<String>, frames: bool) -> Self {
        Self::new(Target::File(Box::new(file)), options.into(), frames)
    }

    /// A trace compared with a recorded one; its options are the recorded ones.
    pub fn compared(recording: Recording) -> Self {
        let Recording { options, frames, lines, header, .. } = recording;
        let target = Comparison::new(lines).map_or_else(Target::Failed, Target::Recording);
        let mut trace = Self::new(target, options, frames);
        trace.line = header;
        trace
    }

    fn new(target: Target, options: String, frames: bool) -> Self {
        Self { hash: 0, target, frames, options, line: 0, text: String::new() }
    }

    /// Opens the trace of a run under these faults; drivers call it once, first.
    pub(crate) fn begin(&mut self, faults: &FaultSchedule) {
        let mut header = String::new();
        for option in self.options.lines() {
            header.push_str("option ");
            header.push_str(option);
            header.push('\n');
        }
        for fault in faults.to_string().lines() {
            header.push_str("fault ");
            header.push_str(fault);
            header.push('\n');
        }
        header.push_str("begin\n");
        self.absorb(header.as_bytes());
        if let Target::File(file) = &mut self.target {
            let frames = if self.frames { "yes" } else { "no" };
            let written = write!(file, "{MAGIC}\nframes {frames}\n{header}");
            if let Err(error) = written {
                self.target = Target::Failed(error.into());
            }
        }
    }

    /// Goes on after what has this hash, in place of [`begin`](Self::begin).
    pub(crate) fn resume(&mut self, hash: TraceHash) {
        self.hash = hash.0;
    }

    fn absorb(&mut self, bytes: &[u8]) {
        self.hash = xxh3_64_with_seed(bytes, self.hash);
    }

    /// Takes down an event that has its own line, such as a record of a node.
    pub fn line(&mut self, now: Instant, what: fmt::Arguments<'_>) {
        if self.passes_end() {
            return;
        }
        self.text.clear();
        write!(self.text, "{} {what}", now.as_nanos()).expect("strings take any text");
        // A line break would make two lines of one event.
        while let Some(position) = self.text.find('\n') {
            self.text.replace_range(position..=position, " ");
        }
        self.hash = xxh3_64_with_seed(self.text.as_bytes(), self.hash);
        self.put();
    }

    /// Takes down what happened to a frame.
    pub(crate) fn frame(&mut self, now: Instant, event: FrameEvent, from: NodeId, to: NodeId, bytes: &[u8]) {
        if self.passes_end() {
            return;
        }
        let digest = xxh3_64(bytes);
        let mut record = [0_u8; 33];
        record[0] = event as u8;
        record[1..9].copy_from_slice(&now.as_nanos().to_le_bytes());
        record[9..13].copy_from_slice(&from.0.to_le_bytes());
        record[13..17].copy_from_slice(&to.0.to_le_bytes());
        record[17..25].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        record[25..].copy_from_slice(&digest.to_le_bytes());
        self.absorb(&record);
        if self.frames {
            self.text.clear();
            write!(self.text, "{} {} {from} {to} {} {digest:016x}", now.as_nanos(), event.name(), bytes.len())
                .expect("strings take any text");
            self.put();
        }
    }

    /// Whether the recording had ended before the event that is about to be taken down.
    fn passes_end(&mut self) -> bool {
        if let Target::Recording(comparison) = &self.target
            && comparison.ends(self.hash())
        {
            self.target = Target::Over;
        }
        self.is_over()
    }

    /// Whether the run goes on, but its recording ended in the state that the run was in: there is nothing more to
    /// compare.
    pub fn is_over(&self) -> bool {
        matches!(self.target, Target::Over)
    }

    /// Writes or compares `self.text`, the running hash after it.
    fn put(&mut self) {
        self.line += 1;
        let stamp = self.hash as u32;
        match &mut self.target {
            Target::Nothing | Target::Failed(_) | Target::Over => {}
            Target::File(file) => {
                if let Err(error) = writeln!(file, "{} #{stamp:08x}", self.text) {
                    self.target = Target::Failed(error.into());
                }
            }
            Target::Recording(comparison) => {
                let found = format!("{} #{stamp:08x}", self.text);
                if let Err(error) = comparison.expect(self.line, &found) {
                    self.target = Target::Failed(error);
                }
            }
        }
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> TraceHash {
        TraceHash(self.hash)
    }

    /// Ends the trace: writes or compares the hash.
    ///
    /// # Errors
    /// If the file could not be written, or the run differs from the recorded one.
    pub fn finish(mut self) -> Result<TraceHash, TraceError> {
        let hash = self.hash();
        let last = format!("end {hash}");
        match &mut self.target {
            Target::Nothing | Target::Failed(_) | Target::Over => {}
            Target::File(file) => {
                writeln!(file, "{last}")?;
                file.flush()?;
            }
            Target::Recording(comparison) => comparison.expect(self.line + 1, &last)?,
        }
        match self.target {
            Target::Failed(error) => Err(error),
            _ => Ok(hash),
        }
    }
}

/// A recorded trace, opened at its header.
pub struct Recording {
    /// The options the run was started with, as the caller wrote them.
    pub options: String,
    /// What went wrong in it, and when.
    pub faults: FaultSchedule,
    frames: bool,
    header: u64,
    lines: Lines,
}

impl Recording {
    /// Reads the header of a trace file.
    ///
    /// # Errors
    /// If it cannot be read or is no trace.
    pub fn read(file: impl BufRead + Send + 'static) -> Result<Self, TraceError> {
        let file: Box<dyn BufRead + Send> = Box::new(file);
        let mut lines = file.lines();
        let (mut options, mut faults, mut frames) = (String::new(), String::new(), false);
        let mut number = 0;
        loop {
            number += 1;
            let line = lines.next().transpose()?;
            let format = |line: Option<String>| TraceError::Format {
                line: number,
                found: line.unwrap_or_else(|| "(the end of the file)".into()),
            };
            let Some(line) = line else {
                return Err(format(None));
            };
            match line.split_once(' ').unwrap_or((&line, "")) {
                ("kronfleet-trace", "2") if number == 1 => {}
                _ if number == 1 => return Err(format(Some(line))),
                ("frames", yes_or_no) => frames = yes_or_no == "yes",
                ("option", option) => {
                    options.push_str(option);
                    options.push('\n');
                }
                ("fault", fault) => {
                    faults.push_str(fault);
                    faults.push('\n');
                }
                ("begin", "") => {
                    return Ok(Self {
                        options,
                        faults: FaultSchedule::from_str(&faults)?,
                        frames,
                        header: number,
                        lines,
                    });
                }
                _ => return Err(format(Some(line))),
            }
        }
    }
}

/// Why a trace could not be written, read or repeated.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file could not be written or read.
    #[error("trace: {0}")]
    File(#[from] io::Error),
    /// The header is none.
    #[error("trace line {line}: `{found}` is no header of a trace; expected `{MAGIC}`, options, faults, `begin`")]
    Format {
        /// The line, from 1.
        line: u64,
        /// What stands there.
        found: String,
    },
    /// The header names a fault that cannot be read.
    #[error("trace: {0}")]
    Fault(#[from] FaultError),
    /// The run did something else than the recorded one.
    #[error("the run differs from its trace at line {line}\n  recorded: {expected}\n  now:      {found}")]
    Differs {
        /// The first line that differs, from 1.
        line: u64,
        /// What was recorded.
        expected: String,
        /// What happened now.
        found: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn play(mut trace: Trace, faults: &FaultSchedule, payload: &[u8]) -> Result<TraceHash, TraceError> {
        trace.begin(faults);
        let now = Instant::from_nanos(5);
        trace.line(now, format_args!("n0 started\nwell"));
        trace.frame(now, FrameEvent::Sent, NodeId(0), NodeId(1), payload);
        trace.line(now, format_args!("n1 stopped"));
        trace.finish()
    }

    fn recorded(frames: bool) -> (Vec<u8>, TraceHash, FaultSchedule) {
        let faults: FaultSchedule = "outage n1 3 9\n".parse().unwrap();
        let file = Shared::default();
        let trace = Trace::written(file.clone(), "seed=1\nnodes=2\n", frames);
        let hash = play(trace, &faults, b"payload").unwrap();
        let bytes = file.0.lock().unwrap().clone();
        (bytes, hash, faults)
    }

    #[test]
    fn a_trace_replays_and_its_header_comes_back() {
        for frames in [false, true] {
            let (file, hash, faults) = recorded(frames);
            let recording = Recording::read(io::Cursor::new(file)).unwrap();
            assert_eq!(recording.options, "seed=1\nnodes=2\n");
            assert_eq!(recording.faults, faults);
            let again = play(Trace::compared(recording), &faults, b"payload").unwrap();
            assert_eq!(again, hash);
            let quiet = play(Trace::hashed("seed=1\nnodes=2\n"), &faults, b"payload");
            assert_eq!(quiet.unwrap(), hash);
        }
    }

    #[test]
    fn a_changed_frame_is_found_even_if_frames_were_not_written() {
        // Line 8 is the frame's own, or the next event where frames have none.
        for frames in [false, true] {
            let (file, _, faults) = recorded(frames);
            let recording = Recording::read(io::Cursor::new(file)).unwrap();
            let error = play(Trace::compared(recording), &faults, b"pAyload").unwrap_err();
            assert!(matches!(&error, TraceError::Differs { line, .. } if *line == 8), "{error}");
        }
    }

    #[test]
    fn a_recording_that_was_interrupted_replays_up_to_its_end() {
        for frames in [false, true] {
            let file = Shared::default();
            let mut trace = Trace::written(file.clone(), "", frames);
            let faults = FaultSchedule::default();
            let (now, payload) = (Instant::from_nanos(5), [1, 2]);
            trace.begin(&faults);
            trace.line(now, format_args!("n0 started"));
            trace.frame(now, FrameEvent::Sent, NodeId(0), NodeId(1), &payload);
            let hash = trace.finish().unwrap();
            let bytes = file.0.lock().unwrap().clone();

            let replay = |payload: &[u8], more: bool| {
                let mut trace = Trace::compared(Recording::read(io::Cursor::new(bytes.clone())).unwrap());
                trace.begin(&faults);
                trace.line(now, format_args!("n0 started"));
                trace.frame(now, FrameEvent::Sent, NodeId(0), NodeId(1), payload);
                if more {
                    trace.frame(now, FrameEvent::Delivered, NodeId(0), NodeId(1), payload);
                    trace.line(now, format_args!("n1 started"));
                }
                (trace.is_over(), trace.finish())
            };
            let (over, again) = replay(&payload, true);
            assert!(over && again.unwrap() == hash);
            let (over, again) = replay(&payload, false);
            assert!(!over && again.unwrap() == hash, "it ends by itself");
            let (over, again) = replay(&[1, 3], true);
            assert!(!over && matches!(again, Err(TraceError::Differs { .. })), "another run that goes on is no end");
        }
    }

    #[test]
    fn the_written_form_is_pinned() {
        let (file, hash, _) = recorded(true);
        let text = String::from_utf8(file).unwrap();
        let bare: Vec<&str> = text.lines().map(|line| line.split(" #").next().unwrap()).collect();
        let digest = format!("5 sent n0 n1 7 {:016x}", xxh3_64(b"payload"));
        let last = format!("end {hash}");
        assert_eq!(
            bare,
            [
                "kronfleet-trace 2",
                "frames yes",
                "option seed=1",
                "option nodes=2",
                "fault outage n1 3 9",
                "begin",
                "5 n0 started well",
                &digest,
                "5 n1 stopped",
                &last,
            ]
        );
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_line() {
        for (text, place) in [("", 1), ("hello\n", 1), ("kronfleet-trace 2\nframes no\n", 3)] {
            let error = Recording::read(io::Cursor::new(text.as_bytes())).err().unwrap();
            assert!(matches!(&error, TraceError::Format { line, .. } if *line == place), "{error}");
        }
    }
}
