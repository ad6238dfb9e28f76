//! The IDX reader, plain and compressed.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(kronfleet_examples::data::idx::check(bytes)));
