//! K-FAC where there is no operating system library: links only if core and the nalgebra backend need nothing but alloc.
#![no_std]
#![no_main]

extern crate alloc;

mod machine;

use core::fmt::Write;
use kronfleet_freestanding_training::{Method, Model, train};
use kronfleet_nalgebra::Nalgebra;
use machine::Console;

const STEPS: usize = 30;

/// What runs instead of `main`; the exit status.
fn program() -> u8 {
    let mut console = Console;
    let mut status = 0;
    for (model, method) in Model::ALL.into_iter().flat_map(|model| Method::KFAC.map(|method| (model, method))) {
        let outcome = train(Nalgebra::<f32>::new(), model, method, STEPS);
        let (model, method) = (model.name(), method.name());
        let (fell, line) = match &outcome {
            Ok(losses) => {
                let (first, last) = (losses[0], losses[STEPS - 1]);
                let line = writeln!(console, "{model} network, {method} form: loss {first:.4} -> {last:.4}");
                (last < 0.5 * first, line)
            }
            Err(reason) => (false, writeln!(console, "{model} network, {method} form: {reason}")),
        };
        if !fell || line.is_err() {
            status = 1;
        }
    }
    status
}
