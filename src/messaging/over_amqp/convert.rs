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
