//! Which sources a run was made of.

use std::process::Command;

/// What decides about figures.
const SOURCES: [&str; 6] = ["core", "backends", "transport", "examples", "Cargo.toml", "Cargo.lock"];

/// The version of this program and the commit of its sources as they are now, with a `+` if they differ from it; the version
/// alone where they lie in no repository. `cargo run` builds what it runs of the sources as they are; of a program that was
/// built before and is started by itself it is what has become of its sources since.
pub(crate) fn build() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let git = |words: &[&str]| {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        Command::new("git").arg("-C").arg(root).args(words).output().ok()
    };
    let commit = git(&["rev-parse", "--short=8", "HEAD"]).filter(|output| output.status.success());
    let Some(commit) = commit.and_then(|output| String::from_utf8(output.stdout).ok()) else {
        return version.to_owned();
    };
    let changes = git(&[&["status", "--porcelain", "--"], &SOURCES[..]].concat());
    let is_same = changes.is_some_and(|output| output.status.success() && output.stdout.is_empty());
    let changed = if is_same { "" } else { "+" };
    format!("{version} {}{changed}", commit.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_begins_with_the_version_and_fits_into_a_cell() {
        let build = build();
        let rest = build.strip_prefix(env!("CARGO_PKG_VERSION")).expect("the version first");
        let commit = rest.trim_start().trim_end_matches('+');
        assert!(commit.is_empty() || commit.len() >= 8 && commit.chars().all(|c| c.is_ascii_hexdigit()), "{build}");
    }
}
