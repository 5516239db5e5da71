//! The fuzzer's door to `tidings_fuzz::notification`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidings_fuzz::notification::check(data));
