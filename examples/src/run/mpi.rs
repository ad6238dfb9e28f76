//! What a trainer over MPI needs beyond the others: its seat in the job, or a job to begin with.

use crate::run::processes::{Connection, NoSettings, Place, Preparation, Run};
use anyhow::{Context, Result, anyhow, bail, ensure};
use kronfleet_mpi::{Seat, Site};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Prepares a process of an MPI job, each of which starts one node; where there is no job, this process becomes one of as
/// many processes as there are nodes.
///
/// # Errors
/// If the launcher's variables make no sense, or `mpirun` cannot be started.
pub fn prepare(_: &NoSettings, run: Run) -> Result<Preparation> {
    let Some(Seat { rank, ranks }) = Seat::from_environment()? else { return Err(become_job(run.nodes)) };
    if ranks < 2 {
        bail!("one process is no fleet: give mpirun -n a number above 1");
    }
    let arguments = [format!("--nodes={ranks}"), "--elsewhere".to_owned()].map(Into::into).into();
    Ok(Preparation { ranks: rank..rank + 1, number: Some(rank), restarts: false, arguments, ..Preparation::all(ranks) })
}

/// Goes on as `mpirun`, which starts this program again so many times; comes back only if it cannot.
fn become_job(nodes: u32) -> anyhow::Error {
    let Ok(program) = std::env::current_exe() else { return anyhow!("cannot find this program to start it again") };
    let failed = Command::new("mpirun")
        // Open MPI is to let nodes share cores; other libraries do anyway, and do not know its flags.
        .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
        .env("OMPI_MCA_hwloc_base_binding_policy", "none")
        // After Ctrl-C it kills whoever has not ended within a second, in the midst of writing a report.
        .env("OMPI_MCA_odls_base_sigkill_timeout", "60")
        .args(["-n", &nodes.to_string()])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .exec();
    anyhow!("cannot start mpirun: {failed}; install it (Debian: openmpi-bin)")
}

/// A node's end.
///
/// # Errors
/// If MPI cannot be entered, or sees the job otherwise than its launcher.
pub fn open(_: &NoSettings, place: &Place) -> Result<Connection> {
    let site = Site::enter()?;
    let (rank, ranks) = (site.rank(), site.ranks());
    ensure!(
        (rank, ranks) == (place.node.0, place.nodes),
        "the launcher says that this is process {} of {}, MPI that it is {rank} of {ranks}: use the mpirun of the library \
         that this program was built with",
        place.node.0,
        place.nodes
    );
    let end = site.open(place.nodes)?.context("this process is one of the nodes")?;
    let waker = end.waker();
    Ok(Connection { transport: Box::new(end), wake: Box::new(move || waker.wake()) })
}
