//! The architectures known by name, with the parameter names of the usual PyTorch implementations.

use super::Model;
use kronfleet_core::backend::Extent;
use kronfleet_core::network::{Shape, ShortcutSpec, Spec};

/// What [`named`] knows.
pub const NAMES: [&str; 7] =
    ["mlp", "lenet5", "resnet20", "resnet32", "resnet20-evonorm", "resnet32-evonorm", "resnet18"];

/// The architecture of this name for samples of extent `input`, if there is one.
pub fn named(name: &str, input: Extent, classes: usize) -> Option<Model> {
    let layers = match name {
        "mlp" => mlp(&[512, 512], classes),
        "lenet5" => lenet5(input, classes),
        "resnet20" => cifar_resnet(3, Norm::Batch, classes),
        "resnet32" => cifar_resnet(5, Norm::Batch, classes),
        "resnet20-evonorm" => cifar_resnet(3, Norm::Evo, classes),
        "resnet32-evonorm" => cifar_resnet(5, Norm::Evo, classes),
        "resnet18" => resnet18(classes),
        _ => return None,
    };
    Some(Model { name: name.into(), input, layers })
}

/// Dense layers `fc1`, `fc2`, … with ReLU between them.
pub fn mlp(hidden: &[usize], classes: usize) -> Vec<Spec> {
    let mut layers = vec![Spec::Flatten];
    for (index, &width) in hidden.iter().enumerate() {
        layers.extend([Spec::dense(format!("fc{}", index + 1), width), Spec::Relu]);
    }
    layers.push(Spec::dense(format!("fc{}", hidden.len() + 1), classes));
    layers
}

/// LeNet-5 (LeCun et al. 1998) with ReLU and maximum pooling; images of 28 pixels are padded to 32.
pub fn lenet5(input: Extent, classes: usize) -> Vec<Spec> {
    let padding = if input.height < 32 { 2 } else { 0 };
    vec![
        Spec::convolution("conv1", 6, Shape::square(5, 1, padding)),
        Spec::Relu,
        Spec::MaxPool(Shape::square(2, 2, 0)),
        Spec::convolution("conv2", 16, Shape::square(5, 1, 0)),
        Spec::Relu,
        Spec::MaxPool(Shape::square(2, 2, 0)),
        Spec::Flatten,
        Spec::dense("fc1", 120),
        Spec::Relu,
        Spec::dense("fc2", 84),
        Spec::Relu,
        Spec::dense("fc3", classes),
    ]
}

/// What normalises a residual network for CIFAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Batch normalisation; ReLU after the first of a block and after the sum.
    Batch,
    /// EvoNorm-S0 in 8 groups, which brings its own activation: there is no ReLU anywhere.
    Evo,
}

impl Norm {
    fn layer(self, name: &str) -> Spec {
        match self {
            Self::Batch => Spec::batch_norm(name),
            Self::Evo => Spec::EvoNorm { name: name.into(), groups: 8, epsilon: 1e-5 },
        }
    }

    fn activation(self) -> Option<Spec> {
        (self == Self::Batch).then_some(Spec::Relu)
    }
}

/// The residual network of `6·blocks + 2` layers for 32 × 32 images (He et al. 2015, §4.2) with option-A shortcuts.
pub fn cifar_resnet(blocks: usize, norm: Norm, classes: usize) -> Vec<Spec> {
    let mut layers = vec![Spec::plain_convolution("conv1", 16, Shape::square(3, 1, 1)), norm.layer("bn1")];
    layers.extend(norm.activation());
    for (stage, channels) in [16, 32, 64].into_iter().enumerate() {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let mut body =
                vec![Spec::plain_convolution("conv1", channels, Shape::square(3, stride, 1)), norm.layer("bn1")];
            body.extend(norm.activation());
            body.extend([Spec::plain_convolution("conv2", channels, Shape::square(3, 1, 1)), norm.layer("bn2")]);
            let shortcut = if stride == 1 { ShortcutSpec::Identity } else { ShortcutSpec::Subsample { stride } };
            layers.push(Spec::residual(format!("layer{}.{block}", stage + 1), body, shortcut));
            layers.extend(norm.activation());
        }
    }
    layers.extend([Spec::GlobalMeanPool, Spec::dense("linear", classes)]);
    layers
}

/// ResNet-18 with a 3 × 3 stem for small images, projection shortcuts, and torchvision's names.
pub fn resnet18(classes: usize) -> Vec<Spec> {
    let mut layers =
        vec![Spec::plain_convolution("conv1", 64, Shape::square(3, 1, 1)), Spec::batch_norm("bn1"), Spec::Relu];
    for (stage, channels) in [64, 128, 256, 512].into_iter().enumerate() {
        for block in 0..2 {
            let changes = stage > 0 && block == 0;
            let stride = if changes { 2 } else { 1 };
            let body = vec![
                Spec::plain_convolution("conv1", channels, Shape::square(3, stride, 1)),
                Spec::batch_norm("bn1"),
                Spec::Relu,
                Spec::plain_convolution("conv2", channels, Shape::square(3, 1, 1)),
                Spec::batch_norm("bn2"),
            ];
            let projection = vec![
                Spec::plain_convolution("downsample.0", channels, Shape::square(1, stride, 0)),
                Spec::batch_norm("downsample.1"),
            ];
            let shortcut = if changes { ShortcutSpec::Projection(projection) } else { ShortcutSpec::Identity };
            layers.push(Spec::residual(format!("layer{}.{block}", stage + 1), body, shortcut));
            layers.push(Spec::Relu);
        }
    }
    layers.extend([Spec::GlobalMeanPool, Spec::dense("fc", classes)]);
    layers
}

#[cfg(test)]
mod tests {
    use super::*;
    use kronfleet_core::backend::Backend;
    use kronfleet_core::network::Network;
    use kronfleet_nalgebra::Nalgebra;

    /// Parameters without alignment, and elements of all factors.
    fn counts(name: &str, input: Extent) -> (usize, usize) {
        let model = named(name, input, 10).expect("a known name");
        let network = Network::build(&mut Nalgebra::<f32>::new(), input, &model.layers, 1).expect("the model fits");
        let parameters = network.table().iter().map(|parameter| parameter.region.len()).sum();
        let factors = network.blocks().iter().map(|block| block.a.len() + block.g.len()).sum();
        (parameters, factors)
    }

    #[test]
    fn sizes_are_the_published_ones() {
        let image = Extent::new(3, 32, 32);
        assert_eq!(counts("lenet5", Extent::new(1, 28, 28)).0, 61_706);
        assert_eq!(counts("mlp", Extent::new(1, 28, 28)).0, 669_706);
        assert_eq!(counts("resnet20", image).0, 269_722);
        assert_eq!(counts("resnet32", image).0, 464_154);
        assert_eq!(counts("resnet18", image).0, 11_173_962);
        // 2.34 M, 4.10 M and 94.0 M elements of full factors, rounded.
        let rounded = |name: &str, unit: usize| (counts(name, image).1 + unit / 2) / unit;
        assert_eq!(rounded("resnet20", 10_000), 234);
        assert_eq!(rounded("resnet32", 10_000), 410);
        assert_eq!(rounded("resnet18", 100_000), 940);
    }

    #[test]
    fn a_deep_network_keeps_little_more_than_its_backward_pass_reads() {
        let image = Extent::new(3, 32, 32);
        let model = named("resnet20", image, 10).expect("a known name");
        let mut backend = kronfleet_faer::Faer::<f32>::new(1);
        Network::build(&mut backend, image, &model.layers, 128).expect("the model fits");
        let bytes = 4 * backend.counters().allocated;
        // Per stage 7, 7, 7 convolutions of whom each leaves its output and each normalisation's ReLU its own: 164 MB for
        // 32² × 16, halved twice; input, cotangents and scratch come on top. Patches alone would take 779 MB.
        assert!(bytes < 330_000_000, "{bytes} bytes");
    }

    #[test]
    fn every_name_is_known() {
        for name in NAMES {
            let model = named(name, Extent::new(3, 32, 32), 10).expect(name);
            Network::build(&mut Nalgebra::<f32>::new(), model.input, &model.layers, 1).expect(name);
        }
        assert!(Model::choose("lenet6", Extent::flat(3), 2).expect_err("unknown").to_string().contains("lenet5"));
    }
}
