//! Publishing a message, and learning what became of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Sleep;

use super::channel::Channel;
use super::shared::ChannelGuard;
use super::{Confirmation, Properties};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::Body;
use crate::protocol::client::{Publish, Waiting};

/// The body of a message that is published: octets, which are copied into the connection's buffer, or a [`Bytes`], which is
/// written from where it lies when it is large.
#[derive(Clone, Debug)]
pub struct Payload<'a>(Kind<'a>);

#[derive(Clone, Debug)]
enum Kind<'a> {
    Borrowed(&'a [u8]),
    Shared(&'a Bytes),
    Owned(Bytes),
}

impl Payload<'_> {
    fn as_body(&self) -> Body<'_> {
        match &self.0 {
            Kind::Borrowed(octets) => Body::Borrowed(octets),
            Kind::Shared(octets) => Body::Shared(octets),
            Kind::Owned(octets) => Body::Shared(octets),
        }
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Payload<'a> {
    fn from(octets: &'a [u8; N]) -> Self {
        Self(Kind::Borrowed(octets))
    }
}

macro_rules! payload_from {
    ($( $from:ty: $octets:ident => $kind:expr; )*) => {
        $( impl<'a> From<$from> for Payload<'a> {
            fn from($octets: $from) -> Self {
                Self($kind)
            }
        } )*
    };
}

payload_from! {
    &'a [u8]: octets => Kind::Borrowed(octets);
    &'a Vec<u8>: octets => Kind::Borrowed(octets);
    &'a str: text => Kind::Borrowed(text.as_bytes());
    &'a String: text => Kind::Borrowed(text.as_bytes());
    &'a Bytes: octets => Kind::Shared(octets);
    Bytes: octets => Kind::Owned(octets);
    Vec<u8>: octets => Kind::Owned(octets.into());
    String: text => Kind::Owned(text.into());
}

/// A message that is published when it is awaited (`basic.publish`). The result is its [`Confirm`].
///
/// # Errors
///
/// `InvalidArgument` for names of more than 255 octets or headers that do not fit a frame; `Blocked` or `Timeout` when there was no
/// room before the deadline; whatever has ended the channel. The [outcome](Error::outcome) of all of them is
/// `NotSent`.
///
/// # Cancel safety
///
/// Dropped before it is ready, the message has not been sent.
#[derive(Debug)]
#[must_use = "a message is published when it is awaited"]
pub struct BasicPublish<'a> {
    channel: &'a Channel,
    exchange: &'a [u8],
    routing_key: &'a [u8],
    payload: Payload<'a>,
    properties: Option<&'a Properties>,
    mandatory: bool,
    immediate: bool,
    stamped: bool,
    deadline: Option<Duration>,
    waiting: Option<Waiting>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<'a> BasicPublish<'a> {
    #[inline]
    pub(crate) fn new(channel: &'a Channel, exchange: &'a [u8], routing_key: &'a [u8], payload: Payload<'a>) -> Self {
        Self {
            channel,
            exchange,
            routing_key,
            payload,
            properties: None,
            mandatory: false,
            immediate: false,
            stamped: false,
            deadline: None,
            waiting: None,
            timer: None,
        }
    }

    /// The message's properties. Without them it has none, and is transient.
    pub fn properties(mut self, properties: &'a Properties) -> Self {
        self.properties = Some(properties);
        self
    }

    /// The server is to give the message back when no queue takes it.
    pub fn mandatory(mut self, mandatory: bool) -> Self {
        self.mandatory = mandatory;
        self
    }

    /// The server is to give the message back when no consumer takes it at once. RabbitMQ does not know that any more: it closes
    /// the whole connection with 540.
    pub fn immediate(mut self, immediate: bool) -> Self {
        self.immediate = immediate;
        self
    }

    /// Marks the message, so that it is known for certain when it comes back. See [`Publish::stamped`].
    pub(crate) fn stamped(mut self, stamped: bool) -> Self {
        self.stamped = stamped;
        self
    }

    /// Publishes the message if there is room, without waiting for any.
    pub(crate) fn at_once(mut self) -> Result<Confirm> {
        match self.poll_room(Waker::noop()) {
            Poll::Ready(published) => published,
            Poll::Pending => Err(self.why_it_waits()),
        }
    }

    /// How long to wait for room, in place of [`ConnectionBuilder::call_deadline`](super::ConnectionBuilder::call_deadline).
    /// The confirm is not waited for here.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = Some(limit);
        self
    }

    #[cold]
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Confirm>> {
        let limit = self.deadline.unwrap_or(self.channel.inner.guard.call_deadline);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        timer.as_mut().poll(cx).map(|()| Err(self.why_it_waits()))
    }

    fn why_it_waits(&self) -> Error {
        self.channel.inner.guard.shared.look(crate::protocol::client::Connection::why_publishing_waits)
    }

    #[inline]
    fn poll_room(&mut self, waker: &Waker) -> Poll<Result<Confirm>> {
        let publish = Publish {
            exchange: self.exchange,
            routing_key: self.routing_key,
            mandatory: self.mandatory,
            immediate: self.immediate,
            stamped: self.stamped,
            properties: self.properties,
            body: self.payload.as_body(),
        };
        let inner = &self.channel.inner;
        let waiting = &mut self.waiting;
        let polled = inner.guard.shared.with(|machine| machine.poll_publish(inner.id, &publish, waiting, waker));
        polled.map_ok(|tag| Confirm { channel: inner.clone(), tag, known: tag == 0 })
    }
}

impl Future for BasicPublish<'_> {
    type Output = Result<Confirm>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Confirm>> {
        match self.poll_room(cx.waker()) {
            Poll::Pending => self.poll_timer(cx),
            ready => ready,
        }
    }
}

impl Drop for BasicPublish<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            let inner = &self.channel.inner;
            inner.guard.shared.with(|machine| machine.leave(inner.id, waiting));
        }
    }
}

/// What will become of a published message: a future that is ready when the server has said it.
///
/// On a channel without `confirm.select` it is [`Confirmation::NotRequested`] at once. It has no deadline of its own: it ends when the
/// server answers, or with the channel. Wrap it into [`tokio::time::timeout`] where that is too long.
///
/// # Errors
///
/// Whatever has ended the channel or the connection, with the [outcome](Error::outcome) `Unknown`: the server may have the message.
///
/// # Cancel safety
///
/// Cancel-safe: a mutable reference to it can be awaited again. Dropping it forgets the message's fate and keeps no memory.
#[derive(Debug)]
#[must_use = "what became of the message is known when this is awaited"]
pub struct Confirm {
    channel: Arc<ChannelGuard>,
    tag: u64,
    /// Nothing is remembered for it any more.
    known: bool,
}

impl Confirm {
    /// The number of the message on its channel, counted from 1; 0 on a channel without confirms.
    pub fn delivery_tag(&self) -> u64 {
        self.tag
    }

    /// Whether the server has said what became of the message.
    pub(crate) fn is_settled(&self) -> bool {
        self.channel.watermark.has_passed(self.tag)
            || self.channel.guard.shared.look(|machine| machine.is_settled(self.channel.id, self.tag))
    }
}

impl Future for Confirm {
    type Output = Result<Confirmation>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Confirmation>> {
        if self.tag == 0 {
            return Poll::Ready(Ok(Confirmation::NotRequested));
        }
        if self.known {
            let message = "what became of this message has been told already";
            return Poll::Ready(Err(Error::new(ErrorKind::InvalidArgument, message)));
        }
        if self.channel.watermark.has_passed(self.tag) {
            self.known = true;
            return Poll::Ready(Ok(Confirmation::Ack(None)));
        }
        let (id, tag) = (self.channel.id, self.tag);
        let polled = self.channel.guard.shared.with(|machine| machine.poll_confirm(id, tag, cx.waker()));
        self.known = polled.is_ready();
        polled
    }
}

impl Drop for Confirm {
    #[inline]
    fn drop(&mut self) {
        if !self.known && !self.channel.watermark.has_passed(self.tag) {
            let (id, tag) = (self.channel.id, self.tag);
            self.channel.guard.shared.with(|machine| machine.forget_confirm(id, tag));
        }
    }
}
