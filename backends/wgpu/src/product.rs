//! Matrix products.

use crate::backend::Wgpu;
use crate::buffer::Buffer;
use crate::error::WgpuError;
use crate::kernel::{Kernel, PARTS, PRODUCTS_KEPT_IN_HALF, PRODUCTS_OF_HALVES, Stored};
use crate::table::{hull, runs, span, steps, word};
use crate::tuning::{Class, Variant};
use core::ops::Range;
use kronfleet_core::backend::{Buffer as _, Gemm, Outer};
use kronfleet_core::matrix::Region;

const HEADER: usize = 2;
const RECORD: usize = 20;
const PART_RECORD: usize = 10;

/// A product, or one triangle of a symmetric one and its mirror image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) product: Gemm<f32>,
    pub(crate) symmetric: bool,
    /// Whether the operands may be kept in half precision.
    pub(crate) half: bool,
}

impl Job {
    fn tiles(&self, side: usize) -> usize {
        let (down, across) = (self.product.c.rows.div_ceil(side), self.product.c.columns.div_ceil(side));
        if self.symmetric { down * (down + 1) / 2 } else { down * across }
    }

    /// Into how many parts the sum is cut, to be added up afterwards: where few tiles would keep few cores busy for
    /// long. It depends on shapes alone, and so do the bits.
    fn parts(&self, tiles: usize) -> usize {
        let terms = self.product.a.columns;
        let busy = if tiles >= BUSY || terms < 2 * PART { 1 } else { (terms / PART).min(BUSY / tiles.max(1)).max(1) };
        busy.max(terms.div_ceil(LONGEST))
    }

    /// The same in smaller jobs, one after the other, where an operand is too large to be bound: its longer side is halved.
    fn halves(&self) -> Vec<Self> {
        let Gemm { a, b, c, .. } = self.product;
        let len = |region: &Region| span(*region).len();
        let reach = |region: Region| {
            ((region.rows.max(1) - 1) * region.row_step, (region.columns.max(1) - 1) * region.column_step)
        };
        if len(&c) >= len(&a).max(len(&b)) {
            return self.narrower();
        }
        let (is_a, (down, across)) = if len(&a) >= len(&b) { (true, reach(a)) } else { (false, reach(b)) };
        match (is_a, down > across) {
            (true, false) | (false, true) => self.shorter(),
            (true, true) => self.cut(true),
            (false, false) => self.cut(false),
        }
    }

    /// Two halves of the sum.
    fn shorter(&self) -> Vec<Self> {
        let Gemm { a, b, .. } = self.product;
        let (terms, half) = (a.columns, a.columns / 2);
        let part = |from: usize, len: usize, beta: f32| Self {
            product: Gemm {
                a: a.block(0, from, a.rows, len),
                b: b.block(from, 0, len, b.columns),
                beta,
                ..self.product
            },
            ..*self
        };
        if half == 0 { Vec::new() } else { vec![part(0, half, self.product.beta), part(half, terms - half, 1.0)] }
    }

    /// Two halves of the result.
    fn narrower(&self) -> Vec<Self> {
        // Columns lie further apart than rows.
        self.cut(self.product.c.columns < 2)
    }

    /// Two halves of the result's rows or columns; of a symmetric one two triangles and two squares.
    fn cut(&self, rows: bool) -> Vec<Self> {
        let c = self.product.c;
        let part = |from: (usize, usize), len: (usize, usize), symmetric: bool| {
            let Gemm { a, b, .. } = self.product;
            Self {
                product: Gemm {
                    a: a.block(from.0, 0, len.0, a.columns),
                    b: b.block(0, from.1, b.rows, len.1),
                    c: c.block(from.0, from.1, len.0, len.1),
                    ..self.product
                },
                symmetric,
                ..*self
            }
        };
        let (down, across) = (c.rows / 2, c.columns / 2);
        let (below, beside) = (c.rows - down, c.columns - across);
        match (self.symmetric, rows) {
            (true, _) if down > 0 => vec![
                part((0, 0), (down, across), true),
                part((down, 0), (below, across), false),
                part((0, across), (down, beside), false),
                part((down, across), (below, beside), true),
            ],
            (false, true) if down > 0 => {
                vec![part((0, 0), (down, c.columns), false), part((down, 0), (below, c.columns), false)]
            }
            (false, false) if across > 0 => {
                vec![part((0, 0), (c.rows, across), false), part((0, across), (c.rows, beside), false)]
            }
            _ => Vec::new(),
        }
    }
}

/// Tiles of 32×32 that are taken to fill a GPU.
const BUSY: usize = 64;
/// Terms of a part, at least.
const PART: usize = 512;
/// Terms of a part, at most: a turn of a loop each, of which lavapipe makes 65,535 (see `factorisation.rs`).
const LONGEST: usize = 1 << 14;

impl Wgpu {
    /// Products whose second operand may be [in half precision](Stored::Second).
    pub(crate) fn run_gemm(
        &mut self,
        jobs: &[Gemm<f32>],
        stored: Stored,
        a: &Buffer,
        b: &Buffer,
        c: &Buffer,
    ) -> Result<(), WgpuError> {
        self.counters.flops += jobs.iter().map(Gemm::flops).sum::<u64>();
        let jobs: Vec<Job> = jobs.iter().map(|&product| Job { product, symmetric: false, half: false }).collect();
        self.stored_products(&jobs, stored, a, b, c)
    }

    /// Symmetric products of what may be [in half precision](Stored::Both).
    pub(crate) fn run_symmetric_product(
        &mut self,
        jobs: &[Outer<f32>],
        stored: Stored,
        x: &Buffer,
        c: &Buffer,
    ) -> Result<(), WgpuError> {
        let half = self.device().half();
        let mut products = Vec::with_capacity(jobs.len());
        for job in jobs {
            job.check();
            self.counters.flops += job.flops();
            let product = Gemm { alpha: job.alpha, a: job.x, b: job.x.transposed(), beta: job.beta, c: job.c };
            products.push(Job { product, symmetric: true, half });
        }
        self.stored_products(&products, stored, x, x, c)
    }

    /// Of operands in single precision.
    pub(crate) fn products(&mut self, jobs: &[Job], a: &Buffer, b: &Buffer, c: &Buffer) -> Result<(), WgpuError> {
        self.stored_products(jobs, Stored::Full, a, b, c)
    }

    fn stored_products(
        &mut self,
        jobs: &[Job],
        stored: Stored,
        a: &Buffer,
        b: &Buffer,
        c: &Buffer,
    ) -> Result<(), WgpuError> {
        // Numbers that lie in the place of one scalar.
        let [in_a, in_b] = stored.halves().map(|is_half| if is_half { 2 } else { 1 });
        for Job { product, .. } in jobs {
            product.check_in(in_a * a.len(), in_b * b.len(), c.len());
        }
        let spans = |jobs: &[Job]| {
            let of = |region: fn(&Job) -> Region| hull(jobs.iter().map(|job| span(region(job))));
            let scalars = |span: Range<usize>, each: usize| span.start / each..span.end.div_ceil(each);
            [scalars(of(|job| job.product.a), in_a), scalars(of(|job| job.product.b), in_b), of(|job| job.product.c)]
        };
        let tiles = |jobs: &[Job]| jobs.iter().map(|job| job.tiles(32)).sum::<usize>();
        let parts = |jobs: &[Job]| {
            let tiles = tiles(jobs);
            jobs.iter().map(|job| if job.parts(tiles) > 1 { job.parts(tiles) * job.product.c.len() } else { 0 }).sum()
        };
        let limit = self.limit();
        let fits = |jobs: &[Job]| spans(jobs).iter().all(|span| limit.admits(span)) && limit.admits(&(0..parts(jobs)));
        for run in runs(jobs, RECORD, fits) {
            if let ([job], false) = (run, fits(run)) {
                let smaller =
                    if spans(run).iter().all(|span| limit.admits(span)) { job.narrower() } else { job.halves() };
                // One element fits.
                for part in &smaller {
                    self.stored_products(core::slice::from_ref(part), stored, a, b, c)?;
                }
                if !smaller.is_empty() {
                    continue;
                }
            }
            let [of_a, of_b, of_c] = spans(run);
            let bound = [self.bind(a, of_a)?, self.bind(b, of_b)?, self.bind(c, of_c)?];
            let tiles = tiles(run);
            let (kernel, side) = self.shader(run, stored);
            let mut table = self.table();
            let mut joins = self.table();
            table.resize(HEADER, 0);
            joins.resize(HEADER, 0);
            let (mut groups, mut join_groups, mut scratch) = (0, 0, 0);
            for job in run.iter().filter(|job| !job.product.c.is_empty()) {
                let Gemm { alpha, a, b, beta, c } = job.product;
                let parts = job.parts(tiles);
                table.extend([
                    word(groups),
                    word(c.rows.div_ceil(side)),
                    word(c.rows),
                    word(c.columns),
                    word(a.columns),
                ]);
                table.extend(steps(a, in_a * bound[0].base));
                table.extend(steps(b, in_b * bound[1].base));
                let [offset, _, column_step] = steps(c, bound[2].base);
                table.extend([offset, column_step, alpha.to_bits(), beta.to_bits(), u32::from(job.symmetric)]);
                table.extend([word(parts), word(a.columns.div_ceil(parts.max(1))), word(scratch), 0]);
                groups += job.tiles(side) * parts;
                if parts > 1 {
                    joins.extend([word(join_groups), word(c.rows), word(c.columns), offset, column_step]);
                    joins.extend([
                        alpha.to_bits(),
                        beta.to_bits(),
                        u32::from(job.symmetric),
                        word(parts),
                        word(scratch),
                    ]);
                    join_groups += c.len().div_ceil(64);
                    scratch += parts * c.len();
                }
            }
            table[0] = word(groups);
            table[1] = word((table.len() - HEADER) / RECORD);
            joins[0] = word(join_groups);
            joins[1] = word((joins.len() - HEADER) / PART_RECORD);
            let scratch = self.scratch(scratch)?;
            let [of_a, of_b, of_c] = bound;
            self.launch(kernel, table, &[of_a, of_b, of_c.clone(), scratch.clone()], groups)?;
            self.launch(&PARTS, joins, &[scratch, of_c], join_groups)?;
        }
        Ok(())
    }

    /// The shader for the largest of these products, and the side of its tiles.
    fn shader(&self, jobs: &[Job], stored: Stored) -> (&'static Kernel, usize) {
        let by_half = stored != Stored::Full;
        let Some(largest) = jobs.iter().max_by_key(|job| job.product.flops()) else {
            return (Variant::Tile16.kernel(by_half), Variant::Tile16.side());
        };
        let large = usize::from(largest.product.c.rows > 48);
        if stored == Stored::Both {
            return (&PRODUCTS_OF_HALVES[large], [32, 64][large]);
        }
        if largest.half {
            return (&PRODUCTS_KEPT_IN_HALF[large], [32, 64][large]);
        }
        let variant = self.forced.unwrap_or_else(|| self.device().product(Class::of(&largest.product)));
        (variant.kernel(by_half), variant.side())
    }
}
