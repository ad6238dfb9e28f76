//! What a device is opened with.

use crate::adapter::Choice;
use crate::tuning::Variant;
use std::path::PathBuf;

/// What a device is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which adapter.
    pub adapter: Choice,
    /// Which shaders compute products.
    pub tuning: Tuning,
    /// The most bytes of one buffer that one operation may bind, where that is to be less than the adapter allows; not
    /// less than [`Options::LEAST_BINDING`]. Operations on more are cut.
    pub binding_bytes: Option<u64>,
    /// Whether eigenproblems of more than 64 rows are solved on the host, in double precision, which waits and is counted as
    /// a wait; if not said, where the adapter is no GPU, on which that is faster.
    pub host_eigen: Option<bool>,
    /// Whether symmetric products, of which the statistics of factors are made, keep their operands in half precision (11 bits,
    /// up to 65,504; sums stay in single precision) in the memory that a workgroup shares, of which they then take half; on
    /// adapters that can, see [`Device::half`](crate::Device::half).
    pub half: bool,
}

/// Which shaders compute products. All give the same bits; they differ in speed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tuning {
    /// By shapes alone, the same on every adapter.
    Fixed,
    /// By what was measured on this adapter: once, when it is opened for the first time, which takes seconds.
    Measured {
        /// The folder in which what was measured is kept; `None` measures every time.
        cache: Option<PathBuf>,
    },
    /// One for all, for comparisons.
    Only(Variant),
}

impl Options {
    /// The least that [`binding_bytes`](Self::binding_bytes) may be: what tables of jobs take.
    pub const LEAST_BINDING: u64 = 4 * crate::queue::WINDOW as u64;

    /// [`Tuning::Fixed`], everything else as by default.
    pub fn fixed() -> Self {
        Self { tuning: Tuning::Fixed, ..Self::default() }
    }
}

impl Default for Options {
    /// The best adapter with all that it has, tuned to it; what was measured is kept in `$XDG_CACHE_HOME` or `~/.cache`,
    /// under `kronfleet/wgpu`.
    fn default() -> Self {
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
        let cache = caches.map(|path| path.join("kronfleet").join("wgpu"));
        Self {
            adapter: Choice::Best,
            tuning: Tuning::Measured { cache },
            binding_bytes: None,
            host_eigen: None,
            half: false,
        }
    }
}
