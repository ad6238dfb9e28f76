//! Matrices of a buffer, one after another among the values of a letter.

use crate::backend::Backend;
use crate::matrix::Region;
use alloc::vec::Vec;

/// How a matrix lies in a bucket.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Packed {
    pub(in super::super) region: Region,
    /// Only on and below the diagonal; the rest is its mirror image.
    pub(in super::super) triangle: bool,
}

impl Packed {
    pub(in super::super) fn len(&self) -> usize {
        let rows = self.region.rows;
        if self.triangle { rows * (rows + 1) / 2 } else { self.region.len() }
    }
}

/// What lies in `parts` of a buffer, one after another, behind `values`.
pub(in super::super) fn gather<B: Backend>(
    backend: &mut B,
    buffer: &B::Buffer,
    parts: &[Packed],
    values: &mut Vec<B::Scalar>,
) -> Result<(), B::Error> {
    values.reserve(parts.iter().map(Packed::len).sum());
    let ranges = parts.iter().map(|part| part.region.offset..part.region.end());
    let mut parts = parts.iter();
    backend.read(buffer, ranges, |matrix| {
        let part = parts.next().expect("as many as were asked for");
        if !part.triangle {
            return values.extend_from_slice(matrix);
        }
        let rows = part.region.rows;
        (0..rows).for_each(|column| values.extend_from_slice(&matrix[column * rows + column..(column + 1) * rows]));
    })
}

/// The same by itself.
pub(super) fn gathered<B: Backend>(
    backend: &mut B,
    buffer: &B::Buffer,
    parts: &[Packed],
) -> Result<Vec<B::Scalar>, B::Error> {
    let mut values = Vec::new();
    gather(backend, buffer, parts, &mut values)?;
    Ok(values)
}

/// Writes values to `parts` of a buffer, one after another; `mirrored` is memory.
pub(in super::super) fn scatter<B: Backend>(
    backend: &mut B,
    buffer: &mut B::Buffer,
    parts: &[Packed],
    mut values: &[B::Scalar],
    mirrored: &mut Vec<B::Scalar>,
) -> Result<(), B::Error> {
    for part in parts {
        let (own, rest) = values.split_at(part.len());
        values = rest;
        if !part.triangle {
            backend.upload(own, buffer, part.region.offset)?;
            continue;
        }
        let rows = part.region.rows;
        mirrored.clear();
        mirrored.resize(rows * rows, own[0]);
        let mut next = 0;
        for column in 0..rows {
            for row in column..rows {
                mirrored[column * rows + row] = own[next];
                mirrored[row * rows + column] = own[next];
                next += 1;
            }
        }
        backend.upload(mirrored, buffer, part.region.offset)?;
    }
    Ok(())
}
