//! Receiving without settling.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;

use super::idle::Idle;
use super::over_amqp::inbox::Inbox;
use super::received::Received;
#[cfg(doc)]
use super::receiver::Receiver;
use crate::amqp;
use crate::error::Result;
#[cfg(feature = "kafka")]
use crate::kafka;
#[cfg(feature = "kafka")]
use crate::message::Disposition;

/// A stream of messages that need no settling: they were settled when the server sent them. What comes out of it cannot be settled.
///
/// It begins again and ends as a [`Receiver`] does, but hands out all that has come before it tells an error. Dropping it ends the consumers; what nobody has looked at is lost.
///
/// ```compile_fail,E0599
/// async fn settle(mut stream: leveret::messaging::MessageStream) -> leveret::error::Result<()> {
///     match stream.recv().await {
///         Some(received) => received?.accept(),
///         None => Ok(()),
///     }
/// }
/// ```
pub struct MessageStream {
    backend: NoAckBackend,
    idle_timeout: Option<Duration>,
    idle: Idle,
    over: bool,
}

pub(super) enum NoAckBackend {
    Amqp(Inbox<amqp::MessageStream>),
    #[cfg(feature = "kafka")]
    Kafka(kafka::Inbox),
}

impl MessageStream {
    pub(super) fn new(backend: NoAckBackend, idle_timeout: Option<Duration>, idle: Idle) -> Self {
        Self { backend, idle_timeout, idle, over: false }
    }

    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Received>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let next = match &mut self.backend {
            NoAckBackend::Amqp(inbox) => inbox.poll_next(cx).map_ok(Received::from),
            #[cfg(feature = "kafka")]
            NoAckBackend::Kafka(inbox) => inbox.poll_next(cx).map_ok(|(arrived, mut acker)| {
                // Where the partition is somebody else's by now, it comes there as well.
                let _ = acker.settle(Disposition::Accept);
                Received::from(arrived)
            }),
        };
        match next {
            Poll::Ready(Some(Ok(_))) => self.idle.message_came(self.idle_timeout),
            Poll::Ready(_) => self.end(),
            Poll::Pending => {
                std::task::ready!(self.idle.poll(self.idle_timeout, cx));
                self.end();
                return Poll::Ready(None);
            }
        }
        next
    }

    /// Whatever still runs ends, too.
    fn end(&mut self) {
        self.over = true;
        match &mut self.backend {
            NoAckBackend::Amqp(inbox) => inbox.end(),
            #[cfg(feature = "kafka")]
            NoAckBackend::Kafka(inbox) => inbox.end(),
        }
    }

    /// The next message. `None` as [`Receiver::recv`].
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn recv(&mut self) -> Option<Result<Received>> {
        poll_fn(|cx| self.poll_received(cx)).await
    }

    /// Ends the consumers (`basic.cancel`). What has been delivered by then can still be fetched.
    ///
    /// # Errors
    ///
    /// `Timeout`; whatever has ended the channel.
    ///
    /// # Cancel safety
    ///
    /// The consumers end even when the future is dropped.
    pub async fn cancel(&self) -> Result<()> {
        match &self.backend {
            NoAckBackend::Amqp(inbox) => inbox.cancel().await,
            #[cfg(feature = "kafka")]
            NoAckBackend::Kafka(inbox) => {
                inbox.drain();
                Ok(())
            }
        }
    }
}

impl Stream for MessageStream {
    type Item = Result<Received>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_received(cx)
    }
}

impl fmt::Debug for MessageStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageStream").field("over", &self.over).finish()
    }
}
