//! Models: architectures by name, networks from TOML files, parameters in PyTorch's layout.

pub mod architecture;
pub mod description;
pub mod layout;
pub mod state;
pub mod tensors;

use kronfleet_core::backend::Extent;
use kronfleet_core::network::Spec;
use std::path::Path;

/// A network's description: what it sees and its layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// What it is called in reports.
    pub name: String,
    /// One input sample.
    pub input: Extent,
    /// The layers, in order.
    pub layers: Vec<Spec>,
}

impl Model {
    /// The architecture called `choice` for samples of extent `input` and this many classes, or what the TOML file at that path
    /// describes.
    ///
    /// # Errors
    /// If there is no such architecture or the file cannot be read or understood.
    pub fn choose(choice: &str, input: Extent, classes: usize) -> Result<Self, ModelError> {
        if Path::new(choice).extension().is_some_and(|extension| extension == "toml") {
            return Self::read(Path::new(choice));
        }
        architecture::named(choice, input, classes).ok_or_else(|| ModelError {
            place: format!("--model {choice}"),
            problem: "there is no such architecture".into(),
            remedy: format!("choose one of {}, or give the path of a .toml file", architecture::NAMES.join(", ")),
        })
    }

    /// The network a TOML file describes; [`description`] states the format.
    ///
    /// # Errors
    /// If the file cannot be read or understood.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ModelError {
            place: place.clone(),
            problem: format!("cannot be read: {error}"),
            remedy: "check the path; examples/models holds examples".into(),
        })?;
        let stem = path.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy());
        description::parse(&text, &stem)
            .map_err(|error| ModelError { place: format!("{place}: {}", error.place), ..error })
    }
}

/// Why a model could not be described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}; {remedy}")]
pub struct ModelError {
    /// The file and layer.
    pub place: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}
