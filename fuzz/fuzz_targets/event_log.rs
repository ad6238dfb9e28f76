//! The event log of a node: reader and checker of invariants.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kronfleet_examples::run::events::exercise_event_log(bytes));
