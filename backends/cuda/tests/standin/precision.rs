//! Products round their operands where that was asked for, and nowhere else.

use super::kernels;
use kronfleet_core::backend::{Backend, Gemm, Outer};
use kronfleet_core::matrix::Region;
use kronfleet_cuda::{Cuda, CudaError, Options};

/// Rows and columns of products, and terms of their sums.
const EDGE: usize = 17;
const TERMS: usize = 40;

/// A product and a symmetric one of these numbers.
fn products(tensor_float: bool, content: &[f32]) -> Result<[Vec<f32>; 2], CudaError> {
    let mut backend = Cuda::new(&Options { tensor_float, cache: kernels(), ..Options::default() })?;
    let mut x = backend.allocate(content.len())?;
    backend.upload(content, &mut x, 0)?;
    let (operand, square) = (Region::matrix(0, EDGE, TERMS), Region::matrix(0, EDGE, EDGE));
    let [mut product, mut symmetric] = [backend.allocate(square.len())?, backend.allocate(square.len())?];
    backend.gemm(&[Gemm::product(operand, operand.transposed(), square)], &x, &x, &mut product)?;
    let job = Outer { alpha: 1.0, x: operand, beta: 0.0, c: square };
    backend.symmetric_product(&[job], &x, &mut symmetric)?;
    Ok([backend.fetch(&product, 0..square.len())?, backend.fetch(&symmetric, 0..square.len())?])
}

/// In single precision by default; in TF32 each operand is off by at most 2⁻¹¹, and numbers of 11 bits by nothing.
pub(crate) fn tensor_floats_are_asked_for() -> Result<(), String> {
    let both = |content: &[f32]| -> Result<[[Vec<f32>; 2]; 2], String> {
        let one = |tensor_float| products(tensor_float, content).map_err(|error| error.to_string());
        Ok([one(false)?, one(true)?])
    };
    let number = |at: usize| ((at * 7919 + 17) % 1009) as f32;
    let whole: Vec<f32> = (0..EDGE * TERMS).map(number).collect();
    let [exact, rounded] = both(&whole)?;
    if exact != rounded {
        return Err("numbers of 11 bits differ in TF32".to_owned());
    }
    let content: Vec<f32> = (0..EDGE * TERMS).map(|at| number(at) / 1009.0 - 0.3).collect();
    let [exact, rounded] = both(&content)?;
    let term = |row: usize, column: usize, k: usize| {
        f64::from(content[row + k * EDGE]) * f64::from(content[column + k * EDGE])
    };
    for (exact, rounded) in exact.iter().zip(&rounded) {
        if exact == rounded {
            return Err("TF32 rounds nothing".to_owned());
        }
        for (at, (exact, rounded)) in exact.iter().zip(rounded).enumerate() {
            let (row, column) = (at % EDGE, at / EDGE);
            let sum: f64 = (0..TERMS).map(|k| term(row, column, k)).sum();
            let size: f64 = (0..TERMS).map(|k| term(row, column, k).abs()).sum();
            let single = TERMS as f64 * f64::from(f32::EPSILON) * size;
            let double = 2.001 * 2.0_f64.powi(-11) * size + single;
            for (what, value, bound) in [("by default", exact, single), ("in TF32", rounded, double)] {
                let off = (f64::from(*value) - sum).abs();
                if off > bound {
                    return Err(format!("({row}, {column}) {what} is off by {off:e}, more than {bound:e}"));
                }
            }
        }
    }
    Ok(())
}
