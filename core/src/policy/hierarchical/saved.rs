//! The schedule and the models under way, as words of a checkpoint.

use super::note::{Kind, Parcel};
use super::{Cycle, Flight, Hierarchical, Site, Waiting};
use crate::cluster::{CertificateId, Digest, Round};
use crate::policy::PolicyAction;
use crate::policy::words::{Saved, Words};
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::vec::Vec;

impl Hierarchical {
    /// All that it goes on with.
    pub(super) fn words(&self) -> Vec<u64> {
        let mut words = Words::default();
        words.0.extend([self.iterations, self.iteration, self.len as u64]);
        words.optional(self.ahead.as_ref(), |words, ahead| words.0.push(*ahead));
        words.0.extend(self.cycle.numbers().map(f64::to_bits));
        words.0.extend([self.losses.0.to_bits(), self.losses.1, self.base.round.0, self.base.digest.0]);
        words.nodes(&self.members);
        words.optional(self.flight.as_ref(), |words, flight| {
            words.0.extend([flight.begun, flight.until, u64::from(flight.replaced)]);
            words.values(&flight.snapshot);
        });
        words.0.push(self.sites.len() as u64);
        for (number, site) in &self.sites {
            words.0.extend([*number as u64, u64::from(site.silent), site.met]);
            words.optional(site.snapshot.as_ref(), |words, (parcel, came)| {
                words.0.push(*came);
                parcel.save(words);
            });
        }
        words.0.push(self.partial.len() as u64);
        for (from, parcel) in &self.partial {
            words.0.push(u64::from(from.0));
            parcel.save(&mut words);
        }
        words.optional(self.mean.as_ref(), |words, mean| mean.save(words));
        words.optional(self.waiting.as_ref(), |words, waiting| {
            words.values(&waiting.model);
            words.0.push(waiting.until.as_nanos());
            words.nodes(&waiting.peers);
        });
        words.nodes(&self.unsaid);
        words.0
    }

    /// Goes on with what was saved; with nothing, and without waiting, if that is of something else.
    pub(super) fn go_on(&mut self, state: &[u64]) {
        let fresh = Self::new(self.options.clone(), self.node);
        let mut words = Saved::new(state);
        let read = fresh.clone().read(&mut words).filter(|read| words.word().is_none() && read.fits());
        let is_known = read.is_some();
        *self = read.unwrap_or(fresh);
        if !is_known {
            // The node that was saved may have paused, and nobody else would end that.
            self.actions.push_back(PolicyAction::Proceed);
        }
    }

    /// What was saved with the same options; `None` if it ends too early or a number is out of its range.
    fn read(mut self, words: &mut Saved<'_>) -> Option<Self> {
        (self.iterations, self.iteration) = (words.word()?, words.word()?);
        self.len = usize::try_from(words.word()?).ok()?;
        self.ahead = if words.flag()? { Some(words.word()?) } else { None };
        let mut numbers = [0.0; 4];
        for number in &mut numbers {
            *number = f64::from_bits(words.word()?);
        }
        self.cycle = Cycle::of(numbers);
        (self.cycle.numbers().map(f64::to_bits) == numbers.map(f64::to_bits)).then_some(())?;
        self.losses = (f64::from_bits(words.word()?), words.word()?);
        self.base = CertificateId { round: Round(words.word()?), digest: Digest(words.word()?) };
        self.members = words.nodes()?;
        if words.flag()? {
            let (begun, until, replaced) = (words.word()?, words.word()?, words.flag()?);
            self.flight = Some(Flight { begun, until, snapshot: words.values()?, replaced });
        }
        for _ in 0..words.count()? {
            let number = usize::try_from(words.word()?).ok()?;
            let (silent, met) = (u32::try_from(words.word()?).ok()?, words.word()?);
            let mut snapshot = None;
            if words.flag()? {
                let came = words.word()?;
                snapshot = Some((Parcel::restore(words)?, came));
            }
            self.sites.insert(number, Site { snapshot, silent, met }).is_none().then_some(())?;
        }
        for _ in 0..words.count()? {
            self.partial.insert(words.node()?, Parcel::restore(words)?).is_none().then_some(())?;
        }
        self.mean = if words.flag()? { Some(Parcel::restore(words)?) } else { None };
        if words.flag()? {
            let model = words.values()?;
            let until = Instant::from_nanos(words.word()?);
            self.waiting = Some(Waiting { model, until, peers: words.nodes()? });
        }
        self.unsaid = words.nodes()?;
        Some(self)
    }

    /// Whether what was read is of these sites and of one model.
    fn fits(&self) -> bool {
        let len = self.len;
        let of_model = |parcel: &Parcel| parcel.values.len() == len;
        let sites = &self.options.sites;
        let is_known = |node: &NodeId| sites.iter().flatten().any(|known| known == node);
        let site = |(number, site): (&usize, &Site)| {
            let snapshot = site.snapshot.as_ref();
            *number != self.own
                && *number < sites.len()
                && snapshot.is_none_or(|(parcel, _)| parcel.kind == Kind::Snapshot && of_model(parcel))
        };
        let partial = |(from, parcel): (&NodeId, &Parcel)| is_known(from) && parcel.values.len() < len.max(1);
        // A mean of nobody else's has no values.
        let mean = |mean: &Parcel| mean.kind == Kind::Mean && (mean.values.is_empty() || of_model(mean));
        let waiting = |waiting: &Waiting| {
            self.flight.is_some() && waiting.model.len() == len && waiting.peers.iter().all(is_known)
        };
        let flight = |flight: &Flight| flight.snapshot.len() == len && flight.begun <= flight.until;
        self.members.iter().all(|member| sites[self.own].contains(member))
            && self.flight.as_ref().is_none_or(flight)
            && self.sites.iter().all(site)
            && self.partial.iter().all(partial)
            && self.mean.as_ref().is_none_or(mean)
            && self.waiting.as_ref().is_none_or(waiting)
            && self.unsaid.iter().all(is_known)
    }
}
