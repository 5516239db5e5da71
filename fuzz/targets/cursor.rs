//! The fuzzer's door to `tidings_fuzz::cursor`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidings_fuzz::cursor::check(data));
