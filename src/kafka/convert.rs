//! Messages to Kafka's records, and back.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message as _, OwnedHeaders};

use super::config::PropertyMapping;
use crate::codec::{FieldTable, FieldValue, Properties, ShortString};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::message::{Arrived, DeliveryDetail, Message, Target};

/// What is sent beside key and payload.
pub(super) struct Envelope<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: Option<i32>,
    /// Milliseconds since 1970; without one librdkafka takes the clock.
    pub(super) timestamp: Option<i64>,
    pub(super) headers: Option<OwnedHeaders>,
}

fn unsupported(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Unsupported, message).with_outcome(Outcome::NotSent)
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// # Errors
///
/// `InvalidArgument`: no topic has this name.
pub(super) fn check_topic(topic: &str) -> Result<()> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty() || topic.len() > 249 || matches!(topic, "." | "..") || !topic.chars().all(known) {
        let message =
            "a topic's name has 1 to 249 characters: letters and digits of ASCII, dots, underscores and hyphens";
        return Err(invalid(message));
    }
    Ok(())
}

/// What becomes of a message on Kafka.
///
/// # Errors
///
/// `Unsupported` or `InvalidArgument`, outcome `NotSent`, for what Kafka does not have.
pub(super) fn envelope<'a>(target: &'a Target, message: &Message, mapping: PropertyMapping) -> Result<Envelope<'a>> {
    let (topic, partition) = target.kafka()?;
    check_topic(topic)?;
    if partition.is_some_and(i32::is_negative) {
        return Err(invalid("a partition's number is not negative"));
    }
    let properties = &message.properties;
    let timestamp = properties.timestamp.map(|seconds| i64::try_from(seconds).ok().and_then(|s| s.checked_mul(1000)));
    let timestamp = match timestamp {
        Some(None) => return Err(invalid("the timestamp is out of range; it is in seconds")),
        Some(timestamp) => timestamp,
        None => None,
    };
    let mut headers = OwnedHeaders::new();
    let mut any = false;
    let mut add = |name: &str, value: Option<&[u8]>| {
        headers =
            std::mem::replace(&mut headers, OwnedHeaders::new_with_capacity(0)).insert(Header { key: name, value });
        any = true;
    };
    let mut foreign = Ok(());
    texts(properties, |name, value| match mapping {
        PropertyMapping::Headers => add(name, Some(value)),
        PropertyMapping::Refuse if foreign.is_ok() => {
            let message = format!("Kafka has no {name}; KafkaConfig::map_properties can make a header of it");
            foreign = Err(unsupported(message));
        }
        PropertyMapping::Refuse => {}
    });
    foreign?;
    for (name, value) in message.headers().into_iter().flat_map(FieldTable::iter) {
        let key = name.to_str().map_err(|_| invalid("a header's name is not UTF-8"))?;
        if key.contains('\0') {
            return Err(invalid("there is a NUL in a header's name"));
        }
        match value {
            FieldValue::LongString(octets) | FieldValue::ByteArray(octets) => add(key, Some(octets)),
            FieldValue::Void => add(key, None),
            _ => {
                let message = format!("header {key:?} is no string: the values of Kafka's headers are octets");
                return Err(unsupported(message));
            }
        }
    }
    Ok(Envelope { topic, partition, timestamp, headers: any.then_some(headers) })
}

/// Properties that Kafka does not have, as text. Delivery mode 2 is what Kafka does anyway.
fn texts(properties: &Properties, mut each: impl FnMut(&'static str, &[u8])) {
    let strings = [
        ("content-type", &properties.content_type),
        ("content-encoding", &properties.content_encoding),
        ("correlation-id", &properties.correlation_id),
        ("reply-to", &properties.reply_to),
        ("expiration", &properties.expiration),
        ("message-id", &properties.message_id),
        ("type", &properties.kind),
        ("user-id", &properties.user_id),
        ("app-id", &properties.app_id),
        ("cluster-id", &properties.cluster_id),
    ];
    for (name, value) in strings {
        if let Some(value) = value {
            each(name, value.as_bytes());
        }
    }
    let numbers =
        [("priority", properties.priority), ("delivery-mode", properties.delivery_mode.filter(|mode| *mode != 2))];
    for (name, value) in numbers {
        if let Some(value) = value {
            each(name, value.to_string().as_bytes());
        }
    }
}

/// A record that came. What cannot be read of its headers is told in `malformed`.
pub(super) fn received(record: &BorrowedMessage<'_>, mapping: PropertyMapping) -> Arrived {
    let timestamp = record.timestamp().to_millis();
    let mut message = Message { payload: record.payload().map(Bytes::copy_from_slice), ..Message::default() };
    message.key = record.key().map(Bytes::copy_from_slice);
    message.properties.timestamp = timestamp.and_then(|millis| u64::try_from(millis / 1000).ok());
    // rdkafka panics where a name is not UTF-8, which the sender decides.
    let headers = catch_unwind(AssertUnwindSafe(|| headers(record)));
    let malformed = headers
        .as_ref()
        .err()
        .map(|_| Error::new(ErrorKind::Protocol, "the headers cannot be read: the name of one is not UTF-8"));
    let mut headers = headers.unwrap_or_default();
    if mapping == PropertyMapping::Headers {
        headers = adopt(headers, &mut message.properties);
    }
    if !headers.is_empty() {
        let mut table = FieldTable::new();
        for (name, value) in headers {
            table.push(name, value.map_or(FieldValue::Void, FieldValue::LongString));
        }
        message.properties.headers = Some(table);
    }
    let (topic, partition, offset) = (record.topic().to_owned(), record.partition(), record.offset());
    Arrived { message, detail: DeliveryDetail::Kafka { topic, partition, offset, timestamp }, malformed }
}

type Named = (ShortString, Option<Bytes>);

fn headers(record: &BorrowedMessage<'_>) -> Vec<Named> {
    let Some(headers) = record.headers() else { return Vec::new() };
    let owned = |header: Header<'_, &[u8]>| (header.key.into(), header.value.map(Bytes::copy_from_slice));
    (0..headers.count()).filter_map(|at| headers.try_get(at)).map(owned).collect()
}

/// Makes properties of the headers that were made of properties; the first of a name counts.
fn adopt(headers: Vec<Named>, properties: &mut Properties) -> Vec<Named> {
    let mut rest = Vec::new();
    for (name, value) in headers {
        let Some(octets) = &value else {
            rest.push((name, value));
            continue;
        };
        let number = || std::str::from_utf8(octets).ok()?.parse::<u8>().ok();
        let text = match name.as_bytes() {
            b"content-type" => Some(&mut properties.content_type),
            b"content-encoding" => Some(&mut properties.content_encoding),
            b"correlation-id" => Some(&mut properties.correlation_id),
            b"reply-to" => Some(&mut properties.reply_to),
            b"expiration" => Some(&mut properties.expiration),
            b"message-id" => Some(&mut properties.message_id),
            b"type" => Some(&mut properties.kind),
            b"user-id" => Some(&mut properties.user_id),
            b"app-id" => Some(&mut properties.app_id),
            b"cluster-id" => Some(&mut properties.cluster_id),
            _ => None,
        };
        let taken = match (name.as_bytes(), text) {
            (_, Some(place @ None)) => {
                *place = Some(octets.clone().into());
                true
            }
            (b"priority", _) if properties.priority.is_none() => {
                properties.priority = number();
                properties.priority.is_some()
            }
            (b"delivery-mode", _) if properties.delivery_mode.is_none() => {
                properties.delivery_mode = number();
                properties.delivery_mode.is_some()
            }
            _ => false,
        };
        if !taken {
            rest.push((name, value));
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(target: Target, message: Message) -> ErrorKind {
        let Err(error) = envelope(&target, &message, PropertyMapping::Refuse) else { panic!("it was taken") };
        assert_eq!(error.outcome(), Outcome::NotSent, "{error}");
        error.kind()
    }

    #[test]
    fn kk2_what_kafka_does_not_have_is_told_before_anything_is_sent() {
        let message = || Message::new("x");
        assert_eq!(refused(Target::queue("q"), message()), ErrorKind::Unsupported);
        assert_eq!(refused(Target::exchange("x", "k"), message()), ErrorKind::Unsupported);
        assert_eq!(refused(Target::topic("t").mandatory(true), message()), ErrorKind::Unsupported);
        for wrong in ["", ".", "a b", "a/b", "ä", "a\0b", &"x".repeat(250)] {
            assert_eq!(refused(Target::topic(wrong), message()), ErrorKind::InvalidArgument, "{wrong:?}");
        }
        assert_eq!(refused(Target::topic("t").partition(-1), message()), ErrorKind::InvalidArgument);
        assert_eq!(refused(Target::topic("t"), message().timestamp(u64::MAX)), ErrorKind::InvalidArgument);
        assert_eq!(refused(Target::topic("t"), message().header("a\0b", "x")), ErrorKind::InvalidArgument);
        for message in [
            message().priority(0),
            message().content_type("text/plain"),
            message().expiration("1"),
            message().transient(),
            message().header("n", 1i32),
        ] {
            assert_eq!(refused(Target::topic("t"), message), ErrorKind::Unsupported);
        }
        assert!(envelope(&Target::topic("t"), &message().persistent(), PropertyMapping::Refuse).is_ok());
    }

    #[test]
    fn kk2_mapped_properties_come_back_as_properties() {
        let message = Message::new("x")
            .content_type("text/plain")
            .content_encoding("gzip")
            .priority(9)
            .correlation_id("c")
            .reply_to("r")
            .expiration("60000")
            .message_id("m")
            .kind("t")
            .user_id("guest")
            .app_id("a")
            .cluster_id("z")
            .transient();
        let target = Target::topic("t");
        let sent = envelope(&target, &message, PropertyMapping::Headers).unwrap().headers.unwrap();
        let sent = sent.as_borrowed();
        let owned = |at| sent.try_get(at).map(|h| (h.key.into(), h.value.map(Bytes::copy_from_slice)));
        let headers: Vec<Named> = (0..sent.count()).filter_map(owned).collect();
        assert_eq!(headers.len(), 12);
        let mut properties = Properties::new();
        assert!(adopt(headers, &mut properties).is_empty());
        assert_eq!(message.properties, properties);
    }
}
