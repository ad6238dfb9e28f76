//! Training settles into allocating nothing: on one thread, a period of steps with its refresh leaves the heap alone.

use allocation_counter::measure;
use clap::Parser;
use kronfleet_core::backend::Extent;
use kronfleet_core::preconditioner::Form;
use kronfleet_core::trainer::Trainer;
use kronfleet_examples::model::Model;
use kronfleet_examples::run::Workshop;
use kronfleet_examples::settings::{KfacSettings, OptimiserSettings, TaskSettings};
use kronfleet_examples::speed::{Curvature, Workload, trainer};
use kronfleet_faer::Faer;

const PERIOD: u64 = 4;

fn allocations(model: &str, input: Extent, form: Option<Form>) -> u64 {
    let curvature = form.map(|form| Curvature { form, factor_every: 1, inverse_every: PERIOD, split_factors: 0 });
    let model = Model::choose(model, input, 10).expect("a model of the examples");
    let workload = Workload { model, batch: 4, threads: 1, curvature };
    settled(trainer(&workload).expect("a network that can be built"))
}

/// Allocations of one period of steps, once scratch and tickets have their sizes.
fn settled(mut trainer: Trainer<Faer<f32>>) -> u64 {
    // Scratch takes its size in the first period, tickets theirs in the second.
    for _ in 0..2 * PERIOD {
        trainer.step().expect("a sound step");
    }
    let counted = measure(|| {
        for _ in 0..PERIOD {
            trainer.step().expect("a sound step");
        }
    });
    counted.count_total
}

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    task: TaskSettings,
    #[command(flatten)]
    kfac: KfacSettings,
    #[command(flatten)]
    optimiser: OptimiserSettings,
}

#[test]
fn counting_counts() {
    assert_eq!(measure(|| drop(std::hint::black_box(vec![1]))).count_total, 1);
}

#[test]
fn plain_steps_allocate_nothing() {
    assert_eq!(allocations("lenet5", Extent::new(1, 28, 28), None), 0);
    assert_eq!(allocations("mlp", Extent::new(1, 28, 28), None), 0);
    assert_eq!(allocations("resnet20", Extent::new(3, 8, 8), None), 0);
}

#[test]
fn kfac_steps_and_refreshes_allocate_nothing() {
    assert_eq!(allocations("lenet5", Extent::new(1, 28, 28), Some(Form::Inverse)), 0);
    assert_eq!(allocations("resnet20", Extent::new(3, 8, 8), Some(Form::Inverse)), 0);
}

#[test]
fn eigendecompositions_and_second_moments_allocate_nothing() {
    for form in [Form::Eigen, Form::Ekfac] {
        assert_eq!(allocations("lenet5", Extent::new(1, 28, 28), Some(form)), 0, "{form:?}");
        assert_eq!(allocations("resnet20", Extent::new(3, 8, 8), Some(form)), 0, "{form:?}");
    }
}

#[test]
fn steps_on_real_images_allocate_nothing() {
    for augment in ["--no-augment", "--augment"] {
        // Several epochs: shuffling anew is part of it.
        let flags = ["program", "--samples=40", "--batch=16", "--inverse-every=4", augment];
        let Settings { task, kfac, optimiser } = Settings::parse_from(flags);
        let workshop = Workshop::open(&task, &kfac, &optimiser, 1, None).expect("embedded images");
        assert_eq!(settled(workshop.trainer(Faer::new(1), 0).expect("LeNet-5 fits")), 0, "{augment}");
    }
}
