//! Wires that can be cut, stopped and listened to.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Passes on everything between whoever dials it and a target.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    target: Mutex<Option<SocketAddr>>,
    wires: Mutex<Vec<TcpStream>>,
    stopped: AtomicBool,
    over: AtomicBool,
    /// What the dialling ends have said, in the order of their connections.
    said: Mutex<Vec<Vec<u8>>>,
}

impl Proxy {
    pub(crate) fn new(target: Option<SocketAddr>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        *shared.target.lock().unwrap() = target;
        let inside = shared.clone();
        thread::spawn(move || {
            for dialled in listener.incoming().map_while(Result::ok) {
                if inside.over.load(Ordering::Acquire) {
                    return;
                }
                let target = *inside.target.lock().unwrap();
                if let Some(Ok(target)) = target.map(TcpStream::connect) {
                    let connection = {
                        let mut said = inside.said.lock().unwrap();
                        said.push(Vec::new());
                        said.len() - 1
                    };
                    inside.pass(&dialled, &target, Some(connection));
                    inside.pass(&target, &dialled, None);
                }
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, dials lead there.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap() = Some(target);
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        for wire in self.shared.wires.lock().unwrap().drain(..) {
            let _ = wire.shutdown(Shutdown::Both);
        }
    }

    /// Lets nothing through any more, and says nothing about it.
    pub(crate) fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Release);
    }

    /// What the end that dialled as `connection` has said so far.
    pub(crate) fn said(&self, connection: usize) -> Vec<u8> {
        self.shared.said.lock().unwrap()[connection].clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.cut();
        // Wakes the listener's thread, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// Passes on what comes from `from`, on a thread that ends with the connection.
    fn pass(self: &Arc<Self>, from: &TcpStream, to: &TcpStream, record: Option<usize>) {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        self.wires.lock().unwrap().push(from.try_clone().unwrap());
        from.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let shared = self.clone();
        thread::spawn(move || {
            let mut bytes = vec![0; 64 << 10];
            while !shared.over.load(Ordering::Acquire) {
                if shared.stopped.load(Ordering::Acquire) {
                    // A wire that carries nothing; the ends are told only when the test is over.
                    thread::park_timeout(Duration::from_millis(20));
                    continue;
                }
                match from.read(&mut bytes) {
                    Ok(0) => break,
                    Ok(count) => {
                        if let Some(connection) = record {
                            shared.said.lock().unwrap()[connection].extend(&bytes[..count]);
                        }
                        if to.write_all(&bytes[..count]).is_err() {
                            break;
                        }
                    }
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(_) => break,
                }
            }
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
}
