//! Compiling the kernels for the device, once: later runs find them on disk.

use super::{Functions, library};
use crate::error::{CudaError, driver};
use crate::kernel::{Source, digest};
use cudarc::driver::CudaContext;
use cudarc::nvrtc::{CompileError, CompileOptions, Ptx, compile_ptx_with_opts, sys};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// All kernels, from the cache where it has them.
pub(super) fn functions(context: &Arc<CudaContext>, cache: Option<&Path>) -> Result<Functions, CudaError> {
    let capability = context.compute_capability().map_err(driver("asking for the compute capability"))?;
    let architecture = format!("compute_{}{}", capability.0, capability.1);
    let version = version();
    let mut functions = BTreeMap::new();
    for &source in Source::ALL {
        let text = source.program();
        let file = cache.map(|folder| {
            let key = digest(&[text.as_bytes(), architecture.as_bytes(), version.as_bytes()]);
            folder.join(format!("{}-{architecture}-{version}-{key}.ptx", source.name()))
        });
        let kept = file.as_deref().and_then(|file| fs::read_to_string(file).ok());
        // What was damaged on disk does not load; it is made again.
        let loaded = kept.and_then(|ptx| context.load_module(Ptx::from_src(ptx)).ok());
        let module = match loaded {
            Some(module) => module,
            None => {
                let ptx = compile(source, &text, &architecture)?;
                if let Some(file) = file {
                    keep(&file, &ptx);
                }
                context.load_module(Ptx::from_src(ptx)).map_err(driver("loading a kernel"))?
            }
        };
        for name in source.kernels() {
            functions.insert(name, module.load_function(name).map_err(driver(name))?);
        }
    }
    Ok(Functions::new(functions))
}

/// NVRTC's version.
fn version() -> String {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: it writes two numbers to places of ours; on failure they stay 0, which names a cache file of its own.
    let _ = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    format!("{major}.{minor}")
}

/// The source's PTX for an architecture such as `compute_80`.
pub(crate) fn compile(source: Source, text: &str, architecture: &str) -> Result<String, CudaError> {
    library::check_compiler()?;
    let options = CompileOptions {
        name: Some(source.file().to_owned()),
        options: vec![format!("--gpu-architecture={architecture}")],
        ..CompileOptions::default()
    };
    let failed = |log: String| CudaError::Kernel { source: source.file(), log };
    let ptx = compile_ptx_with_opts(text, options).map_err(|error| match error {
        CompileError::CompileError { log, .. } => failed(log.to_string_lossy().into_owned()),
        other => failed(format!("{other:?}")),
    })?;
    Ok(ptx.to_src())
}

/// Keeps a compiled kernel for later runs; where that fails, they compile it again.
fn keep(file: &Path, ptx: &str) {
    let Some(folder) = file.parent() else { return };
    // Renamed when it is whole, so that nobody reads half of it.
    let half = file.with_extension(std::process::id().to_string());
    let _ = fs::create_dir_all(folder).and_then(|()| fs::write(&half, ptx)).and_then(|()| fs::rename(&half, file));
}
