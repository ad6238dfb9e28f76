//! Flags that would change nothing are refused, so that nobody takes a run for what it is not.

use anyhow::{Result, bail};
use clap::ArgMatches;
use clap::parser::ValueSource;

/// Refuses flags that were given, on the command line or in the `--config` file, and have no effect with the others.
///
/// # Errors
/// With the flag, with what it has no effect, and the remedy.
pub fn refuse_idle(matches: &ArgMatches) -> Result<()> {
    for name in RULES.iter().flat_map(|rule| rule.flags).filter(|name| given(matches, name)) {
        if let Some(why) = why_idle(matches, name) {
            bail!(why);
        }
    }
    Ok(())
}

/// Why a flag has no effect with the others, and the remedy, if it has none.
pub fn why_idle(matches: &ArgMatches, name: &str) -> Option<String> {
    let rule = RULES.iter().find(|rule| rule.flags.contains(&name) && (rule.idle)(matches))?;
    Some(format!("--{name} has no effect {}: leave it out{}", rule.with, rule.remedy))
}

/// Whether a flag has no effect with the others.
pub(super) fn is_idle(matches: &ArgMatches, name: &str) -> bool {
    why_idle(matches, name).is_some()
}

/// Whether a flag was given.
pub fn given(matches: &ArgMatches, name: &str) -> bool {
    let id = name.replace('-', "_");
    // A program that lacks the flag knows nothing of it.
    matches.ids().any(|known| known.as_str() == id) && matches.value_source(&id) == Some(ValueSource::CommandLine)
}

/// Flags, and when they have no effect.
struct Rule {
    flags: &'static [&'static str],
    idle: fn(&ArgMatches) -> bool,
    /// With what they have none.
    with: &'static str,
    /// What to do instead of leaving them out.
    remedy: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        flags: &[
            "policy",
            "interval",
            "missed",
            "rejoin",
            "average-factors",
            "average-optimiser",
            "local-statistics",
            "weight",
            "outer-optimiser",
            "outer-rate",
            "outer-momentum",
            "prox",
            "scaffold",
            "deferred-refresh",
            "no-low-rank",
        ],
        idle: |matches| value(matches, "inner").is_some(),
        with: "with --inner, by which members of a site have everything in common",
        remedy: "",
    },
    Rule {
        flags: &["sites"],
        idle: |matches| value(matches, "outer").is_none() && value(matches, "fast-link").is_none(),
        with: "without --outer, by which sites stay together, or --fast-link, by which they are near",
        remedy: ", or choose --outer periodic:5",
    },
    Rule {
        flags: &[
            "form",
            "fisher",
            "damping",
            "adaptive-damping",
            "kl-clip",
            "ema",
            "factor-every",
            "inverse-every",
            "deferred-refresh",
            "no-low-rank",
            "split-factors",
            "skip-layer",
            "average-factors",
        ],
        idle: |matches| is(matches, "preconditioner", "none"),
        with: "with --preconditioner none",
        remedy: ", or use the curvature: --preconditioner kfac",
    },
    Rule {
        flags: &[
            "form",
            "fisher",
            "adaptive-damping",
            "factor-every",
            "deferred-refresh",
            "no-low-rank",
            "inverse-every",
            "average-factors",
        ],
        idle: |matches| is(matches, "preconditioner", "eva"),
        with: "with --preconditioner eva, which has vectors and no matrices",
        remedy: ", or choose --preconditioner kfac",
    },
    Rule {
        flags: &["form", "fisher", "adaptive-damping", "factor-every", "deferred-refresh", "no-low-rank", "kl-clip"],
        idle: |matches| is(matches, "preconditioner", "shampoo"),
        with: "with --preconditioner shampoo, which looks at gradients alone",
        remedy: ", or choose --preconditioner kfac",
    },
    Rule {
        flags: &[
            "form",
            "fisher",
            "adaptive-damping",
            "factor-every",
            "deferred-refresh",
            "no-low-rank",
            "kl-clip",
            "damping",
        ],
        idle: |matches| is(matches, "preconditioner", "soap"),
        with: "with --preconditioner soap, which is Adam in other bases",
        remedy: ", or choose --preconditioner kfac",
    },
    Rule {
        flags: &[
            "form",
            "fisher",
            "adaptive-damping",
            "factor-every",
            "deferred-refresh",
            "no-low-rank",
            "kl-clip",
            "damping",
            "ema",
            "inverse-every",
            "average-factors",
        ],
        idle: |matches| is(matches, "preconditioner", "muon"),
        with: "with --preconditioner muon, which has no curvature",
        remedy: ", or choose --preconditioner kfac",
    },
    Rule {
        flags: &["optimiser", "nesterov", "average-optimiser"],
        idle: |matches| is(matches, "preconditioner", "soap") || is(matches, "preconditioner", "muon"),
        with: "with --preconditioner soap or muon, which keep momentum themselves and are followed as they are",
        remedy: ", or choose --preconditioner kfac",
    },
    Rule {
        flags: &["form"],
        idle: |matches| is(matches, "preconditioner", "ekfac"),
        with: "with --preconditioner ekfac, which has one form only",
        remedy: ", or choose --preconditioner kfac",
    },
    Rule {
        flags: &["split-factors"],
        idle: |matches| !is(matches, "preconditioner", "kfac") && !is(matches, "preconditioner", "none"),
        with: "without --preconditioner kfac, whose factors are decomposed one by one",
        remedy: ", or choose that",
    },
    Rule {
        flags: &["balance", "apart"],
        idle: |matches| value(matches, "inner").is_none_or(|inner| inner == "d-kfac"),
        with: "unless --inner deals work out to owners",
        remedy: ", or choose --inner mpd",
    },
    Rule {
        flags: &["no-low-rank"],
        idle: |matches| is(matches, "preconditioner", "ekfac") || is(matches, "form", "eigen"),
        with: "with eigendecompositions",
        remedy: ", or choose --form inverse",
    },
    Rule {
        flags: &["beta2", "epsilon"],
        idle: |matches| {
            ["sgd", "quasi-global"].iter().any(|kind| is(matches, "optimiser", kind))
                && !is(matches, "preconditioner", "soap")
        },
        with: "with --optimiser sgd",
        remedy: ", or choose --optimiser adam",
    },
    Rule {
        flags: &["milestones", "step-factor"],
        idle: |matches| !is(matches, "schedule", "step"),
        with: "without --schedule step",
        remedy: ", or choose it",
    },
    Rule {
        flags: &["cosine-last"],
        idle: |matches| !is(matches, "schedule", "cosine"),
        with: "without --schedule cosine",
        remedy: ", or choose it",
    },
    Rule {
        flags: &["plateau-factor", "plateau-patience", "plateau-tolerance"],
        idle: |matches| !is(matches, "schedule", "plateau"),
        with: "without --schedule plateau",
        remedy: ", or choose it",
    },
    Rule {
        flags: &["warm-up-from"],
        idle: |matches| is_zero(matches, "warm-up"),
        with: "without a warm-up",
        remedy: ", or choose a --warm-up of some iterations",
    },
    Rule {
        flags: &["nesterov"],
        idle: |matches| is(matches, "optimiser", "adam"),
        with: "with --optimiser adam",
        remedy: ", or choose --optimiser sgd",
    },
    Rule {
        flags: &["nesterov"],
        idle: |matches| is_zero(matches, "momentum"),
        with: "without momentum",
        remedy: ", or choose a --momentum above 0",
    },
    Rule {
        flags: &["decoupled"],
        idle: |matches| is_zero(matches, "weight-decay"),
        with: "without weight decay",
        remedy: ", or choose a --weight-decay above 0",
    },
    Rule {
        flags: &["average-factors", "average-optimiser", "rejoin", "missed", "mode", "min-members", "quarantine"],
        idle: |matches| is(matches, "policy", "local"),
        with: "with --policy local, by which nothing is averaged",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["interval"],
        idle: |matches| is(matches, "policy", "local") && !is(matches, "outages", "bernoulli"),
        with: "with --policy local, by which nothing is averaged",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["interval"],
        idle: |matches| is(matches, "policy", "zeros") && !is(matches, "outages", "bernoulli"),
        with: "with --policy zeros, by which the gradients of every step are averaged",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["every", "keep"],
        idle: |matches| value(matches, "checkpoint").is_none(),
        with: "where no checkpoints are written",
        remedy: ", or say where with --checkpoint DIR",
    },
    Rule {
        flags: &["interval"],
        idle: |matches| is_dynamic(matches) && !is(matches, "outages", "bernoulli"),
        with: "where nodes average when they have drifted apart",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["interval"],
        idle: |matches| is(matches, "policy", "daso") && !is(matches, "outages", "bernoulli"),
        with: "with --policy daso, which has --daso-skip",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["missed", "outer-optimiser"],
        idle: |matches| is(matches, "policy", "daso"),
        with: "with --policy daso, by which all average when it is time, and take averages as models",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["missed", "outer-optimiser"],
        idle: |matches| is(matches, "policy", "lasgd"),
        with: "with --policy lasgd, by which averages are models and a missed one is made up for after the next step",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["average-factors", "average-optimiser"],
        idle: |matches| is(matches, "policy", "lasgd"),
        with: "with --policy lasgd, by which nothing is to undo what the steps made meanwhile have done to them",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["missed", "scaffold", "average-factors", "average-optimiser"],
        idle: |matches| is(matches, "policy", "streaming"),
        with: "with --policy streaming, by which parts of parameters travel in their turn and nothing else",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["interval"],
        idle: |matches| is(matches, "policy", "salf") && !is(matches, "outages", "bernoulli"),
        with: "with --policy salf, by which every step is averaged",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["missed", "outer-optimiser", "scaffold", "average-optimiser"],
        idle: |matches| is(matches, "policy", "salf"),
        with: "with --policy salf, by which steps are averaged layer by layer as they are",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["deadline", "late", "unbiased"],
        idle: |matches| value(matches, "inner").is_some() || !is(matches, "policy", "salf"),
        with: "where steps take the time they take",
        remedy: ", or choose --policy salf",
    },
    Rule {
        flags: &["fragments", "fragment-delay", "fragment-share"],
        idle: |matches| value(matches, "inner").is_some() || !is(matches, "policy", "streaming"),
        with: "where models are not averaged part by part",
        remedy: ", or choose --policy streaming",
    },
    Rule {
        flags: &[
            "daso-epoch",
            "daso-warm-up",
            "daso-cool-down",
            "daso-skip",
            "daso-most",
            "daso-bad",
            "daso-progress",
            "daso-merge",
        ],
        idle: |matches| match value(matches, "inner") {
            None => !is(matches, "policy", "daso"),
            Some(_) => !is(matches, "outer", "daso"),
        },
        with: "where nodes do not average hierarchically",
        remedy: ", or choose --policy daso, or with --inner --outer daso",
    },
    Rule {
        flags: &["missed"],
        idle: is_dynamic,
        with: "where nodes average when they have drifted apart, and who has missed an average has",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["missed", "rejoin", "mode", "min-members", "quarantine", "average-factors", "average-optimiser"],
        idle: gossips,
        with: "where nodes gossip, which make no rounds",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["outer-optimiser"],
        idle: |matches| is(matches, "policy", "streaming") && is(matches, "outer-optimiser", "none"),
        with: "as none with --policy streaming, which makes a step of every part",
        remedy: ", or take averages as they are by --outer-optimiser fedavgm --outer-rate 1 --outer-momentum 0",
    },
    Rule {
        flags: &["outer-optimiser"],
        idle: |matches| gossips(matches) || ["local", "zeros"].iter().any(|policy| is(matches, "policy", policy)),
        with: "where there are no averages of which a step could be made",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["prox"],
        idle: |matches| ["local", "zeros"].iter().any(|policy| is(matches, "policy", policy)),
        with: "where nothing is taken over from others, towards which a step could be pulled",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["scaffold"],
        idle: |matches| gossips(matches) || ["local", "zeros"].iter().any(|policy| is(matches, "policy", policy)),
        with: "where there are no averages with which mean gradients could travel",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["weight"],
        idle: |matches| gossips(matches) || ["local", "zeros"].iter().any(|policy| is(matches, "policy", policy)),
        with: "where there are no averages to which nodes contribute",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["weight"],
        idle: |matches| is(matches, "weight", "samples") && is(matches, "policy", "salf"),
        with: "as samples with --policy salf, by which little weight says that a node is behind in a layer",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["weight"],
        idle: |matches| is(matches, "weight", "samples") && is(matches, "policy", "daso"),
        with: "as samples with --policy daso, by which models of others count by how many they are",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["outer-rate", "outer-momentum"],
        idle: |matches| is(matches, "outer-optimiser", "none") && !is(matches, "policy", "streaming"),
        with: "without an outer optimiser",
        remedy: ", or choose --outer-optimiser diloco",
    },
    Rule {
        flags: &["topology"],
        idle: |matches| !gossips(matches),
        with: "where nodes have no neighbours",
        remedy: ", or choose --policy gossip:choco",
    },
    Rule {
        flags: &["compress"],
        idle: |matches| {
            let whole = ["gossip:dpsgd", "gossip:sgp", "local", "zeros"];
            match value(matches, "inner") {
                None => whole.iter().any(|policy| is(matches, "policy", policy)),
                Some(_) => value(matches, "outer").is_none_or(|outer| outer != "daso"),
            }
        },
        with: "where no differences are told in fewer bytes",
        remedy: ", or choose --policy periodic or gossip:choco",
    },
    Rule {
        flags: &["consensus-step"],
        idle: |matches| {
            !gossips(matches) || ["gossip:dpsgd", "gossip:sgp"].iter().any(|policy| is(matches, "policy", policy))
        },
        with: "where no differences are told in fewer bytes",
        remedy: ", or choose --policy gossip:choco",
    },
    Rule {
        flags: &["consensus-cap", "consensus-decay", "consensus-epsilon"],
        idle: |matches| !["gossip:ada", "gossip:push-ada"].iter().any(|policy| is(matches, "policy", policy)),
        with: "where steps of parameters are not chosen one by one",
        remedy: ", or choose --policy gossip:ada",
    },
    Rule {
        flags: &["no-consensus-correction"],
        idle: |matches| !is(matches, "policy", "gossip:ada"),
        with: "where no errors of parameters are counted",
        remedy: ", or choose --policy gossip:ada",
    },
    Rule {
        flags: &["no-consensus-correction"],
        idle: |matches| ["auto", "measured"].iter().any(|step| is(matches, "consensus-step", step)),
        with: "where steps are counted in errors, which are corrected alike",
        remedy: ", or give --consensus-step a number",
    },
    Rule {
        flags: &["theta", "check-every"],
        idle: |matches| !is_dynamic(matches),
        with: "where nodes do not look at how far they have drifted apart",
        remedy: ", or choose --policy fda:linear",
    },
    Rule {
        flags: &["confidence", "columns", "drifts"],
        idle: |matches| !is(matches, "policy", "fda:sketch"),
        with: "without sketches",
        remedy: ", or choose --policy fda:sketch",
    },
    Rule {
        flags: &[
            "micro-batches",
            "link-partition",
            "link-cut",
            "crash",
            "rejoin",
            "missed",
            "mode",
            "min-members",
            "quarantine",
            "stall-budget",
            "average-factors",
            "average-optimiser",
            "local-statistics",
            "reports",
            "loss",
            "duplicate",
            "reorder",
            "latency",
            "jitter",
            "bandwidth",
            "slow-nodes",
            "fast-link",
            "slow-link",
        ],
        idle: |matches| is(matches, "policy", "zeros"),
        with: "with --policy zeros, by which one model makes whole steps and no frames are exchanged",
        remedy: ", or choose --policy periodic",
    },
    Rule {
        flags: &["offline-fraction", "max-duration", "max-offline"],
        idle: |matches| is(matches, "outages", "none"),
        with: "with --outages none",
        remedy: ", or choose --outages time-fraction",
    },
    Rule {
        flags: &["max-duration", "max-offline"],
        idle: |matches| is_zero(matches, "offline-fraction"),
        with: "when no node ever goes offline",
        remedy: ", or choose an --offline-fraction above 0",
    },
];

/// The value of a flag, its default included; `None` where the program has no such flag or it has no value.
fn value<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    let id = name.replace('-', "_");
    matches.ids().find(|known| known.as_str() == id)?;
    matches.get_raw(&id)?.next_back()?.to_str()
}

fn is(matches: &ArgMatches, name: &str, expected: &str) -> bool {
    value(matches, name) == Some(expected)
}

/// Whether nodes average when they have drifted apart.
fn is_dynamic(matches: &ArgMatches) -> bool {
    value(matches, "policy").is_some_and(|policy| policy.starts_with("fda:"))
}

/// Whether nodes move towards neighbours.
fn gossips(matches: &ArgMatches) -> bool {
    value(matches, "policy").is_some_and(|policy| policy.starts_with("gossip:"))
}

fn is_zero(matches: &ArgMatches, name: &str) -> bool {
    value(matches, name).is_some_and(|value| value.parse() == Ok(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{
        AveragingSettings, CheckpointSettings, KfacSettings, NetworkSettings, OptimiserSettings, OutputSettings,
        TaskSettings,
    };
    use clap::{CommandFactory, Parser};

    #[derive(Parser)]
    #[command(args_override_self = true)]
    struct Settings {
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
        checkpoints: CheckpointSettings,
        #[command(flatten)]
        output: OutputSettings,
    }

    fn refused(given: &str) -> Option<String> {
        let arguments = std::iter::once("program").chain(given.split_whitespace());
        refuse_idle(&Settings::command().get_matches_from(arguments)).err().map(|error| error.to_string())
    }

    #[test]
    fn what_has_no_effect_is_refused_and_what_has_is_not() {
        for (idle, effective) in [
            ("--preconditioner none --damping .1", "--preconditioner ekfac --damping .1"),
            ("--preconditioner none --skip-layer a", "--skip-layer a"),
            ("--preconditioner none --average-factors", "--average-factors"),
            ("--preconditioner ekfac --form eigen", "--preconditioner kfac --form eigen"),
            ("--preconditioner eva --inverse-every 3", "--preconditioner eva --damping .1"),
            ("--preconditioner shampoo --kl-clip .1", "--preconditioner shampoo --average-factors"),
            ("--preconditioner soap --optimiser adam", "--preconditioner soap --beta2 .95 --epsilon 1e-7"),
            ("--preconditioner muon --damping .1", "--preconditioner muon --momentum .95"),
            ("--optimiser adam --nesterov", "--optimiser sgd --nesterov"),
            ("--momentum 0 --nesterov", "--momentum .5 --nesterov"),
            ("--form eigen --no-low-rank", "--form inverse --no-low-rank"),
            ("--beta2 .9", "--optimiser adam --beta2 .9"),
            ("--milestones 3,4", "--schedule step --milestones 3,4 --step-factor .5"),
            ("--schedule step --cosine-last .1", "--schedule cosine --cosine-last .1"),
            ("--plateau-patience 4", "--schedule plateau --plateau-patience 4"),
            ("--warm-up-from .1", "--warm-up 9 --warm-up-from .1"),
            ("--decoupled", "--decoupled --weight-decay 1e-4"),
            ("--policy local --rejoin heal", "--rejoin heal"),
            ("--policy local --mode strict", "--mode strict"),
            ("--policy local --min-members 2", "--min-members 2"),
            ("--policy local --missed wait", "--missed wait"),
            ("--policy local --quarantine 2", "--quarantine 2"),
            ("--policy zeros --interval 3", "--policy zeros --interval 3 --outages bernoulli"),
            ("--every 3", "--checkpoint kept --every 3"),
            ("--resume kept --keep 3", "--resume kept --checkpoint kept --keep 3"),
            ("--policy local --interval 3", "--policy local --interval 3 --outages bernoulli"),
            ("--policy fda:naive --interval 3", "--policy fda:naive --interval 3 --outages bernoulli"),
            ("--policy fda:naive --missed wait", "--missed wait"),
            ("--theta 3", "--policy fda:linear --theta auto --check-every 9"),
            ("--check-every epoch", "--policy fda:linear --theta slow --check-every epoch"),
            ("--policy daso --sites 2+1", "--inner dp-kfac --outer daso --sites 3+2+3 --daso-most 4"),
            ("--daso-bad 2", "--policy daso --daso-bad 2 --daso-progress 0.9"),
            ("--policy fda:linear --columns 99", "--policy fda:sketch --columns 9 --drifts any --confidence 0.99"),
            ("--drifts any", "--policy fda:sketch --drifts any"),
            ("--policy local --outer-optimiser diloco", "--policy fda:linear --outer-optimiser diloco"),
            ("--outer-rate .5", "--outer-optimiser fedavgm --outer-rate .5 --outer-momentum 0"),
            ("--policy lasgd --missed wait", "--policy lasgd --interval 3 --rejoin heal"),
            ("--policy lasgd --average-factors", "--policy lasgd --local-statistics"),
            ("--policy lasgd --average-optimiser", "--average-optimiser"),
            ("--policy streaming --outer-optimiser none", "--policy streaming --outer-optimiser fedavgm"),
            ("--policy zeros --fast-link 1Gb/s --slow-link 1Mb/s", "--fast-link 1Gb/s --slow-link 1Mb/s"),
            ("--policy streaming --scaffold", "--policy streaming --outer-rate .5 --prox .1"),
            ("--fragments 3", "--policy streaming --fragments 3 --fragment-delay 0 --fragment-share 0"),
            ("--deadline 1s", "--policy salf --deadline 1s --late nothing --average-factors"),
            ("--policy salf --interval 3", "--policy salf --interval 3 --outages bernoulli"),
            ("--policy salf --average-optimiser", "--policy salf --prox .1 --rejoin heal"),
            ("--policy local --prox .1", "--policy gossip:choco --prox .1"),
            ("--policy gossip:choco --weight samples", "--outer-optimiser fedavgm --weight samples"),
            ("--policy salf --weight samples", "--policy fda:linear --weight samples"),
            ("--policy daso --weight samples", "--policy streaming --weight samples"),
            ("--inner dp-kfac --weight samples", "--policy lasgd --weight samples --scaffold"),
            ("--policy gossip:choco --scaffold", "--policy daso --scaffold --prox .1"),
            ("--inner dp-kfac --prox .1", "--policy fda:linear --prox .1"),
            ("--inner dp-kfac --scaffold", "--outer-optimiser diloco --scaffold"),
            ("--policy daso --missed wait", "--policy daso --daso-merge progress"),
            ("--policy daso --interval 3", "--policy daso --daso-skip 2 --rejoin heal"),
            ("--daso-epoch 9", "--inner dp-kfac --outer daso --sites 4 --daso-epoch 9"),
            ("--policy gossip:choco --missed wait", "--policy gossip:choco --interval 3"),
            (
                "--policy gossip:partial --consensus-cap .1",
                "--policy gossip:partial --consensus-step .5 --compress sign",
            ),
            ("--policy gossip:ada --average-factors", "--policy gossip:ada --preconditioner ekfac"),
            ("--topology torus", "--policy gossip:dpsgd --topology torus"),
            ("--policy gossip:dpsgd --compress sign", "--policy gossip:choco --compress sign"),
            ("--policy fda:linear --consensus-step .1", "--policy gossip:ada --consensus-step .1"),
            ("--policy gossip:sgp --consensus-step .1", "--policy gossip:push --consensus-step .1 --local-statistics"),
            ("--policy gossip:choco --consensus-cap .1", "--policy gossip:ada --consensus-cap .1"),
            (
                "--policy gossip:push --consensus-cap .1",
                "--policy gossip:push-ada --consensus-cap .1 --local-statistics",
            ),
            (
                "--policy gossip:choco --consensus-decay .9",
                "--policy gossip:push-ada --consensus-decay .9 --local-statistics",
            ),
            ("--policy gossip:push --consensus-epsilon .1", "--policy gossip:ada --consensus-epsilon .1"),
            (
                "--policy gossip:push-ada --no-consensus-correction",
                "--policy gossip:ada --no-consensus-correction --consensus-step .1",
            ),
            (
                "--policy gossip:ada --no-consensus-correction --consensus-step measured",
                "--policy gossip:ada --no-consensus-correction --consensus-decay 0",
            ),
            (
                "--policy gossip:ada --no-consensus-correction --consensus-step auto",
                "--policy gossip:ada --consensus-step auto --consensus-decay .9",
            ),
            ("--policy zeros --micro-batches 2", "--micro-batches 2"),
            ("--policy zeros --loss .1", "--loss .1"),
            ("--policy zeros --slow-nodes 2x:1", "--slow-nodes 2x:1 --slow-nodes 4x:2,3"),
            ("--policy zeros --stall-budget 1s", "--stall-budget 1s"),
            ("--outages none --max-duration 3", "--max-duration 3"),
            ("--offline-fraction 0.0 --max-offline 3", "--offline-fraction 0.0"),
            ("--inner dp-kfac --rejoin heal", "--inner dp-kfac --form eigen"),
            ("--inner d-kfac --apart", "--inner mpd --apart"),
            ("--balance contiguous", "--inner dp-kfac --balance contiguous"),
            ("--preconditioner soap --split-factors 9", "--preconditioner kfac --split-factors 9"),
            ("--preconditioner none --split-factors 9", "--inner dp-kfac --split-factors 9"),
            ("--inner dp-kfac --sites 3", "--inner dp-kfac --outer periodic:5 --sites 3"),
        ] {
            let says = refused(idle).unwrap_or_else(|| panic!("{idle} is accepted"));
            assert!(says.contains("has no effect") && says.contains("leave it out"), "{says}");
            assert_eq!(refused(effective), None);
        }
    }

    #[test]
    fn every_rule_names_flags_that_exist() {
        let command = Settings::command();
        let known: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        for name in RULES.iter().flat_map(|rule| rule.flags) {
            assert!(known.contains(name), "--{name}");
        }
    }
}
