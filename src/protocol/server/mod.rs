//! The server's side of a connection.
//!
//! [`Connection`] is driven as the [parent module](super) says, with one rule more: after each [`feed`](Connection::feed) the
//! owner takes the one event that may have come of it, acts on it, and feeds again. The answer to a method decides what the
//! frames behind it mean (after a channel error they are void), so the machine never runs ahead of its owner.
//!
//! The machine keeps the rules of the wire: handshake, frames, channels, content, closing, heartbeats. What a method *does*
//! is its owner's business.

mod channel;
mod connection;
mod fault;
mod handshake;
mod sasl;
#[cfg(test)]
mod tests;

pub use connection::Connection;
pub use fault::Fault;
#[cfg(feature = "broker")]
pub(crate) use fault::reply_text;
#[cfg(feature = "broker")]
pub(crate) use handshake::has_capability;
pub use sasl::{Credentials, Login};

use std::time::Duration;

use super::Content;
use crate::codec::{FieldTable, Method, ShortString};
use crate::error::Error;

/// What a server says of itself, and its limits.
#[derive(Clone, Debug)]
pub struct Config {
    /// Product, version, capabilities: what `connection.start` carries.
    pub server_properties: FieldTable,
    /// The SASL mechanisms offered, with spaces between.
    pub mechanisms: String,
    /// The highest number of channels, 0 for no limit.
    pub channel_max: u16,
    /// The largest frame with head and end, 0 for no limit.
    pub frame_max: u32,
    /// The heartbeat interval proposed, in seconds; 0 for none.
    pub heartbeat: u16,
    /// The largest body of a message.
    pub max_message_size: u64,
    /// How long a client may take from connecting to `connection.open`.
    pub handshake_timeout: Duration,
    /// How long a client may take to answer `connection.close`.
    pub close_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let capabilities: FieldTable = CAPABILITIES.iter().map(|name| (*name, true)).collect();
        Self {
            server_properties: FieldTable::from([
                ("product", "leveret".into()),
                ("version", env!("CARGO_PKG_VERSION").into()),
                ("platform", "Rust".into()),
                ("capabilities", crate::codec::FieldValue::Table(capabilities)),
            ]),
            mechanisms: "PLAIN AMQPLAIN".into(),
            channel_max: 2047,
            frame_max: 131_072,
            heartbeat: 60,
            max_message_size: 128 * 1024 * 1024,
            handshake_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(30),
        }
    }
}

const CAPABILITIES: [&str; 9] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

/// Something the client did, for the owner of the machine to act on.
#[derive(Clone, Debug)]
pub enum Event {
    /// The client logs in. To be answered with [`Connection::accept_login`] or [`Connection::refuse_login`].
    Authenticate(Login),
    /// The client wants a virtual host. To be answered with [`Connection::accept_open`] or [`Connection::close_connection`].
    Open {
        /// The virtual host.
        virtual_host: ShortString,
    },
    /// A channel was opened; the client has been told.
    ChannelOpened(u16),
    /// A method without content. On channel 0 only `connection.update-secret`.
    Method(u16, Method),
    /// A complete message.
    Publish(u16, Publish, Content),
    /// The client closes a channel. To be answered with [`Connection::accept_close`], after everything else that is still
    /// to be said on it.
    ChannelClose(u16),
    /// The machine itself closed a channel, for a violation that concerns only this channel.
    ChannelClosed(u16),
    /// The client closes the connection. To be answered with [`Connection::accept_close`] for channel 0.
    Close,
    /// The connection has ended, in some other way than by the owner or by [`Event::Close`].
    Closed(Error),
}

/// What `basic.publish` says beside the address, which is in the [`Content`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Publish {
    /// Return the message when no queue takes it.
    pub mandatory: bool,
    /// Return the message when no consumer takes it at once.
    pub immediate: bool,
}
