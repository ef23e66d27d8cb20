//! AMQP 0-9-1 in pure Rust.

#[cfg(feature = "client")]
pub mod amqp;
#[cfg(feature = "broker")]
pub mod broker;
pub mod codec;
pub mod error;
pub mod protocol;
#[cfg(feature = "transport")]
pub mod transport;
