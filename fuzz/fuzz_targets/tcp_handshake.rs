//! All that arrives on a TCP connection, from the first byte.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kronfleet_tcp::exercise_handshake(bytes));
