//! The threaded endpoints obey the transport laws, with perfect links and with rough ones.

use kronfleet_conformance::transport::{Fabric, Promise};
use kronfleet_core::seed::Seed;
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::endpoint::{LossyEndpoint, LossyNetwork};
use kronfleet_lossy::link::LinkOptions;
use kronfleet_lossy::network::NetworkOptions;
use std::time::Duration;

/// Networks of these links, each with a seed of its own.
struct Lossy {
    link: LinkOptions,
    reports: bool,
    ordered: bool,
    made: u64,
}

impl Lossy {
    fn new(link: &str, reports: bool, ordered: bool) -> Self {
        Self { link: link.parse().unwrap(), reports, ordered, made: 0 }
    }
}

impl Fabric for Lossy {
    type End = LossyEndpoint;

    fn connect(&mut self, nodes: u32) -> Vec<LossyEndpoint> {
        self.made += 1;
        let mut options = NetworkOptions::new(nodes, Seed(self.made));
        options.link = self.link.clone();
        options.reports = self.reports;
        let network = LossyNetwork::new(options);
        (0..nodes).map(|node| network.endpoint(NodeId(node))).collect()
    }

    fn promise(&self) -> Promise {
        Promise {
            loss: self.link.loss,
            duplicate: self.link.duplicate,
            ordered: self.ordered,
            reports: self.reports,
            settle: Duration::from_millis(500),
        }
    }
}

mod perfect {
    kronfleet_conformance::transport_laws!(super::Lossy::new("capacity=100000,max-frame=4000", true, true));
}

mod rough {
    kronfleet_conformance::transport_laws!(super::Lossy::new(
        "loss=0.1,duplicate=0.05,reorder=0.2,hold=2ms,latency=1ms,jitter=500us,capacity=100000,max-frame=1500",
        false,
        false
    ));
}

mod narrow {
    kronfleet_conformance::transport_laws!(super::Lossy::new(
        "bandwidth=3000000,capacity=40000,max-frame=1000",
        true,
        true
    ));
}
