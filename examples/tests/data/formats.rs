//! Files that follow their format are read back; all others are errors that say what is wrong, never panics,
//! and never cost more memory than the file justifies.

use crate::{cifar_file, gzip};
use kronfleet_examples::data::error::{Fault, FormatError};
use kronfleet_examples::data::{cifar, idx};
use proptest::collection::vec;
use proptest::prelude::*;
use std::borrow::Cow;

fn read(file: &[u8], rank: usize) -> Result<(Vec<usize>, Vec<u8>), FormatError> {
    idx::read(Cow::Borrowed(file), rank)
}

/// The fault and the message of a file that is not one.
fn refusal(file: &[u8], rank: usize) -> (Fault, String) {
    let error = read(file, rank).expect_err("the file is wrong");
    (error.fault, error.to_string())
}

#[track_caller]
fn assert_says(message: &str, facts: &[&str]) {
    for fact in facts {
        assert!(message.contains(fact), "{fact:?} is missing in {message:?}");
    }
}

/// The most bytes that `action` held at once.
fn peak(action: impl FnOnce()) -> u64 {
    allocation_counter::measure(action).bytes_max
}

#[test]
fn plain_and_compressed_files_hold_the_same() {
    let file = idx::write(&[2, 2, 3], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    let expected = (vec![2, 2, 3], (1..=12).collect::<Vec<u8>>());
    assert_eq!(file[..16], [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3]);
    assert_eq!(read(&file, 3).unwrap(), expected);
    assert_eq!(read(&gzip(&file), 3).unwrap(), expected);
    // gzip files may be concatenated; some compressors write them so.
    let (head, tail) = file.split_at(13);
    assert_eq!(read(&[gzip(head), gzip(tail)].concat(), 3).unwrap(), expected);
}

#[test]
fn a_wrong_magic_number_is_named() {
    let (fault, message) = refusal(b"<!DOCTYPE html>", 3);
    assert_eq!(fault, Fault::WrongMagic);
    assert_says(&message, &["wrong magic number at byte 0", "0x00000801", "found 0x3c21444f", "IDX file"]);
    // Floats, which IDX may hold but these readers do not.
    assert_says(&refusal(&[0, 0, 0x0d, 1, 0, 0, 0, 0], 1).1, &["found 0x00000d01", "unsigned bytes"]);
    assert_eq!(refusal(&[0, 0, 8, 0], 1).0, Fault::WrongMagic);
    assert_eq!(refusal(&[0, 0, 8, 5], 1).0, Fault::WrongMagic);
}

#[test]
fn swapped_images_and_labels_are_named() {
    let (fault, message) = refusal(&idx::write(&[2], &[3, 4]), 3);
    assert_eq!(fault, Fault::WrongMagic);
    assert_says(&message, &["expected 0x00000803 (images", "found 0x00000801 (labels", "swapped"]);
    let (_, message) = refusal(&gzip(&idx::write(&[1, 1, 1], &[0])), 1);
    assert_says(&message, &["byte 0 of the decompressed data", "expected 0x00000801 (labels", "found 0x00000803"]);
}

#[test]
fn a_truncated_file_is_named() {
    assert_says(&refusal(&[0, 0], 1).1, &["truncated at byte 2", "expected 4 bytes of magic", "found 2 bytes"]);
    assert_says(&refusal(&[], 1).1, &["truncated at byte 0", "found 0 bytes", "fetch it again"]);
    assert_says(&refusal(&[0, 0, 8, 3, 0, 0], 3).1, &["truncated at byte 6", "expected 16 bytes", "found 6 bytes"]);
    let file = idx::write(&[2, 1, 2], &[1, 2, 3, 4]);
    let (fault, message) = refusal(&file[..19], 3);
    assert_eq!(fault, Fault::Truncated);
    assert_says(&message, &["truncated at byte 19", "expected 20 bytes", "2 × 1 × 2", "found 19 bytes"]);
    let (fault, message) = refusal(&gzip(&file[..19]), 3);
    assert_eq!(fault, Fault::Truncated);
    assert_says(&message, &["truncated at byte 19 of the decompressed data"]);
}

#[test]
fn trailing_bytes_are_named() {
    let file = [idx::write(&[2], &[3, 4]), vec![0; 3]].concat();
    let (fault, message) = refusal(&file, 1);
    assert_eq!(fault, Fault::TrailingBytes);
    assert_says(&message, &["trailing bytes at byte 10", "the end after 10 bytes", "found 3 more bytes"]);
    assert_eq!(refusal(&gzip(&file), 1).0, Fault::TrailingBytes);
    // After the end of the compressed stream.
    let (fault, message) = refusal(&[gzip(&idx::write(&[2], &[3, 4])), vec![7; 20]].concat(), 1);
    assert_eq!(fault, Fault::Corrupt);
    assert_says(&message, &["gzip", "fetch it again"]);
}

#[test]
fn damaged_compression_is_named() {
    let file = gzip(&idx::write(&[300], &[5; 300]));
    let (fault, message) = refusal(&file[..file.len() - 3], 1);
    assert_eq!(fault, Fault::Truncated);
    assert_says(&message, &["a whole gzip stream", "fetch it again"]);
    let mut wrong_sum = file.clone();
    let sum = file.len() - 8;
    wrong_sum[sum] ^= 1;
    assert_eq!(refusal(&wrong_sum, 1).0, Fault::Corrupt);
}

#[test]
fn a_header_that_claims_too_much_costs_nothing() {
    // Four billion images of four billion rows and columns.
    let header = [&[0, 0, 8, 3][..], &[0xff; 12]].concat();
    let claims = 79_228_162_458_924_105_385_300_197_391_u128;
    assert_eq!(claims, 16 + u128::from(u32::MAX).pow(3));
    let used = peak(|| {
        let (fault, message) = refusal(&header, 3);
        assert_eq!(fault, Fault::Truncated);
        assert_says(&message, &[&format!("expected {claims} bytes"), "found 16 bytes"]);
    });
    assert!(used < 10_000, "{used} bytes for a file of 16");
    let file = gzip(&header);
    let used = peak(|| {
        let (fault, message) = refusal(&file, 3);
        assert_eq!(fault, Fault::SizeMismatch);
        assert_says(&message, &["size mismatch at byte 4", "compressed bytes can hold", &claims.to_string()]);
    });
    // The decompressor's window and tables, not what the header claims.
    assert!(used < 200_000, "{used} bytes for a file of {}", file.len());
}

#[test]
fn a_compressed_file_that_unpacks_to_more_than_it_says_is_not_unpacked() {
    let mut file = idx::write(&[3], &[0; 3]);
    file.resize(64 << 20, 0);
    let bomb = gzip(&file);
    drop(file);
    let used = peak(|| assert_eq!(refusal(&bomb, 1).0, Fault::TrailingBytes));
    assert!(used < 200_000, "{used} bytes for 3 elements");
}

#[test]
fn a_compressed_file_that_says_it_is_larger_than_the_limit_is_not_unpacked() {
    let mut noise = kronfleet_core::seed::Seed(1).random();
    let mut file = [&[0, 0, 8, 1][..], &[0x7f, 0xff, 0xff, 0xff]].concat();
    file.extend((0..1_200_000 / 8).flat_map(|_| noise.bits().to_le_bytes()));
    let file = gzip(&file);
    let used = peak(|| {
        let (fault, message) = refusal(&file, 1);
        assert_eq!(fault, Fault::SizeMismatch);
        assert_says(&message, &["at most 1073741824 bytes", "together 2147483655 bytes", "gunzip"]);
    });
    assert!(used < 200_000, "{used} bytes for a refusal");
}

#[test]
fn cifar_pixels_are_put_channels_fastest() {
    let file = cifar_file(&[3, 9]);
    let records = cifar::parse(&file).unwrap();
    assert!(records.labels().eq([3, 9]));
    let mut pixels = Vec::new();
    records.append_pixels(&mut pixels);
    assert_eq!(pixels.len(), 2 * 3072);
    for (n, h, w, c) in [(0, 0, 0, 0), (0, 0, 0, 2), (0, 31, 31, 1), (1, 5, 17, 2), (1, 31, 0, 0)] {
        let planar = file[n * 3073 + 1 + (c * 32 + h) * 32 + w];
        assert_eq!(pixels[((n * 32 + h) * 32 + w) * 3 + c], planar, "sample {n}, row {h}, column {w}, channel {c}");
    }
}

#[test]
fn wrong_cifar_files_are_named() {
    let refusal = |file: &[u8]| cifar::parse(file).expect_err("the file is wrong");
    let error = refusal(&[]);
    assert_eq!((error.fault, error.offset), (Fault::Truncated, 0));
    let file = cifar_file(&[1, 2]);
    let error = refusal(&file[..5000]);
    assert_eq!((error.fault, error.offset), (Fault::Truncated, 5000));
    assert_says(
        &error.to_string(),
        &["records of 3073 bytes", "1 whole records and 1927 more bytes", "cifar-10-binary"],
    );
    let error = refusal(&[&file[..], &[0]].concat());
    assert_says(&error.to_string(), &["byte 6147", "2 whole records and 1 more bytes"]);
    let error = refusal(&cifar_file(&[1, 10]));
    assert_eq!((error.fault, error.offset), (Fault::WrongValue, 3073));
    assert_says(&error.to_string(), &["a label below 10 at the start of record 1", "found 10"]);
}

/// Arrays that fill a file, with their sizes.
fn array() -> impl Strategy<Value = (Vec<usize>, Vec<u8>)> {
    vec(0..6_usize, 1..=idx::MAX_RANK).prop_flat_map(|sizes| {
        let elements = sizes.iter().product::<usize>();
        (Just(sizes), vec(any::<u8>(), elements))
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read((sizes, bytes) in array()) {
        let file = idx::write(&sizes, &bytes);
        prop_assert_eq!(read(&file, sizes.len()).unwrap(), (sizes.clone(), bytes.clone()));
        prop_assert_eq!(read(&gzip(&file), sizes.len()).unwrap(), (sizes, bytes));
    }

    #[test]
    fn every_shorter_or_longer_file_is_refused((sizes, bytes) in array(), cut in any::<prop::sample::Index>(), more in 1..9_usize) {
        let file = idx::write(&sizes, &bytes);
        let shorter = &file[..cut.index(file.len())];
        let longer = [&file[..], &vec![0; more]].concat();
        for wrong in [shorter, &longer] {
            prop_assert!(idx::check(wrong).is_err());
            prop_assert!(idx::check(&gzip(wrong)).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400), rank in 0..6_usize) {
        let _ = idx::check(&bytes);
        let _ = read(&bytes, rank);
        prop_assert!(cifar::parse(&bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_after_a_true_beginning_never_panic(
        kind in 0..4_usize,
        bytes in vec(prop_oneof![Just(0), Just(255), any::<u8>()], 0..64),
    ) {
        let beginning: &[u8] = [&[0, 0, 8, 1][..], &[0, 0, 8, 3], &[0x1f, 0x8b], &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]][kind];
        let file = [beginning, &bytes].concat();
        let _ = idx::check(&file);
        let _ = idx::check(&gzip(&file));
    }

    #[test]
    fn one_changed_byte_of_a_compressed_file_is_refused_or_harmless(
        (sizes, bytes) in array(),
        place in any::<prop::sample::Index>(),
        change in 1..=255_u8,
    ) {
        let mut file = gzip(&idx::write(&sizes, &bytes));
        let place = place.index(file.len());
        file[place] ^= change;
        // Parts of gzip's header say nothing about the contents; all else is covered by its check sum.
        if let Ok(found) = read(&file, sizes.len()) {
            prop_assert_eq!(found, (sizes, bytes));
        }
    }

    #[test]
    fn cifar_refuses_all_but_whole_records(len in 0..7000_usize, label in 0..20_u8) {
        let file = vec![label; len];
        prop_assert_eq!(cifar::parse(&file).is_ok(), len > 0 && len % cifar::RECORD == 0 && label < 10);
    }
}

#[test]
fn cifar_takes_whole_records() {
    for count in 1..4 {
        assert_eq!(cifar::parse(&vec![9; count * cifar::RECORD]).unwrap().len(), count);
    }
}
