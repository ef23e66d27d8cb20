//! Fuzzes the broker with several clients; the assertions are in `leveret::broker::fuzzing`.

#![no_main]

use std::time::Instant;

libfuzzer_sys::fuzz_target!(|data: &[u8]| leveret::broker::fuzzing::broker(data, Instant::now()));
