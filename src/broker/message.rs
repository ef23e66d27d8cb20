//! A message as the broker keeps it: shared by all queues it is in.

use std::time::Duration;

use bytes::Bytes;

use super::faults;
use crate::codec::{DecodeError, FieldTable, FieldValue, Properties, RawProperties, ShortString};
use crate::protocol::Content;
use crate::protocol::server::Fault;

#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) properties: RawProperties,
    pub(super) body: Bytes,
    /// How long a queue keeps it (`expiration`).
    pub(super) time_to_live: Option<Duration>,
    pub(super) priority: u8,
    /// Further routing keys, which everybody may know.
    pub(super) cc: Vec<ShortString>,
    /// And such as nobody may.
    pub(super) bcc: Vec<ShortString>,
}

/// Bits of the property flags.
const PRIORITY: u16 = 1 << 11;
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
            priority: 0,
            cc: Vec::new(),
            bcc: Vec::new(),
        }
    }

    /// The properties, when one is set that the broker itself looks at. Most messages have none.
    pub(super) fn concerning_properties(&self) -> Option<Properties> {
        let flags = match self.properties.as_bytes().first_chunk() {
            Some(flags) => u16::from_be_bytes(*flags),
            None => 0,
        };
        (flags & (PRIORITY | REPLY_TO | EXPIRATION | USER_ID) != 0)
            .then(|| self.properties.decode_without_headers().ok())
            .flatten()
    }

    /// The headers, when there are any and they can be read.
    pub(super) fn headers(&self) -> Option<FieldTable> {
        self.properties.decode().ok()?.headers
    }

    /// Reads the headers `CC` and `BCC`, RabbitMQ's sender-selected distribution, and takes the second off.
    ///
    /// # Errors
    ///
    /// One of them is no array.
    pub(super) fn read_copies(&mut self) -> Result<(), Fault> {
        // Most messages have none, and are not decoded for it: a name stands behind its length.
        let octets = self.properties.as_bytes();
        let (cc, bcc) = (&b"\x02CC"[..], &b"\x03BCC"[..]);
        if !octets.windows(cc.len()).any(|part| part == cc) && !octets.windows(bcc.len()).any(|part| part == bcc) {
            return Ok(());
        }
        let Ok(mut properties) = self.properties.decode() else { return Ok(()) };
        let Some(headers) = &mut properties.headers else { return Ok(()) };
        self.cc = routing_keys("CC", headers.get("CC"))?;
        self.bcc = routing_keys("BCC", headers.get("BCC"))?;
        if headers.remove("BCC").is_some() {
            self.set_properties(&properties);
        }
        Ok(())
    }

    fn set_properties(&mut self, properties: &Properties) {
        let mut octets = Vec::with_capacity(self.properties.as_bytes().len() + 64);
        // What was read can be written, and what takes a place in it is short.
        let _ = properties.encode(&mut octets);
        self.properties = RawProperties::new(octets.into());
    }

    /// Writes another queue for answers into the properties.
    pub(super) fn set_reply_to(&mut self, queue: ShortString) -> Result<(), DecodeError> {
        let properties = self.properties.decode()?.reply_to(queue);
        self.set_properties(&properties);
        Ok(())
    }
}

/// Longer ones than the wire carries lead nowhere.
fn routing_keys(name: &str, value: Option<&FieldValue>) -> Result<Vec<ShortString>, Fault> {
    match value {
        None => Ok(Vec::new()),
        Some(FieldValue::Array(keys)) => {
            let texts = keys.iter().filter_map(|key| match key {
                FieldValue::LongString(key) if key.len() <= 255 => Some(key.clone().into()),
                _ => None,
            });
            Ok(texts.collect())
        }
        Some(other) => {
            let kind = faults::type_name(other);
            Err(faults::precondition(format!("invalid message: {{unacceptable_type_in_header,\"{name}\",{kind}}}")))
        }
    }
}
