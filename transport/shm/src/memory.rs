//! Memory that several processes see: atomic words, and bytes lent under a contract.
//!
//! This file and `ring` are the only ones with unsafe code. Words are always atomic, so that whatever another
//! process does with them is a value, never a data race. Bytes are lent as plain slices; who may touch which is decided
//! by the protocol of `ring`, and every loan names its reason.

use memmap2::{Advice, MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// A piece of memory that stays mapped, readable and writable, as long as this value lives.
#[derive(Debug)]
pub(crate) struct Memory(MmapRaw);

impl Memory {
    /// The first `len` bytes of `file`, shared with everybody who maps it.
    ///
    /// # Errors
    /// If the file is shorter, or the system refuses.
    pub(crate) fn shared(file: &File, len: usize) -> io::Result<Self> {
        // Touching a page behind the end of a file kills the process, so the file must be that long.
        let found = file.metadata()?.len();
        if found < len as u64 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the segment has {found} bytes, {len} are needed"),
            ));
        }
        MmapOptions::new().len(len).map_raw(file).map(Self)
    }

    /// `len` bytes of nobody else's, all zero.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn private(len: usize) -> io::Result<Self> {
        Ok(Self(MmapOptions::new().len(len).map_anon()?.into()))
    }

    /// Has the system prepare these bytes for access, all at once and now: otherwise every page is a fault of its own, for a
    /// microsecond or two, when it is first used.
    pub(crate) fn prepare(&self, range: Range<usize>) {
        // Systems before Linux 5.14 cannot, and it changes nothing but the time.
        let _ = self.0.advise_range(Advice::PopulateWrite, range.start, range.len());
    }

    /// The 64-bit word at byte `at`.
    ///
    /// # Panics
    /// If it does not lie inside, or `at` is no multiple of 8.
    #[track_caller]
    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        let pointer = self.pointer(at..at + 8, 8);
        // SAFETY: `pointer` checked that 8 bytes lie inside the mapping, which lives as long as `self`, and that they
        // are aligned. Words and lent bytes never overlap: `Layout` keeps them apart, and only atomic accesses are
        // made to words, by this process and by others.
        unsafe { AtomicU64::from_ptr(pointer.cast()) }
    }

    /// The 32-bit word at byte `at`.
    ///
    /// # Panics
    /// If it does not lie inside, or `at` is no multiple of 4.
    #[track_caller]
    pub(crate) fn half(&self, at: usize) -> &AtomicU32 {
        let pointer = self.pointer(at..at + 4, 4);
        // SAFETY: as for `word`, with 4 bytes.
        unsafe { AtomicU32::from_ptr(pointer.cast()) }
    }

    /// Bytes to be read.
    ///
    /// # Safety
    /// While the slice lives, nobody writes to these bytes, in this process or in another that keeps the protocol, and
    /// none of them belong to a word.
    ///
    /// # Panics
    /// If they do not lie inside.
    #[track_caller]
    pub(crate) unsafe fn bytes(&self, range: Range<usize>) -> &[u8] {
        let len = range.len();
        let pointer = self.pointer(range, 1);
        // SAFETY: `pointer` checked that the range lies inside the mapping, which lives as long as `self`; the caller
        // vouches that nobody writes to it.
        unsafe { std::slice::from_raw_parts(pointer, len) }
    }

    /// Bytes to be written.
    ///
    /// # Safety
    /// While the slice lives, nobody else reads or writes these bytes, in this process or in another that keeps the
    /// protocol, and none of them belong to a word.
    ///
    /// # Panics
    /// If they do not lie inside.
    #[track_caller]
    #[expect(clippy::mut_from_ref, reason = "exclusive use is what the caller vouches for")]
    pub(crate) unsafe fn bytes_mut(&self, range: Range<usize>) -> &mut [u8] {
        let len = range.len();
        let pointer = self.pointer(range, 1);
        // SAFETY: `pointer` checked that the range lies inside the mapping, which is writable and lives as long as
        // `self`; the caller vouches for exclusive use.
        unsafe { std::slice::from_raw_parts_mut(pointer, len) }
    }

    /// Where the range begins, if it lies inside and is aligned; mappings begin at a page.
    #[track_caller]
    fn pointer(&self, range: Range<usize>, alignment: usize) -> *mut u8 {
        let len = self.0.len();
        assert!(range.start <= range.end && range.end <= len, "bytes {range:?} of a mapping of {len}");
        assert!(range.start.is_multiple_of(alignment), "byte {} is not aligned to {alignment}", range.start);
        // SAFETY: the start lies inside the mapping, or at its end for an empty range there.
        unsafe { self.0.as_mut_ptr().add(range.start) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_too_short_are_not_mapped() {
        let path = std::env::temp_dir().join(format!("kronfleet-short-{}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).expect("a temporary folder");
        std::fs::remove_file(&path).expect("just made");
        file.set_len(4095).expect("room for a page");
        let error = Memory::shared(&file, 4096).expect_err("one byte is missing");
        assert_eq!(error.to_string(), "the segment has 4095 bytes, 4096 are needed");
    }

    #[test]
    #[should_panic(expected = "bytes 8..16 of a mapping of 12")]
    fn words_outside_are_refused() {
        Memory::private(12).expect("a page").word(8);
    }

    #[test]
    #[should_panic(expected = "byte 4 is not aligned to 8")]
    fn words_across_are_refused() {
        Memory::private(16).expect("a page").word(4);
    }
}
