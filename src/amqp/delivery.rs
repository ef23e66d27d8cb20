//! Messages that came, and settling them.

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

use super::shared::ChannelGuard;
use crate::codec::{Properties, RawProperties, ReplyCode, ShortString};
use crate::error::Result;
use crate::protocol::Content;
use crate::protocol::client::{Returned, Settle};

/// A message that came from the server. Exchange, routing key and properties are decoded when they are asked for.
#[derive(Clone, Debug)]
pub struct Message {
    pub(crate) content: Content,
    pub(crate) redelivered: bool,
}

impl Message {
    /// The body.
    pub fn body(&self) -> &[u8] {
        self.content.body()
    }

    /// The body as a value of its own, without a copy.
    pub fn into_body(self) -> Bytes {
        self.content.into_body()
    }

    /// The exchange it was published to; empty for the default exchange.
    pub fn exchange(&self) -> ShortString {
        self.content.exchange()
    }

    /// The routing key it was published with.
    pub fn routing_key(&self) -> ShortString {
        self.content.routing_key()
    }

    /// The properties.
    ///
    /// # Errors
    ///
    /// `Protocol` when they cannot be decoded, for example because of a header in an unknown type. The message can
    /// still be settled, and [`raw_properties`](Self::raw_properties) has what can be read.
    pub fn properties(&self) -> Result<Properties> {
        Ok(self.content.properties().decode()?)
    }

    /// The properties as they came.
    pub fn raw_properties(&self) -> RawProperties {
        self.content.properties()
    }

    /// Whether it may have been delivered before. A hint: `true` does not mean that anybody handled it (c121).
    pub fn redelivered(&self) -> bool {
        self.redelivered
    }
}

/// A message that has to be settled: it is a [`Message`], and [`ack`](Self::ack) and its kin consume it, so settling twice does not
/// compile. Dropped without a word it stays unsettled until its channel ends.
#[derive(Debug)]
pub struct Delivery {
    message: Message,
    acker: Acker,
}

impl Delivery {
    #[inline]
    pub(crate) fn new(message: Message, acker: Acker) -> Self {
        Self { message, acker }
    }

    /// It was handled (`basic.ack`).
    ///
    /// Only appends to the connection's buffer; nothing is waited for.
    ///
    /// # Errors
    ///
    /// `Stale`: the channel has ended, the server has put the message back, and nothing was sent.
    #[inline]
    pub fn ack(self) -> Result<()> {
        self.acker.ack()
    }

    /// It was handled, and so was everything that this channel delivered before it (`basic.ack` with multiple).
    ///
    /// Deliveries that this settles must not be settled again: the server closes the channel with 406.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    pub fn ack_multiple(self) -> Result<()> {
        self.acker.settle(Settle::Ack { multiple: true })
    }

    /// It was not handled (`basic.nack`, RabbitMQ): back into the queue, or dropped and dead-lettered where the queue has
    /// somewhere to send it.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    pub fn nack(self, requeue: bool) -> Result<()> {
        self.acker.nack(requeue)
    }

    /// It was not handled, and neither was anything that this channel delivered before it (`basic.nack` with multiple).
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    pub fn nack_multiple(self, requeue: bool) -> Result<()> {
        self.acker.settle(Settle::Nack { multiple: true, requeue })
    }

    /// It is refused (`basic.reject`): back into the queue, or dropped and dead-lettered. RabbitMQ 4.3's quorum queues count a
    /// reject as a failed delivery and a nack not.
    ///
    /// # Errors
    ///
    /// As [`ack`](Self::ack).
    pub fn reject(self, requeue: bool) -> Result<()> {
        self.acker.reject(requeue)
    }

    /// The delivery tag: counts the deliveries of the channel.
    pub fn delivery_tag(&self) -> u64 {
        self.acker.delivery_tag
    }

    /// The message, and what settles it, for settling elsewhere.
    pub fn detach(self) -> (Message, Acker) {
        (self.message, self.acker)
    }
}

impl Deref for Delivery {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

/// Settles one delivery. Keeps its channel, so a tag can never be settled on another one (c109).
#[derive(Debug)]
pub struct Acker {
    channel: Arc<ChannelGuard>,
    delivery_tag: u64,
}

impl Acker {
    #[inline]
    pub(crate) fn new(channel: Arc<ChannelGuard>, delivery_tag: u64) -> Self {
        Self { channel, delivery_tag }
    }

    /// As [`Delivery::ack`].
    ///
    /// # Errors
    ///
    /// As [`Delivery::ack`].
    #[inline]
    pub fn ack(self) -> Result<()> {
        self.settle(Settle::Ack { multiple: false })
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

    #[inline]
    fn settle(&self, settle: Settle) -> Result<()> {
        let (id, tag) = (self.channel.id, self.delivery_tag);
        self.channel.guard.shared.with(|machine| machine.settle(id, tag, settle))
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
        Message { content: self.content.clone(), redelivered: false }
    }
}
