//! What AMQP has, in the facade's words.

use std::ops::Range;

use crate::amqp::{self, FieldValue, Properties, STAMP, ShortString};
use crate::error::Error;
use crate::message::{DeliveryDetail, Message, Received, Returned, SharedProperties};

/// Properties of more octets are not remembered.
const REMEMBERED: usize = 4096;

/// What the last delivery to a consumer had beside its body. The next one most likely has the same: then it is not read again, and
/// takes no memory of its own.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Exchange and routing key as they came.
    address: Vec<u8>,
    exchange: ShortString,
    routing_key: ShortString,
    /// The properties as they came; empty while there are none to be remembered, because properties have two octets at least.
    octets: Vec<u8>,
    /// Where the number of the stamp stands, in which the next delivery may differ.
    stamp_at: Option<usize>,
    properties: SharedProperties,
}

impl Seen {
    #[inline]
    pub(super) fn received(&mut self, delivered: amqp::Message, delivery_tag: u64) -> Received {
        let [address, octets] = delivered.head();
        if self.address != address {
            self.address.clear();
            self.address.extend_from_slice(address);
            (self.exchange, self.routing_key) = delivered.address();
        }
        let (properties, malformed) =
            if self.are_these(octets) { (self.properties.clone(), None) } else { self.read(&delivered) };
        let (exchange, routing_key) = (self.exchange.clone(), self.routing_key.clone());
        let redelivered = delivered.redelivered();
        let message = Message { payload: Some(delivered.into_body()), properties, key: None };
        let detail = DeliveryDetail::Amqp { exchange, routing_key, delivery_tag };
        Received { message, redelivered, detail, malformed }
    }

    fn are_these(&self, octets: &[u8]) -> bool {
        let same = |part: Range<usize>| self.octets.get(part.clone()) == octets.get(part);
        let (end, same_length) = (octets.len(), self.octets.len() == octets.len());
        match self.stamp_at {
            None => same_length && same(0..end),
            Some(at) => same_length && same(0..at) && same(at + STAMP_NUMBER..end),
        }
    }

    #[cold]
    fn read(&mut self, delivered: &amqp::Message) -> (SharedProperties, Option<Error>) {
        let [_, octets] = delivered.head();
        let (properties, stamp, malformed) = read(delivered);
        self.octets.clear();
        let stamp_at = stamp.as_ref().map(|stamp| stamp_at(stamp, octets));
        if malformed.is_none() && octets.len() <= REMEMBERED && stamp_at != Some(None) {
            self.octets.extend_from_slice(octets);
            (self.stamp_at, self.properties) = (stamp_at.flatten(), properties.clone());
        }
        (properties, malformed)
    }
}

/// Octets of a stamp's number.
const STAMP_NUMBER: usize = size_of::<i64>();

/// Where the number of this stamp stands in properties as they came, if that is certain.
fn stamp_at(stamp: &FieldValue, octets: &[u8]) -> Option<usize> {
    let FieldValue::I64(_) = stamp else { return None };
    // Its name with the length, and the type. It may stand in somebody's text as well: then nobody knows.
    let is_it = |window: &[u8]| match window {
        [length, name @ .., b'l'] => usize::from(*length) == STAMP.len() && name == STAMP.as_bytes(),
        _ => false,
    };
    let mut found = octets.windows(STAMP.len() + 2).enumerate().filter(|(_, window)| is_it(window));
    let (at, window) = found.next()?;
    if found.next().is_some() { None } else { Some(at + window.len()) }
}

/// The properties without the stamp, the stamp, and why the headers cannot be read, if so.
fn read(message: &amqp::Message) -> (SharedProperties, Option<FieldValue>, Option<Error>) {
    let [_, octets] = message.head();
    if octets == [0, 0] {
        return (SharedProperties::default(), None, None);
    }
    let raw = message.raw_properties();
    let (mut properties, malformed) = match raw.decode() {
        Ok(properties) => (properties, None),
        Err(error) => (raw.decode_without_headers().unwrap_or_default(), Some(Error::from(error))),
    };
    let stamp = strip(&mut properties);
    (properties.into(), stamp, malformed)
}

/// The stamp is this library's business alone.
fn strip(properties: &mut Properties) -> Option<FieldValue> {
    let headers = properties.headers.as_mut()?;
    let stamp = headers.remove(STAMP)?;
    if headers.is_empty() {
        properties.headers = None;
    }
    Some(stamp)
}

pub(super) fn returned(returned: &amqp::Returned) -> Returned {
    let message = returned.message();
    let (properties, _, _) = read(&message);
    let message = Message::new(message.into_body()).with_properties(properties);
    Returned::new(returned.reply_code(), returned.reply_text().into_owned(), message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::protocol::client::Batch;
    use crate::protocol::{Content, Layout};

    fn delivered(properties: &[u8]) -> amqp::Message {
        let mut memory = Vec::new();
        let layout = Layout::append(&mut memory, b"\x01e\x01k", properties, b"body");
        let content = Content { memory: memory.into_boxed_slice(), layout, apart: None };
        amqp::Message::alone(Batch::of(1, true, content), None)
    }

    #[test]
    fn a_message_with_broken_headers_has_everything_else() {
        // A header of an unknown type, and a message id.
        let received = Seen::default().received(delivered(b"\x20\x80\0\0\0\x03\x01kQ\x02id"), 7);
        assert_eq!(received.message.properties, Properties::new().message_id("id"));
        assert_eq!((received.message.body(), received.redelivered), (&b"body"[..], true));
        assert_eq!(received.malformed.map(|error| error.kind()), Some(ErrorKind::Protocol));
    }

    #[test]
    fn the_stamp_is_taken_off_and_nothing_else() {
        for (before, after) in [
            (Properties::new(), Properties::new()),
            (Properties::new().header("k", 1i32), Properties::new().header("k", 1i32)),
        ] {
            let mut octets = Vec::new();
            before.encode_with_header((STAMP, 5), &mut octets).unwrap();
            let received = Seen::default().received(delivered(&octets), 7);
            assert_eq!(received.message.properties, after);
            assert!(received.malformed.is_none());
        }
    }

    /// What is remembered of one delivery must not leak into the next.
    #[test]
    fn a_delivery_has_its_own_properties_whatever_came_before() {
        let plain = Properties::new().persistent();
        let text = Properties::new().header("k", "v").app_id("a");
        // The name of the stamp in a text, with what would be its number.
        let hostile = |number: &str| Properties::new().header("k", format!("\rx-leveret-seql{number}"));
        let mut heads: Vec<(Vec<u8>, Properties)> = vec![(vec![0, 0], Properties::new())];
        for properties in [&Properties::new(), &plain, &text, &hostile("12345678"), &hostile("87654321")] {
            for stamp in [None, Some(1), Some(2), Some(i64::MAX)] {
                let mut octets = Vec::new();
                match stamp {
                    None => properties.encode(&mut octets).unwrap(),
                    Some(stamp) => drop(properties.encode_with_header((STAMP, stamp), &mut octets).unwrap()),
                }
                heads.push((octets, properties.clone()));
            }
        }
        // A stamp that is none.
        for text in ["12345678", "87654321"] {
            let mut octets = Vec::new();
            Properties::new().header(STAMP, text).encode(&mut octets).unwrap();
            heads.push((octets, Properties::new()));
        }
        let mut seen = Seen::default();
        for (before, _) in &heads {
            for (octets, properties) in &heads {
                for octets in [before, octets, octets] {
                    seen.received(delivered(octets), 7);
                }
                assert_eq!(seen.received(delivered(octets), 7).message.properties, *properties);
                seen.received(delivered(b"\x20\x80\0\0\0\x03\x01kQ\x02id"), 7).malformed.unwrap();
            }
        }
    }

    #[test]
    fn stamps_that_count_up_are_read_once() {
        let mut seen = Seen::default();
        let mut received = (0..3).map(|number| {
            let mut octets = Vec::new();
            Properties::new().persistent().encode_with_header((STAMP, number), &mut octets).unwrap();
            seen.received(delivered(&octets), 7).message.properties
        });
        let (first, second) = (received.next().unwrap(), received.next().unwrap());
        assert!(std::ptr::eq(&raw const *first, &raw const *second), "they share what they have");
    }
}
