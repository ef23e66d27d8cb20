//! Messages that came, and what can be said of them.

use crate::codec::ShortString;

/// A message that came, as a transport hands it over that has no memory of its own to look at it in.
#[cfg(feature = "kafka")]
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) message: super::Message,
    pub(crate) detail: DeliveryDetail,
    /// Why its headers cannot be read, if so.
    pub(crate) malformed: Option<crate::error::Error>,
}

/// What the transport says of a message that came.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryDetail {
    /// AMQP 0-9-1.
    #[non_exhaustive]
    Amqp {
        /// The exchange it was published to; empty for the default exchange.
        exchange: ShortString,
        /// The routing key it was published with.
        routing_key: ShortString,
        /// Counts the deliveries of its channel.
        delivery_tag: u64,
    },
    /// Kafka.
    #[non_exhaustive]
    Kafka {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Its place in the partition.
        offset: i64,
        /// Milliseconds since 1970, where the record has a timestamp.
        timestamp: Option<i64>,
    },
}

/// What is to be done with a delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// It was handled. AMQP: `basic.ack`. Kafka: its offset is stored.
    #[default]
    Accept,
    /// It is never going to be handled. AMQP: `basic.reject` without requeue, which dead-letters it where the queue has somewhere
    /// to send it, and drops it otherwise. Kafka: `Unsupported`.
    Reject,
    /// It was not looked at: somebody else may have it. AMQP: `basic.nack` with requeue, which quorum queues from RabbitMQ
    /// 4.3 on do not count as a failed delivery. Kafka: `Unsupported`.
    Release,
    /// It was looked at and not handled. AMQP: see [`Modify`]. Kafka: `Unsupported`.
    Modify(Modify),
}

/// Not handled, and why it matters.
///
/// | `delivery_failed` | `undeliverable_here` | AMQP 0-9-1 |
/// |---|---|---|
/// | true | false | `basic.reject` with requeue: quorum queues count it as a failed delivery |
/// | false | false | `basic.nack` with requeue, as [`Disposition::Release`] |
/// | any | true | `basic.reject` without requeue, as [`Disposition::Reject`] |
///
/// Annotations, which AMQP 1.0 has here, cannot travel in 0-9-1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Modify {
    /// This attempt counts as failed.
    pub delivery_failed: bool,
    /// Not to this receiver again. AMQP 0-9-1 cannot tell receivers apart, so it goes to nobody again.
    pub undeliverable_here: bool,
}

/// What becomes of a delivery that is dropped without a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(usize)] // a word: deliveries have it, and are handed on a lot, and an octet in a word would stall the processor each time
pub enum OnDrop {
    /// It goes back at once: `basic.nack` with requeue. On Kafka as [`Leave`](Self::Leave).
    #[default]
    Release,
    /// It stays unsettled until its receiver, or the connection, ends.
    Leave,
    /// It is rejected: `basic.reject` without requeue. On Kafka as [`Leave`](Self::Leave).
    Reject,
}
