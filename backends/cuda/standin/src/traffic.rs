//! What every kernel loads from and stores to global memory for its arithmetic: by its source, checked against the machine
//! code, beside what devices can do.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::Command;

/// A device's rates: FLOP per second in single precision without tensor cores, bytes per second of memory.
struct Roofline {
    flops: f64,
    bytes: f64,
}

/// H100 SXM (NVIDIA's data sheet), and a GPU as laptops have them.
const DEVICES: [Roofline; 2] = [Roofline { flops: 67e12, bytes: 3.35e12 }, Roofline { flops: 10e12, bytes: 256e9 }];

/// What a kernel does per unit, in numbers of 4 bytes.
struct Traffic {
    kernel: &'static str,
    unit: &'static str,
    loads: f64,
    stores: f64,
    flops: f64,
    /// Load and store instructions of the machine code, where no loop is unrolled as the compiler likes.
    code: Option<(u32, u32)>,
}

const fn traffic(
    kernel: &'static str,
    unit: &'static str,
    (loads, stores): (f64, f64),
    flops: f64,
    code: Option<(u32, u32)>,
) -> Traffic {
    Traffic { kernel, unit, loads, stores, flops, code }
}

/// Of windows, kernels of 3×3 that move by 1 and pools of 2×2 that move by 2. Parameters of channels come from caches.
const KERNELS: [Traffic; 26] = [
    traffic("batch_norm_apply", "element", (1.0, 1.0), 4.0, Some((5, 1))),
    traffic("batch_norm_backward", "element", (2.0, 1.0), 9.0, Some((7, 1))),
    traffic("batch_norm_evaluate", "element", (1.0, 1.0), 6.0, Some((5, 1))),
    traffic("batch_norm_finish", "channel and part", (2.0, 0.0), 10.0, None),
    traffic("batch_norm_gradient", "element", (2.0, 0.0), 5.0, None),
    traffic("batch_norm_moments", "element", (2.0, 0.0), 5.0, None),
    traffic("eigen_after", "eigenvalue", (0.0, 1.0), 0.0, None),
    traffic("eigen_before", "element", (1.0, 0.0), 1.0, None),
    traffic("evo_norm_backward", "element", (6.0, 1.0), 30.0, None),
    traffic("evo_norm_forward", "element", (3.0, 1.0), 14.0, None),
    traffic("evo_norm_gradient", "element", (2.0, 0.0), 16.0, None),
    traffic("fold", "pixel of 9 windows", (9.0, 1.0), 9.0, None),
    traffic("map", "element of two operands", (3.0, 1.0), 3.0, Some((12, 4))),
    traffic("mirror", "element", (1.0, 1.0), 0.0, Some((1, 1))),
    traffic("pointers", "matrix", (0.0, 2.0), 0.0, Some((0, 1))),
    traffic("pool_backward", "pixel", (1.25, 1.0), 5.0, None),
    traffic("pool_forward", "window of 4", (4.0, 1.0), 4.0, None),
    traffic("reduce_long", "term of a product", (2.0, 0.0), 2.0, None),
    traffic("reduce_part", "term of a product", (2.0, 0.0), 2.0, None),
    traffic("reduce_short", "term of a product", (2.0, 0.0), 2.0, None),
    traffic("sample_labels", "logit", (3.0, 0.0), 20.0, None),
    traffic("softmax_cross_entropy", "logit", (3.0, 1.0), 40.0, None),
    traffic("soundness", "pivot", (1.0, 0.0), 1.0, None),
    traffic("subsample", "element", (2.0, 1.0), 1.0, Some((2, 1))),
    traffic("subsample_adjoint", "element", (2.0, 1.0), 1.0, Some((2, 1))),
    traffic("unfold", "element", (1.0, 1.0), 0.0, Some((1, 1))),
];

/// Load and store instructions of every kernel in a file of machine code.
pub(crate) fn instructions(
    disassembler: &str,
    cubin: &Path,
    into: &mut BTreeMap<String, (u32, u32)>,
) -> Result<(), Box<dyn Error>> {
    let output = Command::new(disassembler)
        .arg("-c")
        .arg(cubin)
        .output()
        .map_err(|error| format!("{disassembler} cannot be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("{disassembler}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let mut kernel = None;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        // Other sections are named in between.
        let section = line.trim_start().strip_prefix(".section").map(str::trim_start);
        if let Some(name) = section.and_then(|name| name.strip_prefix(".text.")) {
            kernel = name.split(',').next().map(|name| name.trim_matches('"').to_owned());
        }
        let Some(kernel) = &kernel else { continue };
        let (loads, stores) = into.entry(kernel.clone()).or_default();
        *loads += u32::from(line.contains(" LDG."));
        *stores += u32::from(line.contains(" STG."));
    }
    Ok(())
}

/// Prints the table; whether the machine code has the loads and stores that the sources have.
pub(crate) fn report(code: &BTreeMap<String, (u32, u32)>) -> Result<bool, Box<dyn Error>> {
    println!();
    println!(
        "| kernel | per | loads, stores | FLOP | FLOP per byte | of an H100's 67 TFLOP/s | of a laptop's 10 | LDG, STG |"
    );
    println!("|---|---|---|---:|---:|---:|---:|---|");
    let mut agree = true;
    for Traffic { kernel, unit, loads, stores, flops, code: expected } in &KERNELS {
        let bytes = 4.0 * (loads + stores);
        let share = |Roofline { flops: most, bytes: rate }: &Roofline| {
            format!("{:.1} %", 100.0 * (flops / bytes * rate / most).min(1.0))
        };
        let [h100, laptop] = DEVICES.each_ref().map(share);
        let seen = code.get(*kernel).ok_or_else(|| format!("{kernel} is not in the machine code"))?;
        if let Some(expected) = expected
            && expected != seen
        {
            eprintln!("{kernel} has {seen:?} load and store instructions, by its source {expected:?}");
            agree = false;
        }
        // Whatever loops are unrolled, what is loaded per unit is loaded somewhere.
        if seen.0 == 0 && *loads > 0.0 || seen.1 == 0 && *stores > 0.0 {
            eprintln!("{kernel} has {seen:?} load and store instructions, its source more");
            agree = false;
        }
        let mark = if expected.is_some() { "" } else { "*" };
        println!(
            "| `{kernel}` | {unit} | {loads}, {stores} | {flops} | {:.2} | {h100} | {laptop} | {}, {}{mark} |",
            flops / bytes,
            seen.0,
            seen.1
        );
    }
    Ok(agree)
}
