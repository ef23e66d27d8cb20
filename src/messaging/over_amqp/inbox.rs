//! Receiving over AMQP: consumers on channels of their own, asked in turn.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::link::{Guest, Link};
use crate::amqp::{self, BasicConsume, Canceller, Channel, FieldTable, ShortString};
use crate::error::{Error, ErrorKind, Result};

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

/// Consumers of one queue, each on a channel of its own: [`amqp::Consumer`]s, or [`amqp::MessageStream`]s, whose messages need no settling.
#[derive(Debug)]
pub(in crate::messaging) struct Inbox<C> {
    plan: Plan,
    _guest: Guest,
    sources: Vec<Source<C>>,
    /// Who is asked first: each in turn.
    turn: usize,
}

#[derive(Debug)]
struct Source<C> {
    channel: Channel,
    consumer: C,
    canceller: Canceller,
}

impl<C, T> Inbox<C>
where
    C: Stream<Item = Result<T>> + Unpin,
{
    async fn with(link: &Link, plan: Plan, start: impl AsyncFn(&Plan, Channel) -> Result<Source<C>>) -> Result<Self> {
        let mut sources = Vec::new();
        for _ in 0..plan.consumers.max(1) {
            sources.push(start(&plan, link.channel().await?).await?);
        }
        Ok(Self { plan, _guest: link.guest(), sources, turn: 0 })
    }

    /// The next one, of whichever consumer.
    #[inline]
    pub(in crate::messaging) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let mut checked = 0;
        while checked < self.sources.len() {
            self.turn = if self.turn + 1 < self.sources.len() { self.turn + 1 } else { 0 };
            let Some(source) = self.sources.get_mut(self.turn) else { return Poll::Ready(None) };
            match Pin::new(&mut source.consumer).poll_next(cx) {
                Poll::Pending => checked += 1,
                // Ended on this side: the others go on. They move up, and so all of them are asked again.
                Poll::Ready(None) => {
                    self.sources.remove(self.turn);
                    checked = 0;
                }
                Poll::Ready(Some(Err(error))) => {
                    self.sources.remove(self.turn);
                    return Poll::Ready(Some(Err(error)));
                }
                ready => return ready,
            }
        }
        if self.sources.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    }

    /// Ends the consumers. What has been delivered can still be taken.
    pub(in crate::messaging) async fn cancel(&self) -> Result<()> {
        let mut result = Ok(());
        for source in &self.sources {
            result = result.and(source.canceller.cancel().await);
        }
        result
    }
}

impl Inbox<amqp::Consumer> {
    pub(in crate::messaging) async fn open(link: &Link, plan: Plan) -> Result<Self> {
        Self::with(link, plan, Self::start).await
    }

    async fn start(plan: &Plan, channel: Channel) -> Result<Source<amqp::Consumer>> {
        let consumer = plan.request(&channel, plan.queue()?).prefetch(plan.prefetch).await?;
        Ok(Source { canceller: consumer.canceller(), consumer, channel })
    }

    /// New consumers with another prefetch in place of the old ones, which give what they have first.
    pub(in crate::messaging) async fn set_prefetch(&mut self, prefetch: u16) -> Result<()> {
        self.plan.prefetch = prefetch;
        let mut fresh = Vec::new();
        for Source { channel, canceller, .. } in &self.sources {
            // First the old one goes, because an exclusive consumer bears no other.
            canceller.cancel().await?;
            fresh.push(Self::start(&self.plan, channel.clone()).await?);
        }
        self.sources.append(&mut fresh);
        Ok(())
    }
}

impl Inbox<amqp::MessageStream> {
    pub(in crate::messaging) async fn open_no_ack(link: &Link, plan: Plan) -> Result<Self> {
        Self::with(link, plan, async |plan, channel| {
            let consumer = plan.request(&channel, plan.queue()?).no_ack().await?;
            Ok(Source { canceller: consumer.canceller(), consumer, channel })
        })
        .await
    }
}
