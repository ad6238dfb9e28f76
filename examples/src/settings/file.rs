//! Settings from a TOML file, as if they stood on the command line before everything else.

use super::idle::is_idle;
use anyhow::{Context, Result, bail};
use clap::{ArgMatches, Command};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The program's arguments with those of the `--config FILE` among them put first, so that flags override the file.
///
/// Every key of the file is a flag's name of `command`; `true` sets a flag without a value, `false` leaves it out; a
/// list repeats the flag. The file has no sections.
///
/// # Errors
/// If the file cannot be read, is not TOML, holds a table, or a key or value that `command` does not know.
pub fn arguments(command: &Command, given: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>> {
    let mut given = given.into_iter();
    let mut arguments: Vec<OsString> = given.next().into_iter().collect();
    let rest: Vec<OsString> = given.collect();
    if let Some(path) = config(&rest)? {
        let path = Path::new(&path);
        let text = fs::read_to_string(path).with_context(|| format!("cannot read the settings {}", path.display()))?;
        let flags = flags(&text).with_context(|| format!("{} holds no settings", path.display()))?;
        // By itself first: a mistake is looked for where it was made.
        let alone = command.clone().try_get_matches_from(arguments.iter().chain(&flags));
        if let Err(error) = alone {
            bail!("{}, whose keys are flags without their dashes: {}", path.display(), error.to_string().trim_end());
        }
        arguments.extend(flags);
    }
    arguments.extend(rest);
    Ok(arguments)
}

/// The flags that a TOML text of settings stands for.
///
/// # Errors
/// If it is not TOML, or holds a table.
pub fn flags(text: &str) -> Result<Vec<OsString>> {
    let table: toml::Table = text.parse()?;
    let mut arguments = Vec::new();
    for (key, value) in table {
        push(&mut arguments, &key, &value)?;
    }
    Ok(arguments)
}

/// Every setting that decides what a run does, as the TOML text that [`flags`] reads; how it is shown and kept is left
/// out, and so is what has no effect.
pub fn describe(command: &Command, matches: &ArgMatches) -> String {
    let mut text = String::new();
    for argument in command.get_arguments() {
        let Some(name) = argument.get_long() else { continue };
        let shown = argument.get_help_heading() == Some("Output") && name != "load";
        let kept = argument.get_help_heading() == Some("Checkpoints");
        if shown || kept || NOT_DECIDING.contains(&name) || is_idle(matches, name) {
            continue;
        }
        let id = argument.get_id().as_str();
        let Some(values) = matches.get_raw(id) else { continue };
        let values: Vec<String> = values.map(|value| literal(&value.to_string_lossy())).collect();
        let _ = match values.as_slice() {
            [value] => writeln!(text, "{name} = {value}"),
            values => writeln!(text, "{name} = [{}]", values.join(", ")),
        };
    }
    text
}

/// Settings that change where a run is computed or recorded, but not what happens in it.
const NOT_DECIDING: [&str; 10] =
    ["threads", "trace", "replay", "rank", "start", "session", "events", "first", "elsewhere", "state"];

/// A TOML value: what reads as a number or truth value is one.
fn literal(value: &str) -> String {
    let plain = matches!(value, "true" | "false") || value.parse::<f64>().is_ok_and(f64::is_finite);
    // Not every number is one in TOML: .05 and 007 are not.
    let readable = || format!("x = {value}").parse::<toml::Table>().is_ok();
    if plain && readable() { value.to_owned() } else { toml::Value::from(value).to_string() }
}

fn config(arguments: &[OsString]) -> Result<Option<OsString>> {
    for (index, argument) in arguments.iter().enumerate() {
        if argument == "--config" {
            let Some(path) = arguments.get(index + 1) else { bail!("--config needs a file: --config run.toml") };
            return Ok(Some(path.clone()));
        }
        if let Some(path) = argument.to_str().and_then(|text| text.strip_prefix("--config=")) {
            return Ok(Some(path.into()));
        }
    }
    Ok(None)
}

fn push(arguments: &mut Vec<OsString>, key: &str, value: &toml::Value) -> Result<()> {
    use toml::Value;
    let flag = || OsString::from(format!("--{}", key.replace('_', "-")));
    match value {
        Value::Boolean(true) => arguments.push(flag()),
        Value::Boolean(false) => {}
        Value::Array(values) => {
            for value in values {
                push(arguments, key, value)?;
            }
        }
        Value::Table(_) => bail!("[{key}] is a table; settings stand side by side, without sections"),
        Value::String(text) => arguments.push(format!("{}={text}", flag().display()).into()),
        other => arguments.push(format!("{}={other}", flag().display()).into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, ArgAction};

    #[test]
    fn every_value_is_read_back() -> Result<()> {
        for value in [".05", "5.", "007", "0.4", "1e-3", "P/2", "true", "9223372036854775808", "a \"b\" \\ c", "100ms"]
        {
            let flags = flags(&format!("x = {}", literal(value)))?;
            let expected = if value == "true" { "--x".to_owned() } else { format!("--x={value}") };
            let same = |found: &str| match (found.strip_prefix("--x="), value.parse::<f64>()) {
                (Some(number), Ok(expected)) => number.parse() == Ok(expected),
                _ => found == expected,
            };
            assert!(flags.len() == 1 && flags[0].to_str().is_some_and(same), "{value}: {flags:?}");
        }
        Ok(())
    }

    #[test]
    fn the_file_comes_first_and_flags_win() -> Result<()> {
        let directory = std::env::temp_dir().join(format!("kronfleet-settings-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let path = directory.join("run.toml");
        fs::write(&path, "learning-rate = 0.1\njson = true\nquiet = false\nskip-layer = [\"fc1\", \"fc2\"]\n")?;
        let given = ["lossy", "--config", path.to_str().expect("a plain path"), "--seed", "3"];
        let command = Command::new("lossy").args(
            ["learning-rate", "skip-layer", "seed", "config"]
                .map(|name| Arg::new(name).long(name).action(ArgAction::Append)),
        );
        let switches = ["json", "quiet"].map(|name| Arg::new(name).long(name).action(ArgAction::SetTrue));
        let command = command.args(switches);
        let result = arguments(&command, given.map(OsString::from))?;
        fs::write(&path, "learning-rat = 0.1")?;
        let error = arguments(&command, given.map(OsString::from)).expect_err("no such flag").to_string();
        assert!(error.contains("run.toml") && error.contains("learning-rat"), "{error}");
        fs::remove_dir_all(&directory)?;
        let result: Vec<&str> = result.iter().filter_map(|argument| argument.to_str()).collect();
        assert_eq!(result[0], "lossy");
        assert!(result.contains(&"--learning-rate=0.1") && result.contains(&"--json"));
        assert!(result.contains(&"--skip-layer=fc1") && result.contains(&"--skip-layer=fc2"));
        assert!(!result.contains(&"--quiet"));
        assert_eq!(&result[result.len() - 2..], ["--seed", "3"]);
        Ok(())
    }
}
