//! IDX, the format of the MNIST family: a header, then unsigned bytes in row-major order.
//!
//! ```text
//! 0      2     3     4                    4 + 4·rank
//! | 0 0 | type | rank | size₀ … (u32, BE) | bytes …
//! ```
//!
//! Files may be compressed by gzip. No claim of a header is believed: memory grows with the bytes that are
//! really there, and a compressed file may unpack to [`LARGEST_UNPACKED`] bytes at most.
//!
//! Source: Y. LeCun, C. Cortes, C. Burges, *The MNIST database of handwritten digits*.

use crate::data::error::{Fault, FormatError};
use flate2::bufread::MultiGzDecoder;
use std::borrow::Cow;
use std::io::{ErrorKind, Read};

/// A compressed file that says it is larger than so many bytes is not unpacked; the images of the full
/// Fashion-MNIST have 47 million.
pub const LARGEST_UNPACKED: u64 = 1 << 30;

/// The most dimensions an array may have here.
pub const MAX_RANK: usize = 4;

const UNSIGNED_BYTES: u8 = 0x08;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Deflate spends at least two bits, a length and a distance, on 258 bytes: it never does better than this.
const DEFLATE_LARGEST_RATIO: u128 = 1032;
const LONGEST_HEADER: u64 = 4 + 4 * MAX_RANK as u64;
const AGAIN: &str = "the file is damaged or incomplete: fetch it again";
const NOT_IDX: &str =
    "give an IDX file of unsigned bytes, such as train-images-idx3-ubyte, plain or compressed by gzip";

/// An array of unsigned bytes, borrowed from the file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array<'a> {
    rank: usize,
    sizes: [usize; MAX_RANK],
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The size of each dimension, outermost first.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes[..self.rank]
    }

    /// The elements, in row-major order; as many as the product of [`sizes`](Self::sizes).
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// Reads a plain (not compressed) IDX array.
///
/// It copies nothing, whatever the header says.
///
/// # Errors
/// If `bytes` is not exactly one array of unsigned bytes of 1 to [`MAX_RANK`] dimensions.
///
/// ```
/// use kronfleet_examples::data::idx;
/// let array = idx::parse(&[0, 0, 8, 1, 0, 0, 0, 2, 7, 9]).unwrap();
/// assert_eq!((array.sizes(), array.bytes()), (&[2][..], &[7, 9][..]));
/// assert!(idx::parse(b"<html>not found</html>").unwrap_err().to_string().contains("wrong magic"));
/// ```
pub fn parse(bytes: &[u8]) -> Result<Array<'_>, FormatError> {
    let header = Header::parse(bytes)?;
    let end = header.len as u128 + header.elements();
    let found = bytes.len() as u128;
    if found < end {
        return Err(FormatError::new(
            Fault::Truncated,
            bytes.len() as u64,
            format!("{end} bytes for sizes {}", header.describe_sizes()),
            format!("{found} bytes"),
            AGAIN,
        ));
    }
    if found > end {
        return Err(FormatError::new(
            Fault::TrailingBytes,
            end as u64,
            format!("the end after {end} bytes, for sizes {}", header.describe_sizes()),
            format!("{} more bytes", found - end),
            AGAIN,
        ));
    }
    // The standard library knows no machine whose `usize` is shorter than 32 bits.
    let sizes = header.sizes.map(|size| size as usize);
    Ok(Array { rank: header.rank, sizes, bytes: &bytes[header.len..] })
}

/// Reads an IDX array of `rank` dimensions: 3 for images, 1 for labels.
///
/// # Errors
/// As [`parse`], and if it has another number of dimensions.
pub fn parse_rank(bytes: &[u8], rank: usize) -> Result<Array<'_>, FormatError> {
    let header = Header::parse(bytes)?;
    if header.rank != rank {
        return Err(FormatError::new(
            Fault::WrongMagic,
            0,
            format!("{} ({})", magic(rank), contents(rank)),
            format!("{} ({})", magic(header.rank), contents(header.rank)),
            "the files of images and labels may have been swapped or misnamed: check their names",
        ));
    }
    parse(bytes)
}

/// Reads an IDX array of `rank` dimensions, plain or compressed by gzip: its sizes and its elements.
///
/// Decompression stops one byte after the array its header promises, so a file that unpacks to more than it
/// says costs no more than one that tells the truth.
///
/// # Errors
/// As [`parse_rank`]; and if a compressed stream is damaged, or promises more bytes than
/// [`LARGEST_UNPACKED`] or than deflate could possibly have packed into it.
pub fn read(file: Cow<'_, [u8]>, rank: usize) -> Result<(Vec<usize>, Vec<u8>), FormatError> {
    let unpacked = unpack(&file)?;
    let decompressed = unpacked.is_some();
    let mut bytes = unpacked.unwrap_or_else(|| file.into_owned());
    let array = parse_rank(&bytes, rank).map_err(|fault| FormatError { decompressed, ..fault })?;
    let sizes = array.sizes().to_vec();
    bytes.drain(..bytes.len() - array.bytes().len());
    Ok((sizes, bytes))
}

/// Puts arbitrary bytes through everything [`read`] does, whatever the number of dimensions: a fuzz target.
///
/// # Errors
/// As [`read`].
pub fn check(file: &[u8]) -> Result<(), FormatError> {
    match unpack(file)? {
        Some(bytes) => parse(&bytes).map(drop).map_err(FormatError::after_decompression),
        None => parse(file).map(drop),
    }
}

/// The bytes of a plain IDX file that [`parse`] reads back.
///
/// # Panics
/// If `bytes` has another length than the product of `sizes`, or `sizes` has not 1 to [`MAX_RANK`] entries, each a `u32`.
#[track_caller]
pub fn write(sizes: &[usize], bytes: &[u8]) -> Vec<u8> {
    let elements: usize = sizes.iter().product();
    assert!((1..=MAX_RANK).contains(&sizes.len()), "an IDX array of sizes {sizes:?} has no representation here");
    assert_eq!(elements, bytes.len(), "sizes {sizes:?} do not describe {} bytes", bytes.len());
    let mut file = vec![0, 0, UNSIGNED_BYTES, sizes.len() as u8];
    for &size in sizes {
        let size = u32::try_from(size).unwrap_or_else(|_| panic!("size {size} does not fit into 32 bits"));
        file.extend(size.to_be_bytes());
    }
    file.extend(bytes);
    file
}

struct Header {
    rank: usize,
    sizes: [u32; MAX_RANK],
    /// Length of the header itself, in bytes.
    len: usize,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let Some(&[zero, null, kind, rank]) = bytes.first_chunk::<4>() else {
            return Err(FormatError::new(
                Fault::Truncated,
                bytes.len() as u64,
                "4 bytes of magic number",
                format!("{} bytes", bytes.len()),
                AGAIN,
            ));
        };
        let rank = usize::from(rank);
        if [zero, null, kind] != [0, 0, UNSIGNED_BYTES] || !(1..=MAX_RANK).contains(&rank) {
            return Err(FormatError::new(
                Fault::WrongMagic,
                0,
                format!("{} to {} (unsigned bytes, 1 to {MAX_RANK} dimensions)", magic(1), magic(MAX_RANK),),
                format!("0x{zero:02x}{null:02x}{kind:02x}{rank:02x}"),
                NOT_IDX,
            ));
        }
        let len = 4 + 4 * rank;
        if bytes.len() < len {
            return Err(FormatError::new(
                Fault::Truncated,
                bytes.len() as u64,
                format!("{len} bytes of header for {rank} dimensions"),
                format!("{} bytes", bytes.len()),
                AGAIN,
            ));
        }
        let mut sizes = [1; MAX_RANK];
        let (words, _) = bytes[4..len].as_chunks::<4>();
        for (size, &word) in sizes.iter_mut().zip(words) {
            *size = u32::from_be_bytes(word);
        }
        Ok(Self { rank, sizes, len })
    }

    fn sizes(&self) -> &[u32] {
        &self.sizes[..self.rank]
    }

    /// The product of the sizes: four factors below 2³² stay below 2¹²⁸.
    fn elements(&self) -> u128 {
        self.sizes.iter().map(|&size| u128::from(size)).product()
    }

    fn describe_sizes(&self) -> String {
        let sizes: Vec<_> = self.sizes().iter().map(u32::to_string).collect();
        sizes.join(" × ")
    }
}

/// Unpacks what gzip compressed; `None` for other bytes.
fn unpack(file: &[u8]) -> Result<Option<Vec<u8>>, FormatError> {
    if !file.starts_with(&GZIP_MAGIC) {
        return Ok(None);
    }
    let mut decoder = MultiGzDecoder::new(file);
    let mut bytes = Vec::new();
    inflate(&mut decoder, file.len(), LONGEST_HEADER, &mut bytes)?;
    let header = Header::parse(&bytes).map_err(FormatError::after_decompression)?;
    let promised = header.len as u128 + header.elements();
    let possible = DEFLATE_LARGEST_RATIO * file.len() as u128;
    let largest = u128::from(LARGEST_UNPACKED);
    if promised > possible.min(largest) {
        let (expected, remedy) = if possible < largest {
            let expected = format!("at most {possible} bytes, all that {} compressed bytes can hold", file.len());
            (expected, AGAIN)
        } else {
            let expected = format!("at most {largest} bytes");
            (expected, "decompress the file with gunzip and give the plain one")
        };
        return Err(FormatError::new(
            Fault::SizeMismatch,
            4,
            expected,
            format!("sizes {}, together {promised} bytes", header.describe_sizes()),
            remedy,
        )
        .after_decompression());
    }
    // One byte more than promised shows whether the stream ends there, and makes gzip compare its check sum.
    let missing = (promised as u64 + 1).saturating_sub(bytes.len() as u64);
    inflate(&mut decoder, file.len(), missing, &mut bytes)?;
    Ok(Some(bytes))
}

/// Appends at most `limit` decompressed bytes to `target`.
fn inflate(
    decoder: &mut MultiGzDecoder<&[u8]>,
    compressed: usize,
    limit: u64,
    target: &mut Vec<u8>,
) -> Result<(), FormatError> {
    let Err(error) = decoder.by_ref().take(limit).read_to_end(target) else {
        return Ok(());
    };
    let offset = (compressed - decoder.get_ref().len()) as u64;
    let fault = if error.kind() == ErrorKind::UnexpectedEof { Fault::Truncated } else { Fault::Corrupt };
    Err(FormatError::new(
        fault,
        offset,
        "a whole gzip stream",
        format!("{error} after {} decompressed bytes", target.len()),
        AGAIN,
    ))
}

fn magic(rank: usize) -> String {
    format!("0x0000{UNSIGNED_BYTES:02x}{rank:02x}")
}

fn contents(rank: usize) -> &'static str {
    match rank {
        1 => "labels: unsigned bytes, 1 dimension",
        3 => "images: unsigned bytes, 3 dimensions",
        _ => "unsigned bytes, another number of dimensions",
    }
}
