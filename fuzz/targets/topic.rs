//! The fuzzer's door to `tidings_fuzz::topic`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidings_fuzz::topic::check(data));
