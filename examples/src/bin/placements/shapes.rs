//! The layers of networks that placements were published for: shapes alone, nothing of them is trained here.

use anyhow::{Result, bail};
use kronfleet_core::backend::Extent;
use kronfleet_core::network::Network;
use kronfleet_core::placement::Load;
use kronfleet_examples::model::Model;
use kronfleet_faer::Faer;

/// What [`shapes`] knows beside the trainers' own models.
pub(crate) const NAMES: [&str; 5] = ["resnet50", "resnet152", "densenet201", "vgg16", "transformer"];

/// The layers of a network, in order, images having 224 pixels a side: one of [`NAMES`] or a model of the trainers.
///
/// # Errors
/// If there is no such network.
pub(crate) fn shapes(name: &str) -> Result<Vec<Load>> {
    Ok(match name {
        "resnet50" => residual([3, 4, 6, 3]),
        "resnet152" => residual([3, 8, 36, 3]),
        "densenet201" => dense([6, 12, 48, 32]),
        "vgg16" => vgg16(),
        "transformer" => transformer(),
        _ => {
            let model = trained(name)?;
            let network = Network::build(&mut Faer::<f32>::new(1), model.input, &model.layers, 1)?;
            network.blocks().iter().map(Load::from).collect()
        }
    })
}

/// A network that can be trained here.
pub(crate) fn trained(name: &str) -> Result<Model> {
    let input = match name {
        name if name.starts_with("resnet") => Extent::new(3, 32, 32),
        _ => Extent::new(1, 28, 28),
    };
    let model = Model::choose(name, input, 10);
    model.or_else(|error| bail!("{error:#}; known beside these, by their shapes alone, are {}", NAMES.join(", ")))
}

fn convolution(inputs: usize, outputs: usize, kernel: usize, side: usize) -> Load {
    Load::new(outputs, inputs * kernel * kernel, side * side).patches(kernel * kernel)
}

/// ResNets of bottlenecks (He et al. 2015, table 1), strides in the 3 × 3 convolutions.
fn residual(blocks: [usize; 4]) -> Vec<Load> {
    let mut layers = vec![convolution(3, 64, 7, 112)];
    let mut inputs = 64;
    for (stage, count) in blocks.into_iter().enumerate() {
        let (width, side) = (64 << stage, 56 >> stage);
        for block in 0..count {
            let before = if block == 0 && stage > 0 { 2 * side } else { side };
            layers.extend([
                convolution(inputs, width, 1, before),
                convolution(width, width, 3, side),
                convolution(width, 4 * width, 1, side),
            ]);
            if block == 0 {
                layers.push(convolution(inputs, 4 * width, 1, side));
            }
            inputs = 4 * width;
        }
    }
    layers.push(Load::new(1000, inputs + 1, 1));
    layers
}

/// DenseNets of growth 32 (Huang et al. 2017, table 1).
fn dense(blocks: [usize; 4]) -> Vec<Load> {
    const GROWTH: usize = 32;
    let mut layers = vec![convolution(3, 2 * GROWTH, 7, 112)];
    let mut channels = 2 * GROWTH;
    for (stage, count) in blocks.into_iter().enumerate() {
        let side = 56 >> stage;
        for _ in 0..count {
            layers.push(convolution(channels, 4 * GROWTH, 1, side));
            layers.push(convolution(4 * GROWTH, GROWTH, 3, side));
            channels += GROWTH;
        }
        if stage < 3 {
            layers.push(convolution(channels, channels / 2, 1, side));
            channels /= 2;
        }
    }
    layers.push(Load::new(1000, channels + 1, 1));
    layers
}

/// VGG of 16 layers (Simonyan & Zisserman 2015, configuration D), with biases.
fn vgg16() -> Vec<Load> {
    let mut layers = Vec::new();
    let mut inputs = 3;
    for (stage, (outputs, count)) in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)].into_iter().enumerate() {
        let side = 224 >> stage;
        for _ in 0..count {
            layers.push(Load::new(outputs, 9 * inputs + 1, side * side).patches(9));
            inputs = outputs;
        }
    }
    layers
        .extend([(4096, 512 * 49 + 1), (4096, 4097), (1000, 4097)].map(|(rows, columns)| Load::new(rows, columns, 1)));
    layers
}

/// Encoder and decoder of six layers each (Vaswani et al. 2017, the base model), on sentences of 32 tokens; embeddings have
/// no factors.
fn transformer() -> Vec<Load> {
    const WIDTH: usize = 512;
    const TOKENS: usize = 32;
    let mut layers = Vec::new();
    for attentions in [1, 2] {
        for _ in 0..6 {
            layers.extend((0..4 * attentions).map(|_| Load::new(WIDTH, WIDTH + 1, TOKENS)));
            layers.push(Load::new(4 * WIDTH, WIDTH + 1, TOKENS));
            layers.push(Load::new(WIDTH, 4 * WIDTH + 1, TOKENS));
        }
    }
    layers
}

/// Values that every member of a training holds, whatever the placement: weights, gradients and momentum, and the outputs of
/// all layers for a batch twice, as they leave a layer and as they leave what is behind it.
pub(crate) fn held(layers: &[Load], batch: usize) -> usize {
    let outputs = layers.iter().map(|load| load.rows * load.positions * batch).sum::<usize>();
    3 * layers.iter().map(Load::parameters).sum::<usize>() + 2 * outputs
}

/// Parameters with factors, and elements of all factors: whole, and as triangles.
pub(crate) fn elements(layers: &[Load]) -> [usize; 3] {
    let sides = || layers.iter().flat_map(|load| [load.rows, load.columns]);
    let parameters = layers.iter().map(Load::parameters).sum();
    [parameters, sides().map(|rows| rows * rows).sum(), sides().map(|rows| rows * (rows + 1) / 2).sum()]
}
