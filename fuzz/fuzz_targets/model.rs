//! Networks from TOML: parsing and fitting the layers together.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(kronfleet_examples::model::description::check(bytes)));
