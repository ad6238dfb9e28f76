//! Parameters and running statistics as a PyTorch `state_dict`.

use super::layout;
use super::tensors::{Tensor, Tensors};
use kronfleet_core::backend::Backend;
use kronfleet_core::layer::Parameter;
use kronfleet_core::network::Network;
use kronfleet_core::scalar::Scalar;
use std::collections::BTreeMap;

/// Why tensors are not this network's state.
#[derive(Debug, thiserror::Error)]
pub enum StateError<E: std::error::Error> {
    /// Names or shapes differ; all of them are listed.
    #[error("the tensors do not fit the network: {}; load them into the model they were saved from", .0.join("; "))]
    Mismatch(Vec<String>),
    /// The backend failed.
    #[error(transparent)]
    Backend(E),
}

impl<E: std::error::Error> From<E> for StateError<E> {
    fn from(error: E) -> Self {
        Self::Backend(error)
    }
}

/// The names a tensor may have: PyTorch's EvoNorm implementations say `weight` and `bias`, or `gamma` and `beta`.
pub(crate) fn aliases(name: &str) -> [String; 2] {
    let other = match name.rsplit_once('.') {
        Some((layer, "weight")) => format!("{layer}.gamma"),
        Some((layer, "bias")) => format!("{layer}.beta"),
        _ => name.to_owned(),
    };
    [name.to_owned(), other]
}

/// Copies a `state_dict` into the network. `num_batches_tracked` is ignored: nothing here depends on it.
///
/// # Errors
/// If a tensor is missing, unexpected or of another shape (all are named, and nothing is changed then), or the backend
/// fails.
pub fn load<B: Backend>(
    backend: &mut B,
    network: &mut Network<B>,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<(), StateError<B::Error>> {
    let mut problems = Vec::new();
    let mut left: BTreeMap<&str, &Tensor> = tensors
        .iter()
        .filter(|(name, _)| !name.ends_with("num_batches_tracked"))
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    let mut take = |parameter: &Parameter| {
        let found = aliases(&parameter.name).iter().find_map(|name| left.remove(name.as_str()));
        let shape = layout::shape(parameter);
        match found {
            None => problems.push(format!("{} {shape:?} is missing", parameter.name)),
            Some(tensor) if tensor.shape != shape => {
                problems.push(format!("{} has shape {:?} instead of {shape:?}", parameter.name, tensor.shape));
            }
            Some(_) => {}
        }
        found
    };
    let parameters: Vec<_> = network.table().iter().map(&mut take).collect();
    let running: Vec<_> = network.running_table().iter().map(&mut take).collect();
    problems.extend(left.iter().map(|(name, tensor)| format!("{name} {:?} is unexpected", tensor.shape)));
    if !problems.is_empty() {
        return Err(StateError::Mismatch(problems));
    }
    let (table, running_table) = (network.table().to_vec(), network.running_table().to_vec());
    upload(backend, &table, &parameters, network.parameters_len(), &mut network.parameters)?;
    let running_len = network.running_len();
    upload(backend, &running_table, &running, running_len, &mut network.running)?;
    Ok(())
}

fn upload<B: Backend>(
    backend: &mut B,
    table: &[Parameter],
    tensors: &[Option<&Tensor>],
    len: usize,
    target: &mut B::Buffer,
) -> Result<(), B::Error> {
    let mut ours = vec![0.0; len];
    for (parameter, tensor) in table.iter().zip(tensors) {
        let Some(tensor) = tensor else { continue };
        let region = parameter.region;
        let columns = layout::column_places(parameter.kind, region.columns);
        layout::from_pytorch(region, &tensor.values, &layout::unmoved(region.rows), &columns, &mut ours);
    }
    let ours: Vec<B::Scalar> = ours.into_iter().map(B::Scalar::of).collect();
    backend.upload(&ours, target, 0)
}

/// Waits for the network's state as a `state_dict`.
///
/// # Errors
/// If the backend fails.
pub fn save<B: Backend>(backend: &mut B, network: &Network<B>) -> Result<Tensors, B::Error> {
    let mut tensors = to_tensors(backend, network.table(), &network.parameters)?;
    tensors.extend(to_tensors(backend, network.running_table(), &network.running)?);
    Ok(Tensors { tensors, metadata: BTreeMap::from([("format".into(), "pt".into())]) })
}

/// Waits for a buffer laid out as `table`, such as the gradient, in PyTorch's layout.
///
/// # Errors
/// If the backend fails.
pub fn to_tensors<B: Backend>(
    backend: &mut B,
    table: &[Parameter],
    buffer: &B::Buffer,
) -> Result<BTreeMap<String, Tensor>, B::Error> {
    let len = table.iter().map(|parameter| parameter.region.end()).max().unwrap_or(0);
    let ours: Vec<f64> = backend.fetch(buffer, 0..len)?.into_iter().map(Scalar::wide).collect();
    let tensor = |parameter: &Parameter| {
        let region = parameter.region;
        let columns = layout::column_places(parameter.kind, region.columns);
        let values = layout::to_pytorch(region, &ours, &layout::unmoved(region.rows), &columns);
        (parameter.name.clone(), Tensor { shape: layout::shape(parameter), values })
    };
    Ok(table.iter().map(tensor).collect())
}
