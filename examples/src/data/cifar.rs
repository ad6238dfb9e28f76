//! The binary version of CIFAR-10: records of one label and 32 × 32 pixels in three colour planes.
//!
//! ```text
//! 0       1            1025           2049          3073
//! | label | red, rows… | green, rows… | blue, rows… | next record
//! ```
//!
//! Source: A. Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009.

use crate::data::error::{Fault, FormatError};

/// Height and width of an image.
pub const SIDE: usize = 32;
/// Red, green, blue.
pub const CHANNELS: usize = 3;
/// Labels are below this.
pub const CLASSES: usize = 10;

const PLANE: usize = SIDE * SIDE;
/// Bytes of a record: its label and its image.
pub const RECORD: usize = 1 + CHANNELS * PLANE;

const REMEDY: &str = "give the binary version of CIFAR-10 (cifar-10-binary.tar.gz, not the Python one), fetched whole";

/// The records of one file, borrowed from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Records<'a>(&'a [[u8; RECORD]]);

impl<'a> Records<'a> {
    /// How many there are; at least one.
    #[expect(clippy::len_without_is_empty, reason = "a file without records is an error")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The label of each record, all below [`CLASSES`].
    pub fn labels(&self) -> impl ExactSizeIterator<Item = u8> + 'a {
        self.0.iter().map(|record| record[0])
    }

    /// Appends all images to `target`, channels fastest, then columns, rows, records.
    pub fn append_pixels(&self, target: &mut Vec<u8>) {
        target.reserve(self.len() * CHANNELS * PLANE);
        for record in self.0 {
            let (red, rest) = record[1..].split_at(PLANE);
            let (green, blue) = rest.split_at(PLANE);
            for ((&red, &green), &blue) in red.iter().zip(green).zip(blue) {
                target.extend([red, green, blue]);
            }
        }
    }
}

/// Reads the records of one file.
///
/// It copies nothing.
///
/// # Errors
/// If `bytes` is empty, ends within a record, or a label is not below [`CLASSES`].
///
/// ```
/// use kronfleet_examples::data::cifar;
/// let mut record = [0; cifar::RECORD];
/// record[0] = 7;
/// assert!(cifar::parse(&record).unwrap().labels().eq([7]));
/// assert!(cifar::parse(&record[..100]).unwrap_err().to_string().contains("truncated at byte 100"));
/// ```
pub fn parse(bytes: &[u8]) -> Result<Records<'_>, FormatError> {
    let (records, rest) = bytes.as_chunks::<RECORD>();
    // A damaged beginning is worth more to the reader than a missing end.
    if let Some(record) = records.iter().position(|record| usize::from(record[0]) >= CLASSES) {
        return Err(FormatError::new(
            Fault::WrongValue,
            (record * RECORD) as u64,
            format!("a label below {CLASSES} at the start of record {record}"),
            records[record][0].to_string(),
            REMEDY,
        ));
    }
    if records.is_empty() || !rest.is_empty() {
        return Err(FormatError::new(
            Fault::Truncated,
            bytes.len() as u64,
            format!("whole records of {RECORD} bytes, one at least"),
            format!("{} whole records and {} more bytes", records.len(), rest.len()),
            REMEDY,
        ));
    }
    Ok(Records(records))
}
