//! A message that is to be settled, and what settles it.

use std::fmt;
use std::ops::Deref;

use super::over_amqp::convert;
use super::received::Received;
use crate::amqp::{self, Settler};
use crate::error::Result;
#[cfg(feature = "kafka")]
use crate::kafka;
#[cfg(feature = "kafka")]
use crate::message::Arrived;
use crate::message::{Disposition, Message, Modify, OnDrop};

/// A message that is to be settled: it is a [`Received`], and [`accept`](Self::accept) and its kin consume it, so settling twice does not
/// compile.
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
    received: Received,
    bond: Bond,
}

/// What is left to be done about a delivery. Over AMQP the message knows its channel and its tag.
enum Bond {
    Amqp(OnDrop),
    #[cfg(feature = "kafka")]
    Kafka(Box<kafka::Acker>),
}

/// It was settled.
const DONE: Bond = Bond::Amqp(OnDrop::Leave);

impl Delivery {
    #[inline]
    pub(super) fn over_amqp(delivery: amqp::Delivery, on_drop: OnDrop) -> Self {
        Self { received: delivery.into_message().into(), bond: Bond::Amqp(on_drop) }
    }

    #[cfg(feature = "kafka")]
    pub(super) fn over_kafka(arrived: Arrived, acker: kafka::Acker) -> Self {
        Self { received: arrived.into(), bond: Bond::Kafka(acker.into()) }
    }

    /// It was handled: `basic.ack`. On Kafka the offset behind it is stored when everything before it in its partition was accepted,
    /// too; stored offsets are committed every `auto.commit.interval.ms`, and on closing.
    ///
    /// # Errors
    ///
    /// `Stale`: its channel has ended and the server has put it back, or [`settle_up_to`](super::Receiver::settle_up_to) has settled
    /// it. Nothing was sent. On Kafka: another member of the group has its partition now, or the receiver's client was closed.
    #[doc(alias = "ack")]
    #[doc(alias = "basic_ack")]
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
    #[doc(alias = "basic_reject")]
    pub fn reject(self) -> Result<()> {
        self.settle(Disposition::Reject)
    }

    /// It was not looked at, and somebody else may have it: `basic.nack` with requeue.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept); `Unsupported` on Kafka.
    #[doc(alias = "requeue")]
    #[doc(alias = "nack")]
    #[doc(alias = "basic_nack")]
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
    pub fn settle(mut self, how: Disposition) -> Result<()> {
        match std::mem::replace(&mut self.bond, DONE) {
            Bond::Amqp(_) => match self.settler() {
                Some((settler, tag)) => settle(settler, tag, how),
                None => Ok(()),
            },
            #[cfg(feature = "kafka")]
            Bond::Kafka(mut acker) => acker.settle(how),
        }
    }

    /// What settles it over AMQP, and its tag.
    #[inline]
    fn settler(&self) -> Option<(&Settler, u64)> {
        let message = self.received.amqp()?;
        Some((message.settler()?, message.delivery_tag()))
    }

    /// The message, and what settles it, for settling elsewhere. The message is a value of its own, see
    /// [`Received::message`].
    pub fn detach(self) -> (Message, Acker) {
        let (received, acker) = self.into_parts();
        (received.into(), acker)
    }

    pub(super) fn into_parts(mut self) -> (Received, Acker) {
        let kind = match std::mem::replace(&mut self.bond, DONE) {
            Bond::Amqp(on_drop) => {
                let settler = self.settler().map(|(settler, tag)| (settler.clone(), tag));
                Kind::Amqp { settler, on_drop }
            }
            #[cfg(feature = "kafka")]
            Bond::Kafka(acker) => Kind::Kafka(acker),
        };
        (self.received.clone(), Acker { kind })
    }

    pub(super) fn settle_up_to(&self, how: Disposition) -> Result<()> {
        match &self.bond {
            Bond::Amqp(_) => {
                let how = convert::settle_up_to(how)?;
                match self.settler() {
                    Some((settler, tag)) => settler.settle(tag, how),
                    None => Ok(()),
                }
            }
            #[cfg(feature = "kafka")]
            Bond::Kafka(acker) => acker.settle_up_to(how),
        }
    }
}

impl Deref for Delivery {
    type Target = Received;

    #[inline]
    fn deref(&self) -> &Received {
        &self.received
    }
}

impl Drop for Delivery {
    #[inline]
    fn drop(&mut self) {
        match &self.bond {
            Bond::Amqp(OnDrop::Leave) => {}
            Bond::Amqp(on_drop) => give_up(self.settler(), *on_drop),
            // It leaves its record by itself.
            #[cfg(feature = "kafka")]
            Bond::Kafka(_) => {}
        }
    }
}

/// Settles a delivery that was dropped, unless that was done before.
fn give_up(settler: Option<(&Settler, u64)>, on_drop: OnDrop) {
    let how = match on_drop {
        OnDrop::Release => Disposition::Release,
        OnDrop::Reject => Disposition::Reject,
        OnDrop::Leave => return,
    };
    if let Some((settler, tag)) = settler
        && !settler.was_settled_with_later(tag)
    {
        // When its channel has ended the server has put it back.
        let _ = settle(settler, tag, how);
    }
}

#[inline]
fn settle(settler: &Settler, tag: u64, how: Disposition) -> Result<()> {
    match convert::settle(how) {
        None => settler.ack(tag),
        Some(how) => settler.settle(tag, how),
    }
}

impl fmt::Debug for Bond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Amqp(on_drop) => f.debug_tuple("Amqp").field(on_drop).finish(),
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => f.debug_tuple("Kafka").finish_non_exhaustive(),
        }
    }
}

/// Settles one delivery, wherever its message is. It keeps its channel: a tag is never settled on another one. Dropped without a word
/// it does what [`on_drop`](super::ReceiverBuilder::on_drop) says.
pub struct Acker {
    kind: Kind,
}

enum Kind {
    Amqp {
        settler: Option<(Settler, u64)>,
        on_drop: OnDrop,
    },
    #[cfg(feature = "kafka")]
    Kafka(Box<kafka::Acker>),
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
    pub fn settle(mut self, how: Disposition) -> Result<()> {
        match &mut self.kind {
            Kind::Amqp { settler, .. } => match settler.take() {
                Some((settler, tag)) => settle(&settler, tag, how),
                None => Ok(()),
            },
            #[cfg(feature = "kafka")]
            Kind::Kafka(acker) => acker.settle(how),
        }
    }

    /// Whether [`settle_up_to`](super::Receiver::settle_up_to) has settled it.
    pub fn is_settled(&self) -> bool {
        match &self.kind {
            Kind::Amqp { settler: Some((settler, tag)), .. } => settler.was_settled_with_later(*tag),
            Kind::Amqp { settler: None, .. } => true,
            #[cfg(feature = "kafka")]
            Kind::Kafka(acker) => acker.is_settled(),
        }
    }
}

impl Drop for Acker {
    fn drop(&mut self) {
        match &self.kind {
            Kind::Amqp { settler, on_drop } => {
                give_up(settler.as_ref().map(|(settler, tag)| (settler, *tag)), *on_drop)
            }
            #[cfg(feature = "kafka")]
            Kind::Kafka(_) => {}
        }
    }
}

impl fmt::Debug for Acker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acker").field("settled", &self.is_settled()).finish()
    }
}
