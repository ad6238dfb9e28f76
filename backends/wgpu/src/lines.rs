//! Operations whose operands are cut into lines (samples, rows of images, columns), and which are launched piece by piece
//! where a buffer is larger than what the adapter binds at once.

use crate::backend::Wgpu;
use crate::buffer::{Bound, Buffer};
use crate::error::WgpuError;
use crate::kernel::Kernel;
use crate::table::word;
use core::ops::Range;

/// An operand.
pub(crate) struct Line<'a> {
    buffer: Option<&'a Buffer>,
    /// Which of its scalars some lines of the operation use.
    span: Box<dyn Fn(Range<usize>) -> Range<usize> + 'a>,
    /// Numbers that lie in the place of one scalar.
    each: usize,
}

impl<'a> Line<'a> {
    pub(crate) fn new(buffer: &'a Buffer, span: impl Fn(Range<usize>) -> Range<usize> + 'a) -> Self {
        Self { buffer: Some(buffer), span: Box::new(span), each: 1 }
    }

    /// `len` scalars for every line.
    pub(crate) fn each(buffer: &'a Buffer, len: usize) -> Self {
        Self::new(buffer, move |lines| lines.start * len..lines.end * len)
    }

    /// `len` numbers in half precision for every line.
    pub(crate) fn halves(buffer: &'a Buffer, len: usize) -> Self {
        let span = move |lines: Range<usize>| lines.start * len / 2..(lines.end * len).div_ceil(2);
        Self { each: 2, ..Self::new(buffer, span) }
    }

    /// The same scalars for all lines.
    pub(crate) fn all(buffer: &'a Buffer, span: Range<usize>) -> Self {
        Self::new(buffer, move |_| span.clone())
    }

    /// An operand that there is not.
    pub(crate) fn nothing() -> Self {
        Self { buffer: None, span: Box::new(|_| 0..0), each: 1 }
    }
}

/// What an operation does with its lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work<'a> {
    pub(crate) kernel: &'a Kernel,
    /// How many lines there are.
    pub(crate) lines: usize,
    /// What the shader numbers, per line: elements, samples, workgroups.
    pub(crate) each: usize,
    /// How many of these a workgroup does.
    pub(crate) group: usize,
}

impl Wgpu {
    /// Launches a shader on lines, on as many at once as can be bound. Its table begins with the first and the end of what it
    /// numbers and with what is to be added to places in every operand, one after the other; then follows `facts`.
    pub(crate) fn run_lines(
        &mut self,
        work: Work<'_>,
        operands: &[Line<'_>],
        after: Option<&Bound>,
        facts: &[u32],
    ) -> Result<(), WgpuError> {
        let limit = self.limit();
        let fits = |lines: &Range<usize>| {
            operands.iter().all(|line| line.buffer.is_none() || limit.admits(&(line.span)(lines.clone())))
        };
        for lines in pieces(0..work.lines, &fits) {
            let numbers = lines.start * work.each..lines.end * work.each;
            let mut table = self.table();
            table.extend([word(numbers.start), word(numbers.end)]);
            let mut bound = Vec::with_capacity(operands.len() + 1);
            for line in operands {
                let one = self.bind_or_nothing(line.buffer, (line.span)(lines.clone()))?;
                // Added without a carry, it takes away what lies before.
                table.push(0_u32.wrapping_sub(word(line.each * one.base)));
                bound.push(one);
            }
            if let Some(scratch) = after {
                table.push(0);
                bound.push(scratch.clone());
            }
            table.extend(facts);
            let groups = numbers.len().div_ceil(work.group);
            self.launch(work.kernel, table, &bound, groups)?;
        }
        Ok(())
    }
}

/// Cuts a range in halves until `fits` holds of all of them, or they have a length of 1.
fn pieces(range: Range<usize>, fits: &impl Fn(&Range<usize>) -> bool) -> Vec<Range<usize>> {
    if range.len() <= 1 || fits(&range) {
        return if range.is_empty() { Vec::new() } else { vec![range] };
    }
    let middle = range.start + range.len() / 2;
    let mut both = pieces(range.start..middle, fits);
    both.extend(pieces(middle..range.end, fits));
    both
}

/// Which rows of images belong together where windows slide over them; rows of all samples are counted through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    /// Rows of an image that windows slide over.
    pub(crate) input: usize,
    /// Rows of what comes of it.
    pub(crate) output: usize,
    /// From the first to the last row that a window sees.
    pub(crate) reach: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

impl Rows {
    /// The input rows that these output rows see.
    pub(crate) fn seen(self, outputs: Range<usize>) -> Range<usize> {
        if outputs.is_empty() {
            return 0..0;
        }
        let at = |row: usize, more: usize| {
            let (sample, down) = (row / self.output, row % self.output);
            sample * self.input + (down * self.stride + more).saturating_sub(self.padding).min(self.input)
        };
        let start = at(outputs.start, 0);
        start..at(outputs.end - 1, self.reach + 1).max(start)
    }

    /// The output rows that see these input rows.
    pub(crate) fn seeing(self, inputs: Range<usize>) -> Range<usize> {
        if inputs.is_empty() {
            return 0..0;
        }
        let (first, last) = (inputs.start, inputs.end - 1);
        let (sample, down) = (first / self.input, first % self.input + self.padding);
        let start = sample * self.output + down.saturating_sub(self.reach).div_ceil(self.stride).min(self.output);
        let (sample, down) = (last / self.input, last % self.input + self.padding);
        start..(sample * self.output + (down / self.stride + 1).min(self.output)).max(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By trying every window.
    #[test]
    fn rows_that_see_each_other_are_in_the_spans() {
        for (input, kernel, dilation, stride, padding) in
            [(7, 3, 1, 1, 1), (8, 3, 2, 2, 2), (5, 1, 1, 2, 0), (6, 2, 1, 2, 0), (9, 5, 1, 3, 4), (3, 3, 1, 1, 2)]
        {
            let reach = (kernel - 1) * dilation;
            let output = (input + 2 * padding - reach - 1) / stride + 1;
            let rows = Rows { input, output, reach, stride, padding };
            for sample in 0..3 {
                for down in 0..output {
                    for tap in 0..kernel {
                        let Some(row) =
                            (down * stride + tap * dilation).checked_sub(padding).filter(|row| *row < input)
                        else {
                            continue;
                        };
                        let (one, other) = (sample * output + down, sample * input + row);
                        for wider in 0..2 {
                            let outputs = one.saturating_sub(wider)..one + 1 + wider;
                            assert!(rows.seen(outputs).contains(&other), "{rows:?}: output {one} sees input {other}");
                            let inputs = other.saturating_sub(wider)..other + 1 + wider;
                            assert!(rows.seeing(inputs).contains(&one), "{rows:?}: input {other} is seen by {one}");
                        }
                    }
                }
            }
            // A single row needs no more than what its windows reach.
            assert!(rows.seen(output..output + 1).len() <= reach + 1);
        }
    }

    #[test]
    fn pieces_cover_the_range_in_order() {
        for (len, most) in [(0, 3), (1, 3), (3, 3), (10, 3), (17, 1), (5, 0)] {
            let parts = pieces(0..len, &|part: &Range<usize>| part.len() <= most);
            let all: Vec<usize> = parts.iter().cloned().flatten().collect();
            assert_eq!(all, (0..len).collect::<Vec<usize>>());
            assert!(parts.iter().all(|part| part.len() <= most.max(1)));
        }
    }
}
