//! The conventions of launchers: what each puts into the environment starts nodes that find each other.

use super::{Folder, TCP, result};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

/// A port that was free a moment ago; nodes of one launch have to agree on it beforehand.
fn port() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("an address").port().to_string()
}

/// Starts a process as the launcher would: with these variables and nothing else of launchers.
fn start(folder: &Folder, rank: u32, variables: &[(&str, &str)], flags: &[&str]) -> Child {
    let mut command = Command::new(TCP);
    for (name, _) in std::env::vars() {
        if ["KRONFLEET_", "SLURM_", "JOB_COMPLETION_INDEX", "RANK", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    let output = format!("--output={}", folder.path(&format!("node{rank}")));
    let small = ["--iterations=10", "--samples=200", "--batch=16", "--stall-budget=30s", "--quiet", "--json"];
    let command = command.args(small).args(flags).arg(output).envs(variables.iter().copied());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

/// Both nodes train together: they end with the same weights.
#[track_caller]
fn agree(launcher: &str, processes: [Child; 2]) {
    let results = processes.map(|process| result(&process.wait_with_output().expect("it ends")));
    assert!(results[0]["rounds_committed"].as_u64() >= Some(1), "{launcher}: {results:?}");
    assert!(results[0]["weights"].is_string(), "{launcher}: {results:?}");
    assert_eq!(results[0]["weights"], results[1]["weights"], "{launcher}: {results:?}");
}

#[test]
fn nodes_of_every_launcher_find_each_other() {
    let folder = Folder::new("launch");
    let ranks = ["0", "1"];
    let port0 = port();
    let address0 = format!("127.0.0.1:{port0}");
    let by_hand = [
        start(&folder, 0, &[], &["--nodes=2", "--node=0", "--listen", &address0]),
        start(&folder, 1, &[], &["--nodes=2", "--node=1", "--join", &address0]),
    ];
    agree("by hand", by_hand);

    let port1 = port();
    let torchrun = |rank: usize| {
        let rendezvous = [("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port1.as_str())];
        let place = [("RANK", ranks[rank]), ("WORLD_SIZE", "2")];
        start(&folder, rank as u32, &[place, rendezvous].concat(), &["--insecure"])
    };
    agree("torchrun", [torchrun(0), torchrun(1)]);

    let port2 = port();
    let slurm = |rank: usize| {
        let job = [("SLURM_NTASKS", "2"), ("SLURM_JOB_NODELIST", "localhost"), ("KRONFLEET_PORT", port2.as_str())];
        let task = [("SLURM_PROCID", ranks[rank]), ("SLURM_LOCALID", ranks[rank])];
        start(&folder, rank as u32, &[&job[..], &task[..]].concat(), &["--insecure"])
    };
    agree("Slurm", [slurm(0), slurm(1)]);

    let ports = [port(), port()];
    let seeds = ports.clone().map(|port| format!("127.0.0.1:{port}")).join(",");
    let kubernetes = |rank: usize| {
        let pod = format!("train-{rank}");
        let index = [("JOB_COMPLETION_INDEX", ranks[rank]), ("HOSTNAME", pod.as_str())];
        // The names of pods mean nothing here; a seed more stands for the cluster's name service.
        let manifest = [("KRONFLEET_NODES", "2"), ("KRONFLEET_SERVICE", "fleet"), ("KRONFLEET_SEEDS", seeds.as_str())];
        let variables = [&index[..], &manifest[..], &[("KRONFLEET_PORT", ports[rank].as_str())]].concat();
        start(&folder, rank as u32, &variables, &["--insecure"])
    };
    agree("Kubernetes", [kubernetes(0), kubernetes(1)]);
}
