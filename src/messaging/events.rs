//! What happens to a client: for logs, metrics and those who want to know at once.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use crate::error::Error;
use crate::wakes::keep;

/// Something that happened to a client.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum Event {
    /// A connection is open: the first one, or another one after the last was lost.
    Opened,
    /// Connecting has failed.
    ConnectFailed(Error),
    /// The server takes no messages, and says why (`connection.blocked`).
    Blocked(String),
    /// The server takes messages again (`connection.unblocked`).
    Unblocked,
    /// The connection was lost. The next use connects again, and so do receivers, as their [`RecoveryPolicy`](super::RecoveryPolicy) says.
    Lost(Error),
    /// The receiver of this queue has begun again, after its connection was lost.
    Recovered(String),
    /// The server has ended a consumer of this queue, mostly because the queue is gone, and so its receiver ends.
    ConsumerCancelled(String),
    /// The server has closed a channel of a sender or a requester, which goes on with another one.
    ChannelClosed(Error),
    /// A reply came that no request waits for: it is late, or not meant for this requester. Its correlation id, if it has one.
    StrayReply(Option<String>),
    /// Something has failed at the brokers of Kafka, or on the way to them, and librdkafka goes on by itself.
    Trouble(Error),
    /// A receiver has got these partitions of topics to receive from (Kafka).
    Assigned(Vec<(String, i32)>),
    /// Another member of the group has these partitions now, or nobody (Kafka). What was delivered from them and not accepted is
    /// delivered again, and accepting it here is `Stale`.
    Revoked(Vec<(String, i32)>),
    /// The client was closed on this side. It is the last event.
    Closed,
    /// So many events were left out, because nobody has fetched them in time.
    Missed(u64),
}

/// So many events wait for each stream; more push out the oldest.
const MOST: usize = 256;

/// The events of a client, from the moment the stream was asked for.
#[derive(Debug)]
pub struct EventStream {
    subscriber: Arc<Mutex<Subscriber>>,
}

#[derive(Debug, Default)]
struct Subscriber {
    waiting: VecDeque<Event>,
    missed: u64,
    waker: Option<Waker>,
    over: bool,
}

/// Whom events are told.
#[derive(Debug, Default)]
pub(super) struct Events {
    subscribers: Mutex<Subscribers>,
}

#[derive(Debug, Default)]
struct Subscribers {
    list: Vec<Weak<Mutex<Subscriber>>>,
    over: bool,
}

/// No code of users runs under these locks, so nothing poisons them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Events {
    pub(super) fn subscribe(&self) -> EventStream {
        let mut subscribers = lock(&self.subscribers);
        let subscriber = Arc::new(Mutex::new(Subscriber { over: subscribers.over, ..Subscriber::default() }));
        subscribers.list.retain(|other| other.strong_count() > 0);
        subscribers.list.push(Arc::downgrade(&subscriber));
        EventStream { subscriber }
    }

    pub(super) fn tell(&self, event: &Event) {
        let over = matches!(event, Event::Closed);
        // Held until everybody knows, so that all have the same events in the same order.
        let mut subscribers = lock(&self.subscribers);
        if subscribers.over {
            return;
        }
        subscribers.over = over;
        let mut wakers = Vec::new();
        // Whose stream is dropped in the meantime goes with this.
        let told: Vec<_> = subscribers.list.iter().filter_map(Weak::upgrade).collect();
        for subscriber in &told {
            let mut subscriber = lock(subscriber);
            if subscriber.waiting.len() >= MOST {
                subscriber.waiting.pop_front();
                subscriber.missed += 1;
            }
            subscriber.waiting.push_back(event.clone());
            subscriber.over = over;
            wakers.extend(subscriber.waker.take());
        }
        drop(subscribers);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl EventStream {
    /// The next event; `None` after [`Event::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&self, cx: &Context<'_>) -> Poll<Option<Event>> {
        let mut subscriber = lock(&self.subscriber);
        let missed = std::mem::take(&mut subscriber.missed);
        if missed > 0 {
            return Poll::Ready(Some(Event::Missed(missed)));
        }
        if let Some(event) = subscriber.waiting.pop_front() {
            return Poll::Ready(Some(event));
        }
        if subscriber.over {
            return Poll::Ready(None);
        }
        let replaced = keep(&mut subscriber.waker, cx.waker());
        drop(subscriber);
        drop(replaced);
        Poll::Pending
    }
}

impl Stream for EventStream {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll_event(cx)
    }
}

impl Drop for Events {
    /// The client is gone without having been closed: nothing more will happen.
    fn drop(&mut self) {
        self.tell(&Event::Closed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_oldest_events_give_way_and_are_counted() {
        let events = Events::default();
        let mut stream = events.subscribe();
        for _ in 0..MOST + 3 {
            events.tell(&Event::Opened);
        }
        events.tell(&Event::Unblocked);
        assert!(matches!(stream.next().now_or_never(), Some(Some(Event::Missed(4)))));
        for _ in 0..MOST - 1 {
            assert!(matches!(stream.next().now_or_never(), Some(Some(Event::Opened))));
        }
        assert!(matches!(stream.next().now_or_never(), Some(Some(Event::Unblocked))));
        assert!(stream.next().now_or_never().is_none());
        drop(events);
        assert!(matches!(stream.next().now_or_never(), Some(Some(Event::Closed))));
        assert!(matches!(stream.next().now_or_never(), Some(None)));
    }

    #[test]
    fn after_the_end_nothing_is_told() {
        let events = Events::default();
        let mut early = events.subscribe();
        events.tell(&Event::Closed);
        events.tell(&Event::Opened);
        let mut late = events.subscribe();
        assert!(matches!(early.next().now_or_never(), Some(Some(Event::Closed))));
        assert!(matches!(early.next().now_or_never(), Some(None)));
        assert!(matches!(late.next().now_or_never(), Some(None)));
    }
}
