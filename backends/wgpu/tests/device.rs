//! What the laws do not ask: counted launches and waits, agreement with a CPU, large shapes, loss of the device.

#[path = "device/half.rs"]
mod half;
#[path = "device/large.rs"]
mod large;
#[path = "device/limits.rs"]
mod limits;
#[path = "device/loss.rs"]
mod loss;
#[path = "device/products.rs"]
mod products;
#[path = "device/step.rs"]
mod step;
#[path = "device/threads.rs"]
mod threads;

use kronfleet_wgpu::{Device, Options};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// A test on an opened device; it panics where it fails.
type Test = fn(&Device);

const TESTS: &[(&str, Test)] = &[
    ("a step has few launches and two transfers", step::few_launches),
    ("a step is few submissions", step::few_submissions),
    ("a step of LeNet-5 is that of faer", step::as_on_a_cpu),
    ("training twice gives the same bits", step::reruns),
    ("long sums that are cut into parts are exact for whole numbers", large::long_sums),
    ("matrices of more rows than a workgroup has threads", large::many_rows),
    ("matrices that are not positive definite far below are reported alone", large::late_failures),
    ("eigenpairs of large matrices, found on the device, multiply back", large::many_eigenpairs),
    ("batch normalisation over many chunks", large::many_columns),
    ("queues of several threads on one device each see their own work", threads::queues_of_threads),
    ("products have the same bits by every shader", products::same_bits),
    ("the shader chosen for products is not slower than a naive one", products::chosen_is_fast),
    ("statistics with operands in half precision err by their rounding", half::statistics),
    ("numbers of half precision give the same bits in either", half::whole_numbers),
    ("convolutions with patches in half precision err by their rounding", half::rounding),
    ("patches in half precision take half the memory", half::memory),
    ("a step in half precision has few launches, too", half::few_launches),
    ("products are measured once per adapter", products::measured_once),
    ("operations on more than an adapter binds are cut", limits::everything_is_cut),
    ("a step of LeNet-5 on an adapter that binds little is that of faer", limits::step_is_cut),
    ("adapters are found by name, or it is said which there are", loss::adapters_have_names),
    ("a device that is gone is an error of its kind", loss::a_lost_device_says_so),
    ("work on one device goes on when another is lost", loss::devices_are_lost_alone),
];

/// No test harness: it would keep what is skipped to itself. Arguments name tests, as parts of their names.
fn main() -> ExitCode {
    let device = match Device::open_with(&Options::fixed()) {
        Ok(device) => device,
        Err(error) => {
            println!("skipped: tests of a GPU: {error}");
            return ExitCode::SUCCESS;
        }
    };
    println!("on {}", device.adapter());
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut failed = 0;
    for (name, test) in TESTS {
        if wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())) {
            let start = std::time::Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| test(&device)));
            failed += u32::from(outcome.is_err());
            let outcome = if outcome.is_ok() { "ok" } else { "FAILED" };
            println!("test {name} ... {outcome} ({} ms)", start.elapsed().as_millis());
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
