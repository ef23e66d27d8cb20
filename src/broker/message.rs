//! A message as the broker keeps it: shared by all queues it is in.

use std::time::Duration;

use bytes::Bytes;

use crate::codec::{DecodeError, FieldTable, Properties, RawProperties, ShortString};
use crate::protocol::Content;

#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) properties: RawProperties,
    pub(super) body: Bytes,
    /// What its property `expiration` says.
    pub(super) time_to_live: Option<Duration>,
}

/// Bits of the property flags.
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const USER_ID: u16 = 1 << 4;

impl Message {
    pub(super) fn new(content: Content) -> Self {
        Self {
            exchange: content.exchange(),
            routing_key: content.routing_key(),
            properties: content.properties(),
            body: content.into_body(),
            time_to_live: None,
        }
    }

    /// The properties, when one is set that the broker itself looks at. Most messages have none.
    pub(super) fn concerning_properties(&self) -> Option<Properties> {
        let flags = match self.properties.as_bytes().first_chunk() {
            Some(flags) => u16::from_be_bytes(*flags),
            None => 0,
        };
        (flags & (REPLY_TO | EXPIRATION | USER_ID) != 0)
            .then(|| self.properties.decode_without_headers().ok())
            .flatten()
    }

    /// The headers, when there are any and they can be read.
    pub(super) fn headers(&self) -> Option<FieldTable> {
        self.properties.decode().ok()?.headers
    }

    /// Writes another queue for answers into the properties.
    pub(super) fn set_reply_to(&mut self, queue: ShortString) -> Result<(), DecodeError> {
        self.properties = encoded(&self.properties.decode()?.reply_to(queue));
        Ok(())
    }

    /// The same with other properties.
    pub(super) fn with(self, properties: &Properties) -> Self {
        Self { properties: encoded(properties), ..self }
    }
}

fn encoded(properties: &Properties) -> RawProperties {
    let mut octets = Vec::with_capacity(128);
    // What was read can be written, and what is added is short.
    let _ = properties.encode(&mut octets);
    RawProperties::new(octets.into())
}
