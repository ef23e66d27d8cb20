//! Fuzzes a stream of frames; the assertions are in `leveret::codec::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leveret::codec::fuzzing::frame(data));
