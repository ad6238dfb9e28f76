//! Means that are under way while the passes of a step go on.

use crate::channels::lost;
use crate::division::Case;
use crate::trainer::CLASSES;
use kronfleet_core::error::ErrorKind;
use kronfleet_core::placement::{Group, Letter, Machine, Pipeline, Placement, Route, Wire};
use kronfleet_core::preconditioner::Options;
use kronfleet_core::seed::Seed;
use kronfleet_core::time::Duration;
use kronfleet_core::transport::{NodeId, TransportError};
use kronfleet_lossy::endpoint::LossyNetwork;
use kronfleet_lossy::link::LinkOptions;
use kronfleet_lossy::network::NetworkOptions;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

/// What is averaged while the passes go on is what is averaged after them, to the bit, over wires that carry letters at once
/// and over groups that do not.
#[test]
fn overlapping_passes_and_exchanges_changes_no_bit() {
    let case = |placement: Placement, hidden| Case {
        batches: vec![2, 5, 3],
        placement,
        options: Options { inverse_period: 3, factor_period: 2, ..Options::default() },
        hidden,
        machine: Machine::default(),
        overlapped: false,
    };
    for placement in [Placement::spd(), Placement::d_kfac(), Placement::owner_reduce(), Placement::dp_kfac()] {
        let small = case(placement, 6);
        let expected = small.run();
        assert_eq!(
            Case { overlapped: true, ..small.clone() }.run(),
            expected,
            "{placement:?} over wires that carry at once"
        );
        assert_eq!(Case { overlapped: true, ..small }.over_groups(), expected.0, "{placement:?} over groups");
    }
    // Diagonal blocks are cut out of statistics after the passes; gradients are under way all the same.
    let mut cut = case(Placement::spd(), 6);
    cut.options.split_factors = 4;
    assert_eq!(Case { overlapped: true, ..cut.clone() }.over_groups(), cut.run().0);
    // The statistics of one layer fill a bucket, so that it is sent while the layer before it is still to come.
    let large = case(Placement::spd(), 300);
    assert_eq!(Case { overlapped: true, ..large.clone() }.over_groups(), large.over_groups());
}

/// A wire to one other member who has the same: it answers letters as they are, those that were started when they are
/// settled.
struct Echo {
    under_way: Vec<Letter<f64>>,
    /// The letter at which it fails, counted from the first that was started.
    fails_at: Option<usize>,
    /// Values of the letters that were started, and letters that were settled together.
    seen: Arc<Mutex<(Vec<usize>, Vec<usize>)>>,
}

impl Wire<f64> for Echo {
    fn mean(&mut self, _: Option<usize>, _: &mut [f64]) -> Result<(), TransportError> {
        Ok(())
    }

    fn broadcast(&mut self, _: usize, _: &[usize], _: &mut [f64]) -> Result<(), TransportError> {
        Ok(())
    }

    fn start(&mut self, letter: Letter<f64>) -> Result<Option<Letter<f64>>, TransportError> {
        let mut seen = self.seen.lock().expect("no panic");
        seen.0.push(letter.values.len());
        if self.fails_at == Some(seen.0.len()) {
            return Err(lost(1));
        }
        self.under_way.push(letter);
        Ok(None)
    }

    fn settle(&mut self) -> Result<Vec<Letter<f64>>, TransportError> {
        self.seen.lock().expect("no panic").1.push(self.under_way.len());
        Ok(core::mem::take(&mut self.under_way))
    }

    fn give_up(&mut self) {
        self.under_way.clear();
    }
}

/// What an [`Echo`] sees of a step of two members, or of several, of which the first fails.
fn echoed(placement: Placement, hidden: usize, fails_at: Option<usize>) -> (Vec<usize>, Vec<usize>) {
    let case = Case {
        batches: vec![3; 2],
        placement,
        options: Options::default(),
        hidden,
        machine: Machine::default(),
        overlapped: true,
    };
    let seen = Arc::default();
    let wire = Echo { under_way: Vec::new(), fails_at, seen: Arc::clone(&seen) };
    let mut trainer = case.member(Some((0, Box::new(wire))));
    if fails_at.is_some() {
        let error = trainer.step().expect_err("a letter that fails");
        assert!(error.reason.contains("abandoned"), "{error}");
    }
    trainer.step().expect("letters arrive");
    drop(trainer);
    Arc::into_inner(seen).expect("the trainer is gone").into_inner().expect("no panic")
}

/// Statistics of inputs leave during the forward pass, before there is any gradient; everything leaves once.
#[test]
fn statistics_of_inputs_leave_with_the_forward_pass() {
    let hidden = 400;
    let triangle = |rows: usize| rows * (rows + 1) / 2;
    let (sent, settled) = echoed(Placement::spd(), hidden, None);
    // Two channels at four positions of the kernel and a bias; three channels at nine positions of the image and a bias.
    let (patch, image) = (9, 28);
    // The last layer's but one fill a bucket. What is left of the statistics follows with the gradients.
    assert_eq!(sent[0], [patch, image, hidden + 1].map(triangle).iter().sum::<usize>());
    let classes = CLASSES as usize;
    let of_outputs = [3, hidden, 6, classes].map(triangle).iter().sum::<usize>();
    let gradients = 3 * patch + hidden * image + 6 * (hidden + 1) + classes * 7;
    assert_eq!(sent.iter().sum::<usize>(), sent[0] + triangle(7) + of_outputs + gradients);
    assert_eq!(settled, [sent.len()]);
}

/// Letters of a step that fails are no part of the next one.
#[test]
fn a_failed_step_leaves_no_letters_under_way() {
    let (_, undisturbed) = echoed(Placement::spd(), 400, None);
    for letter in 1..=undisturbed[0] {
        let (_, settled) = echoed(Placement::spd(), 400, Some(letter));
        assert_eq!(settled, undisturbed, "after letter {letter} has failed");
    }
}

#[test]
fn a_pipeline_forgets_what_was_started_when_it_fails() {
    let mut options = NetworkOptions::new(2, Seed(1));
    options.link = LinkOptions { loss: 0.0, duplicate: 0.0, reorder: 0.0, ..options.link };
    let network = LossyNetwork::new(options);
    let joined = |me: u32| {
        let group = Group::form(Box::new(network.endpoint(NodeId(me))), vec![1.0; 2], Duration::from_secs(60));
        Pipeline::<f64>::new(group.expect("both are there"))
    };
    let letter = |value: f64| Letter { route: Route::Mean { to: None }, values: vec![value; 3] };
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut wire = joined(1);
            let started = wire.start(letter(f64::NAN));
            // What it has sent is still on its way.
            (wire, started.is_err())
        });
        let mut wire = joined(0);
        let deadline = Instant::now() + core::time::Duration::from_secs(60);
        let mut failed = wire.start(letter(1.0)).err();
        while failed.is_none() {
            assert!(Instant::now() < deadline, "what the other one sends is not a number");
            thread::yield_now();
            failed = wire.advance().err();
        }
        assert_eq!(failed.map(|error| error.kind), Some(ErrorKind::Numeric));
        assert_eq!(wire.settle().expect("nothing to wait for"), []);
        drop(other.join().expect("no panic"));
    });
}
