//! Receiving over AMQP: consumers on channels of their own, asked in turn, and started again when their connection was lost.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::link::{Guest, Link};
use super::recovery::Recovery;
use crate::amqp::{self, BasicConsume, Canceller, Channel, FieldTable};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{RecoveryPolicy, Source};
use crate::messaging::events::Event;
use crate::messaging::hook::Hook;

/// What to consume, and how. A receiver that begins again does so with the same plan.
#[derive(Clone, Debug)]
pub(in crate::messaging) struct Plan {
    pub(in crate::messaging) origin: Origin,
    pub(in crate::messaging) arguments: FieldTable,
    pub(in crate::messaging) exclusive: bool,
    pub(in crate::messaging) prefetch: u16,
    pub(in crate::messaging) consumers: u16,
    pub(in crate::messaging) coalesce_acks: bool,
    pub(in crate::messaging) tag_prefix: Option<String>,
    /// Unless it is the client's.
    pub(in crate::messaging) recovery: Option<RecoveryPolicy>,
}

/// Where a receiver receives from.
#[derive(Clone, Debug)]
pub(in crate::messaging) enum Origin {
    Fixed(Source),
    /// Made on a channel, each time that the receiver begins.
    Made(Hook<Channel, Source>),
}

/// A queue, and what is said of it when it is consumed from.
#[derive(Debug)]
struct Queue {
    name: String,
    arguments: FieldTable,
    exclusive: bool,
}

impl Plan {
    fn queue(&self, source: &Source) -> Result<Queue> {
        let Source::Queue { name, arguments, exclusive } = source else {
            let message = "topics cannot be received from here: AMQP 0-9-1 has queues";
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        let wrong = |error| Error::with_source(ErrorKind::InvalidArgument, "the queue's name is not UTF-8", error);
        let mut queue = Queue {
            name: name.to_str().map_err(wrong)?.to_owned(),
            arguments: arguments.clone(),
            exclusive: *exclusive || self.exclusive,
        };
        for (name, value) in self.arguments.iter() {
            queue.arguments.insert(name.clone(), value.clone());
        }
        Ok(queue)
    }

    async fn consume<C: Consume>(&self, channel: Channel, queue: &Queue) -> Result<Running<C>> {
        let consume = channel.basic_consume(&queue.name).arguments(queue.arguments.clone()).exclusive(queue.exclusive);
        let consume = consume.coalesce_acks(self.coalesce_acks);
        let consume = match &self.tag_prefix {
            Some(prefix) => consume.consumer_tag(tag(prefix)),
            None => consume,
        };
        let consumer = C::start(consume, self.prefetch).await?;
        Ok(Running { canceller: Some(consumer.canceller()), consumer, later: VecDeque::new(), channel })
    }

    /// Starts the consumers: what building a receiver does, and beginning again. All of them on one connection, where one's queue is
    /// the others' as well.
    async fn begin<C: Consume>(self, link: Arc<Link>) -> Result<Begun<C>> {
        // What cannot be is said before anybody is asked.
        let fixed = match &self.origin {
            Origin::Fixed(source) => Some(self.queue(source)?),
            Origin::Made(_) => None,
        };
        let (channels, lost) = link.channels(self.consumers).await?;
        let queue = match (fixed, &self.origin, channels.first()) {
            (None, Origin::Made(make), Some(channel)) => {
                let (until, limit) = link.limit();
                self.queue(&make.call(channel.clone(), link.runtime(), until, limit).await?)?
            }
            (Some(queue), ..) => queue,
            (None, ..) => return Err(Error::new(ErrorKind::InvalidArgument, "a receiver without consumers")),
        };
        let mut running = Vec::with_capacity(channels.len());
        for channel in channels {
            running.push(self.consume(channel, &queue).await?);
        }
        Ok(Begun { queue, running, lost })
    }
}

/// A consumer tag that nobody else has.
fn tag(prefix: &str) -> String {
    format!("{prefix}{:016x}", fastrand::u64(..))
}

/// Consumers of either kind.
pub(in crate::messaging) trait Consume:
    Stream<Item = Result<<Self as Consume>::Message>> + Unpin + Send + Sized + 'static
{
    type Message;

    /// Whether what was delivered, and not fetched before the connection was lost, is delivered again.
    const REDELIVERED: bool;

    fn start(consume: BasicConsume<'_>, prefetch: u16) -> impl Future<Output = Result<Self>> + Send;

    fn canceller(&self) -> Canceller;
}

impl Consume for amqp::Consumer {
    type Message = amqp::Delivery;

    const REDELIVERED: bool = true;

    async fn start(consume: BasicConsume<'_>, prefetch: u16) -> Result<Self> {
        consume.prefetch(prefetch).await
    }

    fn canceller(&self) -> Canceller {
        self.canceller()
    }
}

/// Its messages need no settling.
impl Consume for amqp::MessageStream {
    type Message = amqp::Message;

    const REDELIVERED: bool = false;

    async fn start(consume: BasicConsume<'_>, _prefetch: u16) -> Result<Self> {
        consume.no_ack().await
    }

    fn canceller(&self) -> Canceller {
        self.canceller()
    }
}

#[derive(Debug)]
struct Running<C> {
    channel: Channel,
    consumer: C,
    /// Started in its place: each is asked when the one before has given what it had, and so the order is kept.
    later: VecDeque<C>,
    /// Of the last of them, unless it is ended already.
    canceller: Option<Canceller>,
}

impl<C> Running<C> {
    /// The consumer has ended on this side. Says whether there is another one in its place.
    #[cold]
    fn go_on(&mut self) -> bool {
        let next = self.later.pop_front();
        let goes_on = next.is_some();
        next.into_iter().for_each(|next| self.consumer = next);
        goes_on
    }
}

#[derive(Debug)]
struct Begun<C> {
    queue: Queue,
    running: Vec<Running<C>>,
    /// The connection of all of them was.
    lost: Arc<AtomicBool>,
}

/// Consumers of one queue, each on a channel of its own.
#[derive(Debug)]
pub(in crate::messaging) struct Inbox<C> {
    running: Vec<Running<C>>,
    /// Who is asked first: each in turn.
    turn: usize,
    /// The connection was lost: what they have is of no use, where it is delivered again.
    lost: Arc<AtomicBool>,
    rest: Box<Rest<C>>,
}

/// What is not needed for each message.
#[derive(Debug)]
struct Rest<C> {
    queue: Queue,
    plan: Plan,
    recovery: Recovery<Begun<C>>,
    /// It was ended on this side, and does not begin again.
    ended: AtomicBool,
    /// What it has ended with, until that is told.
    end: Option<Error>,
    _guest: Guest,
}

impl<C: Consume> Inbox<C> {
    pub(in crate::messaging) async fn open(link: &Arc<Link>, plan: Plan) -> Result<Self> {
        let (recovery, guest) = (Recovery::new(link, plan.recovery), link.guest());
        let Begun { queue, running, lost } = plan.clone().begin(Arc::clone(link)).await?;
        let rest = Rest { queue, plan, recovery, ended: AtomicBool::new(false), end: None, _guest: guest };
        Ok(Self { running, turn: 0, lost, rest: Box::new(rest) })
    }

    /// The next one, of whichever consumer.
    #[inline]
    pub(in crate::messaging) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<C::Message>>> {
        if C::REDELIVERED
            && self.lost.load(Ordering::Relaxed)
            && let Some(error) = self.discard(cx)
        {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            let mut checked = 0;
            while checked < self.running.len() {
                self.turn = if self.turn + 1 < self.running.len() { self.turn + 1 } else { 0 };
                let Some(running) = self.running.get_mut(self.turn) else { return Poll::Ready(None) };
                match Pin::new(&mut running.consumer).poll_next(cx) {
                    Poll::Pending => checked += 1,
                    // Ended on this side: the others go on. They move up, and so all of them are asked again.
                    Poll::Ready(None) => {
                        if !running.go_on() {
                            self.running.remove(self.turn);
                        }
                        checked = 0;
                    }
                    Poll::Ready(Some(Err(error))) => {
                        self.running.remove(self.turn);
                        match self.lose(error) {
                            Some(error) if C::REDELIVERED => return Poll::Ready(Some(Err(error))),
                            // What the others have is nowhere else, and comes first.
                            Some(error) => {
                                self.rest.end.get_or_insert(error);
                            }
                            None => {}
                        }
                        checked = 0;
                    }
                    ready => return ready,
                }
            }
            if !C::REDELIVERED
                && let Some(error) = self.rest.end.take()
            {
                return Poll::Ready(Some(Err(error)));
            }
            if !self.running.is_empty() {
                return Poll::Pending;
            }
            if let Err(end) = ready!(self.poll_begin(cx)) {
                return Poll::Ready(end.map(Err));
            }
        }
    }

    /// The connection was lost: what the consumers have could not be settled, and comes again. Gives the reason when that is the end
    /// of all.
    #[cold]
    fn discard(&mut self, cx: &mut Context<'_>) -> Option<Error> {
        let (mut at, mut reason) = (0, None);
        while let Some(running) = self.running.get_mut(at) {
            match Pin::new(&mut running.consumer).poll_next(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Pending => at += 1,
                Poll::Ready(None) if running.go_on() => {}
                Poll::Ready(end) => {
                    reason = reason.or_else(|| end.and_then(Result::err));
                    self.running.remove(at);
                }
            }
        }
        reason.and_then(|reason| self.lose(reason))
    }

    /// A consumer has ended, for this reason. Gives it back when that is the end of all.
    #[cold]
    fn lose(&mut self, error: Error) -> Option<Error> {
        if error.kind() == ErrorKind::Cancelled {
            self.rest.recovery.link.events().tell(&Event::ConsumerCancelled(self.rest.queue.name.clone()));
        }
        if self.rest.ended.load(Ordering::Relaxed) {
            return Some(error);
        }
        let end = self.rest.recovery.lose(error, &self.lost);
        // The others are on the same connection. What they have comes again, unless it counts as settled.
        if end.is_none() && C::REDELIVERED {
            self.running.clear();
        }
        end
    }

    /// There are no consumers. Ready when there are some again; or with an error, if there is one, when there will be none.
    #[cold]
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Option<Error>>> {
        if self.rest.ended.load(Ordering::Relaxed) {
            self.rest.recovery.stop();
        }
        let begun = self.rest.recovery.poll(|link| self.rest.plan.clone().begin(link), cx);
        Poll::Ready(match ready!(begun) {
            Some(Ok(Begun { queue, running, lost })) => {
                self.rest.recovery.link.events().tell(&Event::Recovered(queue.name.clone()));
                (self.rest.queue, self.running, self.lost) = (queue, running, lost);
                Ok(())
            }
            Some(Err(error)) => Err(Some(error)),
            None => Err(None),
        })
    }

    /// Whatever still runs ends, and does not begin again. What has been delivered and not taken goes back to the queue.
    #[cold]
    pub(in crate::messaging) fn end(&mut self) {
        self.stop();
        self.running.clear();
    }

    /// It does not begin again from now on.
    pub(in crate::messaging) fn stop(&mut self) {
        self.rest.ended.store(true, Ordering::Relaxed);
        self.rest.recovery.stop();
    }

    /// Ends the consumers, and does not begin again. What has been delivered can still be taken.
    pub(in crate::messaging) async fn cancel(&self) -> Result<()> {
        self.rest.ended.store(true, Ordering::Relaxed);
        let mut result = Ok(());
        for canceller in self.running.iter().filter_map(|running| running.canceller.as_ref()) {
            result = result.and(canceller.cancel().await);
        }
        result
    }
}

impl Inbox<amqp::Consumer> {
    /// New consumers with another prefetch in place of the old ones, which give what they have first.
    pub(in crate::messaging) async fn set_prefetch(&mut self, prefetch: u16) -> Result<()> {
        self.rest.plan.prefetch = prefetch;
        // Those that are on their way would have the old one.
        self.rest.recovery.restart();
        match self.replace().await {
            // Where they begin again, they do with the new one.
            Err(error) if self.rest.recovery.begins_again(&error) => {
                self.running.clear();
                self.rest.recovery.lose(error, &self.lost).map_or(Ok(()), Err)
            }
            replaced => replaced,
        }
    }

    async fn replace(&mut self) -> Result<()> {
        for running in &mut self.running {
            let Some(canceller) = running.canceller.take() else { continue };
            // First the old one goes, because an exclusive consumer bears no other.
            canceller.cancel().await?;
            let fresh = self.rest.plan.consume(running.channel.clone(), &self.rest.queue).await?;
            running.later.push_back(fresh.consumer);
            running.canceller = fresh.canceller;
        }
        Ok(())
    }
}
