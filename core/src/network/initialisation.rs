//! The values training starts from.

use super::{Network, upload_table};
use crate::backend::Backend;
use crate::layer::{Parameter, ParameterKind};
use crate::seed::{Random, Seed};

/// How weights are drawn.
///
/// Scales are 1 and shifts 0, running means 0 and running variances 1, whatever is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Initialisation {
    /// PyTorch's defaults (`kaiming_uniform(a = √5)`): weights and biases uniform in `±1/√fan_in`.
    #[default]
    Uniform,
    /// As torchvision's ResNets: convolutions normal with variance `2/fan_out` (He et al. 2015), the rest as
    /// [`Uniform`](Self::Uniform).
    Kaiming,
}

impl<B: Backend> Network<B> {
    /// Draws all parameters anew and resets the running statistics.
    ///
    /// Every parameter has a stream of its own, named after it: a layer added elsewhere changes no other.
    ///
    /// # Errors
    /// If the device fails.
    pub fn initialise(&mut self, backend: &mut B, seed: Seed, how: Initialisation) -> Result<(), B::Error> {
        upload_table(backend, &self.table, &mut self.parameters, |parameter, values| {
            draw(parameter, &mut seed.derive(&parameter.name, 0).random(), how, values);
        })?;
        self.reset_running(backend)
    }

    /// Sets running means to 0 and running variances to 1.
    ///
    /// # Errors
    /// If the device fails.
    pub fn reset_running(&mut self, backend: &mut B) -> Result<(), B::Error> {
        upload_table(backend, &self.running_table, &mut self.running, |parameter, values| {
            values.fill(if parameter.kind == ParameterKind::Scale { 1.0 } else { 0.0 });
        })
    }
}

fn draw(parameter: &Parameter, random: &mut Random, how: Initialisation, values: &mut [f64]) {
    let (outputs, inputs) = (parameter.region.rows, parameter.region.columns);
    let mut uniform = |fan_in: usize| {
        let bound = 1.0 / libm::sqrt(fan_in.max(1) as f64);
        values.iter_mut().for_each(|value| *value = bound * (2.0 * random.uniform() - 1.0));
    };
    match (parameter.kind, how) {
        (ParameterKind::Convolution { kernel, .. }, Initialisation::Kaiming) => {
            let fan_out = outputs * kernel[0] * kernel[1];
            let deviation = libm::sqrt(2.0 / fan_out.max(1) as f64);
            values.iter_mut().for_each(|value| *value = deviation * random.normal());
        }
        (ParameterKind::Convolution { .. } | ParameterKind::Dense(_), _) => uniform(inputs),
        (ParameterKind::Bias { fan_in }, _) => uniform(fan_in),
        (ParameterKind::Scale, _) => values.fill(1.0),
        (ParameterKind::Shift, _) => values.fill(0.0),
    }
}
