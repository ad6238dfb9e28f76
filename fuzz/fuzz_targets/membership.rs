//! Comings and goings, as one node sees them.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kronfleet_core::cluster::exercise_membership(bytes));
