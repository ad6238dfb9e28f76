//! Exchanges of models: whose turn it is, what is sent, and what becomes of what comes.

use super::note::{Kind, Parcel, assemble};
use super::{Flight, Hierarchical, Waiting};
use crate::collective::Encoding;
use crate::policy::PolicyAction;
use crate::scalar::Values;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::vec::Vec;

/// Exchanges without anything of a site after which it is not waited for.
const MOST_SILENT: u32 = 4;

impl Hierarchical {
    /// Whose turn it is among those of `site` in the exchange that began at this iteration.
    fn turn(&self, begun: u64, site: &[NodeId]) -> usize {
        let exchange = begun / self.cycle.skip;
        usize::try_from(exchange % site.len().max(1) as u64).expect("there are so many")
    }

    /// Whether it is this node's turn, or it comes next of the members that are left: as whoever sends to the site reckons.
    fn is_turn(&self, begun: u64) -> bool {
        let site = &self.options.sites[self.own];
        let (before, after) = site.split_at(self.turn(begun, site));
        after.iter().chain(before).find(|node| self.members.contains(node)) == Some(&self.node)
    }

    pub(super) fn merges(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.until <= self.iteration)
    }

    /// Whether an exchange begins once what is under way is merged.
    pub(super) fn begins(&self) -> bool {
        let free = self.flight.is_none() || self.merges();
        free && self.iteration > 0 && self.options.sites.len() > 1 && self.iteration.is_multiple_of(self.cycle.skip)
    }

    /// Looks at the model: merges what is due, or waits for it, and begins what is due.
    pub(super) fn observe(&mut self, now: Instant, parameters: Values<'_>, peers: &[NodeId]) {
        let mut model = Vec::with_capacity(parameters.len());
        parameters.for_each(|_, value| model.push(value));
        self.len = model.len();
        let Some(flight) = self.flight.as_ref().filter(|_| self.merges()) else {
            self.begin(&model, peers);
            return;
        };
        let until = if self.is_turn(flight.begun) { now + self.options.patience } else { Instant::FAR };
        self.waiting = Some(Waiting { model, until, peers: peers.to_vec() });
        self.actions.push_back(PolicyAction::Pause);
        self.take_turn(false);
        self.take_mean();
    }

    /// Begins an exchange with this model, if one is due.
    fn begin(&mut self, model: &[f64], peers: &[NodeId]) {
        if !self.begins() {
            return;
        }
        let begun = self.iteration;
        let until = begun + self.cycle.wait;
        self.flight = Some(Flight { begun, until, snapshot: model.to_vec(), replaced: false });
        // A model that is no numbers any more is of no use to others.
        let Some(values) = self.travelling(model).filter(|_| self.is_turn(begun)) else { return };
        let encoding = self.options.encoding;
        let (base, count) = (self.base.round.0, self.members.len() as u32);
        let parcel = Parcel { kind: Kind::Snapshot, base, begun, count, encoding, values };
        for (number, site) in self.options.sites.iter().enumerate() {
            let silent = self.sites.get(&number).map_or(0, |site| site.silent);
            if number == self.own || (silent > MOST_SILENT && !silent.is_power_of_two()) {
                continue;
            }
            // Whose turn it is there, or who comes next of those that can be reached.
            let (before, after) = site.split_at(self.turn(begun, site));
            let to = after.iter().chain(before).find(|node| peers.binary_search(node).is_ok());
            // Over a line that still carries an earlier model, this one would come too late as well.
            if let Some(&to) = to.filter(|node| self.unsaid.binary_search(node).is_err()) {
                parcel.say(to, &mut self.actions);
            }
        }
    }

    /// Where it is this node's turn: once nothing more is to be waited for, takes the mean of what has come and tells it.
    pub(super) fn take_turn(&mut self, at_last: bool) {
        let (Some(flight), Some(Waiting { until, peers, .. })) = (&self.flight, &self.waiting) else { return };
        if *until == Instant::FAR {
            return;
        }
        let oldest = flight.begun.saturating_sub(self.cycle.skip);
        let len = flight.snapshot.len();
        let fits = |(parcel, came): &(Parcel, u64)| *came >= oldest && parcel.values.len() == len && parcel.count > 0;
        let reachable = |site: &[NodeId]| site.iter().any(|node| peers.binary_search(node).is_ok());
        let others = || self.options.sites.iter().enumerate().filter(|(number, _)| *number != self.own);
        let awaited = |(number, site): (usize, &Vec<NodeId>)| {
            let known = self.sites.get(&number);
            let came = known.is_some_and(|site| site.snapshot.as_ref().is_some_and(fits));
            !came && reachable(site) && known.is_none_or(|site| site.silent < MOST_SILENT)
        };
        if !at_last && others().any(awaited) {
            return;
        }
        let mut weight = self.members.len() as f64;
        // As the other sites read it.
        let own = self.travelling(&flight.snapshot);
        let mut sum: Vec<f64> = own.iter().flatten().map(|&value| weight * f64::from(value)).collect();
        let mut count = 1;
        for (number, site) in self.options.sites.iter().enumerate().filter(|(number, _)| *number != self.own) {
            let known = self.sites.entry(number).or_default();
            // Of a site that is gone, one member may hold a model of before the last average and the next in turn none.
            let (came, is_there) = (known.snapshot.take().filter(fits), reachable(site));
            let Some((parcel, _)) = came.filter(|(parcel, _)| is_there || parcel.base >= self.base.round.0) else {
                known.silent = if is_there { known.silent.saturating_add(1) } else { 0 };
                continue;
            };
            known.silent = 0;
            let counts = f64::from(parcel.count);
            sum.iter_mut().zip(&parcel.values).for_each(|(sum, &value)| *sum += counts * f64::from(value));
            (weight, count) = (weight + counts, count + 1);
        }
        let merges = count > 1 && own.is_some();
        let values = if merges { sum.iter().map(|sum| (sum / weight) as f32).collect() } else { Vec::new() };
        let parcel = Parcel {
            kind: Kind::Mean,
            base: self.base.digest.0,
            begun: flight.begun,
            count,
            encoding: Encoding::Full,
            values,
        };
        for &member in self.members.iter().filter(|member| **member != self.node) {
            parcel.say(member, &mut self.actions);
        }
        self.mean = Some(parcel);
    }

    /// Merges the mean of the exchange under way into the model that waits for it.
    pub(super) fn take_mean(&mut self) {
        let (Some(flight), Some(_)) = (&self.flight, &self.waiting) else { return };
        let (base, begun) = (self.base.digest.0, flight.begun);
        let Some(mean) = self.mean.take_if(|mean| (mean.base, mean.begun) == (base, begun)) else { return };
        let (Some(flight), Some(waiting)) = (self.flight.take(), self.waiting.take()) else { return };
        let Waiting { mut model, peers, .. } = waiting;
        // Without snapshots of others there is nothing to be merged.
        if mean.values.len() == model.len() {
            let since = self.iteration - begun;
            // Of what was made since a snapshot that training does not go on from, nothing can be kept.
            let before = if flight.replaced { model.clone() } else { flight.snapshot };
            self.options.merge.apply(&mut model, &before, &mean.values, u64::from(mean.count), since);
            self.actions.push_back(PolicyAction::Adopt(model.clone()));
        }
        self.begin(&model, &peers);
        self.actions.push_back(PolicyAction::Proceed);
    }

    /// What others read of a model; nothing of one that does not consist of numbers when it travels.
    fn travelling(&self, model: &[f64]) -> Option<Vec<f32>> {
        let mut values: Vec<f32> = model.iter().map(|&value| value as f32).collect();
        let finite = self.options.encoding.round(&mut values) && values.iter().all(|value| value.is_finite());
        finite.then_some(values)
    }

    pub(super) fn told(&mut self, from: NodeId, bytes: &[u8]) {
        let mut partial = self.partial.remove(&from);
        let parcel = assemble(&mut partial, bytes, self.len);
        self.partial.extend(partial.map(|partial| (from, partial)));
        // What is of another model is of no use; a mean of nobody else's has no values.
        let of_model = |parcel: &Parcel| {
            parcel.values.len() == self.len || (parcel.kind == Kind::Mean && parcel.values.is_empty())
        };
        let Some(parcel) = parcel.filter(of_model) else { return };
        let site = self.homes.get(&from).copied();
        match (parcel.kind, site) {
            (Kind::Mean, Some(site)) if site == self.own => self.mean = Some(parcel),
            // Means are not looked at in this way: members wait for them.
            (Kind::Snapshot, Some(site)) if site != self.own => {
                let met = self.sites.get(&site).map_or(0, |site| site.met);
                if parcel.base < met || !parcel.values.iter().all(|value| value.is_finite()) {
                    return;
                }
                self.sites.entry(site).or_default().snapshot = Some((parcel, self.iteration));
                self.take_turn(false);
            }
            _ => return,
        }
        self.take_mean();
    }
}
