//! Ctrl-C and SIGTERM end a run with its report.

use super::display::{announce, wipe};
use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that the first Ctrl-C or SIGTERM raises; the second one ends the program at once.
///
/// # Errors
/// If the system has no signals to give.
pub fn stop_on_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::SeqCst) {
            wipe();
            std::process::exit(130);
        }
        announce("stopping after this iteration, then writing the report. Once more to stop at once.");
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(stop)
}
