//! Messages that came: looked at where they are, and decoded when that is asked for.

use std::fmt;

use once_cell::race::OnceBox;

use super::over_amqp::convert;
use crate::amqp::{self, FieldTable, FieldValue, Properties};
use crate::error::Error;
#[cfg(feature = "kafka")]
use crate::message::Arrived;
use crate::message::{DeliveryDetail, Message, SharedProperties};

/// A message that came, without what would settle it.
///
/// Looking at its [`body`](Self::body) costs nothing. Properties are decoded when they are asked for the first time, and remembered.
/// It holds what stands close to it in memory, a few KiB or a few messages, and its channel: what is to be kept for long is better kept
/// as a [`message`](Self::message).
#[derive(Clone)]
pub struct Received {
    inner: Inner,
}

#[derive(Clone)]
enum Inner {
    Amqp {
        message: amqp::Message,
        /// What was decoded of it: most are never asked.
        head: OnceBox<Head>,
    },
    #[cfg(feature = "kafka")]
    Kafka(std::sync::Arc<Arrived>),
}

#[derive(Clone)]
struct Head {
    properties: SharedProperties,
    malformed: Option<Error>,
}

impl From<amqp::Message> for Received {
    #[inline]
    fn from(message: amqp::Message) -> Self {
        Self { inner: Inner::Amqp { message, head: OnceBox::new() } }
    }
}

#[cfg(feature = "kafka")]
impl From<Arrived> for Received {
    fn from(arrived: Arrived) -> Self {
        Self { inner: Inner::Kafka(arrived.into()) }
    }
}

impl Received {
    /// The payload; empty where there is none.
    #[inline]
    pub fn body(&self) -> &[u8] {
        match &self.inner {
            Inner::Amqp { message, .. } => message.body(),
            #[cfg(feature = "kafka")]
            Inner::Kafka(arrived) => arrived.message.body(),
        }
    }

    /// The message as a value of its own. Its payload is copied where it is small, and shared where it stayed where it was read (from
    /// 16 KiB on).
    pub fn message(&self) -> Message {
        match &self.inner {
            Inner::Amqp { message, .. } => {
                Message { payload: Some(message.to_body()), properties: self.shared_properties().clone(), key: None }
            }
            #[cfg(feature = "kafka")]
            Inner::Kafka(arrived) => arrived.message.clone(),
        }
    }

    /// The properties, headers among them. Headers that cannot be read are left out, see [`malformed`](Self::malformed).
    pub fn properties(&self) -> &Properties {
        self.shared_properties()
    }

    fn shared_properties(&self) -> &SharedProperties {
        match &self.inner {
            Inner::Amqp { message, head } => &read(message, head).properties,
            #[cfg(feature = "kafka")]
            Inner::Kafka(arrived) => &arrived.message.properties,
        }
    }

    /// The headers, where there are any.
    pub fn headers(&self) -> Option<&FieldTable> {
        self.properties().headers.as_ref()
    }

    /// The value of a header; the last one, where there are several of the name.
    pub fn get_header(&self, name: &str) -> Option<&FieldValue> {
        self.headers()?.get(name)
    }

    /// Why its headers cannot be read, if so: everything else can.
    pub fn malformed(&self) -> Option<&Error> {
        match &self.inner {
            Inner::Amqp { message, head } => read(message, head).malformed.as_ref(),
            #[cfg(feature = "kafka")]
            Inner::Kafka(arrived) => arrived.malformed.as_ref(),
        }
    }

    /// Whether it may have been delivered before. A hint: `true` does not mean that anybody handled it.
    #[doc(alias = "first_acquirer")]
    pub fn redelivered(&self) -> bool {
        match &self.inner {
            Inner::Amqp { message, .. } => message.redelivered(),
            #[cfg(feature = "kafka")]
            Inner::Kafka(_) => false,
        }
    }

    /// What the transport says of it.
    pub fn detail(&self) -> DeliveryDetail {
        match &self.inner {
            Inner::Amqp { message, .. } => {
                let (exchange, routing_key) = message.address();
                DeliveryDetail::Amqp { exchange, routing_key, delivery_tag: message.delivery_tag() }
            }
            #[cfg(feature = "kafka")]
            Inner::Kafka(arrived) => arrived.detail.clone(),
        }
    }

    /// How often it was delivered before without success, where the server counts that: RabbitMQ's quorum queues do
    /// (`x-delivery-count`).
    pub fn delivery_count(&self) -> Option<u64> {
        let count = self.get_header("x-delivery-count").and_then(FieldValue::as_i64)?;
        u64::try_from(count).ok()
    }

    /// The delivery tag: counts the deliveries of its channel (AMQP). 0 for one that needs no settling.
    #[doc(alias = "delivery_no")]
    pub fn delivery_tag(&self) -> Option<u64> {
        self.amqp().map(amqp::Message::delivery_tag)
    }

    /// What came, where that was over AMQP.
    #[inline]
    pub(super) fn amqp(&self) -> Option<&amqp::Message> {
        match &self.inner {
            Inner::Amqp { message, .. } => Some(message),
            #[cfg(feature = "kafka")]
            Inner::Kafka(_) => None,
        }
    }
}

fn read<'a>(message: &amqp::Message, head: &'a OnceBox<Head>) -> &'a Head {
    head.get_or_init(|| {
        let (properties, malformed) = convert::properties(message);
        Box::new(Head { properties, malformed })
    })
}

impl From<Received> for Message {
    fn from(received: Received) -> Self {
        match received.inner {
            #[cfg(feature = "kafka")]
            Inner::Kafka(arrived) => std::sync::Arc::unwrap_or_clone(arrived).message,
            Inner::Amqp { .. } => received.message(),
        }
    }
}

impl fmt::Debug for Received {
    /// Without the payload, which is long, and nobody's business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("detail", &self.detail())
            .field("redelivered", &self.redelivered())
            .field("body", &format_args!("{} octets", self.body().len()))
            .field("properties", self.properties())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::ShortString;
    use crate::error::ErrorKind;
    use crate::protocol::client::Batch;
    use crate::protocol::{Content, Layout};

    fn received(properties: &[u8], body: &[u8]) -> Received {
        let mut memory = Vec::new();
        let layout = Layout::append(&mut memory, b"\x01e\x01k", properties, body);
        let content = Content { memory: memory.into_boxed_slice(), layout, apart: None };
        amqp::Message::alone(Batch::of(7, true, content), None).into()
    }

    #[test]
    fn properties_are_decoded_once_and_when_they_are_asked_for() {
        let mut octets = Vec::new();
        let properties = Properties::new().persistent().header("x-delivery-count", 2i64);
        properties.encode_with_header((amqp::STAMP, 5), &mut octets).unwrap();
        let received = received(&octets, b"body");
        assert_eq!((received.body(), received.redelivered(), received.delivery_tag()), (&b"body"[..], true, Some(7)));
        let decoded = match &received.inner {
            Inner::Amqp { head, .. } => head.get().is_some(),
            #[cfg(feature = "kafka")]
            Inner::Kafka(_) => true,
        };
        assert!(!decoded);
        assert_eq!((received.properties(), received.delivery_count()), (&properties, Some(2)));
        assert!(std::ptr::eq(received.properties(), received.properties()) && received.malformed().is_none());
        let (exchange, routing_key) = (ShortString::from("e"), ShortString::from("k"));
        assert_eq!(received.detail(), DeliveryDetail::Amqp { exchange, routing_key, delivery_tag: 7 });
        let message = received.message();
        assert_eq!((message.body(), &*message.properties), (&b"body"[..], &properties));
    }

    #[test]
    fn broken_headers_are_told_and_the_rest_can_be_read() {
        // A header of an unknown type, and a message id.
        let received = received(b"\x20\x80\0\0\0\x03\x01kQ\x02id", b"sesame");
        assert_eq!(received.malformed().map(Error::kind), Some(ErrorKind::Protocol));
        assert_eq!(received.properties(), &Properties::new().message_id("id"));
        assert_eq!(Message::from(received.clone()).body(), b"sesame");
        assert!(!format!("{received:?}").contains("sesame"));
    }

    /// It is handed from task to task.
    #[test]
    fn it_is_small() {
        assert!(size_of::<Received>() <= 32, "{}", size_of::<Received>());
        assert!(size_of::<super::super::Delivery>() <= 48, "{}", size_of::<super::super::Delivery>());
    }
}
