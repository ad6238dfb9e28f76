//! What a run leaves behind: `metrics.csv`, `report.md` and SVG plots.
//!
//! Everything written here was counted or measured by the run; nothing is estimated.

mod bars;
mod heat;
mod plot;
mod scaling;
mod table;
mod traffic;

pub use bars::{BarPanel, stacked_bars};
pub use heat::{HeatCell, HeatMap, Panel, heat_maps};
pub use plot::{Curve, Outage, accuracy_over_iterations};
pub use scaling::{CurvePanel, scaling};
pub use table::{Align, Table};
pub use traffic::accuracy_over_bytes;

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The folder a run writes into.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Creates `path`, or `runs/KIND-SECONDS` where none is given.
    ///
    /// # Errors
    /// If the folder cannot be created: the message names it.
    pub fn create(path: Option<&Path>, kind: &str) -> Result<Self> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => unused(Path::new("runs"), kind),
        };
        fs::create_dir_all(&path).with_context(|| {
            format!("cannot create the run folder {}; choose a writable one with --output DIR", path.display())
        })?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one file, whole or not at all: to the side, then renamed.
    ///
    /// # Errors
    /// If the disk is full or the folder read-only: the message names the file.
    pub fn write(&self, name: &str, content: &str) -> Result<()> {
        let target = self.path.join(name);
        let aside = self.path.join(format!(".{name}.part"));
        fs::write(&aside, content)
            .and_then(|()| fs::rename(&aside, &target))
            .with_context(|| format!("cannot write {}; is the disk full or the folder read-only?", target.display()))
    }
}

/// A folder name that does not exist yet, so that two runs within one second stay apart.
fn unused(parent: &Path, kind: &str) -> PathBuf {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |span| span.as_secs());
    let plain = parent.join(format!("{kind}-{seconds}"));
    if !plain.exists() {
        return plain;
    }
    (2..)
        .map(|number| parent.join(format!("{kind}-{seconds}-{number}")))
        .find(|path| !path.exists())
        .expect("some number is free")
}
