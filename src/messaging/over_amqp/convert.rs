//! What AMQP has, in the facade's words.

use crate::amqp::{self, Properties, STAMP, Settle};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Disposition, Message, Modify, Returned, SharedProperties};

/// The properties without the stamp, and why the headers cannot be read, if so.
pub(in crate::messaging) fn properties(message: &amqp::Message) -> (SharedProperties, Option<Error>) {
    let raw = message.raw_properties();
    if **raw.as_bytes() == [0, 0] {
        return (SharedProperties::default(), None);
    }
    let (mut properties, malformed) = match raw.decode() {
        Ok(properties) => (properties, None),
        Err(error) => (raw.decode_without_headers().unwrap_or_default(), Some(Error::from(error))),
    };
    strip(&mut properties);
    (properties.into(), malformed)
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

/// The message as a value of its own.
pub(super) fn message(delivered: &amqp::Message) -> Message {
    let (properties, _) = properties(delivered);
    Message { payload: Some(delivered.to_body()), properties, key: None }
}

/// How one delivery is settled; `None` for an ack, which is the consumer's matter.
pub(in crate::messaging) fn settle(how: Disposition) -> Option<Settle> {
    Some(match how {
        Disposition::Accept => return None,
        Disposition::Reject | Disposition::Modify(Modify { undeliverable_here: true, .. }) => {
            Settle::Reject { requeue: false }
        }
        Disposition::Release | Disposition::Modify(Modify { delivery_failed: false, .. }) => {
            Settle::Nack { multiple: false, requeue: true }
        }
        Disposition::Modify(Modify { delivery_failed: true, .. }) => Settle::Reject { requeue: true },
    })
}

/// How a delivery is settled with every earlier one of its channel.
pub(in crate::messaging) fn settle_up_to(how: Disposition) -> Result<Settle> {
    match how {
        Disposition::Accept => Ok(Settle::Ack { multiple: true }),
        Disposition::Release => Ok(Settle::Nack { multiple: true, requeue: true }),
        Disposition::Reject => Ok(Settle::Nack { multiple: true, requeue: false }),
        Disposition::Modify(_) => {
            let message = "AMQP 0-9-1 can modify deliveries only one by one";
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    }
}

pub(super) fn returned(returned: &amqp::Returned) -> Returned {
    let message = message(&returned.message());
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
        let delivered = delivered(b"\x20\x80\0\0\0\x03\x01kQ\x02id");
        let (properties, malformed) = properties(&delivered);
        assert_eq!(properties, Properties::new().message_id("id"));
        assert_eq!(malformed.map(|error| error.kind()), Some(ErrorKind::Protocol));
        assert_eq!(message(&delivered).body(), b"body");
    }

    #[test]
    fn the_stamp_is_taken_off_and_nothing_else() {
        for (before, after) in [
            (Properties::new(), Properties::new()),
            (Properties::new().header("k", 1i32), Properties::new().header("k", 1i32)),
        ] {
            let mut octets = Vec::new();
            before.encode_with_header((STAMP, 5), &mut octets).unwrap();
            let (properties, malformed) = properties(&delivered(&octets));
            assert_eq!(properties, after);
            assert!(malformed.is_none());
        }
    }
}
