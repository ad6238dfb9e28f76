//! What a training step asks of a device: launches, waits, transfers, counted by the backend that does them.

use kronfleet_core::backend::{Backend, Counters, Extent};
use kronfleet_core::network::{Initialisation, Network, Shape, ShortcutSpec, Spec};
use kronfleet_core::optimiser::{Sgd, SgdOptions};
use kronfleet_core::preconditioner::{Kronecker, Options, Refresh};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::seed::{Random, Seed};
use kronfleet_core::trainer::{Batches, Trainer, TrainerOptions};

/// LeNet-5 (LeCun et al. 1998) with ReLU and maximum pooling, for images of 28 × 28.
pub fn lenet5() -> (Extent, Vec<Spec>) {
    let pool = || Spec::MaxPool(Shape::square(2, 2, 0));
    let layers = vec![
        Spec::convolution("conv1", 6, Shape::square(5, 1, 2)),
        Spec::Relu,
        pool(),
        Spec::convolution("conv2", 16, Shape::square(5, 1, 0)),
        Spec::Relu,
        pool(),
        Spec::Flatten,
        Spec::dense("fc1", 120),
        Spec::Relu,
        Spec::dense("fc2", 84),
        Spec::Relu,
        Spec::dense("fc3", 10),
    ];
    (Extent::new(1, 28, 28), layers)
}

/// ResNet-20 (He et al. 2015, §4.2) with batch normalisation and option-A shortcuts, for images of 32 × 32.
pub fn resnet20() -> (Extent, Vec<Spec>) {
    let convolution = |name: &str, channels: usize, stride: usize| {
        Spec::plain_convolution(name, channels, Shape::square(3, stride, 1))
    };
    let mut layers = vec![convolution("conv1", 16, 1), Spec::batch_norm("bn1"), Spec::Relu];
    for (stage, channels) in [16, 32, 64].into_iter().enumerate() {
        for block in 0..3 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let body = vec![
                convolution("conv1", channels, stride),
                Spec::batch_norm("bn1"),
                Spec::Relu,
                convolution("conv2", channels, 1),
                Spec::batch_norm("bn2"),
            ];
            let shortcut = if stride == 1 { ShortcutSpec::Identity } else { ShortcutSpec::Subsample { stride } };
            layers.extend([Spec::residual(format!("layer{}.{block}", stage + 1), body, shortcut), Spec::Relu]);
        }
    }
    layers.extend([Spec::GlobalMeanPool, Spec::dense("linear", 10)]);
    (Extent::new(3, 32, 32), layers)
}

/// Images of noise and drawn labels.
struct Noise(Random);

impl<S: Scalar> Batches<S> for Noise {
    fn fill(&mut self, x: &mut [S], labels: &mut [u32]) {
        x.iter_mut().for_each(|x| *x = S::of(self.0.normal()));
        labels.iter_mut().for_each(|label| *label = self.0.below(10) as u32);
    }
}

/// What one K-FAC step without a refresh adds to the backend's counters; a refresh, deferred, is over by then.
///
/// # Panics
/// If the device fails.
pub fn step_between_refreshes<B>(mut backend: B, (input, layers): (Extent, Vec<Spec>), batch: usize) -> Counters
where
    B: Backend<Download: Send, Verdict: Send> + Send,
{
    let mut network = Network::build(&mut backend, input, &layers, batch).expect("it fits");
    network.initialise(&mut backend, Seed(1), Initialisation::Uniform).expect("memory");
    let len = network.parameters_len();
    let options = Options { refresh: Refresh::Deferred, inverse_period: 100, ..Options::default() };
    let kfac = Kronecker::new(&mut backend, network.blocks(), network.statistics_len(), len, options).expect("memory");
    let momentum = SgdOptions { momentum: 0.9, ..SgdOptions::default() };
    let sgd = Sgd::new(&mut backend, len, &[], momentum).expect("memory");
    let noise = Noise(Seed(2).derive("noise", 0).random());
    let options = TrainerOptions::new(batch, 0.001);
    let mut trainer =
        Trainer::new(backend, network, Box::new(kfac), Box::new(sgd), Box::new(noise), options).expect("memory");
    // The first step refreshes; what that leaves is read at the second.
    for _ in 0..2 {
        trainer.step().expect("a finite loss");
    }
    let before = *trainer.parts().0.counters();
    trainer.step().expect("a finite loss");
    let after = *trainer.parts().0.counters();
    Counters {
        flops: after.flops - before.flops,
        host_waits: after.host_waits - before.host_waits,
        downloaded: after.downloaded - before.downloaded,
        uploaded: after.uploaded - before.uploaded,
        allocations: after.allocations - before.allocations,
        allocated: after.allocated - before.allocated,
        factorisations: after.factorisations - before.factorisations,
        eigendecompositions: after.eigendecompositions - before.eigendecompositions,
        launches: after.launches - before.launches,
        transfers: after.transfers - before.transfers,
    }
}

/// Panics unless a step asked for no more than so many launches, one wait, one transfer of the batch and one of its loss.
///
/// # Panics
/// With what it asked for.
#[track_caller]
pub fn asks_little(step: &Counters, (input, batch): (Extent, usize), launches: u64) {
    println!(
        "  {} launches, {} waits, {} transfers: {} scalars up, {} down",
        step.launches, step.host_waits, step.transfers, step.uploaded, step.downloaded
    );
    assert!(step.launches <= launches, "{} launches are more than {launches}", step.launches);
    assert_eq!(step.factorisations + step.allocations, 0, "neither refreshes nor allocations: {step:?}");
    assert_eq!(step.uploaded, (batch * (input.len() + 1)) as u64, "images and labels go up, nothing else");
    assert!(step.downloaded <= 8, "a loss comes down: {step:?}");
    assert!(step.host_waits <= 1 && step.transfers <= 2, "{} waits, {} transfers", step.host_waits, step.transfers);
}
