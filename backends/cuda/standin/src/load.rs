//! Loading the libraries, and what they offer beside CUDA's functions.

use crate::build::{Missing, build};
use libloading::Library;
use std::path::Path;

/// A mistake made on purpose: calls are carried out as a backend with that mistake would have made them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// None.
    None,
    /// The host does not wait for an event.
    MissingEventWait,
    /// A product is written with a wrong leading dimension.
    LeadingDimension,
    /// The other triangle is given to symmetric products and factorisations.
    UpperForLower,
    /// A kernel is launched with one block too few.
    LaunchBound,
    /// A stream does not wait for another one.
    MissingStreamWait,
}

impl Mutant {
    /// All that are wrong.
    pub const ALL: [Self; 5] = [
        Self::MissingEventWait,
        Self::LeadingDimension,
        Self::UpperForLower,
        Self::LaunchBound,
        Self::MissingStreamWait,
    ];
}

/// The stand-in, loaded into this process.
#[derive(Debug)]
pub struct StandIn {
    driver: Library,
    _others: Vec<Library>,
}

/// Builds and loads the libraries, so that whoever looks for CUDA's from now on finds these.
///
/// # Errors
/// If they cannot be built or loaded.
pub fn load() -> Result<StandIn, Missing> {
    let folder = build()?;
    let open = |name: &str| -> Result<Library, Missing> {
        let path: &Path = &folder.join(name);
        // SAFETY: the library was built from the sources beside this file; what runs when it is loaded fills a table.
        unsafe { Library::new(path) }.map_err(|error| Missing::unloadable(path, &error))
    };
    let driver = open("libcuda.so")?;
    let mut others = vec![open("libcublas.so")?, open("libcusolver.so")?];
    // NVIDIA's compiler is used where the loader's path leads to it.
    if std::env::var_os("KRONFLEET_NVRTC").is_none() {
        others.push(open("libnvrtc.so")?);
    }
    Ok(StandIn { driver, _others: others })
}

impl StandIn {
    /// Draws the order between streams, blocks and threads from this seed from now on.
    pub fn seed(&self, seed: u64) {
        // SAFETY: `host/driver.cpp` defines it with this type.
        let call = unsafe { self.driver.get::<unsafe extern "C" fn(u64)>(b"standin_seed\0") };
        let call = call.expect("the driver was built from the sources beside this file");
        // SAFETY: it takes any number and locks what it changes.
        unsafe { call(seed) };
    }

    /// Makes this mistake from now on.
    pub fn mutate(&self, mutant: Mutant) {
        // SAFETY: `host/driver.cpp` defines it with this type.
        let call = unsafe { self.driver.get::<unsafe extern "C" fn(i32)>(b"standin_mutant\0") };
        let call = call.expect("the driver was built from the sources beside this file");
        // SAFETY: it takes any number and locks what it changes.
        unsafe { call(mutant as i32) };
    }

    /// Loses the device after so many more launches, as a kernel that crashes does: every later call fails, until all who
    /// use the device have let go of it.
    pub fn lose_after(&self, launches: u32) {
        // SAFETY: `host/driver.cpp` defines it with this type.
        let call = unsafe { self.driver.get::<unsafe extern "C" fn(u32)>(b"standin_lose_after\0") };
        let call = call.expect("the driver was built from the sources beside this file");
        // SAFETY: it takes any number and locks what it changes.
        unsafe { call(launches) };
    }

    /// Kernels launched so far, as the driver counts them; routines of cuBLAS and cuSOLVER not among them.
    pub fn launches(&self) -> u32 {
        // SAFETY: `host/driver.cpp` defines it with this type.
        let call = unsafe { self.driver.get::<unsafe extern "C" fn() -> u32>(b"standin_launches\0") };
        let call = call.expect("the driver was built from the sources beside this file");
        // SAFETY: it reads a number under a lock.
        unsafe { call() }
    }
}
