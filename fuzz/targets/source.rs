//! The fuzzer's door to `tidings_fuzz::source`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidings_fuzz::source::check(data));
