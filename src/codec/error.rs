//! What can be wrong with bytes that are read, and with values that are to be written.

use std::fmt;

/// Bytes that are not AMQP 0-9-1: what was being read, where, and why it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    kind: DecodeErrorKind,
    what: &'static str,
    offset: usize,
}

/// Why bytes could not be decoded.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeErrorKind {
    /// The payload ends before the value does.
    Truncated {
        /// Octets that the value needs at least, from the error's offset on.
        needed: usize,
        /// Octets that are there.
        available: usize,
    },
    /// A frame announces more payload than was negotiated.
    FrameTooLarge {
        /// The size in the frame's head, without head and end octet.
        size: usize,
        /// The largest payload allowed.
        limit: usize,
    },
    /// The octet after a frame's payload is not `0xCE`.
    FrameEnd(u8),
    /// The frame type is none of 1 (method), 2 (header), 3 (body), 8 (heartbeat).
    UnknownFrameType(u8),
    /// A heartbeat that carries a payload or stands on a channel other than 0.
    BadHeartbeat,
    /// No method of AMQP 0-9-1 or of RabbitMQ's extensions has these numbers.
    UnknownMethod {
        /// The class id.
        class: u16,
        /// The method id.
        method: u16,
    },
    /// A content header of a class other than basic (60).
    ContentClass(u16),
    /// A field type tag outside RabbitMQ's dialect.
    UnknownFieldType(u8),
    /// Tables and arrays are nested deeper than [`MAX_DEPTH`](super::MAX_DEPTH).
    TooDeep,
    /// The eight octets are not a protocol header.
    NotAProtocolHeader,
}

impl DecodeError {
    pub(crate) const fn new(kind: DecodeErrorKind, what: &'static str, offset: usize) -> Self {
        Self { kind, what, offset }
    }

    /// Why it failed.
    pub fn kind(&self) -> &DecodeErrorKind {
        &self.kind
    }

    /// What was being read, for example `basic.deliver.consumer-tag`.
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// Where it failed, counted in octets from the start of what was handed in.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, what, offset } = self;
        write!(f, "cannot decode {what} at offset {offset}: ")?;
        match kind {
            DecodeErrorKind::Truncated { needed, available } => {
                write!(f, "needs {needed} octets where {available} are left")
            }
            DecodeErrorKind::FrameTooLarge { size, limit } => {
                write!(f, "a frame of {size} octets where {limit} are allowed")
            }
            DecodeErrorKind::FrameEnd(octet) => write!(f, "the frame ends in {octet:#04x} instead of 0xce"),
            DecodeErrorKind::UnknownFrameType(octet) => write!(f, "unknown frame type {octet}"),
            DecodeErrorKind::BadHeartbeat => f.write_str("a heartbeat with a payload or on a channel"),
            DecodeErrorKind::UnknownMethod { class, method } => write!(f, "unknown method {class}.{method}"),
            DecodeErrorKind::ContentClass(class) => write!(f, "content of class {class} instead of 60"),
            DecodeErrorKind::UnknownFieldType(tag) => write!(f, "unknown field type {tag:#04x}"),
            DecodeErrorKind::TooDeep => write!(f, "nested deeper than {} levels", super::MAX_DEPTH),
            DecodeErrorKind::NotAProtocolHeader => f.write_str("not a protocol header"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// A value that the wire format cannot carry. Nothing of it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodeError {
    kind: EncodeErrorKind,
    what: &'static str,
}

/// Why a value could not be encoded.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncodeErrorKind {
    /// A short string may have 255 octets.
    ShortStringTooLong {
        /// The octets it has.
        length: usize,
    },
    /// A long string, table or array has more octets than its 32-bit length can say.
    TooLong,
    /// Tables and arrays are nested deeper than [`MAX_DEPTH`](super::MAX_DEPTH).
    TooDeep,
    /// A method or a content header does not fit into one frame, and may not be split.
    FrameTooLarge {
        /// The octets of the payload.
        size: usize,
        /// The largest payload that was negotiated.
        limit: usize,
    },
}

impl EncodeError {
    pub(crate) const fn new(kind: EncodeErrorKind, what: &'static str) -> Self {
        Self { kind, what }
    }

    /// Why it failed.
    pub fn kind(&self) -> &EncodeErrorKind {
        &self.kind
    }

    /// Which field cannot be written, for example `basic.publish.routing_key`.
    pub fn what(&self) -> &'static str {
        self.what
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, what } = self;
        match kind {
            EncodeErrorKind::ShortStringTooLong { length } => {
                write!(f, "{what} has {length} octets, a short string has 255 at most")
            }
            EncodeErrorKind::TooLong => write!(f, "{what} is longer than a 32-bit length can say"),
            EncodeErrorKind::TooDeep => write!(f, "{what} is nested deeper than {} levels", super::MAX_DEPTH),
            EncodeErrorKind::FrameTooLarge { size, limit } => {
                write!(f, "{what} takes {size} octets, a frame has room for {limit}")
            }
        }
    }
}

impl std::error::Error for EncodeError {}
