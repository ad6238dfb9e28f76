//! What can be wrong with a data file, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};

/// In which way bytes do not follow their format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The first bytes name another format.
    WrongMagic,
    /// The bytes end too early.
    Truncated,
    /// A size in the header cannot be.
    SizeMismatch,
    /// Bytes follow where the data should end.
    TrailingBytes,
    /// A value lies outside its range.
    WrongValue,
    /// The gzip stream is damaged.
    Corrupt,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongMagic => "wrong magic number",
            Self::Truncated => "truncated",
            Self::SizeMismatch => "size mismatch",
            Self::TrailingBytes => "trailing bytes",
            Self::WrongValue => "wrong value",
            Self::Corrupt => "corrupt compression",
        })
    }
}

/// Bytes that do not follow their format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError {
    /// In which way.
    pub fault: Fault,
    /// Where, in bytes from the beginning.
    pub offset: u64,
    /// Whether `offset` counts decompressed bytes of a compressed file.
    pub decompressed: bool,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl FormatError {
    /// A fault at byte `offset` of the file itself.
    pub(crate) fn new(
        fault: Fault,
        offset: u64,
        expected: impl Into<String>,
        found: impl Into<String>,
        remedy: &'static str,
    ) -> Self {
        Self { fault, offset, decompressed: false, expected: expected.into(), found: found.into(), remedy }
    }

    /// The same fault, of bytes that were decompressed before.
    pub(crate) fn after_decompression(self) -> Self {
        Self { decompressed: true, ..self }
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, offset, decompressed, expected, found, remedy } = self;
        let stream = if *decompressed { " of the decompressed data" } else { "" };
        write!(f, "{fault} at byte {offset}{stream}: expected {expected}, found {found}; {remedy}")
    }
}

impl std::error::Error for FormatError {}

/// Why a data set could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The operating system refused to read a file.
    #[error("{path}: {source}; check that it is a readable file", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file does not follow its format.
    #[error("{path}: {fault}", path = path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// Where and how.
        fault: FormatError,
    },
    /// Images and labels do not belong together.
    #[error(
        "{images} holds {image_count} images, but {labels} holds {label_count} labels; \
         take both files from the same data set",
        images = images.display(), labels = labels.display()
    )]
    CountMismatch {
        /// The file of images.
        images: PathBuf,
        /// How many it holds.
        image_count: usize,
        /// The file of labels.
        labels: PathBuf,
        /// How many it holds.
        label_count: usize,
    },
    /// Training and test images differ in size.
    #[error(
        "training images are {train} (channels × height × width), but test images {test}; \
         take both from the same data set"
    )]
    ShapeMismatch {
        /// The shape of training images.
        train: crate::data::set::Shape,
        /// The shape of test images.
        test: crate::data::set::Shape,
    },
    /// Files are missing.
    #[error(
        "{directory}: {missing}; looked for {looked_for}; {remedy}",
        directory = directory.display(), looked_for = looked_for.join(", ")
    )]
    Missing {
        /// Where they should be.
        directory: PathBuf,
        /// What is missing.
        missing: String,
        /// The names that would have been taken.
        looked_for: Vec<String>,
        /// What to do about it.
        remedy: &'static str,
    },
}

impl DataError {
    /// Says in which file bytes do not follow their format.
    pub fn in_file(path: &Path) -> impl FnOnce(FormatError) -> Self + '_ {
        |fault| Self::Format { path: path.to_path_buf(), fault }
    }
}
