//! Pages: figures by programs, words by people.

use anyhow::{Context, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What begins the part of a page that a study writes.
const BEGIN: &str = "<!-- figures: `reproduce` writes all down to the end mark -->";

/// What ends it.
const END: &str = "<!-- end of figures -->";

/// What a study shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Tables and references to plots, in Markdown.
    pub text: String,
    /// Names of files beside the page, and their SVG.
    pub plots: Vec<(String, String)>,
}

/// A page with these figures: the old page, whose words are kept and which gets them at its end if it has had none, or a new
/// one.
///
/// ```
/// use kronfleet_examples::study::compose;
/// let page = compose(None, "A study", "reproduce it", "one");
/// let page = compose(Some(&(page + "\nWords.\n")), "A study", "reproduce it", "two");
/// assert!(page.contains("two") && !page.contains("one") && page.ends_with("Words.\n"));
/// assert!(compose(Some("Words."), "A study", "reproduce it", "one").starts_with("Words.\n\n"));
/// ```
pub fn compose(old: Option<&str>, title: &str, command: &str, figures: &str) -> String {
    let part = format!("{BEGIN}\n`{command}`\n\n{}\n\n{END}", figures.trim());
    let Some(old) = old else { return format!("# {title}\n\n{part}\n") };
    let halves = old.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    match halves {
        Some((before, after)) => format!("{before}{part}{after}"),
        None => format!("{}\n\n{part}\n", old.trim_end()),
    }
}

/// Writes a page and its plots; answers where the page is.
pub(super) fn write(folder: &Path, name: &str, title: &str, command: &str, figures: &Figures) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for (plot, svg) in &figures.plots {
        let path = folder.join(plot);
        fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let path = folder.join(format!("{name}.md"));
    let old = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        text => Some(text.with_context(|| format!("cannot read {}", path.display()))?),
    };
    let text = compose(old.as_deref(), title, command, &figures.text);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
