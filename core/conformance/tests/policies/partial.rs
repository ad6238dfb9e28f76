//! Gossip of what was told in an exchange, and of nothing else.

use crate::gossip::{Fleet, Node, near, topologies};
use kronfleet_conformance::check::{Broken, Check};
use kronfleet_core::compress::Compressor;
use kronfleet_core::gossip::{Mixing, Row, Rule};
use kronfleet_core::seed::Random;
use kronfleet_core::transport::NodeId;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Whose news counts on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    /// Both ends'.
    Either,
    /// What the node itself told.
    Own,
    /// What the neighbour told.
    Other,
    /// What both told.
    Both,
    /// All there ever was, as with CHOCO.
    All,
    /// What was told before, too: news of the last exchange is not forgotten.
    Former,
}

/// `x_k += γ Σ_j w_ij A_ijk (x̂_jk − x̂_ik)`, written down as it stands.
struct Plain {
    step: f64,
    row: Row,
    counted: Counted,
    own: Vec<f64>,
    others: BTreeMap<NodeId, Vec<f64>>,
    told: Vec<bool>,
    heard: BTreeMap<NodeId, Vec<bool>>,
}

impl Plain {
    fn new(step: f64, row: &Row, counted: Counted) -> Self {
        let others: BTreeMap<NodeId, Vec<f64>> = row.others.keys().map(|&node| (node, vec![0.0; 12])).collect();
        let heard = row.others.keys().map(|&node| (node, vec![false; 12])).collect();
        Self { step, row: row.clone(), counted, own: vec![0.0; 12], others, told: vec![false; 12], heard }
    }

    fn take(&self, news: &mut [bool], read: &[f64]) {
        for (news, read) in news.iter_mut().zip(read) {
            *news = *read != 0.0 || (self.counted == Counted::Former && *news);
        }
    }
}

impl Node<f64> for Plain {
    fn send(
        &mut self,
        model: &[f64],
        compressor: &mut dyn Compressor<f64>,
        random: &mut Random,
        message: &mut Vec<u8>,
    ) {
        let difference: Vec<f64> = model.iter().zip(&self.own).map(|(x, copy)| x - copy).collect();
        compressor.encode(&difference, random, message).expect("finite models");
        let mut read = vec![0.0; 12];
        compressor.decode(message, &mut read).expect("what was encoded");
        self.own.iter_mut().zip(&read).for_each(|(copy, read)| *copy += read);
        let mut told = core::mem::take(&mut self.told);
        self.take(&mut told, &read);
        self.told = told;
    }

    fn receive(&mut self, from: NodeId, message: &[u8], compressor: &mut dyn Compressor<f64>) {
        let Some(copy) = self.others.get_mut(&from) else { return };
        let mut read = vec![0.0; 12];
        compressor.decode(message, &mut read).expect("what was encoded");
        copy.iter_mut().zip(&read).for_each(|(copy, read)| *copy += read);
        let mut heard = self.heard.remove(&from).expect("a neighbour");
        self.take(&mut heard, &read);
        self.heard.insert(from, heard);
    }

    fn mix(&mut self, model: &mut [f64]) {
        let Self { step, row, counted, own, others, told, heard } = self;
        for (place, x) in model.iter_mut().enumerate() {
            let counts = |node: &NodeId| match counted {
                Counted::Either | Counted::Former => told[place] || heard[node][place],
                Counted::Own => told[place],
                Counted::Other => heard[node][place],
                Counted::Both => told[place] && heard[node][place],
                Counted::All => true,
            };
            let flows = row.others.iter().filter(|(node, _)| counts(node));
            *x += *step * flows.map(|(node, weight)| weight * (others[node][place] - own[place])).sum::<f64>();
        }
    }

    fn own(&self) -> &[f64] {
        &self.own
    }

    fn other(&self, node: NodeId) -> Option<&[f64]> {
        self.others.get(&node).map(Vec::as_slice)
    }
}

fn real(step: f64, mixing: &Mixing, which: usize, seed: u64) -> Fleet {
    Fleet::new(Rule::Partial { step }, mixing, which, seed)
}

fn plain(counted: Counted) -> impl Fn(f64, &Mixing, usize, u64) -> Fleet<Plain> {
    move |step, mixing, which, seed| Fleet::of(mixing, which, seed, |row| Plain::new(step, row, counted))
}

/// Tries a law on drawn graphs, compressors and steps.
fn hold<N: Node<f64>>(
    make: impl Fn(f64, &Mixing, usize, u64) -> Fleet<N>,
    law: impl Fn(&Mixing, &mut Fleet<N>) -> Result<(), String>,
) -> Result<(), Broken> {
    Check::default().hold((topologies(), 0_usize..5, any::<u64>(), 0.05..=1.0), |(topology, which, seed, step)| {
        let mixing = Mixing::metropolis(&topology);
        law(&mixing, &mut make(step, &mixing, which, seed))
    })
}

fn keeps_the_sum<N: Node<f64>>(_: &Mixing, fleet: &mut Fleet<N>) -> Result<(), String> {
    let mut expected = fleet.sums();
    for _ in 0..10 {
        expected.iter_mut().zip(fleet.step()).for_each(|(sum, step)| *sum += step);
        fleet.gossip();
    }
    if near(&expected, &fleet.sums()) { Ok(()) } else { Err(format!("{:?} instead of {expected:?}", fleet.sums())) }
}

/// Whether fleets that are made so move as is written down.
fn moves_as_written<N: Node<f64>>(make: impl Fn(f64, &Mixing, usize, u64) -> Fleet<N>) -> Result<(), Broken> {
    let cases = (topologies(), 0_usize..5, any::<u64>(), 0.05..=1.0);
    Check::default().hold(cases, |(topology, which, seed, step)| {
        let mixing = Mixing::metropolis(&topology);
        let mut written = plain(Counted::Either)(step, &mixing, which, seed);
        let mut fleet = make(step, &mixing, which, seed);
        for _ in 0..6 {
            let steps = [written.step(), fleet.step()];
            written.gossip();
            fleet.gossip();
            let same = written.models.iter().zip(&fleet.models).all(|(written, model)| near(written, model));
            if !same || steps[0] != steps[1] {
                return Err(format!("{:?} instead of {:?}", fleet.models, written.models));
            }
        }
        Ok(())
    })
}

#[test]
fn parts_move_as_is_written_and_keep_the_sum() {
    assert_eq!(moves_as_written(real), Ok(()));
    assert_eq!(hold(real, keeps_the_sum), Ok(()));
}

#[test]
fn other_parts_are_noticed() {
    use Counted::{All, Both, Either, Former, Other, Own};
    assert_eq!(moves_as_written(plain(Either)), Ok(()));
    for counted in [Own, Other, Both, All, Former] {
        assert!(moves_as_written(plain(counted)).is_err(), "{counted:?}");
    }
    // What one end counts and the other does not is lost or made up.
    for (counted, keeps) in [(Either, true), (Both, true), (All, true), (Own, false), (Other, false)] {
        assert_eq!(hold(plain(counted), keeps_the_sum).is_ok(), keeps, "{counted:?}");
    }
}

#[test]
fn everything_told_all_the_way_is_d_psgd() {
    let fleet = |step| move |mixing: &Mixing, seed| Fleet::new(Rule::Partial { step }, mixing, 0, seed);
    assert_eq!(crate::gossip::is_d_psgd(fleet(1.0), true), Ok(()));
    assert!(crate::gossip::is_d_psgd(fleet(0.99), true).is_err());
}

/// Whether nodes that nobody trains agree.
fn agree(step: impl Fn(usize) -> f64) -> Result<(), Broken> {
    Check::default().hold((topologies(), 0_usize..5, any::<u64>()), |(topology, which, seed)| {
        let mixing = Mixing::metropolis(&topology);
        if mixing.spectral_gap() < 0.1 {
            return Ok(());
        }
        let mut fleet = real(step(which), &mixing, which, seed);
        let before = fleet.disagreement();
        (0..400).for_each(|_| fleet.gossip());
        let after = fleet.disagreement();
        if after <= 1e-2 * before { Ok(()) } else { Err(format!("{after:e} of {before:e} are left")) }
    })
}

#[test]
fn nodes_that_nobody_trains_agree() {
    // Compressor 2 draws values at random.
    assert_eq!(agree(|which| if which == 2 { 0.5 } else { 1.0 }), Ok(()));
    assert!(agree(|_| 0.001).is_err(), "there is something to agree on");
}
