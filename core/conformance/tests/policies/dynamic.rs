//! The bounds by which dynamic policies decide, against the variance as it is defined.

use kronfleet_conformance::check::{Broken, Check};
use kronfleet_core::policy::{Axis, Confidence, Drifts, Gauge, Sketcher, State};
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
        let bound = gauge.bound(&states.iter().collect::<Vec<_>>(), &[], common && axis.is_some(), None);
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

/// `H ≥ Var`, where some nodes tell only how far from `w₀` they are at most, times `factor`; one at least tells its state.
fn bounds_with_some_away(gauge: Gauge, factor: f64) -> Result<(), Broken> {
    let cases = (drifts(), 1_usize..9, any::<u64>(), prop_oneof![Just(0.0), 0.0..3.0]);
    Check { cases: 256, ..Check::default() }.hold(cases, |(drifts, near, seed, slack)| {
        let (near, away) = drifts.split_at(near.min(drifts.len()));
        let len = drifts[0].len();
        let axis = Axis::random(len, Seed(seed));
        let sketcher = gauge.sketcher(len, Seed(seed));
        let states: Vec<State> = near.iter().map(|u| gauge.state(u, axis.as_ref(), sketcher.as_ref())).collect();
        let away: Vec<f64> = away.iter().map(|u| factor * (squares(u).sqrt() + slack)).collect();
        let bound = gauge.bound(&states.iter().collect::<Vec<_>>(), &away, axis.is_some(), sketcher.as_ref());
        let variance = variance(&drifts);
        let rounding = 32.0 * f64::EPSILON * len as f64 * drifts.iter().map(|u| squares(u)).fold(0.0, f64::max);
        if bound >= variance - rounding { Ok(()) } else { Err(format!("H = {bound}, Var = {variance}")) }
    })
}

#[test]
fn bounds_hold_whatever_the_direction_of_those_who_are_away() {
    // As many columns as make it all but impossible that two of so few values meet in most of the rows.
    let sketch = Gauge::Sketch { rows: 5, columns: 4000, confidence: Confidence::Highest, drifts: Drifts::Any };
    for gauge in [Gauge::Naive, Gauge::Linear, sketch] {
        assert_eq!(bounds_with_some_away(gauge, 1.0), Ok(()), "{gauge:?}");
        // Who says that it is nearer by a tenth is noticed.
        assert!(bounds_with_some_away(gauge, 0.9).is_err(), "{gauge:?}");
    }
}

/// Draws of a sketch.
const DRAWS: u64 = 4000;
const ALL: [Confidence; 3] = [Confidence::Usual, Confidence::High, Confidence::Highest];

/// The drift that all nodes have in common, so that `Var` is 0: the worst case.
#[derive(Clone, Copy, Debug)]
enum Common {
    /// So many values, as if drawn from a normal distribution.
    Normal(usize),
    /// So many equal ones, and no others.
    Equal(usize),
}

/// What a node tells of it with sketches of so many rows and columns, often.
fn states(rows: usize, columns: usize, common: Common) -> Vec<(State, Sketcher)> {
    let draw = |draw| {
        let mut random = Seed(draw).derive("drift", 0).random();
        let drift: Vec<f64> = match common {
            Common::Normal(len) => (0..len).map(|_| random.normal()).collect(),
            // Anywhere among ten times as many as there are columns; the others are 0.
            Common::Equal(some) => {
                let mut drift: Vec<f64> = (0..10 * columns).map(|at| f64::from(u8::from(at < some))).collect();
                random.shuffle(&mut drift);
                drift
            }
        };
        let sketcher = Sketcher::new(rows, columns, drift.len(), Seed(draw));
        let state = State { norm: squares(&drift), more: sketcher.sketch(&drift) };
        (state, sketcher)
    };
    (0..DRAWS).map(draw).collect()
}

/// `H ≥ Var` as often as is said, where `bound` makes `H` of a state; answers how often it was not with [`ALL`].
fn confidences_hold(
    states: &[(State, Sketcher)],
    bound: &dyn Fn(Confidence, &State, &Sketcher) -> f64,
) -> Result<[f64; 3], String> {
    let failures = ALL.map(|confidence| {
        let fails = |(state, sketcher): &&(State, Sketcher)| bound(confidence, state, sketcher) < 0.0;
        states.iter().filter(fails).count() as f64 / DRAWS as f64
    });
    for (confidence, failures) in ALL.into_iter().zip(failures) {
        let risk = confidence.risk();
        // Four standard deviations of so many draws.
        let most = risk + 4.0 * (risk * (1.0 - risk) / DRAWS as f64).sqrt();
        if failures > most {
            return Err(format!("{confidence:?} is wrong with chance {failures}, of {most}"));
        }
    }
    Ok(failures)
}

/// The bound with an `ε` of one's own.
fn by(epsilon: impl Fn(Confidence) -> f64) -> impl Fn(Confidence, &State, &Sketcher) -> f64 {
    move |confidence, state, sketcher| state.norm - sketcher.norm(&state.more) / (1.0 + epsilon(confidence))
}

/// The bound as it is.
fn gauge(rows: usize, columns: usize, drifts: Drifts) -> impl Fn(Confidence, &State, &Sketcher) -> f64 {
    move |confidence, state, sketcher| {
        Gauge::Sketch { rows, columns, confidence, drifts }.bound(&[state], &[], true, Some(sketcher))
    }
}

#[test]
fn sketches_bound_the_variance_of_spread_drifts_as_often_as_they_say() {
    for (rows, columns) in [(1, 64), (2, 40), (3, 16), (5, 16), (5, 64), (5, 250), (9, 32)] {
        let states = states(rows, columns, Common::Normal(columns + 400));
        let found = confidences_hold(&states, &gauge(rows, columns, Drifts::Spread));
        // The bound is not a loose one either, but that two rows are as sure as their mean allows.
        let tight = |found: &[f64; 3]| rows == 2 || found[0] > 0.03;
        assert!(found.as_ref().is_ok_and(tight), "{rows} × {columns}: {found:?}");
        // The published margin is too small, and so is that of five rows for fewer.
        let published = by(|_| 1.0 / (columns as f64).sqrt());
        assert!(confidences_hold(&states, &published).is_err(), "{rows} × {columns}");
        let five = by(|confidence| confidence.epsilon(5, columns, Drifts::Spread));
        assert!(rows >= 5 || confidences_hold(&states, &five).is_err(), "{rows} × {columns}");
    }
}

#[test]
fn sketches_bound_the_variance_of_any_drift_as_often_as_they_say() {
    for (rows, columns) in [(1, 1), (3, 4), (5, 64), (5, 250)] {
        // As many equal values as make one pair that meets in a row too much, and some meet.
        let some = (2.0 / Confidence::Usual.epsilon(5, columns, Drifts::Spread)).floor() as usize;
        for common in [Common::Normal(columns + 400), Common::Equal(1), Common::Equal(some)] {
            let states = states(rows, columns, common);
            let found = confidences_hold(&states, &gauge(rows, columns, Drifts::Any));
            assert!(found.is_ok(), "{rows} × {columns}, {common:?}: {found:?}");
            if columns >= 64 && matches!(common, Common::Equal(2..)) {
                let spread = by(|confidence| confidence.epsilon(rows, columns, Drifts::Spread));
                assert!(confidences_hold(&states, &spread).is_err(), "{rows} × {columns}: these are spread");
            }
        }
    }
}

#[test]
fn nothing_is_spread_over_more_columns_than_there_are_values() {
    let states = states(5, 250, Common::Normal(200));
    let [spread, any] = [Drifts::Spread, Drifts::Any].map(|drifts| {
        let bound = gauge(5, 250, drifts);
        states.iter().map(|(state, sketcher)| bound(Confidence::Usual, state, sketcher)).collect::<Vec<_>>()
    });
    assert_eq!(spread, any);
}

#[test]
fn sketches_are_linear() {
    // Sketches of what `seen` makes of values.
    let linear = |seen: fn(f64) -> f64| {
        let cases = (1_usize..200, any::<u64>(), -3.0..3.0, -3.0..3.0);
        Check::default().hold(cases, |(len, seed, a, b): (usize, u64, f64, f64)| {
            let sketcher = Sketcher::new(3, 17, len, Seed(seed));
            let sketch = |values: &[f64]| sketcher.sketch(&values.iter().copied().map(seen).collect::<Vec<f64>>());
            let mut random = Seed(seed).random();
            let [x, y]: [Vec<f64>; 2] = std::array::from_fn(|_| (0..len).map(|_| random.normal()).collect());
            let sum: Vec<f64> = x.iter().zip(&y).map(|(x, y)| a * x + b * y).collect();
            let parts = sketch(&x).into_iter().zip(sketch(&y)).map(|(x, y)| a * x + b * y);
            for (place, (whole, parts)) in sketch(&sum).into_iter().zip(parts).enumerate() {
                if (whole - parts).abs() > 1e-14 * len as f64 * 20.0 {
                    return Err(format!("{place}: {whole} of the sum, {parts} of its parts"));
                }
            }
            Ok(())
        })
    };
    assert_eq!(linear(|value| value), Ok(()));
    assert!(linear(f64::abs).is_err(), "sketches of magnitudes are noticed");
    assert!(linear(bounded).is_err(), "sketches of values that are cut off are noticed");
}

/// No larger than 1.
fn bounded(value: f64) -> f64 {
    value.clamp(-1.0, 1.0)
}

/// What states say is enough: the mean of sketches of what `seen` makes of values is the sketch of the mean drift, and as long.
fn tells_the_length_of_a_mean(seen: fn(f64) -> f64) -> Result<(), Broken> {
    Check::default().hold((drifts(), any::<u64>()), |(drifts, seed): (Vec<Vec<f64>>, u64)| {
        let sketcher = Sketcher::new(5, 64, drifts[0].len(), Seed(seed));
        let sketch = |values: &[f64]| sketcher.sketch(&values.iter().copied().map(seen).collect::<Vec<f64>>());
        let sketches: Vec<Vec<f64>> = drifts.iter().map(|drift| sketch(drift)).collect();
        let (of_mean, mean) = (sketcher.norm(&sketch(&mean(&drifts))), sketcher.norm(&mean(&sketches)));
        let scale = drifts.iter().map(|u| squares(u)).fold(0.0, f64::max);
        if (of_mean - mean).abs() <= 1e-11 * scale { Ok(()) } else { Err(format!("{of_mean} is not {mean}")) }
    })
}

#[test]
fn a_sketch_tells_the_length_of_a_mean() {
    assert_eq!(tells_the_length_of_a_mean(|value| value), Ok(()));
    assert!(tells_the_length_of_a_mean(f64::abs).is_err(), "sketches of magnitudes are noticed");
    assert!(tells_the_length_of_a_mean(bounded).is_err(), "sketches of values that are cut off are noticed");
}
