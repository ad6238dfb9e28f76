//! Machines of their own, as far as the network can tell: network namespaces on one switch.

use anyhow::{Context, Result, bail};
use std::process::Command;

/// Machines on one switch, each with one cable. Dropping it removes them.
///
/// It takes root and the program `ip`.
pub struct Network {
    name: String,
    nodes: u32,
}

impl Network {
    /// So many machines.
    ///
    /// # Errors
    /// If they cannot be had: the message says why.
    pub fn new(nodes: u32) -> Result<Self> {
        let network = Self { name: format!("kf{}", std::process::id()), nodes };
        network.build()?;
        Ok(network)
    }

    fn build(&self) -> Result<()> {
        let hub = self.hub();
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link add switch type bridge"))?;
        ip(&format!("-n {hub} link set switch up"))?;
        for node in 0..self.nodes {
            let machine = self.machine(node);
            ip(&format!("netns add {machine}"))?;
            ip(&format!("-n {hub} link add port{node} type veth peer name cable netns {machine}"))?;
            ip(&format!("-n {hub} link set port{node} master switch up"))?;
            ip(&format!("-n {machine} address add {}/24 dev cable", self.address(node)))?;
            ip(&format!("-n {machine} link set cable up"))?;
            ip(&format!("-n {machine} link set lo up"))?;
        }
        Ok(())
    }

    fn hub(&self) -> String {
        format!("{}hub", self.name)
    }

    fn machine(&self, node: u32) -> String {
        format!("{}n{node}", self.name)
    }

    /// A machine's address.
    pub fn address(&self, node: u32) -> String {
        format!("10.77.0.{}", node + 1)
    }

    /// A command that runs a program on a machine.
    pub fn command(&self, node: u32, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.machine(node), program]);
        command
    }

    /// Pulls a machine's cable out of the switch, or puts it in again.
    ///
    /// # Errors
    /// If the tool fails.
    pub fn plug(&self, node: u32, state: &str) -> Result<()> {
        ip(&format!("-n {} link set port{node} {state}", self.hub()))
    }

    /// Makes a machine's line slow in both directions: `20mbit`.
    ///
    /// # Errors
    /// If the kernel has no such queue.
    pub fn slow_down(&self, node: u32, rate: &str) -> Result<()> {
        for (place, device) in [(self.hub(), format!("port{node}")), (self.machine(node), "cable".to_owned())] {
            let words = format!("-n {place} qdisc add dev {device} root tbf rate {rate} burst 32kb latency 100ms");
            tool("tc", &words)?;
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for node in 0..self.nodes {
            let _ = ip(&format!("netns delete {}", self.machine(node)));
        }
        let _ = ip(&format!("netns delete {}", self.hub()));
    }
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
