//! A K-FAC training step of LeNet-5: what comes of it, and what it asks of the device.

use kronfleet_conformance::count;
use kronfleet_core::backend::Backend;
use kronfleet_core::network::{Initialisation, Network};
use kronfleet_core::optimiser::{Sgd, SgdOptions};
use kronfleet_core::preconditioner::{Form, Kronecker, Options, Refresh};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::seed::Seed;
use kronfleet_core::trainer::{Batches, Trainer, TrainerOptions};
use kronfleet_cuda::Cuda;
use kronfleet_faer::Faer;

const BATCH: usize = 8;
/// Steps from one refresh to the next.
const PERIOD: u64 = 8;

/// The same batch for ever.
struct Same;

impl<S: Scalar> Batches<S> for Same {
    fn fill(&mut self, x: &mut [S], labels: &mut [u32]) {
        let mut random = Seed(3).derive("images", 0).random();
        x.iter_mut().for_each(|value| *value = S::of(f64::from(random.normal() as f32)));
        labels.iter_mut().for_each(|label| *label = random.below(10) as u32);
    }
}

fn trainer<B>(mut backend: B, form: Form, refresh: Refresh) -> Trainer<B>
where
    B: Backend<Download: Send, Verdict: Send> + Send,
{
    let (input, layers) = count::lenet5();
    let mut network = Network::build(&mut backend, input, &layers, BATCH).expect("LeNet-5 fits");
    network.initialise(&mut backend, Seed(1), Initialisation::Uniform).expect("memory");
    let len = network.parameters_len();
    let options = Options { form, refresh, inverse_period: PERIOD, ..Options::default() };
    let kfac = Kronecker::new(&mut backend, network.blocks(), network.statistics_len(), len, options).expect("memory");
    let momentum = SgdOptions { momentum: 0.9, ..SgdOptions::default() };
    let sgd = Sgd::new(&mut backend, len, &[], momentum).expect("memory");
    let options = TrainerOptions::new(BATCH, 0.01);
    Trainer::new(backend, network, Box::new(kfac), Box::new(sgd), Box::new(Same), options).expect("memory")
}

/// What `steps` steps leave behind, by name.
fn train<B>(backend: B, form: Form, steps: usize) -> Vec<(&'static str, Vec<f64>)>
where
    B: Backend<Download: Send, Verdict: Send> + Send,
{
    let mut trainer = trainer(backend, form, Refresh::Immediate);
    let wide = |values: Vec<B::Scalar>| values.into_iter().map(Scalar::wide).collect::<Vec<f64>>();
    let (backend, network) = trainer.parts();
    let len = network.parameters_len();
    let before = wide(backend.fetch(&network.parameters, 0..len).expect("memory"));
    let mut loss = 0.0;
    for _ in 0..steps {
        loss = trainer.step().expect("a finite loss").loss;
    }
    let (backend, network) = trainer.parts();
    let after = wide(backend.fetch(&network.parameters, 0..len).expect("memory"));
    let gradient = wide(backend.fetch(&network.gradient, 0..len).expect("memory"));
    let change = after.iter().zip(before).map(|(after, before)| after - before).collect();
    vec![("loss", vec![loss]), ("gradient", gradient), ("change of the parameters", change)]
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// Steps agree with those in double precision about as well as another backend's in single precision do.
///
/// How far rounding carries is a matter of the problem's condition, which that other backend shows; sums in another order
/// may err several times as much, hence the factor of 8.
pub(crate) fn agrees(backend: &dyn Fn() -> Cuda, form: Form) -> Result<(), String> {
    let steps = 2;
    let exact = train(Faer::<f64>::new(1), form, steps);
    let other = train(Faer::<f32>::new(1), form, steps);
    let own = train(backend(), form, steps);
    for (((what, exact), (_, other)), (_, own)) in exact.iter().zip(&other).zip(&own) {
        let off = |values: &[f64]| norm(values.iter().zip(exact).map(|(value, exact)| value - exact));
        let size = norm(exact.iter().copied());
        let bound = 8.0 * off(other).max(f64::from(f32::EPSILON) * size);
        // Not `off > bound`: a NaN is neither greater nor less.
        let near = off(own) <= bound;
        if !near {
            return Err(format!("{what} is off by {:e} of {size:e}; {bound:e} is allowed", off(own)));
        }
    }
    Ok(())
}

/// The same steps give the same bits.
pub(crate) fn repeats(backend: &dyn Fn() -> Cuda) -> Result<(), String> {
    let (one, other) = (train(backend(), Form::Inverse, 2), train(backend(), Form::Inverse, 2));
    if one == other { Ok(()) } else { Err("two runs differ".to_owned()) }
}

/// A step without refresh has few launches, waits for the loss of the step before alone, and two transfers.
pub(crate) fn asks_little(backend: &dyn Fn() -> Cuda) -> Result<(), String> {
    for (model, batch, launches) in [(count::lenet5(), BATCH, 150), (count::resnet20(), 2, 900)] {
        let input = model.0;
        let step = count::step_between_refreshes(backend(), model, batch);
        count::asks_little(&step, (input, batch), launches);
    }
    Ok(())
}
