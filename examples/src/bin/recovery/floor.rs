//! How long the system itself takes to tell of a death.

use crate::Medium;
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Seconds from SIGKILL until the kernel says so: on a handle of the process, or at the other end of its connection.
pub(crate) fn death(medium: Medium) -> Result<f64> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen")?;
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    let command = command.args(["--hold", &listener.local_addr()?.to_string()]).stdin(Stdio::null());
    let mut child = command.spawn().context("cannot start this program again")?;
    let (mut stream, _) = listener.accept()?;
    // It has said that it is there.
    stream.read_exact(&mut [0])?;
    let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let killed = Instant::now();
    child.kill()?;
    match medium {
        Medium::Shm => drop(poll(&mut [PollFd::new(&handle, PollFlags::IN)], None)?),
        // An end or an error: both tell.
        Medium::Tcp => drop(stream.read(&mut [0])),
    }
    let took = killed.elapsed().as_secs_f64();
    child.wait()?;
    Ok(took)
}

/// Holds a connection to `address` until it is closed, and computes meanwhile, as a node does: a process that is killed
/// needs the processor to die.
pub(crate) fn hold(address: &str) -> Result<()> {
    std::thread::spawn(|| {
        loop {
            std::hint::spin_loop();
        }
    });
    let mut stream = TcpStream::connect(address)?;
    std::io::Write::write_all(&mut stream, &[1])?;
    let _ = stream.read(&mut [0]);
    Ok(())
}
