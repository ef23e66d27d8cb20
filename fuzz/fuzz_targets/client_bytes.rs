//! Fuzzes octets from a server to the client; the assertions are in `leveret::protocol::fuzzing`.

#![no_main]

use std::time::Instant;

libfuzzer_sys::fuzz_target!(|data: &[u8]| leveret::protocol::fuzzing::client_bytes(data, Instant::now()));
