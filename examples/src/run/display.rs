//! Live progress: one line per node, with its state.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::OnceLock;

/// Nodes shown with lines of their own; larger fleets share one.
const SHOWN: u32 = 16;

/// All that is drawn: a process has one terminal, to which whoever handles signals writes, too.
fn terminal() -> &'static MultiProgress {
    static TERMINAL: OnceLock<MultiProgress> = OnceLock::new();
    TERMINAL.get_or_init(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)))
}

/// Writes a line to standard error, above whatever is drawn there.
pub(super) fn announce(what: &str) {
    terminal().suspend(|| eprintln!("{what}"));
}

/// Removes whatever is drawn, before the program ends without coming back to it.
pub(super) fn wipe() {
    // A terminal that is gone needs no wiping.
    let _ = terminal().clear();
}

/// Live progress on the terminal; draws nothing where there is none.
#[derive(Debug)]
pub struct Display {
    all: MultiProgress,
    bars: Vec<ProgressBar>,
    total: ProgressBar,
}

impl Display {
    /// Bars for `nodes` nodes of `iterations` iterations each, or none if `quiet`.
    pub fn new(nodes: u32, iterations: u64, quiet: bool) -> Self {
        let hidden = || MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let all = if quiet { hidden() } else { terminal().clone() };
        let line = "{prefix:>4} {bar:32} {pos:>5}/{len} {msg}";
        let style = ProgressStyle::with_template(line).expect("a constant template").progress_chars("█▌ ");
        let shown = if nodes <= SHOWN { nodes } else { 0 };
        let bar =
            |prefix: String, len: u64| all.add(ProgressBar::new(len)).with_style(style.clone()).with_prefix(prefix);
        let bars = (0..shown).map(|node| bar(format!("n{node}"), iterations)).collect();
        let total = bar("all".into(), iterations * u64::from(nodes));
        Self { all, bars, total }
    }

    /// A node has made an iteration.
    pub fn step(&self, node: u32, iteration: u64, loss: f64, online: bool) {
        if let Some(bar) = self.bars.get(node as usize) {
            bar.set_position(iteration);
            bar.set_message(format!("loss {loss:6.3}  {}", if online { "online" } else { "OFFLINE" }));
        }
        self.total.inc(1);
    }

    /// The nodes go on after so many iterations.
    pub fn resume(&self, iterations: &[u64]) {
        for (bar, &iteration) in self.bars.iter().zip(iterations) {
            bar.set_position(iteration);
        }
        self.total.set_position(iterations.iter().sum());
    }

    /// A node's process is gone.
    pub fn gone(&self, node: u32) {
        if let Some(bar) = self.bars.get(node as usize) {
            bar.set_message("KILLED");
        }
    }

    /// The averaged model was evaluated.
    pub fn accuracy(&self, iteration: u64, accuracy: f64) {
        self.total.set_message(format!("averaged model at iteration {iteration}: {accuracy:.4}"));
    }

    /// Something the user should know; printed above the bars, and where nothing is drawn to standard error.
    pub fn say(&self, what: &str) {
        if self.total.is_hidden() {
            eprintln!("{what}");
        } else {
            self.total.println(what);
        }
    }

    /// Removes everything drawn.
    pub fn finish(&self) {
        for bar in self.bars.iter().chain([&self.total]) {
            bar.finish_and_clear();
            self.all.remove(bar);
        }
    }
}
