//! How much neighbours count.

use super::topology::Topology;
use crate::seed::Seed;
use crate::transport::NodeId;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// What one node gives to its own value and to those of its neighbours; together 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it gives to its own.
    pub own: f64,
    /// What it gives to others.
    pub others: BTreeMap<NodeId, f64>,
}

/// A symmetric, doubly stochastic matrix `W`: what each node gives to the values of each other.
///
/// Repeated mixing, `x ← Wx`, brings all values to their mean; the difference shrinks by `1 −` the
/// [`spectral_gap`](Self::spectral_gap) each time.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixing {
    rows: Vec<Row>,
}

impl Mixing {
    /// Metropolis–Hastings weights, `w_ij = 1/(1 + max(d_i, d_j))` with the numbers of neighbours `d`: those of the
    /// literature on every graph whose nodes have equally many neighbours (a third on a ring, a fifth on a torus).
    pub fn metropolis(topology: &Topology) -> Self {
        let degree = |node| topology.neighbours(node).len();
        let rows = (0..topology.nodes()).map(|node| {
            let weight = |other| 1.0 / (1 + degree(node).max(degree(other))) as f64;
            let others: BTreeMap<NodeId, f64> =
                topology.neighbours(node).map(|other| (NodeId(other), weight(other))).collect();
            Row { own: 1.0 - others.values().sum::<f64>(), others }
        });
        Self { rows: rows.collect() }
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> u32 {
        self.rows.len() as u32
    }

    /// What a node gives to whom.
    ///
    /// # Panics
    /// If there is no such node.
    #[track_caller]
    pub fn row(&self, node: NodeId) -> &Row {
        &self.rows[node.0 as usize]
    }

    /// The matrix without the link between two nodes: what each gave to the other it gives to itself, so that rows and
    /// columns still add up to 1. Dividing rows by what is left would not keep columns so, and the mean would move.
    ///
    /// # Panics
    /// If there is no such node.
    #[track_caller]
    #[must_use]
    pub fn without(mut self, a: NodeId, b: NodeId) -> Self {
        for (from, to) in [(a, b), (b, a)] {
            let row = &mut self.rows[from.0 as usize];
            row.own += row.others.remove(&to).unwrap_or(0.0);
        }
        self
    }

    /// `1 − max(|λ₂|, |λₙ|)`: how much of what differs is lost each time; 1 if one mixing makes all values equal, 0 if
    /// some never become so.
    ///
    /// By power iteration, on average in `O(edges/gap)`, to about ten digits.
    pub fn spectral_gap(&self) -> f64 {
        let count = self.rows.len();
        if count < 2 {
            return 1.0;
        }
        let mut random = Seed(0).derive("spectral gap", 0).random();
        let mut x: Vec<f64> = (0..count).map(|_| random.normal()).collect();
        let mut squared = f64::NAN;
        for _ in 0..MOST_ITERATIONS {
            // What all have in common stays as it is, and is not looked for.
            let mean = x.iter().sum::<f64>() / count as f64;
            x.iter_mut().for_each(|value| *value -= mean);
            let norm = libm::sqrt(x.iter().map(|value| value * value).sum());
            if norm < f64::EPSILON {
                return 1.0;
            }
            x.iter_mut().for_each(|value| *value /= norm);
            // Eigenvalues of either sign count, so that it is the square of the matrix that is applied.
            let once = self.times(&x);
            let before = squared;
            squared = once.iter().map(|value| value * value).sum();
            x = self.times(&once);
            if (squared - before).abs() <= 1e-15 {
                break;
            }
        }
        1.0 - libm::sqrt(squared)
    }

    /// `Wx`, in the order of nodes.
    fn times(&self, x: &[f64]) -> Vec<f64> {
        let row = |(row, own): (&Row, &f64)| {
            row.own * own + row.others.iter().map(|(other, weight)| weight * x[other.0 as usize]).sum::<f64>()
        };
        self.rows.iter().zip(x).map(row).collect()
    }
}

const MOST_ITERATIONS: u32 = 100_000;
