use super::*;
use crate::cluster::Round;
use crate::collective::{Fault, Load, Parcel, Plan, Reduction};
use crate::seed::Random;
use alloc::format;
use alloc::string::String;

const LEN: usize = BLOCK + 900;
const CODES: [&str; 7] = ["top:0.1", "random:0.2", "sign", "bf16", "8bit", "levels:16", "rank:8"];

/// A node between rounds.
#[derive(Clone, Default)]
struct Node {
    values: Vec<f32>,
    weight: f64,
    untold: Untold<f32>,
    /// The last average that it knows, of which round it is, and older ones.
    base: Option<Arc<Contribution<f32>>>,
    at: CertificateId,
    bases: Bases<f32>,
    /// The part that it contributes, of how many; 0 of 0: all at once.
    turn: (usize, usize),
}

impl Node {
    fn contribution(&self) -> Contribution<f32> {
        let mut contribution = Contribution::default();
        let (turn, parts) = self.turn;
        for (number, values) in self.values.chunks(self.values.len().div_ceil(parts.max(1))).enumerate() {
            let name = if parts == 0 { String::from("parameters") } else { format!("parameters/{number}") };
            let weight = if number == turn { self.weight } else { 0.0 };
            contribution.segment(&name, values.len(), weight).copy_from_slice(values);
        }
        contribution.segment("running", 1, self.weight).fill(0.1);
        contribution
    }

    /// What it has and has not told, each counted.
    fn whole(&self, at: usize) -> f64 {
        let untold = self.untold.of(0, self.values.len());
        let untold = untold.map_or(0.0, |left| left.weight * f64::from(left.values[at]));
        self.weight * f64::from(self.values[at]) + untold
    }
}

fn drawn(random: &mut Random, len: usize) -> Vec<f32> {
    (0..len).map(|_| random.normal() as f32).collect()
}

/// A round among nodes, of which those with the base of node 0 have an average in common, in an order drawn from `random`;
/// every node has the average afterwards. Answers with the bytes of each parcel of parameters.
fn round(code: Code, nodes: &mut [Node], random: &mut Random) -> Result<Vec<usize>, Fault> {
    let common = nodes[0].base.clone();
    let same = |base: &Option<Arc<_>>| base.as_ref().zip(common.as_ref()).is_some_and(|(a, b)| Arc::ptr_eq(a, b));
    let based: Vec<bool> = nodes.iter().map(|node| same(&node.base)).collect();
    let lineage = nodes[0].bases.lineage();
    let akin: Vec<bool> =
        nodes.iter().zip(&based).map(|(node, based)| *based && node.bases.lineage() == lineage).collect();
    let weights =
        nodes.iter().map(|node| node.contribution().segments().iter().map(|segment| segment.weight).collect());
    let weights: Vec<Vec<f64>> = weights.collect();
    let mut left = Vec::new();
    let mut members = Vec::new();
    for (me, node) in nodes.iter().enumerate() {
        let mut own = node.contribution();
        let seed = Seed(random.bits());
        let (coded, untold) =
            tell(code, node.base.as_deref(), &node.bases, &node.untold, &mut own, seed).unwrap_or_default();
        left.push(untold);
        let base = node.base.clone().filter(|_| based[me]);
        let differences = Differences::new(code, based.clone(), base, Arc::new(coded), seed);
        let differences = differences.with_bases(me, akin.clone(), Arc::new(node.bases.clone()));
        let active = based.iter().filter(|based| **based).count() > 1;
        let own = (Arc::new(own), Contribution::default());
        let plan = Plan::direct(BLOCK);
        members.push(Reduction::telling(plan, me, weights.clone(), own.0, own.1, active.then_some(differences))?);
    }
    let mut queue: Vec<(usize, Parcel, Vec<u8>)> = Vec::new();
    let mut sizes = Vec::new();
    loop {
        for (from, member) in members.iter_mut().enumerate() {
            while let Some(parcel) = member.poll() {
                let full = |values: &[f32]| {
                    let mut bytes = vec![0; 4 * values.len()];
                    Encoding::Full.write(values, &mut bytes);
                    bytes
                };
                let bytes = match member.load(&parcel) {
                    Load::Coded(bytes) => bytes.to_vec(),
                    Load::Made(values) => full(&values),
                    Load::Own(_) => {
                        let mut bytes = vec![0; member.bytes(&parcel)];
                        member.write(&parcel, &mut bytes);
                        bytes
                    }
                };
                if bytes.len() != 4 {
                    sizes.push(bytes.len());
                }
                queue.push((from, parcel, bytes));
            }
        }
        if queue.is_empty() {
            break;
        }
        let (from, Parcel { to, index, reduced }, bytes) = queue.swap_remove(random.below(queue.len() as u64) as usize);
        members[to].receive(from, reduced, index, &bytes)?;
    }
    let averages: Vec<_> = members.into_iter().map(Reduction::finish_telling).collect();
    for (((node, (average, lost)), mut untold), weights) in nodes.iter_mut().zip(&averages).zip(left).zip(weights) {
        assert_eq!(average.digest(), averages[0].0.digest(), "{code}: one average for all");
        untold.take_on(lost);
        untold.count(&weights);
        node.untold = untold;
        let mut start = 0;
        for segment in average.segments().iter().filter(|segment| is_of_parameters(&segment.name)) {
            let range = start..start + segment.values.len();
            start = range.end;
            if segment.weight > 0.0 {
                node.values[range].copy_from_slice(&segment.values);
            }
        }
    }
    let average = Arc::new(averages[0].0.clone());
    let id = CertificateId { round: Round(nodes[0].at.round.0 + 1), digest: Digest(7) };
    for node in nodes {
        if let Some(base) = &node.base {
            node.bases.follow(node.at, base, &average);
        }
        (node.base, node.at) = (Some(Arc::clone(&average)), id);
    }
    Ok(sizes)
}

/// Nodes after a first round, all with one average.
fn begun(code: Code, count: usize, len: usize, random: &mut Random) -> Vec<Node> {
    let start = drawn(random, len);
    let mut nodes = vec![Node { values: start, weight: 1.0, ..Node::default() }; count];
    round(code, &mut nodes, random).expect("finite values");
    nodes
}

#[test]
fn all_keep_one_average_and_what_is_not_in_it_is_still_to_come() {
    for case in 0..60 {
        let code: Code = CODES[case % CODES.len()].parse().expect("a code");
        let mut random = Seed(case as u64).random();
        let mut nodes = begun(code, 2 + case % 5, LEN, &mut random);
        nodes.iter_mut().skip(1).step_by(2).for_each(|node| node.weight = 0.1);
        for turn in 0..3 {
            for (number, node) in nodes.iter_mut().enumerate() {
                let moved = drawn(&mut random, LEN);
                node.values.iter_mut().zip(moved).for_each(|(value, moved)| *value += 0.1 * moved);
                // Whoever counted little counts no more of what it has not told because it counts more now.
                node.weight = node.weight.max([0.1, 1.0][usize::from(random.chance(0.5))] + random.uniform() * 0.9);
                if number > 1 && random.chance(0.3) {
                    // Another history, or none.
                    node.base = node.base.take().filter(|_| random.chance(0.5)).map(|base| Arc::new((*base).clone()));
                }
            }
            let total: f64 = nodes.iter().map(|node| node.weight).sum();
            let before: Vec<f64> = (0..LEN).map(|at| nodes.iter().map(|node| node.whole(at)).sum()).collect();
            round(code, &mut nodes, &mut random).expect("finite values");
            for (at, before) in before.iter().enumerate() {
                let after: f64 = nodes.iter().map(|node| node.whole(at)).sum();
                assert!((before - after).abs() < 1e-5 * total, "{code}, round {turn}: {before} became {after}");
            }
        }
    }
}

/// The part of the way that is missing of the averages of four nodes that each go the same way in every round; with one
/// that forgets what it has not told, if so asked.
fn missing(code: Code, forgets: bool) -> f64 {
    let (len, rounds) = (600, 120);
    let mut random = Seed(3).random();
    let mut nodes = begun(code, 4, len, &mut random);
    let start = nodes[0].values.clone();
    let moves: Vec<Vec<f32>> = (0..4).map(|_| drawn(&mut random, len)).collect();
    for _ in 0..rounds {
        for (node, moves) in nodes.iter_mut().zip(&moves) {
            node.values.iter_mut().zip(moves).for_each(|(value, moved)| *value += 0.01 * moved);
        }
        round(code, &mut nodes, &mut random).expect("finite values");
        if forgets {
            nodes[1].untold = Untold::default();
        }
    }
    let (mut apart, mut whole) = (0.0, 0.0);
    for at in 0..len {
        let mean: f64 = moves.iter().map(|moves| 0.01 * f64::from(moves[at])).sum::<f64>() / 4.0;
        let expected = f64::from(rounds) * mean;
        apart += (f64::from(nodes[0].values[at] - start[at]) - expected).powi(2);
        whole += expected.powi(2);
    }
    (apart / whole).sqrt()
}

#[test]
fn what_is_small_comes_late_and_whole() {
    for text in CODES {
        let code: Code = text.parse().expect("a code");
        let missing = missing(code, false);
        assert!(missing < 0.3, "{code}: {missing} of the way is missing");
    }
    let tenth = "top:0.1".parse().expect("a code");
    assert!(missing(tenth, true) > 2.0 * missing(tenth, false), "who forgets what it has not told is noticed");
}

#[test]
fn parcels_are_as_long_as_the_code_says() {
    for text in CODES {
        let code: Code = text.parse().expect("a code");
        let mut random = Seed(4).random();
        let mut nodes = begun(code, 3, LEN, &mut random);
        nodes.iter_mut().for_each(|node| node.values.iter_mut().for_each(|value| *value += random.normal() as f32));
        let compressor = code.compressor::<f32>();
        let (block, rest) = (compressor.sizes(BLOCK), compressor.sizes(LEN - BLOCK));
        let sizes = round(code, &mut nodes, &mut random).expect("finite values");
        // Two others to and from each of two owners.
        assert_eq!(sizes.len(), 8, "{code}");
        assert!(sizes.iter().all(|size| block.contains(size) || rest.contains(size)), "{code}: {sizes:?}");
    }
}

#[test]
fn what_cannot_be_told_names_whose_it_is() {
    let mut random = Seed(5).random();
    for (code, wrong) in [("top:0.1", f32::NAN), ("sign", f32::INFINITY)] {
        let code: Code = code.parse().expect("a code");
        let mut nodes = begun(code, 3, LEN, &mut random);
        nodes[1].values[BLOCK + 7] = wrong;
        assert_eq!(round(code, &mut nodes, &mut random), Err(Fault::NotFinite(1)));
    }
}

#[test]
fn bytes_that_are_no_code_are_refused() {
    let code: Code = "top:0.1".parse().expect("a code");
    let mut random = Seed(6).random();
    let nodes = begun(code, 2, 600, &mut random);
    let base = nodes[0].base.clone();
    let mut own = nodes[0].contribution();
    let (coded, _) =
        tell(code, base.as_deref(), &Bases::default(), &nodes[0].untold, &mut own, Seed(1)).expect("finite values");
    let right = coded.0[0][0].to_vec();
    let differences = Differences::new(code, vec![true; 2], base, Arc::new(coded), Seed(1));
    let weights = vec![vec![1.0; 2]; 2];
    let mut member =
        Reduction::telling(Plan::direct(BLOCK), 0, weights, Arc::new(own), Contribution::default(), Some(differences))
            .expect("finite values");
    let longer = [&right[..], &[0]].concat();
    for wrong in [&right[1..], &longer, &[], &vec![0; 2400]] {
        assert_eq!(member.receive(1, false, 0, wrong), Err(Fault::Shape(1)), "{} bytes", wrong.len());
    }
    assert_eq!(member.receive(1, false, 0, &right), Ok(()));
}

#[test]
fn where_others_count_more_than_all_who_have_the_state_results_are_told_in_full() {
    let code: Code = "top:0.1".parse().expect("a code");
    let mut random = Seed(8).random();
    let mut nodes = begun(code, 5, LEN, &mut random);
    for (number, node) in nodes.iter_mut().enumerate() {
        node.values.iter_mut().for_each(|value| *value += random.normal() as f32);
        if number > 2 {
            // These have gone on from another average.
            node.base = None;
        } else {
            node.weight = 0.25;
        }
    }
    let fresh: Vec<f64> = (0..LEN).map(|at| (nodes[3].whole(at) + nodes[4].whole(at)) / 2.75).collect();
    let old: Vec<f64> = (0..LEN)
        .map(|at| 0.75 * f64::from(nodes[0].base.as_ref().expect("it has one").segments()[0].values[at]) / 2.75)
        .collect();
    round(code, &mut nodes, &mut random).expect("finite values");
    let same = (0..LEN).filter(|&at| (f64::from(nodes[0].values[at]) - fresh[at] - old[at]).abs() < 1e-5).count();
    // Nine tenths of what each of three tells is what it had.
    assert!(same as f64 > 0.6 * LEN as f64, "{same} of {LEN}");
}

/// Rounds of nodes that contribute parts in turn, of which some miss some rounds; answers how many of the parcels of the last
/// rounds, in which nobody was missing, were as short as the code makes them.
fn turns(code: Code, case: u64, forgets: bool) -> f64 {
    let (count, parts, len) = (3 + case as usize % 3, 3, 900);
    let mut random = Seed(case).random();
    let start = drawn(&mut random, 3 * len);
    let mut nodes = vec![Node { values: start, weight: 1.0, turn: (0, parts), ..Node::default() }; count];
    let sizes = code.compressor::<f32>().sizes(len);
    let (mut short, mut all) = (0, 0);
    for turn in 0..21 {
        let away = (turn > 5 && turn < 12 && random.chance(0.5)).then(|| nodes.pop()).flatten();
        for node in &mut nodes {
            let moved = drawn(&mut random, 3 * len);
            node.values.iter_mut().zip(moved).for_each(|(value, moved)| *value += 0.1 * moved);
            node.turn.0 = turn % parts;
            if forgets {
                node.bases = Bases::default();
            }
        }
        if turn > 5 && turn < 15 && random.chance(0.3) {
            // Out of step with the others.
            nodes[1].turn.0 = (turn + 1) % parts;
        }
        let untold = |nodes: &[Node], at: usize| -> f64 {
            let (part, place) = (at / len, at % len);
            let of = |node: &Node| node.untold.of(part, len).map_or(0.0, |untold| f64::from(untold.values[place]));
            nodes.iter().map(of).sum()
        };
        let brought = |node: &Node, at: usize| node.turn.0 == at / len;
        let sums: Vec<(f64, usize)> = (0..3 * len)
            .map(|at| {
                let values = nodes.iter().filter(|node| brought(node, at)).map(|node| f64::from(node.values[at]));
                let (values, number) = values.fold((0.0, 0), |(sum, number), value| (sum + value, number + 1));
                (values + untold(&nodes, at), number)
            })
            .collect();
        let parcels = round(code, &mut nodes, &mut random).expect("finite values");
        for (at, (before, number)) in sums.into_iter().enumerate().filter(|(_, (_, number))| *number > 0) {
            let after = number as f64 * f64::from(nodes[0].values[at]) + untold(&nodes, at);
            assert!((before - after).abs() < 1e-4, "{code}, {case}, round {turn}: {before} became {after}");
        }
        if turn > 17 {
            all += parcels.len();
            short += parcels.iter().filter(|size| sizes.contains(size)).count();
        }
        nodes.extend(away);
    }
    short as f64 / all as f64
}

#[test]
fn parts_that_take_turns_are_told_from_when_they_had_theirs() {
    for case in 0..30 {
        let code: Code = CODES[case as usize % CODES.len()].parse().expect("a code");
        assert_eq!(turns(code, case, false), 1.0, "{code}, {case}");
        assert_eq!(turns(code, case, true), 0.0, "{code}, {case}: without older averages all is told in full");
    }
}

/// How far the model is from where it should be after rounds in which nodes go a way of their own each and thrice the mean of
/// what they have gone is made of the average, as a part of that way; differences are told from what was made, or from averages.
fn stepped(code: Code, made: bool) -> f64 {
    let (len, rounds) = (600, 60);
    let mut random = Seed(9).random();
    let bases = Bases::new(made);
    let values = drawn(&mut random, len);
    let mut nodes = vec![Node { values: values.clone(), weight: 1.0, bases, ..Node::default() }; 3];
    let moves: Vec<Vec<f32>> = (0..3).map(|_| drawn(&mut random, len)).collect();
    let sizes = code.compressor::<f32>().sizes(len);
    let mut model = values.clone();
    for turn in 0..rounds {
        for (node, moves) in nodes.iter_mut().zip(&moves) {
            node.values.iter_mut().zip(moves).for_each(|(value, moved)| *value += 0.01 * moved);
        }
        let parcels = round(code, &mut nodes, &mut random).expect("finite values");
        assert!(turn == 0 || parcels.iter().all(|size| sizes.contains(size)), "{code}, round {turn}");
        model.iter_mut().zip(&nodes[0].values).for_each(|(model, average)| *model += 3.0 * (average - *model));
        for node in &mut nodes {
            node.values.clone_from(&model);
            if made {
                node.bases.make(node.at, &model);
            }
        }
    }
    let way = |at: usize| moves.iter().map(|moves| f64::from(moves[at])).sum::<f64>() / 3.0 * 0.03 * f64::from(rounds);
    let apart: f64 = (0..len).map(|at| (f64::from(model[at] - values[at]) - way(at)).powi(2)).sum();
    (apart / (0..len).map(|at| way(at).powi(2)).sum::<f64>()).sqrt()
}

#[test]
fn what_is_made_of_averages_is_told_from_and_not_undone() {
    for text in ["top:0.2", "8bit", "sign"] {
        let code: Code = text.parse().expect("a code");
        let (made, averages) = (stepped(code, true), stepped(code, false));
        assert!(
            made < 0.2 && averages > if text == "8bit" { 2.0 * made } else { 1.0 },
            "{code}: {made}, from averages {averages}"
        );
    }
}
