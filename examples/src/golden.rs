//! Comparison with golden values: one training batch of another implementation, in a safetensors file.
//!
//! A case holds `param.NAME` (all parameters and normalisation buffers), `input`, `label`, and any of the tensors below;
//! only what is there is compared. Names and layouts are PyTorch's; `LAYER` is a layer with a weight matrix.
//!
//! | tensor | group | content |
//! |---|---|---|
//! | `logits`, `loss` | the same | forward pass in training mode, mean cross-entropy |
//! | `grad.NAME` | `grad` | gradient of the loss |
//! | `factor_a.LAYER`, `factor_g.LAYER` | the same | Ω and Γ, bias column last |
//! | `matrix_grad.LAYER` | the same | `[dW \| db]` |
//! | `eigen.LAYER`, `inverse.LAYER` | the same | preconditioned gradients, unclipped |
//!
//! | metadata key | needed for | default |
//! |---|---|---|
//! | `damping` | `eigen.*`, `inverse.*`, `kl_scale_eigen` | none |
//! | `learning_rate`, `kl_clip` | `kl_scale_eigen` | none |
//! | `kl_scale_eigen` | compared, group `kl_scale_eigen` | not compared |
//! | `label_smoothing` | loss and gradients | 0 |
//!
//! The deviation of a tensor is `max |ours − theirs| / max |theirs|`, that of a group the worst of its tensors'. A tensor
//! whose largest element is below 2⁻⁴⁰ of its group's is zero but for rounding, such as the gradient of a bias before a
//! batch normalisation: it is measured by its group's largest element instead.

use crate::model::tensors::{Tensor, Tensors};
use crate::model::{Model, layout, state};
use anyhow::{Context, bail, ensure};
use kronfleet_core::backend::{Backend, Extent};
use kronfleet_core::layer::{Block, Mode, Parameter};
use kronfleet_core::matrix::Region;
use kronfleet_core::network::Network;
use kronfleet_core::preconditioner::{Form, Kronecker, Options, Preconditioner};
use kronfleet_core::scalar::Scalar;
use kronfleet_faer::Faer;
use kronfleet_nalgebra::Nalgebra;
use std::collections::BTreeMap;

/// The groups, in the order in which a step computes them.
pub const GROUPS: [&str; 9] =
    ["logits", "loss", "grad", "factor_a", "factor_g", "matrix_grad", "eigen", "inverse", "kl_scale_eigen"];

/// How far one group of tensors deviates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Deviation {
    /// Tensors compared; 0 where the file has none of this group.
    pub compared: usize,
    /// The largest relative deviation, infinite where something is not finite.
    pub worst: f64,
    /// The tensor it was found in.
    pub tensor: String,
}

/// A case made ready: a batch and what should come of it.
#[derive(Clone, Debug)]
pub struct Case {
    tensors: Tensors,
    x: Vec<f64>,
    labels: Vec<u32>,
}

impl Case {
    /// The extent of one sample of a file's input, and the number of classes of its logits (10 where it has none).
    ///
    /// # Errors
    /// If there is no input.
    pub fn shape(tensors: &Tensors) -> anyhow::Result<(Extent, usize)> {
        let input = tensors.tensors.get("input").context("the case has no tensor `input`")?;
        let extent = match input.shape[..] {
            [_, features] => Extent::flat(features),
            [_, channels, height, width] => Extent::new(channels, height, width),
            _ => bail!(
                "`input` has shape {:?}; expected samples × channels × height × width or samples × features",
                input.shape
            ),
        };
        let classes = tensors.tensors.get("logits").and_then(|logits| logits.shape.last().copied());
        Ok((extent, classes.unwrap_or(10)))
    }

    /// Reads batch and labels for samples of extent `input`.
    ///
    /// # Errors
    /// If they are missing or do not fit the input or each other.
    pub fn new(tensors: Tensors, input: Extent) -> anyhow::Result<Self> {
        let (found, _) = Self::shape(&tensors)?;
        // A vector is the same in either layout; everything else has to agree extent by extent.
        let flat = |extent: Extent| extent.positions() == 1;
        let fits = found == input || (found.len() == input.len() && (flat(found) || flat(input)));
        ensure!(fits, "`input` has samples of {found}, the model sees {input}; correct `input` in the model");
        let x = layout::batch_from_pytorch(input, &tensors.tensors["input"].values);
        let label = tensors.tensors.get("label").context("the case has no tensor `label`")?;
        let whole = |&label: &f64| {
            let fits = label >= 0.0 && label <= f64::from(u32::MAX) && label.fract() == 0.0;
            fits.then_some(label as u32).with_context(|| format!("`label` holds {label}; expected classes, from 0"))
        };
        let labels = label.values.iter().map(whole).collect::<anyhow::Result<Vec<_>>>()?;
        let samples = tensors.tensors["input"].shape[0];
        ensure!(labels.len() == samples && samples > 0, "{} labels for {samples} samples", labels.len());
        Ok(Self { tensors, x, labels })
    }

    fn parameters(&self) -> BTreeMap<String, Tensor> {
        let named = self.tensors.tensors.iter();
        named.filter_map(|(name, tensor)| Some((name.strip_prefix("param.")?.to_owned(), tensor.clone()))).collect()
    }

    fn has(&self, group: &str) -> bool {
        let prefix = format!("{group}.");
        self.tensors.tensors.keys().any(|name| name.starts_with(&prefix))
    }

    fn number(&self, key: &str, purpose: &str, fits: impl Fn(f64) -> bool) -> anyhow::Result<f64> {
        let text = self.tensors.metadata.get(key).with_context(|| {
            format!("the case's metadata lack the key `{key}`, which {purpose} were computed with; add it when writing the case")
        })?;
        let number = text.trim().parse().ok().filter(|&number: &f64| number.is_finite() && fits(number));
        number.with_context(|| format!("the case's metadata have {key} = {text:?}, which {purpose} cannot have had"))
    }

    fn damping(&self) -> anyhow::Result<f64> {
        self.number("damping", "the preconditioned gradients", |damping| damping > 0.0)
    }

    fn smoothing(&self) -> anyhow::Result<f64> {
        if self.tensors.metadata.contains_key("label_smoothing") {
            return self.number("label_smoothing", "loss and gradients", |share| (0.0..=1.0).contains(&share));
        }
        Ok(0.0)
    }
}

/// Runs the case on faer, with one thread, and compares; one entry for each of [`GROUPS`].
///
/// # Errors
/// If the model does not build, names or shapes differ, metadata are missing, or the backend fails.
pub fn on_faer(model: &Model, case: &Case) -> anyhow::Result<BTreeMap<&'static str, Deviation>> {
    check(&mut Faer::<f64>::new(1), model, case)
}

/// The same on nalgebra.
///
/// # Errors
/// As [`on_faer`].
pub fn on_nalgebra(model: &Model, case: &Case) -> anyhow::Result<BTreeMap<&'static str, Deviation>> {
    check(&mut Nalgebra::<f64>::new(), model, case)
}

fn check<B>(backend: &mut B, model: &Model, case: &Case) -> anyhow::Result<BTreeMap<&'static str, Deviation>>
where
    B: Backend<Scalar = f64, Download: Send, Verdict: Send> + Send,
{
    let batch = case.labels.len();
    let mut network = Network::build(backend, model.input, &model.layers, batch)?;
    let classes = network.classes() as u32;
    if let Some(label) = case.labels.iter().find(|&&label| label >= classes) {
        bail!("label {label} is not one of the model's {classes} classes");
    }
    state::load(backend, &mut network, &case.parameters())?;
    network.load(backend, &case.x, &case.labels)?;
    let mut statistics = backend.allocate(network.statistics_len())?;
    network.forward(backend, batch, Mode::Train, Some(&mut statistics))?;
    network.loss(backend, batch, case.smoothing()?)?;
    network.backward(backend, batch, Some(&mut statistics), None)?;

    let mut comparison = Comparison { case, found: BTreeMap::new() };
    let classes = network.classes();
    let logits = backend.fetch(network.logits(), 0..classes * batch)?;
    comparison.one("logits", "logits", &[batch, classes], &logits)?;
    let loss = backend.fetch(network.loss_value(), 0..1)?;
    comparison.one("loss", "loss", &[1], &loss)?;
    let gradients = state::to_tensors(backend, network.table(), &network.gradient)?;
    comparison.gradients(&gradients)?;
    comparison.blocks(backend, &network, "matrix_grad", &network.gradient, Side::Parameters)?;
    comparison.blocks(backend, &network, "factor_a", &statistics, Side::Input)?;
    comparison.blocks(backend, &network, "factor_g", &statistics, Side::Output)?;

    let scale = case.tensors.metadata.contains_key("kl_scale_eigen");
    if case.has("inverse") {
        let options = Options { form: Form::Inverse, damping: case.damping()?, clip: None, ..Options::default() };
        let [v] = directions(backend, &network, &statistics, options, [0.0])?;
        comparison.blocks(backend, &network, "inverse", &v, Side::Parameters)?;
    }
    if case.has("eigen") || scale {
        let positive = |number| number > 0.0;
        let (rate, clip) = if scale {
            (case.number("learning_rate", "the clip", positive)?, Some(case.number("kl_clip", "the clip", positive)?))
        } else {
            (0.0, None)
        };
        let options = Options { form: Form::Eigen, damping: case.damping()?, clip, ..Options::default() };
        // A step of length zero is never clipped.
        let [free, clipped] = directions(backend, &network, &statistics, options, [0.0, rate])?;
        comparison.blocks(backend, &network, "eigen", &free, Side::Parameters)?;
        if scale {
            let ours = ratio(backend, &network, &clipped, &free)?;
            let theirs = case.number("kl_scale_eigen", "the clip", |_| true)?;
            let theirs = Tensor { shape: vec![1], values: vec![theirs] };
            comparison.note("kl_scale_eigen", "kl_scale_eigen", &theirs, &[ours]);
        }
    }
    Ok(GROUPS.map(|group| (group, comparison.deviation(group))).into())
}

/// What the preconditioner makes of the network's gradient after a single batch with these statistics, for each of
/// these learning rates.
fn directions<B, const N: usize>(
    backend: &mut B,
    network: &Network<B>,
    statistics: &B::Buffer,
    options: Options,
    learning_rates: [f64; N],
) -> anyhow::Result<[B::Buffer; N]>
where
    B: Backend<Scalar = f64, Download: Send, Verdict: Send> + Send,
{
    let (of_statistics, of_parameters) = (network.statistics_len(), network.parameters_len());
    let mut preconditioner = Kronecker::new(backend, network.blocks(), of_statistics, of_parameters, options)?;
    preconditioner.begin(backend)?;
    let taps = preconditioner.taps().context("the first step takes statistics")?;
    backend.axpby(
        1.0,
        statistics,
        0.0,
        taps.statistics.context("K-FAC wants them")?,
        Region::vector(0, of_statistics),
    )?;
    preconditioner.update(backend, 1)?;
    let mut found = Vec::with_capacity(N);
    for learning_rate in learning_rates {
        let mut v = backend.allocate(of_parameters)?;
        preconditioner.precondition(backend, learning_rate, &network.gradient, None, &mut v)?;
        found.push(v);
    }
    Ok(found.try_into().unwrap_or_else(|_| unreachable!("one for each learning rate")))
}

/// How long one direction is along another.
fn ratio<B: Backend<Scalar = f64>>(
    backend: &mut B,
    network: &Network<B>,
    one: &B::Buffer,
    other: &B::Buffer,
) -> anyhow::Result<f64> {
    let len = network.parameters_len();
    let (one, other) = (backend.fetch(one, 0..len)?, backend.fetch(other, 0..len)?);
    let (mut product, mut square) = (0.0, 0.0);
    for block in network.blocks() {
        for at in block.parameters.offset..block.parameters.end() {
            product += one[at] * other[at];
            square += other[at] * other[at];
        }
    }
    Ok(product / square)
}

/// Which matrix of a block a tensor holds.
#[derive(Clone, Copy)]
enum Side {
    Parameters,
    Input,
    Output,
}

struct Comparison<'a> {
    case: &'a Case,
    found: BTreeMap<&'static str, Vec<Distance>>,
}

/// How far apart two tensors are.
struct Distance {
    tensor: String,
    /// `max |ours − theirs|`, infinite where something is not finite.
    apart: f64,
    /// `max |theirs|`.
    largest: f64,
}

/// Below this share of its group's largest element a tensor holds nothing but rounding.
const ROUNDING: f64 = 1.0 / (1_u64 << 40) as f64;

impl Comparison<'_> {
    /// Compares one tensor, if it is there.
    fn one(&mut self, group: &'static str, name: &str, shape: &[usize], ours: &[f64]) -> anyhow::Result<()> {
        let case = self.case;
        let Some(theirs) = case.tensors.tensors.get(name) else { return Ok(()) };
        let scalar = theirs.values.len() == 1 && ours.len() == 1;
        ensure!(
            theirs.shape == shape || scalar,
            "`{name}` has shape {:?}, the model gives {shape:?}; is it the model the case was made with?",
            theirs.shape
        );
        self.note(group, name, theirs, ours);
        Ok(())
    }

    fn note(&mut self, group: &'static str, name: &str, theirs: &Tensor, ours: &[f64]) {
        let (mut apart, mut largest) = (0.0_f64, 0.0_f64);
        for (ours, theirs) in ours.iter().zip(&theirs.values) {
            let difference = (ours - theirs).abs();
            // The maximum alone would pass over a NaN.
            apart = if difference.is_finite() { apart.max(difference) } else { f64::INFINITY };
            largest = largest.max(theirs.abs());
        }
        self.found.entry(group).or_default().push(Distance { tensor: name.to_owned(), apart, largest });
    }

    fn deviation(&self, group: &str) -> Deviation {
        let found = self.found.get(group).map_or(&[][..], Vec::as_slice);
        let of_group = found.iter().fold(0.0_f64, |largest, distance| largest.max(distance.largest));
        let mut deviation = Deviation { compared: found.len(), ..Deviation::default() };
        for Distance { tensor, apart, largest } in found {
            let scale = if *largest < of_group * ROUNDING { of_group } else { *largest };
            // What is not finite never passes, whatever it is compared with.
            let relative = if scale > 0.0 && apart.is_finite() { apart / scale } else { *apart };
            if relative >= deviation.worst {
                (deviation.worst, deviation.tensor) = (relative, tensor.clone());
            }
        }
        deviation
    }

    fn gradients(&mut self, gradients: &BTreeMap<String, Tensor>) -> anyhow::Result<()> {
        let mut known = Vec::new();
        for (name, gradient) in gradients {
            let aliases = state::aliases(name);
            let name = aliases.iter().find(|name| self.case.tensors.tensors.contains_key(&format!("grad.{name}")));
            let name = format!("grad.{}", name.unwrap_or(&aliases[0]));
            self.one("grad", &name, &gradient.shape, &gradient.values)?;
            known.push(name);
        }
        self.refuse_unknown("grad", &known)
    }

    /// Compares a matrix of every block, in PyTorch's layout.
    fn blocks<B: Backend<Scalar = f64>>(
        &mut self,
        backend: &mut B,
        network: &Network<B>,
        group: &'static str,
        buffer: &B::Buffer,
        side: Side,
    ) -> anyhow::Result<()> {
        let mut known = Vec::new();
        for block in network.blocks() {
            let columns = layout::column_places(weights(network.table(), block).kind, block.parameters.columns);
            let rows = layout::unmoved(block.parameters.rows);
            let (region, row_places, column_places) = match side {
                Side::Parameters => (block.parameters, &rows, &columns),
                Side::Input => (block.a, &columns, &columns),
                Side::Output => (block.g, &rows, &rows),
            };
            let name = format!("{group}.{}", block.name);
            let ours: Vec<f64> =
                backend.fetch(buffer, region.offset..region.end())?.into_iter().map(Scalar::wide).collect();
            let packed = Region { offset: 0, ..region };
            let theirs = layout::to_pytorch(packed, &ours, row_places, column_places);
            self.one(group, &name, &[region.rows, region.columns], &theirs)?;
            known.push(name);
        }
        self.refuse_unknown(group, &known)
    }

    /// A tensor that belongs to no layer would otherwise pass unnoticed.
    fn refuse_unknown(&self, group: &str, known: &[String]) -> anyhow::Result<()> {
        let prefix = format!("{group}.");
        let unknown = self.case.tensors.tensors.keys().find(|name| name.starts_with(&prefix) && !known.contains(name));
        match unknown {
            Some(name) => bail!("the case has `{name}`, the model only {}", known.join(", ")),
            None => Ok(()),
        }
    }
}

fn weights<'a>(table: &'a [Parameter], block: &Block) -> &'a Parameter {
    let found = table.iter().find(|parameter| parameter.region.offset == block.parameters.offset);
    found.expect("every block starts with its weights")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(tensors: &[(&[f64], &[f64])]) -> f64 {
        let case = Case { tensors: Tensors::default(), x: Vec::new(), labels: Vec::new() };
        let mut comparison = Comparison { case: &case, found: BTreeMap::new() };
        for &(ours, theirs) in tensors {
            let theirs = Tensor { shape: vec![theirs.len()], values: theirs.to_vec() };
            comparison.note("grad", "a tensor", &theirs, ours);
        }
        comparison.deviation("grad").worst
    }

    #[test]
    fn deviations_are_relative_to_the_largest_element() {
        assert_eq!(worst(&[(&[1.0, 2.0], &[1.0, 4.0])]), 0.5);
        assert_eq!(worst(&[(&[1.0], &[1.0]), (&[2e-9], &[1e-9])]), 1.0);
        assert_eq!(worst(&[(&[0.5], &[0.0])]), 0.5);
        assert_eq!(worst(&[(&[f64::NAN, 1.0], &[1.0, 1.0])]), f64::INFINITY);
        assert_eq!(worst(&[(&[1.0], &[f64::INFINITY])]), f64::INFINITY);
    }

    #[test]
    fn rounding_is_measured_by_the_group() {
        assert_eq!(worst(&[(&[4.0], &[4.0]), (&[4e-16], &[0.0])]), 1e-16);
    }
}
