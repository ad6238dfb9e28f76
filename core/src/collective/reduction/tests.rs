use super::*;
use crate::seed::{Random, Seed};

const ALL: [Pattern; 4] = Pattern::ALL;

fn contribution(segments: &[(&[f32], f64)]) -> Arc<Contribution<f32>> {
    let mut contribution = Contribution::default();
    for (index, (values, weight)) in segments.iter().enumerate() {
        let name = ["weights", "statistics", "factor"][index];
        contribution.segment(name, values.len(), *weight).copy_from_slice(values);
    }
    Arc::new(contribution)
}

fn drawn(random: &mut Random, nodes: usize, lens: [usize; 2]) -> Vec<Arc<Contribution<f32>>> {
    let mut draw = || {
        let values = lens.map(|len| (0..len).map(|_| random.normal() as f32).collect::<Vec<_>>());
        let weights = [random.below(4) as f64, random.uniform()];
        contribution(&[(&values[0], weights[0]), (&values[1], weights[1])])
    };
    (0..nodes).map(|_| draw()).collect()
}

fn begin(plan: Plan, inputs: &[Arc<Contribution<f32>>]) -> Result<Vec<Reduction<f32>>, Fault> {
    let weights: Vec<Vec<f64>> = inputs.iter().map(|i| i.segments().iter().map(|s| s.weight).collect()).collect();
    let member = |(me, own): (usize, &Arc<_>)| {
        Reduction::new(plan, me, weights.clone(), Arc::clone(own), Contribution::default())
    };
    inputs.iter().enumerate().map(member).collect()
}

/// What is under way: sender, what, bytes.
type Queue = Vec<(usize, Parcel, Vec<u8>)>;

/// Delivers among `nodes` in an order drawn from `random`, everything twice, nothing to or from the `dead`, for so many
/// deliveries at most.
fn deliver(
    nodes: &mut [Reduction<f32>],
    queue: &mut Queue,
    random: &mut Random,
    dead: Option<usize>,
    most: usize,
) -> Result<(), Fault> {
    for _ in 0..most {
        for (from, node) in nodes.iter_mut().enumerate() {
            while let Some(parcel) = node.poll() {
                let mut bytes = vec![0; node.bytes(&parcel)];
                node.write(&parcel, &mut bytes);
                // What is kept for longer is the same.
                let loaded = match node.load(&parcel) {
                    Load::Own(piece) => node.own.segments()[piece.segment].values[piece.range].to_vec(),
                    Load::Made(values) => values.to_vec(),
                    Load::Coded(_) => unreachable!("nobody tells differences"),
                };
                let mut again = vec![0; bytes.len()];
                node.plan.encoding.write(&loaded, &mut again);
                assert_eq!(bytes, again);
                queue.extend([(from, parcel, bytes.clone()), (from, parcel, bytes)]);
            }
        }
        queue.retain(|(from, parcel, _)| Some(*from) != dead && Some(parcel.to) != dead);
        if queue.is_empty() {
            break;
        }
        let (from, Parcel { to, index, reduced }, bytes) = queue.swap_remove(random.below(queue.len() as u64) as usize);
        nodes[to].receive(from, reduced, index, &bytes)?;
    }
    Ok(())
}

/// Runs all members against each other.
fn run(plan: Plan, inputs: &[Arc<Contribution<f32>>], seed: u64) -> Result<Vec<Contribution<f32>>, Fault> {
    let mut nodes = begin(plan, inputs)?;
    deliver(&mut nodes, &mut Queue::new(), &mut Seed(seed).random(), None, usize::MAX)?;
    Ok(nodes.into_iter().map(Reduction::finish).collect())
}

/// Asserts that everybody has the weighted mean, within the plan's error, and the same bits.
fn check(plan: Plan, inputs: &[Arc<Contribution<f32>>], results: &[Contribution<f32>]) {
    let nodes = inputs.len() as f64;
    // How often a value is rounded to what stands on the wire.
    let roundings = if plan.pattern.passes_sums() { nodes + 1.0 } else { 2.0 };
    let tiny = if plan.encoding == Encoding::F16 { 2_f64.powi(-24) } else { f64::from(f32::MIN_POSITIVE) };
    for segment in 0..inputs[0].segments().len() {
        let total: f64 = inputs.iter().map(|i| i.segments()[segment].weight).sum();
        for (node, result) in results.iter().enumerate() {
            assert_eq!(result.segments()[segment].weight, total);
            for (at, &found) in result.segments()[segment].values.iter().enumerate() {
                if total == 0.0 {
                    assert_eq!(found, inputs[node].segments()[segment].values[at]);
                    continue;
                }
                assert_eq!(found.to_bits(), results[0].segments()[segment].values[at].to_bits());
                let terms = inputs.iter().map(|input| {
                    let segment = &input.segments()[segment];
                    segment.weight * f64::from(segment.values[at])
                });
                let size: f64 = terms.clone().map(f64::abs).sum::<f64>() / total;
                let mean = terms.sum::<f64>() / total;
                let mut bound = mean.abs() * f64::from(f32::EPSILON) / 2.0 + nodes * f64::EPSILON * size + tiny;
                if plan.encoding != Encoding::Full || plan.pattern.passes_sums() {
                    bound += roundings * ((plan.encoding.error() + f64::from(f32::EPSILON)) * size * 1.01 + tiny);
                }
                assert!((f64::from(found) - mean).abs() <= bound, "{plan:?}: {found} instead of {mean}");
            }
        }
    }
}

#[test]
fn the_result_is_the_weighted_mean_and_has_the_same_bits_everywhere() {
    for seed in 0..300 {
        let mut random = Seed(seed).random();
        let nodes = 1 + random.below(9) as usize;
        let lens = [random.below(40) as usize, random.below(3) as usize];
        let chunk = 1 + random.below(17) as usize;
        let inputs = drawn(&mut random, nodes, lens);
        let plan = Plan { pattern: ALL[seed as usize % 4], encoding: Encoding::ALL[seed as usize / 4 % 3], chunk };
        let results = run(plan, &inputs, seed).expect("finite values");
        check(plan, &inputs, &results);
        assert_eq!(results, run(plan, &inputs, seed + 1).expect("finite values"), "in any order of deliveries");
    }
}

#[test]
fn to_exchange_is_to_go_directly_to_the_bit() {
    for seed in 0..60 {
        let mut random = Seed(seed).random();
        let inputs = drawn(&mut random, 1 + seed as usize % 6, [30, 2]);
        let encoding = Encoding::ALL[seed as usize % 3];
        let plan = |pattern, chunk| Plan { pattern, encoding, chunk };
        let direct = run(plan(Pattern::Direct, 4), &inputs, seed).expect("finite values");
        let exchanged = run(plan(Pattern::Exchange, 7), &inputs, seed).expect("finite values");
        let bits = |results: &[Contribution<f32>]| results[0].digest();
        assert_eq!(bits(&direct), bits(&exchanged));
    }
}

#[test]
fn another_one_in_the_same_memory_is_as_good_as_the_first() {
    for pattern in ALL {
        let mut random = Seed(4).random();
        let plan = Plan { pattern, encoding: Encoding::Full, chunk: 3 };
        let inputs = drawn(&mut random, 5, [20, 1]);
        let mut nodes = begin(plan, &inputs).expect("finite values");
        // The first is given up somewhere, as when a member is lost.
        deliver(&mut nodes, &mut Queue::new(), &mut random, None, 20).expect("finite values");
        for (node, input) in nodes.iter_mut().zip(&inputs) {
            node.restart(Arc::clone(input)).expect("finite values");
        }
        deliver(&mut nodes, &mut Queue::new(), &mut random, None, usize::MAX).expect("finite values");
        let results: Vec<_> = nodes.iter().map(|node| node.result().clone()).collect();
        check(plan, &inputs, &results);
        assert_eq!(results, run(plan, &inputs, 9).expect("finite values"));
    }
}

#[test]
fn who_dies_is_missed_and_leaves_the_contributions_unharmed() {
    for seed in 0..120 {
        let mut random = Seed(seed).random();
        let plan = Plan { pattern: ALL[seed as usize % 4], encoding: Encoding::Full, chunk: 1 + seed as usize % 5 };
        let members = 2 + random.below(6) as usize;
        let mut inputs = drawn(&mut random, members, [24, 3]);
        let before: Vec<Contribution<f32>> = inputs.iter().map(|input| (**input).clone()).collect();
        let mut nodes = begin(plan, &inputs).expect("finite values");
        let dead = random.below(members as u64) as usize;
        let (mut queue, alive) = (Queue::new(), random.below(100) as usize);
        deliver(&mut nodes, &mut queue, &mut random, None, alive).expect("finite values");
        deliver(&mut nodes, &mut queue, &mut random, Some(dead), usize::MAX).expect("finite values");
        for (me, node) in nodes.iter().enumerate().filter(|(me, _)| *me != dead) {
            assert_eq!(node.is_whole(), node.awaited().is_empty(), "{plan:?}, n{me} without n{dead}");
        }
        // Whoever lacks something lacks it of the dead one, or of somebody who does.
        let waits_for = |me: usize| nodes[me].awaited();
        for me in (0..members).filter(|&me| me != dead && !nodes[me].is_whole()) {
            let (mut reached, mut open) = (vec![me], vec![me]);
            while let Some(next) = open.pop() {
                for other in waits_for(next)
                    .into_iter()
                    .filter(|other| next != dead && !reached.contains(other))
                    .collect::<Vec<_>>()
                {
                    reached.push(other);
                    open.push(other);
                }
            }
            assert!(reached.contains(&dead), "{plan:?}: n{me} waits for {reached:?} without n{dead}");
        }
        drop(nodes);
        for (input, before) in inputs.iter().zip(&before) {
            assert_eq!(**input, *before);
        }
        inputs.remove(dead);
        check(plan, &inputs, &run(plan, &inputs, seed).expect("finite values"));
    }
}

#[test]
fn whoever_is_not_finite_is_named() {
    for pattern in ALL {
        for (culprit, bad) in [(0, f32::NAN), (1, f32::INFINITY), (2, f32::NEG_INFINITY)] {
            let inputs: Vec<_> = (0..3)
                .map(|node| {
                    let mut values = [1.0; 9];
                    if node == culprit {
                        values[5] = bad;
                    }
                    contribution(&[(&values, 1.0)])
                })
                .collect();
            let plan = Plan { pattern, encoding: Encoding::Full, chunk: 2 };
            assert_eq!(run(plan, &inputs, 1).unwrap_err(), Fault::NotFinite(culprit), "{pattern:?}");
        }
    }
}

#[test]
fn a_value_that_does_not_count_may_be_anything() {
    for pattern in ALL {
        let inputs = [contribution(&[(&[f32::NAN], 0.0)]), contribution(&[(&[2.0], 1.0)])];
        for result in run(Plan { pattern, ..Plan::direct(4) }, &inputs, 1).expect("finite where it counts") {
            assert_eq!(result.segments()[0].values, [2.0]);
        }
    }
}

#[test]
fn what_fits_no_piece_is_refused() {
    let input = contribution(&[(&[1.0, 2.0], 1.0)]);
    let weights = vec![vec![1.0]; 2];
    let mut direct = Reduction::new(Plan::direct(1), 0, weights, input, Contribution::default()).unwrap();
    assert_eq!(direct.receive(1, false, 7, &[0; 4]), Err(Fault::Shape(1)));
    assert_eq!(direct.receive(1, false, 0, &[0; 3]), Err(Fault::Shape(1)));
    assert_eq!(direct.receive(0, false, 0, &[0; 4]), Err(Fault::Shape(0)));
    assert_eq!(direct.receive(1, true, 0, &[0; 4]), Err(Fault::Shape(1)));
    assert_eq!(direct.awaited(), [1]);
}

#[test]
fn the_choice_is_exact_where_few_are() {
    assert_eq!(Pattern::choose(2, 40 << 20), Pattern::Exchange);
    assert_eq!(Pattern::choose(8, 4 << 10), Pattern::Exchange);
    assert_eq!(Pattern::choose(8, 4 << 20), Pattern::Direct);
    assert_eq!(Pattern::choose(1000, 4 << 20), Pattern::Halving);
}
