//! The CIFAR-10 reader.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(kronfleet_examples::data::cifar::parse(bytes)));
