//! Machines of their own, as far as the network can tell: network namespaces behind switches.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

/// Machines on switches, each with one cable. Dropping it removes them.
///
/// It takes root and the program `ip`.
pub struct Network {
    name: String,
    nodes: u32,
    sites: u32,
}

impl Network {
    /// So many machines on one switch.
    ///
    /// # Errors
    /// If they cannot be had: the message says why.
    pub fn new(nodes: u32) -> Result<Self> {
        let network = Self::begin(nodes, 0)?;
        (0..nodes).try_for_each(|node| network.connect(node, &network.hub()))?;
        Ok(network)
    }

    /// Sites, each with a switch for its machines; one cable goes from there to a switch of all.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_sites(sites: &[Vec<u32>]) -> Result<Self> {
        let network = Self::begin(sites.iter().map(|nodes| nodes.len() as u32).sum(), sites.len() as u32)?;
        for (site, nodes) in (0..).zip(sites) {
            let (hub, place) = (network.hub(), network.site(site));
            switch(&place)?;
            ip(&format!("-n {hub} link add site{site} type veth peer name uplink netns {place}"))?;
            ip(&format!("-n {hub} link set site{site} master switch up"))?;
            ip(&format!("-n {place} link set uplink master switch up"))?;
            nodes.iter().try_for_each(|&node| network.connect(node, &place))?;
        }
        Ok(network)
    }

    fn begin(nodes: u32, sites: u32) -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        // The address's last number.
        if nodes > 254 {
            bail!("{nodes} machines are too many for one network: 254 at most");
        }
        let name = format!("kf{}x{}", process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let network = Self { name, nodes, sites };
        switch(&network.hub())?;
        Ok(network)
    }

    /// Makes a machine and connects it.
    fn connect(&self, node: u32, place: &str) -> Result<()> {
        let machine = self.machine(node);
        ip(&format!("netns add {machine}"))?;
        ip(&format!("-n {place} link add port{node} type veth peer name cable netns {machine}"))?;
        ip(&format!("-n {place} link set port{node} master switch up"))?;
        ip(&format!("-n {machine} address add {}/24 dev cable", self.address(node)))?;
        ip(&format!("-n {machine} link set cable up"))?;
        ip(&format!("-n {machine} link set lo up"))
    }

    fn hub(&self) -> String {
        format!("{}hub", self.name)
    }

    fn site(&self, site: u32) -> String {
        format!("{}s{site}", self.name)
    }

    fn machine(&self, node: u32) -> String {
        format!("{}n{node}", self.name)
    }

    /// A machine's address.
    pub fn address(&self, node: u32) -> String {
        format!("10.77.0.{}", node + 1)
    }

    /// A command that runs a program on a machine.
    pub fn command(&self, node: u32, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.machine(node)]).arg(program);
        command
    }

    /// Pulls a machine's cable out of the switch of all, or puts it in again.
    ///
    /// # Errors
    /// If the tool fails.
    pub fn plug(&self, node: u32, state: &str) -> Result<()> {
        ip(&format!("-n {} link set port{node} {state}", self.hub()))
    }

    /// Makes the line between a machine and its switch slow in both directions: `20mbit`. `place` is the machine's site, if
    /// there are any.
    ///
    /// # Errors
    /// If the kernel has no such queue.
    pub fn slow_down(&self, node: u32, site: Option<u32>, rate: &str) -> Result<()> {
        let place = site.map_or_else(|| self.hub(), |site| self.site(site));
        hold(&place, &format!("port{node}"), rate)?;
        hold(&self.machine(node), "cable", rate)
    }

    /// Makes the line between a site and the switch of all slow in both directions.
    ///
    /// # Errors
    /// As [`slow_down`](Self::slow_down).
    pub fn slow_down_site(&self, site: u32, rate: &str) -> Result<()> {
        hold(&self.hub(), &format!("site{site}"), rate)?;
        hold(&self.site(site), "uplink", rate)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let machines = (0..self.nodes).map(|node| self.machine(node));
        let sites = (0..self.sites).map(|site| self.site(site));
        for place in machines.chain(sites).chain([self.hub()]) {
            // One that was never made is none that is left.
            let _ = ip(&format!("netns delete {place}"));
        }
    }
}

/// Makes a place with a switch.
fn switch(place: &str) -> Result<()> {
    ip(&format!("netns add {place}"))?;
    ip(&format!("-n {place} link add switch type bridge"))?;
    ip(&format!("-n {place} link set switch up"))
}

/// Holds what leaves through a device to a rate.
fn hold(place: &str, device: &str, rate: &str) -> Result<()> {
    tool("tc", &format!("-n {place} qdisc add dev {device} root tbf rate {rate} burst 32kb latency 100ms"))
}

fn ip(words: &str) -> Result<()> {
    tool("ip", words)
}

fn tool(name: &str, words: &str) -> Result<()> {
    let run = Command::new(name).args(words.split(' ')).output();
    let output = run.with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        bail!("{name} {words}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
