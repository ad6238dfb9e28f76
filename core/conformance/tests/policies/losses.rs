//! Gossip among nodes that learn, where messages are lost or late, or nodes begin anew, in the midst of exchanges.

use crate::neighbours::{Hall, Move, rules};
use crate::steps;
use kronfleet_conformance::check::{Broken, Check};
use kronfleet_core::gossip::{Rule, Topology};
use proptest::prelude::*;

/// What happens to what is under way from a node to a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mishap {
    /// The next message that adds to a copy is lost.
    Loss,
    /// All that is under way is lost.
    Tear,
    /// The next message, of whomever, has a wrong bit.
    Flip,
    /// The next request, of whomever, is lost.
    Deafness,
    /// Nothing arrives for a while.
    Stand,
    /// The next deadline passes, and whoever waits for it goes on.
    Haste,
    /// Its sender begins anew.
    Start,
}

/// How much happens before a mishap, between whom by their places, and how much happens while nothing arrives.
type Accident = (u64, usize, usize, Mishap, u64);

/// So much happens, deadlines among it; nodes are written down and read back.
fn happen(hall: &mut Hall, events: u64) {
    let nodes = hall.members.len() as u64;
    for event in 0..events {
        let _ = hall.happen(u64::MAX) || hall.pass();
        hall.restore((event % nodes) as usize);
    }
}

fn meet(topology: &Topology, hall: &mut Hall, (before, node, neighbour, mishap, events): Accident) {
    happen(hall, before);
    let from = node % hall.members.len();
    let others: Vec<u32> = topology.neighbours(from as u32).collect();
    let to = others[neighbour % others.len()] as usize;
    match mishap {
        Mishap::Loss => hall.lost = Some((from, to)),
        Mishap::Tear => hall.mail.entry((from, to)).or_default().clear(),
        Mishap::Flip => hall.flip = true,
        Mishap::Deafness => hall.deaf = 1,
        Mishap::Stand => {
            hall.stuck = Some((from, to));
            happen(hall, events);
            hall.stuck = None;
        }
        Mishap::Haste => _ = hall.pass(),
        Mishap::Start => hall.begin(from),
    }
}

/// Whether some exchanges after mishaps are over, who moves by two copies has a neighbour that moves by the same two, and
/// nobody waits in vain.
fn is_in_step(topology: &Topology, mut hall: Hall, accidents: &[Accident]) -> Result<(), String> {
    let nodes = hall.members.len() as u64;
    happen(&mut hall, 9 * nodes);
    accidents.iter().for_each(|&accident| meet(topology, &mut hall, accident));
    let most = |hall: &Hall| hall.members.iter().map(|member| member.iteration).max().unwrap_or(0);
    let begun = most(&hall) + 40;
    hall.run(begun);
    hall.moves = Some(vec![]);
    hall.run(begun + 40);
    let moves = hall.moves.take().unwrap_or_default();
    // Not those near the ends, whose other half may be missing.
    let seen = || moves.iter().filter(|one| (begun + 15..begun + 25).contains(&one.iteration));
    let first = seen().next().expect("somebody moves").at;
    if let Some(late) = seen().find(|one| one.at != first) {
        return Err(format!("{} waits in vain in exchange {}", late.node, late.iteration));
    }
    let is_half = |one: &Move, other: &Move| {
        (one.node, one.neighbour) == (other.neighbour, other.node)
            && one.other.as_ref() == Some(&other.own)
            && other.other.as_ref() == Some(&one.own)
    };
    let alone = seen().find(|one| !moves.iter().any(|other| is_half(one, other)));
    alone.map_or(Ok(()), |one| {
        Err(format!("{} moves towards {} in exchange {} by other copies", one.node, one.neighbour, one.iteration))
    })
}

/// Whether neighbours move by the same copies again, whatever was lost or late; with `is_mute`, no message says which of its
/// receiver's goes with it.
fn copies_are_the_same_again(is_mute: bool, check: Check) -> Result<(), Broken> {
    let mishap = prop_oneof![
        3 => Just(Mishap::Loss),
        1 => Just(Mishap::Tear),
        1 => Just(Mishap::Flip),
        1 => Just(Mishap::Deafness),
        2 => Just(Mishap::Stand),
        1 => Just(Mishap::Haste),
        1 => Just(Mishap::Start),
    ];
    let accidents = proptest::collection::vec((0_u64..60, 0_usize..9, 0_usize..8, mishap, 1_u64..200), 1..6);
    let graphs = prop_oneof![(2_u32..9).prop_map(Topology::ring), (2_u32..7).prop_map(Topology::complete)];
    let law = |(topology, which, rule, seed, accidents): (Topology, usize, Rule, u64, Vec<Accident>)| {
        let mut hall = steps::hall(&topology, rule, which, 1, seed);
        hall.is_mute = is_mute;
        is_in_step(&topology, hall, &accidents)
    };
    let which = prop_oneof![Just(0_usize), Just(1), Just(4)];
    check.hold((graphs, which, rules(), any::<u64>(), accidents), law)
}

#[test]
fn whatever_was_lost_or_late_neighbours_move_by_the_same_copies_again() {
    assert_eq!(copies_are_the_same_again(false, Check::default()), Ok(()));
    assert!(copies_are_the_same_again(true, Check { shrinking: 0, ..Check::default() }).is_err());
}

#[test]
fn one_lost_message_costs_less_than_three_steps() {
    // Two nodes that learn 1 with each of 400 iterations; D-PSGD would have both at 400.
    for seed in 0..32 {
        let mut hall = Hall::new(&Topology::ring(2), Rule::Choco { step: 1.0 }, 0, &vec![vec![0.0]; 2], seed);
        hall.learn = Some(Box::new(|_, _| vec![1.0]));
        hall.run(10);
        hall.lost = Some((0, 1));
        // In one go: whoever is ahead when a message is lost goes on.
        hall.run(400);
        assert!(hall.lost.is_none(), "nothing was lost with seed {seed}");
        let learned = hall.models().concat().iter().sum::<f64>() / 2.0;
        assert!((397.0..=403.0).contains(&learned), "{learned} iterations learned with seed {seed}");
    }
}
