//! Sending: how it is set up, and what becomes of a message.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::client::{Backend as ClientBackend, Client};
use super::config::Transport;
use super::outbox::{Backend, Begun, Delayed, Hook, Outbox};
use super::over_amqp;
use super::over_amqp::flights::Due;
use super::over_amqp::outbox::Settings;
use super::pending::PendingReceipt;
use crate::amqp::Properties;
use crate::error::{Error, ErrorKind, Outcome, Result};
#[cfg(feature = "kafka")]
use crate::kafka;
use crate::message::{
    BatchReport, Cargo, CloseReport, EVER, Message, Receipt, RetryPolicy, SendError, SharedProperties, Target,
};

/// Whether the server is asked to confirm each message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[doc(alias = "send_settle_mode")]
pub enum ConfirmMode {
    /// It is: a receipt says [`Accepted`](super::Status::Accepted).
    #[default]
    Confirm,
    /// It is not: a receipt says [`NotRequested`](super::Status::NotRequested), and nothing is known of the message.
    None,
}

/// How messages are sent.
///
/// | setting | default |
/// |---|---|
/// | confirms | on |
/// | mandatory | with confirms: yes |
/// | delivery mode | 2, persistent, for messages that do not say |
/// | window | 4096 messages unconfirmed |
/// | timeout | 60 s for everything: connecting, waiting for room, the confirm |
/// | retries | [`RetryPolicy::default`], for [`Sender::send`] |
/// | channels | 1 |
#[derive(Clone)]
#[must_use = "nothing happens until build()"]
pub struct SenderBuilder {
    client: Client,
    confirms: ConfirmMode,
    mandatory: Option<bool>,
    exact_returns: bool,
    defaults: Properties,
    hook: Option<Hook>,
    window: usize,
    channels: u16,
    max_message_size: Option<usize>,
    timeout: Duration,
    retry: RetryPolicy,
}

impl SenderBuilder {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            confirms: ConfirmMode::Confirm,
            mandatory: None,
            exact_returns: true,
            defaults: Properties::new(),
            hook: None,
            window: 4096,
            channels: 1,
            max_message_size: None,
            timeout: Duration::from_secs(60),
            retry: RetryPolicy::default(),
        }
    }

    /// Whether the server is asked to confirm each message.
    #[doc(alias = "confirm_select")]
    pub fn confirms(mut self, mode: ConfirmMode) -> Self {
        self.confirms = mode;
        self
    }

    /// Whether a message that no queue takes comes back, and its sending is an error of the kind `Returned`; without it, it is
    /// accepted and gone. A [`Target`] may say otherwise for itself. AMQP only, and only with confirms.
    pub fn mandatory(mut self, mandatory: bool) -> Self {
        self.mandatory = Some(mandatory);
        self
    }

    /// Whether mandatory messages carry a header of this library, `x-leveret-seq`, by which one that comes back is known for certain;
    /// it is on unless switched off here. Receivers of this library take it off again, others see it. Without it a returned
    /// message is recognised by its target and payload, and of two that look the same the older one is taken.
    pub fn exact_returns(mut self, exact: bool) -> Self {
        self.exact_returns = exact;
        self
    }

    /// What messages get where they do not say otherwise themselves, property by property and header by header. A property
    /// that is set counts, even if it is empty or zero.
    pub fn defaults(mut self, properties: Properties) -> Self {
        self.defaults = properties;
        self
    }

    /// Looks at each message, and may change it, after it got its defaults and before it is sent: once, however often it is
    /// tried. For headers that depend on the time or the target. It must not block.
    #[doc(alias = "stamp")]
    pub fn map_message(mut self, hook: impl Fn(&Target, &mut Message) + Send + Sync + 'static) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    /// How many messages may be unconfirmed, on all channels together; further ones wait. 1 at least.
    #[doc(alias = "window")]
    #[doc(alias = "link_credit")]
    pub fn max_in_flight(mut self, messages: usize) -> Self {
        self.window = messages.max(1);
        self
    }

    /// Over how many channels messages are spread; their order holds on one channel only, and within a batch. One is enough for
    /// throughput. When the server closes a channel because of one message, the others on it are of unknown outcome: several
    /// channels make those fewer.
    #[doc(alias = "pool_size")]
    pub fn channels(mut self, channels: u16) -> Self {
        self.channels = channels.max(1);
        self
    }

    /// The largest payload that is sent, in octets; unless set, there is no limit here, and RabbitMQ closes the channel for what is
    /// too large for it. A larger one is `MessageTooLarge`, and not sent.
    pub fn max_message_size(mut self, octets: usize) -> Self {
        self.max_message_size = Some(octets);
        self
    }

    /// How long sending a message may take in all: connecting, waiting for room, and waiting for the server's confirm. For a
    /// batch, all of it together. Messages that are handed over so close together that they leave with one write count from the
    /// first of them.
    #[doc(alias = "publish_timeout")]
    #[doc(alias = "msg_timeout")]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Whether and when [`Sender::send`] tries again.
    #[doc(alias = "error_policy")]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// The sender. Its channel is opened by its first message.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: mandatory without confirms, where nobody could be told what came back; `Unsupported`: mandatory, or
    /// several channels, on Kafka.
    pub fn build(mut self) -> Result<Sender> {
        let confirms = self.confirms == ConfirmMode::Confirm;
        let amqp = self.client.transport() == Transport::Amqp;
        if !amqp && (self.mandatory == Some(true) || self.channels != 1) {
            let message = "mandatory messages and channels are AMQP's; Kafka has neither";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let mandatory = self.mandatory.unwrap_or(confirms && amqp);
        if mandatory && !confirms {
            let message = "mandatory needs confirms: without them nobody can be told which message came back";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        if amqp {
            self.defaults.delivery_mode.get_or_insert(2);
        }
        let defaults = SharedProperties::from(self.defaults);
        let backend = match self.client.backend() {
            ClientBackend::Amqp(link) => {
                let (stamped, window, channels) = (self.exact_returns, self.window, self.channels);
                let settings = Settings { confirms, mandatory, stamped, window, channels };
                Backend::Amqp(over_amqp::Outbox::new(Arc::clone(link), settings, defaults.clone()))
            }
            #[cfg(feature = "kafka")]
            ClientBackend::Kafka(link) => {
                let settings = kafka::Settings { confirms, window: self.window, timeout: self.timeout };
                Backend::Kafka(kafka::Outbox::new(Arc::clone(link), settings)?)
            }
        };
        let outbox = Arc::new(Outbox {
            backend,
            confirms,
            defaults,
            hook: self.hook,
            max_message_size: self.max_message_size.unwrap_or(usize::MAX),
            retry: self.retry,
            stopped: AtomicBool::new(false),
        });
        self.client.add_sender(&outbox);
        Ok(Sender { outbox, timeout: self.timeout.min(EVER) })
    }
}

impl fmt::Debug for SenderBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SenderBuilder").field("client", &self.client).finish_non_exhaustive()
    }
}

/// Sends messages, over channels of its own: what goes wrong with one sender's messages disturbs no other's.
///
/// A cheap handle: clones share the channels, the window and the settings. Every message ends in one of three ways, and never
/// silently: it is accepted; it was not accepted, and the error says so; or nobody knows, and the error says that
/// ([`SendError::outcome`]).
///
/// When the server closes the channel, because of an exchange that is not there for example, it says so for the channel and not
/// for a message: everything unconfirmed on it ends as `ChannelClosed` with the outcome `Unknown`, but for what came back before. The next message gets a new
/// channel.
///
/// A message is kept until the server has confirmed it, so that an error can hand it back. What was accepted is let go when its receipt is
/// awaited: payloads of more than 1 KiB at once, smaller ones up to 31 messages later, or with the newest one.
///
/// Dropping the last handle closes the channels in the background, after what was handed over.
#[derive(Clone)]
#[doc(alias = "SendClient")]
#[doc(alias = "Producer")]
#[doc(alias = "FutureProducer")]
pub struct Sender {
    outbox: Arc<Outbox>,
    timeout: Duration,
}

impl Sender {
    #[cfg(all(test, feature = "broker"))]
    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    fn due(&self) -> Due {
        Due::After(self.timeout)
    }

    fn until(&self) -> Instant {
        self.due().instant()
    }

    /// The same sender with another deadline for each message.
    #[doc(alias = "publish_with_timeout")]
    pub fn with_timeout(&self, limit: Duration) -> Self {
        Self { outbox: Arc::clone(&self.outbox), timeout: limit.min(EVER) }
    }

    /// Sends a message and waits for what becomes of it. Tries again as the [`RetryPolicy`] says, within the deadline.
    ///
    /// # Errors
    ///
    /// | kind | outcome | why |
    /// |---|---|---|
    /// | `Returned` | `Refused` | it was mandatory and no queue took it (312) |
    /// | `Nacked` | `Refused` | the server could not take it (`basic.nack`) |
    /// | `ChannelClosed` | `Unknown` | the server closed the channel: 404, 403, 406; it may have been another message's fault |
    /// | `Io`, `Heartbeat`, `ConnectionClosed` | `Unknown` | the connection was lost |
    /// | `Timeout` | `NotSent` or `Unknown` | before it was written or after |
    /// | `Blocked` | `NotSent` | the server took no messages until the deadline |
    /// | `InvalidArgument`, `MessageTooLarge`, `Unsupported` | `NotSent` | it cannot be sent at all |
    /// | `Closed` | `NotSent` or `Unknown` | closed on this side |
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits for room, the message is not sent; dropped later, its fate is not known.
    #[doc(alias = "publish")]
    #[doc(alias = "send_message")]
    #[doc(alias = "basic_publish")]
    pub async fn send(&self, target: impl Into<Target>, message: impl Into<Message>) -> Result<Receipt, SendError> {
        let begun = self.outbox.begin(self.outbox.next_lane(), target.into(), message.into(), self.due());
        let (until, error) = match begun {
            Begun::Refused(error) => return Err(error),
            Begun::HandedOver(mut pending) => {
                let mut timer = pin!(None);
                match poll_fn(|cx| pending.poll_with(cx, timer.as_mut())).await {
                    Ok(receipt) => return Ok(receipt),
                    Err(error) => {
                        let until = timer.as_ref().as_pin_ref().map(|timer| timer.deadline());
                        (until.unwrap_or_else(|| self.until()), error)
                    }
                }
            }
            Begun::Waits(delayed) => {
                let until = delayed.until;
                match Box::pin(self.finish(delayed)).await {
                    Ok(receipt) => return Ok(receipt),
                    Err(error) => (until, error),
                }
            }
        };
        Box::pin(self.try_again(error, until)).await
    }

    /// Waits for room, and for what becomes of the message.
    async fn finish(&self, delayed: Box<Delayed>) -> Result<Receipt, SendError> {
        self.outbox.wait(delayed).await?.await
    }

    /// Waits until then, if there is a runtime that tells when it is time.
    async fn pause(&self, until: Instant) -> bool {
        if Handle::try_current().is_ok() {
            tokio::time::sleep_until(until).await;
            return true;
        }
        let Some(runtime) = self.outbox.timers() else { return false };
        // In a task there, for that runtime may have ended.
        runtime.spawn(async move { tokio::time::sleep_until(until).await }).await.is_ok()
    }

    /// A message was not accepted: sends it again as long as the [`RetryPolicy`] wants it.
    async fn try_again(&self, mut error: SendError, until: Instant) -> Result<Receipt, SendError> {
        let (mut retries, mut unknown) = (0, false);
        loop {
            // Whatever became of the last attempt: an earlier one may have arrived.
            unknown |= error.outcome() == Outcome::Unknown;
            let told = |error: SendError| if unknown { error.with_outcome(Outcome::Unknown) } else { error };
            let Some(wait) = self.outbox.retry.wait(&error, retries) else { return Err(told(error)) };
            let again = Instant::now() + wait.min(EVER);
            if again >= until || self.outbox.stopped.load(Ordering::Acquire) {
                return Err(told(error));
            }
            if !self.pause(again).await {
                return Err(told(error));
            }
            let outcome = error.error().clone();
            let Some((target, message)) = error.into_message() else { return Err(told(SendError::new(outcome))) };
            let (lane, cargo) = (self.outbox.next_lane(), Cargo::new(target, message));
            match self.finish(Box::new(Delayed { lane, cargo, until })).await {
                Ok(receipt) => return Ok(receipt),
                Err(next) => error = next,
            }
            retries += 1;
        }
    }

    /// Hands a message over as soon as there is room for it, and does not wait for what becomes of it: that is told by the
    /// receipt. Messages of one task are in order on one channel. The receipt has the same deadline. There are no retries.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), with the outcome `NotSent`.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the message is not sent.
    #[doc(alias = "publish")]
    pub async fn send_pipelined(
        &self,
        target: impl Into<Target>,
        message: impl Into<Message>,
    ) -> Result<PendingReceipt, SendError> {
        match self.outbox.begin(self.outbox.next_lane(), target.into(), message.into(), self.due()) {
            Begun::HandedOver(pending) => Ok(pending),
            Begun::Waits(delayed) => Box::pin(self.outbox.wait(delayed)).await,
            Begun::Refused(error) => Err(error),
        }
    }

    /// Hands a message over if there is room for it at this moment, and never waits. Works without a runtime, once the channel is open.
    ///
    /// # Errors
    ///
    /// The message is not sent and is handed back: `Blocked` by the server; `Timeout` where the window or the buffer is full, or
    /// where there is no channel yet, which is being opened then; and as [`send_pipelined`](Self::send_pipelined).
    #[doc(alias = "queue_message")]
    pub fn try_enqueue(
        &self,
        target: impl Into<Target>,
        message: impl Into<Message>,
    ) -> Result<PendingReceipt, SendError> {
        match self.outbox.begin(self.outbox.next_lane(), target.into(), message.into(), self.due()) {
            Begun::HandedOver(pending) => Ok(pending),
            Begun::Waits(delayed) => self.outbox.try_now(*delayed),
            Begun::Refused(error) => Err(error),
        }
    }

    /// Sends messages in this order, and waits for what becomes of each of them. One that fails stops none of the others. All of
    /// them share one deadline; there are no retries: the report says which failed, and why.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves the first ones handed over and the rest not.
    #[doc(alias = "send_message_batch")]
    #[doc(alias = "BatchMessage")]
    pub async fn send_batch<T, M>(&self, messages: impl IntoIterator<Item = (T, M)>) -> BatchReport
    where
        T: Into<Target>,
        M: Into<Message>,
    {
        let (until, lane) = (self.until(), self.outbox.next_lane());
        let mut pending = Vec::new();
        // Fetched first: the iterator need not be one that may be kept over an await.
        let cargoes = messages.into_iter().map(|(target, message)| Cargo::new(target.into(), message.into()));
        for Cargo { target, message } in cargoes.collect::<Vec<_>>() {
            pending.push(match self.outbox.begin(lane, target, message, Due::At(until)) {
                Begun::HandedOver(pending) => Ok(pending),
                Begun::Waits(delayed) => self.outbox.wait(delayed).await,
                Begun::Refused(error) => Err(error),
            });
        }
        let mut results = Vec::with_capacity(pending.len());
        for pending in pending {
            results.push(match pending {
                Ok(pending) => pending.await,
                Err(error) => Err(error),
            });
        }
        BatchReport::new(results)
    }

    /// Waits until the server has said what became of everything that was handed over before, or the deadline has passed. The report
    /// has one result for each message whose receipt was dropped since the last flush, in the order of sending, one channel after the
    /// other where there are several; of those, as many
    /// are remembered as may be in flight. Whoever holds a receipt has the result there.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    #[doc(alias = "send_all_messages")]
    #[doc(alias = "wait_for_confirms")]
    pub async fn flush(&self) -> BatchReport {
        match &self.outbox.backend {
            Backend::Amqp(outbox) => outbox.flush(self.until()).await,
            #[cfg(feature = "kafka")]
            Backend::Kafka(outbox) => outbox.flush(self.until()).await,
        }
    }

    /// How many messages the server has not confirmed yet.
    #[doc(alias = "messages_pending")]
    pub fn in_flight(&self) -> usize {
        match &self.outbox.backend {
            Backend::Amqp(outbox) => outbox.in_flight(),
            #[cfg(feature = "kafka")]
            Backend::Kafka(outbox) => outbox.in_flight(),
        }
    }

    /// Takes no more messages, waits until those on their way are confirmed, for this sender's timeout at most, and closes the
    /// channels. What was not confirmed in time is handed back. Closing twice is fine, and the second report is empty.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it takes no more messages; closing again goes on.
    pub async fn close(&self) -> CloseReport {
        self.outbox.close(self.until()).await
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}
