//! How far averages have gone, so that nodes which have missed some of them can be counted.

use crate::cluster::CertificateId;
use crate::policy::words::{Saved, Words};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Averages that are remembered at most.
const MOST: usize = 64;
/// The last of them that are told at most.
pub(super) const TOLD: usize = 8;

/// An average, and how far at most another one is from it.
pub(super) type Way = (CertificateId, f64);

/// The averages that a node has had, the first model before them, and how far at most each of them is from its last: the
/// way over all between, which no straight line exceeds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ways(VecDeque<Way>);

impl Ways {
    /// The node has gone from its last average to this one, so far away.
    pub(super) fn go(&mut self, to: CertificateId, step: f64) {
        self.0.iter_mut().for_each(|(_, way)| *way += step);
        // Of what has left the range of numbers nothing is known.
        self.0.retain(|(id, way)| *id != to && way.is_finite());
        self.0.push_back((to, 0.0));
        if self.0.len() > MOST {
            // All others have come from the first one, too.
            self.0.remove(1);
        }
    }

    /// Takes in what another node with the same last average tells.
    pub(super) fn learn(&mut self, told: &[Way]) {
        for &(id, way) in told {
            // After the first model, and before the last average, which stays it.
            let place = self.0.len().saturating_sub(1).min(1);
            let room = self.0.len() < MOST;
            match self.0.iter_mut().find(|(known, _)| *known == id) {
                Some((_, known)) => *known = known.min(way),
                None if room => self.0.insert(place, (id, way)),
                None => {}
            }
        }
    }

    /// What to tell a node that has gone another way: the first and the last of them.
    pub(super) fn told(&self) -> Vec<Way> {
        let last = self.0.len().saturating_sub(TOLD).max(1);
        self.0.iter().take(1).chain(self.0.iter().skip(last)).copied().collect()
    }

    /// How far the last averages of two nodes are apart at most, by whatever averages both have had; `None` if there are none.
    pub(super) fn between(&self, others: &[Way]) -> Option<f64> {
        let meet = |(id, way): &Way| self.0.iter().find(|(own, _)| own == id).map(|(_, own)| own + way);
        others.iter().filter_map(meet).min_by(f64::total_cmp)
    }

    pub(super) fn save(&self, words: &mut Words) {
        words.ways(&self.0);
    }

    pub(super) fn restore(words: &mut Saved<'_>) -> Option<Self> {
        words.ways().map(|ways| Self(ways.into()))
    }
}

impl Words {
    pub(super) fn ways<'a>(&mut self, ways: impl IntoIterator<Item = &'a Way, IntoIter: ExactSizeIterator>) {
        let ways = ways.into_iter();
        self.0.push(ways.len() as u64);
        for (id, way) in ways {
            self.id(id);
            self.0.push(way.to_bits());
        }
    }
}

impl Saved<'_> {
    pub(super) fn ways(&mut self) -> Option<Vec<Way>> {
        let way = |words: &mut Self| Some((words.id()?, f64::from_bits(words.word()?)));
        (0..self.count()?).map(|_| way(self).filter(|(_, way)| is_way(*way))).collect()
    }
}

/// Whether anything can be so far from anything.
pub(super) fn is_way(way: f64) -> bool {
    way.is_finite() && way >= 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Digest, Round};
    use alloc::vec;
    use proptest::prelude::*;

    fn id(round: usize) -> CertificateId {
        CertificateId { round: Round(round as u64), digest: Digest(7) }
    }

    /// Where averages were, in a plane.
    fn averages() -> impl Strategy<Value = Vec<(f64, f64)>> {
        prop::collection::vec((-9.0_f64..9.0, -9.0_f64..9.0), 0..100)
    }

    fn distance(a: &(f64, f64), b: &(f64, f64)) -> f64 {
        libm::hypot(a.0 - b.0, a.1 - b.1)
    }

    /// Of a node that has had these, the first of them with this number.
    fn ways(averages: &[(f64, f64)], first: usize, ways: Ways) -> Ways {
        averages.windows(2).enumerate().fold(ways, |mut ways, (at, pair)| {
            ways.go(id(first + at), distance(&pair[0], &pair[1]));
            ways
        })
    }

    proptest! {
        #[test]
        fn no_two_averages_are_further_apart_than_the_ways_that_have_led_to_them(
            common in averages(), [mine, yours] in [averages(), averages()],
        ) {
            let mut first = Ways::default();
            first.go(id(0), 0.0);
            // Both begin at the origin, part from each other, and count on by themselves.
            let common = [vec![(0.0, 0.0)], common].concat();
            let trunk = ways(&common, 1, first);
            let fork = *common.last().expect("it is not empty");
            let [mine, yours] = [mine, yours].map(|averages| [vec![fork], averages].concat());
            let [own, other] = [(&mine, 1000), (&yours, 2000)].map(|(way, at)| ways(way, at, trunk.clone()));
            let mut words = Words::default();
            own.save(&mut words);
            prop_assert_eq!(Ways::restore(&mut Saved::new(&words.0)), Some(own.clone()));
            prop_assert!(own.0.len() <= MOST && own.told().len() <= TOLD + 1);
            // The first model is what they always have in common.
            let between = own.between(&other.told()).expect("they come from one model");
            let straight = distance(mine.last().expect("fork"), yours.last().expect("fork"));
            prop_assert!(between >= straight * (1.0 - 1e-12) - 1e-12, "{between} of {straight}");
            // Where they have parted lately, it is the way from there.
            if mine.len() + yours.len() < TOLD {
                let from_there = |way: &[(f64, f64)]| way.windows(2).map(|pair| distance(&pair[0], &pair[1])).sum::<f64>();
                prop_assert!((between - from_there(&mine) - from_there(&yours)).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn nodes_with_one_average_know_what_one_of_them_knows() {
        let mut ways = Ways::default();
        for (at, step) in [(0, 0.0), (1, 1.0), (2, 1.0), (9, 1.0)] {
            ways.go(id(at), step);
        }
        ways.learn(&[(id(0), 8.0), (id(1), 1.5), (id(5), 4.0)]);
        let way = |ways: &Ways, at| ways.between(&[(id(at), 0.0)]);
        assert_eq!(
            [0, 1, 2, 5, 9, 4].map(|at| way(&ways, at)),
            [Some(3.0), Some(1.5), Some(1.0), Some(4.0), Some(0.0), None]
        );
        (100..200).for_each(|at| ways.learn(&[(id(at), 1.0)]));
        assert_eq!((ways.0.len(), way(&ways, 9), ways.told()[0].0), (MOST, Some(0.0), id(0)), "it is full");
        ways.go(id(10), 0.5);
        assert_eq!((ways.0.len(), way(&ways, 9), ways.told()[0]), (MOST, Some(0.5), (id(0), 3.5)));
    }

    #[test]
    fn nothing_is_known_of_what_has_left_the_range_of_numbers() {
        let mut ways = Ways::default();
        ways.go(id(0), 0.0);
        ways.go(id(1), 2.0);
        ways.go(id(2), f64::INFINITY);
        ways.go(id(3), 1.0);
        assert_eq!([1, 2, 3].map(|round| ways.between(&[(id(round), 0.5)])), [None, Some(1.5), Some(0.5)]);
    }
}
