//! The only room with sockets and the clock: dialling, streams, and the one task that drives a connection.
//!
//! A [`Stream`] is a TCP connection, a pipe in memory, or whatever else carries octets, with TLS around it or without. The driver
//! owns it, and knows a connection only as an `Endpoint`: something that takes octets and time under one short lock, and hands octets back.
//! A [`FrameStream`] is a connection without driver and machine, for those who test others frame by frame.

mod blocks;
#[cfg(feature = "client")]
mod dial;
mod driver;
mod frames;
mod stream;
#[cfg(feature = "tls-core")]
mod tls;

#[cfg(feature = "client")]
pub(crate) use dial::{connect, resolve};
pub(crate) use driver::{Endpoint, Next, Turn, drive};
pub use frames::FrameStream;
pub use stream::Stream;
#[cfg(feature = "tls-core")]
pub(crate) use tls::TlsReady;
#[cfg(feature = "tls-core")]
pub use tls::{TlsConfig, TlsVersion};

use std::time::Instant;

/// The time, by tokio's clock: real, or a test's own when the test has paused it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
