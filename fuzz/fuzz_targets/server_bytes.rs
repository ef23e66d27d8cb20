//! Fuzzes octets from a client to the server; the assertions are in `leveret::protocol::fuzzing`.

#![no_main]

use std::time::Instant;

libfuzzer_sys::fuzz_target!(|data: &[u8]| leveret::protocol::fuzzing::server_bytes(data, Instant::now()));
