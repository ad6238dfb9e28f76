//! The golden cases of `tests/data`, computed by PyTorch in double precision, on both CPU backends.

use kronfleet_examples::golden::{Case, Deviation, GROUPS, on_faer, on_nalgebra};
use kronfleet_examples::model::Model;
use kronfleet_examples::model::tensors::Tensors;
use std::collections::BTreeMap;
use std::path::Path;

/// Rounding in another order: far below what a wrong formula gives, far above 401² sums in double precision.
const TOLERANCE: f64 = 1e-9;

fn passes(check: fn(&Model, &Case) -> anyhow::Result<BTreeMap<&'static str, Deviation>>, name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = Model::read(&folder.join(format!("models/{name}.toml"))).expect("the model is shipped");
    let tensors = Tensors::read(&folder.join(format!("tests/data/{name}.safetensors"))).expect("the case is shipped");
    let case = Case::new(tensors, model.input).expect("the case fits");
    let deviations = check(&model, &case).expect("the case runs");
    for group in GROUPS {
        let deviation = &deviations[group];
        assert!(deviation.compared > 0, "{name} has {group}");
        assert!(deviation.worst <= TOLERANCE, "{name}, {group}: {deviation:?}");
    }
}

#[test]
fn lenet5_on_faer() {
    passes(on_faer, "lenet5");
}

#[test]
fn lenet5_on_nalgebra() {
    passes(on_nalgebra, "lenet5");
}

/// Means over a whole image after layers that keep nothing: normalisation that is its own activation.
#[test]
fn evonorm_on_faer() {
    passes(on_faer, "evonorm");
}

#[test]
fn evonorm_on_nalgebra() {
    passes(on_nalgebra, "evonorm");
}

#[test]
fn what_no_case_can_hold_is_named() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = Model::read(&folder.join("models/mini_resnet.toml")).expect("the model is shipped");
    let read = || Tensors::read(&folder.join("tests/data/mini_resnet.safetensors")).expect("the case is shipped");
    for label in [-1.0, 0.5, f64::NAN] {
        let mut tensors = read();
        tensors.tensors.get_mut("label").expect("labels").values[0] = label;
        let says = Case::new(tensors, model.input).expect_err("no class").to_string();
        assert!(says.contains(&format!("holds {label}")), "{says}");
    }
    for (key, value) in
        [("damping", "0"), ("damping", "nan"), ("kl_clip", "0"), ("label_smoothing", "2"), ("kl_scale_eigen", "x")]
    {
        let mut tensors = read();
        tensors.metadata.insert(key.to_owned(), value.to_owned());
        let case = Case::new(tensors, model.input).expect("the case fits");
        let says = on_nalgebra(&model, &case).expect_err("no such number").to_string();
        assert!(says.contains(key) && says.contains(value), "{says}");
    }
}

#[test]
fn mini_resnet_on_faer() {
    passes(on_faer, "mini_resnet");
}

#[test]
fn mini_resnet_on_nalgebra() {
    passes(on_nalgebra, "mini_resnet");
}
