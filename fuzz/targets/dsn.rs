//! The fuzzer's door to `tidings_fuzz::dsn`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidings_fuzz::dsn::check(data));
