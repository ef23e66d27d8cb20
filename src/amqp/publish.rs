//! Publishing a message, and learning what became of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Sleep;

use super::call::late;
use super::channel::Channel;
use super::shared::ChannelGuard;
use super::{Confirmation, Properties, Returned};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::protocol::Body;
use crate::protocol::client::{ChannelId, Connection as Machine, PropertiesRef, Publish, Waiting};

/// The body of a message that is published: octets, which are copied into the connection's buffer, or a [`Bytes`], which is
/// written from where it lies when it is large.
#[derive(Clone, Debug)]
pub struct Payload<'a>(Body<'a>);

impl<'a, const N: usize> From<&'a [u8; N]> for Payload<'a> {
    fn from(octets: &'a [u8; N]) -> Self {
        Self(Body::Borrowed(octets))
    }
}

macro_rules! payload_from {
    ($( $from:ty: $octets:ident => $body:expr; )*) => {
        $( impl<'a> From<$from> for Payload<'a> {
            fn from($octets: $from) -> Self {
                Self($body)
            }
        } )*
    };
}

payload_from! {
    &'a [u8]: octets => Body::Borrowed(octets);
    &'a Vec<u8>: octets => Body::Borrowed(octets);
    &'a str: text => Body::Borrowed(text.as_bytes());
    &'a String: text => Body::Borrowed(text.as_bytes());
    &'a Bytes: octets => Body::Shared(octets);
    Bytes: octets => Body::Owned(octets);
    Vec<u8>: octets => Body::Owned(octets.into());
    String: text => Body::Owned(text.into());
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
    publish: Publish<'a>,
    deadline: Option<Duration>,
    /// Where it waits for room, and for how long: most never do.
    place: Option<Waiting>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<'a> BasicPublish<'a> {
    #[inline]
    pub(crate) fn new(channel: &'a Channel, exchange: &'a [u8], routing_key: &'a [u8], payload: Payload<'a>) -> Self {
        let Payload(body) = payload;
        let publish = Publish {
            exchange,
            routing_key,
            mandatory: false,
            immediate: false,
            stamped: false,
            properties: None,
            body,
        };
        Self::of(channel, publish)
    }

    pub(crate) fn of(channel: &'a Channel, publish: Publish<'a>) -> Self {
        Self { channel, publish, deadline: None, place: None, timer: None }
    }

    /// The message's properties. Without them it has none, and is transient.
    pub fn properties(mut self, properties: &'a Properties) -> Self {
        self.publish.properties = Some(PropertiesRef::Own(properties));
        self
    }

    /// The server is to give the message back when no queue takes it.
    pub fn mandatory(mut self, mandatory: bool) -> Self {
        self.publish.mandatory = mandatory;
        self
    }

    /// The server is to give the message back when no consumer takes it at once. RabbitMQ does not know that any more: it closes
    /// the whole connection with 540.
    pub fn immediate(mut self, immediate: bool) -> Self {
        self.publish.immediate = immediate;
        self
    }

    /// Marks the message, so that it is known for certain when it comes back. See [`Publish::stamped`].
    pub(crate) fn stamped(mut self, stamped: bool) -> Self {
        self.publish.stamped = stamped;
        self
    }

    /// Publishes the message if there is room: its delivery tag, 0 on a channel without confirms. `Err(None)` says that there is none;
    /// the waker is woken when there is.
    ///
    /// Not inlined: this is all there is to publishing, and the fewer registers the code around it takes the better. The tag
    /// comes back in two of them, which a `Poll` of it would not.
    #[inline(never)]
    fn publish(&mut self, waker: &Waker) -> std::result::Result<u64, Option<Error>> {
        let Self { channel: Channel { inner: channel }, publish, place, .. } = self;
        channel.guard.shared.with(|machine| post(machine, channel.id, publish, place, waker))
    }

    /// The same, for one who holds a lock of his own: nobody is woken before [`Channel::wake`] is called.
    #[inline(never)]
    pub(crate) fn post(&mut self, waker: &Waker, posted: &mut Posted) -> std::result::Result<u64, Option<Error>> {
        let Self { channel: Channel { inner: channel }, publish, place, .. } = self;
        channel
            .guard
            .shared
            .quietly(|machine| posted.by(machine, |machine| post(machine, channel.id, publish, place, waker)))
    }

    /// How long to wait for room, in place of [`ConnectionBuilder::call_deadline`](super::ConnectionBuilder::call_deadline).
    /// The confirm is not waited for here.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = Some(limit);
        self
    }

    /// Ready with the reason when it has waited for room long enough.
    #[cold]
    pub(crate) fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let guard = &self.channel.inner.guard;
        let limit = self.deadline.unwrap_or(guard.call_deadline);
        let timer = self.timer.get_or_insert_with(|| Box::pin(guard.shared.timer(|| tokio::time::sleep(limit))));
        timer.as_mut().poll(cx).map(|()| self.channel.why_publishing_waits())
    }

    #[cold]
    fn leave(&mut self) {
        let channel = &self.channel.inner;
        if let Some(place) = self.place.take() {
            channel.guard.shared.with(|machine| machine.leave(channel.id, place));
        }
    }
}

impl Channel {
    /// As [`BasicPublish::post`], of a message that does not wait for room.
    #[inline(always)] // as publishing is
    pub(crate) fn post_at_once(
        &self,
        publish: &Publish<'_>,
        posted: &mut Posted,
    ) -> std::result::Result<u64, Option<Error>> {
        let channel = &self.inner;
        let at_once = |machine: &mut Machine| {
            let mut place = None;
            let tag = post(machine, channel.id, publish, &mut place, Waker::noop());
            if let Some(place) = place {
                machine.leave(channel.id, place);
            }
            tag
        };
        channel.guard.shared.quietly(|machine| posted.by(machine, at_once))
    }
}

impl Future for BasicPublish<'_> {
    type Output = Result<Confirm>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Confirm>> {
        match self.publish(cx.waker()) {
            Ok(tag) => Poll::Ready(Ok(Confirm::new(Arc::clone(&self.channel.inner), tag))),
            Err(Some(error)) => Poll::Ready(Err(error)),
            Err(None) => self.poll_timer(cx).map(Err),
        }
    }
}

impl Drop for BasicPublish<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.place.is_some() {
            self.leave();
        }
    }
}

/// What is known of a message that was [posted](BasicPublish::post).
#[derive(Debug, Default)]
pub(crate) struct Posted {
    /// Messages of the same number were published close together: they wait for the same turn of the driver.
    pub(crate) turn: u64,
    /// Somebody is to be [woken](Channel::wake), most likely the driver.
    pub(crate) wakes: bool,
}

impl Posted {
    #[inline(always)] // as publishing is
    fn by<R>(&mut self, machine: &mut Machine, act: impl FnOnce(&mut Machine) -> R) -> R {
        self.turn = machine.turns();
        let result = act(machine);
        self.wakes = machine.has_wakes();
        result
    }
}

#[inline(always)] // as publishing is
fn post(
    machine: &mut Machine,
    channel: ChannelId,
    publish: &Publish<'_>,
    place: &mut Option<Waiting>,
    waker: &Waker,
) -> std::result::Result<u64, Option<Error>> {
    match machine.poll_publish(channel, publish, place, waker) {
        Poll::Ready(Ok(tag)) => Ok(tag),
        Poll::Ready(Err(error)) => Err(Some(error)),
        Poll::Pending => Err(None),
    }
}

/// What will become of a published message: a future that is ready when the server has said it.
///
/// On a channel without `confirm.select` it is [`Confirmation::NotRequested`] at once. Awaited as it is, it has no deadline: it ends when
/// the server answers, or with the channel. A server may take its time for good reasons (a quorum queue without a quorum, a disk that is
/// slow), and a message is neither lost nor there before it has said so. [`within`](Self::within) is for those who do not wait so long.
///
/// Who awaits it before taking the next delivery of the same connection should give it a deadline: once
/// [`max_buffered`](super::Config::max_buffered) octets of deliveries wait, the socket is not read, and the confirm is behind them.
///
/// # Errors
///
/// Whatever has ended the channel or the connection, with the [outcome](Error::outcome) `Unknown`: the server may have the message.
/// `Returned`, with the outcome `Refused`, where it had given the message back before that: [`take_returned`](Self::take_returned) has it.
///
/// # Cancel safety
///
/// Cancel-safe: a mutable reference to it can be awaited again. Dropping it forgets the message's fate and keeps no memory.
#[derive(Debug)]
#[must_use = "what became of the message is known when this is awaited"]
#[doc(alias = "PublisherConfirm")]
pub struct Confirm {
    channel: Arc<ChannelGuard>,
    /// The delivery tag, and [`KNOWN`] when nothing is remembered for it any more. In one word because confirms are moved about a
    /// lot: a `bool` would make the compiler copy it in pieces.
    tag: u64,
}

/// A tag's highest bit. No channel gets that far: at a thousand million messages a second it would take 292 years.
const KNOWN: u64 = 1 << 63;

impl Confirm {
    #[inline]
    fn new(channel: Arc<ChannelGuard>, tag: u64) -> Self {
        Self { channel, tag: if tag == 0 { KNOWN } else { tag } }
    }

    /// The number of the message on its channel, counted from 1; 0 on a channel without confirms.
    pub fn delivery_tag(&self) -> u64 {
        self.tag & !KNOWN
    }

    /// Waits for at most `limit`.
    ///
    /// # Errors
    ///
    /// `Timeout`, with the [outcome](Error::outcome) `Unknown`: the server may have the message. The confirm can be awaited again. Otherwise
    /// as when it is awaited as it is.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    #[doc(alias = "deadline")]
    #[doc(alias = "timeout")]
    pub async fn within(&mut self, limit: Duration) -> Result<Confirmation> {
        let channel = Arc::clone(&self.channel);
        let shared = &channel.guard.shared;
        match shared.timer(|| tokio::time::timeout(limit, self)).await {
            Ok(confirmation) => confirmation,
            Err(_) => Err(late(shared, "no confirm", limit).with_outcome(Outcome::Unknown)),
        }
    }

    /// The message, where awaiting this has ended with an error of the kind `Returned`: it had come back, and its channel ended before the
    /// server said more. It is told once, and in no other case: a [`Confirmation`] has its message with it.
    pub fn take_returned(&mut self) -> Option<Box<Returned>> {
        if self.is_known() {
            return None;
        }
        let ChannelGuard { guard, id, .. } = &*self.channel;
        let returned = guard.shared.with(|machine| machine.take_returned(*id, self.tag))?;
        self.tag |= KNOWN;
        Some(returned)
    }

    #[inline]
    fn is_known(&self) -> bool {
        self.tag >= KNOWN
    }

    /// The server has not acked it yet, or has said more than that.
    #[inline(never)]
    fn poll_machine(&mut self, cx: &Context<'_>) -> Poll<Result<Confirmation>> {
        if self.delivery_tag() == 0 {
            return Poll::Ready(Ok(Confirmation::NotRequested));
        }
        if self.is_known() {
            let message = "what became of this message has been told already";
            return Poll::Ready(Err(Error::new(ErrorKind::InvalidArgument, message).with_outcome(Outcome::Unknown)));
        }
        let ChannelGuard { guard, id, .. } = &*self.channel;
        let polled = guard.shared.with(|machine| machine.poll_confirm(*id, self.tag, cx.waker()));
        match &polled {
            // The message itself can still be asked for.
            Poll::Ready(Err(error)) if error.kind() == ErrorKind::Returned => {}
            Poll::Ready(_) => self.tag |= KNOWN,
            Poll::Pending => {}
        }
        polled
    }

    #[inline(never)]
    fn forget(&self) {
        let ChannelGuard { guard, id, .. } = &*self.channel;
        guard.shared.with(|machine| machine.forget_confirm(*id, self.tag));
    }
}

impl Future for Confirm {
    type Output = Result<Confirmation>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Confirmation>> {
        // A known one is beyond every watermark.
        if self.channel.watermark.has_passed(self.tag) {
            self.tag |= KNOWN;
            return Poll::Ready(Ok(Confirmation::Ack(None)));
        }
        self.poll_machine(cx)
    }
}

impl Drop for Confirm {
    #[inline]
    fn drop(&mut self) {
        if !self.is_known() && !self.channel.watermark.has_passed(self.tag) {
            self.forget();
        }
    }
}
