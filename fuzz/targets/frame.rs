//! The fuzzer's door to `tidings_fuzz::frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidings_fuzz::frame::check(data));
