//! The round protocol, as one node sees it.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kronfleet_core::cluster::exercise(bytes));
