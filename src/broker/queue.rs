//! A queue: messages in order, consumers in turn. Nothing here knows connections; what a consumer can take is asked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::dead::Limits;
use super::message::Message;
use super::{ConnectionId, Place};
use crate::codec::{FieldTable, ShortString};

/// A queue's identity. A name may be used again; this is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct QueueId(pub(super) u64);

/// A consumer's identity, unique in the whole broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ConsumerId(pub(super) u64);

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: ShortString,
    pub(super) virtual_host: ShortString,
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    /// The connection that has an exclusive queue for itself.
    pub(super) owner: Option<ConnectionId>,
    pub(super) arguments: FieldTable,
    pub(super) limits: Limits,
    /// Ready for delivery, by place.
    ready: VecDeque<Entry>,
    next_place: u64,
    /// Whose turn it is comes first.
    consumers: VecDeque<Subscriber>,
}

/// A message in a queue.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its place in the queue, which it keeps for life.
    place: u64,
    pub(super) message: Arc<Message>,
    pub(super) redelivered: bool,
    expires: Option<Instant>,
}

/// A consumer, as its queue knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscriber {
    pub(super) id: ConsumerId,
    pub(super) place: Place,
    pub(super) exclusive: bool,
    pub(super) priority: i64,
}

impl Entry {
    /// A message on its way from a publisher straight to a consumer.
    pub(super) fn of_no_queue(message: Arc<Message>) -> Self {
        Self { place: 0, message, redelivered: false, expires: None }
    }
}

impl Queue {
    pub(super) fn new(name: ShortString, virtual_host: ShortString) -> Self {
        Self {
            name,
            virtual_host,
            durable: false,
            auto_delete: false,
            owner: None,
            arguments: FieldTable::new(),
            limits: Limits::default(),
            ready: VecDeque::new(),
            next_place: 0,
            consumers: VecDeque::new(),
        }
    }

    /// Messages that are ready.
    pub(super) fn len(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    pub(super) fn push(&mut self, message: Arc<Message>, now: Instant) {
        let place = self.next_place;
        self.next_place += 1;
        let time_to_live = self.limits.time_to_live.into_iter().chain(message.time_to_live).min();
        let expires = time_to_live.and_then(|time| now.checked_add(time));
        self.ready.push_back(Entry { place, message, redelivered: false, expires });
    }

    /// Whether it refuses what comes.
    pub(super) fn refuses(&self) -> bool {
        self.limits.refuses && self.limits.length.is_some_and(|length| self.len() >= length)
    }

    /// The first message, if it has expired before this time.
    pub(super) fn take_expired(&mut self, before: Instant) -> Option<Entry> {
        self.next_expiry().is_some_and(|expires| expires < before).then(|| self.pop()).flatten()
    }

    /// The first message, if there are too many.
    pub(super) fn take_surplus(&mut self) -> Option<Entry> {
        let surplus = !self.limits.refuses && self.limits.length.is_some_and(|length| self.len() > length);
        surplus.then(|| self.pop()).flatten()
    }

    /// When the first message expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.ready.front().and_then(|entry| entry.expires)
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        self.ready.pop_front()
    }

    /// Puts a message that was delivered back to its place.
    pub(super) fn requeue(&mut self, entry: Entry) {
        let at = self.ready.partition_point(|ready| ready.place < entry.place);
        self.ready.insert(at, Entry { redelivered: true, ..entry });
    }

    pub(super) fn purge(&mut self) -> usize {
        std::mem::take(&mut self.ready).len()
    }

    pub(super) fn subscribe(&mut self, subscriber: Subscriber) {
        self.consumers.push_back(subscriber);
    }

    pub(super) fn unsubscribe(&mut self, id: ConsumerId) {
        self.consumers.retain(|consumer| consumer.id != id);
    }

    pub(super) fn consumers(&self) -> impl ExactSizeIterator<Item = &Subscriber> {
        self.consumers.iter()
    }

    pub(super) fn is_exclusively_consumed(&self) -> bool {
        self.consumers.iter().any(|consumer| consumer.exclusive)
    }

    /// The consumer whose turn it is: of those that can take a message, those of the highest priority in turn.
    pub(super) fn next_consumer(&mut self, mut can_take: impl FnMut(&Subscriber) -> bool) -> Option<Subscriber> {
        let mut best: Option<(usize, i64)> = None;
        for (at, consumer) in self.consumers.iter().enumerate() {
            if best.is_none_or(|(_, priority)| consumer.priority > priority) && can_take(consumer) {
                best = Some((at, consumer.priority));
            }
        }
        let consumer = self.consumers.remove(best?.0)?;
        self.consumers.push_back(consumer);
        Some(consumer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(messages: u8) -> Queue {
        let mut queue = Queue::new("q".into(), "/".into());
        for body in 0..messages {
            queue.push(Arc::new(Message { body: vec![body].into(), ..Message::default() }), Instant::now());
        }
        queue
    }

    fn drain(queue: &mut Queue) -> Vec<(u8, bool)> {
        std::iter::from_fn(|| queue.pop()).map(|entry| (entry.message.body[0], entry.redelivered)).collect()
    }

    fn subscriber(id: u64, priority: i64) -> Subscriber {
        let place = Place { connection: ConnectionId(1), channel: 1 };
        Subscriber { id: ConsumerId(id), place, exclusive: false, priority }
    }

    #[test]
    fn what_comes_back_goes_to_its_old_place_in_whatever_order_it_comes() {
        let mut queue = queue(5);
        let taken: Vec<Entry> = (0..4).filter_map(|_| queue.pop()).collect();
        for at in [2, 0, 3] {
            queue.requeue(taken[at].clone());
        }
        assert_eq!(drain(&mut queue), [(0, true), (2, true), (3, true), (4, false)]);
    }

    #[test]
    fn consumers_take_turns_and_the_busy_are_passed_over() {
        let mut queue = queue(0);
        for id in 1..=3 {
            queue.subscribe(subscriber(id, 0));
        }
        let mut next = |busy: u64| queue.next_consumer(|consumer| consumer.id.0 != busy).map(|consumer| consumer.id.0);
        let turns: Vec<_> = [0, 0, 0, 0, 2, 0, 0].map(|busy| next(busy).unwrap()).into();
        assert_eq!(turns, [1, 2, 3, 1, 3, 2, 1]);
        assert!(queue.next_consumer(|_| false).is_none());
        queue.unsubscribe(ConsumerId(2));
        assert_eq!(queue.consumers().len(), 2);
    }

    #[test]
    fn a_higher_priority_comes_first_while_it_can_take() {
        let mut queue = queue(0);
        for (id, priority) in [(1, 0), (2, 5), (3, 5)] {
            queue.subscribe(subscriber(id, priority));
        }
        let mut next = |busy: &[u64]| {
            queue.next_consumer(|consumer| !busy.contains(&consumer.id.0)).map(|consumer| consumer.id.0).unwrap()
        };
        assert_eq!([next(&[]), next(&[]), next(&[]), next(&[2, 3])], [2, 3, 2, 1]);
    }
}
