//! Factors taken for block-diagonal, against whole ones whose other elements are zero.

use crate::dense::{Device, Matrix, assert_close, blocks, read, statistics, upload, write};
use crate::preconditioner::{eigen_oracle, inverse_oracle};
use kronfleet_core::backend::{Backend, Extent};
use kronfleet_core::layer::Block;
use kronfleet_core::matrix::aligned;
use kronfleet_core::network::{Initialisation, Network, Shape, Spec};
use kronfleet_core::optimiser::{Sgd, SgdOptions};
use kronfleet_core::placement::Load;
use kronfleet_core::preconditioner::{Form, Kronecker, Model, Options, Preconditioner};
use kronfleet_core::seed::Seed;
use kronfleet_core::trainer::{Batches, Trainer, TrainerOptions};
use proptest::prelude::*;

/// K-FAC fed with statistics and gradients directly.
struct Node {
    backend: Device,
    kfac: Kronecker<Device>,
    parameters: usize,
}

impl Node {
    fn new(case: &Case, split_factors: usize) -> Self {
        let mut backend = Device::new();
        let Case { form, damping, parameters, .. } = *case;
        let clip = Some(1e-3);
        let options = Options { form, damping, clip, split_factors, inverse_period: 1, ..Options::default() };
        let kfac = Kronecker::new(&mut backend, &case.blocks, case.statistics, parameters, options).expect("memory");
        Self { backend, kfac, parameters }
    }

    /// The direction after one more batch.
    fn step(&mut self, flat: &[f64], gradient: &[f64]) -> Vec<f64> {
        self.kfac.begin(&mut self.backend).expect("memory");
        let taps = self.kfac.taps().expect("K-FAC takes statistics");
        self.backend.upload(flat, taps.statistics.expect("K-FAC takes them"), 0).expect("memory");
        self.kfac.update(&mut self.backend, 1).expect("memory");
        let gradient = upload(&mut self.backend, gradient);
        let mut direction = self.backend.allocate(self.parameters).expect("memory");
        self.kfac.precondition(&mut self.backend, 0.1, &gradient, None, &mut direction).expect("memory");
        self.backend.fetch(&direction, 0..self.parameters).expect("memory")
    }

    fn model(&mut self, gradient: &[f64], change: &[f64]) -> Model {
        let (gradient, change) = (upload(&mut self.backend, gradient), upload(&mut self.backend, change));
        let mut out = self.backend.allocate(Model::LEN).expect("memory");
        assert!(self.kfac.model(&mut self.backend, &gradient, &change, &mut out).expect("memory"));
        Model::read(&self.backend.fetch(&out, 0..Model::LEN).expect("memory"))
    }
}

/// Layers, of which some are convolutions, and how their factors are treated.
#[derive(Clone, Debug)]
struct Case {
    blocks: Vec<Block>,
    parameters: usize,
    statistics: usize,
    form: Form,
    damping: f64,
    seed: u64,
}

impl Case {
    fn flat(&self, batch: u64) -> Vec<f64> {
        statistics(self.seed + batch, &self.blocks, self.statistics, 20)
    }

    fn gradient(&self, batch: u64) -> Vec<f64> {
        let mut random = Seed(self.seed + batch).derive("gradient", 0).random();
        (0..self.parameters).map(|_| random.normal()).collect()
    }

    /// `flat` with zeros wherever the row's part of a factor is not the column's.
    fn cut(&self, limit: usize, mut flat: Vec<f64>) -> Vec<f64> {
        for block in &self.blocks {
            for (region, kernel) in [(block.a, block.kernel), (block.g, 1)] {
                for (row, column) in (0..region.rows).flat_map(|row| (0..region.rows).map(move |column| (row, column)))
                {
                    let part = |at| part(region.rows, kernel, limit, at);
                    if part(row) != part(column) {
                        flat[region.index(row, column)] = 0.0;
                    }
                }
            }
        }
        flat
    }
}

/// Which diagonal block a row of a factor is in: channels are dealt out in order, the first blocks getting one more if need
/// be, and a bias goes with the last.
fn part(rows: usize, kernel: usize, limit: usize, row: usize) -> usize {
    if limit == 0 || rows <= limit {
        return 0;
    }
    let channels = rows / kernel;
    let count = usize::min(rows.div_ceil(limit), channels);
    if row >= channels * kernel {
        return count - 1;
    }
    let mut left = row % channels;
    (0..count)
        .find(|part| {
            let own = channels / count + usize::from(*part < channels % count);
            let found = left < own;
            left = left.saturating_sub(own);
            found
        })
        .expect("every channel is somewhere")
}

fn cases() -> impl Strategy<Value = Case> {
    // Outputs, channels, kernel positions, whether there is a bias.
    let layer = (1..9_usize, 1..7_usize, prop::sample::select(vec![1_usize, 1, 4, 9]), any::<bool>());
    let form = prop_oneof![Just(Form::Inverse), Just(Form::Eigen)];
    (prop::collection::vec(layer, 1..4), form, 1e-3..1.0_f64, 0..1_000_u64).prop_map(|(layers, form, damping, seed)| {
        let columns =
            |&(_, channels, kernel, bias): &(usize, usize, usize, bool)| channels * kernel + usize::from(bias);
        let shapes: Vec<_> = layers.iter().map(|layer| (layer.0, columns(layer))).collect();
        let (mut blocks, parameters, statistics) = blocks(&shapes);
        for (block, (_, _, kernel, _)) in blocks.iter_mut().zip(&layers) {
            block.kernel = *kernel;
        }
        Case { blocks, parameters, statistics, form, damping, seed }
    })
}

/// Whether a convolution's diagonal blocks are the whole factor whose other elements are zero.
#[cfg(feature = "mutants")]
pub(crate) fn holds() -> bool {
    let (mut blocks, parameters, statistics) = blocks(&[(6, 3 * 4 + 1)]);
    blocks[0].kernel = 4;
    let case = Case { blocks, parameters, statistics, form: Form::Inverse, damping: 0.1, seed: 1 };
    let (flat, gradient) = (case.flat(0), case.gradient(0));
    let zeroed = case.cut(5, flat.clone());
    let (found, expected) = (Node::new(&case, 5).step(&flat, &gradient), Node::new(&case, 0).step(&zeroed, &gradient));
    found.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 1e-9)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// It is K-FAC on factors whose elements outside of diagonal blocks are zero, by dense linear algebra and by K-FAC.
    #[test]
    fn what_is_outside_of_diagonal_blocks_counts_as_zero(case in cases(), limit in 1..20_usize) {
        let (flat, gradient) = (case.flat(0), case.gradient(0));
        let zeroed = case.cut(limit, flat.clone());
        let (mut split, mut whole) = (Node::new(&case, limit), Node::new(&case, 0));
        let (found, expected) = (split.step(&flat, &gradient), whole.step(&zeroed, &gradient));
        assert_close(&found, &expected, 1e-9);
        let oracle = if case.form == Form::Inverse { inverse_oracle } else { eigen_oracle };
        let mut dense = gradient.clone();
        let mut dot = 0.0;
        for block in case.blocks.iter().filter(|block| block.a.rows * block.g.rows < 200) {
            let v = oracle(block, &zeroed, &gradient, case.damping);
            dot += v.values.iter().zip(&read(&gradient, block.parameters).values).map(|(v, g)| v * g).sum::<f64>();
            write(&mut dense, block.parameters, &v);
        }
        if case.blocks.iter().all(|block| block.a.rows * block.g.rows < 200) {
            let scale = (1e-3 / (0.01 * dot.abs())).sqrt().min(1.0);
            for block in &case.blocks {
                let v = read(&dense, block.parameters).values.into_iter().map(|v| scale * v).collect();
                write(&mut dense, block.parameters, &Matrix { rows: block.g.rows, columns: block.a.rows, values: v });
            }
            assert_close(&found, &dense, 1e-8);
        }
        // The quadratic model, and whatever comes in later, go by the same factors.
        let change = case.gradient(7);
        let (found, expected) = (split.model(&gradient, &change), whole.model(&gradient, &change));
        let pairs = [(found.slope, expected.slope), (found.curvature, expected.curvature), (found.square, expected.square)];
        for (found, expected) in pairs {
            prop_assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{found} and {expected}");
        }
        let found = split.step(&case.flat(1), &case.gradient(1));
        let expected = whole.step(&case.cut(limit, case.flat(1)), &case.gradient(1));
        assert_close(&found, &expected, 1e-9);
    }

    /// Who has no factor of more rows than the limit has the bits of whole factors.
    #[test]
    fn whole_factors_are_untouched(case in cases()) {
        let most = case.blocks.iter().flat_map(|block| [block.a.rows, block.g.rows]).max().unwrap_or(1);
        let (mut bounded, mut whole) = (Node::new(&case, most), Node::new(&case, 0));
        for batch in 0..2 {
            let (flat, gradient) = (case.flat(batch), case.gradient(batch));
            prop_assert_eq!(bounded.step(&flat, &gradient), whole.step(&flat, &gradient));
        }
    }

    /// Running averages have the diagonal blocks and nothing else; decompositions are as many.
    #[test]
    fn diagonal_blocks_alone_are_kept_and_decomposed(case in cases(), limit in 1..20_usize) {
        let mut node = Node::new(&case, limit);
        let before = *node.backend.counters();
        node.step(&case.flat(0), &case.gradient(0));
        let after = *node.backend.counters();
        let parts: Vec<usize> = case.blocks.iter().flat_map(|block| Load::from(block).split(limit).parts().concat()).collect();
        let is_cut = parts.len() > 2 * case.blocks.len();
        let decomposed = after.factorisations - before.factorisations + after.eigendecompositions - before.eigendecompositions;
        prop_assert_eq!(decomposed, parts.len() as u64);
        let kept = node.kfac.factors().expect("K-FAC has factors").running().values().len();
        let aligned: usize = parts.iter().map(|rows| aligned::<f64>(rows * rows)).sum();
        prop_assert_eq!(kept, if is_cut { aligned } else { case.statistics });
    }

    /// What was saved goes on as if it had not been.
    #[test]
    fn a_checkpoint_of_diagonal_blocks_goes_on(case in cases(), limit in 1..20_usize) {
        let mut node = Node::new(&case, limit);
        node.step(&case.flat(0), &case.gradient(0));
        let state = node.kfac.save(&mut node.backend).expect("memory");
        let factors = node.kfac.factors().expect("K-FAC has factors").save(&mut node.backend).expect("memory");
        let mut later = Node::new(&case, limit);
        later.kfac.factors().expect("K-FAC has factors").restore(&mut later.backend, &factors).expect("memory");
        later.kfac.restore(&mut later.backend, &state).expect("memory");
        // Whole factors, so that they can be read by whoever keeps more of them.
        prop_assert_eq!(&case.cut(limit, factors[0].clone()), &factors[0]);
        prop_assert_eq!(factors[0].len(), case.statistics);
        let again = later.kfac.save(&mut later.backend).expect("memory");
        prop_assert_eq!(&again, &state);
        let (flat, gradient) = (case.flat(1), case.gradient(1));
        prop_assert_eq!(later.step(&flat, &gradient), node.step(&flat, &gradient));
    }
}

/// Images of two channels, of which the second is empty.
struct OneChannel;

impl Batches<f64> for OneChannel {
    fn fill(&mut self, x: &mut [f64], labels: &mut [u32]) {
        let mut random = Seed(5).random();
        x.iter_mut().enumerate().for_each(|(at, x)| *x = if at % 2 == 0 { random.normal() } else { 0.0 });
        labels.fill(1);
    }

    fn position(&self) -> u64 {
        0
    }

    fn restore(&mut self, _: u64) {}
}

/// What a convolution writes has a channel's rows where diagonal blocks look for them.
#[test]
fn the_rows_of_a_channel_are_those_that_a_convolution_writes() {
    for split_factors in [0, 5] {
        let mut backend = Device::new();
        let specs = [Spec::convolution("front", 3, Shape::square(2, 1, 1)), Spec::dense("last", 4)];
        let mut network = Network::build(&mut backend, Extent::new(2, 2, 2), &specs, 5).expect("the network fits");
        network.initialise(&mut backend, Seed(2), Initialisation::Uniform).expect("memory");
        let (len, statistics) = (network.parameters_len(), network.statistics_len());
        let (a, kernel) = (network.blocks()[0].a, network.blocks()[0].kernel);
        assert_eq!((a.rows, kernel), (2 * 4 + 1, 4));
        let options = Options { split_factors, ..Options::default() };
        let kfac = Kronecker::new(&mut backend, network.blocks(), statistics, len, options).expect("memory");
        let sgd = Box::new(Sgd::new(&mut backend, len, &[], SgdOptions::default()).expect("memory"));
        let how = TrainerOptions::new(5, 0.05);
        let trainer = Trainer::new(backend, network, Box::new(kfac), sgd, Box::new(OneChannel), how);
        let mut trainer = trainer.expect("memory");
        trainer.step().expect("a host's memory");
        let (backend, kfac) = trainer.preconditioner();
        let [kept, _] = kfac.factors().expect("K-FAC has factors").save(backend).expect("memory");
        // The first channel, the empty one, and the bias, which is with the last channel.
        let of = |row: usize| if row == 8 { 2 } else { row % 2 };
        for (row, column) in (0..9).flat_map(|row| (0..9).map(move |column| (row, column))) {
            let expected = match (of(row), of(column)) {
                (1, _) | (_, 1) => false,
                (one, other) => one == other || split_factors == 0,
            };
            let found = kept[a.index(row, column)];
            assert_eq!(found != 0.0, expected, "{found} in row {row}, column {column}, split at {split_factors}");
        }
    }
}

#[test]
fn second_moments_of_whole_bases_cannot_be_cut() {
    let (blocks, ..) = blocks(&[(3, 4)]);
    let refused = Options { form: Form::Ekfac, split_factors: 2, ..Options::default() }.check(&blocks);
    assert_eq!(
        refused.expect_err("not with EKFAC").to_string(),
        "split_factors is 2; it must be 0 with EKFAC, whose second moments are in whole bases"
    );
}
