//! The element-wise operations every backend knows.

use crate::scalar::Scalar;

/// An element-wise operation `out ← op(x, y, z)`, where `z` is the old value of `out`.
///
/// A backend either calls [`apply`](Self::apply) per element or has a kernel per variant that gives what
/// `apply` gives, up to rounding. Where a variant ignores an operand it must not let NaN in it through.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Map<S> {
    /// `v`.
    Fill(S),
    /// `α·x + β·z`; `β = 0` ignores `z`.
    Axpby(S, S),
    /// `α·x + β·y`.
    Sum(S, S),
    /// `α·x·y + β·z`; `β = 0` ignores `z`.
    MultiplyAdd(S, S),
    /// `x / y`.
    Divide,
    /// `1 / x`.
    Reciprocal,
    /// `√x`.
    Sqrt,
    /// `max(α·x, β·y)`; a NaN operand loses.
    Maximum(S, S),
    /// `max(x, 0)`; NaN stays NaN.
    Relu,
    /// `x` where `y > 0`, else 0: the gradient through ReLU, `y` its input or output.
    ReluGradient,
    /// `tanh x`.
    Tanh,
    /// `x·(1 − y²)`: the gradient through tanh, `y` its output.
    TanhGradient,
    /// `z / (max(x, 0)·max(y, 0) + λ)`: the eigen form's damping.
    DivideByProduct(S),
    /// `z / (x + λ)`: EKFAC's damping.
    DivideDamped(S),
    /// `√(x/y)` where that is positive and finite, else 1: factored damping's π.
    Balance,
    /// `min(1, √(κ/|x|))`, 1 at `x = 0`: the KL clip's ν.
    KlScale(S),
    /// 1 where `x` is finite, else 0.
    Finite,
    /// `w·z + (1 − w)·x` where `y ≠ 0`, else `z`: a running average that refuses what is not sound.
    Blend(S),
    /// `w·z + (1 − w)·x²`: a running second moment.
    Moment(S),
    /// `(c₁·x) / (√(c₂·y) + ε)`: Adam's direction.
    AdamDirection(S, S, S),
    /// `x` where `y ≠ 0`, else `z`.
    Select,
}

impl<S: Scalar> Map<S> {
    /// The number and the parameters by which kernels in other languages know an operation; a new one gets the next.
    pub fn code(self) -> (u32, [S; 3]) {
        let zero = S::of(0.0);
        match self {
            Self::Fill(value) => (0, [value, zero, zero]),
            Self::Axpby(alpha, beta) => (1, [alpha, beta, zero]),
            Self::Sum(alpha, beta) => (2, [alpha, beta, zero]),
            Self::MultiplyAdd(alpha, beta) => (3, [alpha, beta, zero]),
            Self::Divide => (4, [zero; 3]),
            Self::Reciprocal => (5, [zero; 3]),
            Self::Sqrt => (6, [zero; 3]),
            Self::Maximum(alpha, beta) => (7, [alpha, beta, zero]),
            Self::Relu => (8, [zero; 3]),
            Self::ReluGradient => (9, [zero; 3]),
            Self::Tanh => (10, [zero; 3]),
            Self::TanhGradient => (11, [zero; 3]),
            Self::DivideByProduct(damping) => (12, [damping, zero, zero]),
            Self::DivideDamped(damping) => (13, [damping, zero, zero]),
            Self::Balance => (14, [zero; 3]),
            Self::KlScale(kappa) => (15, [kappa, zero, zero]),
            Self::Finite => (16, [zero; 3]),
            Self::Blend(old) => (17, [old, zero, zero]),
            Self::Moment(old) => (18, [old, zero, zero]),
            Self::AdamDirection(first, second, epsilon) => (19, [first, second, epsilon]),
            Self::Select => (20, [zero; 3]),
        }
    }

    /// One element of the result.
    #[inline(always)]
    pub fn apply(self, x: S, y: S, z: S) -> S {
        let (zero, one) = (S::of(0.0), S::of(1.0));
        let scaled = |factor: S, old: S| if factor == zero { zero } else { factor * old };
        match self {
            Self::Fill(value) => value,
            Self::Axpby(alpha, beta) => alpha * x + scaled(beta, z),
            Self::Sum(alpha, beta) => alpha * x + beta * y,
            Self::MultiplyAdd(alpha, beta) => alpha * x * y + scaled(beta, z),
            Self::Divide => x / y,
            Self::Reciprocal => one / x,
            Self::Sqrt => x.sqrt(),
            Self::Maximum(alpha, beta) => (alpha * x).max(beta * y),
            Self::Relu => {
                if x < zero {
                    zero
                } else {
                    x
                }
            }
            Self::ReluGradient => {
                if y > zero {
                    x
                } else {
                    zero
                }
            }
            Self::Tanh => x.tanh(),
            Self::TanhGradient => x * (one - y * y),
            Self::DivideByProduct(damping) => z / (x.max(zero) * y.max(zero) + damping),
            Self::DivideDamped(damping) => z / (x + damping),
            Self::Balance => {
                let ratio = (x / y).sqrt();
                if ratio.is_finite() && ratio > zero { ratio } else { one }
            }
            Self::KlScale(kappa) => {
                if x == zero {
                    one
                } else {
                    (kappa / x.abs()).sqrt().min(one)
                }
            }
            Self::Finite => {
                if x.is_finite() {
                    one
                } else {
                    zero
                }
            }
            Self::Blend(old) => {
                if y == zero {
                    z
                } else {
                    scaled(old, z) + (one - old) * x
                }
            }
            Self::Moment(old) => scaled(old, z) + (one - old) * x * x,
            Self::AdamDirection(first, second, epsilon) => first * x / ((second * y).sqrt() + epsilon),
            Self::Select => {
                if y == zero {
                    z
                } else {
                    x
                }
            }
        }
    }

    /// One of each variant, with plain parameters: what conformance tests go through.
    pub fn samples() -> [Self; 21] {
        let s = S::of;
        [
            Self::Fill(s(1.5)),
            Self::Axpby(s(2.0), s(-0.5)),
            Self::Sum(s(2.0), s(-0.5)),
            Self::MultiplyAdd(s(2.0), s(0.5)),
            Self::Divide,
            Self::Reciprocal,
            Self::Sqrt,
            Self::Maximum(s(1.0), s(0.5)),
            Self::Relu,
            Self::ReluGradient,
            Self::Tanh,
            Self::TanhGradient,
            Self::DivideByProduct(s(0.01)),
            Self::DivideDamped(s(0.01)),
            Self::Balance,
            Self::KlScale(s(0.001)),
            Self::Finite,
            Self::Blend(s(0.95)),
            Self::Moment(s(0.99)),
            Self::AdamDirection(s(1.1), s(1.2), s(1e-8)),
            Self::Select,
        ]
    }
}
