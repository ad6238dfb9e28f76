//! How random the buckets and signs of sketches have to be, for drifts that are regular.

use kronfleet_core::policy::{Confidence, Drifts, Gauge, Sketcher, State};
use kronfleet_core::seed::{Random, Seed};

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
fn defined(vector: &[f64], [of_buckets, of_signs]: [usize; 2], random: &mut Random) -> Vec<f64> {
    const PRIME: u64 = (1 << 61) - 1;
    let at = |polynomial: &[u64], place: usize| {
        let value = polynomial
            .iter()
            .fold(0_u128, |value, &next| (value * place as u128 + u128::from(next)) % u128::from(PRIME));
        value as u64
    };
    let mut sketch = vec![];
    for _ in 0..ROWS {
        let mut polynomial = |terms| (0..terms).map(|_| random.below(PRIME)).collect::<Vec<u64>>();
        let (buckets, signs) = (polynomial(of_buckets), polynomial(of_signs));
        let mut row = vec![0.0; COLUMNS];
        for (place, value) in vector.iter().enumerate() {
            let is_negative = at(&signs, place) & 1 == 1;
            row[at(&buckets, place) as usize % COLUMNS] += if is_negative { -value } else { *value };
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
    let of_terms = |terms| is_sure(move |drift, seed| defined(drift, terms, &mut Seed(seed).random()));
    assert_eq!(of_terms([2, 4]), Ok(()));
    // Everything in one bucket; signs that are all the same, or of which only two are independent.
    for terms in [[1, 4], [2, 1], [2, 2]] {
        assert!(of_terms(terms).is_err(), "{terms:?} coefficients of buckets and signs");
    }
}
