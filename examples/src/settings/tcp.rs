//! Talking over TCP.

use super::line::Line;
use clap::Args;
use kronfleet_core::time::Duration;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Talking over TCP: with whom, where, and how safely.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "TCP")]
pub struct TcpSettings {
    /// Encrypt and authenticate; without --certificates, with certificates made for this run alone
    #[arg(long)]
    pub tls: bool,
    /// The folder with ca.pem and this node's certificate and key, made by `kronfleet-tcp certificates`
    #[arg(long, value_name = "FOLDER")]
    pub certificates: Option<PathBuf>,
    /// Start this many nodes on this machine, even under a launcher; without it --nodes of them, if there is none
    #[arg(long, value_name = "N", conflicts_with = "node", value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub spawn: Option<u32>,
    /// Which node this process is, for runs over several machines; otherwise all are started here
    #[arg(long, value_name = "N")]
    pub node: Option<u32>,
    /// Addresses (host:port) of nodes; any one that is alive suffices to join
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    pub join: Vec<String>,
    /// Where to listen; a free port of this machine's own unless set
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Where others reach this node, if that is not where it listens
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    pub advertise: Vec<SocketAddr>,
    /// Allow other machines without certificates: anybody may join, read and forge
    #[arg(long)]
    pub insecure: bool,
    /// Give each process a machine of its own, as far as the network can tell: how fast the line of each site to all others
    /// is, both ways, as 20Mb/s (bits) or 2.5MB/s (bytes); how many sites there are is --sites. Takes Linux, root, and the
    /// programs ip and tc
    #[arg(long, value_name = "SPEED", requires = "fast_link", conflicts_with = "node")]
    pub slow_link: Option<Line>,
    /// How fast the line of each process to the switch of its site is
    #[arg(long, value_name = "SPEED", requires = "slow_link")]
    pub fast_link: Option<Line>,
    /// How long making a connection may take, instead of what follows from --stall-budget
    #[arg(long, value_name = "SPAN", value_parser = super::span)]
    pub connect_timeout: Option<Duration>,
    /// After how long a silence a connection is given up and dialled anew, instead of what follows from --stall-budget
    #[arg(long, value_name = "SPAN", value_parser = super::span)]
    pub silence: Option<Duration>,
}
