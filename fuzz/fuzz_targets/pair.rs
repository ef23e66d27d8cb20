//! Fuzzes client and server, connected; the assertions are in `leveret::protocol::fuzzing`.

#![no_main]

use std::time::Instant;

libfuzzer_sys::fuzz_target!(|data: &[u8]| leveret::protocol::fuzzing::pair(data, Instant::now()));
