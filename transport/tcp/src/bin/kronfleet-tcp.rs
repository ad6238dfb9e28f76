//! Certificates for a run, and a look at a run from outside.

use anyhow::{Context, Result, bail};
use clap::{Args, Parser};
use kronfleet_core::cluster::RunId;
use kronfleet_core::transport::{Event, NodeId, Transport};
use kronfleet_tcp::certificates::Authority;
use kronfleet_tcp::tls::Identity;
use kronfleet_tcp::{Options, TcpEndpoint};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Tools for kronfleet over TCP.
#[derive(Parser)]
#[command(version)]
enum Tool {
    /// Make a run's authority and the certificates of its nodes.
    ///
    /// Give every node the folder with ca.pem, its own certificate and its own key (n3.pem and n3-key.pem for node 3),
    /// and nothing else.
    Certificates(Certificates),
    /// Join a run as a silent node, and tell who comes and goes.
    Probe(Probe),
}

#[derive(Args)]
struct Certificates {
    /// The run; nodes of other runs are refused.
    #[arg(long)]
    run: u64,
    /// How many nodes, numbered from 0.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    nodes: u32,
    /// Days until the certificates expire, at most ten years.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
    /// Keep the authority's private key too; whoever reads it can make nodes of this run.
    #[arg(long)]
    keep_authority: bool,
    /// The folder to write to.
    #[arg(long, default_value = "certificates")]
    output: PathBuf,
}

#[derive(Args)]
struct Probe {
    /// The run.
    #[arg(long)]
    run: u64,
    /// This node's number; not that of a node that takes part.
    #[arg(long)]
    node: u32,
    /// Addresses of nodes of the run; any one that is alive suffices.
    #[arg(long = "seed", required = true)]
    seeds: Vec<String>,
    /// Where to listen; without it, others are dialled only.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// The folder with ca.pem, certificate and key.
    #[arg(long)]
    tls: Option<PathBuf>,
    /// Allow other machines without certificates.
    #[arg(long)]
    insecure: bool,
    /// Seconds until it leaves; without it, it stays.
    #[arg(long)]
    seconds: Option<u64>,
}

fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match Tool::parse() {
        Tool::Certificates(settings) => certificates(&settings),
        Tool::Probe(settings) => probe(settings),
    }
}

fn certificates(settings: &Certificates) -> Result<()> {
    let Certificates { run, nodes, days, keep_authority, output } = settings;
    if output.join("ca.pem").exists() {
        bail!(
            "{} holds the certificates of an authority already, and its nodes trust no other: give --output another \
             folder, or remove that one and give every node its new files",
            output.display()
        );
    }
    let authority = Authority::new(RunId(*run), Duration::from_secs(days * 24 * 3600))?;
    authority.write(output, *nodes, *keep_authority)?;
    println!("certificates of {nodes} nodes, valid for {days} days: {}", output.display());
    Ok(())
}

fn probe(settings: Probe) -> Result<()> {
    let (run, node) = (RunId(settings.run), NodeId(settings.node));
    let identity = settings.tls.map(|folder| Identity::load(&folder, run, node)).transpose()?;
    let mut end = TcpEndpoint::open(Options {
        seeds: settings.seeds,
        listen: settings.listen,
        insecure: settings.insecure,
        identity,
        ..Options::new(run, node)
    })?;
    let deadline =
        settings.seconds.map_or(kronfleet_core::time::Instant::FAR, |seconds| end.now() + Duration::from_secs(seconds));
    let mut output = std::io::stdout().lock();
    while end.now() < deadline {
        let now = end.now();
        let soon = deadline.min(now + Duration::from_secs(3600));
        let mut told = Ok(());
        end.recv(soon, &mut |event| {
            told = match event {
                Event::Up(peer) => writeln!(output, "{now} {peer} up"),
                Event::Down(peer) => writeln!(output, "{now} {peer} down"),
                Event::Frame { from, bytes } => writeln!(output, "{now} {from} sends {} bytes", bytes.len()),
            };
        })?;
        told.and_then(|()| output.flush()).context("nobody reads what is told")?;
    }
    Ok(())
}
