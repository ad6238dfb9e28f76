//! The shaders, and what each of them is bound to.

/// What a shader does with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

use Access::{Read, Write};

/// A shader; the first binding of every one is the table of its jobs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    /// Unique.
    pub(crate) name: &'static str,
    /// Whether it asks for numbers in half precision.
    pub(crate) half: bool,
    /// What follows [`COMMON`], one after the other.
    pub(crate) source: &'static [&'static str],
    pub(crate) bindings: &'static [Access],
}

/// What all shaders share.
pub(crate) const COMMON: &str = include_str!("shader/common.wgsl");

macro_rules! kernel {
    ($constant:ident, $name:literal, $bindings:expr) => {
        pub(crate) const $constant: Kernel = Kernel {
            name: $name,
            half: false,
            source: &[include_str!(concat!("shader/", $name, ".wgsl"))],
            bindings: &$bindings,
        };
    };
}

const PRODUCT_JOB: &str = include_str!("shader/product_job.wgsl");

/// How the operands of products lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// In single precision.
    Full,
    /// The second of them in half precision.
    Second,
    /// Both in half precision.
    Both,
}

impl Stored {
    /// Whether each of the two is in half precision.
    pub(crate) fn halves(self) -> [bool; 2] {
        [self == Self::Both, self != Self::Full]
    }
}

const FULL: &str = "alias OfA = f32;\nalias OfB = f32;\n";
const SECOND: &str = "alias OfA = f32;\nalias OfB = f16;\n";
const BOTH: &str = "alias OfA = f16;\nalias OfB = f16;\n";

/// A shader of products.
const fn product(name: &'static str, half: bool, source: &'static [&'static str]) -> Kernel {
    Kernel { name, half, source, bindings: &[Read, Read, Write, Write] }
}

macro_rules! tiled {
    ($name:expr, $half:literal, $stored:expr, $side:literal, $depth:literal, $kept:literal) => {
        product(
            $name,
            $half,
            &[
                $stored,
                concat!("const SIDE = ", $side, "u;\nconst DEPTH = ", $depth, "u;\nalias Four = vec4<", $kept, ">;\n"),
                PRODUCT_JOB,
                include_str!("shader/product.wgsl"),
            ],
        )
    };
}

/// In the order of [`Variant`](crate::tuning::Variant).
macro_rules! products {
    ($suffix:literal, $half:literal, $stored:expr) => {
        [
            tiled!(concat!("product 16×16", $suffix), $half, $stored, 4, 16, "f32"),
            tiled!(concat!("product 32×32", $suffix), $half, $stored, 8, 16, "f32"),
            tiled!(concat!("product 32×32, deep", $suffix), $half, $stored, 8, 32, "f32"),
            tiled!(concat!("product 64×64", $suffix), $half, $stored, 16, 16, "f32"),
            product(
                concat!("product, direct", $suffix),
                $half,
                &[$stored, PRODUCT_JOB, include_str!("shader/product_direct.wgsl")],
            ),
            product(
                concat!("product, naive", $suffix),
                $half,
                &[$stored, PRODUCT_JOB, include_str!("shader/product_naive.wgsl")],
            ),
        ]
    };
}

/// Of operands in single precision.
pub(crate) static PRODUCTS: [Kernel; 6] = products!("", false, FULL);
/// Of an operand in single precision and one in half precision.
pub(crate) static PRODUCTS_BY_HALF: [Kernel; 6] = products!(", b in half precision", true, SECOND);
/// Tiles of 32×32 and 64×64 of operands that are kept in half precision in workgroup memory.
pub(crate) static PRODUCTS_KEPT_IN_HALF: [Kernel; 2] = [
    tiled!("product 32×32, kept in half precision", true, FULL, 8, 32, "f16"),
    tiled!("product 64×64, kept in half precision", true, FULL, 16, 32, "f16"),
];
/// The same of operands that are in half precision before.
pub(crate) static PRODUCTS_OF_HALVES: [Kernel; 2] = [
    tiled!("product 32×32, of half precision", true, BOTH, 8, 32, "f16"),
    tiled!("product 64×64, of half precision", true, BOTH, 16, 32, "f16"),
];
kernel!(PARTS, "parts", [Read, Write]);
kernel!(MAP, "map", [Read, Read, Write]);
kernel!(REDUCE, "reduce", [Read, Read, Write]);
kernel!(CHOLESKY, "cholesky", [Write, Write]);
kernel!(PANEL, "panel", [Write]);
kernel!(SOLVE, "solve", [Read, Write]);
kernel!(MIRROR, "mirror", [Write]);
pub(crate) const UNFOLD: Kernel = Kernel {
    name: "unfold",
    half: false,
    source: &["alias Patch = f32;\n", include_str!("shader/unfold.wgsl")],
    bindings: &[Read, Write],
};
pub(crate) const UNFOLD_TO_HALF: Kernel = Kernel {
    name: "unfold to half precision",
    half: true,
    source: &["alias Patch = f16;\n", include_str!("shader/unfold.wgsl")],
    bindings: &[Read, Write],
};
kernel!(FOLD, "fold", [Read, Write]);
kernel!(POOL_FORWARD, "pool_forward", [Read, Write]);
kernel!(POOL_BACKWARD, "pool_backward", [Read, Read, Write]);
kernel!(SUBSAMPLE, "subsample", [Read, Write]);
kernel!(SUBSAMPLE_ADJOINT, "subsample_adjoint", [Read, Write]);
kernel!(CROSS_ENTROPY, "cross_entropy", [Read, Read, Write, Write]);
kernel!(SAMPLE, "sample", [Read, Read, Write]);
kernel!(MOMENTS, "moments", [Read, Write]);
kernel!(MOMENTS_JOIN, "moments_join", [Read, Write, Write]);
kernel!(NORMALISE, "normalise", [Read, Read, Read, Write]);
kernel!(NORMALISE_SUMS, "normalise_sums", [Read, Read, Read, Write]);
kernel!(NORMALISE_ADJOINT, "normalise_adjoint", [Read, Read, Read, Read, Read, Write]);
kernel!(SUMS_JOIN, "sums_join", [Read, Write]);
kernel!(EVO_FORWARD, "evo_forward", [Read, Read, Write]);
kernel!(EVO_BACKWARD, "evo_backward", [Read, Read, Read, Write, Write]);
kernel!(EVO_SUMS, "evo_sums", [Read, Read, Read, Write]);
kernel!(JACOBI, "jacobi", [Write, Write, Write]);

const EIGEN_BLOCK: &str = include_str!("shader/eigen_block.wgsl");

macro_rules! eigen {
    ($constant:ident, $name:literal, $bindings:expr) => {
        pub(crate) const $constant: Kernel = Kernel {
            name: $name,
            half: false,
            source: &[EIGEN_BLOCK, include_str!(concat!("shader/", $name, ".wgsl"))],
            bindings: &$bindings,
        };
    };
}

eigen!(EIGEN_BEGIN, "eigen_begin", [Write, Write]);
eigen!(EIGEN_LEVEL, "eigen_level", [Write]);
eigen!(EIGEN_PAIR, "eigen_pair", [Write, Write]);
eigen!(EIGEN_TURN, "eigen_turn", [Write, Write]);
eigen!(EIGEN_RANK, "eigen_rank", [Read, Write, Write]);
eigen!(EIGEN_FINISH, "eigen_finish", [Write, Read]);
