//! The files of a checkpoint: manifest, tensors of a layer, state of a fleet.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kronfleet_examples::run::exercise_checkpoint(bytes));
