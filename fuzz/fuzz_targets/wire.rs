//! The frame decoder.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(kronfleet_core::cluster::wire::decode(bytes)));
