//! AMQP 0-9-1 in pure Rust.

pub mod codec;
