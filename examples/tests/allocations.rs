//! Training settles into allocating nothing: on one thread, a period of steps with its refresh leaves the heap alone.

use allocation_counter::measure;
use kronfleet_core::backend::Extent;
use kronfleet_core::preconditioner::Form;
use kronfleet_examples::model::Model;
use kronfleet_examples::speed::{Curvature, Workload, trainer};

fn allocations(model: &str, input: Extent, form: Option<Form>) -> u64 {
    let period = 4;
    let curvature = form.map(|form| Curvature { form, factor_every: 1, inverse_every: period });
    let model = Model::choose(model, input, 10).expect("a model of the examples");
    let workload = Workload { model, classes: 10, batch: 4, threads: 1, curvature };
    let mut trainer = trainer(&workload).expect("a network that can be built");
    // Scratch takes its size in the first period, tickets theirs in the second.
    for _ in 0..2 * period {
        trainer.step().expect("a step on noise");
    }
    let counted = measure(|| {
        for _ in 0..period {
            trainer.step().expect("a step on noise");
        }
    });
    counted.count_total
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
