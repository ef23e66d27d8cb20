//! A message that is to be settled, and what settles it.

use std::fmt;

use super::over_amqp::inbox;
use crate::error::Result;
#[cfg(feature = "kafka")]
use crate::kafka;
use crate::message::{DeliveryDetail, Disposition, Message, Modify, Received};

/// A message that is to be settled: [`accept`](Self::accept) and its kin consume it, so settling twice does not compile.
///
/// Settling appends to the connection's buffer; nothing is waited for. Dropped without a word, the delivery goes back, or what
/// [`on_drop`](super::ReceiverBuilder::on_drop) says.
///
/// ```compile_fail,E0382
/// fn twice(delivery: leveret::messaging::Delivery) -> leveret::error::Result<()> {
///     delivery.accept()?;
///     delivery.reject()
/// }
/// ```
#[derive(Debug)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// It may have been delivered before. A hint: `true` does not mean that anybody handled it.
    #[doc(alias = "first_acquirer")]
    pub redelivered: bool,
    /// What the transport says of it.
    pub detail: DeliveryDetail,
    /// Why its headers cannot be read, if so: [`message`](Self::message) then has all but the headers.
    pub malformed: Option<crate::error::Error>,
    acker: Acker,
}

impl Delivery {
    #[inline]
    pub(super) fn new(received: Received, kind: impl Into<Kind>) -> Self {
        let Received { message, redelivered, detail, malformed } = received;
        Self { message, redelivered, detail, malformed, acker: Acker { kind: kind.into() } }
    }

    /// It was handled: `basic.ack`. On Kafka the offset behind it is stored when everything before it in its partition was accepted,
    /// too; stored offsets are committed every `auto.commit.interval.ms`, and on closing.
    ///
    /// # Errors
    ///
    /// `Stale`: its channel has ended and the server has put it back, or [`settle_up_to`](super::Receiver::settle_up_to) has settled
    /// it. Nothing was sent. On Kafka: another member of the group has its partition now, or the receiver's client was closed.
    #[doc(alias = "ack")]
    #[inline]
    pub fn accept(self) -> Result<()> {
        self.settle(Disposition::Accept)
    }

    /// It is never going to be handled: `basic.reject` without requeue. It is dead-lettered where its queue has somewhere to send it,
    /// and dropped otherwise.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept); `Unsupported` on Kafka.
    #[doc(alias = "dead_letter")]
    pub fn reject(self) -> Result<()> {
        self.settle(Disposition::Reject)
    }

    /// It was not looked at, and somebody else may have it: `basic.nack` with requeue.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept); `Unsupported` on Kafka.
    #[doc(alias = "requeue")]
    #[doc(alias = "abandon")]
    pub fn release(self) -> Result<()> {
        self.settle(Disposition::Release)
    }

    /// It was looked at and not handled: `basic.reject` with requeue for one that has failed, and so on as [`Modify`] says.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept); `Unsupported` on Kafka.
    pub fn modify(self, how: Modify) -> Result<()> {
        self.settle(Disposition::Modify(how))
    }

    /// As the disposition says.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept); `Unsupported` for what the transport has not.
    #[inline]
    pub fn settle(self, how: Disposition) -> Result<()> {
        self.acker.settle(how)
    }

    /// The message, and what settles it, for settling elsewhere.
    pub fn detach(self) -> (Message, Acker) {
        (self.message, self.acker)
    }

    pub(super) fn into_parts(self) -> (Received, Acker) {
        let Self { message, redelivered, detail, malformed, acker } = self;
        let mut received = Received::new(message, redelivered, detail);
        received.malformed = malformed;
        (received, acker)
    }

    pub(super) fn acker(&self) -> &Acker {
        &self.acker
    }

    /// How often it was delivered before without success, where the server counts that: RabbitMQ's quorum queues do
    /// (`x-delivery-count`).
    pub fn delivery_count(&self) -> Option<u64> {
        crate::message::delivery_count(&self.message)
    }

    /// The delivery tag: counts the deliveries of its channel (AMQP).
    #[doc(alias = "delivery_no")]
    pub fn delivery_tag(&self) -> Option<u64> {
        match self.detail {
            DeliveryDetail::Amqp { delivery_tag, .. } => Some(delivery_tag),
            DeliveryDetail::Kafka { .. } => None,
        }
    }
}

/// Settles one delivery, wherever its message is. It keeps its channel: a tag is never settled on another one. Dropped without a word
/// it does what [`on_drop`](super::ReceiverBuilder::on_drop) says.
pub struct Acker {
    kind: Kind,
}

pub(super) enum Kind {
    Amqp(inbox::Acker),
    #[cfg(feature = "kafka")]
    Kafka(kafka::Acker),
}

#[cfg(feature = "kafka")]
impl From<kafka::Acker> for Kind {
    fn from(acker: kafka::Acker) -> Self {
        Self::Kafka(acker)
    }
}

impl From<inbox::Acker> for Kind {
    fn from(acker: inbox::Acker) -> Self {
        Self::Amqp(acker)
    }
}

impl Acker {
    /// As [`Delivery::accept`].
    ///
    /// # Errors
    ///
    /// As [`Delivery::accept`].
    pub fn accept(self) -> Result<()> {
        self.settle(Disposition::Accept)
    }

    /// As [`Delivery::reject`].
    ///
    /// # Errors
    ///
    /// As [`Delivery::reject`].
    pub fn reject(self) -> Result<()> {
        self.settle(Disposition::Reject)
    }

    /// As [`Delivery::release`].
    ///
    /// # Errors
    ///
    /// As [`Delivery::release`].
    pub fn release(self) -> Result<()> {
        self.settle(Disposition::Release)
    }

    /// As [`Delivery::settle`].
    ///
    /// # Errors
    ///
    /// As [`Delivery::settle`].
    #[inline]
    pub fn settle(mut self, how: Disposition) -> Result<()> {
        match &mut self.kind {
            Kind::Amqp(acker) => acker.settle(how),
            #[cfg(feature = "kafka")]
            Kind::Kafka(acker) => acker.settle(how),
        }
    }

    /// Whether [`settle_up_to`](super::Receiver::settle_up_to) has settled it.
    pub fn is_settled(&self) -> bool {
        match &self.kind {
            Kind::Amqp(acker) => acker.is_settled(),
            #[cfg(feature = "kafka")]
            Kind::Kafka(acker) => acker.is_settled(),
        }
    }

    pub(super) fn settle_up_to(&self, how: Disposition) -> Result<()> {
        match &self.kind {
            Kind::Amqp(acker) => acker.settle_up_to(how),
            #[cfg(feature = "kafka")]
            Kind::Kafka(acker) => acker.settle_up_to(how),
        }
    }
}

impl fmt::Debug for Acker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acker").field("settled", &self.is_settled()).finish()
    }
}
