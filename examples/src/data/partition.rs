//! Which node trains on which samples.
//!
//! Every sample belongs to exactly one node, every node has at least one, and the same seed gives the same
//! shares on every machine.

use kronfleet_core::seed::{Random, Seed};
use std::fmt;
use std::str::FromStr;

/// How the samples of a training set are dealt out among nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Partition {
    /// `iid`: uniformly at random, in shares equal up to 1.
    Iid,
    /// `sorted:60`: the first so many percent of the samples are sorted by label and cut into contiguous
    /// pieces, one per node; the rest is dealt out uniformly. Shares are equal up to 1.
    Sorted {
        /// In `[0, 100]`.
        percent: f64,
    },
    /// `label:0`: all samples of one label come first, then the others in random order; the whole is cut into
    /// contiguous pieces, so that a few nodes see one label only and the others never. Shares are equal up to 1.
    Label(u8),
    /// `dirichlet:0.3`: the samples of each class are divided by proportions drawn from a symmetric Dirichlet
    /// distribution over the nodes; the smaller its concentration, the more the nodes differ, also in size.
    ///
    /// A node left with nothing is given one sample of the largest share.
    ///
    /// Source: T.-M. H. Hsu, H. Qi, M. Brown, *Measuring the Effects of Non-Identical Data Distribution for
    /// Federated Visual Classification*, 2019.
    Dirichlet {
        /// In `[1e-6, 1e6]`.
        concentration: f64,
    },
}

/// Why samples could not be dealt out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PartitionError {
    /// The text names no partition.
    #[error(
        "{text:?} is no partition: {reason}; \
         write iid, sorted:PERCENT (sorted:60), label:LABEL (label:0) or dirichlet:CONCENTRATION (dirichlet:0.3)"
    )]
    Text {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Some nodes would have nothing to train on.
    #[error("{samples} samples cannot be dealt out among {nodes} nodes; use at least 1 and at most {samples} nodes")]
    Nodes {
        /// How many samples there are.
        samples: usize,
        /// How many nodes were asked for.
        nodes: usize,
    },
    /// No sample has the label.
    #[error("no sample has label {label}; the labels are 0 to {largest}")]
    Label {
        /// The label asked for.
        label: u8,
        /// The largest there is.
        largest: u8,
    },
}

impl Partition {
    /// The samples of each of `nodes` nodes, given the label of each sample.
    ///
    /// # Errors
    /// If there are no nodes or more than samples, or no sample has the label that [`Partition::Label`] names.
    pub fn split(&self, labels: &[u8], nodes: usize, seed: Seed) -> Result<Vec<Vec<u32>>, PartitionError> {
        if nodes == 0 || nodes > labels.len() {
            return Err(PartitionError::Nodes { samples: labels.len(), nodes });
        }
        let mut random = seed.derive("partition", 0).random();
        match *self {
            Self::Iid => Ok(sorted(labels, 0, nodes, &mut random)),
            Self::Sorted { percent } => {
                // Multiplied first: `percent / 100` is rounded, and 57 % of 100 samples would be 56.
                let count = (labels.len() as f64 * percent / 100.0).floor() as usize;
                Ok(sorted(labels, count.min(labels.len()), nodes, &mut random))
            }
            Self::Label(label) => label_first(labels, label, nodes, &mut random),
            Self::Dirichlet { concentration } => Ok(dirichlet(labels, concentration, nodes, &mut random)),
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iid => write!(f, "iid"),
            Self::Sorted { percent } => write!(f, "sorted:{percent}"),
            Self::Label(label) => write!(f, "label:{label}"),
            Self::Dirichlet { concentration } => write!(f, "dirichlet:{concentration}"),
        }
    }
}

impl FromStr for Partition {
    type Err = PartitionError;

    fn from_str(text: &str) -> Result<Self, PartitionError> {
        let wrong = |reason| PartitionError::Text { text: text.into(), reason };
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        match (name, argument) {
            ("iid", None) => Ok(Self::Iid),
            ("iid", Some(_)) => Err(wrong("iid takes no argument")),
            ("sorted" | "label" | "dirichlet", None) => Err(wrong("its argument is missing")),
            ("sorted", Some(percent)) => match percent.parse() {
                Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self::Sorted { percent }),
                _ => Err(wrong("its percentage is not a number from 0 to 100")),
            },
            ("label", Some(label)) => match label.parse() {
                Ok(label) => Ok(Self::Label(label)),
                Err(_) => Err(wrong("its label is not a whole number from 0 to 255")),
            },
            ("dirichlet", Some(concentration)) => match concentration.parse() {
                Ok(concentration) if (1e-6..=1e6).contains(&concentration) => Ok(Self::Dirichlet { concentration }),
                _ => Err(wrong("its concentration is not a number from 1e-6 to 1e6")),
            },
            _ => Err(wrong("its name is unknown")),
        }
    }
}

/// The first `count` samples sorted by label, the others at random.
fn sorted(labels: &[u8], count: usize, nodes: usize, random: &mut Random) -> Vec<Vec<u32>> {
    let mut samples: Vec<u32> = (0..).take(labels.len()).collect();
    let (first, rest) = samples.split_at_mut(count);
    first.sort_by_key(|&sample| labels[sample as usize]);
    random.shuffle(rest);
    let (mut first, mut rest) = (&*first, &*rest);
    (0..nodes)
        .map(|node| {
            // Both give what does not divide to the first nodes, so a piece is never larger than its share.
            let piece = equal_part(count, nodes, node);
            let share = equal_part(labels.len(), nodes, node);
            [take(&mut first, piece), take(&mut rest, share - piece)].concat()
        })
        .collect()
}

fn label_first(labels: &[u8], label: u8, nodes: usize, random: &mut Random) -> Result<Vec<Vec<u32>>, PartitionError> {
    let (mut samples, mut others): (Vec<u32>, Vec<u32>) =
        (0..).take(labels.len()).partition(|&sample: &u32| labels[sample as usize] == label);
    if samples.is_empty() {
        let largest = labels.iter().copied().max().unwrap_or(0);
        return Err(PartitionError::Label { label, largest });
    }
    random.shuffle(&mut samples);
    random.shuffle(&mut others);
    samples.append(&mut others);
    let mut rest = &*samples;
    Ok((0..nodes).map(|node| take(&mut rest, equal_part(labels.len(), nodes, node)).to_vec()).collect())
}

fn dirichlet(labels: &[u8], concentration: f64, nodes: usize, random: &mut Random) -> Vec<Vec<u32>> {
    let mut classes = vec![Vec::new(); 256];
    for (sample, &label) in (0_u32..).zip(labels) {
        classes[usize::from(label)].push(sample);
    }
    let mut shares = vec![Vec::new(); nodes];
    for mut class in classes {
        random.shuffle(&mut class);
        let proportions = proportions(concentration, nodes, random);
        let (mut given, mut cumulative) = (0, 0.0);
        for (node, (share, proportion)) in shares.iter_mut().zip(proportions).enumerate() {
            cumulative += proportion;
            // Rounding the running sum, not each part, leaves nobody out and counts nobody twice.
            let end = match node + 1 == nodes {
                true => class.len(),
                false => ((cumulative * class.len() as f64).round() as usize).min(class.len()),
            };
            share.extend(&class[given..end]);
            given = end;
        }
    }
    while let Some(empty) = shares.iter().position(Vec::is_empty) {
        let largest = shares.iter_mut().max_by_key(|share| share.len()).expect("there are nodes");
        let sample = largest.pop().expect("no more nodes than samples, so the largest share has two");
        shares[empty].push(sample);
    }
    shares
}

/// One draw from the symmetric Dirichlet distribution.
///
/// In logarithms, since with a small concentration all gamma variates may underflow to 0.
fn proportions(concentration: f64, nodes: usize, random: &mut Random) -> Vec<f64> {
    let mut draws: Vec<f64> = (0..nodes).map(|_| log_gamma_variate(concentration, random)).collect();
    let largest = draws.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    for draw in &mut draws {
        *draw = libm::exp(*draw - largest);
    }
    let total: f64 = draws.iter().sum();
    draws.iter().map(|draw| draw / total).collect()
}

/// The logarithm of a gamma variate of this shape (Marsaglia & Tsang 2000, with their boost of small shapes).
fn log_gamma_variate(shape: f64, random: &mut Random) -> f64 {
    // `1 − uniform` is never 0.
    let boost = libm::log(1.0 - random.uniform()) / shape;
    let d = shape + 1.0 - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = random.normal();
        let root = 1.0 + c * x;
        let v = root * root * root;
        if v > 0.0 && libm::log(1.0 - random.uniform()) < 0.5 * x * x + d - d * v + d * libm::log(v) {
            return libm::log(d * v) + boost;
        }
    }
}

/// The size of part `index` when `total` is divided into `parts`, equal up to 1.
fn equal_part(total: usize, parts: usize, index: usize) -> usize {
    total / parts + usize::from(index < total % parts)
}

fn take<'a>(samples: &mut &'a [u32], count: usize) -> &'a [u32] {
    let (now, later) = samples.split_at(count);
    *samples = later;
    now
}
