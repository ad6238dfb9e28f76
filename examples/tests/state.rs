//! PyTorch's `state_dict` in and out.

use kronfleet_core::backend::{Backend, Extent};
use kronfleet_core::layer::Mode;
use kronfleet_core::network::{Initialisation, Network};
use kronfleet_core::seed::Seed;
use kronfleet_examples::model::tensors::{Precision, Tensor, Tensors};
use kronfleet_examples::model::{architecture, state};
use kronfleet_nalgebra::Nalgebra;

fn network(name: &str, input: Extent) -> (Nalgebra<f32>, Network<Nalgebra<f32>>) {
    let model = architecture::named(name, input, 10).expect("a known name");
    let mut backend = Nalgebra::new();
    let network = Network::build(&mut backend, input, &model.layers, 2).expect("the model fits");
    (backend, network)
}

fn logits(backend: &mut Nalgebra<f32>, network: &mut Network<Nalgebra<f32>>, x: &[f32]) -> Vec<f32> {
    network.load(backend, x, &[0, 1]).expect("memory");
    network.forward(backend, 2, Mode::Evaluate, None).expect("memory");
    backend.fetch(network.logits(), 0..20).expect("memory")
}

#[test]
fn a_saved_network_answers_the_same_after_loading() {
    let input = Extent::new(3, 32, 32);
    let (mut backend, mut network_a) = network("resnet20-evonorm", input);
    network_a.initialise(&mut backend, Seed(1), Initialisation::Kaiming).expect("memory");
    let mut random = Seed(2).random();
    let x: Vec<f32> = (0..2 * input.len()).map(|_| random.normal() as f32).collect();
    let before = logits(&mut backend, &mut network_a, &x);

    let saved = state::save(&mut backend, &network_a).expect("memory");
    let folder = std::env::temp_dir().join(format!("kronfleet-state-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a writable folder");
    let path = folder.join("state.safetensors");
    saved.write(&path, Precision::Single).expect("a writable file");
    let read = Tensors::read(&path).expect("a readable file");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    assert_eq!(read, saved);

    let (mut backend, mut network_b) = network("resnet20-evonorm", input);
    state::load(&mut backend, &mut network_b, &read.tensors).expect("the same network");
    assert_eq!(logits(&mut backend, &mut network_b, &x), before);
}

#[test]
fn names_and_shapes_are_torchvisions() {
    let (mut backend, network) = network("resnet18", Extent::new(3, 32, 32));
    let state = state::save(&mut backend, &network).expect("memory");
    let shape = |name: &str| state.tensors.get(name).map(|tensor| tensor.shape.clone());
    assert_eq!(shape("conv1.weight"), Some(vec![64, 3, 3, 3]));
    assert_eq!(shape("layer1.0.conv1.weight"), Some(vec![64, 64, 3, 3]));
    assert_eq!(shape("layer2.0.downsample.0.weight"), Some(vec![128, 64, 1, 1]));
    assert_eq!(shape("layer2.0.downsample.1.running_var"), Some(vec![128]));
    assert_eq!(shape("layer4.1.bn2.bias"), Some(vec![512]));
    assert_eq!(shape("fc.weight"), Some(vec![10, 512]));
    // 62 parameters and 40 running statistics; torchvision has 20 counters of batches besides.
    assert_eq!(state.tensors.len(), 102);
}

#[test]
fn every_tensor_that_does_not_fit_is_named_and_nothing_is_changed() {
    let (mut backend, mut network) = network("lenet5", Extent::new(1, 28, 28));
    network.initialise(&mut backend, Seed(1), Initialisation::Uniform).expect("memory");
    let before = network.parameters.clone();
    let mut tensors = state::save(&mut backend, &network).expect("memory").tensors;
    tensors.values_mut().for_each(|tensor| tensor.values.fill(0.5));
    tensors.remove("conv1.bias");
    tensors.insert("fc2.weight".into(), Tensor { shape: vec![84, 3], values: vec![0.0; 252] });
    tensors.insert("fc4.weight".into(), Tensor { shape: vec![1], values: vec![0.0] });
    tensors.insert("bn1.num_batches_tracked".into(), Tensor { shape: vec![], values: vec![7.0] });
    let message = state::load(&mut backend, &mut network, &tensors).expect_err("it does not fit").to_string();
    for fact in [
        "conv1.bias [6] is missing",
        "fc2.weight has shape [84, 3] instead of [84, 120]",
        "fc4.weight [1] is unexpected",
        "load them into the model they were saved from",
    ] {
        assert!(message.contains(fact), "{message:?} lacks {fact:?}");
    }
    assert!(!message.contains("num_batches_tracked"));
    assert_eq!(network.parameters, before);
}

#[test]
fn evo_norm_goes_by_either_pair_of_names() {
    let (mut backend, mut network) = network("resnet20-evonorm", Extent::new(3, 32, 32));
    let mut tensors = state::save(&mut backend, &network).expect("memory").tensors;
    let mut gamma = tensors.remove("bn1.weight").expect("a scale");
    gamma.values[3] = 7.0;
    tensors.insert("bn1.gamma".into(), gamma.clone());
    state::load(&mut backend, &mut network, &tensors).expect("an alias");
    assert_eq!(state::save(&mut backend, &network).expect("memory").tensors["bn1.weight"], gamma);
}

#[test]
fn broken_files_are_errors_that_name_them() {
    let message = Tensors::parse(b"PK\x03\x04 a pickle", "model.pt").expect_err("no safetensors").to_string();
    assert!(message.starts_with("model.pt: not a safetensors file"), "{message}");
    let message = Tensors::read(std::path::Path::new("/nowhere/x.safetensors")).expect_err("no file").to_string();
    assert!(message.starts_with("/nowhere/x.safetensors: "), "{message}");
}
