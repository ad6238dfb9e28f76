//! How near sketches come to squared lengths, and how random their buckets and signs have to be for drifts that are regular.

use kronfleet_conformance::check::{Broken, Check};
use kronfleet_core::policy::{Confidence, Drifts, Gauge, Sketcher, State};
use kronfleet_core::seed::{Random, Seed};
use proptest::prelude::*;

const LEN: usize = 400;
const ROWS: usize = 5;
const COLUMNS: usize = 250;
const DRAWS: u64 = 600;

/// Drifts of which neither sign nor size is drawn at random: a sketch has nothing but its own randomness to go by.
fn regular() -> [(&'static str, Vec<f64>); 3] {
    let drift = |value: fn(usize) -> f64| (0..LEN).map(value).collect();
    [
        ("constant", drift(|_| 1.0)),
        ("alternating", drift(|place| if place % 2 == 0 { 1.0 } else { -1.0 })),
        ("periodic", drift(|place| (place as f64 * core::f64::consts::TAU / 7.0).sin())),
    ]
}

/// A sketch as it is defined, `S[j][h_j(i)] += s_j(i)·v_i`, with polynomials modulo 2⁶¹ − 1 of so many coefficients.
fn defined(
    vector: &[f64],
    [rows, columns]: [usize; 2],
    [of_buckets, of_signs]: [usize; 2],
    random: &mut Random,
) -> Vec<f64> {
    const PRIME: u64 = (1 << 61) - 1;
    let at = |polynomial: &[u64], place: usize| {
        let value = polynomial
            .iter()
            .fold(0_u128, |value, &next| (value * place as u128 + u128::from(next)) % u128::from(PRIME));
        value as u64
    };
    let mut sketch = vec![];
    for _ in 0..rows {
        let mut polynomial = |terms| (0..terms).map(|_| random.below(PRIME)).collect::<Vec<u64>>();
        let (buckets, signs) = (polynomial(of_buckets), polynomial(of_signs));
        let mut row = vec![0.0; columns];
        for (place, value) in vector.iter().enumerate() {
            let is_negative = at(&signs, place) & 1 == 1;
            row[at(&buckets, place) as usize % columns] += if is_negative { -value } else { *value };
        }
        sketch.extend(row);
    }
    sketch
}

/// Whether `H` is below the variance of nodes that all have drifted so, which is 0, no more often than is said.
fn is_sure(sketch: impl Fn(&[f64], u64) -> Vec<f64>) -> Result<(), String> {
    let (confidence, drifts) = (Confidence::Usual, Drifts::Spread);
    let gauge = Gauge::Sketch { rows: ROWS, columns: COLUMNS, confidence, drifts };
    let any = Sketcher::new(ROWS, COLUMNS, LEN, Seed(0));
    for (name, drift) in regular() {
        let norm = drift.iter().map(|value| value * value).sum();
        let fails =
            |seed: &u64| gauge.bound(&[&State { norm, more: sketch(&drift, *seed) }], &[], true, Some(&any)) < 0.0;
        let failures = (0..DRAWS).filter(fails).count() as f64 / DRAWS as f64;
        // Four standard deviations of so many draws are 0.036.
        if failures > 0.05 + 0.036 {
            return Err(format!("{name}: {failures} of all are too large"));
        }
    }
    Ok(())
}

#[test]
fn sketches_of_regular_drifts_are_as_sure_as_they_say() {
    assert_eq!(is_sure(|drift, seed| Sketcher::new(ROWS, COLUMNS, LEN, Seed(seed)).sketch(drift)), Ok(()));
}

#[test]
fn polynomials_of_too_low_a_degree_are_noticed() {
    let of_terms = |terms| is_sure(move |drift, seed| defined(drift, [ROWS, COLUMNS], terms, &mut Seed(seed).random()));
    assert_eq!(of_terms([2, 4]), Ok(()));
    // Everything in one bucket; signs that are all the same, or of which only two are independent.
    for terms in [[1, 4], [2, 1], [2, 2]] {
        assert!(of_terms(terms).is_err(), "{terms:?} coefficients of buckets and signs");
    }
}

/// Vectors of all shapes: like noise, of equal values, of one large value among small ones, of values that decay.
fn vectors() -> impl Strategy<Value = Vec<f64>> {
    let noise = |seed| {
        let mut random = Seed(seed).random();
        move |_| random.normal()
    };
    (1_usize..120, any::<u64>(), 0_usize..4).prop_map(move |(len, seed, shape)| match shape {
        0 => (0..len).map(noise(seed)).collect(),
        1 => vec![-2.0; len],
        2 => (0..len).map(noise(seed)).enumerate().map(|(at, value)| if at == 0 { 9.0 } else { value }).collect(),
        _ => (0..len).map(|place| 0.8_f64.powi(place as i32)).collect(),
    })
}

/// What `‖v‖²` is taken for, with so many rows and columns and this seed.
type Estimate = fn(&[f64], [usize; 2], u64) -> f64;

/// `(1 − ε)‖v‖² ≤ M₂ ≤ (1 + ε)‖v‖²`, each side as often as the proven `ε` of any vector says.
fn is_near(estimate: Estimate) -> Result<(), Broken> {
    let cases = (vectors(), 1_usize..8, 1_usize..80);
    Check { cases: 48, shrinking: 0, ..Check::default() }.hold(cases, |(vector, rows, columns)| {
        let norm: f64 = vector.iter().map(|value| value * value).sum();
        let found: Vec<f64> = (0..DRAWS).map(|seed| estimate(&vector, [rows, columns], seed) / norm).collect();
        let share = |fails: &dyn Fn(f64) -> bool| found.iter().filter(|of| fails(**of)).count() as f64 / DRAWS as f64;
        let confidence = Confidence::Usual;
        let (epsilon, risk) = (confidence.epsilon(rows, columns, Drifts::Any), confidence.risk());
        // Sums of squares of so many values are rounded.
        let slack = 1e-12;
        let (short, long) = (share(&|of| of < 1.0 - epsilon - slack), share(&|of| of > 1.0 + epsilon + slack));
        let most = risk + 4.0 * (risk * (1.0 - risk) / DRAWS as f64).sqrt();
        if short.max(long) <= most {
            return Ok(());
        }
        Err(format!("{rows} × {columns}: {short} of all are too short by more than {epsilon}, {long} too long"))
    })
}

/// Sums of the squares of rows.
fn squares(sketch: &[f64], columns: usize) -> Vec<f64> {
    sketch.chunks_exact(columns).map(|row| row.iter().map(|value| value * value).sum()).collect()
}

/// The sketch as it is.
fn sketch(vector: &[f64], [rows, columns]: [usize; 2], seed: u64) -> Vec<f64> {
    Sketcher::new(rows, columns, vector.len(), Seed(seed)).sketch(vector)
}

#[test]
fn squared_lengths_are_near_from_both_sides_as_often_as_is_said() {
    let real = |vector: &[f64], [rows, columns]: [usize; 2], seed| {
        let sketcher = Sketcher::new(rows, columns, vector.len(), Seed(seed));
        sketcher.norm(&sketcher.sketch(vector))
    };
    assert_eq!(is_near(real), Ok(()));
}

#[test]
fn other_estimates_of_squared_lengths_are_noticed() {
    let mistakes: [(&str, Estimate); 7] = [
        ("the least row", |vector, shape, seed| {
            squares(&sketch(vector, shape, seed), shape[1]).into_iter().fold(f64::MAX, f64::min)
        }),
        ("the greatest row", |vector, shape, seed| {
            squares(&sketch(vector, shape, seed), shape[1]).into_iter().fold(0.0, f64::max)
        }),
        ("all rows together", |vector, shape, seed| squares(&sketch(vector, shape, seed), shape[1]).iter().sum()),
        ("columns in place of rows", |vector, shape @ [rows, columns], seed| {
            let sketch = sketch(vector, shape, seed);
            let column = |at: usize| (0..rows).map(|row| sketch[row * columns + at].powi(2)).sum::<f64>();
            let mut sums: Vec<f64> = (0..columns).map(column).collect();
            sums.sort_by(f64::total_cmp);
            sums[columns / 2]
        }),
        ("the square of the sum", |vector, shape, seed| {
            let sketch = sketch(vector, shape, seed);
            let mut sums: Vec<f64> = sketch.chunks_exact(shape[1]).map(|row| row.iter().sum::<f64>().powi(2)).collect();
            sums.sort_by(f64::total_cmp);
            sums[sums.len() / 2]
        }),
        ("signs that are all the same", |vector, shape, seed| {
            let sketch = defined(vector, shape, [2, 1], &mut Seed(seed).random());
            Sketcher::new(shape[0], shape[1], 0, Seed(0)).norm(&sketch)
        }),
        ("signs that follow each other", |vector, shape, seed| {
            let sketch = defined(vector, shape, [2, 2], &mut Seed(seed).random());
            Sketcher::new(shape[0], shape[1], 0, Seed(0)).norm(&sketch)
        }),
    ];
    for (name, estimate) in mistakes {
        assert!(is_near(estimate).is_err(), "{name}");
    }
    let defined: Estimate = |vector, shape, seed| {
        let sketch = defined(vector, shape, [2, 4], &mut Seed(seed).random());
        Sketcher::new(shape[0], shape[1], 0, Seed(0)).norm(&sketch)
    };
    assert_eq!(is_near(defined), Ok(()));
}
