//! The backend on the stand-in for CUDA's libraries.
//!
//! Without `g++`, OpenBLAS and LAPACKE there is no stand-in, and nothing is tested: it says so. Arguments are parts of the
//! names of tests to run. Where `KRONFLEET_CUDA=device` is set, CUDA's own libraries are used, on a GPU.

mod batches;
mod precision;
mod step;

use kronfleet_conformance::backend::laws;
use kronfleet_conformance::check::Check;
use kronfleet_core::backend::{Backend, Gemm, Outer, ReduceJob};
use kronfleet_core::error::{Error, ErrorKind};
use kronfleet_core::matrix::Region;
use kronfleet_core::preconditioner::Form;
use kronfleet_cuda::kernel::Source;
use kronfleet_cuda::{Buffer, Cuda, CudaError, Options};
use kronfleet_cuda_standin::{Mutant, StandIn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// The folder of the tests' kernels.
fn kernels() -> Option<std::path::PathBuf> {
    Some(std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cuda-kernels"))
}

/// A backend that keeps its kernels there.
fn backend() -> Cuda {
    Cuda::new(&Options { cache: kernels(), ..Options::default() }).expect("the stand-in is a device")
}

/// Every deliberate mistake breaks a law.
fn mutant_is_caught(standin: &StandIn, mutant: Mutant) -> Result<(), String> {
    let check = Check { shrinking: 0, ..Check::default() };
    standin.mutate(mutant);
    let caught = laws::<Cuda>().into_iter().find(|(_, law)| law(&backend, &check).is_err());
    standin.mutate(Mutant::None);
    let (law, _) = caught.ok_or_else(|| format!("no law notices {mutant:?}"))?;
    println!("{mutant:?} is noticed by {law}");
    Ok(())
}

/// What reaches outside its buffer is an error that says the device is lost, not a panic; a new one works again.
fn faults_are_errors(standin: &StandIn) -> Result<(), String> {
    let square = Region::matrix(0, 64, 64);
    let mut lost = backend();
    let a = lost.allocate(square.len()).expect("memory");
    let mut c = lost.allocate(square.len()).expect("memory");
    standin.mutate(Mutant::LeadingDimension);
    let asked = lost.gemm(&[Gemm::product(square, square, square)], &a, &a, &mut c).and_then(|()| lost.sync());
    standin.mutate(Mutant::None);
    let kind = asked.err().map(|error| error.kind());
    if kind != Some(ErrorKind::DeviceLost) {
        return Err(format!("writing behind a buffer gives {kind:?}"));
    }
    drop((a, c, lost));
    backend().allocate(1).map(|_| ()).map_err(|error| format!("a new device: {error}"))
}

/// Sums of very many terms, longer than the laws draw: over a row, a column and everything, of numbers and of products.
fn long_sums_match() -> Result<(), String> {
    let (rows, columns) = (3, 100_001);
    let content: Vec<f32> = (0..rows * columns).map(|i| ((i * 7919 + 17) % 1009) as f32 / 1009.0 - 0.3).collect();
    let mut backend = backend();
    let mut x = backend.allocate(content.len()).map_err(|error| error.to_string())?;
    let mut out = backend.allocate(16).map_err(|error| error.to_string())?;
    backend.upload(&content, &mut x, 0).map_err(|error| error.to_string())?;
    let matrix = Region::matrix(0, rows, columns);
    let job = |x, out| ReduceJob { alpha: 0.5, x, y: x, beta: 0.0, out };
    let spread = Region { column_step: 2, ..Region::matrix(9, 1, rows) };
    let jobs = [
        job(matrix, Region::vector(0, 1)),
        job(matrix, Region::vector(1, rows)),
        job(matrix.transposed(), spread),
        job(matrix.block(0, 0, rows, 2), Region::vector(5, rows)),
    ];
    for squared in [false, true] {
        let y = squared.then_some(&x);
        backend.reduce(&jobs, &x, y, &mut out).map_err(|error| error.to_string())?;
        let seen = backend.fetch(&out, 0..16).map_err(|error| error.to_string())?;
        let term = |row: usize, column: usize| -> f64 {
            let value = f64::from(content[row + column * rows]);
            0.5 * if squared { value * value } else { value }
        };
        let sum = |rows: core::ops::Range<usize>, columns: usize| -> (f64, f64) {
            let terms = || rows.clone().flat_map(|row| (0..columns).map(move |column| (row, column)));
            let size = terms().map(|(row, column)| term(row, column).abs()).sum();
            (terms().map(|(row, column)| term(row, column)).sum(), size)
        };
        let mut expected = vec![(0, sum(0..rows, columns))];
        for row in 0..rows {
            expected.push((1 + row, sum(row..row + 1, columns)));
            expected.push((9 + 2 * row, sum(row..row + 1, columns)));
            expected.push((5 + row, sum(row..row + 1, 2)));
        }
        for (at, (value, size)) in expected {
            // A thread adds at most some 400 terms one after the other, then trees of 8 and 8 levels follow.
            let bound = 500.0 * f64::from(f32::EPSILON) * size;
            let near = (f64::from(seen[at]) - value).abs() <= bound;
            if !near {
                return Err(format!("sum {at} is {}, not {value} ± {bound:e}", seen[at]));
            }
        }
    }
    Ok(())
}

/// Compiled kernels are kept, one file per source; damaged ones are made again.
fn damaged_kernels_are_compiled_again() -> Result<(), String> {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("damaged-{}", std::process::id()));
    let open = || Cuda::new(&Options { cache: Some(folder.clone()), ..Options::default() }).map(|_| ());
    let files = || -> Result<Vec<std::path::PathBuf>, std::io::Error> {
        std::fs::read_dir(&folder)?.map(|entry| entry.map(|entry| entry.path())).collect()
    };
    open().map_err(|error| error.to_string())?;
    let kept = files().map_err(|error| error.to_string())?;
    for file in &kept {
        std::fs::write(file, "not a kernel").map_err(|error| error.to_string())?;
    }
    open().map_err(|error| format!("with damaged files: {error}"))?;
    let sound = kept.iter().all(|file| std::fs::read_to_string(file).is_ok_and(|text| text != "not a kernel"));
    let count = files().map_err(|error| error.to_string())?.len();
    std::fs::remove_dir_all(&folder).map_err(|error| error.to_string())?;
    match (sound, kept.len(), count) {
        (true, kept, count) if kept == Source::ALL.len() && count == kept => Ok(()),
        seen => Err(format!("sound again, files at first, files then: {seen:?}")),
    }
}

/// Every kind of call works on a thread that has done nothing with the device before.
fn threads_may_change() -> Result<(), String> {
    type Call = fn(&mut Cuda, &mut Buffer, &mut Buffer) -> Result<(), CudaError>;
    const SQUARE: Region = Region::matrix(0, 2, 2);
    let calls: [Call; 7] = [
        |backend, x, _| backend.upload(&[2.0, 0.0, 0.0, 2.0], x, 0),
        |backend, x, y| backend.gemm(&[Gemm::product(SQUARE, SQUARE, SQUARE)], x, x, y),
        |backend, x, y| backend.symmetric_product(&[Outer { alpha: 1.0, x: SQUARE, beta: 1.0, c: SQUARE }], x, y),
        |backend, _, y| backend.cholesky(&[SQUARE], y).and_then(|ticket| backend.verdict(ticket, &mut [false])),
        |backend, _, y| backend.fill(0.0, Region::vector(1, 1), y),
        |backend, x, _| backend.allocate(4).map(|other| drop(std::mem::replace(x, other))),
        |backend, _, _| backend.sync(),
    ];
    let mut first = backend();
    let (x, y) = (first.allocate(4).expect("memory"), first.allocate(4).expect("memory"));
    let mut state = (first, x, y);
    for (number, call) in calls.into_iter().enumerate() {
        let outcome = std::thread::spawn(move || {
            let (mut backend, mut x, mut y) = state;
            call(&mut backend, &mut x, &mut y).map(|()| (backend, x, y))
        });
        let outcome = outcome.join().map_err(|_| format!("call {number} panics"))?;
        state = outcome.map_err(|error| format!("call {number}: {error}"))?;
    }
    let values = state.0.fetch(&state.2, 0..1).map_err(|error| error.to_string())?;
    // The root of 2·2 + 2·2.
    if (values[0] - 8.0_f32.sqrt()).abs() < 1e-6 { Ok(()) } else { Err(format!("{values:?}")) }
}

fn main() -> ExitCode {
    let real = std::env::var("KRONFLEET_CUDA").is_ok_and(|value| value == "device");
    let standin = match (!real).then(kronfleet_cuda_standin::load).transpose() {
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
    if let Some(standin) = &standin {
        for mutant in Mutant::ALL {
            tests.push((format!("mutants::{mutant:?}"), Box::new(move || mutant_is_caught(standin, mutant))));
        }
        tests.push(("faults::are_errors".to_owned(), Box::new(move || faults_are_errors(standin))));
    }
    for form in [Form::Inverse, Form::Eigen, Form::Ekfac] {
        tests.push((format!("step::agrees::{form:?}"), Box::new(move || step::agrees(&backend, form))));
    }
    tests.push(("step::repeats".to_owned(), Box::new(|| step::repeats(&backend))));
    tests.push(("step::asks_little".to_owned(), Box::new(|| step::asks_little(&backend))));
    tests.push(("batches::multiply_back".to_owned(), Box::new(|| batches::multiply_back(&backend))));
    tests.push(("precision::tensor_floats_are_asked_for".to_owned(), Box::new(precision::tensor_floats_are_asked_for)));
    tests.push(("sums::long_ones_match".to_owned(), Box::new(long_sums_match)));
    tests.push(("threads::may_change".to_owned(), Box::new(threads_may_change)));
    tests.push(("cache::damaged_kernels_are_compiled_again".to_owned(), Box::new(damaged_kernels_are_compiled_again)));
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    tests.retain(|(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())));
    let mut failed = 0;
    for (seed, (name, test)) in tests.iter().enumerate() {
        if let Some(standin) = &standin {
            standin.seed(seed as u64);
        }
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
