//! The backend on the stand-in for CUDA's libraries.
//!
//! Without `g++`, OpenBLAS and LAPACKE there is no stand-in, and nothing is tested: it says so. Arguments are parts of the
//! names of tests to run.

mod step;

use kronfleet_conformance::backend::laws;
use kronfleet_conformance::check::Check;
use kronfleet_core::preconditioner::Form;
use kronfleet_cuda::{Cuda, Options};
use kronfleet_cuda_standin::{Mutant, StandIn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// A backend that keeps its kernels in the folder of the tests.
fn backend() -> Cuda {
    let cache = Some(std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cuda-kernels"));
    Cuda::new(&Options { cache, ..Options::default() }).expect("the stand-in is a device")
}

/// Every deliberate mistake breaks a law.
fn mutant_is_caught(standin: &StandIn, mutant: Mutant) -> Result<(), String> {
    let check = Check { shrinking: 0, ..Check::default() };
    standin.mutate(mutant);
    let caught = laws::<Cuda>().into_iter().find(|(_, law)| law(&backend, &check).is_err());
    standin.mutate(Mutant::None);
    caught.map(|_| ()).ok_or_else(|| format!("no law notices {mutant:?}"))
}

fn main() -> ExitCode {
    let standin = match kronfleet_cuda_standin::load() {
        Ok(standin) => standin,
        Err(missing) => {
            println!("skipped: {missing}");
            return ExitCode::SUCCESS;
        }
    };
    // Laws expect panics, and tell of those that they do not.
    std::panic::set_hook(Box::new(|_| {}));
    type Test<'a> = Box<dyn Fn() -> Result<(), String> + 'a>;
    let mut tests: Vec<(String, Test<'_>)> = vec![];
    for (name, law) in laws::<Cuda>() {
        let told = move || law(&backend, &Check::default()).map_err(|broken| format!("{broken} -- {name}"));
        tests.push((format!("laws::{name}"), Box::new(told)));
    }
    for mutant in Mutant::ALL {
        let standin = &standin;
        tests.push((format!("mutants::{mutant:?}"), Box::new(move || mutant_is_caught(standin, mutant))));
    }
    for form in [Form::Inverse, Form::Eigen, Form::Ekfac] {
        tests.push((format!("step::agrees::{form:?}"), Box::new(move || step::agrees(&backend, form))));
    }
    tests.push(("step::repeats".to_owned(), Box::new(|| step::repeats(&backend))));
    tests.push(("step::asks_little".to_owned(), Box::new(|| step::asks_little(&backend))));
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    tests.retain(|(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())));
    let mut failed = 0;
    for (seed, (name, test)) in tests.iter().enumerate() {
        standin.seed(seed as u64);
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(test)).unwrap_or_else(|_| Err("a panic".to_owned()));
        match outcome {
            Ok(()) => println!("test {name} ... ok ({} ms)", start.elapsed().as_millis()),
            Err(facts) => {
                failed += 1;
                println!("test {name} ... FAILED\n{facts}");
            }
        }
    }
    println!("{} passed, {failed} failed", tests.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
