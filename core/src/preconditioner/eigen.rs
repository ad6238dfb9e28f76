//! The eigen form: exact Tikhonov damping in eigenbases, with or without EKFAC's second moments.

use super::cache::{Cache, Kept, Order, Sandwich};
use super::dense;
use super::division::Share;
use super::moments::Moments;
use super::state;
use super::{BlockState, Report};
use crate::backend::{Backend, Buffer as _, Eigen as EigenJob, Map, MapJob, ReduceJob};
use crate::factor::{KroneckerFactors, Side};
use crate::layer::{Block, Capture, Observer};
use crate::matrix::Region;
use crate::scalar::Scalar;
use alloc::vec::Vec;

/// `A = Q_A diag(d_A) Q_Aᵀ` and `G` likewise, of every block.
pub(super) struct Eigen<B: Backend> {
    pub(super) cache: Cache<B>,
    values: B::Buffer,
    shadow_values: B::Buffer,
    /// Where a factor's eigenvalues lie, by slot: those of one diagonal block after another.
    spectra: Vec<Region>,
    mean_jobs: Vec<MapJob>,
    eigen_jobs: Vec<EigenJob>,
    check_jobs: Vec<ReduceJob<B::Scalar>>,
    pending: Option<B::Download>,
    /// `X ↦ Q_Gᵀ X Q_A`.
    pub(super) inward: Sandwich<B::Scalar>,
    /// `X ↦ Q_G X Q_Aᵀ`.
    pub(super) outward: Sandwich<B::Scalar>,
    /// d_G down, d_A across, in the layout of the parameters.
    spectrum_jobs: Vec<MapJob>,
    /// Second moments, in the layout of the parameters.
    moment_jobs: Vec<MapJob>,
    moments: Option<Moments<B>>,
    /// For every job of `spectrum_jobs`, its block.
    spectrum_blocks: Vec<usize>,
    /// Whether the last refresh left a block what it had: bases, eigenvalues and second moments.
    unchanged: Vec<bool>,
    /// The blocks by the network's numbers, for EKFAC.
    observed: Vec<Option<Block>>,
}

/// What [`Eigen::refresh`] made, and where it lies.
pub(super) struct Refreshed<'a, B: Backend> {
    pub(super) vectors: (&'a mut B::Buffer, &'a [[Vec<Side>; 2]]),
    pub(super) values: (&'a mut B::Buffer, &'a [Region]),
}

impl<B: Backend> Eigen<B> {
    pub(super) fn new(
        backend: &mut B,
        factors: &KroneckerFactors<B>,
        members: &[usize],
        parameters: usize,
        ekfac: bool,
        share: &Share,
    ) -> Result<Self, B::Error> {
        let cache = Cache::new(backend, factors, share)?;
        let blocks = factors.blocks();
        let sandwich =
            |transposed, order| Sandwich::new(share.held(blocks.iter().zip(&cache.layout)), transposed, order);
        let mut spectra = alloc::vec![Region::vector(0, 0); 2 * blocks.len()];
        let mut next = 0;
        for side in factors.all().sides() {
            let spectrum = &mut spectra[side.slot];
            // The diagonal blocks of a factor follow each other.
            let first = if side.number == 0 { next } else { spectrum.offset };
            *spectrum = Region::vector(first, side.start + side.region.rows);
            next += side.region.rows;
        }
        let job = |side: &Side| EigenJob { matrix: side.region, values: values_of(side, &spectra) };
        let check = |side: &Side| ReduceJob {
            beta: B::Scalar::of(1.0),
            ..ReduceJob::sum(values_of(side, &spectra), Region::vector(side.index, 1))
        };
        let spectrum = |(at, block): (usize, &Block)| {
            let Region { rows, columns, .. } = block.parameters;
            let (of_a, of_g) = (spectra[at].offset, spectra[blocks.len() + at].offset);
            MapJob {
                x: Region::repeated_column(of_g, rows, columns),
                y: Region::repeated_row(of_a, rows, columns),
                out: block.parameters,
            }
        };
        let jobs = blocks.iter().enumerate().map(spectrum).enumerate();
        let mut spectrum_jobs: Vec<(usize, MapJob)> = jobs.filter(|(block, _)| share.holds[*block]).collect();
        spectrum_jobs.sort_by_key(|(_, job)| job.out.end());
        let (spectrum_blocks, spectrum_jobs): (Vec<usize>, Vec<MapJob>) = spectrum_jobs.into_iter().unzip();
        let mut observed = alloc::vec![None; members.last().map_or(0, |last| last + 1)];
        for (&member, block) in members.iter().zip(blocks) {
            observed[member] = Some(block.clone());
        }
        let mut values = backend.allocate(next)?;
        backend.fill(B::Scalar::of(1.0), Region::vector(0, next), &mut values)?;
        Ok(Self {
            mean_jobs: factors.mean_jobs(cache.own.iter()),
            eigen_jobs: cache.own.iter().map(job).collect(),
            check_jobs: cache.own.iter().map(check).collect(),
            moment_jobs: spectrum_jobs.iter().map(|job| MapJob::unary(job.out, job.out)).collect(),
            moments: if ekfac { Some(Moments::new(backend, blocks, parameters)?) } else { None },
            values,
            shadow_values: backend.allocate(next)?,
            spectra,
            spectrum_jobs,
            spectrum_blocks,
            unchanged: alloc::vec![false; blocks.len()],
            observed,
            pending: None,
            inward: sandwich([true, false], [Order::Parameters, Order::Parts]),
            outward: sandwich([false, true], [Order::Parts, Order::Parameters]),
            cache,
        })
    }

    /// Begins a refresh; never waits, unless the device has no eigensolver.
    pub(super) fn refresh(&mut self, backend: &mut B, factors: &mut KroneckerFactors<B>) -> Result<(), B::Error> {
        factors.means().means_at(backend, &self.mean_jobs, &mut self.cache.shadow)?;
        backend.symmetric_eigen(&self.eigen_jobs, &mut self.cache.shadow, &mut self.shadow_values)?;
        self.pending = Some(self.cache.check(backend, Some((&self.shadow_values, &self.check_jobs)))?);
        Ok(())
    }

    /// Waits for the refresh that was begun and mends what failed; answers whether there was one, to be
    /// [`promote`](Self::promote)d.
    pub(super) fn settle(
        &mut self,
        backend: &mut B,
        factors: &KroneckerFactors<B>,
        report: &mut Report,
    ) -> Result<bool, B::Error> {
        let Some(ticket) = self.pending.take() else { return Ok(false) };
        self.cache.finish(backend, ticket)?;
        for block in 0..factors.blocks().len() {
            if self.mend(backend, factors, block, report)? {
                self.cache.succeeded(block);
                self.unchanged[block] = false;
                continue;
            }
            let kept = self.cache.fall_back(backend, block, report)?;
            self.unchanged[block] = kept == Kept::Previous;
            for slot in [block, factors.blocks().len() + block] {
                let (one, zero, region) = (B::Scalar::of(1.0), B::Scalar::of(0.0), self.spectra[slot]);
                match kept {
                    Kept::Previous => backend.axpby(one, &self.values, zero, &mut self.shadow_values, region)?,
                    Kept::Identity => backend.fill(one, region, &mut self.shadow_values)?,
                }
            }
        }
        Ok(true)
    }

    /// The refreshed eigenvectors and where they lie; the eigenvalues and where these lie, by slot.
    pub(super) fn refreshed(&mut self) -> Refreshed<'_, B> {
        let vectors = (&mut self.cache.shadow, &self.cache.layout[..]);
        Refreshed { vectors, values: (&mut self.shadow_values, &self.spectra) }
    }

    /// Puts bases that turn nothing in place of a block's, with the same eigenvalue everywhere.
    pub(super) fn leave_alone(&mut self, backend: &mut B, block: usize, value: B::Scalar) -> Result<(), B::Error> {
        for spectrum in [self.spectra[block], self.spectra[self.spectra.len() / 2 + block]] {
            backend.fill(value, spectrum, &mut self.shadow_values)?;
        }
        self.cache.leave_alone(backend, block)
    }

    /// Makes them current.
    pub(super) fn promote(&mut self, backend: &mut B) -> Result<(), B::Error> {
        self.cache.promote();
        // A semidefinite matrix may have got eigenvalues below 0 from rounding.
        let all = Region::vector(0, self.values.len());
        let clamp = Map::Maximum(B::Scalar::of(1.0), B::Scalar::of(0.0));
        backend.map(clamp, &[MapJob::unary(all, all)], Some(&self.shadow_values), None, &mut self.values)?;
        if let Some(moments) = &mut self.moments {
            let jobs = self.spectrum_blocks.iter().zip(&self.spectrum_jobs);
            let jobs = jobs.map(|(&block, job)| (block, job, self.unchanged[block]));
            moments.restart(backend, jobs, &self.values)?;
        }
        Ok(())
    }

    /// Makes sure of both decompositions of `block` in the shadow, by a second try in double precision where needed.
    fn mend(
        &mut self,
        backend: &mut B,
        factors: &KroneckerFactors<B>,
        block: usize,
        report: &mut Report,
    ) -> Result<bool, B::Error> {
        let mut retried = false;
        for job in 0..self.cache.own.len() {
            let side = self.cache.own[job];
            if side.block != block || self.cache.is_finite(&side) {
                continue;
            }
            let means = factors.running();
            let (region, kept) = (side.region, factors.region(&side));
            let mut matrix = backend.fetch(means.values(), kept.offset..kept.end())?;
            let weight = backend.fetch(means.weights(), block..block + 1)?[0].wide().max(1e-30);
            let Some(values) = dense::eigen(region.rows, weight, &mut matrix) else { return Ok(false) };
            backend.upload(&matrix, &mut self.cache.shadow, region.offset)?;
            backend.upload(&values, &mut self.shadow_values, values_of(&side, &self.spectra).offset)?;
            retried = true;
        }
        report.retried += u64::from(retried);
        Ok(true)
    }

    /// Puts what is in use into `blocks`; nothing is pending.
    pub(super) fn save(&self, backend: &mut B, blocks: &mut [BlockState<B::Scalar>]) -> Result<(), B::Error> {
        self.cache.save(backend, blocks)?;
        let spectra = state::fetch(backend, &self.values, self.spectra.iter().copied())?;
        let (of_a, of_g) = spectra.split_at(blocks.len());
        for (block, (of_a, of_g)) in blocks.iter_mut().zip(of_a.iter().zip(of_g)) {
            block.spectra = [of_a.clone(), of_g.clone()];
        }
        match &self.moments {
            Some(moments) => moments.save(backend, blocks),
            None => Ok(()),
        }
    }

    /// Goes on with what `blocks` kept.
    #[track_caller]
    pub(super) fn restore(&mut self, backend: &mut B, blocks: &[BlockState<B::Scalar>]) -> Result<(), B::Error> {
        self.pending = None;
        self.cache.restore(backend, blocks)?;
        let parts = (0..2).flat_map(|side| blocks.iter().map(move |block| block.spectra[side].as_slice()));
        state::upload(backend, &mut self.values, self.spectra.iter().copied().zip(parts))?;
        match &mut self.moments {
            Some(moments) => moments.restore(backend, blocks),
            None => Ok(()),
        }
    }

    /// The eigenvalues in use, none below 0.
    pub(super) fn values(&self) -> &B::Buffer {
        &self.values
    }

    /// Where they lie: those of every block's A, then those of every G.
    pub(super) fn spectra(&self) -> &[Region] {
        &self.spectra
    }

    /// d_G down, d_A across, in the layout of the parameters.
    pub(super) fn spectrum_jobs(&self) -> &[MapJob] {
        &self.spectrum_jobs
    }

    /// EKFAC's second moments, if it is EKFAC.
    pub(super) fn moments(&mut self) -> Option<&mut Moments<B>> {
        self.moments.as_mut()
    }

    /// `v ← Q_G [(Q_Gᵀ ∇ Q_A) ⊘ (d_G d_Aᵀ + λ)] Q_Aᵀ` in every block, or with EKFAC's `s` in place of `d_G d_Aᵀ`.
    pub(super) fn apply(
        &mut self,
        backend: &mut B,
        damping: f64,
        gradient: &B::Buffer,
        scratch: &mut B::Buffer,
        v: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        let damping = B::Scalar::of(damping);
        self.inward.apply(backend, &self.cache.current, gradient, scratch, v)?;
        match &self.moments {
            Some(moments) => {
                backend.map(Map::DivideDamped(damping), &self.moment_jobs, Some(moments.values()), None, v)?;
            }
            None => {
                let values = Some(&self.values);
                backend.map(Map::DivideByProduct(damping), &self.spectrum_jobs, values, values, v)?;
            }
        }
        backend.gemm(&self.outward.left, &self.cache.current, v, scratch)?;
        backend.gemm(&self.outward.right, scratch, &self.cache.current, v)
    }
}

/// Where the eigenvalues of a diagonal block lie.
pub(super) fn values_of(side: &Side, spectra: &[Region]) -> Region {
    Region::vector(spectra[side.slot].offset + side.start, side.region.rows)
}

impl<B: Backend> Observer<B> for Eigen<B> {
    fn observe(
        &mut self,
        backend: &mut B,
        block: usize,
        batch: usize,
        capture: &Capture<'_, B>,
    ) -> Result<(), B::Error> {
        match (&mut self.moments, self.observed.get(block)) {
            (Some(moments), Some(Some(block))) => moments.observe(backend, &self.cache.current, block, batch, capture),
            _ => Ok(()),
        }
    }
}
