//! Where a node's steps are performed: on a second thread, or between two frames.
//!
//! While a step is performed on a thread of its own, frames are answered; but two threads share what may be one core,
//! and every step and its result wake somebody and find cold caches. So a step that is short beside the time within which
//! a node has to be heard is performed on the thread that drives the node, once it has sent what it has to say.

use kronfleet_core::cluster::Budget;
use kronfleet_core::process::Task;
use kronfleet_core::time::{Duration, Instant};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

/// Of the longest silence towards a peer, the part that a step may take on the thread that drives the node: 1/8.
const SHORT: u32 = 8;

/// Performs the steps of one node, one at a time.
pub struct Workbench<'a, T> {
    begun: Sender<T>,
    done: Receiver<(T, Duration)>,
    wake: &'a (dyn Fn() + Send + Sync),
    /// Begun, and to be performed here.
    held: Option<T>,
    busy: bool,
    /// Steps up to this long are performed here.
    short: Duration,
    /// How long they took of late, rather too much than too little; not known before the first.
    usual: Option<Duration>,
}

impl<'a, T: Task> Workbench<'a, T> {
    /// One whose second thread ends with it, within `scope`. `wake` lets whoever waits for frames look around.
    pub fn new<'scope>(scope: &'scope Scope<'scope, '_>, budget: Budget, wake: &'a (dyn Fn() + Send + Sync)) -> Self
    where
        'a: 'scope,
    {
        let (begun, tasks) = channel::<T>();
        let (results, done) = channel();
        scope.spawn(move || {
            for mut task in tasks {
                let took = perform(&mut task);
                if results.send((task, took)).is_err() {
                    return;
                }
                wake();
            }
        });
        Self { begun, done, wake, held: None, busy: false, short: budget.heartbeat() / SHORT, usual: None }
    }

    /// Whether there is a step whose result was not taken.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Takes a step to be performed; the next [`result`](Self::result) may be the one that performs it.
    pub fn begin(&mut self, task: T) {
        self.busy = true;
        if self.usual.is_some_and(|usual| usual <= self.short) {
            self.held = Some(task);
            // What the node has to say is sent before it is busy; nothing is waited for.
            (self.wake)();
        } else {
            // The thread ends only after this.
            let _ = self.begun.send(task);
        }
    }

    /// The step that was begun, once it is performed, and what time it is then.
    ///
    /// Performs it here if it is short.
    pub fn result(&mut self, now: Instant) -> Option<(Instant, T)> {
        let (now, task, took) = if let Some(mut task) = self.held.take() {
            let took = perform(&mut task);
            (now + took, task, took)
        } else {
            let (task, took) = self.done.try_recv().ok()?;
            (now, task, took)
        };
        self.busy = false;
        self.usual = Some(self.usual.map_or(took, |usual| took.max(usual - usual / 16)));
        Some((now, task))
    }
}

fn perform(task: &mut impl Task) -> Duration {
    let began = std::time::Instant::now();
    task.perform();
    began.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// A step that remembers where it was performed.
    struct Step(Duration, Option<thread::ThreadId>);

    impl Task for Step {
        fn perform(&mut self) {
            let began = std::time::Instant::now();
            while began.elapsed() < self.0 {
                std::hint::spin_loop();
            }
            self.1 = Some(thread::current().id());
        }
    }

    #[test]
    fn short_steps_are_performed_here_and_long_ones_are_not() {
        let budget = Budget::new(Duration::from_secs(20)).expect("a usual budget");
        let here = thread::current().id();
        let wake = || ();
        thread::scope(|scope| {
            let mut bench = Workbench::new(scope, budget, &wake);
            let mut perform = |span| loop {
                if !bench.is_busy() {
                    bench.begin(Step(span, None));
                }
                if let Some((_, Step(_, whose))) = bench.result(Instant::ORIGIN) {
                    return whose == Some(here);
                }
                thread::yield_now();
            };
            let long = budget.heartbeat() / 7;
            // How long the first will take, nobody knows.
            assert!(!perform(Duration::ZERO));
            assert!(perform(Duration::ZERO));
            assert!(perform(long));
            assert!(!perform(long));
        });
    }
}
