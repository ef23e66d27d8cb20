//! Receiving over Kafka: the members of a group that belong to one receiver, and what accepts their deliveries.

use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::convert::check_topic;
use super::link::Link;
use super::member::{Consumer, Gone, Item, Member, Next, Queue, Start};
use super::tracker::Tracker;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Arrived, Disposition};

/// What to receive, and how.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) topics: Vec<String>,
    pub(crate) group: String,
    /// How many deliveries of each member may be unsettled; 0 for no limit but those of librdkafka's own queues.
    pub(crate) prefetch: u16,
    pub(crate) members: u16,
}

/// Without a limit of the program's this many wait here, and the rest in librdkafka.
const MOST: usize = 65_536;

impl Plan {
    fn limit(&self) -> usize {
        match self.prefetch {
            0 => MOST,
            prefetch => usize::from(prefetch) * usize::from(self.members.max(1)),
        }
    }

    fn check(&self) -> Result<()> {
        let invalid = |message: &'static str| Error::new(ErrorKind::InvalidArgument, message);
        if self.topics.is_empty() {
            return Err(invalid("there is no topic to receive from"));
        }
        if self.group.is_empty() || self.group.contains('\0') {
            return Err(invalid("the group has no name, or one with a NUL in it"));
        }
        for topic in &self.topics {
            match topic.strip_prefix('^') {
                // A pattern, which librdkafka reads.
                Some(pattern) if pattern.contains('\0') => {
                    return Err(invalid("there is a NUL in a pattern of topics"));
                }
                Some(_) => {}
                None => check_topic(topic)?,
            }
        }
        Ok(())
    }
}

/// How long leaving the group may take where somebody waits for it.
const LEAVING: Duration = Duration::from_secs(10);

pub(crate) struct Inbox {
    plan: Plan,
    queue: Arc<Queue>,
    members: Vec<Arc<Member>>,
}

impl Inbox {
    pub(crate) async fn open(link: &Link, plan: Plan) -> Result<Self> {
        plan.check()?;
        let count = usize::from(plan.members.max(1));
        let queue = Queue::new(count, plan.limit());
        let mut members = Vec::with_capacity(count);
        for number in 0..count {
            let start = Start {
                config: link.config().consumer(&plan.group)?,
                topics: plan.topics.clone(),
                mapping: link.config().property_mapping,
                callbacks: link.callbacks()?,
                queue: Arc::clone(&queue),
                number,
            };
            let member = Member::start(start)?;
            link.add_member(&member);
            members.push(member);
        }
        for member in &members {
            match member.ready().await {
                // It has begun, and ended already: the stream says why.
                Err(error) if error.kind() == ErrorKind::Closed => {}
                ready => ready?,
            }
        }
        Ok(Self { plan, queue, members })
    }

    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Result<(Arrived, Acker)>>> {
        match self.queue.next(cx.waker()) {
            Next::Nothing => Poll::Pending,
            Next::Ended(error) => Poll::Ready(error.map(Err)),
            Next::Item(item) => {
                let Item { received, offset, tracker, member } = *item;
                let member = self.members.get(member).map(Arc::clone);
                let acker = Acker { queue: Arc::clone(&self.queue), member, tracker, offset, settled: false };
                Poll::Ready(Some(Ok((received, acker))))
            }
        }
    }

    /// Nothing more is received. What was can still be taken, and accepted.
    pub(crate) fn drain(&self) {
        self.members.iter().for_each(|member| member.drain());
    }

    /// Nobody asks for anything any more: the members go when no delivery holds them.
    pub(crate) fn end(&mut self) {
        self.members.clear();
    }

    /// Leaves the group, unless there are deliveries that can still be accepted: then that happens with the last of them.
    pub(crate) async fn leave(self) {
        let gone: Vec<_> = self.members.iter().map(|member| member.gone()).collect();
        let outstanding = self.queue.unsettled() > 0;
        drop(self);
        if !outstanding {
            wait(gone, Instant::now() + LEAVING).await;
        }
    }

    pub(crate) fn set_prefetch(&mut self, prefetch: u16) {
        self.plan.prefetch = prefetch;
        self.queue.set_limit(self.plan.limit());
    }
}

async fn wait(gone: Vec<Gone>, until: Instant) -> bool {
    for mut gone in gone {
        // Nothing is ever told: it ends with an error, which is what is waited for.
        if timeout_at(until, gone.changed()).await.is_err() {
            return false;
        }
    }
    true
}

/// Ends the members of a closing client, and says whether all have gone in time: those too that nobody held any more, and whose
/// last offsets are still on their way.
pub(super) async fn stop(members: Vec<(Weak<Member>, Gone)>, until: Instant) -> bool {
    members.iter().filter_map(|(member, _)| member.upgrade()).for_each(|member| member.stop());
    wait(members.into_iter().map(|(_, gone)| gone).collect(), until).await
}

/// Accepts one delivery.
pub(crate) struct Acker {
    queue: Arc<Queue>,
    /// As long as a delivery can be accepted, its member stays.
    member: Option<Arc<Member>>,
    tracker: Arc<Tracker>,
    offset: i64,
    settled: bool,
}

impl Acker {
    /// # Errors
    ///
    /// `Unsupported` for anything but accepting; `Stale` when the partition was revoked, or the member has left its group.
    pub(crate) fn settle(&mut self, how: Disposition) -> Result<()> {
        accepting(how)?;
        self.with_consumer(|consumer| self.tracker.accept(self.offset, consumer))?;
        self.settled = true;
        Ok(())
    }

    /// Accepts this one and every earlier one of its partition.
    pub(crate) fn settle_up_to(&self, how: Disposition) -> Result<()> {
        accepting(how)?;
        self.with_consumer(|consumer| self.tracker.accept_up_to(self.offset, consumer))
    }

    fn with_consumer(&self, act: impl FnOnce(&Consumer) -> Result<()>) -> Result<()> {
        let member = self.member.as_ref().ok_or_else(|| Error::new(ErrorKind::Stale, "there is no such member"))?;
        member.with(act).map_err(|error| match error.kind() {
            ErrorKind::Stale => error,
            _ => Error::because(ErrorKind::Stale, "nothing was stored", &error),
        })
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settled || self.tracker.is_settled(self.offset)
    }
}

fn accepting(how: Disposition) -> Result<()> {
    if how == Disposition::Accept {
        return Ok(());
    }
    let message =
        "Kafka has one offset for each partition and no way to give a single message back; accept it, or leave it";
    Err(Error::new(ErrorKind::Unsupported, message))
}

impl Drop for Acker {
    fn drop(&mut self) {
        if !self.settled {
            self.tracker.leave(self.offset);
        }
        self.queue.settled();
    }
}
