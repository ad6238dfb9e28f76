//! Which shader computes which products: fixed, or measured once per adapter and kept.

mod cache;
mod clock;

use crate::backend::Wgpu;
use crate::device::Device;
use crate::error::WgpuError;
use crate::kernel::{Kernel, PRODUCTS, PRODUCTS_BY_HALF};
use crate::options::Tuning;
pub use clock::Clock;
pub(crate) use clock::Stopwatch;
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

    /// Its shader; `by_half` for a second operand in half precision.
    pub(crate) fn kernel(self, by_half: bool) -> &'static Kernel {
        &(if by_half { &PRODUCTS_BY_HALF } else { &PRODUCTS })[self as usize]
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
}

/// Which shaders were chosen, and how.
#[derive(Debug)]
pub(crate) struct Tuned {
    pub(crate) choices: Choices,
    /// What they were timed by, if they were.
    pub(crate) clock: Option<Clock>,
    /// What a user should know of it.
    pub(crate) warning: Option<String>,
}

impl Tuned {
    /// What `tuning` asks for.
    pub(crate) fn make(device: &Device, tuning: &Tuning) -> Result<Self, WgpuError> {
        let untimed = |choices| Self { choices, clock: None, warning: None };
        match tuning {
            Tuning::Fixed => Ok(untimed(Choices::fixed())),
            Tuning::Only(variant) => Ok(untimed(Choices([*variant; Class::COUNT]))),
            Tuning::Measured { cache: None } => Self::measure(device),
            Tuning::Measured { cache: Some(folder) } => Self::remembered(device, folder),
        }
    }

    fn remembered(device: &Device, folder: &Path) -> Result<Self, WgpuError> {
        let file = cache::File::of(device, folder);
        let unusable = match file.read() {
            Ok(Some((choices, clock))) => return Ok(Self { choices, clock: Some(clock), warning: None }),
            Ok(None) => None,
            Err(reason) => Some(format!("{reason}; products are measured again")),
        };
        let measured = Self::measure(device)?;
        let kept = measured.clock.and_then(|clock| file.write(&measured.choices, clock).err());
        let unkept = kept.map(|reason| format!("{reason}; products are measured at every start"));
        Ok(Self { warning: unusable.or(unkept), ..measured })
    }

    /// The fastest shader of every class. Takes seconds.
    fn measure(device: &Device) -> Result<Self, WgpuError> {
        let mut choices = Choices::fixed();
        let mut backend = Wgpu::new(device)?;
        backend.time_launches(Stopwatch::of(device)?);
        // The first launch of each compiles it, and shows whether the device's clock runs.
        let small = Class { extent: 0, is_long: false, a_across: false, b_across: false };
        fastest(&mut backend, small, 1)?;
        let clock = if backend.times_launches() { Clock::Device } else { Clock::Host };
        for class in Class::all() {
            choices.0[class.index()] = fastest(&mut backend, class, 4)?;
        }
        Ok(Self { choices, clock: Some(clock), warning: None })
    }
}

/// The shader that took the shortest time for products of this class, in turns with the others, so that what else the machine
/// does meets all of them. One that is far behind is not tried again.
fn fastest(backend: &mut Wgpu, class: Class, turns: usize) -> Result<Variant, WgpuError> {
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
    let mut shortest = [Duration::MAX; Variant::ALL.len()];
    for turn in 0..turns {
        let far = 2 * shortest.iter().min().copied().unwrap_or_default().min(Duration::MAX / 2);
        for (variant, shortest) in Variant::ALL.into_iter().zip(&mut shortest) {
            if turn > 0 && *shortest >= far {
                continue;
            }
            backend.forced = Some(variant);
            let start = Instant::now();
            backend.gemm(&jobs, &a, &b, c)?;
            let own = backend.finish_timed()?;
            *shortest = own.unwrap_or_else(|| start.elapsed()).min(*shortest);
        }
    }
    backend.forced = None;
    let fastest = Variant::ALL.into_iter().zip(shortest).min_by_key(|&(_, time)| time);
    Ok(fastest.map_or(Variant::Naive, |(variant, _)| variant))
}
