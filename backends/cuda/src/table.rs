//! Tables of jobs as kernels take them: the structures of `kernels/`, field by field.
//!
//! A table is an argument by value, of which there may be 4 KiB; more jobs than fit take several launches.

use kronfleet_core::matrix::Region;

/// A length or position as kernels count them.
pub(crate) fn narrow(value: usize) -> u32 {
    u32::try_from(value).expect("no buffer has 2³² elements")
}

/// A length as libraries count them.
#[track_caller]
pub(crate) fn signed(value: usize) -> i32 {
    i32::try_from(value).unwrap_or_else(|_| panic!("cuBLAS and cuSOLVER count to 2³¹, not to {value}"))
}

/// Where an operand lies.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Place {
    pub(crate) offset: u32,
    pub(crate) row_step: u32,
    pub(crate) column_step: u32,
}

impl From<Region> for Place {
    fn from(region: Region) -> Self {
        // A step over one row or column is never taken, and may be anything.
        let step = |extent: usize, step: usize| if extent > 1 { narrow(step) } else { 0 };
        Self {
            offset: narrow(region.offset),
            row_step: step(region.rows, region.row_step),
            column_step: step(region.columns, region.column_step),
        }
    }
}

/// A table with room for some jobs.
pub(crate) trait Table: Sized {
    /// What a job is to the kernel.
    type Job;
    /// How many jobs fit.
    const ROOM: usize;
    /// Adds a job that begins with block `first`.
    fn push(&mut self, job: Self::Job, first: u32);
    /// How many jobs there are.
    fn count(&self) -> usize;
    /// Forgets the jobs.
    fn clear(&mut self);
}

macro_rules! table {
    ($(#[$documentation:meta])* $table:ident of $job:ident, $room:literal { $($field:ident: $kind:ty),* }) => {
        $(#[$documentation])*
        #[derive(Clone, Copy, Debug)]
        #[repr(C)]
        pub(crate) struct $table {
            $(pub(crate) $field: $kind,)*
            first: [u32; $room],
            job: [$job; $room],
        }

        impl $table {
            pub(crate) fn new($($field: $kind),*) -> Self {
                Self { $($field,)* first: [0; $room], job: [$job::default(); $room] }
            }
        }

        const _: () = assert!(size_of::<$table>() <= 4096 - 128, "with its pointers it is one kernel's arguments");

        impl Table for $table {
            type Job = $job;
            const ROOM: usize = $room;

            fn push(&mut self, job: $job, first: u32) {
                let at = self.count as usize;
                (self.first[at], self.job[at]) = (first, job);
                self.count += 1;
            }

            fn count(&self) -> usize {
                self.count as usize
            }

            fn clear(&mut self) {
                self.count = 0;
            }
        }
    };
}

/// One element-wise operation.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct MapEntry {
    pub(crate) rows: u32,
    pub(crate) columns: u32,
    pub(crate) x: Place,
    pub(crate) y: Place,
    pub(crate) out: Place,
}

table! {
    /// `MapTable` of `map.cu`.
    MapTable of MapEntry, 64 { operation: u32, count: u32, a: f32, b: f32, c: f32 }
}

/// One sum.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct ReduceEntry {
    pub(crate) rows: u32,
    pub(crate) columns: u32,
    pub(crate) summed_rows: u32,
    pub(crate) summed_columns: u32,
    pub(crate) x: Place,
    pub(crate) y: Place,
    pub(crate) out: Place,
    pub(crate) alpha: f32,
    pub(crate) beta: f32,
}

table! {
    /// `ReduceTable` of `reduce.cu`.
    ReduceTable of ReduceEntry, 40 { count: u32 }
}

/// One square matrix.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Square {
    pub(crate) offset: u32,
    pub(crate) n: u32,
    pub(crate) column_step: u32,
}

impl From<Region> for Square {
    fn from(region: Region) -> Self {
        Self { offset: narrow(region.offset), n: narrow(region.rows), column_step: narrow(region.column_step) }
    }
}

table! {
    /// `SquareTable` of `mirror.cu`, `soundness.cu` and `pointers.cu`.
    SquareTable of Square, 128 { count: u32 }
}

/// One eigenproblem.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct EigenEntry {
    pub(crate) offset: u32,
    pub(crate) n: u32,
    pub(crate) column_step: u32,
    pub(crate) values: u32,
}

table! {
    /// `EigenTable` of `eigen.cu`.
    EigenTable of EigenEntry, 128 { count: u32 }
}
