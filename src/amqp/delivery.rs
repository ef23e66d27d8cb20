//! Messages that came, and settling them.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use triomphe::{ArcUnion, ArcUnionBorrow};

use super::shared::ChannelGuard;
use crate::codec::{Properties, RawProperties, ReplyCode, ShortString};
use crate::error::Result;
use crate::protocol::Layout;
use crate::protocol::client::{Batch, Returned, Settle, Single};

/// Messages that came close together, and what settles them.
#[derive(Debug)]
pub(crate) struct Shared {
    batch: Batch,
    /// `None` where nothing is to be settled.
    settler: Option<Settler>,
}

/// What settles deliveries: their channel.
#[derive(Clone, Debug)]
pub(crate) struct Settler {
    pub(crate) channel: Arc<ChannelGuard>,
    /// Acks are coalesced.
    pub(crate) coalesces: bool,
}

impl Settler {
    #[inline]
    pub(crate) fn ack(&self, delivery_tag: u64) -> Result<()> {
        match self.coalesces {
            false => self.channel.settle(delivery_tag, Settle::Ack { multiple: false }),
            true => self.ack_coalesced(delivery_tag),
        }
    }

    #[inline(never)] // so that the most frequent ack is inlined
    fn ack_coalesced(&self, delivery_tag: u64) -> Result<()> {
        self.channel.settle(delivery_tag, Settle::CoalescedAck)
    }

    #[inline(never)] // for the same reason
    pub(crate) fn settle(&self, delivery_tag: u64, settle: Settle) -> Result<()> {
        self.channel.settle(delivery_tag, settle)
    }

    /// Whether the settling of a later delivery has settled this one.
    pub(crate) fn was_settled_with_later(&self, delivery_tag: u64) -> bool {
        self.channel.guard.shared.look(|machine| machine.was_settled_with_later(self.channel.id, delivery_tag))
    }
}

impl Shared {
    pub(crate) fn new(batch: Batch, settler: Option<Settler>) -> triomphe::Arc<Self> {
        triomphe::Arc::new(Self { batch, settler })
    }

    /// The tag of the message at this place.
    #[inline]
    pub(crate) fn delivery_tag(&self, place: usize) -> u64 {
        self.batch.at(place).delivery_tag
    }
}

/// A message that came from the server. Exchange, routing key and properties are decoded when they are asked for.
#[derive(Clone)]
pub struct Message {
    /// With others that came close to it, or by itself, to be kept. One pointer for both: an `enum` is written in pieces and read as a
    /// whole when the message is handed over, for which the processor waits longer than for all else that it does with a small one.
    memory: ArcUnion<Shared, Single>,
    place: usize,
}

impl Message {
    /// The message at this place of a batch.
    #[inline]
    pub(crate) fn at(shared: triomphe::Arc<Shared>, place: usize) -> Self {
        Self { memory: ArcUnion::from_first(shared), place }
    }

    /// A message that came alone.
    pub(crate) fn alone(batch: Batch, settler: Option<Settler>) -> Self {
        Self::at(Shared::new(batch, settler), 0)
    }

    /// In memory of its own, to be kept.
    fn detached(&self) -> Self {
        match self.memory.borrow() {
            ArcUnionBorrow::First(shared) => match shared.get().batch.single(self.place) {
                Some(single) => Self { memory: ArcUnion::from_second(triomphe::Arc::new(single)), place: 0 },
                None => Self::alone(shared.get().batch.alone(self.place), None),
            },
            ArcUnionBorrow::Second(_) => self.clone(),
        }
    }

    /// Where it stands, and in which octets.
    fn place(&self) -> (Layout, &[u8]) {
        match self.memory.borrow() {
            ArcUnionBorrow::First(shared) => (shared.get().batch.at(self.place).layout, shared.get().batch.memory()),
            ArcUnionBorrow::Second(single) => (single.get().layout(), single.get().memory()),
        }
    }

    /// The body, where it stayed where it was read.
    fn apart(&self) -> Option<&Bytes> {
        match self.memory.borrow() {
            ArcUnionBorrow::First(shared) => shared.get().batch.apart(self.place),
            ArcUnionBorrow::Second(_) => None,
        }
    }

    /// The body.
    #[doc(alias = "data")]
    #[doc(alias = "payload")]
    #[doc(alias = "content")]
    pub fn body(&self) -> &[u8] {
        match self.apart() {
            Some(body) => body,
            None => {
                let (layout, octets) = self.place();
                layout.body(octets)
            }
        }
    }

    /// The body as a value of its own: a small one is copied, a large one is not.
    pub fn into_body(self) -> Bytes {
        self.to_body()
    }

    /// The same, for one who goes on with the message.
    pub(crate) fn to_body(&self) -> Bytes {
        match self.apart() {
            None => Bytes::copy_from_slice(self.body()),
            Some(body) => body.clone(),
        }
    }

    /// The tag it was delivered with.
    #[inline]
    pub(crate) fn delivery_tag(&self) -> u64 {
        match self.memory.borrow() {
            ArcUnionBorrow::First(shared) => shared.get().delivery_tag(self.place),
            ArcUnionBorrow::Second(_) => 0,
        }
    }

    /// What settles it, where it is to be settled.
    #[inline]
    pub(crate) fn settler(&self) -> Option<&Settler> {
        match self.memory.borrow() {
            ArcUnionBorrow::First(shared) => shared.get().settler.as_ref(),
            ArcUnionBorrow::Second(_) => None,
        }
    }

    /// The exchange it was published to, and the routing key it was published with.
    pub(crate) fn address(&self) -> (ShortString, ShortString) {
        let (layout, octets) = self.place();
        layout.address(octets)
    }

    /// The exchange it was published to; empty for the default exchange.
    pub fn exchange(&self) -> ShortString {
        self.address().0
    }

    /// The routing key it was published with.
    pub fn routing_key(&self) -> ShortString {
        self.address().1
    }

    /// The properties.
    ///
    /// # Errors
    ///
    /// `Protocol` when they cannot be decoded, for example because of a header in an unknown type. The message can
    /// still be settled, and [`raw_properties`](Self::raw_properties) has what can be read.
    pub fn properties(&self) -> Result<Properties> {
        Ok(self.raw_properties().decode()?)
    }

    /// The properties as they came.
    pub fn raw_properties(&self) -> RawProperties {
        let (layout, octets) = self.place();
        layout.properties(octets)
    }

    /// Whether it may have been delivered before. A hint: `true` does not mean that anybody handled it (c121).
    pub fn redelivered(&self) -> bool {
        match self.memory.borrow() {
            ArcUnionBorrow::First(shared) => shared.get().batch.at(self.place).redelivered,
            ArcUnionBorrow::Second(single) => single.get().redelivered,
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("exchange", &self.exchange())
            .field("routing_key", &self.routing_key())
            .field("redelivered", &self.redelivered())
            .field("body", &format_args!("{} octets", self.body().len()))
            .finish_non_exhaustive()
    }
}

/// A message that has to be settled: it is a [`Message`], and [`ack`](Self::ack) and its kin consume it, so settling twice does not
/// compile. Dropped without a word it stays unsettled until its channel ends.
#[derive(Debug)]
#[doc(alias = "IncomingMessage")]
pub struct Delivery(Message);

impl Delivery {
    /// The message's memory names its channel.
    #[inline]
    pub(crate) fn new(message: Message) -> Self {
        Self(message)
    }

    #[inline]
    fn settle(&self, settle: Settle) -> Result<()> {
        settle_on(self.0.settler(), self.delivery_tag(), settle)
    }

    /// It was handled (`basic.ack`).
    ///
    /// Only appends to the connection's buffer; nothing is waited for. How it is sent is the consumer's matter
    /// ([`coalesce_acks`](super::BasicConsume::coalesce_acks)).
    ///
    /// # Errors
    ///
    /// `Stale`: the channel has ended and the server has put the message back, or a later delivery was settled together with those before
    /// it ([`ack_multiple`](Self::ack_multiple)). Nothing was sent.
    #[inline]
    #[doc(alias = "basic_ack")]
    pub fn ack(self) -> Result<()> {
        ack_on(self.0.settler(), self.delivery_tag())
    }

    /// It was handled, and so was everything that this channel delivered before it (`basic.ack` with multiple).
    ///
    /// Settling those again is `Stale`, and sends nothing.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    pub fn ack_multiple(self) -> Result<()> {
        self.settle(Settle::Ack { multiple: true })
    }

    /// It was not handled (`basic.nack`, RabbitMQ): back into the queue, or dropped and dead-lettered where the queue has
    /// somewhere to send it.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    #[doc(alias = "basic_nack")]
    pub fn nack(self, requeue: bool) -> Result<()> {
        self.settle(Settle::Nack { multiple: false, requeue })
    }

    /// It was not handled, and neither was anything that this channel delivered before it (`basic.nack` with multiple).
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    pub fn nack_multiple(self, requeue: bool) -> Result<()> {
        self.settle(Settle::Nack { multiple: true, requeue })
    }

    /// It is refused (`basic.reject`): back into the queue, or dropped and dead-lettered. RabbitMQ 4.3's quorum queues count a
    /// reject as a failed delivery and a nack not.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    #[doc(alias = "basic_reject")]
    pub fn reject(self, requeue: bool) -> Result<()> {
        self.settle(Settle::Reject { requeue })
    }

    /// The delivery tag: counts the deliveries of the channel.
    #[inline]
    pub fn delivery_tag(&self) -> u64 {
        self.0.delivery_tag()
    }

    /// The message, for one who settles it himself. It keeps its channel open, and what stands close to it in memory.
    #[inline]
    pub(crate) fn into_message(self) -> Message {
        self.0
    }

    /// The message, and what settles it, for settling elsewhere. The message alone keeps no channel open.
    pub fn detach(self) -> (Message, Acker) {
        let acker = Acker { settler: self.0.settler().cloned(), delivery_tag: self.delivery_tag() };
        (self.0.detached(), acker)
    }
}

impl Deref for Delivery {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.0
    }
}

/// Settles one delivery. Keeps its channel, so a tag can never be settled on another one (c109).
#[derive(Debug)]
pub struct Acker {
    settler: Option<Settler>,
    delivery_tag: u64,
}

impl Acker {
    /// As [`Delivery::ack`].
    ///
    /// # Errors
    ///
    /// As [`Delivery::ack`].
    #[inline]
    pub fn ack(self) -> Result<()> {
        ack_on(self.settler.as_ref(), self.delivery_tag)
    }

    /// As [`Delivery::nack`].
    ///
    /// # Errors
    ///
    /// As [`Delivery::ack`].
    pub fn nack(self, requeue: bool) -> Result<()> {
        self.settle(Settle::Nack { multiple: false, requeue })
    }

    /// As [`Delivery::reject`].
    ///
    /// # Errors
    ///
    /// As [`Delivery::ack`].
    pub fn reject(self, requeue: bool) -> Result<()> {
        self.settle(Settle::Reject { requeue })
    }

    /// The delivery tag.
    pub fn delivery_tag(&self) -> u64 {
        self.delivery_tag
    }

    fn settle(&self, settle: Settle) -> Result<()> {
        settle_on(self.settler.as_ref(), self.delivery_tag, settle)
    }
}

/// A delivery has a channel; a message without one is none, and there is nothing to settle.
#[inline]
fn settle_on(settler: Option<&Settler>, delivery_tag: u64, settle: Settle) -> Result<()> {
    match settler {
        Some(settler) => settler.settle(delivery_tag, settle),
        None => Ok(()),
    }
}

/// The same with an ack, as it was asked for.
#[inline]
fn ack_on(settler: Option<&Settler>, delivery_tag: u64) -> Result<()> {
    match settler {
        Some(settler) => settler.ack(delivery_tag),
        None => Ok(()),
    }
}

impl Returned {
    /// Why it came back: mostly 312, no route.
    pub fn reply_code(&self) -> ReplyCode {
        self.reply_code
    }

    /// Why it came back, in the server's words.
    pub fn reply_text(&self) -> std::borrow::Cow<'_, str> {
        self.reply_text.to_string_lossy()
    }

    /// The message.
    pub fn message(&self) -> Message {
        Message::alone(Batch::of(0, false, self.content.clone()), None)
    }
}
