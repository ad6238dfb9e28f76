//! How every trainer begins and ends: the run folder; report, model, table, JSON.

use super::evaluation::Model;
use super::story::Story;
use super::workshop::Workshop;
use crate::report::Folder;
use crate::settings::OutputSettings;
use anyhow::{Context, Result, bail};
use kronfleet_core::cluster::Digester;
use std::path::Path;

/// Creates the run folder, and sees to it that nothing which can be known now fails only after hours of training.
///
/// # Errors
/// If a folder or file cannot be written, or there is no such figure as is demanded.
pub fn prepare(output: &OutputSettings, kind: &str) -> Result<Folder> {
    let figures = serde_json::from_str(&Story::default().json())?;
    output.require.iter().try_for_each(|required| required.is_known(&figures)).map_err(anyhow::Error::msg)?;
    if let Some(path) = &output.save {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        tempfile::tempfile_in(parent)
            .with_context(|| format!("cannot write --save {}; choose a writable folder", path.display()))?;
    }
    let folder = Folder::create(output.output.as_deref(), kind)?;
    tempfile::tempfile_in(folder.path())
        .with_context(|| format!("cannot write in {}; choose another --output", folder.path().display()))?;
    Ok(folder)
}

/// Writes the report of a run into this `folder`, and the model, as asked for, and shows what happened.
///
/// # Errors
/// If a file cannot be written, the run has failed, or its result is not what was demanded; the report was then written
/// all the same.
pub fn conclude(
    folder: &Folder,
    workshop: &Workshop,
    output: &OutputSettings,
    mut story: Story,
    model: Option<Model>,
) -> Result<()> {
    story.weights = model.as_ref().map(digest);
    story.write(folder)?;
    if let (Some(path), Some(model)) = (&output.save, model) {
        workshop.save(path, &model)?;
    }
    if !output.quiet {
        println!("{}\n\n{}\n{}\n\nreport: {}", story.title, story.tables(), story.invariants, folder.path().display());
    }
    if let (true, Some(newest)) = (story.interrupted, &story.kept.newest) {
        eprintln!("interrupted; go on with the same flags and --resume {newest}");
    }
    if story.samples == 0 && story.rounds_committed > 0 && !story.interrupted {
        eprintln!("nothing was learnt: no node reached a layer in time; give a longer --deadline");
    }
    let json = story.json();
    if output.json {
        println!("{json}");
    }
    if let Some(failure) = story.failure {
        bail!("{failure}\nthe report up to that moment: {}", folder.path().display());
    }
    let result = serde_json::from_str(&json)?;
    let broken: Vec<String> = output.require.iter().filter_map(|required| required.check(&result).err()).collect();
    if !broken.is_empty() {
        bail!("{}", broken.join("\n"));
    }
    Ok(())
}

/// What equals only between models that are equal to the bit.
fn digest(model: &Model) -> String {
    let mut digester = Digester::new();
    digester.update_values(&model.parameters);
    digester.update_values(&model.running);
    digester.finish().to_string()
}
