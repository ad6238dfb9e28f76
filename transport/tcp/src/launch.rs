//! Which node of which run this process is, as whoever started it says.
//!
//! # For users
//! [`Launch::detect`] reads the environment; flags of a program's own come first and are the program's matter. In this
//! order, the first whose variables are there counts:
//!
//! | convention | this node, nodes | where to join |
//! |---|---|---|
//! | own | `KRONFLEET_NODE`, `KRONFLEET_NODES` | `KRONFLEET_SEEDS`, addresses with commas between |
//! | torchrun | `RANK`, `WORLD_SIZE` | `MASTER_ADDR`, `MASTER_PORT`: rank 0 listens there |
//! | Kubernetes, indexed job | `JOB_COMPLETION_INDEX`, `KRONFLEET_NODES` | pods `JOB-INDEX.KRONFLEET_SERVICE`, JOB from `HOSTNAME` |
//! | Slurm | `SLURM_PROCID`, `SLURM_NTASKS` | the hosts of `SLURM_JOB_NODELIST` |
//!
//! `KRONFLEET_PORT` (29400 unless set) is the port of the last two, plus the task's number on its host. More seeds from
//! `KRONFLEET_SEEDS` are added in any case: with torchrun alone, only rank 0 is known from the start.

mod hostlist;

pub use hostlist::{HostListError, expand};

use kronfleet_core::transport::NodeId;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The port unless another is set.
pub const PORT: u16 = 29400;

/// Seeds that are taken from a list of hosts at most: any one that is alive suffices.
const MOST_SEEDS: usize = 16;

/// Who started this process, by its conventions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// The variables of this project.
    Own,
    /// PyTorch's launcher, and whatever sets the same variables.
    Torchrun,
    /// An indexed job.
    Kubernetes,
    /// `srun`.
    Slurm,
}

/// Which node this process is, and where it meets the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// How this is known.
    pub convention: Convention,
    /// This node.
    pub node: NodeId,
    /// How many there are.
    pub nodes: u32,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where others may be met.
    pub seeds: Vec<String>,
}

/// Why the environment makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// A variable is missing that belongs to others that are there.
    #[error("{name} is not set, although {because} is: {remedy}")]
    Missing {
        /// The variable.
        name: &'static str,
        /// What makes it necessary.
        because: &'static str,
        /// What helps.
        remedy: &'static str,
    },
    /// A variable is no number of the range it should be of.
    #[error("{name} is {value:?}, which is no number from {least} to {most}")]
    Number {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// The least that makes sense.
        least: u32,
        /// The most that makes sense.
        most: u32,
    },
    /// The list of hosts cannot be read.
    #[error("SLURM_JOB_NODELIST: {0}")]
    Hosts(#[from] HostListError),
    /// The name of the pod does not end with its index.
    #[error("HOSTNAME is {name:?}; the name of an indexed job's pod ends with -{index}: set KRONFLEET_SEEDS instead")]
    Pod {
        /// The name.
        name: String,
        /// The index.
        index: u32,
    },
}

impl Launch {
    /// What the environment says; `None` if it says nothing.
    ///
    /// # Errors
    /// If it says something that makes no sense.
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, LaunchError> {
        let read = Variables(&variable);
        let launch = if read.is_there("KRONFLEET_NODE") {
            own(&read)
        } else if read.is_there("RANK") && read.is_there("WORLD_SIZE") {
            torchrun(&read)
        } else if read.is_there("JOB_COMPLETION_INDEX") {
            kubernetes(&read)
        } else if read.is_there("SLURM_PROCID") {
            slurm(&read)
        } else {
            return Ok(None);
        };
        let mut launch = launch?;
        let named = variable("KRONFLEET_SEEDS").unwrap_or_default();
        let named = named.split(',').map(str::trim).filter(|seed| !seed.is_empty()).map(String::from);
        launch.seeds.extend(named);
        Ok(Some(launch))
    }

    /// What this process's environment says.
    ///
    /// # Errors
    /// If it says something that makes no sense.
    pub fn from_environment() -> Result<Option<Self>, LaunchError> {
        Self::detect(|name| std::env::var(name).ok())
    }
}

fn own(read: &Variables<'_>) -> Result<Launch, LaunchError> {
    let remedy = "say how many nodes there are";
    let nodes = read.number("KRONFLEET_NODES", "KRONFLEET_NODE", remedy, 1, u32::MAX)?;
    let node = NodeId(read.number("KRONFLEET_NODE", "KRONFLEET_NODE", "", 0, nodes - 1)?);
    let port = read.number_or("KRONFLEET_PORT", 0, 65535)?;
    Ok(Launch { convention: Convention::Own, node, nodes, listen: everywhere(port), seeds: Vec::new() })
}

fn torchrun(read: &Variables<'_>) -> Result<Launch, LaunchError> {
    let remedy = "start with torchrun, or set it to rank 0's host and port";
    let nodes = read.number("WORLD_SIZE", "RANK", remedy, 1, u32::MAX)?;
    let node = NodeId(read.number("RANK", "RANK", remedy, 0, nodes - 1)?);
    let host = read.text("MASTER_ADDR", "RANK", remedy)?;
    let port = read.number("MASTER_PORT", "RANK", remedy, 1, 65534)?;
    // The agent of torchrun listens at the port itself, for its own store.
    let taken = read.0("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let port = port + u32::from(taken);
    let listen = everywhere(if node == NodeId(0) { port } else { 0 });
    let seeds = if node == NodeId(0) { Vec::new() } else { vec![address(&host, port)] };
    Ok(Launch { convention: Convention::Torchrun, node, nodes, listen, seeds })
}

fn kubernetes(read: &Variables<'_>) -> Result<Launch, LaunchError> {
    let because = "JOB_COMPLETION_INDEX";
    let nodes = read.number("KRONFLEET_NODES", because, "set it to the job's completions", 1, u32::MAX)?;
    let index = read.number("JOB_COMPLETION_INDEX", because, "", 0, nodes - 1)?;
    let port = read.number_or("KRONFLEET_PORT", u32::from(PORT), 65535)?;
    let mut seeds = Vec::new();
    if let Some(service) = read.0("KRONFLEET_SERVICE") {
        let pod = read.text("HOSTNAME", "KRONFLEET_SERVICE", "it is the pod's name")?;
        let job = pod.strip_suffix(&format!("-{index}")).ok_or(LaunchError::Pod { name: pod.clone(), index })?;
        let others = (0..nodes).filter(|&other| other != index).take(MOST_SEEDS);
        seeds.extend(others.map(|other| address(&format!("{job}-{other}.{service}"), port)));
    }
    let (convention, node) = (Convention::Kubernetes, NodeId(index));
    Ok(Launch { convention, node, nodes, listen: everywhere(port), seeds })
}

fn slurm(read: &Variables<'_>) -> Result<Launch, LaunchError> {
    let because = "SLURM_PROCID";
    let nodes = read.number("SLURM_NTASKS", because, "start with srun", 1, u32::MAX)?;
    let node = NodeId(read.number("SLURM_PROCID", because, "", 0, nodes - 1)?);
    let hosts = expand(&read.text("SLURM_JOB_NODELIST", because, "start with srun")?)?;
    let port = read.number_or("KRONFLEET_PORT", u32::from(PORT), 65535)?;
    let local = read.number_or("SLURM_LOCALID", 0, 65535)?;
    // Every task listens; the first of each host is where the others look for it.
    let seeds = hosts.iter().take(MOST_SEEDS).map(|host| address(host, port)).collect();
    let own = port.checked_add(local).filter(|&own| own <= 65535).ok_or(LaunchError::Number {
        name: "KRONFLEET_PORT",
        value: port.to_string(),
        least: 1,
        most: 65535 - local,
    })?;
    Ok(Launch { convention: Convention::Slurm, node, nodes, listen: everywhere(own), seeds })
}

/// Where others reach a process that listens at `port` of this host.
fn everywhere(port: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), u16::try_from(port).expect("checked where it was read"))
}

fn address(host: &str, port: u32) -> String {
    // An address of version 6 has colons of its own.
    if host.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Variables of an environment.
struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    fn is_there(&self, name: &str) -> bool {
        (self.0)(name).is_some()
    }

    fn text(&self, name: &'static str, because: &'static str, remedy: &'static str) -> Result<String, LaunchError> {
        let value = (self.0)(name).filter(|value| !value.is_empty());
        value.ok_or(LaunchError::Missing { name, because, remedy })
    }

    fn number(
        &self,
        name: &'static str,
        because: &'static str,
        remedy: &'static str,
        least: u32,
        most: u32,
    ) -> Result<u32, LaunchError> {
        let value = self.text(name, because, remedy)?;
        let number = value.trim().parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or(LaunchError::Number { name, value, least, most })
    }

    fn number_or(&self, name: &'static str, otherwise: u32, most: u32) -> Result<u32, LaunchError> {
        if self.is_there(name) { self.number(name, name, "", 0, most) } else { Ok(otherwise) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(variables: &[(&str, &str)]) -> Result<Option<Launch>, LaunchError> {
        Launch::detect(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into()))
    }

    fn launch(convention: Convention, node: u32, nodes: u32, listen: &str, seeds: &[&str]) -> Launch {
        let seeds = seeds.iter().map(|seed| (*seed).into()).collect();
        Launch { convention, node: NodeId(node), nodes, listen: listen.parse().unwrap(), seeds }
    }

    #[test]
    fn nothing_is_said_by_nothing() {
        assert_eq!(detect(&[("PATH", "/bin"), ("KRONFLEET_SEEDS", "a:1")]), Ok(None));
    }

    #[test]
    fn own_variables() {
        let variables = [("KRONFLEET_NODE", "2"), ("KRONFLEET_NODES", "3"), ("KRONFLEET_SEEDS", "a:1, b:2,")];
        let expected = launch(Convention::Own, 2, 3, "0.0.0.0:0", &["a:1", "b:2"]);
        assert_eq!(detect(&variables), Ok(Some(expected.clone())));
        // They come before all others.
        let both = [&variables[..], &[("RANK", "0"), ("WORLD_SIZE", "9")]].concat();
        assert_eq!(detect(&both), Ok(Some(expected)));
    }

    #[test]
    fn torchrun_as_it_sets_them() {
        let rank =
            |rank| vec![("RANK", rank), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "10.0.0.1"), ("MASTER_PORT", "29500")];
        let first = launch(Convention::Torchrun, 0, 4, "0.0.0.0:29500", &[]);
        assert_eq!(detect(&rank("0")), Ok(Some(first)));
        let other = launch(Convention::Torchrun, 3, 4, "0.0.0.0:0", &["10.0.0.1:29500"]);
        assert_eq!(detect(&rank("3")), Ok(Some(other)));
        let mut under_an_agent = rank("3");
        under_an_agent.push(("TORCHELASTIC_USE_AGENT_STORE", "True"));
        assert_eq!(detect(&under_an_agent).unwrap().unwrap().seeds, ["10.0.0.1:29501"]);
        let mut six = rank("3");
        six[2].1 = "fd00::1";
        assert_eq!(detect(&six).unwrap().unwrap().seeds, ["[fd00::1]:29500"]);
    }

    #[test]
    fn slurm_as_it_sets_them() {
        let variables = [
            ("SLURM_PROCID", "5"),
            ("SLURM_NTASKS", "6"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_JOB_NODELIST", "gpu[01-02,07]"),
        ];
        let seeds = ["gpu01:29400", "gpu02:29400", "gpu07:29400"];
        let expected = launch(Convention::Slurm, 5, 6, "0.0.0.0:29401", &seeds);
        assert_eq!(detect(&variables), Ok(Some(expected)));
        let moved = [&variables[..], &[("KRONFLEET_PORT", "4000")]].concat();
        assert_eq!(detect(&moved).unwrap().unwrap().seeds[0], "gpu01:4000");
    }

    #[test]
    fn kubernetes_as_it_sets_them() {
        let variables = [
            ("JOB_COMPLETION_INDEX", "1"),
            ("HOSTNAME", "train-1"),
            ("KRONFLEET_NODES", "3"),
            ("KRONFLEET_SERVICE", "fleet"),
        ];
        let seeds = ["train-0.fleet:29400", "train-2.fleet:29400"];
        let expected = launch(Convention::Kubernetes, 1, 3, "0.0.0.0:29400", &seeds);
        assert_eq!(detect(&variables), Ok(Some(expected)));
        let renamed = [&[("HOSTNAME", "somebody")], &variables[..]].concat();
        assert_eq!(detect(&renamed), Err(LaunchError::Pod { name: "somebody".into(), index: 1 }));
    }

    #[test]
    fn what_makes_no_sense_is_said_with_the_remedy() {
        let missing = detect(&[("JOB_COMPLETION_INDEX", "0")]).unwrap_err();
        assert!(missing.to_string().contains("KRONFLEET_NODES"), "{missing}");
        let beyond = detect(&[("KRONFLEET_NODE", "3"), ("KRONFLEET_NODES", "3")]).unwrap_err();
        assert_eq!(beyond, LaunchError::Number { name: "KRONFLEET_NODE", value: "3".into(), least: 0, most: 2 });
        let none = detect(&[("KRONFLEET_NODE", "0"), ("KRONFLEET_NODES", "0")]).unwrap_err();
        assert!(matches!(none, LaunchError::Number { .. }));
        let hosts = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "1"), ("SLURM_JOB_NODELIST", "a[1")];
        assert!(matches!(detect(&hosts), Err(LaunchError::Hosts(_))));
        let port = [&hosts[..2], &[("SLURM_JOB_NODELIST", "a"), ("KRONFLEET_PORT", "65536")]].concat();
        assert!(matches!(detect(&port), Err(LaunchError::Number { name: "KRONFLEET_PORT", .. })));
        let last = [&hosts[..2], &[("SLURM_JOB_NODELIST", "a"), ("KRONFLEET_PORT", "65535"), ("SLURM_LOCALID", "1")]];
        assert!(matches!(detect(&last.concat()), Err(LaunchError::Number { name: "KRONFLEET_PORT", .. })));
    }
}
