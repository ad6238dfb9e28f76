//! What this machine does in a second, kind of operation by kind.

use anyhow::Result;
use kronfleet_core::backend::{Backend, Eigen, Gemm, Invert};
use kronfleet_core::matrix::Region;
use kronfleet_core::placement::Machine;
use kronfleet_core::preconditioner::Form;
use kronfleet_faer::Faer;
use std::fmt;
use std::time::Instant;

/// Edge of the matrices whose products and decompositions are timed.
const EDGE: usize = 512;

/// Operations per second on one core.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rates {
    /// Of products.
    pub(crate) products: f64,
    /// Of inverses by Cholesky, counted as `n³`.
    pub(crate) inversions: f64,
    /// Of eigenvectors, counted as `9·n³`.
    pub(crate) eigenvectors: f64,
}

impl Rates {
    /// The best of several, on one thread.
    pub(crate) fn measure() -> Result<Self> {
        let mut backend = Faer::<f32>::new(1);
        let all = Region::matrix(0, EDGE, EDGE);
        let product = Gemm::product(all, all, all);
        let (mut a, mut b) = (backend.allocate(EDGE * EDGE)?, backend.allocate(EDGE * EDGE)?);
        let mut c = backend.allocate(EDGE * EDGE)?;
        let noise: Vec<f32> = (0..EDGE * EDGE).map(|index| (index * index % 1009) as f32 / 1009.0 - 0.5).collect();
        backend.upload(&noise, &mut b, 0)?;
        let mut best = [f64::INFINITY; 3];
        let mut least = |which: usize, start: Instant| best[which] = best[which].min(start.elapsed().as_secs_f64());
        for _ in 0..10 {
            let start = Instant::now();
            backend.gemm(&[product], &b, &b, &mut c)?;
            least(0, start);
            backend.fill(0.0, all, &mut a)?;
            backend.fill(2.0, all.diagonal(), &mut a)?;
            let start = Instant::now();
            let verdict = backend.cholesky(&[all], &mut a)?;
            backend.cholesky_invert(&[Invert { factor: all, out: all }], &a, &mut c)?;
            backend.verdict(verdict, &mut [false])?;
            least(1, start);
        }
        // A factor as they come: the product of a noisy matrix with itself. A diagonal one would be done at once.
        let transposed = Gemm::product(all, all.transposed(), all);
        for _ in 0..3 {
            backend.gemm(&[transposed], &b, &b, &mut a)?;
            let start = Instant::now();
            backend.symmetric_eigen(&[Eigen { matrix: all, values: Region::vector(0, EDGE) }], &mut a, &mut c)?;
            least(2, start);
        }
        let cube = (EDGE as f64).powi(3);
        let [products, inversions, eigenvectors] = best;
        Ok(Self {
            products: product.flops() as f64 / products,
            inversions: cube / inversions,
            eigenvectors: 9.0 * cube / eigenvectors,
        })
    }

    /// A machine of these rates whose factors are decomposed in this form, its passes being products; it has no link yet.
    pub(crate) fn machine(self, form: Form) -> Machine {
        let decompositions = if form == Form::Inverse { self.inversions } else { self.eigenvectors };
        Machine { products: self.products, passes: self.products, decompositions, ..Machine::default() }
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { products, inversions, eigenvectors } = *self;
        let [products, inversions, eigenvectors] = [products, inversions, eigenvectors].map(|rate| rate / 1e9);
        write!(f, "products {products:.1}, inversions {inversions:.1}, eigenvectors {eigenvectors:.1} GFLOP/s")
    }
}
