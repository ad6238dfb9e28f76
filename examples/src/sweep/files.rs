//! The files that settings of a run name: networks and graphs of one's own.

use super::grid::Run;
use crate::checkpoint::Sum;
use crate::settings::Graph;
use anyhow::{Result, bail};
use std::fs;
use std::path::Path;

/// What tells their content from others; `None` if there are none, or one cannot be read.
pub(super) fn digest(run: &Run) -> Option<String> {
    let topology = run.settings.get("topology").filter(|name| matches!(name.parse(), Ok(Graph::File(..))));
    let names: Vec<&String> = model(run).into_iter().chain(topology).collect();
    let contents = names.iter().map(|name| fs::read(name).ok()).collect::<Option<Vec<_>>>()?;
    let sum = Sum::of_all(contents.iter().map(Vec::as_slice)).to_string();
    (!names.is_empty()).then(|| sum[..16].to_owned())
}

/// Looks for the files of networks.
///
/// # Errors
/// If one is not there.
pub(super) fn check(runs: &[Run]) -> Result<()> {
    match runs.iter().filter_map(model).find(|name| !Path::new(name).is_file()) {
        Some(name) => bail!(
            "there is no {name} here: the grids that come with the program name networks from the root of the repository: run \
             it there, or give the place with --set model=FILE"
        ),
        None => Ok(()),
    }
}

/// The file of its network.
fn model(run: &Run) -> Option<&String> {
    let is_file = |name: &&String| Path::new(name).extension().is_some_and(|extension| extension == "toml");
    run.settings.get("model").filter(is_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_not_there_is_looked_for_at_the_root() {
        let with = |model: &str| Run { seed: 1, settings: [("model".to_owned(), model.to_owned())].into() };
        assert!(check(&[with("lenet5")]).is_ok());
        let error = check(&[with("lenet5"), with("nowhere/own.toml")]).expect_err("no such file").to_string();
        assert!(error.contains("nowhere/own.toml") && error.contains("root of the repository"), "{error}");
    }
}
