//! Backends that are wrong on purpose.

use super::fault::Fault;
use crate::minimal::Minimal;
use crate::required::Required;
use core::ops::Range;
use kronfleet_core::backend::{
    Backend, BatchNorm, Buffer, Convolution, Counters, Eigen, EvoNorm, Extent, Gemm, Map, MapJob, Outer, Pool, Pooling,
    ReduceJob, Softmax, Solve, Statistic, reference,
};
use kronfleet_core::error::Never;
use kronfleet_core::matrix::Region;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The minimal backend with one mistake.
#[derive(Debug, Default)]
pub struct Mutant {
    inner: Minimal<f64>,
    fault: Fault,
    synchronised: bool,
    /// Fills that were asked for and not done.
    waiting: Vec<(f64, Region, Memory)>,
}

impl Mutant {
    /// A backend with this mistake.
    pub fn new(fault: Fault) -> Self {
        Self { fault, ..Self::default() }
    }

    /// Does what the default does.
    fn plainly<T>(&mut self, work: impl FnOnce(&mut Required<Self>) -> T) -> T {
        let mut plain = Required::new(core::mem::take(self));
        let result = work(&mut plain);
        *self = plain.into_inner();
        result
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn catch_up(&mut self) {
        for (value, region, memory) in self.waiting.drain(..) {
            let content = &mut memory.write();
            for column in 0..region.columns {
                for row in 0..region.rows {
                    content[region.index(row, column)] = value;
                }
            }
        }
    }
}

/// Memory that a ticket can look into later.
#[derive(Clone, Debug)]
pub struct Memory(Arc<RwLock<Vec<f64>>>);

impl Memory {
    fn read(&self) -> RwLockReadGuard<'_, Vec<f64>> {
        self.0.read().expect("memory is not used after a panic")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<f64>> {
        self.0.write().expect("memory is not used after a panic")
    }
}

impl Buffer for Memory {
    fn len(&self) -> usize {
        self.read().len()
    }
}

/// A ticket that still knows what it is of.
#[derive(Debug)]
pub struct Ticket {
    source: Memory,
    range: Range<usize>,
    content: Vec<f64>,
}

/// How many calls there were in this process: what no result may depend on.
static CALLS: AtomicUsize = AtomicUsize::new(0);

impl Backend for Mutant {
    type Scalar = f64;
    type Buffer = Memory;
    type Download = Ticket;
    type Verdict = Vec<bool>;
    type Error = Never;

    fn allocate(&mut self, len: usize) -> Result<Memory, Never> {
        Ok(Memory(Arc::new(RwLock::new(self.inner.allocate(len)?))))
    }

    fn upload(&mut self, source: &[f64], target: &mut Memory, offset: usize) -> Result<(), Never> {
        self.catch_up();
        let offset = if self.is(Fault::UploadIgnoresOffset) { 0 } else { offset };
        self.inner.upload(source, &mut target.write(), offset)
    }

    fn download(&mut self, source: &Memory, range: Range<usize>) -> Result<Ticket, Never> {
        self.catch_up();
        let content = self.inner.download(&source.read(), range.clone())?;
        Ok(Ticket { source: source.clone(), range, content })
    }

    fn finish(&mut self, ticket: Ticket, target: &mut [f64]) -> Result<(), Never> {
        let Ticket { source, range, content } = ticket;
        let late = self.is(Fault::LateTicket);
        self.inner.finish(if late { source.read()[range].to_vec() } else { content }, target)
    }

    fn gemm(&mut self, jobs: &[Gemm<f64>], a: &Memory, b: &Memory, c: &mut Memory) -> Result<(), Never> {
        let calls = CALLS.fetch_add(1, Ordering::Relaxed);
        let flops = self.inner.counters().flops;
        let last = if self.is(Fault::SecondJobDropped) { jobs.len().min(1) } else { jobs.len() };
        for &(mut job) in &jobs[..last] {
            let fits = job.a.rows == job.c.rows && job.b.columns == job.c.columns && job.a.columns == job.b.rows;
            match self.fault {
                Fault::WrongShapesSkipped if !fits => continue,
                Fault::BetaIgnored => job.beta = 0.0,
                Fault::TransposeSwapped if job.a.rows == job.a.columns => job.a = job.a.transposed(),
                Fault::RegionOffsetIgnored => job.b.offset = 0,
                Fault::ColumnStepIgnored if job.beta != 0.0 => job.c.column_step = job.c.rows,
                Fault::BetaZeroKeepsNan if job.beta == 0.0 => {
                    let content = &mut c.write();
                    for at in (0..job.c.len()).map(|at| job.c.index(at % job.c.rows, at / job.c.rows)) {
                        content[at] *= job.beta;
                    }
                    job.beta = 1.0;
                }
                _ => {}
            }
            let halved = (self.is(Fault::SumOrderVaries) && calls % 2 == 1)
                || (self.is(Fault::SyncChangesOrder) && self.synchronised);
            let (a, b, c) = (&a.read(), &b.read(), &mut c.write());
            if halved && fits {
                let half = job.a.columns / 2;
                let part = |first: usize, count: usize, beta| Gemm {
                    a: job.a.block(0, first, job.a.rows, count),
                    b: job.b.block(first, 0, count, job.b.columns),
                    beta,
                    ..job
                };
                self.inner.gemm(&[part(half, job.a.columns - half, job.beta), part(0, half, 1.0)], a, b, c)?;
            } else {
                self.inner.gemm(&[job], a, b, c)?;
            }
        }
        if self.is(Fault::FlopsNotCounted) {
            self.inner.counters().flops = flops;
        }
        self.catch_up();
        Ok(())
    }

    fn map(
        &mut self,
        op: Map<f64>,
        jobs: &[MapJob],
        x: Option<&Memory>,
        y: Option<&Memory>,
        out: &mut Memory,
    ) -> Result<(), Never> {
        if let (Fault::FillOutOfOrder, Map::Fill(value)) = (self.fault, op) {
            self.waiting.extend(jobs.iter().map(|job| (value, job.out, out.clone())));
            return Ok(());
        }
        self.catch_up();
        let (x, y) = (x.map(|x| x.read()), y.map(|y| y.read()));
        let (x, y, out) = (x.as_deref(), y.as_deref(), &mut out.write());
        if let (Fault::MissingReadsAsOne, None) = (self.fault, x) {
            let one = vec![1.0];
            let once = |region: Region| Region::scalar(0, region.rows, region.columns);
            let jobs: Vec<MapJob> = jobs.iter().map(|job| MapJob { x: once(job.x), ..*job }).collect();
            return self.inner.map(op, &jobs, Some(&one), y, out);
        }
        if let (Fault::ReluGradientAtZero, Map::ReluGradient, Some(y)) = (self.fault, op, y) {
            let lifted = y.iter().map(|&y| if y == 0.0 { 1.0 } else { y }).collect();
            return self.inner.map(op, jobs, x, Some(&lifted), out);
        }
        self.inner.map(op, jobs, x, y, out)
    }

    fn reduce(
        &mut self,
        jobs: &[ReduceJob<f64>],
        x: &Memory,
        y: Option<&Memory>,
        out: &mut Memory,
    ) -> Result<(), Never> {
        self.catch_up();
        let mut jobs = jobs.to_vec();
        for job in &mut jobs {
            if self.is(Fault::ReduceOverTheWrongAxis) && job.x.rows == job.x.columns {
                (job.x, job.y) = (job.x.transposed(), job.y.transposed());
            }
        }
        let y = y.map(|y| y.read());
        self.inner.reduce(&jobs, &x.read(), y.as_deref(), &mut out.write())
    }

    fn cholesky(&mut self, jobs: &[Region], matrices: &mut Memory) -> Result<Vec<bool>, Never> {
        self.catch_up();
        let content = &mut matrices.write();
        if self.is(Fault::LowerAndUpperConfused) {
            for region in jobs.iter().filter(|region| region.rows == region.columns) {
                for column in 0..region.columns {
                    for row in column + 1..region.rows {
                        content[region.index(row, column)] = content[region.index(column, row)];
                    }
                }
            }
        }
        let mut sound = self.inner.cholesky(jobs, content)?;
        if self.is(Fault::VerdictAlwaysGood) {
            sound.fill(true);
        }
        if self.is(Fault::FailurePoisonsOthers) {
            let all = sound.iter().all(|&sound| sound);
            sound.fill(all);
        }
        Ok(sound)
    }

    fn cholesky_solve(&mut self, jobs: &[Solve], factors: &Memory, x: &mut Memory) -> Result<(), Never> {
        self.catch_up();
        assert!(!(self.is(Fault::EmptyListPanics) && jobs.is_empty()), "nothing to solve");
        let (factors, x) = (&factors.read(), &mut x.write());
        self.inner.cholesky_solve(jobs, factors, x)?;
        if self.is(Fault::SolvesOnlyForwards) {
            // Undoing the second half leaves the first.
            for Solve { factor, x: region } in jobs {
                for column in 0..region.columns {
                    for row in 0..region.rows {
                        let terms =
                            (row..region.rows).map(|k| factors[factor.index(k, row)] * x[region.index(k, column)]);
                        x[region.index(row, column)] = terms.sum();
                    }
                }
            }
        }
        Ok(())
    }

    fn verdict(&mut self, ticket: Vec<bool>, sound: &mut [bool]) -> Result<(), Never> {
        self.inner.verdict(ticket, sound)
    }

    fn sync(&mut self) -> Result<(), Never> {
        self.catch_up();
        self.synchronised = true;
        self.inner.sync()
    }

    fn counters(&mut self) -> &mut Counters {
        self.inner.counters()
    }

    fn symmetric_product(&mut self, jobs: &[Outer<f64>], x: &Memory, c: &mut Memory) -> Result<(), Never> {
        self.plainly(|plain| plain.symmetric_product(jobs, x, c))?;
        if self.is(Fault::TrianglesDiffer) {
            for job in jobs.iter().filter(|job| job.c.rows > 1) {
                let content = &mut c.write();
                content[job.c.index(0, job.c.columns - 1)] *= 1.0 + f64::EPSILON;
            }
        }
        Ok(())
    }

    fn symmetric_eigen(&mut self, jobs: &[Eigen], matrices: &mut Memory, values: &mut Memory) -> Result<(), Never> {
        self.plainly(|plain| plain.symmetric_eigen(jobs, matrices, values))?;
        let (vectors, values) = (&mut matrices.write(), &mut values.write());
        for Eigen { matrix, values: line } in jobs.iter().filter(|job| job.matrix.rows > 1) {
            let n = matrix.rows;
            match self.fault {
                Fault::EigenvaluesUnsorted => {
                    values.swap(line.index(0, 0), line.index(n - 1, 0));
                    (0..n).for_each(|row| vectors.swap(matrix.index(row, 0), matrix.index(row, n - 1)));
                }
                Fault::EigenvectorsTooLong => (0..n).for_each(|row| vectors[matrix.index(row, 0)] *= 2.0),
                Fault::EigenvectorsInRows => {
                    for (row, column) in (0..n).flat_map(|column| (0..column).map(move |row| (row, column))) {
                        vectors.swap(matrix.index(row, column), matrix.index(column, row));
                    }
                }
                Fault::EigenvaluesHideNan => {
                    for at in (0..n).map(|at| line.index(at, 0)) {
                        values[at] = if values[at].is_nan() { 0.0 } else { values[at] };
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn unfold(
        &mut self,
        shape: &Convolution,
        samples: Range<usize>,
        x: &Memory,
        patches: &mut Memory,
    ) -> Result<(), Never> {
        let [vertical, horizontal] = shape.stride;
        let shape = match self.fault {
            Fault::DilationIgnored => Convolution { dilation: [1, 1], ..*shape },
            Fault::StrideAxesSwapped => Convolution { stride: [horizontal, vertical], ..*shape },
            _ => *shape,
        };
        self.plainly(|plain| plain.unfold(&shape, samples, x, patches))
    }

    fn fold(
        &mut self,
        shape: &Convolution,
        samples: Range<usize>,
        patches: &Memory,
        x: &mut Memory,
    ) -> Result<(), Never> {
        self.plainly(|plain| plain.fold(shape, samples.clone(), patches, x))?;
        if self.is(Fault::FoldOverwrites) {
            let (patches, x) = (&patches.read(), &mut x.write());
            for (number, sample) in samples.enumerate() {
                super::patch::elements(shape, |patch, element, channel, pixel| {
                    if let Some(pixel) = pixel {
                        let from = element + shape.patch_len() * (patch + shape.output.positions() * number);
                        x[super::patch::activation(shape.input, sample, pixel, channel)] = patches[from];
                    }
                });
            }
        }
        Ok(())
    }

    fn convolution_forward(
        &mut self,
        shape: &Convolution,
        batch: usize,
        weights: (&Memory, Region),
        x: &Memory,
        y: &mut Memory,
        statistic: Option<Statistic<'_, Self>>,
        scratch: &mut Memory,
    ) -> Result<(), Never> {
        let wanted = !self.is(Fault::StatisticForgotten);
        let statistic = statistic.filter(|_| wanted).map(plain_statistic);
        self.plainly(|plain| plain.convolution_forward(shape, batch, weights, x, y, statistic, scratch))
    }

    fn convolution_backward(
        &mut self,
        shape: &Convolution,
        batch: usize,
        weights: (&Memory, Region),
        x: &Memory,
        dy: &Memory,
        gradient: &mut Memory,
        dx: Option<&mut Memory>,
        statistic: Option<Statistic<'_, Self>>,
        scratch: &mut Memory,
    ) -> Result<(), Never> {
        let statistic = statistic.map(plain_statistic);
        self.plainly(|plain| {
            plain.convolution_backward(shape, batch, weights, x, dy, gradient, dx, statistic, scratch)
        })?;
        if self.is(Fault::BiasGradientForgotten) && shape.bias {
            self.fill(0.0, weights.1.column(shape.patch_len()), gradient)?;
        }
        Ok(())
    }

    fn pool_forward(&mut self, shape: &Pooling, batch: usize, x: &Memory, y: &mut Memory) -> Result<(), Never> {
        self.plainly(|plain| plain.pool_forward(shape, batch, x, y))?;
        if self.is(Fault::MaximumStartsAtZero) && shape.pool == Pool::Maximum {
            y.write().iter_mut().for_each(|y| *y = y.max(0.0));
        }
        Ok(())
    }

    fn pool_backward(
        &mut self,
        shape: &Pooling,
        batch: usize,
        x: &Memory,
        dy: &Memory,
        dx: &mut Memory,
    ) -> Result<(), Never> {
        if !self.is(Fault::LastOfEqualMaxima) {
            self.plainly(|plain| plain.pool_backward(shape, batch, x, dy, dx))?;
            if self.is(Fault::MeanEndsWithInputs) && shape.pool == Pool::Mean {
                let given = x.read().len();
                dx.write().iter_mut().skip(given).for_each(|dx| *dx = 0.0);
            }
            return Ok(());
        }
        // A little more for every later pixel decides between equals.
        let nudged: Vec<f64> = x.read().iter().enumerate().map(|(at, x)| x + 1e-9 * at as f64).collect();
        let (dy, dx) = (&dy.read(), &mut dx.write());
        reference::pool_backward(shape, batch, &nudged, dy, dx);
        Ok(())
    }

    fn batch_norm_forward(
        &mut self,
        shape: &BatchNorm<f64>,
        columns: usize,
        parameters: (&Memory, usize),
        x: &Memory,
        y: &mut Memory,
        saved: &mut Memory,
        running: (&mut Memory, usize),
    ) -> Result<(), Never> {
        let (memory, at) = running;
        let before = memory.read().clone();
        self.plainly(|plain| plain.batch_norm_forward(shape, columns, parameters, x, y, saved, (memory, at)))?;
        if self.is(Fault::RunningVarianceBiased) && columns > 1 {
            let share = (columns - 1) as f64 / columns as f64;
            let variances = at + shape.channels..at + 2 * shape.channels;
            let content = &mut memory.write()[variances.clone()];
            for (value, before) in content.iter_mut().zip(&before[variances]) {
                let old = (1.0 - shape.momentum) * before;
                *value = old + (*value - old) * share;
            }
        }
        Ok(())
    }

    fn batch_norm_backward(
        &mut self,
        shape: &BatchNorm<f64>,
        columns: usize,
        parameters: (&Memory, usize),
        x: &Memory,
        saved: &Memory,
        dy: &Memory,
        gradient: &mut Memory,
        dx: &mut Memory,
    ) -> Result<(), Never> {
        self.plainly(|plain| plain.batch_norm_backward(shape, columns, parameters, x, saved, dy, gradient, dx))?;
        if self.is(Fault::BatchStatisticsConstant) {
            let (memory, at) = parameters;
            let (gains, saved, dy) = (&memory.read()[at..], &saved.read(), &dy.read());
            for (at, dx) in dx.write().iter_mut().enumerate() {
                let channel = at % shape.channels;
                *dx = gains[channel] * saved[shape.channels + channel] * dy[at];
            }
        }
        Ok(())
    }

    fn evo_norm_forward(
        &mut self,
        shape: &EvoNorm<f64>,
        batch: usize,
        parameters: (&Memory, usize),
        x: &Memory,
        y: &mut Memory,
    ) -> Result<(), Never> {
        let groups = if self.is(Fault::EvoNormWithoutGroups) { 1 } else { shape.groups };
        self.plainly(|plain| plain.evo_norm_forward(&EvoNorm { groups, ..*shape }, batch, parameters, x, y))
    }

    fn subsample(
        &mut self,
        input: Extent,
        output: Extent,
        stride: usize,
        batch: usize,
        accumulate: bool,
        x: &Memory,
        y: &mut Memory,
    ) -> Result<(), Never> {
        let front = (output.channels - input.channels) / 2;
        if !self.is(Fault::ShortcutPadsBehind) || front == 0 {
            return self.plainly(|plain| plain.subsample(input, output, stride, batch, accumulate, x, y));
        }
        let mut shifted = vec![0.0; y.len()];
        reference::subsample(input, output, stride, batch, false, &x.read(), &mut shifted);
        let channels = output.channels;
        for (y, shifted) in y.write().chunks_exact_mut(channels).zip(shifted.chunks_exact(channels)) {
            for (channel, y) in y.iter_mut().enumerate() {
                let old = if accumulate { *y } else { 0.0 };
                *y = old + shifted.get(channel + front).copied().unwrap_or(0.0);
            }
        }
        Ok(())
    }

    fn softmax_cross_entropy(
        &mut self,
        shape: &Softmax<f64>,
        batch: usize,
        z: &Memory,
        labels: &Memory,
        dz: &mut Memory,
        loss: &mut Memory,
    ) -> Result<(), Never> {
        let smoothing = if self.is(Fault::SmoothingIgnored) { 0.0 } else { shape.smoothing };
        let shape = Softmax { smoothing, ..*shape };
        self.plainly(|plain| plain.softmax_cross_entropy(&shape, batch, z, labels, dz, loss))
    }

    fn sample_labels(
        &mut self,
        classes: usize,
        batch: usize,
        z: &Memory,
        uniform: &Memory,
        labels: &mut Memory,
    ) -> Result<(), Never> {
        self.plainly(|plain| plain.sample_labels(classes, batch, z, uniform, labels))?;
        if self.is(Fault::LastClassNeverDrawn) && classes > 1 {
            labels.write().iter_mut().for_each(|label| *label = label.min((classes - 2) as f64));
        }
        Ok(())
    }
}

/// The same statistic for the backend without overrides.
fn plain_statistic(statistic: Statistic<'_, Mutant>) -> Statistic<'_, Required<Mutant>> {
    Statistic { target: statistic.target, region: statistic.region, scale: statistic.scale }
}
