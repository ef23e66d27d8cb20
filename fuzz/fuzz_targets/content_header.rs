//! Fuzzes the payload of a header frame; the assertions are in `leveret::codec::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leveret::codec::fuzzing::content_header(data));
