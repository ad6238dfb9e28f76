//! Descriptions of independent pieces of work: regions and scalars only, so that a table of them is made once
//! and used at every step.

use crate::matrix::Region;
use crate::scalar::Scalar;

/// `c ← α·a·b + β·c`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gemm<S> {
    /// α.
    pub alpha: S,
    /// `m × k`.
    pub a: Region,
    /// `k × n`.
    pub b: Region,
    /// β; 0 overwrites.
    pub beta: S,
    /// `m × n`, row step 1.
    pub c: Region,
}

impl<S: Scalar> Gemm<S> {
    /// `c ← a·b`.
    pub fn product(a: Region, b: Region, c: Region) -> Self {
        Self { alpha: S::of(1.0), a, b, beta: S::of(0.0), c }
    }

    /// Floating-point operations: `2·m·n·k`.
    pub fn flops(&self) -> u64 {
        2 * self.c.len() as u64 * self.a.columns as u64
    }

    /// Panics unless the shapes and steps are as [`Backend::gemm`](super::Backend::gemm) asks.
    ///
    /// # Panics
    /// With the three shapes.
    #[track_caller]
    pub fn check(&self) {
        let Self { a, b, c, .. } = self;
        assert!(
            a.rows == c.rows && b.columns == c.columns && a.columns == b.rows,
            "gemm of {}×{} and {}×{} does not give {}×{}",
            a.rows,
            a.columns,
            b.rows,
            b.columns,
            c.rows,
            c.columns
        );
        assert!(
            [a, b].iter().all(|m| m.row_step == 1 || m.column_step == 1) && c.row_step == 1,
            "gemm operands need a step of 1, the target a row step of 1"
        );
    }

    /// [`check`](Self::check), in buffers of so many numbers.
    ///
    /// # Panics
    /// As that, and with the region that a buffer does not hold.
    #[track_caller]
    pub fn check_in(&self, a: usize, b: usize, c: usize) {
        self.check();
        self.a.check(a);
        self.b.check(b);
        self.c.check(c);
    }
}

/// `c ← α·x·xᵀ + β·c`, symmetric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outer<S> {
    /// α.
    pub alpha: S,
    /// `n × k`, one of the steps 1.
    pub x: Region,
    /// β; 0 overwrites.
    pub beta: S,
    /// `n × n`, row step 1.
    pub c: Region,
}

impl<S: Scalar> Outer<S> {
    /// Floating-point operations of one triangle: `n·(n+1)·k`.
    pub fn flops(&self) -> u64 {
        let n = self.x.rows as u64;
        n * (n + 1) * self.x.columns as u64
    }

    /// Panics unless the shapes and steps are as [`Backend::symmetric_product`](super::Backend::symmetric_product) asks.
    ///
    /// # Panics
    /// With both shapes.
    #[track_caller]
    pub fn check(&self) {
        let Self { x, c, .. } = self;
        assert!(
            c.rows == x.rows && c.columns == x.rows,
            "the symmetric product of {}×{} is not {}×{}",
            x.rows,
            x.columns,
            c.rows,
            c.columns
        );
        assert!((x.row_step == 1 || x.column_step == 1) && c.row_step == 1, "symmetric product steps");
    }

    /// [`check`](Self::check), in buffers of so many numbers.
    ///
    /// # Panics
    /// As that, and with the region that a buffer does not hold.
    #[track_caller]
    pub fn check_in(&self, x: usize, c: usize) {
        self.check();
        self.x.check(x);
        self.c.check(c);
    }
}

/// The regions of one element-wise operation, all of one shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapJob {
    /// First operand.
    pub x: Region,
    /// Second operand.
    pub y: Region,
    /// Old value and result.
    pub out: Region,
}

impl MapJob {
    /// A job with one operand.
    pub const fn unary(x: Region, out: Region) -> Self {
        Self { x, y: x, out }
    }

    /// Panics unless the three regions have one shape.
    ///
    /// # Panics
    /// With the shapes.
    #[track_caller]
    pub fn check(&self) {
        let Self { x, y, out } = self;
        assert!(
            x.same_shape(*out) && y.same_shape(*out),
            "map of {}×{} and {}×{} into {}×{}",
            x.rows,
            x.columns,
            y.rows,
            y.columns,
            out.rows,
            out.columns
        );
    }

    /// [`check`](Self::check), in buffers of so many numbers, as far as there are operands.
    ///
    /// # Panics
    /// As that, and with the region that a buffer does not hold.
    #[track_caller]
    pub fn check_in(&self, x: Option<usize>, y: Option<usize>, out: usize) {
        self.check();
        self.out.check(out);
        if let Some(x) = x {
            self.x.check(x);
        }
        if let Some(y) = y {
            self.y.check(y);
        }
    }
}

/// `out ← α·Σ x⊙y + β·out`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReduceJob<S> {
    /// α.
    pub alpha: S,
    /// Summed.
    pub x: Region,
    /// Multiplied in, if there is a second buffer; the shape of `x`.
    pub y: Region,
    /// β; 0 overwrites.
    pub beta: S,
    /// Extent 1 where summed.
    pub out: Region,
}

impl<S: Scalar> ReduceJob<S> {
    /// `out ← Σ x`.
    pub fn sum(x: Region, out: Region) -> Self {
        Self { alpha: S::of(1.0), x, y: x, beta: S::of(0.0), out }
    }

    /// Panics unless the shapes are as [`Backend::reduce`](super::Backend::reduce) asks.
    ///
    /// # Panics
    /// With the shapes.
    #[track_caller]
    pub fn check(&self) {
        let Self { x, y, out, .. } = self;
        let fits = |extent: usize, of: usize| extent == of || extent == 1;
        assert!(
            x.same_shape(*y) && fits(out.rows, x.rows) && fits(out.columns, x.columns),
            "reduce of {}×{} and {}×{} into {}×{}",
            x.rows,
            x.columns,
            y.rows,
            y.columns,
            out.rows,
            out.columns
        );
    }

    /// [`check`](Self::check), in buffers of so many numbers; `y` if there is a second one.
    ///
    /// # Panics
    /// As that, and with the region that a buffer does not hold.
    #[track_caller]
    pub fn check_in(&self, x: usize, y: Option<usize>, out: usize) {
        self.check();
        self.x.check(x);
        self.out.check(out);
        if let Some(y) = y {
            self.y.check(y);
        }
    }
}

/// `x ← (L Lᵀ)⁻¹ x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solve {
    /// `L: n × n`, its lower triangle.
    pub factor: Region,
    /// `n × m`.
    pub x: Region,
}

impl Solve {
    /// Panics unless the shapes fit.
    ///
    /// # Panics
    /// With both shapes.
    #[track_caller]
    pub fn check(&self) {
        let Self { factor, x } = self;
        assert!(
            factor.rows == factor.columns && x.rows == factor.rows,
            "a {}×{} factor does not solve for {}×{}",
            factor.rows,
            factor.columns,
            x.rows,
            x.columns
        );
        assert!(factor.row_step == 1 && x.row_step == 1, "solve needs row steps of 1");
    }

    /// [`check`](Self::check), in buffers of so many numbers.
    ///
    /// # Panics
    /// As that, and with the region that a buffer does not hold.
    #[track_caller]
    pub fn check_in(&self, factors: usize, x: usize) {
        self.check();
        self.factor.check(factors);
        self.x.check(x);
    }
}

/// `out ← (L Lᵀ)⁻¹`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invert {
    /// `L: n × n`, its lower triangle.
    pub factor: Region,
    /// `n × n`.
    pub out: Region,
}

/// `A = Q diag(d) Qᵀ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eigen {
    /// `A`, then `Q`: `n × n`, row step 1.
    pub matrix: Region,
    /// `d`: `n × 1`, packed.
    pub values: Region,
}

/// Copies the strict lower triangle of `region` onto the upper one.
pub(super) fn mirror<S: Scalar>(region: Region, matrix: &mut [S]) {
    for column in 1..region.columns {
        for row in 0..column {
            matrix[region.index(row, column)] = matrix[region.index(column, row)];
        }
    }
}
