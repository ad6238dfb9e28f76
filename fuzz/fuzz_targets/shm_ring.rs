//! A ring in shared memory, as whoever shares it may have left it.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    kronfleet_shm::exercise_ring(bytes);
});
