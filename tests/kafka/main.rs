//! Kafka behind the facade, on librdkafka's mock cluster: the real protocol over loopback, and brokers that fail on command.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails loudly")]

mod clients;
mod hosts;
mod real;
mod receiving;
mod sending;
mod support;
mod trouble;
