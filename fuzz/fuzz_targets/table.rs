//! Fuzzes the entries of a field table; the assertions are in `leveret::codec::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leveret::codec::fuzzing::table(data));
