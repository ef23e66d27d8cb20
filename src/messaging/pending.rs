//! What becomes of a message that was handed over: somebody may want to know, now or later.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::deadline::by;
use super::over_amqp;
use crate::error::Result;
#[cfg(feature = "kafka")]
use crate::kafka;
use crate::message::{EVER, Receipt, SendError};

/// What will become of a message that was handed over.
///
/// Ready when the server has said it, when the deadline has passed (on Kafka there is none outside of tokio), or when the channel
/// has ended; errors are those of
/// [`Sender::send`](super::Sender::send) whose outcome is not `NotSent`. Dropping it means not to care: the message is on its way all the same.
///
/// # Cancel safety
///
/// Cancel-safe: a mutable reference to it can be awaited again.
#[must_use = "what became of the message is known when this is awaited"]
#[doc(alias = "PublisherConfirm")]
pub struct PendingReceipt {
    kind: Kind,
}

enum Kind {
    Amqp(over_amqp::Pending),
    #[cfg(feature = "kafka")]
    Kafka(kafka::Pending),
}

/// Where a message is that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[doc(alias = "MessageState")]
pub enum SendState {
    /// It is written, or waits to be written; the server has not said anything of it.
    Written,
    /// It is known what became of it: awaiting the receipt does not wait.
    Settled,
}

impl PendingReceipt {
    /// Where the message is.
    pub fn state(&self) -> SendState {
        match &self.kind {
            Kind::Amqp(pending) if !pending.is_settled() => SendState::Written,
            #[cfg(feature = "kafka")]
            Kind::Kafka(pending) if !pending.is_settled() => SendState::Written,
            #[cfg(feature = "kafka")]
            Kind::Kafka(_) => SendState::Settled,
            Kind::Amqp(_) => SendState::Settled,
        }
    }

    /// The number of the message on its channel (AMQP, with confirms).
    pub fn delivery_tag(&self) -> Option<u64> {
        match &self.kind {
            Kind::Amqp(pending) => pending.delivery_tag(),
            #[cfg(feature = "kafka")]
            Kind::Kafka(_) => None,
        }
    }

    /// As a future, for one who has a place for the timer that it may need.
    pub(super) fn poll_with(
        &mut self,
        cx: &mut Context<'_>,
        timer: Pin<&mut Option<Sleep>>,
    ) -> Poll<Result<Receipt, SendError>> {
        match &mut self.kind {
            Kind::Amqp(pending) => pending.poll(cx, Some(timer)),
            #[cfg(feature = "kafka")]
            Kind::Kafka(pending) => pending.poll(cx),
        }
    }

    /// Waits for at most `limit` (on Kafka for as long as it takes where there is no tokio runtime). `None`: nothing is known yet, and it can
    /// be awaited again.
    pub async fn within(&mut self, limit: Duration) -> Option<Result<Receipt, SendError>> {
        let runtime = match &self.kind {
            Kind::Amqp(pending) => Some(pending.runtime().clone()),
            #[cfg(feature = "kafka")]
            Kind::Kafka(_) => None,
        };
        let wait = poll_fn(|cx| Pin::new(&mut *self).poll(cx));
        by(runtime.as_ref(), Instant::now() + limit.min(EVER), wait).await
    }
}

impl From<over_amqp::Pending> for PendingReceipt {
    #[inline]
    fn from(pending: over_amqp::Pending) -> Self {
        Self { kind: Kind::Amqp(pending) }
    }
}

#[cfg(feature = "kafka")]
impl From<kafka::Pending> for PendingReceipt {
    fn from(pending: kafka::Pending) -> Self {
        Self { kind: Kind::Kafka(pending) }
    }
}

impl Future for PendingReceipt {
    type Output = Result<Receipt, SendError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.kind {
            Kind::Amqp(pending) => pending.poll(cx, None),
            #[cfg(feature = "kafka")]
            Kind::Kafka(pending) => pending.poll(cx),
        }
    }
}

impl fmt::Debug for PendingReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingReceipt").field("state", &self.state()).finish()
    }
}
