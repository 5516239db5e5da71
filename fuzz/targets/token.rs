//! The fuzzer's door to `tidings_fuzz::token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidings_fuzz::token::check(data));
