//! Test accuracy of a model given by its parameters.

use super::evaluation::Judge;
use crate::data::feed::Feed;
use crate::data::set::DataSet;
use anyhow::Result;
use kronfleet_core::backend::Backend;
use kronfleet_core::error::Error as _;
use kronfleet_core::layer::Mode;
use kronfleet_core::network::Network;
use kronfleet_core::participant::TrainingError;
use kronfleet_core::scalar::Scalar;
use rayon::prelude::*;
use std::sync::Arc;

/// A test set and the networks that go through it, one per thread.
pub struct NetworkJudge<B: Backend> {
    lanes: Vec<Lane<B>>,
    feed: Feed<B::Scalar>,
    test: Arc<DataSet>,
}

/// What one thread works with.
struct Lane<B: Backend> {
    backend: B,
    network: Network<B>,
    samples: Vec<u32>,
    pixels: Vec<B::Scalar>,
    labels: Vec<u32>,
}

impl<B: Backend> NetworkJudge<B> {
    /// Judges on all of `test`, with one of the `networks` per thread.
    ///
    /// # Panics
    /// If there is no network.
    pub fn new(networks: Vec<(B, Network<B>)>, feed: Feed<B::Scalar>, test: Arc<DataSet>) -> Self {
        assert!(!networks.is_empty(), "a judge needs a network");
        let lane =
            |(backend, network)| Lane { backend, network, samples: Vec::new(), pixels: Vec::new(), labels: Vec::new() };
        Self { lanes: networks.into_iter().map(lane).collect(), feed, test }
    }
}

impl<B> Judge for NetworkJudge<B>
where
    B: Backend<Buffer: Send> + Send,
{
    fn accuracy(&mut self, parameters: &[f32], running: &[f32]) -> Result<f64> {
        let (feed, test) = (&self.feed, &*self.test);
        let share = test.len().div_ceil(self.lanes.len());
        let counts = self.lanes.par_iter_mut().enumerate().map(|(index, lane)| {
            let samples = (index * share).min(test.len())..((index + 1) * share).min(test.len());
            lane.correct(feed, test, samples, parameters, running)
        });
        let counts: Result<Vec<u64>, B::Error> = counts.collect();
        let correct: u64 = counts
            .map_err(|error| TrainingError { kind: error.kind(), reason: format!("evaluation: {error}") })?
            .into_iter()
            .sum();
        Ok(correct as f64 / test.len() as f64)
    }
}

impl<B: Backend> Lane<B> {
    fn correct(
        &mut self,
        feed: &Feed<B::Scalar>,
        test: &DataSet,
        samples: std::ops::Range<usize>,
        parameters: &[f32],
        running: &[f32],
    ) -> Result<u64, B::Error> {
        let Self { backend, network, .. } = self;
        let convert = |values: &[f32]| -> Vec<B::Scalar> {
            values.iter().map(|&value| B::Scalar::of(f64::from(value))).collect()
        };
        backend.upload(&convert(parameters), &mut network.parameters, 0)?;
        backend.upload(&convert(running), &mut network.running, 0)?;
        let (capacity, len) = (network.capacity(), network.input_extent().len());
        let mut correct = 0.0;
        for first in samples.clone().step_by(capacity) {
            let end = (first + capacity).min(samples.end);
            self.samples.clear();
            self.samples.extend(first as u32..end as u32);
            let batch = self.samples.len();
            self.pixels.resize(batch * len, B::Scalar::of(0.0));
            self.labels.resize(batch, 0);
            feed.fill(test, &self.samples, 0, &mut self.pixels, &mut self.labels);
            network.load(backend, &self.pixels, &self.labels)?;
            network.forward(backend, batch, Mode::Evaluate, None)?;
            network.loss(backend, batch, 0.0)?;
            correct += backend.fetch(network.loss_value(), 0..2)?[1].wide();
        }
        Ok(correct as u64)
    }
}
