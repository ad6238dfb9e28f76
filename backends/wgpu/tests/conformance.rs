//! wgpu obeys every law, on any adapter; without one the laws are skipped, and that is said.

use kronfleet_conformance::backend::laws;
use kronfleet_conformance::check::Check;
use kronfleet_wgpu::{Device, Options, Wgpu};
use std::process::ExitCode;

/// No test harness: it would keep what is skipped to itself. Arguments name laws, as parts of their names.
fn main() -> ExitCode {
    let device = match Device::open_with(&Options::fixed()) {
        Ok(device) => device,
        Err(error) => {
            println!("skipped: the laws on a GPU: {error}");
            return ExitCode::SUCCESS;
        }
    };
    println!("on {}", device.adapter());
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let make = || Wgpu::new(&device).unwrap_or_else(|error| panic!("{error}"));
    // Some laws ask for panics; those that break a law are in what it says.
    std::panic::set_hook(Box::new(|_| {}));
    let mut broken = 0;
    for (name, law) in laws::<Wgpu>() {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let start = std::time::Instant::now();
        match law(&make, &Check::default()) {
            Ok(()) => println!("law {name} ... ok {} ms", start.elapsed().as_millis()),
            Err(facts) => {
                broken += 1;
                println!("law {name} ... BROKEN: {facts} {name}");
            }
        }
    }
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
