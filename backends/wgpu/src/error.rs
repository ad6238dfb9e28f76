//! What can go wrong with a GPU.

use core::fmt;
use kronfleet_core::error::{Error, ErrorKind};

/// Why a GPU cannot be used, or no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WgpuError {
    /// There is no adapter at all.
    NoAdapter,
    /// There are adapters, but none of that name.
    NoSuchAdapter {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The adapter cannot do what the shaders need, or its driver refuses to open it.
    Refused {
        /// Its name.
        adapter: String,
        /// What the driver said.
        reason: String,
    },
    /// The adapter's shaders have no numbers in half precision, which were asked for.
    NoHalf {
        /// Its name.
        adapter: String,
    },
    /// Device memory ran out.
    OutOfMemory {
        /// How large the buffer was to be.
        bytes: u64,
    },
    /// The device is gone: unplugged, reset, destroyed.
    Lost {
        /// What the driver said.
        reason: String,
    },
    /// One piece of work wants more of a buffer at once than the adapter can bind.
    Binding {
        /// What it wants.
        bytes: u64,
        /// What the adapter allows.
        limit: u64,
    },
    /// The driver refused a command.
    Command {
        /// What it said.
        reason: String,
    },
}

impl fmt::Display for WgpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAdapter => write!(
                f,
                "no Vulkan adapter was found: install a GPU's Vulkan driver, or the one that computes on the CPU \
                 (Debian: mesa-vulkan-drivers), or take another backend"
            ),
            Self::NoSuchAdapter { name, known } => {
                write!(f, "no adapter's name contains {name:?}; there are: {}", known.join(", "))
            }
            Self::Refused { adapter, reason } => {
                write!(f, "{adapter} cannot be used: {reason}; update its driver or name another adapter")
            }
            Self::NoHalf { adapter } => write!(
                f,
                "{adapter} has no numbers in half precision (SHADER_F16): compute in single precision, or name another adapter"
            ),
            Self::OutOfMemory { bytes } => {
                write!(f, "no device memory for a buffer of {bytes} bytes: take a smaller batch or model")
            }
            Self::Lost { reason } => write!(f, "the device is lost ({reason}): go on with another backend"),
            Self::Binding { bytes, limit } => write!(
                f,
                "one operation wants {bytes} bytes of a buffer at once, the adapter binds {limit}: take a smaller batch"
            ),
            Self::Command { reason } => write!(f, "the driver refused a command: {reason}"),
        }
    }
}

impl core::error::Error for WgpuError {}

impl Error for WgpuError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoAdapter | Self::NoSuchAdapter { .. } | Self::Refused { .. } | Self::NoHalf { .. } => {
                ErrorKind::Unavailable
            }
            Self::OutOfMemory { .. } => ErrorKind::OutOfMemory,
            Self::Lost { .. } => ErrorKind::DeviceLost,
            Self::Binding { .. } | Self::Command { .. } => ErrorKind::Other,
        }
    }
}
