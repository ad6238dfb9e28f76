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

/// A shader of products.
const fn product(name: &'static str, source: &'static [&'static str]) -> Kernel {
    Kernel { name, half: false, source, bindings: &[Read, Read, Write, Write] }
}

macro_rules! tiled {
    ($constant:ident, $name:literal, $side:literal, $depth:literal) => {
        tiled!($constant, $name, $side, $depth, "f32");
    };
    ($constant:ident, $name:literal, $side:literal, $depth:literal, $kept:literal) => {
        pub(crate) const $constant: Kernel = product(
            $name,
            &[
                concat!("const SIDE = ", $side, "u;\nconst DEPTH = ", $depth, "u;\nalias Four = vec4<", $kept, ">;\n"),
                PRODUCT_JOB,
                include_str!("shader/product.wgsl"),
            ],
        );
    };
}

tiled!(PRODUCT_16, "product 16×16", 4, 16);
tiled!(PRODUCT_32, "product 32×32", 8, 16);
tiled!(PRODUCT_32_DEEP, "product 32×32, deep", 8, 32);
tiled!(PRODUCT_64, "product 64×64", 16, 16);
tiled!(HALF_32, "product 32×32, kept in half precision", 8, 32, "f16");
tiled!(HALF_64, "product 64×64, kept in half precision", 16, 32, "f16");
/// The same as products, of operands that are kept in half precision.
pub(crate) const PRODUCT_HALF_32: Kernel = Kernel { half: true, ..HALF_32 };
pub(crate) const PRODUCT_HALF_64: Kernel = Kernel { half: true, ..HALF_64 };
pub(crate) const PRODUCT_DIRECT: Kernel =
    product("product, direct", &[PRODUCT_JOB, include_str!("shader/product_direct.wgsl")]);
pub(crate) const PRODUCT_NAIVE: Kernel =
    product("product, naive", &[PRODUCT_JOB, include_str!("shader/product_naive.wgsl")]);
kernel!(PARTS, "parts", [Read, Write]);
kernel!(MAP, "map", [Read, Read, Write]);
kernel!(REDUCE, "reduce", [Read, Read, Write]);
kernel!(CHOLESKY, "cholesky", [Write, Write]);
kernel!(PANEL, "panel", [Write]);
kernel!(SOLVE, "solve", [Read, Write]);
kernel!(MIRROR, "mirror", [Write]);
kernel!(UNFOLD, "unfold", [Read, Write]);
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
