//! The sources of the kernels, and what compiles them.
//!
//! Public so that they can be compiled without a device: by the gate that assembles them for every architecture, and by
//! the stand-in that runs them on the CPU.

use crate::device::compile;
use crate::error::CudaError;
use crate::table::narrow;
use xxhash_rust::xxh3::Xxh3;

/// Threads in every block.
pub const THREADS: u32 = 256;

/// Blocks for a line of elements, one per thread.
pub(crate) fn line(elements: usize) -> u32 {
    narrow(elements).div_ceil(THREADS)
}

/// What is put in front of every source.
pub const COMMON: &str = include_str!("../kernels/common.cuh");

macro_rules! sources {
    ($($source:ident $name:literal $text:literal;)*) => {
        /// A file of kernels.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Source {
            $(#[doc = concat!("`kernels/", $name, ".cu`.")] $source,)*
        }

        impl Source {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$source),*];

            /// The file's name without its ending.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$source => $name,)* }
            }

            /// The file's name.
            pub const fn file(self) -> &'static str {
                match self { $(Self::$source => concat!($name, ".cu"),)* }
            }

            /// The file's content.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$source => include_str!($text),)* }
            }
        }
    };
}

sources! {
    Map "map" "../kernels/map.cu";
    Reduce "reduce" "../kernels/reduce.cu";
    Pointers "pointers" "../kernels/pointers.cu";
    Mirror "mirror" "../kernels/mirror.cu";
    Soundness "soundness" "../kernels/soundness.cu";
    Eigen "eigen" "../kernels/eigen.cu";
    Patch "patch" "../kernels/patch.cu";
    Pool "pool" "../kernels/pool.cu";
    BatchNorm "batch_norm" "../kernels/batch_norm.cu";
    EvoNorm "evo_norm" "../kernels/evo_norm.cu";
    Subsample "subsample" "../kernels/subsample.cu";
    Softmax "softmax" "../kernels/softmax.cu";
}

impl Source {
    /// What the compiler is given.
    pub fn program(self) -> String {
        format!("{COMMON}\n{}", self.text())
    }

    /// Its PTX for an architecture such as `compute_80`, by NVRTC.
    ///
    /// # Errors
    /// If NVRTC is missing or refuses the source.
    pub fn compile(self, architecture: &str) -> Result<String, CudaError> {
        compile(self, &self.program(), architecture)
    }

    /// The kernels in it.
    pub fn kernels(self) -> impl Iterator<Item = &'static str> {
        const BEGIN: &str = "__global__ void ";
        self.text().split(BEGIN).skip(1).filter_map(|rest| rest.split('(').next())
    }
}

/// What names a compiled kernel: 128 bits of XXH3 of everything that decides about it.
pub(crate) fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Xxh3::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("{:032x}", hash.digest128())
}
