//! Fuzzes what a made-up client says and a server's owner does; the assertions are in `leveret::protocol::fuzzing`.

#![no_main]

use std::time::Instant;

libfuzzer_sys::fuzz_target!(|data: &[u8]| leveret::protocol::fuzzing::server_operations(data, Instant::now()));
