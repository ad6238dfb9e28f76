//! Runs that are stopped anywhere and gone on with are the runs that never were.

use super::{Ending, Fleet, Keeper, Keeping, Workshop};
use crate::checkpoint::{Disk, Saved, Store};
use crate::settings::{
    AveragingSettings, KfacSettings, NetworkSettings, OptimiserSettings, OutputSettings, TaskSettings, describe,
};
use clap::{CommandFactory, FromArgMatches, Parser};
use kronfleet_core::participant::Summary;
use kronfleet_core::policy::{PolicyAction, PolicyInput};
use kronfleet_core::time::Instant;
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::trace::Trace;
use kronfleet_nalgebra::Nalgebra;
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A network that takes no time.
const TINY: &str = "input = [1, 28, 28]\n\
    [[layer]]\ntype = \"convolution\"\nname = \"conv1\"\noutputs = 4\nkernel = 4\nstride = 4\n\
    [[layer]]\ntype = \"batch_norm\"\nname = \"bn1\"\n\
    [[layer]]\ntype = \"relu\"\n\
    [[layer]]\ntype = \"flatten\"\n\
    [[layer]]\ntype = \"dense\"\nname = \"fc1\"\noutputs = 10\n";

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    task: TaskSettings,
    #[command(flatten)]
    averaging: AveragingSettings,
    #[command(flatten)]
    kfac: KfacSettings,
    #[command(flatten)]
    optimiser: OptimiserSettings,
    #[command(flatten)]
    network: NetworkSettings,
    #[command(flatten)]
    output: OutputSettings,
}

/// A folder of its own that is gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let unique = format!("kronfleet-{name}-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(unique);
        fs::create_dir_all(&path).expect("a writable temporary folder");
        fs::write(path.join("tiny.toml"), TINY).expect("a writable temporary folder");
        Self(path)
    }

    fn kept(&self) -> PathBuf {
        self.0.join("kept")
    }

    /// The checkpoints written, oldest first.
    fn checkpoints(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.kept()).expect("checkpoints were written");
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
        paths.sort();
        paths
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a run does.
enum Keep<'a> {
    Nothing,
    /// A checkpoint after every so many events.
    Every(u64),
    /// Go on from this one.
    From(&'a Path),
}

fn run(folder: &Folder, flags: &[&str], keep: Keep<'_>) -> Ending {
    let model = format!("--model={}", folder.0.join("tiny.toml").display());
    let common = [
        "test",
        &model,
        "--samples=300",
        "--batch=8",
        "--quiet",
        "--evaluate-every=4",
        "--seed=3",
        "--backend=nalgebra",
    ];
    let matches = Flags::command().args_override_self(true).get_matches_from(common.iter().chain(flags));
    let Flags { task, averaging, kfac, optimiser, network, output } =
        Flags::from_arg_matches(&matches).expect("flags that exist");
    let text = describe(&Flags::command(), &matches);
    let workshop = Workshop::open(&task, &kfac, &optimiser, averaging.nodes, None).expect("settings that fit");
    let workshop = workshop.sharing(&averaging.sharing).expect("placements that fit").correcting(&averaging.drift);
    let stop = Arc::default();
    let fleet = Fleet {
        workshop: &workshop,
        task: &task,
        averaging: &averaging,
        network: &network,
        output: &output,
        settings: &text,
        stop,
    };
    let identity = workshop.identity::<f32>(&text, averaging.nodes);
    let keeping = match keep {
        Keep::Nothing => Keeping::default(),
        Keep::Every(events) => {
            let store = Store::open(Disk, &folder.kept(), usize::MAX, false).expect("a writable temporary folder");
            Keeping { keeper: Some(Keeper::by_events(store, identity, events)), saved: None }
        }
        Keep::From(place) => {
            let saved = Saved::find(&Disk, place, Some(&identity)).expect("a sound checkpoint");
            Keeping { keeper: None, saved: Some(saved) }
        }
    };
    let (mut story, model) =
        fleet.run(fleet.faults().unwrap(), Trace::hashed(text.clone()), keeping).expect("nodes can be made");
    assert_eq!(story.failure, None);
    // What differs by its nature.
    (story.seconds, story.kept, story.resumed) = (0.0, super::Kept::default(), None);
    (story, model)
}

/// Settings that decide what state there is.
fn any_flags() -> impl Strategy<Value = Vec<&'static str>> {
    let method = prop::sample::select(vec![
        vec!["--form=inverse", "--inverse-every=3"],
        vec!["--form=eigen", "--inverse-every=4", "--adaptive-damping"],
        vec!["--preconditioner=ekfac", "--inverse-every=3", "--fisher=true"],
        vec!["--preconditioner=none", "--momentum=0.9"],
        vec!["--preconditioner=none", "--optimiser=adam", "--average-optimiser"],
        vec!["--average-factors", "--factor-every=2"],
        vec!["--preconditioner=eva"],
        vec!["--preconditioner=shampoo", "--inverse-every=3", "--average-factors"],
        vec!["--preconditioner=soap", "--inverse-every=4"],
        vec!["--preconditioner=muon"],
        vec!["--prox=0.1", "--inverse-every=3"],
    ]);
    let rejoin = prop::sample::select(vec!["--rejoin=full", "--rejoin=progress", "--rejoin=heal"]);
    let link = prop::sample::select(vec![
        vec!["--loss=0"],
        vec!["--loss=0.05", "--reorder=0.2", "--duplicate=0.1", "--jitter=2ms"],
        vec!["--bandwidth=2000000", "--reports"],
    ]);
    let data = prop::sample::select(vec!["--augment", "--label-smoothing=0.1"]);
    let share = prop::sample::select(vec!["--offline-fraction=0", "--offline-fraction=0.5"]);
    let mode = prop::sample::select(vec!["--mode=available", "--mode=strict"]);
    let policy = prop::sample::select(vec![
        vec!["--interval=3"],
        vec!["--interval=3", "--crash=500ms..800ms:1", "--crash=1100ms..1300ms:0"],
        vec!["--policy=fda:naive", "--theta=auto", "--check-every=2"],
        vec!["--policy=fda:linear", "--theta=0.03"],
        vec!["--policy=fda:naive", "--theta=0.03", "--outer-optimiser=fedadam", "--outer-rate=0.01"],
        vec!["--interval=3", "--outer-optimiser=diloco", "--compress=top:0.1"],
        vec!["--interval=3", "--outages=bernoulli", "--compress=sign"],
        vec!["--policy=lasgd", "--interval=3"],
        vec!["--policy=streaming", "--interval=4", "--fragments=2"],
        vec!["--policy=streaming", "--interval=4", "--fragments=2", "--compress=8bit"],
        vec!["--policy=salf", "--stall-budget=400ms", "--slow-nodes=3x:1", "--slow-nodes=1.8x:2"],
        vec!["--policy=fda:sketch", "--columns=20"],
        vec!["--policy=gossip:choco", "--interval=2", "--local-statistics"],
        vec!["--policy=gossip:ada", "--compress=random:0.2", "--topology=complete", "--local-statistics"],
        vec!["--policy=gossip:partial", "--compress=sign", "--local-statistics"],
        vec!["--policy=gossip:sgp", "--topology=one-peer", "--local-statistics"],
        vec!["--policy=gossip:push", "--topology=directed-ring", "--local-statistics"],
        vec!["--policy=gossip:push-ada", "--topology=one-peer", "--local-statistics", "--outages=bernoulli"],
        vec!["--policy=daso", "--daso-epoch=6", "--daso-warm-up=1", "--daso-cool-down=0", "--daso-skip=2"],
        vec!["--policy=daso", "--daso-epoch=7", "--daso-warm-up=0", "--daso-cool-down=0", "--daso-merge=progress"],
    ]);
    (method, rejoin, link, data, share, mode, policy).prop_map(
        |(mut flags, rejoin, link, data, share, mode, policy)| {
            // What these have a majority keep would be no whole model.
            let parts = ["--policy=streaming", "--policy=salf"].iter().any(|parts| policy.contains(parts));
            let mode = if parts { "--mode=available" } else { mode };
            flags.extend(link);
            flags.extend(policy);
            flags.extend([rejoin, data, share, mode, "--max-duration=3", "--iterations=14", "--nodes=4"]);
            flags
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 4, ..ProptestConfig::default() })]

    #[test]
    fn a_run_gone_on_with_is_the_run_that_never_stopped(
        flags in any_flags(),
        every in 200_u64..600,
        places in prop::collection::vec(any::<prop::sample::Index>(), 2),
    ) {
        check_resumed("resume", &flags, every, places)?;
    }
}

/// Goes on from checkpoints in some places of a run that keeps one every so many milliseconds.
fn check_resumed(
    name: &str,
    flags: &[&str],
    every: u64,
    places: Vec<prop::sample::Index>,
) -> Result<(), TestCaseError> {
    let folder = Folder::new(name);
    let whole = run(&folder, flags, Keep::Nothing);
    let watched = run(&folder, flags, Keep::Every(every));
    prop_assert_eq!(&watched, &whole, "keeping checkpoints changes nothing");
    let checkpoints = folder.checkpoints();
    for place in places {
        let checkpoint = &checkpoints[place.index(checkpoints.len())];
        let resumed = run(&folder, flags, Keep::From(checkpoint));
        prop_assert_eq!(&resumed, &whole, "{}", checkpoint.display());
    }
    Ok(())
}

/// Settings of steps that are shared.
fn any_shared_flags() -> impl Strategy<Value = Vec<&'static str>> {
    let method = prop::sample::select(vec![
        vec!["--inner=dp-kfac", "--inverse-every=3", "--factor-every=2"],
        vec!["--inner=dp-kfac", "--form=eigen", "--inverse-every=4", "--balance=contiguous"],
        vec!["--inner=mpd", "--form=eigen", "--inverse-every=3", "--apart"],
        vec!["--inner=d-kfac", "--inverse-every=2", "--split-factors=9"],
        vec!["--inner=spd", "--inverse-every=3", "--optimiser=adam"],
        vec!["--inner=kaisa:0.5", "--form=eigen", "--inverse-every=3", "--fisher=true"],
        vec!["--inner=owner-reduce", "--inverse-every=3", "--momentum=0.9"],
        vec!["--inner=dp-kfac", "--preconditioner=eva"],
        vec!["--inner=mpd", "--preconditioner=shampoo", "--inverse-every=3"],
        vec!["--inner=dp-kfac", "--preconditioner=soap", "--inverse-every=4"],
        vec!["--inner=dp-kfac", "--preconditioner=muon"],
        vec!["--inner=dp-kfac", "--preconditioner=none"],
    ]);
    let outer = prop::sample::select(vec![
        vec!["--nodes=3"],
        vec!["--nodes=4", "--sites=2", "--outer=periodic:3"],
        vec!["--nodes=4", "--sites=2", "--outer=daso", "--daso-epoch=5", "--daso-skip=2"],
        vec!["--nodes=5", "--sites=1+3+1", "--outer=daso", "--daso-epoch=4", "--daso-skip=2", "--daso-bad=1"],
        vec!["--nodes=8", "--sites=4", "--outer=daso", "--daso-epoch=6", "--daso-skip=2", "--daso-merge=progress"],
    ]);
    let link = prop::sample::select(vec![
        vec!["--loss=0"],
        vec!["--loss=0.05", "--reorder=0.2", "--duplicate=0.1", "--jitter=2ms"],
        vec!["--bandwidth=20000000", "--reports"],
    ]);
    let lost = prop::sample::select(vec![
        vec!["--offline-fraction=0"],
        vec!["--offline-fraction=0.4", "--max-duration=3"],
        vec!["--offline-fraction=0", "--crash=500ms..800ms:1", "--crash=1100ms..1300ms:0"],
    ]);
    (method, outer, link, lost).prop_map(|(method, outer, link, lost)| {
        let daso = ["--daso-warm-up=0", "--daso-cool-down=0"].into_iter().filter(|_| outer.contains(&"--outer=daso"));
        let flags = [&["--iterations=14"][..], &method, &outer, &link, &lost].concat();
        flags.into_iter().chain(daso).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 4, ..ProptestConfig::default() })]

    /// With letters of a step and models between sites under way, and members that are lost meanwhile.
    #[test]
    fn a_run_of_shared_steps_gone_on_with_is_the_run_that_never_stopped(
        flags in any_shared_flags(),
        every in 100_u64..600,
        places in prop::collection::vec(any::<prop::sample::Index>(), 2),
    ) {
        check_resumed("shared", &flags, every, places)?;
    }
}

#[test]
fn what_policies_keep_is_in_a_checkpoint() {
    for kept in [
        &["--scaffold", "--prox=0.1"][..],
        &["--scaffold", "--preconditioner=none", "--outer-optimiser=fedadam", "--outer-rate=0.01"],
        &["--scaffold", "--weight=samples", "--partition=dirichlet:0.3", "--outer-optimiser=fedavgm"],
        &["--policy=lasgd", "--jitter=4ms"],
        &["--policy=streaming", "--interval=6", "--fragments=3", "--iterations=16", "--jitter=4ms"],
        &["--policy=salf", "--unbiased", "--stall-budget=400ms", "--slow-nodes=3x:1", "--slow-nodes=1.8x:0,2"],
        &["--outer-optimiser=diloco"],
        &["--outer-optimiser=fedadam"],
        &["--outer-optimiser=fedadam", "--compress=8bit"],
        &["--compress=top:0.1", "--outages=bernoulli"],
        &["--compress=sign"],
        &["--compress=rank:1"],
        &["--compress=sign", "--outer-optimiser=diloco"],
        &["--policy=streaming", "--interval=6", "--fragments=3", "--iterations=16", "--jitter=4ms", "--compress=8bit"],
        &["--policy=gossip:push", "--topology=one-peer", "--local-statistics"],
        &["--policy=daso", "--daso-epoch=5", "--daso-warm-up=0", "--daso-cool-down=0", "--daso-skip=2"],
        &["--policy=fda:naive", "--theta=auto", "--check-every=1", "--jitter=4ms"],
        &["--policy=fda:linear", "--theta=0.03", "--jitter=4ms"],
        &["--policy=fda:sketch", "--theta=0.03", "--jitter=4ms"],
        &["--policy=gossip:choco", "--local-statistics", "--jitter=4ms"],
        &["--policy=gossip:partial", "--local-statistics", "--jitter=4ms"],
        &["--policy=gossip:ada", "--compress=top:0.1", "--topology=complete", "--local-statistics"],
    ] {
        let folder = Folder::new("kept");
        let flags = [&["--interval=2", "--iterations=10", "--nodes=3", "--offline-fraction=0.3"][..], kept].concat();
        let whole = run(&folder, &flags, Keep::Every(150));
        let checkpoints = folder.checkpoints();
        let middle = &checkpoints[checkpoints.len() / 2];
        assert_eq!(run(&folder, &flags, Keep::From(middle)), whole, "{}", middle.display());
    }
}

/// What contributions of each of four nodes count, by the policies that they are given, and how many samples they have.
fn weights(folder: &Folder, flags: &[&str]) -> [Vec<f64>; 2] {
    let model = format!("--model={}", folder.0.join("tiny.toml").display());
    let common = ["test", &model, "--samples=300", "--nodes=4", "--partition=dirichlet:0.3"];
    let Flags { task, averaging, kfac, optimiser, .. } = Flags::parse_from(common.iter().chain(flags));
    let workshop = Workshop::open(&task, &kfac, &optimiser, 4, None).expect("settings that fit");
    workshop.inform(&averaging).expect("layers that fit");
    let weight = |node: u32| {
        let mut policy = averaging.policy(NodeId(node)).expect("settings that fit");
        let summary = Summary::default();
        policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration: averaging.interval, summary: &summary });
        match policy.poll() {
            Some(PolicyAction::Contribute(request) | PolicyAction::Offer(request, _)) => request.weight,
            other => panic!("{other:?}"),
        }
    };
    let samples = |node: u32| workshop.share(node).len() as f64;
    [(0..4).map(weight).collect(), (0..4).map(samples).collect()]
}

#[test]
fn contributions_count_what_nodes_have() {
    let folder = Folder::new("weights");
    for policy in [
        &["--policy=periodic"][..],
        &["--outer-optimiser=fedavgm"],
        &["--outer-optimiser=fedadam"],
        &["--policy=lasgd"],
        &["--policy=streaming", "--interval=20"],
    ] {
        let [equal, samples] = weights(&folder, policy);
        assert_eq!(equal, [1.0; 4]);
        let [weights, _] = weights(&folder, &[policy, &["--weight=samples"]].concat());
        for (weight, own) in weights.iter().zip(&samples) {
            assert!((weight - own / 75.0).abs() < 1e-12, "{weights:?} for {samples:?}");
        }
        assert!(weights.iter().any(|weight| (weight - 1.0).abs() > 0.1), "{weights:?}");
    }
}

#[test]
fn statistics_of_models_that_gossip_are_not_mixed_silently() {
    let folder = Folder::new("statistics");
    let model = format!("--model={}", folder.0.join("tiny.toml").display());
    let refused = |more: &[&str]| {
        let flags = [&["test", &model, "--samples=300", "--nodes=2", "--policy=gossip:choco"][..], more].concat();
        let Flags { task, averaging, kfac, optimiser, .. } = Flags::parse_from(flags);
        let workshop = Workshop::open(&task, &kfac, &optimiser, 2, None).expect("settings that fit");
        let mut trainer = workshop.trainer(Nalgebra::<f32>::new(), 0).expect("a trainer");
        averaging.check_statistics(trainer.parts().1.running_len()).err().map(|error| error.to_string())
    };
    let says = refused(&[]).expect("it has batch normalisation");
    assert!(says.contains("--local-statistics"), "{says}");
    assert_eq!(refused(&["--local-statistics"]), None);
}

#[test]
fn frames_are_under_way_in_a_checkpoint() {
    let folder = Folder::new("frames");
    let flags = ["--interval=2", "--iterations=6", "--nodes=4", "--jitter=2ms", "--offline-fraction=0"];
    let whole = run(&folder, &flags, Keep::Every(61));
    let frames = |path: &PathBuf| Saved::find(&Disk, path, None).expect("a sound checkpoint").manifest.frames;
    let most = folder.checkpoints().into_iter().max_by_key(frames).expect("there are some");
    assert!(frames(&most) >= 4, "{} frames at most", frames(&most));
    assert_eq!(run(&folder, &flags, Keep::From(&most)), whole);
}

#[test]
fn a_checkpoint_is_gone_on_with_by_fewer_and_by_more_nodes() {
    let folder = Folder::new("reshape");
    let flags = ["--interval=3", "--offline-fraction=0", "--average-factors"];
    let half = [&flags[..], &["--iterations=30", "--nodes=4"]].concat();
    let before = run(&folder, &half, Keep::Every(400)).0;
    let checkpoints = folder.checkpoints();
    let middle = &checkpoints[checkpoints.len() / 2];
    let manifest = Saved::find(&Disk, middle, None).expect("a sound checkpoint").manifest;
    assert!(manifest.committed.is_some() && (6..30).contains(&manifest.common), "{manifest:?}");
    for nodes in [2_usize, 7] {
        let count = format!("--nodes={nodes}");
        let after = run(&folder, &[&flags[..], &["--iterations=30", &count]].concat(), Keep::From(middle)).0;
        assert_eq!(after.nodes.len(), nodes);
        assert!(after.nodes.iter().all(|node| node.iterations <= 30 - manifest.common), "{:?}", after.nodes);
        assert!(after.rounds_committed >= 1);
        // The first evaluation is of a trained model, not of one that begins.
        let first = after.averaged.first().expect("evaluations").1;
        let untrained = before.averaged.first().expect("evaluations").1;
        assert!(first > untrained, "{first} after going on, {untrained} at the beginning");
    }
}

#[test]
fn a_run_that_stops_at_an_accuracy_is_the_beginning_of_the_whole_one() {
    let folder = Folder::new("stopping");
    for policy in ["--policy=periodic", "--policy=zeros"] {
        let flags = ["--nodes=2", "--iterations=24", "--outages=none", "--target-accuracy=0.01", policy];
        let (whole, _) = run(&folder, &flags, Keep::Nothing);
        // The best of the first half is met before the end, and not at the first look.
        let half = &whole.averaged[..whole.averaged.len() / 2];
        let best = half.iter().map(|point| point.1).fold(0.0, f64::max);
        let met = whole.averaged.iter().position(|point| point.1 >= best).expect("it is one of them");
        let at = format!("--stop-at-accuracy={best}");
        let (stopped, model) = run(&folder, &[&flags[..], &[&at]].concat(), Keep::Nothing);
        assert_eq!(stopped.averaged, whole.averaged[..=met], "{policy}");
        assert!(met > 0 && !stopped.interrupted && stopped.failure.is_none() && model.is_some(), "{policy}");
        if policy == "--policy=zeros" {
            assert!(stopped.traffic.is_empty(), "nothing is sent");
            continue;
        }
        assert_eq!(stopped.traffic, whole.traffic[..=met], "{policy}");
        assert_eq!(stopped.traffic_to_target(), whole.traffic.first().copied(), "{policy}");
        assert!(stopped.traffic.is_sorted_by(|a, b| a.bytes < b.bytes && a.rounds <= b.rounds), "{policy}");
        assert!(stopped.bytes_sent() < whole.bytes_sent(), "{policy}");
    }
}
