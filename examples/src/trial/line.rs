//! What a line carries without any protocol: the floor of whatever goes over it.

use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Listens at `address` and gives the first that dials so many bytes.
///
/// # Errors
/// If nobody can be listened to, or the connection breaks.
pub fn serve(address: &str, bytes: usize) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen at {address}"))?;
    println!("listening");
    let (mut stream, _) = listener.accept()?;
    let block = [7; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(block.len());
        stream.write_all(&block[..now])?;
        left -= now;
    }
    Ok(())
}

/// Dials `address` and takes everything; answers how long that took from the first byte to the last, and the bytes.
///
/// # Errors
/// If nobody answers, or the connection breaks.
pub fn fetch(address: &str) -> Result<(Duration, usize)> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("nobody answers at {address}"))?;
    let mut block = vec![0; 64 << 10];
    let mut bytes = stream.read(&mut block)?;
    let began = Instant::now();
    loop {
        match stream.read(&mut block)? {
            0 => return Ok((began.elapsed(), bytes)),
            read => bytes += read,
        }
    }
}
