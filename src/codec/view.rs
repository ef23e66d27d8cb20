//! Borrowed views of the methods that come once per message, read in place and without an allocation.

use super::{DecodeError, DecodeErrorKind};

/// `basic.deliver` as it stands in the buffer.
pub(crate) struct DeliverView<'a> {
    pub(crate) consumer_tag: &'a [u8],
    pub(crate) delivery_tag: u64,
    pub(crate) redelivered: bool,
    /// Exchange and routing key, each with its length octet.
    pub(crate) address: &'a [u8],
}

impl<'a> DeliverView<'a> {
    pub(crate) const ID: [u8; 4] = [0, 60, 0, 60];

    /// Reads the fields behind the class and method id.
    #[inline]
    pub(crate) fn parse(fields: &'a [u8]) -> Result<Self, DecodeError> {
        let parsed = || {
            let (consumer_tag, rest) = short_string(fields)?;
            let (tag, rest) = rest.split_first_chunk()?;
            let (redelivered, address) = rest.split_first()?;
            let (_, rest) = short_string(address)?;
            let (_, rest) = short_string(rest)?;
            Some(Self {
                consumer_tag,
                delivery_tag: u64::from_be_bytes(*tag),
                redelivered: redelivered & 1 == 1,
                address: address.get(..address.len() - rest.len())?,
            })
        };
        parsed().ok_or_else(|| truncated("basic.deliver", fields))
    }
}

/// `basic.ack` or `basic.nack` as it stands in the buffer.
pub(crate) struct AckView {
    pub(crate) delivery_tag: u64,
    pub(crate) multiple: bool,
}

impl AckView {
    pub(crate) const ACK: [u8; 4] = [0, 60, 0, 80];
    pub(crate) const NACK: [u8; 4] = [0, 60, 0, 120];

    /// Reads the fields behind the class and method id.
    #[inline]
    pub(crate) fn parse(fields: &[u8]) -> Result<Self, DecodeError> {
        match fields.split_first_chunk() {
            Some((tag, [flags, ..])) => Ok(Self { delivery_tag: u64::from_be_bytes(*tag), multiple: flags & 1 == 1 }),
            _ => Err(truncated("basic.ack or basic.nack", fields)),
        }
    }
}

/// A short string without its length octet, and what follows.
#[inline]
pub(crate) fn short_string(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = input.split_first()?;
    rest.split_at_checked(usize::from(length))
}

#[cold]
fn truncated(what: &'static str, fields: &[u8]) -> DecodeError {
    let kind = DecodeErrorKind::Truncated { needed: fields.len() + 1, available: fields.len() };
    DecodeError::new(kind, what, 4)
}
