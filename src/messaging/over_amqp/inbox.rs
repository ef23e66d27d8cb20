//! Receiving over AMQP: consumers on channels of their own, and what settles their deliveries.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;

use super::convert;
use super::link::{Guest, Link};
use crate::amqp::{self, BasicConsume, Channel, FieldTable, ShortString};
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
    pub(in crate::messaging) tag_prefix: Option<String>,
}

impl Plan {
    fn request<'a>(&self, channel: &'a Channel, queue: &'a str) -> BasicConsume<'a> {
        let consume = channel.basic_consume(queue).arguments(self.arguments.clone()).exclusive(self.exclusive);
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
    ledger: Arc<Settled>,
}

impl Inbox {
    pub(in crate::messaging) async fn open(link: &Link, plan: Plan, on_drop: OnDrop) -> Result<Self> {
        let mut consumers = Vec::new();
        for _ in 0..plan.consumers.max(1) {
            let channel = link.channel().await?;
            let consumer = plan.request(&channel, plan.queue()?).prefetch(plan.prefetch).await?;
            consumers.push(Source { channel, consumer, ledger: Arc::default() });
        }
        Ok(Self { plan, on_drop, _guest: link.guest(), consumers, turn: 0 })
    }

    pub(in crate::messaging) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(Received, Acker)>>> {
        let mut checked = 0;
        while checked < self.consumers.len() {
            self.turn = (self.turn + 1) % self.consumers.len();
            let Some(source) = self.consumers.get_mut(self.turn) else { return Poll::Ready(None) };
            match Pin::new(&mut source.consumer).poll_next(cx) {
                Poll::Pending => checked += 1,
                Poll::Ready(Some(Ok(delivery))) => {
                    let (message, acker) = delivery.into_parts();
                    let received = convert::received(message, acker.delivery_tag());
                    let ledger = Arc::clone(&source.ledger);
                    let acker = Acker { acker: Some(acker), ledger, on_drop: self.on_drop };
                    return Poll::Ready(Some(Ok((received, acker))));
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
        for Source { channel, consumer, ledger } in &self.consumers {
            // First the old one goes, because an exclusive consumer bears no other.
            consumer.cancel().await?;
            let consumer = self.plan.request(channel, self.plan.queue()?).prefetch(prefetch).await?;
            fresh.push(Source { channel: channel.clone(), consumer, ledger: Arc::clone(ledger) });
        }
        self.plan.prefetch = prefetch;
        self.consumers.append(&mut fresh);
        Ok(())
    }
}

/// What was settled on a channel by the settling of another delivery.
#[derive(Debug, Default)]
struct Settled(Mutex<u64>);

impl Settled {
    fn lock(&self) -> MutexGuard<'_, u64> {
        // Nothing panics under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Settles one delivery.
#[derive(Debug)]
pub(in crate::messaging) struct Acker {
    /// `None` once it was settled.
    acker: Option<amqp::Acker>,
    ledger: Arc<Settled>,
    on_drop: OnDrop,
}

impl Acker {
    pub(in crate::messaging) fn settle(&mut self, how: Disposition) -> Result<()> {
        let Some(acker) = self.acker.take() else { return Err(settled_already()) };
        // Held until it is sent, so that nobody settles everything up to here in between.
        let settled = self.ledger.lock();
        if acker.delivery_tag() <= *settled {
            return Err(settled_already());
        }
        match how {
            Disposition::Accept => acker.ack(),
            Disposition::Reject | Disposition::Modify(Modify { undeliverable_here: true, .. }) => acker.reject(false),
            Disposition::Release => acker.nack(true),
            Disposition::Modify(Modify { delivery_failed: false, .. }) => acker.nack(true),
            Disposition::Modify(Modify { delivery_failed: true, .. }) => acker.reject(true),
        }
    }

    /// Settles this one and every earlier one of its channel.
    pub(in crate::messaging) fn settle_up_to(&self, how: Disposition) -> Result<()> {
        let Some(acker) = &self.acker else { return Err(settled_already()) };
        let mut settled = self.ledger.lock();
        if acker.delivery_tag() <= *settled {
            return Err(settled_already());
        }
        match how {
            Disposition::Accept => acker.ack_multiple()?,
            Disposition::Release => acker.nack_multiple(true)?,
            Disposition::Reject => acker.nack_multiple(false)?,
            Disposition::Modify(_) => {
                let message = "AMQP 0-9-1 can modify deliveries only one by one";
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        }
        *settled = acker.delivery_tag();
        Ok(())
    }

    pub(in crate::messaging) fn is_settled(&self) -> bool {
        self.acker.as_ref().is_none_or(|acker| acker.delivery_tag() <= *self.ledger.lock())
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
        if self.acker.is_some() {
            // It is settled already, or its channel has ended and the server has put it back.
            let _ = self.settle(how);
        }
    }
}

/// Consumers of one queue whose messages need no settling.
#[derive(Debug)]
pub(in crate::messaging) struct NoAckInbox {
    consumers: Vec<amqp::MessageStream>,
    _guest: Guest,
    turn: usize,
}

impl NoAckInbox {
    pub(in crate::messaging) async fn open(link: &Link, plan: &Plan) -> Result<Self> {
        let mut consumers = Vec::new();
        for _ in 0..plan.consumers.max(1) {
            let channel = link.channel().await?;
            consumers.push(plan.request(&channel, plan.queue()?).no_ack().await?);
        }
        Ok(Self { consumers, _guest: link.guest(), turn: 0 })
    }

    pub(in crate::messaging) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Received>>> {
        let mut checked = 0;
        while checked < self.consumers.len() {
            self.turn = (self.turn + 1) % self.consumers.len();
            let Some(consumer) = self.consumers.get_mut(self.turn) else { return Poll::Ready(None) };
            match Pin::new(consumer).poll_next(cx) {
                Poll::Pending => checked += 1,
                Poll::Ready(Some(Ok(message))) => return Poll::Ready(Some(Ok(convert::received(message, 0)))),
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
        for consumer in &self.consumers {
            result = result.and(consumer.cancel().await);
        }
        result
    }
}
