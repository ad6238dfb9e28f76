//! Exponential running averages over a flat buffer, with weights.

use crate::backend::{Backend, Buffer as _, Map, MapJob, ReduceJob};
use crate::matrix::Region;
use crate::scalar::Scalar;
use alloc::vec::Vec;

/// Running averages of groups of matrices that lie in one flat buffer.
///
/// A group is what is accepted or refused together and has one weight. With `F` the statistic of a batch,
///
/// ```text
/// value  ← ema·value  + (1 − ema)·F
/// weight ← ema·weight + (1 − ema)          mean = value / weight
/// ```
///
/// from zero, so that `value/weight` is free of a bias towards the start. *(value, weight)* is what travels: both
/// are averaged with the same coefficients, and a node that has seen little, or nothing, counts as much as it has
/// seen.
///
/// A group whose statistic is not finite keeps value and weight.
pub struct RunningMeans<B: Backend> {
    fresh: B::Buffer,
    values: B::Buffer,
    weights: B::Buffer,
    ones: B::Buffer,
    sums: B::Buffer,
    totals: B::Buffer,
    flags: B::Buffer,
    accepted: B::Buffer,
    safe: B::Buffer,
    scales: B::Buffer,
    /// Which groups take statistics in, if not all; and which of them did.
    takes: Option<[B::Buffer; 2]>,
    groups: usize,
    updates: u64,
    sum_jobs: Vec<ReduceJob<B::Scalar>>,
    total_jobs: Vec<ReduceJob<B::Scalar>>,
    blend_jobs: Vec<MapJob>,
    scale_jobs: Vec<MapJob>,
}

impl<B: Backend> RunningMeans<B> {
    /// Zeros for a flat buffer of `len` scalars in which group `i` consists of the regions `groups[i]`.
    ///
    /// Parts of the buffer that belong to no group are ignored.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn new(backend: &mut B, len: usize, groups: &[Vec<Region>]) -> Result<Self, B::Error> {
        let parts: Vec<Vec<[Region; 2]>> = groups.iter().map(|of| of.iter().map(|&part| [part; 2]).collect()).collect();
        Self::laid(backend, [len; 2], &parts)
    }

    /// The same where a batch's statistics and the running averages lie in buffers of these two lengths, and every matrix
    /// has a region in each; without rows where that buffer does not hold it. What one of them lacks is not averaged.
    pub(crate) fn laid(
        backend: &mut B,
        [fresh, values]: [usize; 2],
        groups: &[Vec<[Region; 2]>],
    ) -> Result<Self, B::Error> {
        let parts: usize = groups.iter().map(Vec::len).sum();
        let (mut total_jobs, mut scale_jobs) = (Vec::with_capacity(groups.len()), Vec::with_capacity(parts));
        let mut first = 0;
        for (group, of) in groups.iter().enumerate() {
            for region in of.iter().map(|[_, region]| *region).filter(|region| !region.is_empty()) {
                region.check(values);
                let scale = Region::scalar(group, region.rows, region.columns);
                scale_jobs.push(MapJob { x: region, y: scale, out: region });
            }
            total_jobs.push(ReduceJob::sum(Region::vector(first, of.len()), Region::vector(group, 1)));
            first += of.len();
        }
        scale_jobs.sort_by_key(|job| job.out.end());
        let mut ones = backend.allocate(groups.len())?;
        backend.fill(B::Scalar::of(1.0), Region::vector(0, groups.len()), &mut ones)?;
        let mut means = Self {
            fresh: backend.allocate(0)?,
            values: backend.allocate(values)?,
            weights: backend.allocate(groups.len())?,
            ones,
            sums: backend.allocate(parts)?,
            totals: backend.allocate(groups.len())?,
            flags: backend.allocate(groups.len())?,
            accepted: backend.allocate(groups.len())?,
            safe: backend.allocate(groups.len())?,
            scales: backend.allocate(groups.len())?,
            takes: None,
            groups: groups.len(),
            updates: 0,
            sum_jobs: Vec::with_capacity(parts),
            total_jobs,
            blend_jobs: Vec::with_capacity(parts),
            scale_jobs,
        };
        means.lay_statistics(backend, fresh, groups)?;
        Ok(means)
    }

    /// Has the coming batches' statistics in a buffer of another length and layout, from zero; the running averages stay.
    pub(crate) fn lay_statistics(
        &mut self,
        backend: &mut B,
        len: usize,
        groups: &[Vec<[Region; 2]>],
    ) -> Result<(), B::Error> {
        // What there was goes first.
        self.fresh = backend.allocate(0)?;
        self.fresh = backend.allocate(len)?;
        self.sum_jobs.clear();
        self.blend_jobs.clear();
        let parts = groups.iter().enumerate().flat_map(|(group, of)| of.iter().map(move |part| (group, part)));
        for (part, (group, &[fresh, kept])) in parts.enumerate() {
            if fresh.is_empty() {
                continue;
            }
            fresh.check(len);
            self.sum_jobs.push(ReduceJob::sum(fresh, Region::vector(part, 1)));
            if !kept.is_empty() {
                let flag = Region::scalar(group, fresh.rows, fresh.columns);
                self.blend_jobs.push(MapJob { x: fresh, y: flag, out: kept });
            }
        }
        self.blend_jobs.sort_by_key(|job| job.out.end());
        // Sums of what is no longer there.
        backend.fill(B::Scalar::of(0.0), Region::vector(0, self.sums.len()), &mut self.sums)
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// How often statistics were [`close`](Self::close)d, refused ones included.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Has only some groups take statistics in from now on; the others keep value and weight.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If there is not one answer for each group.
    #[track_caller]
    pub fn restrict(&mut self, backend: &mut B, takes: &[bool]) -> Result<(), B::Error> {
        assert_eq!(takes.len(), self.groups, "groups that take statistics in or not");
        let flags: Vec<B::Scalar> = takes.iter().map(|&takes| B::Scalar::of(f64::from(u8::from(takes)))).collect();
        let mut buffers = match self.takes.take() {
            Some(buffers) => buffers,
            None => [backend.allocate(self.groups)?, backend.allocate(self.groups)?],
        };
        backend.upload(&flags, &mut buffers[0], 0)?;
        self.takes = Some(buffers);
        Ok(())
    }

    /// Sets the statistics of the coming batch to zero; never waits.
    ///
    /// # Errors
    /// If the device fails.
    pub fn open(&mut self, backend: &mut B) -> Result<(), B::Error> {
        let all = Region::vector(0, self.fresh.len());
        backend.fill(B::Scalar::of(0.0), all, &mut self.fresh)
    }

    /// Where passes add the statistics of the batch.
    pub fn statistics(&mut self) -> &mut B::Buffer {
        &mut self.fresh
    }

    /// Takes the statistics, the sum over `count` micro-batches, into the running averages with weight `1 − ema_old`.
    ///
    /// Never waits: groups that are not finite are refused on the device.
    ///
    /// # Errors
    /// If the device fails.
    pub fn close(&mut self, backend: &mut B, ema_old: f64, count: usize) -> Result<(), B::Error> {
        let s = B::Scalar::of;
        if count > 1 {
            let all = Region::vector(0, self.fresh.len());
            let jobs = [MapJob::unary(all, all)];
            backend.map(Map::Axpby(s(0.0), s(1.0 / count as f64)), &jobs, None, None, &mut self.fresh)?;
        }
        let vector = Region::vector(0, self.groups);
        let jobs = [MapJob { x: vector, y: vector, out: vector }];
        backend.reduce(&self.sum_jobs, &self.fresh, None, &mut self.sums)?;
        backend.reduce(&self.total_jobs, &self.sums, None, &mut self.totals)?;
        backend.map(Map::Finite, &jobs, Some(&self.totals), None, &mut self.flags)?;
        let flags = match &mut self.takes {
            Some([takes, taken]) => {
                backend.map(Map::MultiplyAdd(s(1.0), s(0.0)), &jobs, Some(&self.flags), Some(takes), taken)?;
                &*taken
            }
            None => &self.flags,
        };
        let blend = Map::Blend(s(ema_old));
        backend.map(blend, &self.blend_jobs, Some(&self.fresh), Some(flags), &mut self.values)?;
        backend.map(blend, &jobs, Some(&self.ones), Some(flags), &mut self.weights)?;
        backend.axpby(s(1.0), &self.flags, s(1.0), &mut self.accepted, vector)?;
        self.updates += 1;
        Ok(())
    }

    /// `target ← value / weight` in all groups; 0 where nothing has been seen. Never waits.
    ///
    /// # Errors
    /// If the device fails.
    pub fn means(&mut self, backend: &mut B, target: &mut B::Buffer) -> Result<(), B::Error> {
        self.find_scales(backend)?;
        let scale = Map::MultiplyAdd(B::Scalar::of(1.0), B::Scalar::of(0.0));
        backend.map(scale, &self.scale_jobs, Some(&self.values), Some(&self.scales), target)
    }

    /// The same in another layout, of some matrices: for each, its region among the values, its group over as many rows and
    /// columns, and its region in `target`.
    pub(crate) fn means_at(
        &mut self,
        backend: &mut B,
        jobs: &[MapJob],
        target: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        self.find_scales(backend)?;
        let scale = Map::MultiplyAdd(B::Scalar::of(1.0), B::Scalar::of(0.0));
        backend.map(scale, jobs, Some(&self.values), Some(&self.scales), target)
    }

    /// One divided by the weights.
    fn find_scales(&mut self, backend: &mut B) -> Result<(), B::Error> {
        let s = B::Scalar::of;
        let vector = Region::vector(0, self.groups);
        let jobs = [MapJob { x: vector, y: vector, out: vector }];
        // A weight of 0 has a value of 0 beside it, and 0/tiny is 0.
        let tiny = Map::Maximum(s(1.0), s(1e-30));
        backend.map(tiny, &jobs, Some(&self.weights), Some(&self.ones), &mut self.safe)?;
        backend.map(Map::Reciprocal, &jobs, Some(&self.safe), None, &mut self.scales)
    }

    /// The running values, not yet divided by their weights.
    pub fn values(&self) -> &B::Buffer {
        &self.values
    }

    /// One weight for each group.
    pub fn weights(&self) -> &B::Buffer {
        &self.weights
    }

    /// Values and weights, to be written: what an average among nodes, or a checkpoint, puts back.
    ///
    /// Both together are linear: `Σ cᵢ·(value, weight)ᵢ` over nodes is again such a pair, whatever each has seen.
    pub fn estimate_mut(&mut self) -> (&mut B::Buffer, &mut B::Buffer) {
        (&mut self.values, &mut self.weights)
    }

    /// How many updates each group accepted: its difference from [`updates`](Self::updates) was refused.
    pub fn accepted(&self) -> &B::Buffer {
        &self.accepted
    }

    /// Takes a snapshot of [`accepted`](Self::accepted); never waits.
    ///
    /// # Errors
    /// If the device fails.
    pub fn download_accepted(&self, backend: &mut B) -> Result<B::Download, B::Error> {
        backend.download(&self.accepted, 0..self.groups)
    }

    /// Sets how many updates there were, and how many of them each group accepted: what a checkpoint puts back.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If there is not one number for each group.
    #[track_caller]
    pub fn restore_counts(&mut self, backend: &mut B, updates: u64, accepted: &[B::Scalar]) -> Result<(), B::Error> {
        assert_eq!(accepted.len(), self.groups, "numbers of accepted updates");
        self.updates = updates;
        backend.upload(accepted, &mut self.accepted, 0)
    }

    /// Forgets everything seen.
    ///
    /// # Errors
    /// If the device fails.
    pub fn clear(&mut self, backend: &mut B) -> Result<(), B::Error> {
        let zero = B::Scalar::of(0.0);
        backend.fill(zero, Region::vector(0, self.values.len()), &mut self.values)?;
        backend.fill(zero, Region::vector(0, self.groups), &mut self.weights)
    }
}
