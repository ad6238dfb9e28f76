//! What every shader loads from and stores to buffers for its arithmetic, beside what devices can do: a table in
//! docs/gpu.md, written by the test below, which also counts the places of every shader where it loads and stores.

use crate::kernel::{self, Kernel};

/// What a shader does per unit, in numbers of 4 bytes. What threads of a workgroup share through workgroup memory is counted
/// once; parameters of channels and factors that all threads read come from caches and are not counted.
struct Traffic {
    kernel: &'static Kernel,
    unit: &'static str,
    loads: f64,
    stores: f64,
    flops: u32,
    /// Places in the source that read and that write a buffer.
    sites: (usize, usize),
}

const fn traffic(
    kernel: &'static Kernel,
    unit: &'static str,
    (loads, stores): (f64, f64),
    flops: u32,
    sites: (usize, usize),
) -> Traffic {
    Traffic { kernel, unit, loads, stores, flops, sites }
}

/// Of windows, kernels of 3×3 that move by 1 and pools of 2×2 that move by 2.
static SHADERS: [Traffic; 48] = [
    traffic(&kernel::PRODUCTS[0], "term of a 16×16 tile", (32.0, 0.0), 512, (9, 3)),
    traffic(&kernel::PRODUCTS[1], "term of a 32×32 tile", (64.0, 0.0), 2048, (9, 3)),
    traffic(&kernel::PRODUCTS[2], "term of a 32×32 tile, deep", (64.0, 0.0), 2048, (9, 3)),
    traffic(&kernel::PRODUCTS[3], "term of a 64×64 tile", (128.0, 0.0), 8192, (9, 3)),
    traffic(&kernel::PRODUCTS_KEPT_IN_HALF[0], "the same, kept in half precision", (64.0, 0.0), 2048, (9, 3)),
    traffic(&kernel::PRODUCTS_KEPT_IN_HALF[1], "the same, 64×64", (128.0, 0.0), 8192, (9, 3)),
    traffic(&kernel::PRODUCTS[4], "term of 4×4 elements", (8.0, 0.0), 32, (9, 3)),
    traffic(&kernel::PRODUCTS[5], "term of an element", (2.0, 0.0), 2, (11, 3)),
    traffic(&kernel::PRODUCTS_BY_HALF[0], "term of a 16×16 tile", (24.0, 0.0), 512, (9, 3)),
    traffic(&kernel::PRODUCTS_BY_HALF[1], "term of a 32×32 tile", (48.0, 0.0), 2048, (9, 3)),
    traffic(&kernel::PRODUCTS_BY_HALF[2], "term of a 32×32 tile, deep", (48.0, 0.0), 2048, (9, 3)),
    traffic(&kernel::PRODUCTS_BY_HALF[3], "term of a 64×64 tile", (96.0, 0.0), 8192, (9, 3)),
    traffic(&kernel::PRODUCTS_BY_HALF[4], "term of 4×4 elements", (6.0, 0.0), 32, (9, 3)),
    traffic(&kernel::PRODUCTS_BY_HALF[5], "term of an element", (1.5, 0.0), 2, (11, 3)),
    traffic(&kernel::PRODUCTS_OF_HALVES[0], "term of a 32×32 tile", (32.0, 0.0), 2048, (9, 3)),
    traffic(&kernel::PRODUCTS_OF_HALVES[1], "term of a 64×64 tile", (64.0, 0.0), 8192, (9, 3)),
    traffic(&kernel::PARTS, "element of two parts", (3.0, 1.0), 4, (2, 2)),
    traffic(&kernel::MAP, "element of two operands", (3.0, 1.0), 3, (3, 1)),
    traffic(&kernel::REDUCE, "term of a product", (2.0, 0.0), 2, (3, 1)),
    traffic(&kernel::CHOLESKY, "row and 16 columns, 16 terms", (32.0, 16.0), 512, (6, 4)),
    traffic(&kernel::PANEL, "row and 16 columns, 16 terms", (20.0, 0.0), 512, (3, 1)),
    traffic(&kernel::SOLVE, "term", (2.0, 0.0), 2, (20, 1)),
    traffic(&kernel::MIRROR, "element", (1.0, 1.0), 0, (1, 1)),
    traffic(&kernel::UNFOLD, "element", (1.0, 1.0), 0, (1, 2)),
    traffic(&kernel::UNFOLD_TO_HALF, "element", (1.0, 0.5), 0, (1, 2)),
    traffic(&kernel::FOLD, "pixel of 9 windows", (9.0, 1.0), 9, (1, 1)),
    traffic(&kernel::POOL_FORWARD, "window of 4", (4.0, 1.0), 4, (1, 1)),
    traffic(&kernel::POOL_BACKWARD, "pixel of a window of 4", (5.0, 1.0), 5, (2, 1)),
    traffic(&kernel::SUBSAMPLE, "element", (2.0, 1.0), 1, (2, 1)),
    traffic(&kernel::SUBSAMPLE_ADJOINT, "element", (2.0, 1.0), 1, (2, 1)),
    traffic(&kernel::CROSS_ENTROPY, "logit", (3.0, 1.0), 40, (8, 3)),
    traffic(&kernel::SAMPLE, "logit", (3.0, 0.0), 40, (5, 1)),
    traffic(&kernel::MOMENTS, "element", (2.0, 0.0), 4, (2, 2)),
    traffic(&kernel::MOMENTS_JOIN, "channel and chunk", (2.0, 0.0), 10, (6, 4)),
    traffic(&kernel::NORMALISE, "element", (1.0, 1.0), 4, (5, 1)),
    traffic(&kernel::NORMALISE_SUMS, "element", (2.0, 0.0), 5, (4, 2)),
    traffic(&kernel::NORMALISE_ADJOINT, "element", (2.0, 1.0), 8, (7, 1)),
    traffic(&kernel::SUMS_JOIN, "channel and chunk", (1.0, 0.0), 1, (1, 1)),
    traffic(&kernel::EVO_FORWARD, "element", (3.0, 1.0), 25, (6, 1)),
    traffic(&kernel::EVO_BACKWARD, "element", (5.0, 1.0), 50, (9, 2)),
    traffic(&kernel::EVO_SUMS, "element", (2.0, 0.0), 35, (5, 3)),
    traffic(&kernel::JACOBI, "rotated elements of two lines", (2.0, 2.0), 6, (13, 10)),
    traffic(&kernel::EIGEN_BEGIN, "element", (1.0, 2.0), 1, (1, 3)),
    traffic(&kernel::EIGEN_LEVEL, "column", (1.0, 0.0), 1, (1, 1)),
    traffic(&kernel::EIGEN_PAIR, "pair of blocks", (1024.0, 2048.0), 285696, (2, 3)),
    traffic(&kernel::EIGEN_TURN, "32×32 block of A", (3072.0, 2048.0), 131072, (6, 3)),
    traffic(&kernel::EIGEN_RANK, "two eigenvalues", (1.0, 0.0), 1, (3, 2)),
    traffic(&kernel::EIGEN_FINISH, "element", (1.0, 1.0), 0, (2, 1)),
];

/// FLOP per second in single precision without tensor cores and bytes per second of memory: an H100 SXM (NVIDIA's data
/// sheet), and a GPU as laptops have them.
const DEVICES: [(f64, f64); 2] = [(67e12, 3.35e12), (10e12, 256e9)];

/// Places where a shader reads and where it writes a buffer that is not its table.
fn sites(kernel: &Kernel) -> (usize, usize) {
    let code: String =
        kernel.source.concat().lines().flat_map(|line| [line.split("//").next().unwrap_or(""), "\n"]).collect();
    let mut seen = (0, 0);
    for declaration in code.split("var<storage, ").skip(1) {
        let name = declaration.split([' ', ':']).nth(1).expect("a variable has a name");
        for (at, _) in code.match_indices(&format!("{name}[")) {
            if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
                continue;
            }
            let mut depth = 0;
            let index = code[at + name.len()..].char_indices().find(|(_, character)| {
                depth += i32::from(*character == '[') - i32::from(*character == ']');
                depth == 0
            });
            let rest = &code[at + name.len() + index.expect("brackets close").0 + 1..];
            let (is_set, is_changed) =
                (rest.starts_with(" = "), rest.get(2..4) == Some("= ") && !rest.starts_with(" =="));
            seen.0 += usize::from(!is_set);
            seen.1 += usize::from(is_set || is_changed && !rest.starts_with(" !="));
        }
    }
    seen
}

fn table() -> String {
    let mut text =
        "| shader | per | loads, stores | FLOP | FLOP per byte | of an H100's 67 TFLOP/s | of a laptop's 10 |\n\
                    |---|---|---|---:|---:|---:|---:|\n"
            .to_owned();
    for Traffic { kernel, unit, loads, stores, flops, .. } in &SHADERS {
        let intensity = f64::from(*flops) / (4.0 * (loads + stores));
        let [h100, laptop] = DEVICES.map(|(most, bytes)| 100.0 * (intensity * bytes / most).min(1.0));
        let name = kernel.name;
        text += &format!(
            "| {name} | {unit} | {loads}, {stores} | {flops} | {intensity:.2} | {h100:.1} % | {laptop:.1} % |\n"
        );
    }
    text
}

#[test]
fn every_shader_loads_and_stores_where_the_table_says() {
    for Traffic { kernel, sites: expected, .. } in &SHADERS {
        assert_eq!(sites(kernel), *expected, "places that read and write buffers in the shader {}", kernel.name);
    }
}

#[test]
fn the_documented_table_is_this_one() {
    let (page, table) = (include_str!("../../../docs/gpu.md"), table());
    assert!(page.contains(&table), "docs/gpu.md has another table than this:\n{table}");
}
