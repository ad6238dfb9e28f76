//! The channel permutation between PyTorch's layout and ours.
//!
//! Here channels are fastest: an activation is `channels × (samples · height · width)`, a patch has its channels first, then
//! kernel columns, then kernel rows. PyTorch is channel-major: `samples × channels × height × width`, patches
//! `channels × kernel height × kernel width`, flattened images likewise. Both ways of listing the elements of one sample
//! or patch are the same permutation, given by its [`Extent`]. PyTorch's matrices are row-major, ours column-major; with
//! [`Region::index`] that needs no permutation.

use kronfleet_core::backend::Extent;
use kronfleet_core::layer::{Parameter, ParameterKind};
use kronfleet_core::matrix::Region;

/// For every element of a sample or patch in our order, its place in PyTorch's.
pub fn channel_major(extent: Extent) -> Vec<usize> {
    let Extent { channels, height, width } = extent;
    let mut places = Vec::with_capacity(extent.len());
    for row in 0..height {
        for column in 0..width {
            places.extend((0..channels).map(|channel| (channel * height + row) * width + column));
        }
    }
    places
}

/// The extent whose permutation the columns of a weight matrix follow; `None` for vectors.
pub fn columns(kind: ParameterKind) -> Option<Extent> {
    match kind {
        ParameterKind::Dense(extent) => Some(extent),
        ParameterKind::Convolution { channels, kernel: [height, width] } => Some(Extent::new(channels, height, width)),
        ParameterKind::Bias { .. } | ParameterKind::Scale | ParameterKind::Shift => None,
    }
}

/// The shape of a parameter in PyTorch.
pub fn shape(parameter: &Parameter) -> Vec<usize> {
    let Region { rows, columns, .. } = parameter.region;
    match parameter.kind {
        ParameterKind::Convolution { channels, kernel: [height, width] } => vec![rows, channels, height, width],
        ParameterKind::Dense(_) => vec![rows, columns],
        ParameterKind::Bias { .. } | ParameterKind::Scale | ParameterKind::Shift => vec![rows],
    }
}

/// For every column of a parameter or block in our order, its place in PyTorch's; a bias stays last.
pub fn column_places(kind: ParameterKind, count: usize) -> Vec<usize> {
    let mut places = columns(kind).map_or_else(Vec::new, channel_major);
    places.extend(places.len()..count);
    places
}

/// Batches: PyTorch's `samples × channels × height × width` to ours.
///
/// # Panics
/// If `values` is not a whole number of samples.
#[track_caller]
pub fn batch_from_pytorch(extent: Extent, values: &[f64]) -> Vec<f64> {
    assert!(values.len().is_multiple_of(extent.len().max(1)), "{} values of samples {extent}", values.len());
    let places = channel_major(extent);
    values.chunks(extent.len().max(1)).flat_map(|sample| places.iter().map(|&place| sample[place])).collect()
}

/// Our column-major matrix at `region` of `ours` as PyTorch's row-major one, rows and columns moved to their places.
pub fn to_pytorch(region: Region, ours: &[f64], row_places: &[usize], column_places: &[usize]) -> Vec<f64> {
    let mut theirs = vec![0.0; region.len()];
    for column in 0..region.columns {
        for row in 0..region.rows {
            theirs[row_places[row] * region.columns + column_places[column]] = ours[region.index(row, column)];
        }
    }
    theirs
}

/// The inverse of [`to_pytorch`]: writes PyTorch's matrix into `ours`.
pub fn from_pytorch(region: Region, theirs: &[f64], row_places: &[usize], column_places: &[usize], ours: &mut [f64]) {
    for column in 0..region.columns {
        for row in 0..region.rows {
            ours[region.index(row, column)] = theirs[row_places[row] * region.columns + column_places[column]];
        }
    }
}

/// Places of rows or columns that stay where they are.
pub fn unmoved(count: usize) -> Vec<usize> {
    (0..count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_channels_of_one_by_three() {
        // PyTorch lists channel 0 (a b c), then channel 1 (d e f); here channels alternate.
        let extent = Extent::new(2, 1, 3);
        assert_eq!(channel_major(extent), [0, 3, 1, 4, 2, 5]);
        let theirs = [10.0, 11.0, 12.0, 20.0, 21.0, 22.0];
        assert_eq!(batch_from_pytorch(extent, &theirs), [10.0, 20.0, 11.0, 21.0, 12.0, 22.0]);
    }

    #[test]
    fn from_pytorch_undoes_to_pytorch() {
        let kind = ParameterKind::Convolution { channels: 3, kernel: [2, 2] };
        let region = Region::matrix(1, 4, 13);
        let ours: Vec<f64> = (0..53).map(f64::from).collect();
        let (rows, columns) = (unmoved(4), column_places(kind, 13));
        let theirs = to_pytorch(region, &ours, &rows, &columns);
        assert_ne!(theirs, ours[1..]);
        let mut back = vec![0.0; 53];
        from_pytorch(region, &theirs, &rows, &columns, &mut back);
        assert_eq!(back[1..], ours[1..]);
    }
}
