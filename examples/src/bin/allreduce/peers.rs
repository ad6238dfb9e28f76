//! The all-reduces of others, if they are installed.

use crate::measurement::Measurements;
use crate::{Arguments, Medium};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const MPI: &str = include_str!("../../../peers/allreduce_mpi.c");
const GLOO: &str = include_str!("../../../peers/allreduce_gloo.py");

/// Open MPI's turn, over the same medium.
pub(crate) fn mpi(arguments: &Arguments, measured: &mut Measurements) {
    let medium: &[&str] = match arguments.transport {
        Medium::Shm => &["--mca", "btl", "self,vader"],
        Medium::Tcp => &["--mca", "btl", "self,tcp", "--mca", "btl_tcp_if_include", "lo"],
        #[cfg(feature = "mpi")]
        // What it chooses by itself, as ours lets it.
        Medium::Mpi => &[],
        Medium::Lossy => return measured.skip("mpi", "it has no threads that play nodes".into()),
    };
    turn("mpi", measured, |folder| {
        let (source, program) = (folder.join("allreduce_mpi.c"), folder.join("allreduce_mpi"));
        fs::write(&source, MPI)?;
        let mut compiler = Command::new("mpicc");
        output(compiler.arg("-O2").arg(&source).arg("-o").arg(&program), "mpicc (Debian: libopenmpi-dev openmpi-bin)")?;
        let mut starter = Command::new("mpirun");
        // Containers run as root; more ranks than cores are asked for on purpose.
        starter.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        starter.args(["--oversubscribe", "-np", &arguments.processes.to_string()]).args(medium).arg(&program);
        starter.args(arguments.sizes.iter().map(usize::to_string));
        output(&mut starter, "mpirun (Debian: openmpi-bin)")
    });
}

/// Gloo's turn; it has no shared memory.
pub(crate) fn gloo(arguments: &Arguments, measured: &mut Measurements) {
    if arguments.transport != Medium::Tcp {
        return measured.skip("gloo", "it has TCP only".into());
    }
    turn("gloo", measured, |folder| {
        let script = folder.join("allreduce_gloo.py");
        fs::write(&script, GLOO)?;
        let python = &arguments.python;
        let has_torch = Command::new(python).args(["-c", "import torch.distributed"]).output();
        let hint = "give a Python that has torch with --python";
        ensure!(has_torch.is_ok_and(|tried| tried.status.success()), "{} has no torch; {hint}", python.display());
        // Free a moment ago; torch takes no listening socket.
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut children = Vec::new();
        for rank in 0..arguments.processes {
            let mut command = Command::new(python);
            command.arg(&script).args(arguments.sizes.iter().map(usize::to_string));
            command.env("RANK", rank.to_string()).env("WORLD_SIZE", arguments.processes.to_string());
            command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
            command.env("GLOO_SOCKET_IFNAME", "lo").env("OMP_NUM_THREADS", "1");
            children.push(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
        }
        let outputs: Vec<_> = children.into_iter().map(std::process::Child::wait_with_output).collect();
        let mut text = String::new();
        for output in outputs {
            text += &succeeded(output?, "Gloo")?;
        }
        Ok(text)
    });
}

/// Runs a contestant and takes in its lines; one that cannot take part is not asked again.
fn turn(name: &str, measured: &mut Measurements, run: impl FnOnce(&Path) -> Result<String>) {
    if measured.is_skipped(name) {
        return;
    }
    let lines = || {
        let folder = tempfile::tempdir()?;
        run(folder.path())?.lines().map(parse).collect::<Result<Vec<_>>>()
    };
    match lines() {
        Ok(lines) => lines.into_iter().for_each(|(bytes, seconds)| measured.add(name, bytes, seconds)),
        Err(error) => measured.skip(name, format!("{error:#}")),
    }
}

/// The bytes, then the seconds of every repetition.
fn parse(line: &str) -> Result<(usize, Vec<f64>)> {
    let mut words = line.split_whitespace();
    let bytes = words.next().and_then(|word| word.parse().ok()).with_context(|| format!("{line:?} has no size"))?;
    let seconds: Vec<f64> = words.map(str::parse).collect::<Result<_, _>>().with_context(|| format!("{line:?}"))?;
    if seconds.is_empty() {
        bail!("{line:?} has no times");
    }
    Ok((bytes, seconds))
}

fn output(command: &mut Command, what: &str) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {what}"))?;
    succeeded(output, what)
}

fn succeeded(output: Output, what: &str) -> Result<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        let said = text(&output.stderr);
        let last: Vec<&str> = said.lines().rev().take(3).collect();
        bail!("{what} failed ({}): {}", output.status, last.into_iter().rev().collect::<Vec<_>>().join(" / "));
    }
    Ok(text(&output.stdout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_size_and_times() {
        assert_eq!(parse("4096 0.5 0.25").expect("a line"), (4096, vec![0.5, 0.25]));
        for bad in ["", "4096", "x 1", "4096 1 x"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
