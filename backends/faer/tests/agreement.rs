//! Overridden methods agree with the provided ones, which define what they mean, on shapes of every kind.

use core::ops::Range;
use kronfleet_core::backend::{
    Backend, BatchNorm, Convolution, Counters, Extent, Gemm, Map, MapJob, Pool, Pooling, ReduceJob, Solve, Statistic,
};
use kronfleet_core::matrix::Region;
use kronfleet_faer::{Buffer, Download, Faer, OutOfMemory, Verdict};

/// The required methods of [`Faer`], and nothing else: everything else is as provided by the trait.
struct Plain(Faer<f64>);

impl Backend for Plain {
    type Scalar = f64;
    type Buffer = Buffer<f64>;
    type Download = Download<f64>;
    type Verdict = Verdict;
    type Error = OutOfMemory;

    fn allocate(&mut self, len: usize) -> Result<Buffer<f64>, OutOfMemory> {
        self.0.allocate(len)
    }

    fn upload(&mut self, source: &[f64], target: &mut Buffer<f64>, offset: usize) -> Result<(), OutOfMemory> {
        self.0.upload(source, target, offset)
    }

    fn download(&mut self, source: &Buffer<f64>, range: Range<usize>) -> Result<Download<f64>, OutOfMemory> {
        self.0.download(source, range)
    }

    fn finish(&mut self, ticket: Download<f64>, target: &mut [f64]) -> Result<(), OutOfMemory> {
        self.0.finish(ticket, target)
    }

    fn gemm(
        &mut self,
        jobs: &[Gemm<f64>],
        a: &Buffer<f64>,
        b: &Buffer<f64>,
        c: &mut Buffer<f64>,
    ) -> Result<(), OutOfMemory> {
        self.0.gemm(jobs, a, b, c)
    }

    fn map(
        &mut self,
        op: Map<f64>,
        jobs: &[MapJob],
        x: Option<&Buffer<f64>>,
        y: Option<&Buffer<f64>>,
        out: &mut Buffer<f64>,
    ) -> Result<(), OutOfMemory> {
        self.0.map(op, jobs, x, y, out)
    }

    fn reduce(
        &mut self,
        jobs: &[ReduceJob<f64>],
        x: &Buffer<f64>,
        y: Option<&Buffer<f64>>,
        out: &mut Buffer<f64>,
    ) -> Result<(), OutOfMemory> {
        self.0.reduce(jobs, x, y, out)
    }

    fn cholesky(&mut self, jobs: &[Region], matrices: &mut Buffer<f64>) -> Result<Verdict, OutOfMemory> {
        self.0.cholesky(jobs, matrices)
    }

    fn cholesky_solve(
        &mut self,
        jobs: &[Solve],
        factors: &Buffer<f64>,
        x: &mut Buffer<f64>,
    ) -> Result<(), OutOfMemory> {
        self.0.cholesky_solve(jobs, factors, x)
    }

    fn verdict(&mut self, ticket: Verdict, sound: &mut [bool]) -> Result<(), OutOfMemory> {
        self.0.verdict(ticket, sound)
    }

    fn sync(&mut self) -> Result<(), OutOfMemory> {
        self.0.sync()
    }

    fn counters(&mut self) -> &mut Counters {
        self.0.counters()
    }
}

/// Numbers in −1..1 that look random.
fn numbers(len: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn on<B: Backend<Scalar = f64>>(backend: &mut B, content: &[f64]) -> B::Buffer {
    let mut buffer = backend.allocate(content.len()).unwrap();
    backend.upload(content, &mut buffer, 0).unwrap();
    buffer
}

#[track_caller]
fn close(left: &[f64], right: &[f64], what: &str) {
    let size = left.iter().fold(1.0, |size: f64, value| size.max(value.abs()));
    for (index, (a, b)) in left.iter().zip(right).enumerate() {
        assert!((a - b).abs() <= 1e-11 * size, "{what}: element {index} is {b}, not {a}");
    }
}

/// Kernels, strides, padding and dilation of every kind, with and without bias, small and larger than a tile.
fn shapes() -> Vec<(Convolution, usize)> {
    let mut shapes = Vec::new();
    let geometries: [[[usize; 2]; 4]; 11] = [
        [[3, 3], [1, 1], [1, 1], [1, 1]],
        [[5, 5], [1, 1], [2, 2], [1, 1]],
        [[5, 5], [1, 1], [0, 0], [1, 1]],
        [[3, 3], [2, 2], [1, 1], [1, 1]],
        [[1, 1], [1, 1], [0, 0], [1, 1]],
        [[1, 1], [2, 2], [0, 0], [1, 1]],
        [[2, 3], [1, 2], [0, 1], [1, 1]],
        [[3, 3], [1, 1], [2, 1], [2, 1]],
        [[3, 2], [2, 1], [2, 2], [1, 2]],
        [[1, 4], [1, 1], [0, 3], [1, 1]],
        [[4, 1], [1, 1], [3, 0], [1, 1]],
    ];
    for [kernel, stride, padding, dilation] in geometries {
        for (channels, outputs) in [(1, 6), (3, 16), (16, 16), (5, 7), (17, 33)] {
            for bias in [false, true] {
                let input = Extent::new(channels, 8, 7);
                let shape = Convolution::new(input, outputs, kernel, stride, padding, dilation, bias).unwrap();
                shapes.push((shape, 3));
            }
        }
    }
    let large = Extent::new(16, 32, 32);
    shapes.push((Convolution::new(large, 16, [3, 3], [1, 1], [1, 1], [1, 1], false).unwrap(), 5));
    // Few channels and outputs, long lines.
    for (input, outputs, kernel, stride, padding) in [
        (Extent::new(1, 28, 28), 6, [5, 5], [1, 1], [2, 2]),
        (Extent::new(6, 14, 14), 16, [5, 5], [1, 1], [0, 0]),
        (Extent::new(2, 9, 61), 3, [3, 4], [2, 2], [1, 2]),
        (Extent::new(1, 5, 40), 13, [2, 3], [1, 3], [1, 0]),
    ] {
        shapes.push((Convolution::new(input, outputs, kernel, stride, padding, [1, 1], true).unwrap(), 3));
    }
    let thin = Extent::new(2, 3, 1);
    shapes.push((Convolution::new(thin, 2, [3, 3], [1, 1], [1, 1], [1, 1], true).unwrap(), 2));
    shapes.push((Convolution::new(thin, 2, [3, 3], [1, 1], [1, 1], [1, 1], true).unwrap(), 0));
    shapes
}

/// Everything a forward and a backward pass write.
fn convolve<B: Backend<Scalar = f64>>(backend: &mut B, shape: &Convolution, batch: usize) -> Vec<Vec<f64>> {
    let (rows, outputs) = (shape.patch_rows(), shape.output.channels);
    let region = Region::matrix(3, outputs, rows);
    let weights = on(backend, &numbers(region.end(), 1));
    let x = on(backend, &numbers(batch * shape.input.len(), 2));
    let dy = on(backend, &numbers(batch * shape.output.len(), 3));
    let mut y = on(backend, &vec![f64::NAN; batch * shape.output.len()]);
    let mut dx = on(backend, &vec![f64::NAN; batch * shape.input.len()]);
    let mut gradient = on(backend, &vec![7.0; region.end() + 2]);
    let mut scratch = backend.allocate(backend.convolution_scratch(shape, batch)).unwrap();
    let (a_region, g_region) = (Region::matrix(2, rows, rows), Region::matrix(1, outputs, outputs));
    let (mut a, mut g) = (on(backend, &vec![0.5; a_region.end()]), on(backend, &vec![0.25; g_region.end() + 1]));
    let statistic = Statistic { target: &mut a, region: a_region, scale: 0.3 };
    let parameters = (&weights, region);
    backend.convolution_forward(shape, batch, parameters, &x, &mut y, Some(statistic), &mut scratch).unwrap();
    let statistic = Statistic { target: &mut g, region: g_region, scale: 0.7 };
    let to = Some(&mut dx);
    backend
        .convolution_backward(shape, batch, parameters, &x, &dy, &mut gradient, to, Some(statistic), &mut scratch)
        .unwrap();
    let mut y_alone = on(backend, &vec![f64::NAN; batch * shape.output.len()]);
    backend.convolution_forward(shape, batch, parameters, &x, &mut y_alone, None, &mut scratch).unwrap();
    let mut alone = on(backend, &vec![7.0; region.end() + 2]);
    backend.convolution_backward(shape, batch, parameters, &x, &dy, &mut alone, None, None, &mut scratch).unwrap();
    [&y, &a, &gradient, &dx, &g, &y_alone, &alone]
        .map(|buffer| backend.fetch(buffer, 0..kronfleet_core::backend::Buffer::len(buffer)).unwrap())
        .into()
}

#[test]
fn convolutions_agree() {
    let names = ["y", "A", "gradient", "dx", "G", "y without A", "gradient without dx"];
    for threads in [1, 2, 3] {
        let mut fast = Faer::<f64>::new(threads);
        let mut plain = Plain(Faer::new(1));
        for (shape, batch) in shapes() {
            let left = convolve(&mut plain, &shape, batch);
            let right = convolve(&mut fast, &shape, batch);
            for ((left, right), name) in left.iter().zip(&right).zip(names) {
                close(left, right, &format!("{name} of {shape:?}, batch {batch}, {threads} threads"));
            }
            assert_eq!(right, convolve(&mut fast, &shape, batch), "a rerun gives other bits: {shape:?}");
        }
    }
}

#[test]
fn pooling_agrees() {
    let (mut fast, mut plain) = (Faer::<f64>::new(2), Plain(Faer::new(1)));
    for pool in [Pool::Maximum, Pool::Mean] {
        for (kernel, stride, padding) in
            [([2, 2], [2, 2], [0, 0]), ([3, 3], [2, 2], [1, 1]), ([3, 2], [1, 1], [1, 1]), ([4, 3], [4, 3], [0, 0])]
        {
            for channels in [1, 6, 16, 19] {
                let input = Extent::new(channels, 9, 8);
                let shape = Pooling::new(pool, input, kernel, stride, padding).unwrap();
                close(&pooled(&mut plain, &shape), &pooled(&mut fast, &shape), &format!("{shape:?}"));
            }
        }
        let shape = Pooling::global(Extent::new(64, 8, 8)).unwrap();
        close(&pooled(&mut plain, &shape), &pooled(&mut fast, &shape), "global");
    }
}

fn pooled<B: Backend<Scalar = f64>>(backend: &mut B, shape: &Pooling) -> Vec<f64> {
    let batch = 3;
    let (input, output) = (batch * shape.windows.input.len(), batch * shape.windows.output.len());
    // Coarse, so that equal maxima occur.
    let coarse: Vec<f64> = numbers(input, 5).iter().map(|value| (value * 4.0).round()).collect();
    let x = on(backend, &coarse);
    let dy = on(backend, &numbers(output, 6));
    let (mut y, mut dx) = (on(backend, &vec![f64::NAN; output]), on(backend, &vec![f64::NAN; input]));
    backend.pool_forward(shape, batch, &x, &mut y).unwrap();
    backend.pool_backward(shape, batch, &x, &dy, &mut dx).unwrap();
    let mut all = backend.fetch(&y, 0..output).unwrap();
    all.extend(backend.fetch(&dx, 0..input).unwrap());
    all
}

#[test]
fn batch_norm_agrees() {
    for threads in [1, 2] {
        let (mut fast, mut plain) = (Faer::<f64>::new(threads), Plain(Faer::new(1)));
        for channels in [1, 3, 16, 33, 130] {
            for columns in [1, 2, 63, 1000, 5000] {
                let what = format!("{channels} channels, {columns} columns, {threads} threads");
                close(&normalised(&mut plain, channels, columns), &normalised(&mut fast, channels, columns), &what);
            }
        }
    }
}

fn normalised<B: Backend<Scalar = f64>>(backend: &mut B, channels: usize, columns: usize) -> Vec<f64> {
    let shape = BatchNorm { channels, epsilon: 1e-5, momentum: 0.1 };
    let (at, len) = (5, channels * columns);
    let parameters = on(backend, &numbers(at + 2 * channels, 1));
    let shifted: Vec<f64> = numbers(len, 2).iter().map(|value| value + 2.0).collect();
    let (x, dy) = (on(backend, &shifted), on(backend, &numbers(len, 3)));
    let (mut y, mut dx) = (backend.allocate(len).unwrap(), backend.allocate(len).unwrap());
    let mut saved = backend.allocate(2 * channels).unwrap();
    let mut running = on(backend, &vec![0.5; at + 2 * channels]);
    let mut gradient = on(backend, &vec![0.5; at + 2 * channels]);
    let mut evaluated = backend.allocate(len).unwrap();
    let p = (&parameters, at);
    backend.batch_norm_forward(&shape, columns, p, &x, &mut y, &mut saved, (&mut running, at)).unwrap();
    backend.batch_norm_backward(&shape, columns, p, &x, &saved, &dy, &mut gradient, &mut dx).unwrap();
    backend.batch_norm_evaluate(&shape, columns, p, (&running, at), &x, &mut evaluated).unwrap();
    let mut all = Vec::new();
    for buffer in [&y, &dx, &saved, &running, &gradient, &evaluated] {
        let len = kronfleet_core::backend::Buffer::len(buffer);
        all.extend(backend.fetch(buffer, 0..len).unwrap());
    }
    all
}

/// Results of operations large enough for several threads.
fn shared<B: Backend<Scalar = f64>>(backend: &mut B) -> Vec<f64> {
    let (rows, columns) = (130, 700);
    let len = rows * columns;
    let mut all = normalised(backend, 7, 20_000);
    let pooling = Pooling::new(Pool::Maximum, Extent::new(19, 33, 34), [2, 2], [2, 2], [0, 0]).unwrap();
    all.extend(pooled(backend, &pooling));
    let (x, y) = (on(backend, &numbers(len, 1)), on(backend, &numbers(len, 2)));
    let matrix = Region::matrix(0, rows, columns);
    // Long columns, whole columns, columns that are not next to each other, rows, and many small jobs.
    let repeated = Region::repeated_column(3, rows, columns);
    let blocks = |region: Region| (0..100).map(move |column| region.block(0, 7 * column, 129, 6));
    let some = |region: Region| blocks(region).next().unwrap();
    let whole = |x: Region, out: Region| vec![MapJob { x, y: matrix, out }];
    let block = |region: Region| region.block(1, 0, 129, columns);
    let lists = [
        whole(matrix, matrix),
        whole(repeated, matrix),
        vec![MapJob { x: block(matrix), y: block(repeated), out: block(matrix) }],
        vec![MapJob { x: matrix.transposed(), y: matrix.transposed(), out: matrix.transposed() }],
        blocks(matrix).map(|out| MapJob { x: some(matrix), y: out, out }).collect(),
    ];
    for jobs in lists {
        let mut out = on(backend, &numbers(len, 3));
        backend.map(Map::MultiplyAdd(0.5, 0.25), &jobs, Some(&x), Some(&y), &mut out).unwrap();
        all.extend(backend.fetch(&out, 0..len).unwrap());
    }
    let sums: Vec<_> = blocks(matrix).zip(0..).map(|(x, at)| ReduceJob::sum(x, Region::vector(at, 1))).collect();
    let mut out = backend.allocate(sums.len()).unwrap();
    backend.reduce(&sums, &x, None, &mut out).unwrap();
    all.extend(backend.fetch(&out, 0..sums.len()).unwrap());
    all
}

#[test]
fn threads_change_no_bit_where_nothing_is_summed_by_share() {
    let alone = shared(&mut Faer::<f64>::new(1));
    close(&shared(&mut Plain(Faer::new(1))), &alone, "large operations");
    for threads in [2, 3, 5] {
        assert_eq!(alone, shared(&mut Faer::<f64>::new(threads)), "{threads} threads");
    }
}
