//! A channel: where requests are made, messages published and consumers started.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use super::call::{awaited, call, reply};
use super::delivery::{Delivery, Message, Settler};
use super::shared::{ChannelGuard, Guard};
use super::{BasicConsume, BasicPublish, Payload, ReplyCode, Returned};
use crate::codec::Method;
use crate::codec::method::{basic, confirm, tx};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::client::{Batch, Place, Reply};

/// How many messages a channel in confirm mode may have unconfirmed, unless told otherwise.
const DEFAULT_WINDOW: usize = 65_536;

/// A channel of a connection.
///
/// A cheap handle: clones share the channel, from as many tasks as wanted. A message's frames are always written together. The
/// channel closes when the last handle is dropped: its own clones, and the confirms, consumers and deliveries that came
/// from it.
#[derive(Clone, Debug)]
pub struct Channel {
    pub(crate) inner: Arc<ChannelGuard>,
}

impl Channel {
    pub(crate) async fn open(guard: &Arc<Guard>) -> Result<Self> {
        let (id, call, watermark) = guard.shared.with(|machine| {
            let (id, call) = machine.open_channel()?;
            Ok::<_, Error>((id, call, machine.watermark(id)))
        })?;
        let inner = ChannelGuard { guard: guard.clone(), id, watermark, prefetch_set: AtomicBool::new(false) };
        let channel = Self { inner: Arc::new(inner) };
        reply(&channel.inner, call, "channel.open", None).await?;
        Ok(channel)
    }

    /// The channel's number on the wire.
    pub fn number(&self) -> u16 {
        self.inner.guard.shared.look(|machine| machine.channel_number(self.inner.id)).unwrap_or_default()
    }

    /// Whether the channel can be used.
    pub fn is_open(&self) -> bool {
        self.inner.guard.shared.look(|machine| machine.channel_end(self.inner.id).is_none())
    }

    /// Why the channel cannot be used any more, if so.
    pub fn end(&self) -> Option<Error> {
        self.inner.guard.shared.look(|machine| machine.channel_end(self.inner.id).cloned())
    }

    /// Closes the channel (`channel.close`, code 200) and waits until the server agrees. Unsettled deliveries go back to their
    /// queues; confirms that are still open end with an error of unknown outcome. Closing a closed channel is fine.
    ///
    /// # Errors
    ///
    /// `Timeout`, and whatever ends the connection meanwhile.
    ///
    /// # Cancel safety
    ///
    /// The channel closes even when the future is dropped.
    pub async fn close(&self) -> Result<()> {
        self.close_with(ReplyCode::REPLY_SUCCESS, "").await
    }

    /// Closes the channel with a code and a text for the server's log. Otherwise as [`close`](Self::close).
    ///
    /// # Errors
    ///
    /// As [`close`](Self::close); `InvalidArgument` for a text of more than 255 octets.
    pub async fn close_with(&self, code: ReplyCode, text: &str) -> Result<()> {
        let call = self.inner.guard.shared.with(|machine| machine.close_channel(self.inner.id, code, text))?;
        match call {
            Some(call) => {
                let deadline = self.inner.guard.close_deadline;
                reply(&self.inner, call, "channel.close", Some(deadline)).await.map(drop)
            }
            None => Ok(()),
        }
    }

    /// Wakes whoever has to be woken after a message was [posted](BasicPublish::post).
    #[inline(never)]
    pub(crate) fn wake(&self) {
        self.inner.guard.shared.wake();
    }

    /// Why a publisher has to wait, for the error of one who does not.
    pub(crate) fn why_publishing_waits(&self) -> Error {
        self.inner.guard.shared.look(crate::protocol::client::Connection::why_publishing_waits)
    }

    /// Whether both are handles of one channel.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub(crate) async fn call(&self, method: impl Into<Method>, deadline: Option<Duration>) -> Result<Reply> {
        call(&self.inner, method.into(), deadline, DEFAULT_WINDOW).await
    }
}

// ----------------------------------------------------------------------------------------------------------- publishing

impl Channel {
    /// Publishes a message (`basic.publish`). An empty exchange is the default one, whose routing keys are the names of queues.
    ///
    /// Awaiting it puts the message into the connection's buffer and gives its [`Confirm`](super::Confirm); what that says is
    /// what became of the message.
    ///
    /// ```no_run
    /// # async fn example(channel: leveret::amqp::Channel) -> leveret::error::Result<()> {
    /// use leveret::amqp::Properties;
    ///
    /// let properties = Properties::new().content_type("text/plain").persistent();
    /// let confirm = channel.basic_publish("", "orders", "hello").properties(&properties).await?;
    /// confirm.await?.accepted()?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "send")]
    pub fn basic_publish<'a>(
        &'a self,
        exchange: &'a (impl AsRef<[u8]> + ?Sized),
        routing_key: &'a (impl AsRef<[u8]> + ?Sized),
        body: impl Into<Payload<'a>>,
    ) -> BasicPublish<'a> {
        BasicPublish::new(self, exchange.as_ref(), routing_key.as_ref(), body.into())
    }

    /// Asks the server to confirm what is published from now on (`confirm.select`). At most 65536 messages may be
    /// unconfirmed; further publishes wait.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` on a transactional channel; `Timeout`; whatever ends the channel.
    ///
    /// # Cancel safety
    ///
    /// The request is sent even when the future is dropped.
    pub async fn confirm_select(&self) -> Result<()> {
        self.confirm_select_with_window(DEFAULT_WINDOW).await
    }

    /// As [`confirm_select`](Self::confirm_select), with at most `window` messages unconfirmed.
    ///
    /// # Errors
    ///
    /// As [`confirm_select`](Self::confirm_select).
    pub async fn confirm_select_with_window(&self, window: usize) -> Result<()> {
        call(&self.inner, confirm::Select::default().into(), None, window).await.map(drop)
    }

    /// How many published messages the server has not confirmed yet.
    pub fn unconfirmed(&self) -> usize {
        self.inner.guard.shared.look(|machine| machine.unconfirmed(self.inner.id))
    }

    /// Waits until the server has confirmed everything that was published on this channel so far, with an ack or a nack: which of
    /// them, the [`Confirm`](super::Confirm)s say. Without `confirm.select` there is nothing to wait for.
    ///
    /// It has no deadline of its own: wrap it into [`tokio::time::timeout`] where the server may take too long.
    ///
    /// # Errors
    ///
    /// Whatever has ended the channel, with the outcome `Unknown`.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn wait_for_confirms(&self) -> Result<()> {
        let (shared, id) = (&self.inner.guard.shared, self.inner.id);
        let last = shared.look(|machine| machine.last_published(id));
        let mut waiting = WaitsForConfirms { channel: &self.inner, place: None };
        let poll = |cx: &mut Context<'_>| {
            shared.with(|machine| machine.poll_settled(id, last, &mut waiting.place, cx.waker()))
        };
        std::future::poll_fn(poll).await
    }

    /// Messages that the server gave back (`basic.return`) and that belong to no [`Confirm`](super::Confirm): those that were
    /// published as mandatory on a channel without confirms. The last 1024 are kept.
    #[doc(alias = "on_return")]
    #[doc(alias = "basic_return")]
    pub fn returned_messages(&self) -> ReturnedMessages {
        ReturnedMessages { channel: self.inner.clone(), place: None }
    }

    /// Makes the channel transactional (`tx.select`): publishes and acks count at the next commit.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` on a channel in confirm mode; `Timeout`; whatever ends the channel.
    pub async fn tx_select(&self) -> Result<()> {
        self.call(tx::Select::default(), None).await.map(drop)
    }

    /// Makes what was published and acked since the last commit count (`tx.commit`).
    ///
    /// # Errors
    ///
    /// The server closes the channel with 406 when it is not transactional; `Timeout`, after which nobody knows.
    pub async fn tx_commit(&self) -> Result<()> {
        self.call(tx::Commit::default(), None).await.map(drop)
    }

    /// Forgets what was published and acked since the last commit (`tx.rollback`). Deliveries whose acks are forgotten are unsettled
    /// again; as they have been consumed here, [`basic_recover`](Self::basic_recover) or closing the channel is what brings them back.
    ///
    /// # Errors
    ///
    /// The server closes the channel with 406 when it is not transactional; `Timeout`.
    pub async fn tx_rollback(&self) -> Result<()> {
        self.call(tx::Rollback::default(), None).await.map(drop)
    }
}

/// Somebody who waits for everything to be confirmed.
struct WaitsForConfirms<'a> {
    channel: &'a ChannelGuard,
    place: Option<Place>,
}

impl Drop for WaitsForConfirms<'_> {
    fn drop(&mut self) {
        let ChannelGuard { guard, id, .. } = self.channel;
        if let Some(place) = self.place.take() {
            guard.shared.with(|machine| machine.leave_settled(*id, place));
        }
    }
}

/// Messages that the server gave back and that belong to no confirm.
#[derive(Debug)]
pub struct ReturnedMessages {
    channel: Arc<ChannelGuard>,
    /// Where it waits for the next one.
    place: Option<Place>,
}

impl ReturnedMessages {
    /// The next one, with the number of those that were pushed out before it because nobody asked for them. `None` when the
    /// channel has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<(Returned, u64)> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Option<(Returned, u64)>> {
        let Self { channel, place } = self;
        let next = channel.guard.shared.with(|machine| machine.poll_returned(channel.id, place, cx.waker()));
        next.map(|next| next.map(|(returned, lost)| (*returned, lost)))
    }
}

impl Drop for ReturnedMessages {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.channel.guard.shared.with(|machine| machine.leave_returned(self.channel.id, place));
        }
    }
}

// ------------------------------------------------------------------------------------------------------------ consuming

impl Channel {
    /// Starts a consumer (`basic.consume`).
    #[doc(alias = "subscribe")]
    pub fn basic_consume<'a>(&'a self, queue: &'a str) -> BasicConsume<'a> {
        BasicConsume::new(self, queue)
    }

    /// Fetches one message (`basic.get`): `None` when the queue is empty. A consumer is much cheaper where there are many.
    pub fn basic_get<'a>(&'a self, queue: &str) -> BasicGet<'a> {
        let method = basic::Get { queue: queue.into(), ..Default::default() };
        BasicGet { channel: self, method, deadline: None }
    }

    /// Limits how many unsettled deliveries each consumer that is started from now on may have (`basic.qos`); 0 for no limit.
    #[doc(alias = "prefetch")]
    #[doc(alias = "prefetch_count")]
    pub fn basic_qos(&self, prefetch: u16) -> BasicQos<'_> {
        let method = basic::Qos { prefetch_count: prefetch, ..Default::default() };
        BasicQos { channel: self, method, deadline: None }
    }

    /// Puts all unsettled deliveries of this channel back into their queues (`basic.recover` with requeue). Settling them
    /// afterwards is a mistake that closes the channel with 406.
    ///
    /// # Errors
    ///
    /// `Timeout`; whatever ends the channel.
    #[doc(alias = "recover")]
    pub async fn basic_recover(&self) -> Result<()> {
        self.call(basic::Recover { requeue: true }, None).await.map(drop)
    }
}

/// A request to fetch one message. Send it with `.await`.
#[derive(Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct BasicGet<'a> {
    channel: &'a Channel,
    method: basic::Get,
    deadline: Option<Duration>,
}

/// One fetched message.
#[derive(Debug)]
pub struct Got {
    /// The message, to be settled.
    pub delivery: Delivery,
    /// How many messages are left in the queue.
    pub message_count: u32,
}

/// One fetched message that needs no settling: it is a [`Message`].
#[derive(Debug)]
pub struct GotNoAck {
    /// The message.
    pub message: Message,
    /// How many messages are left in the queue.
    pub message_count: u32,
}

impl std::ops::Deref for GotNoAck {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl<'a> BasicGet<'a> {
    /// The message counts as settled when it is sent.
    pub fn no_ack(mut self) -> BasicGetNoAck<'a> {
        self.method.no_ack = true;
        BasicGetNoAck(self)
    }

    /// How long to wait for the answer.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = Some(limit);
        self
    }

    async fn send(self) -> Result<Option<(basic::GetOk, Message)>> {
        let (channel, no_ack) = (self.channel, self.method.no_ack);
        let reply = channel.call(self.method, self.deadline).await?;
        match (reply.method, reply.content) {
            (Method::Basic(basic::Method::GetOk(ok)), Some(content)) => {
                let settler = (!no_ack).then(|| Settler { channel: channel.inner.clone(), coalesces: false });
                let batch = Batch::of(ok.delivery_tag, ok.redelivered, content);
                let message = Message::alone(batch, settler);
                Ok(Some((ok, message)))
            }
            _ => Ok(None),
        }
    }
}

/// A request to fetch one message that is not settled. Send it with `.await`.
#[derive(Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct BasicGetNoAck<'a>(BasicGet<'a>);

/// A request to limit unsettled deliveries. Send it with `.await`.
#[derive(Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct BasicQos<'a> {
    channel: &'a Channel,
    method: basic::Qos,
    deadline: Option<Duration>,
}

impl BasicQos<'_> {
    /// The limit is for the whole channel, all its consumers together, rather than for each new consumer. RabbitMQ forgets it when
    /// a consumer's own [`prefetch`](BasicConsume::prefetch) is set afterwards, and refuses it from 4.3 on.
    pub fn global(mut self, global: bool) -> Self {
        self.method.global = global;
        self
    }

    /// How long to wait for the answer.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = Some(limit);
        self
    }
}

awaited! {
    BasicGet<'a> => Option<Got>, |get| async move {
        Ok(get.send().await?.map(|(ok, message)| Got {
            delivery: Delivery::new(message),
            message_count: ok.message_count,
        }))
    };
    BasicGetNoAck<'a> => Option<GotNoAck>, |get| async move {
        Ok(get.0.send().await?.map(|(ok, message)| GotNoAck { message, message_count: ok.message_count }))
    };
    BasicQos<'a> => (), |qos| async move {
        if qos.method.prefetch_count == 0 && qos.method.global {
            return Err(Error::new(ErrorKind::InvalidArgument, "a limit for the whole channel cannot be 0"));
        }
        qos.channel.inner.prefetch_set.store(true, Ordering::Relaxed);
        qos.channel.call(qos.method, qos.deadline).await.map(drop)
    };
}

impl Unpin for ReturnedMessages {}

impl futures_core::Stream for ReturnedMessages {
    type Item = (Returned, u64);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Self::poll_next(&mut self, cx)
    }
}
