//! What the handles of a sender share: its settings, and the way of a message to its transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::over_amqp;
use super::over_amqp::flights::Due;
use super::pending::PendingReceipt;
use crate::amqp::Properties;
use crate::error::{Error, ErrorKind, Result};
#[cfg(feature = "kafka")]
use crate::kafka;
use crate::message::{Cargo, CloseReport, Message, RetryPolicy, SendError, SharedProperties, Target};

pub(super) type Hook = Arc<dyn Fn(&Target, &mut Message) + Send + Sync>;

/// What all handles of a sender share.
pub(super) struct Outbox {
    pub(super) backend: Backend,
    pub(super) confirms: bool,
    pub(super) defaults: SharedProperties,
    pub(super) hook: Option<Hook>,
    pub(super) max_message_size: usize,
    pub(super) retry: RetryPolicy,
    pub(super) stopped: AtomicBool,
}

pub(super) enum Backend {
    Amqp(over_amqp::Outbox),
    #[cfg(feature = "kafka")]
    Kafka(kafka::Outbox),
}

impl Outbox {
    /// Nothing is taken from now on.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    pub(super) async fn settled(&self, until: Instant) -> Result<()> {
        match &self.backend {
            Backend::Amqp(outbox) => outbox.settled(until).await,
            #[cfg(feature = "kafka")]
            Backend::Kafka(outbox) => outbox.settled(until).await,
        }
    }

    /// The connection is let go until the next message.
    #[cfg(feature = "kafka")]
    pub(super) fn rest(&self) {
        match &self.backend {
            Backend::Amqp(_) => {}
            Backend::Kafka(outbox) => outbox.rest(),
        }
    }

    pub(super) async fn close(&self, until: Instant) -> CloseReport {
        self.stop();
        match &self.backend {
            Backend::Amqp(outbox) => outbox.close(until).await,
            #[cfg(feature = "kafka")]
            Backend::Kafka(outbox) => outbox.close(until).await,
        }
    }

    /// What is the same for every transport: defaults, the hook, and the limits that need no server.
    ///
    /// A message that says nothing is left as it is: its defaults are those of all such messages, and need not be written into each
    /// of them. It gets them when it is handed back, or has to [wait](Self::complete).
    #[inline]
    fn prepare(&self, target: &Target, message: &mut Message) -> Result<()> {
        if !message.says_nothing() {
            message.inherit(&self.defaults);
        }
        if let Some(hook) = &self.hook {
            self.complete(message);
            hook(target, message);
            if message.says_nothing() {
                // It is to have none.
                message.properties = Properties::new().into();
            }
        }
        self.check(target, message)
    }

    fn complete(&self, message: &mut Message) {
        if message.says_nothing() {
            message.inherit(&self.defaults);
        }
    }

    #[inline]
    fn check(&self, target: &Target, message: &Message) -> Result<()> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the sender was closed on this side"));
        }
        let size = message.body().len();
        if size > self.max_message_size {
            let message = format!("the message has {size} octets, and {} are allowed", self.max_message_size);
            return Err(Error::new(ErrorKind::MessageTooLarge, message));
        }
        if target.is_mandatory() == Some(true) && !self.confirms {
            let message = "mandatory needs confirms: without them nobody can be told which message came back";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Ok(())
    }

    /// What can be done for a message without waiting. It is large, and a future that keeps it is larger: so most futures never see
    /// it.
    #[inline]
    pub(super) fn begin(&self, lane: usize, target: Target, mut message: Message, due: Due) -> Begun {
        if let Err(error) = self.prepare(&target, &mut message) {
            return self.refuse(target, message, error);
        }
        let handed_over = match &self.backend {
            Backend::Amqp(outbox) => outbox.enqueue_at_once(lane, target, &mut message, &due),
            #[cfg(feature = "kafka")]
            Backend::Kafka(_) => Err(target),
        };
        match handed_over {
            Ok(pending) => Begun::HandedOver(pending.into()),
            Err(target) => self.delay(lane, target, message, due.instant()),
        }
    }

    #[cold]
    fn refuse(&self, target: Target, mut message: Message, error: Error) -> Begun {
        self.complete(&mut message);
        Begun::Refused(Cargo::new(target, message).refuse(error))
    }

    #[cold]
    fn delay(&self, lane: usize, target: Target, mut message: Message, until: Instant) -> Begun {
        self.complete(&mut message);
        Begun::Waits(Box::new(Delayed { lane, cargo: Cargo::new(target, message), until }))
    }

    /// Hands a message over as soon as there is what it waits for.
    pub(super) async fn wait(&self, mut delayed: Box<Delayed>) -> Result<PendingReceipt, SendError> {
        let Delayed { lane, cargo, until } = &mut *delayed;
        self.enqueue(*lane, cargo, *until).await
    }

    /// Hands a message over that is prepared, as soon as there is room for it.
    async fn enqueue(&self, lane: usize, cargo: &mut Cargo, until: Instant) -> Result<PendingReceipt, SendError> {
        match &self.backend {
            Backend::Amqp(outbox) => outbox.enqueue(lane, cargo, until).await.map(PendingReceipt::from),
            #[cfg(feature = "kafka")]
            Backend::Kafka(outbox) => outbox.enqueue(cargo, until).await.map(PendingReceipt::from),
        }
    }

    /// Hands a message over if there is what it waits for by now, and says what it is otherwise.
    pub(super) fn try_now(&self, Delayed { lane, mut cargo, until }: Delayed) -> Result<PendingReceipt, SendError> {
        match &self.backend {
            Backend::Amqp(outbox) => outbox.try_enqueue(lane, &mut cargo, until).map(PendingReceipt::from),
            #[cfg(feature = "kafka")]
            Backend::Kafka(outbox) => outbox.try_enqueue(&mut cargo, until).map(PendingReceipt::from),
        }
    }

    /// Who keeps the time for one who is outside of any runtime.
    pub(super) fn timers(&self) -> Option<Handle> {
        match &self.backend {
            Backend::Amqp(outbox) => outbox.timers(),
            #[cfg(feature = "kafka")]
            Backend::Kafka(_) => None,
        }
    }

    pub(super) fn next_lane(&self) -> usize {
        match &self.backend {
            Backend::Amqp(outbox) => outbox.next_lane(),
            #[cfg(feature = "kafka")]
            Backend::Kafka(_) => 0,
        }
    }
}

/// How far a message has come without waiting.
pub(super) enum Begun {
    HandedOver(PendingReceipt),
    Waits(Box<Delayed>),
    /// It cannot be sent at all.
    Refused(SendError),
}

/// A message that has to wait for a connection, for its channel, or for room there; or to be told why it cannot be sent.
pub(super) struct Delayed {
    pub(super) lane: usize,
    pub(super) cargo: Cargo,
    pub(super) until: Instant,
}
