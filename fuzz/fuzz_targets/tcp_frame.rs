//! The frames of TCP connections.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kronfleet_tcp::exercise_frame(bytes));
