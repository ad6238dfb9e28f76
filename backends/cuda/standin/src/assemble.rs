//! Compiles every kernel with NVIDIA's NVRTC and assembles it with its ptxas for several architectures, without a GPU.
//!
//! Fails where a kernel does not compile, keeps registers in memory, or does not load and store what its source does.
//! `standin/assemble` finds the programs.

mod traffic;

use kronfleet_cuda::kernel::Source;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::process::{Command, ExitCode};

/// Volta, Ampere, Hopper.
const ARCHITECTURES: [u32; 3] = [70, 80, 90];

/// What ptxas says of a kernel.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    registers: u32,
    /// Bytes on the stack of every thread: arrays that are indexed by what only the run knows.
    stack: u32,
    /// Bytes of registers that did not fit, stored and loaded.
    spills: u32,
    shared: u32,
}

fn main() -> ExitCode {
    match assemble() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!(
                "kernels with a stack or spilled registers are slow: give them less to hold; see the tables above"
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the table; whether everything stays in registers.
fn assemble() -> Result<bool, Box<dyn Error>> {
    let ptxas = std::env::var("PTXAS").unwrap_or_else(|_| "ptxas".to_owned());
    let folder = std::env::temp_dir().join(format!("kronfleet-ptx-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let disassembler = std::env::var("NVDISASM").ok().filter(|path| !path.is_empty());
    let mut code = BTreeMap::new();
    let mut usages: BTreeMap<&str, Vec<Usage>> = BTreeMap::new();
    for architecture in ARCHITECTURES {
        for source in Source::ALL {
            let file = folder.join(format!("{}-{architecture}.ptx", source.name()));
            fs::write(&file, source.compile(&format!("compute_{architecture}"))?.trim_end_matches('\0'))?;
            let output = Command::new(&ptxas)
                .args(["--verbose", "--gpu-name", &format!("sm_{architecture}"), "--output-file"])
                .arg(file.with_extension("cubin"))
                .arg(&file)
                .output()
                .map_err(|error| format!("{ptxas} cannot be started: {error}"))?;
            let says = String::from_utf8_lossy(&output.stderr);
            if !output.status.success() {
                return Err(format!("{} for sm_{architecture}: {says}", source.file()).into());
            }
            // The last architecture stands for all.
            if let (Some(disassembler), true) = (&disassembler, Some(&architecture) == ARCHITECTURES.last()) {
                traffic::instructions(disassembler, &file.with_extension("cubin"), &mut code)?;
            }
            for kernel in source.kernels() {
                usages.entry(kernel).or_default().push(usage(&says, kernel)?);
            }
        }
    }
    fs::remove_dir_all(&folder)?;
    println!("| kernel | registers on sm_70, 80, 90 | shared memory | stack | spills |");
    println!("|---|---|---:|---:|---:|");
    for (kernel, usages) in &usages {
        let registers: Vec<String> = usages.iter().map(|usage| usage.registers.to_string()).collect();
        let most = |part: fn(&Usage) -> u32| usages.iter().map(part).max().unwrap_or(0);
        let (shared, stack, spills) = (most(|u| u.shared), most(|u| u.stack), most(|u| u.spills));
        println!("| `{kernel}` | {} | {shared} | {stack} | {spills} |", registers.join(", "));
    }
    let held = usages.values().flatten().all(|usage| usage.stack == 0 && usage.spills == 0);
    if disassembler.is_none() {
        println!("skipped: loads and stores in machine code, for there is no nvdisasm");
        return Ok(held);
    }
    Ok(traffic::report(&code)? && held)
}

/// What ptxas says of one kernel, which it names before the facts.
fn usage(says: &str, kernel: &str) -> Result<Usage, Box<dyn Error>> {
    let named = format!("'{kernel}'");
    let after = says.split_once(&named).ok_or_else(|| format!("ptxas does not name {kernel}: {says}"))?.1;
    // Up to where the next kernel is named.
    let facts = after.split("Compiling entry function").next().unwrap_or(after);
    let number = |unit: &str| -> Option<u32> {
        let before = facts.split(unit).next().filter(|before| before.len() < facts.len())?;
        before.split_whitespace().next_back()?.parse().ok()
    };
    let told = |unit: &str| number(unit).ok_or_else(|| format!("ptxas does not say{unit} of {kernel}: {facts}"));
    Ok(Usage {
        registers: told(" registers")?,
        stack: told(" bytes stack frame")?,
        spills: told(" bytes spill stores")? + told(" bytes spill loads")?,
        // Not mentioned where there is none.
        shared: number(" bytes smem").unwrap_or(0),
    })
}
