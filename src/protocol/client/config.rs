//! What a client says of itself and asks for, before it knows what the server grants.

use std::sync::Arc;

use super::sasl::{Credentials, Sasl, SaslMechanism};
use crate::codec::{FieldTable, FieldValue, ShortString};

/// What goes into the handshake, and the limits a client sets itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who logs in.
    pub credentials: Credentials,
    /// How, in the order of preference; the first that the server offers is taken.
    pub mechanisms: Vec<Arc<dyn SaslMechanism>>,
    /// The virtual host, `/` unless said otherwise.
    pub virtual_host: ShortString,
    /// Heartbeat interval in seconds, 0 for none at all.
    ///
    /// If the server proposes none, this one holds; otherwise the lower of the two. Under 5 s a busy machine
    /// looks like a dead one.
    pub heartbeat: u16,
    /// Largest frame in octets, 0 for as large as the server allows. Less than [`FRAME_MIN`] counts as that.
    pub frame_max: u32,
    /// Highest channel number, 0 for as many as the server allows.
    pub channel_max: u16,
    /// What the client tells of itself; product, version, platform and capabilities are added where they are missing.
    pub client_properties: FieldTable,
    /// The locale for reply texts.
    pub locale: ShortString,
    /// The largest message that is accepted from the server, in octets.
    pub max_message_size: u64,
    /// Deliveries that wait for their consumers may hold this many octets; beyond it the socket is not read.
    pub max_buffered: usize,
    /// Publishing waits while this many octets are waiting to be written.
    pub max_unwritten: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            credentials: Credentials::default(),
            mechanisms: vec![Arc::new(Sasl::Plain), Arc::new(Sasl::AmqPlain)],
            virtual_host: ShortString::from_static("/"),
            heartbeat: 60,
            frame_max: 131_072,
            channel_max: 2047,
            client_properties: FieldTable::new(),
            locale: ShortString::from_static("en_US"),
            max_message_size: 128 * 1024 * 1024,
            max_buffered: 16 * 1024 * 1024,
            // Written at once, which costs the kernel less than in several goes: with writes of 256 KiB it spends up to a third more on
            // each octet. A little less than a power of two, since the buffer grows to one and holds a message more.
            max_unwritten: 1_000_000,
        }
    }
}

impl Config {
    /// The table for `connection.start-ok`: what the program said, and what every server should know.
    pub(crate) fn announced_properties(&self) -> FieldTable {
        let capabilities: FieldTable = CAPABILITIES.iter().map(|name| (*name, true)).collect();
        let defaults: [(&str, FieldValue); 4] = [
            ("product", "leveret".into()),
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("platform", "Rust".into()),
            ("capabilities", capabilities.into()),
        ];
        let mut properties = self.client_properties.clone();
        for (name, value) in defaults {
            if properties.get(name).is_none() {
                properties.insert(name, value);
            }
        }
        properties
    }
}

/// c10: RabbitMQ sends `basic.cancel`, `connection.blocked` and the reason of a refused login only to those who say that they
/// understand.
const CAPABILITIES: [&str; 7] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "authentication_failure_close",
    "per_consumer_qos",
];

/// The limits that both sides have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Highest channel number.
    pub channel_max: u16,
    /// Largest frame in octets, with head and end.
    pub frame_max: u32,
    /// Heartbeat interval in seconds, 0 for none.
    pub heartbeat: u16,
}

/// The smallest frame-max of the specification: no peer may ask for less.
pub const FRAME_MIN: u32 = 4096;

/// Before tune-ok no frame may be larger than this (c16): RabbitMQ's own limit since 4.0. The specification has
/// [`FRAME_MIN`], and so have older servers.
pub const INITIAL_FRAME_MAX: u32 = 8192;

/// What is used where neither side sets a limit to frames, so that there is one.
const FRAME_MAX_UNLIMITED: u32 = 16 * 1024 * 1024;

impl Tuning {
    /// What the client answers to the server's proposal, and what both then hold to (c13, c14, c17, c28).
    pub fn negotiate(config: &Config, channel_max: u16, frame_max: u32, heartbeat: u16) -> Self {
        let lower = |ours: u32, theirs: u32| match (ours, theirs) {
            (0, limit) | (limit, 0) => limit,
            (ours, theirs) => ours.min(theirs),
        };
        let channel_max = u16::try_from(lower(config.channel_max.into(), channel_max.into())).unwrap_or(u16::MAX);
        let frame_max = match lower(config.frame_max, frame_max) {
            0 => FRAME_MAX_UNLIMITED,
            limit => limit.max(FRAME_MIN),
        };
        let heartbeat = match (config.heartbeat, heartbeat) {
            (0, _) => 0,
            (ours, 0) => ours,
            (ours, theirs) => ours.min(theirs),
        };
        Self { channel_max: if channel_max == 0 { u16::MAX } else { channel_max }, frame_max, heartbeat }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiated(ours: (u16, u32, u16), theirs: (u16, u32, u16)) -> (u16, u32, u16) {
        let config = Config { channel_max: ours.0, frame_max: ours.1, heartbeat: ours.2, ..Config::default() };
        let tuning = Tuning::negotiate(&config, theirs.0, theirs.1, theirs.2);
        (tuning.channel_max, tuning.frame_max, tuning.heartbeat)
    }

    #[test]
    fn c13_zero_means_no_limit_and_never_wins() {
        assert_eq!(negotiated((2047, 131_072, 60), (0, 0, 0)), (2047, 131_072, 60));
        assert_eq!(negotiated((0, 0, 60), (10, 65_536, 30)), (10, 65_536, 30));
        assert_eq!(negotiated((5, 8192, 60), (10, 65_536, 60)), (5, 8192, 60));
    }

    #[test]
    fn c28_there_is_always_a_limit_to_frames() {
        assert_eq!(negotiated((0, 0, 0), (0, 0, 60)), (u16::MAX, FRAME_MAX_UNLIMITED, 0));
    }

    /// Smaller ones have no room for a method, or not even for a frame's own octets.
    #[test]
    fn c13_frames_are_never_smaller_than_the_specification_allows() {
        for (ours, theirs) in [(1, 0), (7, 4096), (8, 0), (4095, 131_072)] {
            assert_eq!(negotiated((0, ours, 0), (0, theirs, 0)).1, FRAME_MIN);
        }
    }

    #[test]
    fn c17_heartbeats_can_be_switched_off_here() {
        assert_eq!(negotiated((1, 4096, 0), (1, 4096, 60)).2, 0);
        assert_eq!(negotiated((1, 4096, 10), (1, 4096, 0)).2, 10);
    }
}
