//! A trainer's numbers as tensors named by layer.
//!
//! Every layer has a file of its own. In it, `n3/weight` is what node 3 holds, `fleet/factor/a` what a fleet of another
//! size begins with. Parameters, running statistics, optimiser state and factors are laid out as in PyTorch;
//! decompositions and second moments, which mean nothing elsewhere, as they lie in memory (column-major).

use crate::model::layout;
use crate::model::tensors::{Tensor, Tensors};
use kronfleet_core::backend::Backend;
use kronfleet_core::layer::{Block, Parameter, ParameterKind};
use kronfleet_core::matrix::Region;
use kronfleet_core::network::Network;
use kronfleet_core::scalar::Scalar;
use kronfleet_core::trainer::Checkpoint;
use std::collections::BTreeMap;

/// Where the numbers of a network's trainer lie.
#[derive(Clone, Debug)]
pub struct Layers {
    parameters: Vec<Parameter>,
    running: Vec<Parameter>,
    blocks: Vec<Block>,
    /// Whether these have factors.
    factored: bool,
    /// Scalars in the flat parameters, running statistics and factors.
    lens: [usize; 3],
    names: Vec<String>,
}

/// Named tensors.
type Named = BTreeMap<String, Tensor>;

impl Layers {
    /// Those of `network`, whose preconditioner keeps something of `blocks`: factors, or if not `factored` other things.
    pub fn new<B: Backend>(network: &Network<B>, blocks: &[Block], factored: bool) -> Self {
        let mut names: Vec<String> = Vec::new();
        let tables = network.table().iter().chain(network.running_table());
        for name in
            tables.map(|parameter| split(&parameter.name).0).chain(blocks.iter().map(|block| block.name.as_str()))
        {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        Self {
            parameters: network.table().to_vec(),
            running: network.running_table().to_vec(),
            blocks: blocks.to_vec(),
            factored: factored && !blocks.is_empty(),
            lens: [network.parameters_len(), network.running_len(), network.statistics_len()],
            names,
        }
    }

    /// The layers' names, in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The scalars in the flat parameters and in the running statistics.
    pub fn lens(&self) -> [usize; 2] {
        [self.lens[0], self.lens[1]]
    }

    /// The blocks that the preconditioner keeps something of.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Adds what `who` holds of `layer` to `tensors`.
    pub fn put<S: Scalar>(&self, layer: &str, who: &str, state: &Checkpoint<S>, tensors: &mut Tensors) {
        let mut add = |name: String, tensor: Tensor| tensors.tensors.insert(format!("{who}/{name}"), tensor);
        for parameter in of(&self.parameters, layer) {
            let own = split(&parameter.name).1;
            add(own.into(), extract(parameter, &state.parameters));
            for (index, buffer) in state.optimiser.iter().enumerate() {
                add(format!("optimiser/{index}/{own}"), extract(parameter, buffer));
            }
        }
        for statistic in of(&self.running, layer) {
            add(split(&statistic.name).1.into(), extract(statistic, &state.running));
        }
        for (what, buffers) in [("memory", &state.preconditioner.buffers), ("drift", &state.drift.0)] {
            for (index, buffer) in buffers.iter().enumerate() {
                for parameter in of(&self.parameters, layer) {
                    add(format!("{what}/{index}/{}", split(&parameter.name).1), extract(parameter, buffer));
                }
            }
        }
        let Some((index, block)) = self.block(layer) else { return };
        if self.factored {
            for (name, tensor) in self.factors(index, block, &state.factors) {
                add(name, tensor);
            }
        }
        let Some(kept) = state.preconditioner.blocks.get(index) else { return };
        for (side, decomposition, spectrum) in
            [("a", &kept.decompositions[0], &kept.spectra[0]), ("g", &kept.decompositions[1], &kept.spectra[1])]
        {
            if self.factored {
                add(format!("decomposition/{side}"), plain(decomposition));
            }
            if !spectrum.is_empty() {
                add(format!("spectrum/{side}"), plain(spectrum));
            }
        }
        if !kept.moments.is_empty() {
            add("moments".into(), plain(&kept.moments));
        }
        let started = f64::from(u8::from(kept.moments_started));
        let counts = [kept.accepted, kept.raised, S::of(f64::from(kept.failures)), kept.moment_weight, S::of(started)];
        add("counts".into(), plain(&counts));
    }

    /// Adds the factors of `layer`, flat values and weights, to `tensors`.
    pub fn put_factors<S: Scalar>(&self, layer: &str, who: &str, factors: &[Vec<S>; 2], tensors: &mut Tensors) {
        if let Some((index, block)) = self.block(layer).filter(|_| self.factored) {
            for (name, tensor) in self.factors(index, block, factors) {
                tensors.tensors.insert(format!("{who}/{name}"), tensor);
            }
        }
    }

    /// Adds one flat buffer in the layout of the parameters to `tensors`.
    pub fn put_parameters<S: Scalar>(&self, layer: &str, prefix: &str, flat: &[S], tensors: &mut Tensors) {
        for parameter in of(&self.parameters, layer) {
            let name = format!("{prefix}/{}", split(&parameter.name).1);
            tensors.tensors.insert(name, extract(parameter, flat));
        }
    }

    /// Parameters and running statistics by their names in PyTorch: a `state_dict`.
    pub fn model<S: Scalar>(&self, parameters: &[S], running: &[S]) -> Tensors {
        let named = |table: &[Parameter], flat: &[S]| -> Named {
            table.iter().map(|parameter| (parameter.name.clone(), extract(parameter, flat))).collect()
        };
        let mut tensors = named(&self.parameters, parameters);
        tensors.extend(named(&self.running, running));
        Tensors { tensors, metadata: BTreeMap::from([("format".into(), "pt".into())]) }
    }

    /// The inverse of [`model`](Self::model).
    ///
    /// # Errors
    /// Which tensor is missing or has another shape.
    pub fn take_model<S: Scalar>(&self, tensors: &Tensors) -> Result<(Vec<S>, Vec<S>), String> {
        let mut flat = [vec![S::zero(); self.lens[0]], vec![S::zero(); self.lens[1]]];
        for (table, flat) in [&self.parameters, &self.running].into_iter().zip(&mut flat) {
            for parameter in table {
                insert(parameter, find(tensors, &parameter.name, &layout::shape(parameter))?, flat);
            }
        }
        let [parameters, running] = flat;
        Ok((parameters, running))
    }

    /// Takes what `who` holds of `layer` out of `tensors` into `state`, whose buffers have the right lengths and whose
    /// blocks are as many as those of the layers.
    ///
    /// # Errors
    /// Which tensor is missing or has another shape.
    pub fn take<S: Scalar>(
        &self,
        layer: &str,
        who: &str,
        tensors: &Tensors,
        state: &mut Checkpoint<S>,
    ) -> Result<(), String> {
        for parameter in of(&self.parameters, layer) {
            let (own, shape) = (split(&parameter.name).1, layout::shape(parameter));
            insert(parameter, find(tensors, &format!("{who}/{own}"), &shape)?, &mut state.parameters);
            for (index, buffer) in state.optimiser.iter_mut().enumerate() {
                insert(parameter, find(tensors, &format!("{who}/optimiser/{index}/{own}"), &shape)?, buffer);
            }
        }
        for statistic in of(&self.running, layer) {
            let name = format!("{who}/{}", split(&statistic.name).1);
            insert(statistic, find(tensors, &name, &layout::shape(statistic))?, &mut state.running);
        }
        for (what, buffers) in [("memory", &mut state.preconditioner.buffers), ("drift", &mut state.drift.0)] {
            for (index, buffer) in buffers.iter_mut().enumerate() {
                self.take_parameters(layer, &format!("{who}/{what}/{index}"), tensors, buffer)?;
            }
        }
        let Some((index, block)) = self.block(layer) else { return Ok(()) };
        self.take_factors(layer, who, tensors, &mut state.factors)?;
        let Some(kept) = state.preconditioner.blocks.get_mut(index) else { return Ok(()) };
        let vector = |name: String, len: usize| find(tensors, &format!("{who}/{name}"), &[len]).map(narrow::<S>);
        let optional = |name: String, len: usize| match tensors.tensors.contains_key(&format!("{who}/{name}")) {
            true => vector(name, len),
            false => Ok(Vec::new()),
        };
        for (at, (side, region)) in [("a", block.a), ("g", block.g)].into_iter().enumerate() {
            if self.factored {
                kept.decompositions[at] = vector(format!("decomposition/{side}"), region.len())?;
            }
            kept.spectra[at] = optional(format!("spectrum/{side}"), region.rows)?;
        }
        kept.moments = optional("moments".into(), block.parameters.len())?;
        let counts = vector("counts".into(), 5)?;
        (kept.accepted, kept.raised, kept.moment_weight) = (counts[0], counts[1], counts[3]);
        kept.failures = counts[2].wide() as u32;
        kept.moments_started = counts[4].wide() != 0.0;
        Ok(())
    }

    /// Takes the factors of `layer` out of `tensors` into flat values and weights.
    ///
    /// # Errors
    /// Which tensor is missing or has another shape.
    pub fn take_factors<S: Scalar>(
        &self,
        layer: &str,
        who: &str,
        tensors: &Tensors,
        factors: &mut [Vec<S>; 2],
    ) -> Result<(), String> {
        let Some((index, block)) = self.block(layer).filter(|_| self.factored) else { return Ok(()) };
        let [values, weights] = factors;
        for (side, region) in [("a", block.a), ("g", block.g)] {
            let tensor = find(tensors, &format!("{who}/factor/{side}"), &[region.rows, region.columns])?;
            let places = self.places(block, side);
            put_matrix(region, tensor, &places, &places, values);
        }
        weights[index] = S::of(find(tensors, &format!("{who}/factor/weight"), &[1])?.values[0]);
        Ok(())
    }

    /// Takes one flat buffer in the layout of the parameters out of `tensors`, as far as `layer` goes.
    ///
    /// # Errors
    /// Which tensor is missing or has another shape.
    pub fn take_parameters<S: Scalar>(
        &self,
        layer: &str,
        prefix: &str,
        tensors: &Tensors,
        flat: &mut [S],
    ) -> Result<(), String> {
        for parameter in of(&self.parameters, layer) {
            let name = format!("{prefix}/{}", split(&parameter.name).1);
            insert(parameter, find(tensors, &name, &layout::shape(parameter))?, flat);
        }
        Ok(())
    }

    /// Zeros for flat factor values and weights; both empty without blocks.
    pub fn no_factors<S: Scalar>(&self) -> [Vec<S>; 2] {
        let [values, weights] = if self.factored { [self.lens[2], self.blocks.len()] } else { [0, 0] };
        [vec![S::zero(); values], vec![S::zero(); weights]]
    }

    fn block(&self, layer: &str) -> Option<(usize, &Block)> {
        self.blocks.iter().enumerate().find(|(_, block)| block.name == layer)
    }

    fn factors<S: Scalar>(&self, index: usize, block: &Block, factors: &[Vec<S>; 2]) -> Vec<(String, Tensor)> {
        let [values, weights] = factors;
        let mut named = Vec::new();
        for (side, region) in [("a", block.a), ("g", block.g)] {
            let places = self.places(block, side);
            let tensor =
                Tensor { shape: vec![region.rows, region.columns], values: matrix(region, values, &places, &places) };
            named.push((format!("factor/{side}"), tensor));
        }
        named.push(("factor/weight".into(), plain(&weights[index..=index])));
        named
    }

    /// The places of a factor's rows and columns in PyTorch's order.
    fn places(&self, block: &Block, side: &str) -> Vec<usize> {
        let within = block.parameters.offset..block.parameters.end();
        let weights = self.parameters.iter().find(|parameter| {
            matches!(parameter.kind, ParameterKind::Dense(_) | ParameterKind::Convolution { .. })
                && within.contains(&parameter.region.offset)
        });
        match weights {
            Some(weights) if side == "a" => layout::column_places(weights.kind, block.a.rows),
            _ => layout::unmoved(if side == "a" { block.a.rows } else { block.g.rows }),
        }
    }
}

/// The name of a layer's file.
pub fn file(layer: &str) -> String {
    let mut name = String::from("layers/");
    for (at, byte) in layer.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => name.push(char::from(byte)),
            b'.' if at > 0 => name.push('.'),
            // No layer's name leads out of the folder or means something to a shell.
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    name + ".safetensors"
}

/// A parameter's layer and its name in it.
fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or(("", name))
}

fn of<'a>(table: &'a [Parameter], layer: &str) -> impl Iterator<Item = &'a Parameter> {
    table.iter().filter(move |parameter| split(&parameter.name).0 == layer)
}

fn find<'a>(tensors: &'a Tensors, name: &str, shape: &[usize]) -> Result<&'a Tensor, String> {
    let tensor = tensors.tensors.get(name).ok_or_else(|| format!("tensor {name} {shape:?} is missing"))?;
    if tensor.shape != shape {
        return Err(format!("tensor {name} has shape {:?} instead of {shape:?}", tensor.shape));
    }
    Ok(tensor)
}

fn plain<S: Scalar>(values: &[S]) -> Tensor {
    Tensor { shape: vec![values.len()], values: values.iter().map(|value| value.wide()).collect() }
}

fn narrow<S: Scalar>(tensor: &Tensor) -> Vec<S> {
    tensor.values.iter().map(|&value| S::of(value)).collect()
}

fn extract<S: Scalar>(parameter: &Parameter, flat: &[S]) -> Tensor {
    let region = parameter.region;
    let columns = layout::column_places(parameter.kind, region.columns);
    let values = matrix(region, flat, &layout::unmoved(region.rows), &columns);
    Tensor { shape: layout::shape(parameter), values }
}

fn insert<S: Scalar>(parameter: &Parameter, tensor: &Tensor, flat: &mut [S]) {
    let region = parameter.region;
    let columns = layout::column_places(parameter.kind, region.columns);
    put_matrix(region, tensor, &layout::unmoved(region.rows), &columns, flat);
}

fn matrix<S: Scalar>(region: Region, flat: &[S], rows: &[usize], columns: &[usize]) -> Vec<f64> {
    let ours: Vec<f64> = flat[region.offset..region.end()].iter().map(|value| value.wide()).collect();
    layout::to_pytorch(Region { offset: 0, ..region }, &ours, rows, columns)
}

fn put_matrix<S: Scalar>(region: Region, tensor: &Tensor, rows: &[usize], columns: &[usize], flat: &mut [S]) {
    let mut ours = vec![0.0; region.end() - region.offset];
    layout::from_pytorch(Region { offset: 0, ..region }, &tensor.values, rows, columns, &mut ours);
    for (value, ours) in flat[region.offset..region.end()].iter_mut().zip(ours) {
        *value = S::of(ours);
    }
}
