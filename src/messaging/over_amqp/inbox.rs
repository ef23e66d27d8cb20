//! Receiving over AMQP: consumers on channels of their own, and what settles their deliveries.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;

use super::convert::Seen;
use super::link::{Guest, Link};
use crate::amqp::{self, BasicConsume, Channel, FieldTable, Settle, ShortString};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Disposition, Modify, OnDrop, Received};

/// What to consume, and how.
#[derive(Clone, Debug)]
pub(in crate::messaging) struct Plan {
    pub(in crate::messaging) queue: ShortString,
    pub(in crate::messaging) arguments: FieldTable,
    pub(in crate::messaging) exclusive: bool,
    pub(in crate::messaging) prefetch: u16,
    pub(in crate::messaging) consumers: u16,
    pub(in crate::messaging) coalesce_acks: bool,
    pub(in crate::messaging) tag_prefix: Option<String>,
}

impl Plan {
    fn request<'a>(&self, channel: &'a Channel, queue: &'a str) -> BasicConsume<'a> {
        let consume = channel.basic_consume(queue).arguments(self.arguments.clone()).exclusive(self.exclusive);
        let consume = consume.coalesce_acks(self.coalesce_acks);
        match &self.tag_prefix {
            Some(prefix) => consume.consumer_tag(tag(prefix)),
            None => consume,
        }
    }

    fn queue(&self) -> Result<&str> {
        let wrong = |error| Error::with_source(ErrorKind::InvalidArgument, "the queue's name is not UTF-8", error);
        self.queue.to_str().map_err(wrong)
    }
}

/// A consumer tag that nobody else has.
fn tag(prefix: &str) -> String {
    format!("{prefix}{:016x}", fastrand::u64(..))
}

/// Consumers of one queue, each on a channel of its own.
#[derive(Debug)]
pub(in crate::messaging) struct Inbox {
    plan: Plan,
    on_drop: OnDrop,
    _guest: Guest,
    consumers: Vec<Source>,
    /// Who is asked first: each in turn.
    turn: usize,
}

#[derive(Debug)]
struct Source {
    channel: Channel,
    consumer: amqp::Consumer,
    seen: Seen,
    settled: Arc<Settled>,
}

impl Inbox {
    pub(in crate::messaging) async fn open(link: &Link, plan: Plan, on_drop: OnDrop) -> Result<Self> {
        let mut consumers = Vec::new();
        for _ in 0..plan.consumers.max(1) {
            let channel = link.channel().await?;
            let consumer = plan.request(&channel, plan.queue()?).prefetch(plan.prefetch).await?;
            consumers.push(Source { consumer, seen: Seen::default(), settled: Settled::on(&channel), channel });
        }
        Ok(Self { plan, on_drop, _guest: link.guest(), consumers, turn: 0 })
    }

    /// The next delivery, as `make` makes it: it is large, and made where it is to be.
    #[inline]
    pub(in crate::messaging) fn poll_next<T>(
        &mut self,
        cx: &mut Context<'_>,
        make: impl FnOnce(Received, Acker) -> T,
    ) -> Poll<Option<Result<T>>> {
        let mut checked = 0;
        while checked < self.consumers.len() {
            self.turn = (self.turn + 1) % self.consumers.len();
            let Some(source) = self.consumers.get_mut(self.turn) else { return Poll::Ready(None) };
            match Pin::new(&mut source.consumer).poll_next(cx) {
                Poll::Pending => checked += 1,
                Poll::Ready(Some(Ok(delivery))) => {
                    let (tag, settled) = (delivery.delivery_tag(), Arc::clone(&source.settled));
                    let acker = Acker { settled, tag, on_drop: self.on_drop, done: false };
                    return Poll::Ready(Some(Ok(make(source.seen.received(delivery.into_message(), tag), acker))));
                }
                // Ended on this side: the others go on. They move up, and so all of them are asked again.
                Poll::Ready(None) => {
                    self.consumers.remove(self.turn);
                    checked = 0;
                }
                Poll::Ready(Some(Err(error))) => {
                    self.consumers.remove(self.turn);
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        if self.consumers.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    }

    /// Ends the consumers. What has been delivered can still be taken.
    pub(in crate::messaging) async fn cancel(&self) -> Result<()> {
        let mut result = Ok(());
        for source in &self.consumers {
            result = result.and(source.consumer.cancel().await);
        }
        result
    }

    /// New consumers with another prefetch in place of the old ones, which give what they have first.
    pub(in crate::messaging) async fn set_prefetch(&mut self, prefetch: u16) -> Result<()> {
        let mut fresh = Vec::new();
        for Source { channel, consumer, settled, .. } in &self.consumers {
            // First the old one goes, because an exclusive consumer bears no other.
            consumer.cancel().await?;
            let consumer = self.plan.request(channel, self.plan.queue()?).prefetch(prefetch).await?;
            let (channel, settled) = (channel.clone(), Arc::clone(settled));
            fresh.push(Source { channel, consumer, seen: Seen::default(), settled });
        }
        self.plan.prefetch = prefetch;
        self.consumers.append(&mut fresh);
        Ok(())
    }
}

/// A channel, and up to which tag its deliveries were settled by the settling of another one.
#[derive(Debug)]
struct Settled {
    channel: Channel,
    up_to: Mutex<u64>,
}

impl Settled {
    fn on(channel: &Channel) -> Arc<Self> {
        Arc::new(Self { channel: channel.clone(), up_to: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        // Nothing panics under the lock.
        self.up_to.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Settles one delivery. Keeps its channel, so a tag can never be settled on another one.
#[derive(Debug)]
pub(in crate::messaging) struct Acker {
    settled: Arc<Settled>,
    tag: u64,
    on_drop: OnDrop,
    /// It was settled by itself.
    done: bool,
}

impl Acker {
    pub(in crate::messaging) fn settle(&mut self, how: Disposition) -> Result<()> {
        if std::mem::replace(&mut self.done, true) {
            return Err(settled_already());
        }
        // Held until it is sent, so that nobody settles everything up to here in between.
        let up_to = self.settled.lock();
        if self.tag <= *up_to {
            return Err(settled_already());
        }
        let how = match how {
            Disposition::Accept => Settle::Ack { multiple: false },
            Disposition::Reject | Disposition::Modify(Modify { undeliverable_here: true, .. }) => {
                Settle::Reject { requeue: false }
            }
            Disposition::Release | Disposition::Modify(Modify { delivery_failed: false, .. }) => {
                Settle::Nack { multiple: false, requeue: true }
            }
            Disposition::Modify(Modify { delivery_failed: true, .. }) => Settle::Reject { requeue: true },
        };
        self.settled.channel.inner.settle(self.tag, how)
    }

    /// Settles this one and every earlier one of its channel.
    pub(in crate::messaging) fn settle_up_to(&self, how: Disposition) -> Result<()> {
        if self.done {
            return Err(settled_already());
        }
        let mut up_to = self.settled.lock();
        if self.tag <= *up_to {
            return Err(settled_already());
        }
        let how = match how {
            Disposition::Accept => Settle::Ack { multiple: true },
            Disposition::Release => Settle::Nack { multiple: true, requeue: true },
            Disposition::Reject => Settle::Nack { multiple: true, requeue: false },
            Disposition::Modify(_) => {
                let message = "AMQP 0-9-1 can modify deliveries only one by one";
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        };
        self.settled.channel.inner.settle(self.tag, how)?;
        *up_to = self.tag;
        Ok(())
    }

    pub(in crate::messaging) fn is_settled(&self) -> bool {
        self.done || self.tag <= *self.settled.lock()
    }
}

fn settled_already() -> Error {
    Error::new(ErrorKind::Stale, "the delivery is settled already; nothing was sent")
}

impl Drop for Acker {
    fn drop(&mut self) {
        let how = match self.on_drop {
            OnDrop::Release => Disposition::Release,
            OnDrop::Reject => Disposition::Reject,
            OnDrop::Leave => return,
        };
        if !self.done {
            // It is settled already, or its channel has ended and the server has put it back.
            let _ = self.settle(how);
        }
    }
}

/// Consumers of one queue whose messages need no settling.
#[derive(Debug)]
pub(in crate::messaging) struct NoAckInbox {
    consumers: Vec<(amqp::MessageStream, Seen)>,
    _guest: Guest,
    turn: usize,
}

impl NoAckInbox {
    pub(in crate::messaging) async fn open(link: &Link, plan: &Plan) -> Result<Self> {
        let mut consumers = Vec::new();
        for _ in 0..plan.consumers.max(1) {
            let channel = link.channel().await?;
            consumers.push((plan.request(&channel, plan.queue()?).no_ack().await?, Seen::default()));
        }
        Ok(Self { consumers, _guest: link.guest(), turn: 0 })
    }

    pub(in crate::messaging) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Received>>> {
        let mut checked = 0;
        while checked < self.consumers.len() {
            self.turn = (self.turn + 1) % self.consumers.len();
            let Some((consumer, seen)) = self.consumers.get_mut(self.turn) else { return Poll::Ready(None) };
            match Pin::new(consumer).poll_next(cx) {
                Poll::Pending => checked += 1,
                Poll::Ready(Some(Ok(message))) => return Poll::Ready(Some(Ok(seen.received(message, 0)))),
                Poll::Ready(None) => {
                    self.consumers.remove(self.turn);
                    checked = 0;
                }
                Poll::Ready(Some(Err(error))) => {
                    self.consumers.remove(self.turn);
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        if self.consumers.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    }

    pub(in crate::messaging) async fn cancel(&self) -> Result<()> {
        let mut result = Ok(());
        for (consumer, _) in &self.consumers {
            result = result.and(consumer.cancel().await);
        }
        result
    }
}
