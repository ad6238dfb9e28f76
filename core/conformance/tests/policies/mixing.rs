//! Mixing matrices: symmetric and doubly stochastic, also without links that are lost, and as fast as the literature says.

use crate::gossip::topologies;
use kronfleet_conformance::check::{Broken, Check};
use kronfleet_core::gossip::{Mixing, Row, Topology};
use kronfleet_core::transport::NodeId;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A matrix, row by row.
type Rows = Vec<Row>;

fn rows(mixing: &Mixing) -> Rows {
    (0..mixing.nodes()).map(|node| mixing.row(NodeId(node)).clone()).collect()
}

/// Whether all rows and columns add up to 1, and what is given is given back.
fn check_stochastic(rows: &[Row]) -> Result<(), String> {
    for (node, Row { own, others }) in (0..).map(NodeId).zip(rows) {
        let sum = own + others.values().sum::<f64>();
        if (sum - 1.0).abs() > 1e-12 || *own < -1e-15 || others.values().any(|&weight| weight <= 0.0) {
            return Err(format!("{node} gives {own} to itself and {others:?}"));
        }
        if let Some((other, _)) =
            others.iter().find(|(other, weight)| rows[other.0 as usize].others.get(&node) != Some(weight))
        {
            return Err(format!("{node} and {other} give each other different weights"));
        }
    }
    Ok(())
}

/// Whether what `make` makes of drawn graphs is so, and stays so when links are lost, as `without` does it.
fn is_stochastic(make: fn(&Topology) -> Rows, without: fn(Rows, NodeId, NodeId) -> Rows) -> Result<(), Broken> {
    let cases = (topologies(), proptest::collection::vec(any::<(u32, u32)>(), 0..6));
    Check::default().hold(cases, |(topology, lost): (Topology, Vec<(u32, u32)>)| {
        let mut rows = make(&topology);
        for (node, row) in (0..).zip(&rows) {
            if !row.others.keys().copied().eq(topology.neighbours(node).map(NodeId)) {
                return Err(format!("{node} gives to others than its neighbours"));
            }
        }
        check_stochastic(&rows)?;
        for (a, b) in lost {
            rows = without(rows, NodeId(a % topology.nodes()), NodeId(b % topology.nodes()));
            check_stochastic(&rows)?;
        }
        Ok(())
    })
}

/// What one gave to the other and the other to it, with a link that is lost.
fn lose(rows: &mut Rows, a: NodeId, b: NodeId) -> [(usize, f64); 2] {
    [(a, b), (b, a)].map(|(from, to)| {
        let node = from.0 as usize;
        (node, rows[node].others.remove(&to).unwrap_or(0.0))
    })
}

/// What was given over it each gives to itself.
fn given_to_itself(mut rows: Rows, a: NodeId, b: NodeId) -> Rows {
    for (node, weight) in lose(&mut rows, a, b) {
        rows[node].own += weight;
    }
    rows
}

/// Each divides its row by what is left in it.
fn divided_by_what_is_left(mut rows: Rows, a: NodeId, b: NodeId) -> Rows {
    for (node, weight) in lose(&mut rows, a, b) {
        let left = 1.0 - weight;
        rows[node].own /= left;
        rows[node].others.values_mut().for_each(|weight| *weight /= left);
    }
    rows
}

/// Nobody gets it.
fn given_to_nobody(mut rows: Rows, a: NodeId, b: NodeId) -> Rows {
    lose(&mut rows, a, b);
    rows
}

/// One gives it to itself, the other to nobody.
fn given_to_itself_by_one(mut rows: Rows, a: NodeId, b: NodeId) -> Rows {
    let [(node, weight), _] = lose(&mut rows, a, b);
    rows[node].own += weight;
    rows
}

/// As many parts as a node has neighbours, and one more: `w_ij = 1/(1 + d_i)`.
fn by_own_degree(topology: &Topology) -> Rows {
    let row = |node| {
        let part = 1.0 / (1 + topology.neighbours(node).len()) as f64;
        Row { own: part, others: topology.neighbours(node).map(|other| (NodeId(other), part)).collect() }
    };
    (0..topology.nodes()).map(row).collect()
}

/// The lesser of both instead of the greater: `w_ij = 1/(1 + min(d_i, d_j))`.
fn by_lesser_degree(topology: &Topology) -> Rows {
    let degree = |node| topology.neighbours(node).len();
    let row = |node| {
        let weight = |other| (NodeId(other), 1.0 / (1 + degree(node).min(degree(other))) as f64);
        let others: BTreeMap<NodeId, f64> = topology.neighbours(node).map(weight).collect();
        Row { own: 1.0 - others.values().sum::<f64>(), others }
    };
    (0..topology.nodes()).map(row).collect()
}

#[test]
fn mixing_matrices_are_symmetric_and_doubly_stochastic() {
    let metropolis = |topology: &Topology| rows(&Mixing::metropolis(topology));
    assert_eq!(is_stochastic(metropolis, given_to_itself), Ok(()));
    for other in [by_own_degree, by_lesser_degree] {
        assert!(is_stochastic(other, given_to_itself).is_err());
    }
    for other in [divided_by_what_is_left, given_to_nobody, given_to_itself_by_one] {
        assert!(is_stochastic(metropolis, other).is_err());
    }
}

#[test]
fn links_are_lost_as_is_said_and_gaps_tell_who_is_connected() {
    let cases = (topologies(), proptest::collection::vec(any::<(u32, u32)>(), 0..6));
    let law = |(topology, lost): (Topology, Vec<(u32, u32)>)| {
        let mut mixing = Mixing::metropolis(&topology);
        if (mixing.spectral_gap() > 1e-9) != topology.is_connected() {
            return Err(format!("a gap of {}, connected: {}", mixing.spectral_gap(), topology.is_connected()));
        }
        for (a, b) in lost {
            let [a, b] = [a, b].map(|node| NodeId(node % topology.nodes()));
            let expected = given_to_itself(rows(&mixing), a, b);
            mixing = mixing.without(a, b);
            if rows(&mixing) != expected {
                return Err(format!("{mixing:?} without the link of {a} and {b}, not {expected:?}"));
            }
            check_stochastic(&rows(&mixing))?;
        }
        Ok(())
    };
    assert_eq!(Check::default().hold(cases, law), Ok(()));
}

#[test]
fn spectral_gaps_are_those_of_the_literature() {
    let cube = |dimensions: u32| (Topology::hypercube(dimensions), 2.0 / f64::from(dimensions + 1));
    for (topology, expected) in [
        (Topology::ring(1), 1.0),
        (Topology::ring(2), 1.0),
        (Topology::ring(8), 0.19526),
        (Topology::ring(16), 0.05075),
        (Topology::ring(32), 0.01281),
        (Topology::torus(4, 4), 0.4),
        (Topology::torus(4, 8), 0.11716),
        (Topology::complete(9), 1.0),
        (Topology::dyck(), 0.19098),
        cube(3),
        cube(4),
        cube(5),
    ] {
        let gap = Mixing::metropolis(&topology).spectral_gap();
        assert!((gap - expected).abs() < 6e-6, "{topology:?}: {gap}, not {expected}");
    }
}

#[test]
fn named_graphs_are_what_they_are_called() {
    let dyck = Topology::dyck();
    assert!((0..32).all(|node| dyck.neighbours(node).len() == 3) && dyck.is_connected());
    // Bipartite without circles of four: no two nodes have two neighbours in common.
    for (a, b) in (0..32).flat_map(|a| (0..a).map(move |b| (a, b))) {
        let common = dyck.neighbours(a).filter(|&other| dyck.neighbours(b).any(|of_b| of_b == other)).count();
        assert!(common <= 1 && (common == 0 || (a + b) % 2 == 0), "{a} and {b}");
    }
    let social = Topology::social();
    let edges: usize = (0..18).map(|woman| social.neighbours(woman).len()).sum();
    assert!(
        edges == 89 && social.is_connected() && (0..18).all(|woman| social.neighbours(woman).all(|event| event >= 18))
    );
}
