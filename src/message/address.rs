//! Where messages go to, and where they come from.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{FieldTable, FieldValue, ShortString};
use crate::error::{Error, ErrorKind};

/// Where a message is sent.
///
/// ```
/// use leveret::messaging::Target;
///
/// let target = Target::exchange("orders", "eu.new").mandatory(false);
/// assert_eq!(target, "/exchanges/orders/eu.new".parse::<Target>().unwrap().mandatory(false));
/// ```
///
/// A queue or an exchange on Kafka, and a topic on AMQP, are an error of the kind `Unsupported` before anything is sent.
///
/// One word; clones share what it says. For many messages to the same place it is best made once and handed over as `&target`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[doc(alias = "node")]
pub struct Target(Arc<Route>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Route {
    address: Address,
    mandatory: Option<bool>,
}

/// The place that a [`Target`] names.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An AMQP queue, through the default exchange.
    Queue(ShortString),
    /// An AMQP exchange.
    Exchange {
        /// The exchange; empty for the default one, whose routing keys are the names of queues. There is none of the name `/`.
        exchange: ShortString,
        /// The routing key.
        routing_key: ShortString,
    },
    /// A Kafka topic.
    Topic {
        /// The topic.
        topic: String,
        /// The partition; without one the message's key decides, or chance.
        partition: Option<i32>,
    },
}

impl Target {
    /// An AMQP queue, by the default exchange.
    pub fn queue(name: impl Into<ShortString>) -> Self {
        Address::Queue(name.into()).into()
    }

    /// An AMQP exchange and a routing key.
    pub fn exchange(exchange: impl Into<ShortString>, routing_key: impl Into<ShortString>) -> Self {
        Address::Exchange { exchange: exchange.into(), routing_key: routing_key.into() }.into()
    }

    /// A Kafka topic; the message's key decides the partition.
    pub fn topic(topic: impl Into<String>) -> Self {
        Address::Topic { topic: topic.into(), partition: None }.into()
    }

    /// The partition of a topic. Of a queue or an exchange it says nothing.
    #[must_use]
    pub fn partition(mut self, number: i32) -> Self {
        if let Address::Topic { partition, .. } = &mut Arc::make_mut(&mut self.0).address {
            *partition = Some(number);
        }
        self
    }

    /// Whether the message is to come back when no queue takes it, in place of what the sender says. AMQP only.
    #[must_use]
    pub fn mandatory(mut self, mandatory: bool) -> Self {
        Arc::make_mut(&mut self.0).mandatory = Some(mandatory);
        self
    }

    /// The place.
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// Whether the message is to come back when no queue takes it; `None` for what the sender says.
    #[inline]
    pub fn is_mandatory(&self) -> Option<bool> {
        self.0.mandatory
    }

    /// Exchange and routing key.
    ///
    /// # Errors
    ///
    /// `Unsupported`, outcome `NotSent`: it is a topic.
    #[inline]
    pub(crate) fn amqp(&self) -> Result<(&[u8], &[u8]), Error> {
        match self.address() {
            Address::Queue(name) => Ok((b"", name.as_bytes())),
            Address::Exchange { exchange, routing_key } => Ok((exchange.as_bytes(), routing_key.as_bytes())),
            Address::Topic { .. } => Err(unsupported("a topic", "AMQP 0-9-1 has queues and exchanges")),
        }
    }
}

#[cfg(feature = "kafka")]
impl Target {
    /// Topic and partition.
    ///
    /// # Errors
    ///
    /// `Unsupported`, outcome `NotSent`: it is a queue or an exchange, or mandatory.
    pub(crate) fn kafka(&self) -> Result<(&str, Option<i32>), Error> {
        if self.is_mandatory() == Some(true) {
            return Err(unsupported("a mandatory target", "Kafka gives nothing back"));
        }
        match self.address() {
            Address::Topic { topic, partition } => Ok((topic, *partition)),
            Address::Queue(_) => Err(unsupported("a queue", "Kafka has topics")),
            Address::Exchange { .. } => Err(unsupported("an exchange", "Kafka has topics")),
        }
    }
}

fn unsupported(what: &str, why: &str) -> Error {
    let message = format!("{what} cannot be used here: {why}");
    Error::new(ErrorKind::Unsupported, message).with_outcome(crate::error::Outcome::NotSent)
}

impl From<Address> for Target {
    fn from(address: Address) -> Self {
        Self(Arc::new(Route { address, mandatory: None }))
    }
}

impl From<&Self> for Target {
    #[inline]
    fn from(target: &Self) -> Self {
        target.clone()
    }
}

impl fmt::Display for Target {
    /// As [`from_str`](Self::from_str) reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Address::Queue(name) => write!(f, "/queues/{}", Escaped(name)),
            Address::Exchange { exchange, routing_key } if routing_key.is_empty() => {
                write!(f, "/exchanges/{}", Escaped(exchange))
            }
            Address::Exchange { exchange, routing_key } => {
                write!(f, "/exchanges/{}/{}", Escaped(exchange), Escaped(routing_key))
            }
            Address::Topic { topic, partition: None } => write!(f, "topic:{topic}"),
            Address::Topic { topic, partition: Some(partition) } => write!(f, "topic:{topic}:{partition}"),
        }
    }
}

/// What has a meaning in an address is written with percent signs.
struct Escaped<'a>(&'a ShortString);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        percent_encoding::percent_encode(self.0.as_bytes(), SPECIAL).fmt(f)
    }
}

const SPECIAL: &percent_encoding::AsciiSet =
    &percent_encoding::CONTROLS.add(b'/').add(b'%').add(b' ').add(b'?').add(b'#');

impl FromStr for Target {
    type Err = Error;

    /// Reads RabbitMQ's addresses for AMQP 1.0 (version 2), `/queues/NAME`, `/exchanges/NAME/KEY` and `/exchanges/NAME`, in which
    /// a slash in a name is `%2F`; and `topic:NAME`, `topic:NAME:PARTITION`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let decoded = |part: &str| ShortString::from(Bytes::from_iter(percent_encoding::percent_decode_str(part)));
        let wrong = |what: &str| Err(Error::new(ErrorKind::InvalidArgument, format!("not an address: {what}")));
        if let Some(name) = text.strip_prefix("/queues/") {
            return match name {
                "" => wrong("the queue has no name"),
                name if name.contains('/') => wrong("a slash in a queue's name is written %2F"),
                name => Ok(Self::queue(decoded(name))),
            };
        }
        if let Some(rest) = text.strip_prefix("/exchanges/") {
            let (exchange, routing_key) = rest.split_once('/').unwrap_or((rest, ""));
            return match exchange {
                "" => wrong("the exchange has no name; for the default one it is /queues/NAME"),
                _ if routing_key.contains('/') => wrong("a slash in a routing key is written %2F"),
                exchange => Ok(Self::exchange(decoded(exchange), decoded(routing_key))),
            };
        }
        if let Some(topic) = text.strip_prefix("topic:") {
            return match topic.split_once(':') {
                _ if topic.is_empty() => wrong("the topic has no name"),
                None => Ok(Self::topic(topic)),
                Some((topic, partition)) => match partition.parse() {
                    Ok(partition) if !topic.is_empty() => Ok(Self::topic(topic).partition(partition)),
                    _ => wrong("the partition is a number"),
                },
            };
        }
        wrong("it begins with /queues/, /exchanges/ or topic:")
    }
}

/// Where messages are received from.
///
/// ```
/// use leveret::messaging::Source;
///
/// let stream = Source::queue("log").argument("x-stream-offset", "first");
/// let topics = Source::topics(["orders", "returns"], "billing");
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// An AMQP queue.
    #[non_exhaustive]
    Queue {
        /// The queue.
        name: ShortString,
        /// Arguments of the consumer: `x-priority`, `x-stream-offset`, ...
        arguments: FieldTable,
        /// Nobody else may receive from it.
        exclusive: bool,
    },
    /// Kafka topics, received by the members of a group together.
    #[non_exhaustive]
    Topic {
        /// The topics.
        topics: Vec<String>,
        /// The group: its members share the partitions, and it keeps the offsets.
        group: String,
    },
}

impl Source {
    /// An AMQP queue.
    pub fn queue(name: impl Into<ShortString>) -> Self {
        Self::Queue { name: name.into(), arguments: FieldTable::new(), exclusive: false }
    }

    /// A Kafka topic, as a member of a group.
    pub fn topic(topic: impl Into<String>, group: impl Into<String>) -> Self {
        Self::topics([topic], group)
    }

    /// Several Kafka topics, as a member of a group.
    pub fn topics(topics: impl IntoIterator<Item = impl Into<String>>, group: impl Into<String>) -> Self {
        Self::Topic { topics: topics.into_iter().map(Into::into).collect(), group: group.into() }
    }

    /// One more argument of the consumer, for example `x-stream-offset`. Of topics it says nothing.
    #[must_use]
    #[doc(alias = "filter")]
    pub fn argument(mut self, name: impl Into<ShortString>, value: impl Into<FieldValue>) -> Self {
        if let Self::Queue { arguments, .. } = &mut self {
            arguments.insert(name, value);
        }
        self
    }

    /// Nobody else may receive from the queue. Of topics it says nothing.
    #[must_use]
    pub fn exclusive(mut self) -> Self {
        if let Self::Queue { exclusive, .. } = &mut self {
            *exclusive = true;
        }
        self
    }
}

impl From<&Self> for Source {
    fn from(source: &Self) -> Self {
        source.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_written_as_they_are_read() {
        for (text, target) in [
            ("/queues/orders", Target::queue("orders")),
            ("/queues/a%2Fb%25", Target::queue("a/b%")),
            ("/exchanges/x/a.b.c", Target::exchange("x", "a.b.c")),
            ("/exchanges/x%2Fy/k%2Fl", Target::exchange("x/y", "k/l")),
            ("/exchanges/fanout", Target::exchange("fanout", "")),
            ("topic:orders", Target::topic("orders")),
            ("topic:orders:3", Target::topic("orders").partition(3)),
        ] {
            assert_eq!(text.parse::<Target>().unwrap(), target);
            assert_eq!(target.to_string(), text);
        }
        for text in ["", "orders", "/queues/", "/queues/a/b", "/exchanges/", "/exchanges//k", "/exchanges/x/k/l"] {
            assert_eq!(text.parse::<Target>().unwrap_err().kind(), ErrorKind::InvalidArgument, "{text}");
        }
        for text in ["topic:", "topic::3", "topic:x:y", "topic:x:"] {
            assert_eq!(text.parse::<Target>().unwrap_err().kind(), ErrorKind::InvalidArgument, "{text}");
        }
    }

    #[test]
    fn a_topic_is_not_amqp() {
        let error = Target::topic("t").amqp().unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unsupported, crate::error::Outcome::NotSent));
        assert_eq!(Target::queue("q").amqp().unwrap(), (&b""[..], &b"q"[..]));
    }
}
