//! Safetensors files as named tensors on the host, in double precision.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// A dense tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Elements, the last index fastest.
    pub values: Vec<f64>,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensors {
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Free text by key.
    pub metadata: BTreeMap<String, String>,
}

/// The precision a file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    Single,
    /// 64 bits.
    Double,
}

/// Why a file of tensors could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// The operating system refused.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The bytes are no safetensors file.
    #[error("{path}: not a safetensors file ({source}); was it truncated, or saved by torch.save instead?")]
    Format {
        /// The file.
        path: String,
        /// What the reader says.
        source: safetensors::SafeTensorError,
    },
    /// A tensor of a kind that is not read.
    #[error("{path}: tensor {name} has elements of kind {kind:?}; save it as F32, F64, I32 or I64")]
    Kind {
        /// The file.
        path: String,
        /// The tensor.
        name: String,
        /// What it holds.
        kind: Dtype,
    },
}

impl Tensors {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is malformed, or holds tensors of other kinds than F32, F64, I32, I64 and U8.
    pub fn read(path: &Path) -> Result<Self, TensorError> {
        let place = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|source| TensorError::File { path: place.clone(), source })?;
        Self::parse(&bytes, &place)
    }

    /// Reads the bytes of a file; `path` is for messages.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(bytes: &[u8], path: &str) -> Result<Self, TensorError> {
        let format = |source| TensorError::Format { path: path.to_owned(), source };
        let file = SafeTensors::deserialize(bytes).map_err(format)?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(format)?;
        let metadata = header.metadata().iter().flatten().map(|(key, text)| (key.clone(), text.clone())).collect();
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            let values = values(&view).ok_or_else(|| TensorError::Kind {
                path: path.to_owned(),
                name: name.to_owned(),
                kind: view.dtype(),
            })?;
            tensors.insert(name.to_owned(), Tensor { shape: view.shape().to_vec(), values });
        }
        Ok(Self { tensors, metadata })
    }

    /// Writes a file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path, precision: Precision) -> Result<(), TensorError> {
        let place = path.display().to_string();
        let bytes = self.encode(precision).map_err(|source| TensorError::Format { path: place.clone(), source })?;
        std::fs::write(path, bytes).map_err(|source| TensorError::File { path: place, source })
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// If a tensor has not as many elements as its shape says.
    pub fn encode(&self, precision: Precision) -> Result<Vec<u8>, safetensors::SafeTensorError> {
        let kind = match precision {
            Precision::Single => Dtype::F32,
            Precision::Double => Dtype::F64,
        };
        let encode = |tensor: &Tensor| -> Vec<u8> {
            match precision {
                Precision::Single => tensor.values.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect(),
                Precision::Double => tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            }
        };
        let encoded: Vec<(&String, &Tensor, Vec<u8>)> =
            self.tensors.iter().map(|(name, tensor)| (name, tensor, encode(tensor))).collect();
        let views = encoded
            .iter()
            .map(|(name, tensor, bytes)| Ok((*name, TensorView::new(kind, tensor.shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        let metadata: HashMap<String, String> =
            self.metadata.iter().map(|(key, text)| (key.clone(), text.clone())).collect();
        safetensors::serialize(views, (!metadata.is_empty()).then_some(metadata))
    }
}

/// The elements of a tensor, unless its kind is not read.
fn values(view: &TensorView<'_>) -> Option<Vec<f64>> {
    let bytes = view.data();
    match view.dtype() {
        Dtype::F64 => Some(elements(bytes, f64::from_le_bytes)),
        Dtype::F32 => Some(elements(bytes, |bytes| f64::from(f32::from_le_bytes(bytes)))),
        Dtype::I64 => Some(elements(bytes, |bytes| i64::from_le_bytes(bytes) as f64)),
        Dtype::I32 => Some(elements(bytes, |bytes| f64::from(i32::from_le_bytes(bytes)))),
        Dtype::U8 => Some(bytes.iter().map(|&byte| f64::from(byte)).collect()),
        _ => None,
    }
}

fn elements<const N: usize>(bytes: &[u8], decode: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|&chunk| decode(chunk)).collect()
}
