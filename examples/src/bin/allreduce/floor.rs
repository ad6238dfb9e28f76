//! What a loopback connection carries when both ends send and receive at once, each on the core that a member of the
//! all-reduce has.

use crate::measurement::repetitions;
use crate::place::bind_to_core_of;
use anyhow::Result;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

/// Bytes per system call.
const PORTION: usize = 256 << 10;

/// Seconds in which each end of a connection has sent and received so many bytes, at once.
pub(crate) fn loopback(bytes: usize) -> Result<Vec<f64>> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let one = TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    let times = repetitions(bytes) + 2;
    let end = &|mut socket: TcpStream, node: u32| -> Result<Vec<f64>> {
        bind_to_core_of(node, 2)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let (source, mut target) = (vec![1; PORTION], vec![0; PORTION]);
        let mut seconds = Vec::new();
        for _ in 0..times {
            // They begin together, and a failure of either end is seen by the other.
            exchange(&mut socket, 1, &source, &mut target)?;
            let began = Instant::now();
            exchange(&mut socket, bytes, &source, &mut target)?;
            seconds.push(began.elapsed().as_secs_f64());
        }
        Ok(seconds.split_off(2))
    };
    std::thread::scope(|scope| {
        // On threads of their own: this one is bound to no core afterwards.
        let ends = [one, other].into_iter().zip(0..).map(|(socket, node)| scope.spawn(move || end(socket, node)));
        let threads: Vec<_> = ends.collect();
        let mut seconds = Vec::new();
        for thread in threads {
            seconds.push(thread.join().expect("sockets do not panic")?);
        }
        let [here, there] = <[Vec<f64>; 2]>::try_from(seconds).expect("two ends");
        Ok(here.into_iter().zip(there).map(|(here, there)| here.max(there)).collect())
    })
}

fn exchange(socket: &mut TcpStream, bytes: usize, source: &[u8], target: &mut [u8]) -> Result<()> {
    let (mut sent, mut received) = (0, 0);
    while sent < bytes || received < bytes {
        let mut idle = true;
        if sent < bytes {
            let portion = PORTION.min(bytes - sent);
            sent += progress(socket.write(&source[..portion]), &mut idle)?;
        }
        if received < bytes {
            let portion = PORTION.min(bytes - received);
            received += progress(socket.read(&mut target[..portion]), &mut idle)?;
        }
        if idle {
            std::thread::yield_now();
        }
    }
    Ok(())
}

fn progress(outcome: std::io::Result<usize>, idle: &mut bool) -> Result<usize> {
    match outcome {
        Ok(count) => {
            *idle = false;
            Ok(count)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        Err(error) => Err(error.into()),
    }
}
