//! Placements by the clock: members as processes, over a transport.

use crate::Medium;
use crate::link::Link;
use crate::member::{Place, Said, Seen, carried_out};
use crate::rate::Rate;
use crate::rates::Rates;
use anyhow::{Context, Result, bail, ensure};
use kronfleet_core::placement::Machine;
use kronfleet_core::preconditioner::Form;
use kronfleet_examples::report::{Align, Table};
use kronfleet_examples::trial::{Network, Worker};
use serde::Serialize;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    pub(crate) medium: Medium,
    /// What each member's line is held to, over TCP.
    pub(crate) rate: Option<Rate>,
    pub(crate) model: String,
    pub(crate) members: usize,
    pub(crate) batch: usize,
    pub(crate) share: f64,
    pub(crate) inverse_every: u64,
    pub(crate) periods: u64,
    pub(crate) rates: Rates,
}

/// What it came to; milliseconds per step, each at the member with most.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) model: String,
    pub(crate) members: usize,
    pub(crate) medium: String,
    pub(crate) placement: String,
    /// By the clock on the wall.
    pub(crate) milliseconds: f64,
    /// Of the processor, outside exchanges.
    pub(crate) computing: f64,
    /// Of the processor, within exchanges.
    pub(crate) sending: f64,
    /// By the clock on the wall within exchanges, waiting included.
    pub(crate) exchanging: f64,
    /// Bytes of values that travelled in a step, all members together, gradients included: as many as planned.
    pub(crate) bytes: f64,
    /// Bytes of buffers that the backend allocated in all, those that were given back meanwhile included.
    pub(crate) buffers: u64,
}

impl Course {
    /// Model, members and medium in words.
    pub(crate) fn title(&self) -> String {
        format!("{}, {} processes, {}", self.model, self.members, self.over())
    }

    fn over(&self) -> String {
        match (self.medium, self.rate) {
            (Medium::Shm, _) => "shared memory".to_owned(),
            (Medium::Tcp, None) => "TCP".to_owned(),
            (Medium::Tcp, Some(rate)) => format!("TCP at {rate}"),
        }
    }

    /// What SPD-KFAC divides its work by: inversions as measured, and the line.
    fn machine(&self) -> Machine {
        let machine = self.rates.machine(Form::Inverse);
        match (self.medium, self.rate) {
            (Medium::Tcp, Some(rate)) => Machine { bandwidth: rate.bytes(), latency: 100e-6, ..machine },
            _ => Link::HundredGigabit.behind(machine),
        }
    }

    /// Measures every published placement in turn, as long as `shown` says so.
    ///
    /// # Errors
    /// If a member fails, bytes travelled that were not planned, or `shown` says that it is enough.
    pub(crate) fn measure(
        &self,
        network: Option<&Network>,
        mut shown: impl FnMut(&Measured) -> bool,
    ) -> Result<Vec<Measured>> {
        let mut all = Vec::new();
        for (number, (name, ..)) in carried_out(self.share).into_iter().enumerate() {
            let seen = self.group(number, network).with_context(|| format!("{}, {name}", self.title()))?;
            let steps = (self.periods * self.inverse_every) as f64;
            let bytes: u64 = seen.iter().map(|seen| seen.bytes).sum();
            let planned = self.periods * seen[0].planned;
            ensure!(bytes == planned, "{name}: {bytes} bytes travelled, planned were {planned}");
            let most = |of: fn(&Seen) -> f64| 1e3 * seen.iter().map(of).fold(0.0, f64::max) / steps;
            let measured = Measured {
                model: self.model.clone(),
                members: self.members,
                medium: self.over(),
                placement: name,
                milliseconds: most(|seen| seen.wall),
                computing: most(|seen| seen.computing),
                sending: most(|seen| seen.sending),
                exchanging: most(|seen| seen.exchanging),
                bytes: bytes as f64 / steps,
                buffers: seen.iter().map(|seen| seen.buffers).max().unwrap_or(0),
            };
            let go_on = shown(&measured);
            all.push(measured);
            ensure!(go_on, "stopped");
        }
        Ok(all)
    }

    /// Starts the members as processes, and hears what they saw.
    fn group(&self, number: usize, network: Option<&Network>) -> Result<Vec<Seen>> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let mut place = Place {
            medium: self.medium,
            model: self.model.clone(),
            node: 0,
            members: self.members,
            session: format!("placements-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)),
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            seed: None,
            number,
            share: self.share,
            batch: self.batch,
            inverse_every: self.inverse_every,
            periods: self.periods,
            machine: self.machine(),
        };
        let program = std::env::current_exe()?;
        let program = program.to_str().context("this program's path is not UTF-8")?;
        let mut members: Vec<Worker<Said>> = Vec::new();
        for node in 0..self.members {
            place.node = node;
            let mut command = match network {
                Some(network) => {
                    place.listen = network.address(node as u32).parse()?;
                    network.command(node as u32, program)
                }
                None => Command::new(program),
            };
            command.args(["--member", &serde_json::to_string(&place)?]);
            let member = Worker::start(command)?;
            if self.medium == Medium::Tcp {
                let Said::Address(address) = member.hear()? else {
                    bail!("a member that does not say where it listens")
                };
                place.seed.get_or_insert(address);
            }
            members.push(member);
        }
        let seen = members.iter().map(|member: &Worker<Said>| -> Result<Seen> {
            match member.hear()? {
                Said::Seen(seen) => Ok(seen),
                Said::Address(address) => bail!("a member that listens at {address} too"),
            }
        });
        let seen = seen.collect::<Result<Vec<Seen>>>()?;
        members.iter_mut().for_each(Worker::release);
        members.iter_mut().try_for_each(Worker::wait)?;
        Ok(seen)
    }
}

/// So many machines on one switch, their lines held to this rate in both directions.
///
/// # Errors
/// If they cannot be had here: the message says why.
pub(crate) fn network(members: usize, rate: Rate) -> Result<Network> {
    let network = Network::new(members as u32)?;
    (0..members as u32).try_for_each(|node| network.slow_down(node, None, &rate.to_string()))?;
    Ok(network)
}

/// A table of what was measured.
pub(crate) fn table(measured: &[Measured]) -> Table {
    let mut table = Table::new(&[
        ("placement", Align::Left),
        ("step", Align::Right),
        ("computing", Align::Right),
        ("sending", Align::Right),
        ("exchanging", Align::Right),
        ("travels in a step", Align::Right),
        ("allocated in all", Align::Right),
    ]);
    for line in measured {
        table.row([
            line.placement.clone(),
            format!("{:.1} ms", line.milliseconds),
            format!("{:.1} ms", line.computing),
            format!("{:.1} ms", line.sending),
            format!("{:.1} ms", line.exchanging),
            format!("{:.2} MB", line.bytes / 1e6),
            format!("{:.1} MB", line.buffers as f64 / 1e6),
        ]);
    }
    table
}

/// Everything that was measured, a line for each placement.
pub(crate) fn csv<'a>(measured: impl IntoIterator<Item = &'a Measured>) -> String {
    let mut text = String::from(
        "model,members,medium,placement,step_ms,computing_ms,sending_ms,exchanging_ms,bytes_per_step,buffer_bytes\n",
    );
    for line in measured {
        let _ = write!(text, "{},{},{},{}", line.model, line.members, line.medium, line.placement.replace(',', ""));
        for value in [line.milliseconds, line.computing, line.sending, line.exchanging] {
            let _ = write!(text, ",{value:.3}");
        }
        let _ = writeln!(text, ",{},{}", line.bytes, line.buffers);
    }
    text
}
