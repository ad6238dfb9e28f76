//! The bounds by which dynamic policies decide, against the variance as it is defined.

use kronfleet_conformance::check::{Broken, Check};
use kronfleet_core::policy::{Axis, Confidence, Gauge, Sketcher, State};
use kronfleet_core::seed::Seed;
use proptest::prelude::*;

/// Drifts of some nodes, each of as many values.
fn drifts() -> impl Strategy<Value = Vec<Vec<f64>>> {
    let value = prop_oneof![1 => Just(0.0), 2 => Just(1.0), 6 => -10.0..10.0];
    (1_usize..9, 1_usize..30).prop_flat_map(move |(nodes, len)| {
        proptest::collection::vec(proptest::collection::vec(value.clone(), len), nodes)
    })
}

fn squares(vector: &[f64]) -> f64 {
    vector.iter().map(|value| value * value).sum()
}

fn mean(drifts: &[Vec<f64>]) -> Vec<f64> {
    let count = drifts.len() as f64;
    (0..drifts[0].len()).map(|place| drifts.iter().map(|drift| drift[place]).sum::<f64>() / count).collect()
}

/// `(1/K) Σ‖u_k − ū‖²`.
fn variance(drifts: &[Vec<f64>]) -> f64 {
    let mean = mean(drifts);
    let distance = |drift: &Vec<f64>| squares(&drift.iter().zip(&mean).map(|(u, mean)| u - mean).collect::<Vec<_>>());
    drifts.iter().map(distance).sum::<f64>() / drifts.len() as f64
}

/// `H ≥ Var`, where the numbers that nodes tell are multiplied with `factor` first.
fn bounds(gauge: Gauge, factor: f64) -> Result<(), Broken> {
    let axes = prop_oneof![any::<u64>().prop_map(Err), drifts().prop_map(Ok)];
    Check { cases: 256, ..Check::default() }.hold((drifts(), axes, any::<bool>()), |(drifts, axis, common)| {
        let len = drifts[0].len();
        let axis = match axis {
            Err(seed) => Axis::random(len, Seed(seed)),
            // The way of one of the nodes, or of none of them.
            Ok(other) => Axis::between(&vec![0.0; len], other.iter().find(|u| u.len() == len).unwrap_or(&drifts[0])),
        };
        let states: Vec<State> = drifts.iter().map(|drift| gauge.state(drift, axis.as_ref(), None)).collect();
        let states: Vec<State> = states
            .into_iter()
            .map(|state| State { more: state.more.iter().map(|value| factor * value).collect(), ..state })
            .collect();
        let bound = gauge.bound(&states.iter().collect::<Vec<_>>(), common && axis.is_some(), None);
        let variance = variance(&drifts);
        let rounding = 8.0 * f64::EPSILON * len as f64 * drifts.iter().map(|u| squares(u)).fold(0.0, f64::max);
        if bound >= variance - rounding { Ok(()) } else { Err(format!("H = {bound}, Var = {variance}")) }
    })
}

#[test]
fn naive_and_linear_bounds_are_never_below_the_variance() {
    assert_eq!(bounds(Gauge::Naive, 1.0), Ok(()));
    assert_eq!(bounds(Gauge::Linear, 1.0), Ok(()));
    // An axis that is longer than 1 by a twentieth is noticed.
    assert!(bounds(Gauge::Linear, 1.05).is_err());
}

const DRAWS: u64 = 4000;
const COLUMNS: usize = 250;

fn sketching(confidence: Confidence) -> Gauge {
    Gauge::Sketch { rows: 5, columns: COLUMNS, confidence }
}

/// Sketches of drifts that all nodes have in common, so that `Var` is 0: the worst case.
fn states() -> Vec<(State, Sketcher)> {
    let len = 400;
    let draw = |draw| {
        let mut random = Seed(draw).derive("drift", 0).random();
        let drift: Vec<f64> = (0..len).map(|_| random.normal()).collect();
        let gauge = sketching(Confidence::Usual);
        let sketcher = gauge.sketcher(len, Seed(draw)).expect("this gauge sketches");
        (gauge.state(&drift, None, Some(&sketcher)), sketcher)
    };
    (0..DRAWS).map(draw).collect()
}

#[test]
fn sketches_bound_the_variance_as_often_as_they_say() {
    let states = states();
    let part = |fails: &dyn Fn(&State, &Sketcher) -> bool| {
        states.iter().filter(|(state, sketcher)| fails(state, sketcher)).count() as f64 / DRAWS as f64
    };
    let failures =
        |confidence| part(&|state, sketcher| sketching(confidence).bound(&[state], true, Some(sketcher)) < 0.0);
    // Four standard deviations of so many draws are 0.014, 0.0063 and 0.002.
    for (confidence, most) in
        [(Confidence::Usual, 0.05 + 0.014), (Confidence::High, 0.01 + 0.0063), (Confidence::Highest, 0.001 + 0.002)]
    {
        let failures = failures(confidence);
        assert!(failures <= most, "{confidence:?}: {failures}");
    }
    // The bound is not a loose one either, and the published margin is too small for it.
    let margin = 1.0 + 1.0 / (COLUMNS as f64).sqrt();
    let published = part(&|state, sketcher| state.norm < sketcher.norm(&state.more) / margin);
    let ours = failures(Confidence::Usual);
    assert!(ours > 0.02 && published > 0.05 && published > 1.3 * ours, "{ours} and {published} of all");
}

#[test]
fn sketches_are_linear() {
    let cases = (1_usize..200, any::<u64>(), -3.0..3.0, -3.0..3.0);
    let law = |(len, seed, a, b): (usize, u64, f64, f64)| {
        let sketcher = Sketcher::new(3, 17, len, Seed(seed));
        let mut random = Seed(seed).random();
        let [x, y]: [Vec<f64>; 2] = std::array::from_fn(|_| (0..len).map(|_| random.normal()).collect());
        let sum: Vec<f64> = x.iter().zip(&y).map(|(x, y)| a * x + b * y).collect();
        let parts = sketcher.sketch(&x).into_iter().zip(sketcher.sketch(&y)).map(|(x, y)| a * x + b * y);
        for (place, (whole, parts)) in sketcher.sketch(&sum).into_iter().zip(parts).enumerate() {
            if (whole - parts).abs() > 1e-14 * len as f64 * 20.0 {
                return Err(format!("{place}: {whole} of the sum, {parts} of its parts"));
            }
        }
        Ok(())
    };
    assert_eq!(Check::default().hold(cases, law), Ok(()));
}

#[test]
fn a_sketch_tells_the_length_of_a_mean() {
    // What states say is enough: the mean of sketches is the sketch of the mean drift.
    let law = |(drifts, seed): (Vec<Vec<f64>>, u64)| {
        let sketcher = Sketcher::new(5, 64, drifts[0].len(), Seed(seed));
        let sketches: Vec<Vec<f64>> = drifts.iter().map(|drift| sketcher.sketch(drift)).collect();
        let (of_mean, mean) = (sketcher.norm(&sketcher.sketch(&mean(&drifts))), sketcher.norm(&mean(&sketches)));
        let scale = drifts.iter().map(|u| squares(u)).fold(0.0, f64::max);
        if (of_mean - mean).abs() <= 1e-11 * scale { Ok(()) } else { Err(format!("{of_mean} is not {mean}")) }
    };
    assert_eq!(Check::default().hold((drifts(), any::<u64>()), law), Ok(()));
}
