//! Which shader computes which products: fixed, or measured once per adapter and kept.

mod cache;

use crate::backend::Wgpu;
use crate::device::Device;
use crate::error::WgpuError;
use crate::kernel::{Kernel, PRODUCT_16, PRODUCT_32, PRODUCT_32_DEEP, PRODUCT_64, PRODUCT_DIRECT, PRODUCT_NAIVE};
use crate::options::Tuning;
use core::fmt;
use kronfleet_core::backend::{Backend, Gemm};
use kronfleet_core::matrix::Region;
use std::path::Path;
use std::time::{Duration, Instant};

/// A shader of products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Variant {
    /// Tiles of 16×16 by 16 threads.
    Tile16,
    /// Tiles of 32×32 by 64 threads.
    Tile32,
    /// The same from strips of 32 terms instead of 16.
    Tile32Deep,
    /// Tiles of 64×64 by 256 threads.
    Tile64,
    /// 4×4 elements per thread, straight from memory.
    Direct,
    /// An element per thread.
    Naive,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Tile16, Self::Tile32, Self::Tile32Deep, Self::Tile64, Self::Direct, Self::Naive];

    pub(crate) fn kernel(self) -> &'static Kernel {
        match self {
            Self::Tile16 => &PRODUCT_16,
            Self::Tile32 => &PRODUCT_32,
            Self::Tile32Deep => &PRODUCT_32_DEEP,
            Self::Tile64 => &PRODUCT_64,
            Self::Direct => &PRODUCT_DIRECT,
            Self::Naive => &PRODUCT_NAIVE,
        }
    }

    /// Rows and columns of what a workgroup computes.
    pub const fn side(self) -> usize {
        match self {
            Self::Tile16 | Self::Naive => 16,
            Self::Tile32 | Self::Tile32Deep | Self::Direct => 32,
            Self::Tile64 => 64,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tile16 => "tile16",
            Self::Tile32 => "tile32",
            Self::Tile32Deep => "tile32-deep",
            Self::Tile64 => "tile64",
            Self::Direct => "direct",
            Self::Naive => "naive",
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Products that are computed by one shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    /// By the smaller extent of the result: up to 16, up to 48, up to 128, more.
    extent: u8,
    /// Whether the sum has more than 128 terms.
    is_long: bool,
    /// Whether neighbours in a row of `a` lie beside each other, instead of those in a column.
    a_across: bool,
    /// The same of `b`.
    b_across: bool,
}

impl Class {
    const COUNT: usize = 32;
    /// The extents and numbers of terms that stand for all when a class is measured.
    const EXTENTS: [usize; 4] = [16, 40, 96, 160];
    const TERMS: [usize; 2] = [48, 160];

    pub(crate) fn of(product: &Gemm<f32>) -> Self {
        let extent = match product.c.rows.min(product.c.columns) {
            0..=16 => 0,
            17..=48 => 1,
            49..=128 => 2,
            _ => 3,
        };
        let is_long = product.a.columns > 128;
        Self { extent, is_long, a_across: product.a.row_step != 1, b_across: product.b.row_step != 1 }
    }

    fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(|index| Self {
            extent: (index / 8) as u8,
            is_long: index & 4 != 0,
            a_across: index & 2 != 0,
            b_across: index & 1 != 0,
        })
    }

    fn index(self) -> usize {
        usize::from(self.extent) * 8
            + usize::from(self.is_long) * 4
            + usize::from(self.a_across) * 2
            + usize::from(self.b_across)
    }

    /// The largest tiles that are not mostly empty.
    fn fixed(self) -> Variant {
        [Variant::Tile16, Variant::Tile32, Variant::Tile64, Variant::Tile64][usize::from(self.extent)]
    }

    /// Products of this class beside each other: their extent, terms and number.
    fn example(self) -> (usize, usize, usize) {
        let (extent, terms) = (Self::EXTENTS[usize::from(self.extent)], Self::TERMS[usize::from(self.is_long)]);
        // A launch of something like a layer's size, not one whose time is that of launching.
        (extent, terms, (1_usize << 20).div_ceil(extent * extent * terms).min(64))
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extent = ["16", "48", "128", "more"][usize::from(self.extent)];
        let terms = if self.is_long { "long" } else { "short" };
        let across = |is: bool| if is { "across" } else { "down" };
        write!(f, "{extent} {terms} {} {}", across(self.a_across), across(self.b_across))
    }
}

/// A shader for every class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choices([Variant; Class::COUNT]);

impl Choices {
    pub(crate) fn fixed() -> Self {
        let mut choices = [Variant::Tile16; Class::COUNT];
        Class::all().for_each(|class| choices[class.index()] = class.fixed());
        Self(choices)
    }

    pub(crate) fn variant(&self, class: Class) -> Variant {
        self.0[class.index()]
    }

    pub(crate) fn list(&self) -> impl Iterator<Item = (Class, Variant)> {
        Class::all().map(|class| (class, self.variant(class)))
    }

    /// What `tuning` asks for, and what a user should know of it.
    pub(crate) fn make(device: &Device, tuning: &Tuning) -> Result<(Self, Option<String>), WgpuError> {
        match tuning {
            Tuning::Fixed => Ok((Self::fixed(), None)),
            Tuning::Only(variant) => Ok((Self([*variant; Class::COUNT]), None)),
            Tuning::Measured { cache: None } => Ok((measure(device)?, None)),
            Tuning::Measured { cache: Some(folder) } => Self::remembered(device, folder),
        }
    }

    fn remembered(device: &Device, folder: &Path) -> Result<(Self, Option<String>), WgpuError> {
        let file = cache::File::of(device, folder);
        let unusable = match file.read() {
            Ok(Some(choices)) => return Ok((choices, None)),
            Ok(None) => None,
            Err(reason) => Some(format!("{reason}; products are measured again")),
        };
        let choices = measure(device)?;
        let kept = file.write(&choices).err();
        let unkept = kept.map(|reason| format!("{reason}; products are measured at every start"));
        Ok((choices, unusable.or(unkept)))
    }
}

/// The fastest shader of every class. Takes seconds.
fn measure(device: &Device) -> Result<Choices, WgpuError> {
    let mut choices = Choices::fixed();
    let mut backend = Wgpu::new(device)?;
    // The first launch of each compiles it.
    let small = Class { extent: 0, is_long: false, a_across: false, b_across: false };
    for variant in Variant::ALL {
        time(&mut backend, small, variant, Some(Duration::ZERO))?;
    }
    for class in Class::all() {
        let mut best: Option<Duration> = None;
        for variant in Variant::ALL {
            let time = time(&mut backend, class, variant, best)?;
            if best.is_none_or(|best| time < best) {
                best = Some(time);
                choices.0[class.index()] = variant;
            }
        }
    }
    Ok(choices)
}

/// The shortest time that products of this class took, of a few. One that is far behind `best` is not tried again.
fn time(backend: &mut Wgpu, class: Class, variant: Variant, best: Option<Duration>) -> Result<Duration, WgpuError> {
    let (extent, terms, count) = class.example();
    let (len, area) = (extent * terms, extent * extent);
    let [a, b, mut c] = [len, len, area].map(|len| backend.allocate(len * count));
    let (a, b, c) = (a?, b?, c.as_mut().map_err(|error| error.clone())?);
    let line = |offset: usize, rows: usize, columns: usize, is_across: bool| {
        if is_across {
            Region::matrix(offset, columns, rows).transposed()
        } else {
            Region::matrix(offset, rows, columns)
        }
    };
    let jobs: Vec<Gemm<f32>> = (0..count)
        .map(|job| {
            let of_a = line(job * len, extent, terms, class.a_across);
            let of_b = line(job * len, terms, extent, class.b_across);
            Gemm::product(of_a, of_b, Region::matrix(job * area, extent, extent))
        })
        .collect();
    backend.forced = Some(variant);
    let mut once = || -> Result<Duration, WgpuError> {
        let start = Instant::now();
        backend.gemm(&jobs, &a, &b, c)?;
        backend.sync()?;
        Ok(start.elapsed())
    };
    let mut shortest = once()?;
    if best.is_none_or(|best| shortest < 2 * best) {
        for _ in 0..3 {
            shortest = shortest.min(once()?);
        }
    }
    backend.forced = None;
    Ok(shortest)
}
