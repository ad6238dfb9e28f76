//! Nodes as the processes of an MPI job.

use super::all;
use crate::Medium;
use crate::member::Message;
use crate::place::{Place, Task};
use anyhow::{Context, Result, ensure};
use kronfleet_examples::trial::Lines;
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command};
use std::time::Duration;

/// A job of ours; it does not outlive this value.
struct Job(Child);

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a job of so many processes, which meet this one at a socket, and hears what they have measured.
pub(super) fn run(nodes: u32, task: &Task) -> Result<Vec<Vec<Message>>> {
    let folder = tempfile::tempdir()?;
    let meeting = folder.path().join("meet");
    let listener = UnixListener::bind(&meeting)?;
    listener.set_nonblocking(true)?;
    let place = Place {
        transport: Medium::Mpi,
        node: 0,
        nodes,
        session: meeting.to_str().context("the folder for temporary files has no name in UTF-8")?.to_owned(),
        seed: None,
        certificates: None,
        task: task.clone(),
    };
    let mut starter = Command::new("mpirun");
    // Containers run as root; more ranks than cores are asked for on purpose.
    starter.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    // Each process has a thread beside MPI's.
    starter.env("OMPI_MCA_rmaps_base_oversubscribe", "1").env("OMPI_MCA_hwloc_base_binding_policy", "none");
    starter.args(["-n", &nodes.to_string()]).arg(std::env::current_exe()?);
    starter.args(["--transport", "mpi", "--place", &serde_json::to_string(&place)?]);
    let mut job = Job(starter.spawn().context("cannot start mpirun (Debian: openmpi-bin)")?);
    let mut streams = Vec::new();
    while streams.len() < nodes as usize {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                streams.push(stream);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let ended = job.0.try_wait()?;
                ensure!(ended.is_none(), "mpirun has ended before its processes were there; see above");
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let lines = streams.iter().map(|stream| Ok(Lines::read(stream.try_clone()?))).collect::<Result<Vec<_>>>()?;
    let told = lines.iter().map(|lines: &Lines<Message>| all(|| lines.hear())).collect::<Result<_>>()?;
    for stream in streams {
        stream.shutdown(Shutdown::Write)?;
    }
    let status = job.0.wait()?;
    ensure!(status.success(), "mpirun ended with {status}");
    Ok(told)
}
