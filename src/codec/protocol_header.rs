//! The eight octets with which a client opens the conversation.

use std::fmt;

use super::{DecodeError, DecodeErrorKind};

/// A protocol header: `AMQP` and four octets that name a protocol and its version.
///
/// A server that speaks something else answers with a header of its own and closes (§4.2.2). RabbitMQ's may be
/// 0-0-9-1 or that of AMQP 1.0's SASL layer, so any value can be read.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProtocolHeader(pub [u8; 4]);

impl ProtocolHeader {
    /// AMQP 0-9-1.
    pub const AMQP_0_9_1: Self = Self([0, 0, 9, 1]);

    /// The length of a header in octets.
    pub const LEN: usize = 8;

    /// The octets on the wire.
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        let [a, b, c, d] = self.0;
        [b'A', b'M', b'Q', b'P', a, b, c, d]
    }

    /// Reads a header.
    ///
    /// # Errors
    ///
    /// The octets do not begin with `AMQP`.
    pub fn decode(octets: [u8; Self::LEN]) -> Result<Self, DecodeError> {
        match octets {
            [b'A', b'M', b'Q', b'P', a, b, c, d] => Ok(Self([a, b, c, d])),
            _ => Err(DecodeError::new(DecodeErrorKind::NotAProtocolHeader, "protocol header", 0)),
        }
    }
}

impl fmt::Debug for ProtocolHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.0;
        write!(f, "AMQP {a}-{b}-{c}-{d}")
    }
}

impl fmt::Display for ProtocolHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
