//! Steps of LeNet-5 with K-FAC.

use kronfleet_conformance::count;
use kronfleet_core::backend::Backend;
use kronfleet_core::network::{Initialisation, Network};
use kronfleet_core::optimiser::{Sgd, SgdOptions};
use kronfleet_core::preconditioner::{Kronecker, Options};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::seed::{Random, Seed};
use kronfleet_core::trainer::{Batches, Trainer, TrainerOptions};
use kronfleet_faer::Faer;
use kronfleet_wgpu::{Device, Wgpu};

const BATCH: usize = 8;

struct Noise(Random);

impl<S: Scalar> Batches<S> for Noise {
    fn fill(&mut self, x: &mut [S], labels: &mut [u32]) {
        // Numbers that single precision holds.
        x.iter_mut().for_each(|x| *x = S::of(f64::from(self.0.uniform() as f32)));
        labels.iter_mut().for_each(|label| *label = self.0.below(10) as u32);
    }
}

fn trainer<B>(mut backend: B) -> Trainer<B>
where
    B: Backend<Download: Send, Verdict: Send> + Send,
{
    let (input, layers) = count::lenet5();
    let mut network = Network::build(&mut backend, input, &layers, BATCH).expect("LeNet-5 fits");
    network.initialise(&mut backend, Seed(1), Initialisation::Uniform).expect("memory");
    let len = network.parameters_len();
    // The same numbers in every precision.
    let rounded: Vec<B::Scalar> = backend.fetch(&network.parameters, 0..len).expect("memory");
    let rounded: Vec<B::Scalar> =
        rounded.into_iter().map(|value| B::Scalar::of(f64::from(value.wide() as f32))).collect();
    backend.upload(&rounded, &mut network.parameters, 0).expect("memory");
    let options = Options { inverse_period: 10, damping: DAMPING, ..Options::default() };
    let kfac = Kronecker::new(&mut backend, network.blocks(), network.statistics_len(), len, options).expect("memory");
    let sgd = Sgd::new(&mut backend, len, &[], SgdOptions { momentum: 0.9, ..SgdOptions::default() }).expect("memory");
    let options = TrainerOptions::new(BATCH, 0.1);
    let noise = Noise(Seed(2).derive("noise", 0).random());
    Trainer::new(backend, network, Box::new(kfac), Box::new(sgd), Box::new(noise), options).expect("memory")
}

const DAMPING: f64 = 0.03;

/// Between two refreshes a step has few launches, waits for the loss of the step before alone, and two transfers.
pub(crate) fn few_launches(device: &Device) {
    lenet_is_few_launches(device);
    let (model, batch) = (count::resnet20(), 2);
    let input = model.0;
    let step = count::step_between_refreshes(Wgpu::new(device).expect("a device"), model, batch);
    count::asks_little(&step, (input, batch), 900);
}

pub(crate) fn lenet_is_few_launches(device: &Device) {
    let model = count::lenet5();
    let input = model.0;
    let step = count::step_between_refreshes(Wgpu::new(device).expect("a device"), model, BATCH);
    count::asks_little(&step, (input, BATCH), 150);
}

/// What is asked for is handed to the driver in few pieces.
pub(crate) fn few_submissions(device: &Device) {
    let mut trainer = trainer(Wgpu::new(device).expect("a device"));
    for _ in 0..3 {
        trainer.step().expect("a finite loss");
    }
    let before = trainer.parts().0.submissions();
    trainer.step().expect("a finite loss");
    let submissions = trainer.parts().0.submissions() - before;
    println!("  {submissions} submissions");
    assert!(submissions <= 6, "{submissions} submissions");
}

/// Gradient and change of the parameters of the first step, in double precision on the CPU and here.
pub(crate) fn as_on_a_cpu(device: &Device) {
    let (ours, theirs) = (first_step(Wgpu::new(device).expect("a device")), first_step(Faer::<f64>::new(1)));
    // Rounding of one sum of n products: n·ε of the sum of their magnitudes (Higham §3.1), of which the largest element
    // is at least the share 1/√n for terms of random signs; forward and backward through five layers.
    let terms: [f64; 10] = [26.0, 151.0, 401.0, 121.0, 85.0, 10.0, 84.0, 120.0, 16.0 * 25.0, (BATCH * 784) as f64];
    let gradient: f64 = terms.iter().map(|n| n * n.sqrt() * f64::from(f32::EPSILON)).sum();
    // Gradient and factors agree far better than that; a system is solved up to n·ε·κ (Higham §10.1), κ the largest
    // eigenvalue of a factor, at most the mean square of an input times their number, by √λ. That of `fc1` is largest.
    let (rows, root) = (401.0_f64, DAMPING.sqrt());
    let bounds = [gradient, gradient, rows * f64::from(f32::EPSILON) * rows / root];
    for (((what, ours), (_, theirs)), bound) in ours.iter().zip(&theirs).zip(bounds) {
        let size = theirs.iter().fold(0.0_f64, |size, value| size.max(value.abs()));
        let off = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / size;
        println!("  {what}: off by {off:.1e} of the largest element, allowed {bound:.1e}");
        assert!(off <= bound, "{what} is off by {off:e}, more than {bound:e}");
    }
}

fn first_step<B>(backend: B) -> [(&'static str, Vec<f64>); 3]
where
    B: Backend<Download: Send, Verdict: Send> + Send,
{
    let mut trainer = trainer(backend);
    let fetch = |trainer: &mut Trainer<B>| {
        let (backend, network) = trainer.parts();
        let len = network.parameters_len();
        let lines = [&network.parameters, &network.gradient];
        // Parameters lie further apart in single precision than in double precision.
        lines.map(|line| {
            let line = backend.fetch(line, 0..len).expect("memory");
            let places = network.table().iter().flat_map(|parameter| parameter.region.offset..parameter.region.end());
            places.map(|place| line[place].wide()).collect::<Vec<f64>>()
        })
    };
    let [before, _] = fetch(&mut trainer);
    let loss = trainer.step().expect("a finite loss").loss;
    let [after, gradient] = fetch(&mut trainer);
    let change = after.iter().zip(before).map(|(after, before)| after - before).collect();
    [("loss", vec![loss]), ("gradient", gradient), ("change of the parameters", change)]
}

pub(crate) fn reruns(device: &Device) {
    let run = || {
        let mut trainer = trainer(Wgpu::new(device).expect("a device"));
        for _ in 0..3 {
            trainer.step().expect("a finite loss");
        }
        let (backend, network) = trainer.parts();
        let len = network.parameters_len();
        backend.fetch(&network.parameters, 0..len).expect("memory").into_iter().map(f32::to_bits).collect::<Vec<u32>>()
    };
    assert!(run() == run(), "two runs of three steps differ");
}
