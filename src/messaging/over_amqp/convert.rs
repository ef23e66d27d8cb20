//! What AMQP has, in the facade's words.

use crate::amqp::{self, Properties, STAMP};
use crate::error::Error;
use crate::message::{DeliveryDetail, Message, Received, Returned};

/// The message without the stamp, and why its headers cannot be read, if so.
fn message(message: amqp::Message) -> (Message, Option<Error>) {
    let raw = message.raw_properties();
    let (mut properties, malformed) = match raw.decode() {
        Ok(properties) => (properties, None),
        Err(error) => (raw.decode_without_headers().unwrap_or_default(), Some(Error::from(error))),
    };
    strip(&mut properties);
    (Message::new(message.into_body()).with_properties(properties), malformed)
}

/// The stamp is this library's business alone.
fn strip(properties: &mut Properties) {
    if let Some(headers) = &mut properties.headers
        && headers.remove(STAMP).is_some()
        && headers.is_empty()
    {
        properties.headers = None;
    }
}

pub(super) fn returned(returned: &amqp::Returned) -> Returned {
    let (message, _) = message(returned.message());
    Returned::new(returned.reply_code(), returned.reply_text().into_owned(), message)
}

pub(super) fn received(delivered: amqp::Message, delivery_tag: u64) -> Received {
    let detail =
        DeliveryDetail::Amqp { exchange: delivered.exchange(), routing_key: delivered.routing_key(), delivery_tag };
    let redelivered = delivered.redelivered();
    let (message, malformed) = message(delivered);
    let mut received = Received::new(message, redelivered, detail);
    received.malformed = malformed;
    received
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
        let received = received(delivered(b"\x20\x80\0\0\0\x03\x01kQ\x02id"), 7);
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
            let received = received(delivered(&octets), 7);
            assert_eq!(received.message.properties, after);
            assert!(received.malformed.is_none());
        }
    }
}
