//! Compiling the libraries.

use core::fmt;
use kronfleet_cuda::kernel::{COMMON, Source};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// Why there is no stand-in on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; it takes g++, libopenblas-dev and liblapacke-dev", self.0)
    }
}

impl core::error::Error for Missing {}

impl Missing {
    pub(crate) fn unloadable(path: &Path, error: &dyn fmt::Display) -> Self {
        Self(format!("{} cannot be loaded: {error}", path.display()))
    }
}

/// One library: its file, its source, what it is linked with.
struct Library {
    name: &'static str,
    source: &'static str,
    links: &'static [&'static str],
}

const LIBRARIES: [Library; 4] = [
    Library { name: "libcuda.so", source: "driver.cpp", links: &[] },
    Library { name: "libcublas.so", source: "blas.cpp", links: &["-lcuda", "-lopenblas"] },
    Library { name: "libcusolver.so", source: "solver.cpp", links: &["-lcuda", "-llapacke", "-lopenblas"] },
    Library { name: "libnvrtc.so", source: "nvrtc.cpp", links: &[] },
];

/// Builds what is missing or older than its sources, and says where it lies.
///
/// # Errors
/// If the compiler or a library is missing, or does not accept the sources.
pub fn build() -> Result<PathBuf, Missing> {
    let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("host");
    let target = std::env::current_exe().map_err(|error| Missing(error.to_string()))?;
    // target/<profile>/[deps/]<program>
    let profile = target.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).unwrap_or(Path::new("."));
    let folder = profile.join("cuda-standin");
    fs::create_dir_all(&folder).map_err(|error| Missing(format!("{}: {error}", folder.display())))?;
    let kernels = folder.join("kernels.cpp");
    let text = table();
    // Left alone where nothing changed, so that nothing is built again.
    if fs::read_to_string(&kernels).ok().as_deref() != Some(&text) {
        fs::write(&kernels, text).map_err(|error| Missing(format!("{}: {error}", kernels.display())))?;
    }
    let newest = newest(&[&host, &folder.join("kernels.cpp")]);
    for Library { name, source, links } in LIBRARIES {
        let file = folder.join(name);
        if modified(&file).is_some_and(|built| built >= newest) {
            continue;
        }
        // Under a name of its own first: programs that build at once do not see each other's halves.
        let half = folder.join(format!("{}.{name}", std::process::id()));
        let mut compiler = Command::new("g++");
        compiler.args(["-std=c++17", "-O2", "-fPIC", "-shared", "-U_FORTIFY_SOURCE", "-w"]);
        compiler.arg(format!("-Wl,-soname,{name}")).arg("-I").arg(&host).arg("-o").arg(&half).arg(host.join(source));
        if source == "driver.cpp" {
            compiler.arg(&kernels);
        }
        compiler.arg("-L").arg(&folder).args(links);
        let output = compiler.output().map_err(|error| Missing(format!("g++ cannot be started: {error}")))?;
        if !output.status.success() {
            let says = String::from_utf8_lossy(&output.stderr);
            let first = says.lines().find(|line| line.contains("error") || line.contains("cannot")).unwrap_or(&says);
            return Err(Missing(format!("{name} cannot be built: {first}")));
        }
        fs::rename(&half, &file).map_err(|error| Missing(format!("{}: {error}", file.display())))?;
    }
    Ok(folder)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|facts| facts.modified()).ok()
}

/// When the last of these files, or of the files in these folders, was changed.
fn newest(paths: &[&Path]) -> SystemTime {
    let inside = |path: &Path| -> Vec<PathBuf> {
        match fs::read_dir(path) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(_) => vec![path.to_owned()],
        }
    };
    let times = paths.iter().flat_map(|path| inside(path)).filter_map(|path| modified(&path));
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// All kernels in one file, each source in a namespace of its own, and the table that tells the driver of them.
fn table() -> String {
    let mut text = String::from("#include \"cuda_on_host.h\"\n");
    let mut rows = String::new();
    for source in Source::ALL {
        let name = source.name();
        write!(text, "namespace {name}_file {{\n{COMMON}\n{}\n}}\n", source.text()).expect("strings can be written to");
        // The sums of common.cuh have barriers too.
        let barriers = ["__syncthreads", "block_sum"].iter().any(|word| source.text().contains(word));
        for kernel in source.kernels() {
            writeln!(
                rows,
                "    {{\"{kernel}\", {barriers}, [](void** a) {{ return standin_bind({name}_file::{kernel}, a); }}}},"
            )
            .expect("strings can be written to");
        }
    }
    write!(
        text,
        "static const StandinKernel TABLE[] = {{\n{rows}}};\n\
         __attribute__((constructor)) static void announce() {{\n    \
         standin_register(TABLE, sizeof(TABLE) / sizeof(TABLE[0]));\n}}\n"
    )
    .expect("strings can be written to");
    text
}
