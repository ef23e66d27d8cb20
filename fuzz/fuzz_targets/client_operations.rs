//! Fuzzes what a program asks for and a made-up server says; the assertions are in `leveret::protocol::fuzzing`.

#![no_main]

use std::time::Instant;

libfuzzer_sys::fuzz_target!(|data: &[u8]| leveret::protocol::fuzzing::client_operations(data, Instant::now()));
