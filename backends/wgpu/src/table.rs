//! Writing tables of jobs.

use crate::queue::WINDOW;
use core::ops::Range;
use kronfleet_core::matrix::Region;

/// A number below 2³², as indices of what fits a device are.
#[track_caller]
pub(crate) fn word(value: usize) -> u32 {
    u32::try_from(value).unwrap_or_else(|_| panic!("{value} is no index that a shader can count to"))
}

/// Offset, row step and column step, from the first scalar bound.
pub(crate) fn steps(region: Region, base: usize) -> [u32; 3] {
    let offset = if region.is_empty() { 0 } else { region.offset - base };
    [word(offset), word(region.row_step), word(region.column_step)]
}

/// The places that a region uses; nothing where it is empty.
pub(crate) fn span(region: Region) -> Range<usize> {
    if region.is_empty() { 0..0 } else { region.offset..region.end() }
}

/// From the first place that any of them uses to the last.
pub(crate) fn hull(spans: impl Iterator<Item = Range<usize>>) -> Range<usize> {
    spans.filter(|span| !span.is_empty()).reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or(0..0)
}

/// Cuts a list of jobs into runs whose table fits a launch and of which `fits` holds; a job of its own always makes a run.
pub(crate) fn runs<J>(jobs: &[J], record: usize, fits: impl Fn(&[J]) -> bool) -> impl Iterator<Item = &[J]> {
    let most = (WINDOW - 64) / record;
    let mut rest = jobs;
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut len = rest.len().min(most);
        while len > 1 && !fits(&rest[..len]) {
            len = len.div_ceil(2);
        }
        let (run, after) = rest.split_at(len);
        rest = after;
        Some(run)
    })
}
