//! A message: octets, properties, and a key where the transport has keys.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::SharedProperties;
use crate::codec::{FieldTable, FieldValue, ShortString};

/// A message that is sent or was received.
///
/// ```
/// use std::time::Duration;
/// use leveret::messaging::Message;
///
/// let message = Message::new("one hare")
///     .content_type("text/plain")
///     .message_id("42")
///     .header("retries", 0i32)
///     .expires_after(Duration::from_secs(60));
/// assert_eq!(message.properties.expiration, Some("60000".into()));
/// ```
///
/// What is not set is not sent: neither an empty string nor a zero stands for it. A [`Sender`](crate::messaging::Sender) fills in
/// its defaults where a property is not set.
///
/// | here | AMQP 0-9-1 | Kafka |
/// |---|---|---|
/// | [`payload`](Self::payload) | the body; without one, empty | the value; without one, a tombstone |
/// | [`key`](Self::key) | `Unsupported` | the key |
/// | [`properties`](Self::properties)`.headers` | a table: each name once, values of any type | a list: names may repeat, values are octets |
/// | `properties.timestamp` | seconds | the record's timestamp, in milliseconds there |
/// | the other twelve properties | as they are | see `KafkaConfig` |
#[non_exhaustive]
#[derive(Clone, Default, PartialEq)]
#[doc(alias = "BasicProperties")]
#[doc(alias = "FutureRecord")]
pub struct Message {
    /// The octets. `None` is a tombstone: a Kafka record without a value. AMQP 0-9-1 has only empty bodies.
    #[doc(alias = "body")]
    #[doc(alias = "data")]
    pub payload: Option<Bytes>,
    /// The fourteen properties, headers among them.
    pub properties: SharedProperties,
    /// What decides the partition on Kafka. AMQP 0-9-1 routes by the target's routing key, and has nothing of the kind.
    pub key: Option<Bytes>,
}

macro_rules! properties {
    ($( $(#[$doc:meta])* $name:ident: $kind:ty; )*) => {
        impl Message {$(
            $(#[$doc])*
            #[must_use]
            pub fn $name(mut self, value: impl Into<$kind>) -> Self {
                self.properties.$name = Some(value.into());
                self
            }
        )*

            /// Takes from `defaults` whatever this message does not say itself; headers one by one.
            pub(crate) fn inherit(&mut self, defaults: &SharedProperties) {
                if self.says_nothing() {
                    self.properties.clone_from(defaults);
                    return;
                }
                $(
                    if self.properties.$name.is_none() && defaults.$name.is_some() {
                        self.properties.$name.clone_from(&defaults.$name);
                    }
                )*
                for (name, value) in defaults.headers.iter().flat_map(FieldTable::iter) {
                    if !self.headers().is_some_and(|own| own.iter().any(|(own, _)| own == name)) {
                        self.properties.headers.get_or_insert_default().push(name.clone(), value.clone());
                    }
                }
            }
        }
    };
}

properties! {
    /// MIME type of the payload.
    content_type: ShortString;
    /// MIME encoding of the payload.
    content_encoding: ShortString;
    /// 1 for transient, 2 for persistent. A sender takes 2 unless told otherwise.
    delivery_mode: u8;
    /// 0 to 9 (quorum queues of RabbitMQ 4.3: to 31).
    priority: u8;
    /// Which request a message answers.
    correlation_id: ShortString;
    /// The queue for answers.
    reply_to: ShortString;
    /// Time to live as it stands on the wire: milliseconds, as a decimal string. [`expires_after`](Self::expires_after) takes a
    /// duration.
    expiration: ShortString;
    /// The application's name for the message: what a consumer recognises one by that comes twice.
    message_id: ShortString;
    /// Seconds since 1970.
    timestamp: u64;
    /// The kind of message (`type` on the wire).
    kind: ShortString;
    /// The user who published it; RabbitMQ refuses another name than the connection's (406).
    user_id: ShortString;
    /// The application that published it.
    app_id: ShortString;
    /// Reserved by the specification, in use all the same.
    cluster_id: ShortString;
}

impl Message {
    /// Whether no property was ever set: all of them are a sender's defaults.
    pub(crate) fn says_nothing(&self) -> bool {
        self.properties.is_unset()
    }

    /// A message with this payload, and nothing else.
    #[inline]
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { payload: Some(payload.into()), properties: SharedProperties::default(), key: None }
    }

    /// A message without a payload: on Kafka it deletes its key from a compacted topic. On AMQP it is an empty message.
    pub fn tombstone() -> Self {
        Self::default()
    }

    /// The payload; empty where there is none.
    pub fn body(&self) -> &[u8] {
        self.payload.as_deref().unwrap_or_default()
    }

    /// All properties at once, headers among them, in place of what was set so far: this message's own
    /// [`Properties`](crate::amqp::Properties), or such as it shares with others.
    #[must_use]
    pub fn with_properties(mut self, properties: impl Into<SharedProperties>) -> Self {
        self.properties = properties.into();
        self
    }

    /// Sets a header, in place of those of the same name.
    #[must_use]
    #[doc(alias = "application_properties")]
    pub fn header(mut self, name: impl Into<ShortString>, value: impl Into<FieldValue>) -> Self {
        self.properties.headers.get_or_insert_default().insert(name, value);
        self
    }

    /// Adds a header behind those that are there, even of the same name: Kafka keeps all of them, in this order. In a table
    /// of AMQP names should not repeat, and RabbitMQ keeps whichever it likes.
    #[must_use]
    pub fn append_header(mut self, name: impl Into<ShortString>, value: impl Into<FieldValue>) -> Self {
        self.properties.headers.get_or_insert_default().push(name, value);
        self
    }

    /// The value of a header; the last one, where there are several of the name.
    pub fn get_header(&self, name: &str) -> Option<&FieldValue> {
        self.headers()?.get(name)
    }

    /// The headers, where there are any.
    pub fn headers(&self) -> Option<&FieldTable> {
        self.properties.headers.as_ref()
    }

    /// Time to live: the server drops the message, or dead-letters it, when nobody has taken it by then. To whole milliseconds,
    /// rounded up. RabbitMQ closes the channel (406) for more than ten years.
    #[must_use]
    #[doc(alias = "ttl")]
    pub fn expires_after(self, time: Duration) -> Self {
        let millis = time.as_nanos().div_ceil(1_000_000);
        self.expiration(millis.to_string())
    }

    /// The time to live of a message, as far as it can be understood: a decimal number of milliseconds.
    pub fn time_to_live(&self) -> Option<Duration> {
        let text = self.properties.expiration.as_ref()?.to_str().ok()?;
        text.trim().parse().ok().map(Duration::from_millis)
    }

    /// Delivery mode 2: it survives a restart of the server in a durable queue. What a sender takes unless told otherwise.
    #[must_use]
    #[doc(alias = "durable")]
    pub fn persistent(self) -> Self {
        self.delivery_mode(2)
    }

    /// Delivery mode 1: it need not survive anything.
    #[must_use]
    pub fn transient(self) -> Self {
        self.delivery_mode(1)
    }

    /// What decides the partition on Kafka. On AMQP a message with a key is `Unsupported`.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }
}

impl fmt::Debug for Message {
    /// Without the payload, which is long, and nobody's business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Message");
        match &self.payload {
            Some(payload) => shown.field("payload", &format_args!("{} octets", payload.len())),
            None => shown.field("payload", &None::<()>),
        };
        if let Some(key) = &self.key {
            shown.field("key", key);
        }
        shown.field("properties", &self.properties).finish()
    }
}

macro_rules! message_from {
    ($( $from:ty: $octets:ident => $payload:expr; )*) => {
        $( impl From<$from> for Message {
            #[inline]
            fn from($octets: $from) -> Self {
                Self::new($payload)
            }
        } )*
    };
}

message_from! {
    Bytes: octets => octets;
    &Bytes: octets => octets.clone();
    Vec<u8>: octets => octets;
    String: text => text;
    &str: text => Bytes::copy_from_slice(text.as_bytes());
    &[u8]: octets => Bytes::copy_from_slice(octets);
}

impl<const N: usize> From<&[u8; N]> for Message {
    fn from(octets: &[u8; N]) -> Self {
        Self::new(Bytes::copy_from_slice(octets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Properties;

    #[test]
    fn z3_defaults_fill_in_what_is_not_set_and_nothing_else() {
        let defaults =
            Properties::new().priority(5).app_id("hares").expiration("1000").header("a", 1i32).header("b", "default");
        let mut message = Message::new("x").priority(0).app_id("").header("b", "own").header("c", true);
        message.inherit(&defaults.into());
        let expected = Properties::new()
            .priority(0)
            .app_id("")
            .expiration("1000")
            .header("b", "own")
            .header("c", true)
            .header("a", 1i32);
        assert_eq!(message.properties, expected, "zero and empty are values");
    }

    #[test]
    fn z3_every_property_is_inherited() {
        let all = Properties::new()
            .content_type("text/plain")
            .content_encoding("gzip")
            .header("k", 1i32)
            .persistent()
            .priority(9)
            .correlation_id("c")
            .reply_to("r")
            .expiration("60000")
            .message_id("m")
            .timestamp(1_700_000_000u64)
            .kind("t")
            .user_id("guest")
            .app_id("a")
            .cluster_id("x");
        for message in [Message::new("x"), Message::new("x").with_properties(Properties::new())] {
            let mut message = message;
            message.inherit(&all.clone().into());
            assert_eq!(message.properties, all);
        }
    }

    /// c82, too
    #[test]
    fn z5_expiration_is_milliseconds_and_not_set_unless_asked_for() {
        assert_eq!(Message::new("x").properties.expiration, None);
        let message = Message::new("x").expires_after(Duration::from_micros(1500));
        assert_eq!(message.properties.expiration, Some("2".into()), "rounded up: 0 would be gone at once");
        assert_eq!(message.time_to_live(), Some(Duration::from_millis(2)));
        assert_eq!(Message::new("x").expiration(" 60000 ").time_to_live(), Some(Duration::from_secs(60)));
        assert_eq!(Message::new("x").expiration("soon").time_to_live(), None);
    }

    #[test]
    fn kk2_headers_keep_their_order_and_may_repeat() {
        let message = Message::new("x").append_header("h", "1").append_header("g", "2").append_header("h", "3");
        let headers: Vec<_> =
            message.headers().into_iter().flat_map(FieldTable::iter).map(|(n, _)| n.as_bytes()).collect();
        assert_eq!(headers, [b"h", b"g", b"h"]);
        assert_eq!(message.get_header("h").and_then(FieldValue::as_str), Some("3"));
    }

    #[test]
    fn a_message_does_not_show_its_payload() {
        let shown = format!("{:?}", Message::new("sesame").key("k"));
        assert!(shown.contains("6 octets") && !shown.contains("sesame"), "{shown}");
        assert!(format!("{:?}", Message::tombstone()).contains("None"));
    }
}
