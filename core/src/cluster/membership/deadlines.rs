//! The earliest of many deadlines, and whose they are.
//!
//! A tree of which every node has the earliest of eight below it: changing one deadline looks at eight on each level, and
//! mostly at one level only; finding who is due costs as much for each of those that are, whatever the number of the others.

use crate::time::Instant;
use alloc::vec;
use alloc::vec::Vec;

/// How many deadlines stand below each earliest one: as many as a line of the nearest cache holds.
const WIDTH: usize = 8;

/// A deadline for each place from 0; [`Instant::FAR`] where there is none.
#[derive(Clone, Debug, Default)]
pub(super) struct Deadlines {
    /// Of single places, of groups of 8, of groups of 64, and so on up to one that has all; nothing where there is no place.
    levels: Vec<Vec<Instant>>,
}

impl Deadlines {
    /// None at any of `places` places.
    pub(super) fn new(places: usize) -> Self {
        let mut levels = Vec::new();
        let mut len = places;
        while len > 0 {
            levels.push(vec![Instant::FAR; len]);
            len = if len == 1 { 0 } else { len.div_ceil(WIDTH) };
        }
        Self { levels }
    }

    /// The earliest of all.
    pub(super) fn earliest(&self) -> Instant {
        self.levels.last().map_or(Instant::FAR, |top| top[0])
    }

    /// Changes one.
    pub(super) fn set(&mut self, mut place: usize, at: Instant) {
        let mut earliest = at;
        for level in &mut self.levels {
            if core::mem::replace(&mut level[place], earliest) == earliest {
                return;
            }
            let group = place / WIDTH * WIDTH;
            let end = (group + WIDTH).min(level.len());
            earliest = level[group..end].iter().copied().min().unwrap_or(Instant::FAR);
            place /= WIDTH;
        }
    }

    /// The first place from `from` on whose deadline is not later than `now`.
    pub(super) fn due(&self, from: usize, now: Instant) -> Option<usize> {
        let first = |level: usize, from: usize| {
            let deadlines = &self.levels[level];
            let end = ((from / WIDTH + 1) * WIDTH).min(deadlines.len());
            (from..end).find(|&place| deadlines[place] <= now)
        };
        let mut from = from;
        for level in 0..self.levels.len() {
            if let Some(found) = first(level, from) {
                return (0..level).rev().try_fold(found, |group, level| first(level, group * WIDTH));
            }
            from = from / WIDTH + 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_finds_what_looking_at_all_finds(
            places in 0_usize..200,
            changes in proptest::collection::vec((0_usize..200, 0_u64..20), 0..300),
            from in 0_usize..220,
            now in 0_u64..20,
        ) {
            let mut deadlines = Deadlines::new(places);
            let mut all = vec![Instant::FAR; places];
            for (place, at) in changes {
                if place < places {
                    // One in twenty has none any more.
                    let at = if at == 19 { Instant::FAR } else { Instant::from_nanos(at) };
                    deadlines.set(place, at);
                    all[place] = at;
                }
            }
            let now = Instant::from_nanos(now);
            prop_assert_eq!(deadlines.earliest(), all.iter().copied().min().unwrap_or(Instant::FAR));
            prop_assert_eq!(deadlines.due(from, now), (from..places).find(|&place| all[place] <= now));
        }
    }
}
