//! What a device is opened with.

use crate::adapter::{Adapter, Choice};
use crate::error::WgpuError;
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
    /// Whether the patches of convolutions are stored in half precision (11 bits, up to 65,504), of which they take half the
    /// memory, and operands of symmetric products, of which the statistics of factors are made, are kept so in the memory that
    /// a workgroup shares. Sums and everything else stay in single precision. An adapter
    /// [without](crate::Adapter::has_half) refuses.
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

    /// Whether `adapter` is to use half precision.
    ///
    /// # Errors
    /// If it is asked for and the adapter has none.
    pub(crate) fn half_on(&self, adapter: &Adapter) -> Result<bool, WgpuError> {
        if self.half && !adapter.has_half {
            return Err(WgpuError::NoHalf { adapter: adapter.name.clone() });
        }
        Ok(self.half)
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use kronfleet_core::error::{Error as _, ErrorKind};

    #[test]
    fn half_precision_is_refused_by_name_where_there_is_none() {
        let [with, without] = [true, false].map(|has_half| Adapter {
            name: "an old one".to_owned(),
            driver: String::new(),
            is_gpu: true,
            binding_bytes: 1 << 27,
            buffer_bytes: 1 << 30,
            has_half,
            has_timestamps: false,
            workgroup_bytes: 1 << 15,
        });
        let (asked, not) = (Options { half: true, ..Options::fixed() }, Options::fixed());
        assert_eq!([asked.half_on(&with), not.half_on(&with), not.half_on(&without)], [Ok(true), Ok(false), Ok(false)]);
        let error = asked.half_on(&without).expect_err("there is none");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().starts_with("an old one has no numbers in half precision"), "{error}");
    }
}
