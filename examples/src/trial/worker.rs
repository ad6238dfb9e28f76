//! Processes that a program starts and hears of: one line of JSON for each message.

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Read};
use std::marker::PhantomData;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

/// What somebody says, read on a thread of its own, so that nobody waits for his lines to be read.
pub struct Lines<M> {
    lines: Receiver<std::io::Result<String>>,
    message: PhantomData<fn() -> M>,
}

impl<M: DeserializeOwned> Lines<M> {
    /// Begins to read.
    pub fn read(from: impl Read + Send + 'static) -> Self {
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || BufReader::new(from).lines().try_for_each(|line| sender.send(line)));
        Self { lines, message: PhantomData }
    }

    /// The next message; waits for it.
    ///
    /// # Errors
    /// If there is none any more, or a line that is no message.
    pub fn hear(&self) -> Result<M> {
        let line = self.lines.recv().context("a process has ended early; see above")??;
        serde_json::from_str(&line).with_context(|| format!("a process said {line:?}"))
    }
}

/// A process that was started here. It does not outlive this value.
pub struct Worker<M> {
    child: Child,
    lines: Lines<M>,
}

impl<M: DeserializeOwned> Worker<M> {
    /// Starts it, with pipes to its standard input and from its standard output.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = child.with_context(|| format!("{program} cannot be started"))?;
        let lines = Lines::read(child.stdout.take().expect("piped above"));
        Ok(Self { child, lines })
    }

    /// What it says next; waits for it.
    ///
    /// # Errors
    /// If it has ended, or says what is no message.
    pub fn hear(&self) -> Result<M> {
        self.lines.hear()
    }

    /// Closes its standard input, which tells it that it is no longer needed.
    pub fn release(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// If it did not end well.
    pub fn wait(&mut self) -> Result<()> {
        let status = self.child.wait()?;
        ensure!(status.success(), "a process ended with {status}");
        Ok(())
    }
}

impl<M> Drop for Worker<M> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
