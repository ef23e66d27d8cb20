//! Fuzzes frames that are made of what the fuzzer says; the assertions are in `leveret::codec::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leveret::codec::fuzzing::values(data));
