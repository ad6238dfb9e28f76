//! K-FAC on a Cortex-M4F: trains a small network and prints every loss, then what memory that took.
#![no_std]
#![no_main]

extern crate alloc;

mod machine;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use kronfleet_freestanding_training::{Method, Model, train};
use kronfleet_nalgebra::Nalgebra;
use machine::Console;

const STEPS: usize = 10;

/// Whether all went well.
fn program() -> bool {
    Method::KFAC.into_iter().fold(true, |well, method| {
        let outcome = train(Nalgebra::<f32>::new(), Model::Dense, method, STEPS);
        let heap = machine::heap();
        well & outcome.is_ok() & print(method.name(), &outcome, heap).is_ok()
    })
}

fn print(form: &str, outcome: &Result<Vec<f64>, String>, (peak, blocks): (usize, usize)) -> fmt::Result {
    let mut console = Console::open()?;
    match outcome {
        Ok(losses) => {
            let mut losses = losses.iter().enumerate();
            losses.try_for_each(|(step, loss)| writeln!(console, "loss {form} {step} {loss:e}"))?;
        }
        Err(reason) => writeln!(console, "{form} form: {reason}")?,
    }
    writeln!(console, "{form} form: {peak} B of heap at most, in {blocks} blocks altogether")
}
