//! The frame decoder.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = kronfleet_core::cluster::wire::decode(bytes);
});
