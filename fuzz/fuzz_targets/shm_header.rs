//! The header of a shared-memory segment.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = kronfleet_shm::header::Header::parse(bytes);
});
