//! What a backend is made with.

use std::path::PathBuf;

/// What a backend is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which device, as the driver numbers them.
    pub device: usize,
    /// Whether products may round their operands to TF32 (10 bits of mantissa), which tensor cores multiply faster.
    pub tensor_float: bool,
    /// Where compiled kernels are kept; `None` compiles them every time.
    pub cache: Option<PathBuf>,
}

impl Default for Options {
    /// Device 0, full single precision, kernels kept in `$XDG_CACHE_HOME` or `~/.cache`, under `kronfleet/cuda`.
    fn default() -> Self {
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
        Self { device: 0, tensor_float: false, cache: caches.map(|path| path.join("kronfleet").join("cuda")) }
    }
}
