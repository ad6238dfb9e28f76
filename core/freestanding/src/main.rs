//! K-FAC where there is no operating system library: links only if core and the nalgebra backend need nothing but alloc.
#![no_std]
#![no_main]

extern crate alloc;

mod machine;
mod training;

use core::fmt::Write;
use kronfleet_core::preconditioner::Form;
use machine::Console;

/// What runs instead of `main`; the exit status.
fn program() -> u8 {
    let mut console = Console;
    let mut status = 0;
    for form in [Form::Inverse, Form::Eigen] {
        let outcome = training::train(form);
        let line = match &outcome {
            Ok((first, last)) => writeln!(console, "{form:?} form: loss {first:.4} -> {last:.4}"),
            Err(reason) => writeln!(console, "{form:?} form: {reason}"),
        };
        let fell = matches!(outcome, Ok((first, last)) if last < 0.5 * first);
        if !fell || line.is_err() {
            status = 1;
        }
    }
    status
}
