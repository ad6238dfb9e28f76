//! What a dynamic policy keeps in a checkpoint.

use super::{Axis, Check, Dynamic, DynamicOptions, Heard, Limit, Past, State, Ways};
use crate::cluster::{CertificateId, Digest, Round};
use crate::policy::words::{Saved, Words};
use crate::time::Instant;
use alloc::vec::Vec;

/// Everything but the options and what is drawn from them.
pub(super) fn write(policy: &Dynamic) -> Vec<u64> {
    let mut words = Words::default();
    words.optional(policy.limit.as_ref(), |words, limit| words.0.push(limit.value.to_bits()));
    words.values(&policy.origin);
    words.id(&policy.base);
    words.optional(policy.axis.as_ref(), |words, axis| words.values(axis.values()));
    words.optional(policy.before.as_ref(), Words::id);
    words.0.push(policy.past.len() as u64);
    for (node, past) in &policy.past {
        words.0.push(u64::from(node.0));
        words.id(&past.base);
        words.0.push(past.check);
    }
    words.0.push(policy.number);
    for heard in [&policy.heard, &policy.early] {
        words.0.push(heard.len() as u64);
        for (node, heard) in heard {
            words.0.push(u64::from(node.0));
            words.id(&heard.base);
            words.optional(heard.before.as_ref(), Words::id);
            words.ways(&heard.ways);
            words.0.push(heard.check);
            words.state(&heard.state);
        }
    }
    words.optional(policy.check.as_ref(), |words, check| {
        words.state(&check.state);
        words.0.push(check.until.as_nanos());
        words.nodes(&check.awaited);
    });
    words.optional(policy.found.as_ref(), |words, (check, found)| words.0.extend([*check, found.to_bits()]));
    words.optional(policy.called.as_ref(), |words, called| words.0.push(called.as_nanos()));
    words.0.extend([policy.passed, policy.yielded]);
    policy.ways.save(&mut words);
    words.0.push(u64::from(policy.parted));
    words.0
}

impl Words {
    pub(super) fn id(&mut self, id: &CertificateId) {
        self.0.extend([id.round.0, id.digest.0]);
    }

    fn state(&mut self, state: &State) {
        self.0.push(state.norm.to_bits());
        self.values(&state.more);
    }
}

impl Saved<'_> {
    pub(super) fn id(&mut self) -> Option<CertificateId> {
        Some(CertificateId { round: Round(self.word()?), digest: Digest(self.word()?) })
    }
}

/// Reads what was saved with the same options; `None` if it is longer or shorter, or does not fit them.
pub(super) fn read(options: DynamicOptions, state: &[u64]) -> Option<Dynamic> {
    let words = &mut Saved::new(state);
    let more = options.gauge.more();
    let state = |words: &mut Saved<'_>| {
        let state = State { norm: f64::from_bits(words.word()?), more: words.values()? };
        Some(state).filter(|state| state.more.len() == more && state.is_finite())
    };
    let mut policy = Dynamic::new(options);
    let limit = words.optional()?.map(f64::from_bits);
    policy.origin = words.values()?;
    if let Some(value) = limit {
        let DynamicOptions { gauge, threshold, seed, .. } = policy.options;
        policy.limit = Some(Limit::new(threshold, policy.origin.len()).at(value));
        policy.sketcher = gauge.sketcher(policy.origin.len(), seed);
    }
    policy.base = words.id()?;
    policy.axis = if words.flag()? { Some(Axis::from_values(words.values()?)) } else { None };
    policy.axis.as_ref().is_none_or(|axis| axis.values().len() == policy.origin.len()).then_some(())?;
    policy.before = if words.flag()? { Some(words.id()?) } else { None };
    for _ in 0..words.count()? {
        policy.past.insert(words.node()?, Past { base: words.id()?, check: words.word()? });
    }
    policy.number = words.word()?;
    for heard in [&mut policy.heard, &mut policy.early] {
        for _ in 0..words.count()? {
            let (from, base) = (words.node()?, words.id()?);
            let before = if words.flag()? { Some(words.id()?) } else { None };
            let ways = words.ways()?;
            heard.insert(from, Heard { base, before, ways, check: words.word()?, state: state(words)? });
        }
    }
    if words.flag()? {
        let (state, until) = (state(words)?, Instant::from_nanos(words.word()?));
        let (awaited, missing) = policy.awaited(&words.nodes()?);
        policy.check = Some(Check { state, until, awaited, missing });
    }
    policy.found = if words.flag()? { Some((words.word()?, f64::from_bits(words.word()?))) } else { None };
    policy.called = words.optional()?.map(Instant::from_nanos);
    (policy.passed, policy.yielded) = (words.word()?, words.word()?);
    policy.ways = Ways::restore(words)?;
    policy.parted = words.flag()?;
    words.word().is_none().then_some(policy)
}
