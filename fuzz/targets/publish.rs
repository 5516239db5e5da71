//! The fuzzer's door to `tidings_fuzz::publish`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidings_fuzz::publish::check(data));
