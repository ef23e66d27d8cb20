//! Receiving: a stream of deliveries, one by one, in batches, or handed to a function.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use tokio::time::Instant;

use super::client::{Backend as ClientBackend, Client};
use super::deadline::by;
use super::delivery::Delivery;
use super::idle::Idle;
use super::message_stream::{MessageStream, NoAckBackend};
use super::over_amqp::inbox::{Inbox, Origin, Plan};
use crate::amqp::{self, FieldTable, FieldValue, ShortString};
use crate::error::{Error, ErrorKind, Result};
#[cfg(feature = "kafka")]
use crate::kafka;
#[cfg(feature = "kafka")]
use crate::message::Source;
use crate::message::{Disposition, EVER, Modify, OnDrop, RecoveryPolicy};

/// How messages are received.
///
/// | setting | default |
/// |---|---|
/// | prefetch | 256 deliveries unsettled, for each consumer |
/// | consumers | 1 |
/// | acks | each by itself |
/// | idle timeout | none |
/// | recovery | the client's: at once, then after waits of up to 10 s, for as long as it takes |
/// | dropped deliveries | go back at once |
/// | failed handlers | the delivery goes back after 1 s, as failed |
#[derive(Clone, Debug)]
#[must_use = "nothing happens until build()"]
pub struct ReceiverBuilder {
    client: Client,
    origin: Origin,
    arguments: FieldTable,
    exclusive: bool,
    prefetch: u16,
    consumers: u16,
    coalesce_acks: bool,
    tag_prefix: Option<String>,
    recovery: Option<RecoveryPolicy>,
    settings: Settings,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) idle_timeout: Option<Duration>,
    pub(super) on_drop: OnDrop,
    pub(super) on_failure: Disposition,
    pub(super) failure_delay: Duration,
}

impl ReceiverBuilder {
    pub(super) fn new(client: Client, origin: Origin) -> Self {
        let on_failure = Disposition::Modify(Modify { delivery_failed: true, undeliverable_here: false });
        let settings = Settings {
            idle_timeout: None,
            on_drop: OnDrop::Release,
            on_failure,
            failure_delay: Duration::from_secs(1),
        };
        Self {
            client,
            origin,
            arguments: FieldTable::new(),
            exclusive: false,
            prefetch: 256,
            consumers: 1,
            coalesce_acks: false,
            tag_prefix: None,
            recovery: None,
            settings,
        }
    }

    /// How many deliveries of each consumer may be unsettled (`basic.qos`); 0 for no limit, which a server with a long queue takes
    /// at its word.
    #[doc(alias = "basic_qos")]
    #[doc(alias = "prefetch_count")]
    pub fn prefetch(mut self, count: u16) -> Self {
        self.prefetch = count;
        self
    }

    /// How many consumers share the work, each on a channel of its own; the stream has the deliveries of all of them.
    #[doc(alias = "pool_size")]
    pub fn consumers(mut self, count: u16) -> Self {
        self.consumers = count.max(1);
        self
    }

    /// Deliveries that are accepted one after the other are acked together: the server gets one `basic.ack` with `multiple` for those
    /// of a consumer that were accepted since the last write and follow one another. A delivery that is held is never settled by
    /// another's ack, and nothing is sent later than without this; see
    /// [`BasicConsume::coalesce_acks`](crate::amqp::BasicConsume::coalesce_acks). Worth it where messages are many and small.
    pub fn coalesce_acks(mut self, coalesce: bool) -> Self {
        self.coalesce_acks = coalesce;
        self
    }

    /// What the consumer tags begin with; something that nobody else has follows. At most 239 octets.
    #[doc(alias = "consumer_tag_prefix")]
    pub fn tag_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.tag_prefix = Some(prefix.into());
        self
    }

    /// One more argument of the consumer (`basic.consume`).
    pub fn argument(mut self, name: impl Into<ShortString>, value: impl Into<FieldValue>) -> Self {
        self.arguments.insert(name, value);
        self
    }

    /// Consumers of a higher priority get messages first (`x-priority`); 0 is that of those who say nothing.
    pub fn priority(self, priority: i32) -> Self {
        self.argument("x-priority", priority)
    }

    /// Nobody else may receive from the queue.
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }

    /// The stream ends when no message has come for this long, for whatever reason: while the connection is away as well.
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.settings.idle_timeout = Some(limit);
        self
    }

    /// What becomes of a delivery that is dropped without a word.
    pub fn on_drop(mut self, what: OnDrop) -> Self {
        self.settings.on_drop = what;
        self
    }

    /// What becomes of a delivery whose handler in [`Receiver::for_each`] fails or panics, and how long it is held before that: its
    /// place among the [`prefetch`](Self::prefetch)ed stays taken meanwhile, so a message that always fails cannot keep the queue
    /// spinning. When the stream ends before that, it ends the wait. On Kafka, which can give no single message back, the delivery is
    /// left instead: the offset stays before it, and it comes again with whoever has the partition next.
    #[doc(alias = "FailureAction")]
    pub fn on_failure(mut self, what: Disposition, delay: Duration) -> Self {
        self.settings.on_failure = what;
        self.settings.failure_delay = delay;
        self
    }

    /// What becomes of it when the connection is lost, in place of what the client [says](super::ClientBuilder::recovery). AMQP only.
    pub fn recovery(mut self, policy: RecoveryPolicy) -> Self {
        self.recovery = Some(policy);
        self
    }

    fn plan(self) -> Plan {
        let Self { origin, arguments, exclusive, prefetch, consumers, coalesce_acks, tag_prefix, recovery, .. } = self;
        Plan { origin, arguments, exclusive, prefetch, consumers, coalesce_acks, tag_prefix, recovery }
    }

    #[cfg(feature = "kafka")]
    fn kafka_plan(&self) -> Result<kafka::Plan> {
        let Origin::Fixed(source) = &self.origin else {
            return Err(Error::new(ErrorKind::Unsupported, "Kafka has no channels that a source could be made on"));
        };
        let Source::Topic { topics, group } = source else {
            return Err(Error::new(ErrorKind::Unsupported, "a queue cannot be received from here: Kafka has topics"));
        };
        if self.tag_prefix.is_some() || self.exclusive || self.coalesce_acks || !self.arguments.is_empty() {
            let message = "consumer tags, exclusive consumers, acks and arguments are AMQP's; Kafka has none of them";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        if self.recovery.is_some() {
            return Err(Error::new(ErrorKind::Unsupported, "members of Kafka's groups come back by themselves"));
        }
        let (prefetch, members) = (self.prefetch, self.consumers);
        Ok(kafka::Plan { topics: topics.clone(), group: group.clone(), prefetch, members })
    }

    /// Starts receiving (`basic.consume`). Deliveries have to be settled.
    ///
    /// On Kafka each consumer is a member of the group; which partitions it gets is told as an
    /// [`Event::Assigned`](super::Event::Assigned), a while after this.
    ///
    /// # Errors
    ///
    /// What [`receiver_from`](super::Client::receiver_from) fails with; `ChannelClosed` with 404 when there is no such queue, 405 or 403 when it is somebody else's; `Unsupported` for a source
    /// of another transport; whatever keeps the client from connecting.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends what was started.
    #[doc(alias = "PeekLock")]
    pub async fn build(self) -> Result<Receiver> {
        let (client, settings) = (self.client.clone(), self.settings);
        let backend = match client.backend() {
            ClientBackend::Amqp(link) => Backend::Amqp(Inbox::open(link, self.plan()).await?),
            #[cfg(feature = "kafka")]
            ClientBackend::Kafka(link) => Backend::Kafka(Some(kafka::Inbox::open(link, self.kafka_plan()?).await?)),
        };
        Ok(Receiver { backend, settings, idle: Idle::new(client.timers()), kept: None, over: false })
    }

    /// Starts receiving without settling: messages count as settled when the server sends them (`no-ack`). There is no prefetch then,
    /// and what is on its way to this side is lost with the connection.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends what was started.
    #[doc(alias = "ReceiveAndDelete")]
    pub async fn build_no_ack(self) -> Result<MessageStream> {
        let (client, idle_timeout) = (self.client.clone(), self.settings.idle_timeout);
        let backend = match client.backend() {
            ClientBackend::Amqp(link) => NoAckBackend::Amqp(Inbox::open(link, self.plan()).await?),
            #[cfg(feature = "kafka")]
            ClientBackend::Kafka(link) => NoAckBackend::Kafka(kafka::Inbox::open(link, self.kafka_plan()?).await?),
        };
        Ok(MessageStream::new(backend, idle_timeout, Idle::new(client.timers())))
    }
}

/// A stream of deliveries, each of which is to be settled.
///
/// It ends with an error when the queue is deleted or the channel is closed by the server; without one when this side has ended
/// it. When the connection is lost it [begins again](super#when-the-connection-is-lost), or ends as its [`RecoveryPolicy`] says.
/// What was delivered and not settled goes to somebody else then, and settling it is `Stale`.
///
/// Dropping it ends the consumers, and puts back what nobody has looked at. Deliveries in hand can still be settled.
#[doc(alias = "Consumer")]
#[doc(alias = "StreamConsumer")]
pub struct Receiver {
    backend: Backend,
    pub(super) settings: Settings,
    idle: Idle,
    /// An error that came behind deliveries that were handed out together, and is still to be told when it is over.
    kept: Option<Error>,
    over: bool,
}

enum Backend {
    Amqp(Inbox<amqp::Consumer>),
    #[cfg(feature = "kafka")]
    Kafka(Option<kafka::Inbox>),
}

impl Backend {
    /// The stream has ended, and whatever still runs ends with it.
    fn end(&mut self) {
        match self {
            Self::Amqp(inbox) => inbox.end(),
            #[cfg(feature = "kafka")]
            Self::Kafka(inbox) => *inbox = None,
        }
    }

    /// It ends, and what was not fetched goes back. What was fetched can be settled: on Kafka by the members only that it came
    /// through, so these stay.
    fn put_back(&mut self) {
        match self {
            Self::Amqp(inbox) => inbox.end(),
            #[cfg(feature = "kafka")]
            Self::Kafka(inbox) => inbox.iter().for_each(kafka::Inbox::drain),
        }
    }
}

impl Receiver {
    #[inline]
    fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery>>> {
        if self.over {
            return Poll::Ready(self.kept.take().map(Err));
        }
        // A delivery is made where it is handed out: it is not moved as a whole just after it was written in pieces.
        let end = match &mut self.backend {
            Backend::Amqp(inbox) => match inbox.poll_next(cx) {
                Poll::Ready(Some(Ok(delivery))) => {
                    self.idle.message_came(self.settings.idle_timeout);
                    return Poll::Ready(Some(Ok(Delivery::over_amqp(delivery, self.settings.on_drop))));
                }
                end => end.map(|end| end.and_then(Result::err)),
            },
            #[cfg(feature = "kafka")]
            Backend::Kafka(None) => Poll::Ready(None),
            #[cfg(feature = "kafka")]
            Backend::Kafka(Some(inbox)) => match inbox.poll_next(cx) {
                Poll::Ready(Some(Ok((arrived, acker)))) => {
                    self.idle.message_came(self.settings.idle_timeout);
                    return Poll::Ready(Some(Ok(Delivery::over_kafka(arrived, acker))));
                }
                end => end.map(|end| end.and_then(Result::err)),
            },
        };
        self.poll_end(end, cx)
    }

    /// There is no delivery: there are no more, or none for the time being.
    fn poll_end(&mut self, end: Poll<Option<Error>>, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery>>> {
        let reason = match end {
            // All of it has ended.
            Poll::Ready(None) => None,
            Poll::Ready(reason) => {
                self.backend.end();
                reason
            }
            Poll::Pending => {
                std::task::ready!(self.idle.poll(self.settings.idle_timeout, cx));
                self.backend.end();
                None
            }
        };
        self.over = true;
        Poll::Ready(reason.map(Err))
    }

    /// The next delivery. `None` after it was ended on this side or nothing has come for the idle timeout, or after the error that
    /// says why it ended otherwise.
    ///
    /// # Errors
    ///
    /// `Cancelled` when the server ended the consumer, mostly because its queue is gone; whatever has ended the channel; what keeps
    /// it from beginning again when the connection was lost, or the loss itself where it is not to.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: beginning again goes on where it was.
    #[doc(alias = "next")]
    pub async fn recv(&mut self) -> Option<Result<Delivery>> {
        poll_fn(|cx| self.poll_delivery(cx)).await
    }

    /// Up to `max` deliveries: waits for the first one, for at most `wait` (`None`: as long as it takes), and adds whatever is there
    /// already. Empty when none has come in time. Outside of any tokio runtime the client's keeps the time.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv), after what came before was handed out; `Closed` when the receiver has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    #[doc(alias = "receive_message_batch")]
    pub async fn recv_batch(&mut self, max: usize, wait: Option<Duration>) -> Result<Vec<Delivery>> {
        let mut batch = Vec::new();
        if max == 0 {
            return Ok(batch);
        }
        let first = match wait {
            None => self.recv().await,
            Some(wait) => {
                let runtime = self.idle.runtime().cloned();
                match by(runtime.as_ref(), Instant::now() + wait.min(EVER), self.recv()).await {
                    Some(first) => first,
                    None => return Ok(batch),
                }
            }
        };
        let closed = || Error::new(ErrorKind::Closed, "the receiver has ended");
        batch.push(first.ok_or_else(closed)??);
        while batch.len() < max {
            match self.poll_delivery(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(Ok(delivery))) => batch.push(delivery),
                Poll::Ready(Some(Err(error))) => {
                    // What came before comes first.
                    self.kept = Some(error);
                    break;
                }
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Ok(batch)
    }

    /// Ends it before it is dropped: what nobody has looked at goes back, and deliveries in hand can still be settled.
    pub(super) fn put_back(&mut self) {
        self.over = true;
        self.backend.put_back();
    }

    /// Settles a delivery and every one before it that came through the same channel, all at once (`basic.ack` or `basic.nack` with
    /// multiple); on Kafka that came from the same partition. Deliveries that are settled by it say so ([`Acker::is_settled`](super::Acker::is_settled)), and do nothing when they are
    /// dropped.
    ///
    /// # Errors
    ///
    /// `Stale`, as [`Delivery::accept`]; `Unsupported` for [`Disposition::Modify`], which AMQP 0-9-1 has for single deliveries only.
    pub fn settle_up_to(&self, delivery: &Delivery, how: Disposition) -> Result<()> {
        delivery.settle_up_to(how)
    }

    /// Changes how many deliveries of each consumer may be unsettled. AMQP 0-9-1 can do that for new consumers only, so the consumers
    /// are ended and started again (`basic.cancel`, `basic.qos`, `basic.consume`); nothing is lost on the way. Where the receiver has to
    /// begin again anyway, it does so with the new number, and this does not wait for it.
    ///
    /// # Errors
    ///
    /// `Timeout`; whatever ends a channel. A consumer that could not be replaced gives what it has and ends, and with the last of
    /// them the receiver does; those after it stay as they were.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave the receiver to give what it has, and to end.
    #[doc(alias = "reset_link_credit")]
    pub async fn set_prefetch(&mut self, count: u16) -> Result<()> {
        match &mut self.backend {
            Backend::Amqp(inbox) => inbox.set_prefetch(count).await,
            #[cfg(feature = "kafka")]
            Backend::Kafka(inbox) => {
                if let Some(inbox) = inbox {
                    inbox.set_prefetch(count);
                }
                Ok(())
            }
        }
    }

    /// Ends the consumers (`basic.cancel`) and gives back what had been delivered and was not fetched yet, to be settled.
    ///
    /// # Errors
    ///
    /// `Timeout`; whatever has ended the channel. The deliveries are put back by the server then.
    ///
    /// # Cancel safety
    ///
    /// The consumers end even when the future is dropped; what was not fetched goes back.
    pub async fn close(mut self) -> Result<Vec<Delivery>> {
        match &self.backend {
            Backend::Amqp(inbox) => inbox.cancel().await?,
            #[cfg(feature = "kafka")]
            Backend::Kafka(inbox) => inbox.iter().for_each(kafka::Inbox::drain),
        }
        self.settings.idle_timeout = None;
        let mut rest = Vec::new();
        while let Some(delivery) = self.recv().await {
            rest.push(delivery?);
        }
        #[cfg(feature = "kafka")]
        if let Backend::Kafka(inbox) = &mut self.backend
            && let Some(inbox) = inbox.take()
        {
            inbox.leave().await;
        }
        Ok(rest)
    }
}

impl Stream for Receiver {
    type Item = Result<Delivery>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_delivery(cx)
    }
}

impl Drop for Receiver {
    /// What nobody has looked at goes back with the consumers, unless it is to be rejected.
    fn drop(&mut self) {
        if self.settings.on_drop == OnDrop::Reject {
            self.settings.idle_timeout = None;
            match &mut self.backend {
                Backend::Amqp(inbox) => inbox.stop(),
                #[cfg(feature = "kafka")]
                Backend::Kafka(_) => {}
            }
            while let Poll::Ready(Some(delivery)) = self.poll_delivery(&mut Context::from_waker(Waker::noop())) {
                drop(delivery);
            }
        }
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("settings", &self.settings).field("over", &self.over).finish()
    }
}
