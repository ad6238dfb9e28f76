//! What outlives a crash, and what does not pass for it.

use super::fleet::*;
use crate::cluster::*;
use crate::storage::{NoStorage, Slot, Storage};
use crate::time::Duration;
use alloc::string::ToString;
use alloc::vec::Vec;

const SECOND: Duration = Duration::from_secs(1);

fn strict(size: u32) -> Fleet {
    let mut fleet = Fleet::adapted(size, Faults::NONE, 1, Rejoin::FullWeight, 2, |settings| {
        settings.mode = Mode::Strict;
    });
    fleet.settle_in();
    fleet
}

#[test]
fn what_is_written_is_read_and_damage_is_not() {
    let mut fleet = strict(3);
    for _ in 0..2 {
        fleet.contribute_all(5);
        fleet.outcomes(SECOND);
    }
    let newest = fleet.nodes[&1].last();
    let disk = fleet.disks.get_mut(&1).unwrap();
    let persisted = Persisted::<f32>::read(disk).unwrap();
    let copies: Vec<_> = persisted.accepted.iter().map(|copy| copy.certificate.id()).collect();
    assert!(copies.len() == 2 && copies[0] == newest && copies[1].round == Round(1));
    assert_eq!(persisted.accepted[0].state.segments()[0].name, "weights");
    assert_eq!(persisted.next_incarnation(Duration::ZERO), Incarnation(2));
    for slot in Slot::ALL {
        let whole = disk.0[&slot].clone();
        for index in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[index] ^= 1 << (index % 8);
            disk.write(slot, &flipped).unwrap();
            let error = Persisted::<f32>::read(disk).unwrap_err();
            assert!(error.slot == slot && error.to_string().contains("give the node a new id"), "{error}");
            disk.write(slot, &whole[..index]).unwrap();
            assert!(Persisted::<f32>::read(disk).is_err(), "{slot} cut to {index} bytes");
        }
        disk.write(slot, &whole).unwrap();
    }
    assert!(Persisted::<f64>::read(disk).is_err(), "values of another type");
    disk.0.remove(&Slot::Vote);
    let error = Persisted::<f32>::read(disk).unwrap_err();
    assert!(error.slot == Slot::Vote && error.to_string().contains("missing"), "{error}");
    assert_eq!(Persisted::<f32>::read(&mut NoStorage).unwrap(), Persisted::default());
}

/// All die at once just after accepting, and nobody has told anybody of the commit.
#[test]
fn what_a_majority_has_accepted_is_committed_even_if_all_die() {
    let mut fleet = strict(3);
    fleet.contribute_all(5);
    fleet.run(Duration::from_micros(6_800));
    let accepted = fleet.records.iter().find_map(|record| match record.what {
        Occurrence::Accepted { certificate, .. } => Some(certificate),
        _ => None,
    });
    assert!((0..3).all(|node| fleet.certificates(node).is_empty()));
    for node in 0..3 {
        fleet.kill(node);
    }
    for node in 0..3 {
        fleet.start(node, 2);
    }
    fleet.settle_in();
    fleet.contribute_all(5);
    for (node, outcome) in fleet.outcomes(2 * SECOND) {
        let Outcome::Healed { certificate, .. } = outcome else { panic!("n{node}: {outcome:?}\n{}", fleet.trace()) };
        assert_eq!(Some(certificate.id()), accepted);
    }
    fleet.contribute_all(5);
    let outcomes = fleet.outcomes(SECOND);
    let (certificate, _) = committed(&outcomes[&2]);
    assert_eq!((certificate.round, certificate.parents.len()), (Round(2), 1));
}

#[test]
fn a_node_whose_disk_fails_is_mute_in_votes_and_says_why() {
    let mut fleet = strict(3);
    fleet.broken_disks.insert(2);
    fleet.contribute_all(5);
    let outcomes = fleet.outcomes(3 * SECOND);
    // The others, a majority, commit without it.
    assert_eq!(members(committed(&outcomes[&0]).0), [0, 1]);
    assert!(!fleet.lines(|record| matches!(record.what, Occurrence::NotStored { .. })).is_empty());
    assert!(fleet.certificates(2).is_empty());
}

#[test]
#[should_panic(expected = "take Persisted::next_incarnation")]
fn a_start_that_is_not_later_is_refused() {
    let mut fleet = strict(3);
    fleet.kill(1);
    fleet.start(1, 1);
}
