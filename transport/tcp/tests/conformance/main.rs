//! TCP ends obey the transport laws, in the clear and under TLS.

mod fleet;
mod hostile;
mod life;
mod proxy;
mod security;

use fleet::{Fleet, Security};
use kronfleet_conformance::transport::{Fabric, Promise};
use kronfleet_tcp::TcpEndpoint;
use std::time::Duration;

/// Fleets on this machine.
struct Loopback(Security);

impl Fabric for Loopback {
    type End = TcpEndpoint;

    fn connect(&mut self, nodes: u32) -> Vec<TcpEndpoint> {
        let fleet = Fleet::new(self.0);
        let mut ends = fleet.open(nodes);
        fleet::meet(&mut ends);
        ends
    }

    fn promise(&self) -> Promise {
        Promise { settle: Duration::from_millis(500), ..Promise::RELIABLE }
    }
}

mod plain {
    kronfleet_conformance::transport_laws!(super::Loopback(super::Security::Plain));
}

mod tls {
    kronfleet_conformance::transport_laws!(super::Loopback(super::Security::Tls));
}
