//! The fuzzer's door to `tidings_fuzz::batch`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidings_fuzz::batch::check(data));
