//! Fuzzes `amqp://` URLs; the assertions are in `leveret::amqp::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leveret::amqp::fuzzing::url(data));
