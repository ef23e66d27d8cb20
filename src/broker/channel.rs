//! A channel's books: consumers, what is delivered and not settled, confirms, a transaction.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::faults::precondition;
use super::message::Message;
use super::queue::{ConsumerId, Entry, QueueId};
use crate::codec::ShortString;
use crate::protocol::server::Fault;

#[derive(Debug, Default)]
pub(super) struct Channel {
    pub(super) consumers: HashMap<ConsumerId, Consumer>,
    pub(super) tags: HashMap<ShortString, ConsumerId>,
    /// What is delivered and not settled, by delivery tag.
    unacked: BTreeMap<u64, Unacked>,
    last_delivery: u64,
    /// Prefetch for consumers started from now on (c114, c115).
    pub(super) prefetch: u16,
    /// Prefetch for the whole channel; 0 for none.
    pub(super) limit: u16,
    /// Deliveries to consumers that count against the limit.
    in_flight: usize,
    pub(super) mode: Mode,
    /// What an empty queue name means (c124).
    pub(super) last_queue: ShortString,
    /// The consumer of direct replies, and the name under which answers reach it (c122).
    pub(super) replies: Option<(ConsumerId, ShortString)>,
}

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) tag: ShortString,
    /// `None` for the consumer of direct replies.
    pub(super) queue: Option<QueueId>,
    pub(super) no_ack: bool,
    pub(super) prefetch: u16,
    in_flight: usize,
}

#[derive(Debug)]
pub(super) struct Unacked {
    pub(super) queue: QueueId,
    /// `None` for what was fetched with `basic.get`, which no prefetch counts.
    pub(super) consumer: Option<ConsumerId>,
    pub(super) entry: Entry,
}

/// What a channel does with publishes and acknowledgements. Confirms and transactions exclude each other (c98).
#[derive(Debug, Default)]
pub(super) enum Mode {
    #[default]
    Plain,
    Confirm(Confirms),
    Tx(Transaction),
}

/// Publishes are counted from 1 (c90), and confirmed in order: those that come one after the other and end alike together.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    published: u64,
    due: VecDeque<Confirm>,
}

/// The last of some messages, whether there is more than one, and what became of all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Confirm {
    pub(super) delivery_tag: u64,
    pub(super) multiple: bool,
    pub(super) accepted: bool,
}

/// What waits for the commit.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) publishes: Vec<Routed>,
    pub(super) settled: Vec<(Verdict, Vec<(u64, Unacked)>)>,
}

/// A message with the queues it goes to.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) message: Arc<Message>,
    pub(super) queues: Vec<QueueId>,
    /// The name of a consumer of direct replies.
    pub(super) reply: bool,
    pub(super) mandatory: bool,
}

/// What a consumer says of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Done with.
    Done,
    /// Refused for good: dead-lettered where the queue has somewhere to send it.
    Refused,
    Requeue,
}

impl Consumer {
    pub(super) fn new(tag: ShortString, queue: Option<QueueId>, no_ack: bool, prefetch: u16) -> Self {
        Self { tag, queue, no_ack, prefetch, in_flight: 0 }
    }
}

impl Channel {
    /// Whether the prefetch of the consumer and of the channel leave room. Without acknowledgements there is no limit.
    pub(super) fn has_room_for(&self, id: ConsumerId) -> bool {
        let Some(consumer) = self.consumers.get(&id) else { return false };
        let room = |limit: u16, in_flight| limit == 0 || in_flight < usize::from(limit);
        consumer.no_ack || (room(consumer.prefetch, consumer.in_flight) && room(self.limit, self.in_flight))
    }

    pub(super) fn next_delivery_tag(&mut self) -> u64 {
        self.last_delivery += 1;
        self.last_delivery
    }

    /// Remembers a delivery until it is settled.
    pub(super) fn remember(&mut self, tag: u64, unacked: Unacked) {
        if let Some(id) = unacked.consumer {
            self.in_flight += 1;
            if let Some(consumer) = self.consumers.get_mut(&id) {
                consumer.in_flight += 1;
            }
        }
        self.unacked.insert(tag, unacked);
    }

    /// Takes what a settlement means: one delivery, all up to it, or (tag 0 with `multiple`) all (c91, c110). A tag must be
    /// there even where it only ends a range.
    pub(super) fn take(&mut self, tag: u64, multiple: bool) -> Result<Vec<(u64, Unacked)>, Fault> {
        if multiple && tag == 0 {
            return Ok(self.take_all());
        }
        let unknown = || precondition(format!("unknown delivery tag {tag}"));
        let unacked = self.unacked.remove(&tag).ok_or_else(unknown)?;
        if !multiple {
            return Ok(vec![(tag, unacked)]);
        }
        let later = self.unacked.split_off(&tag);
        let earlier = std::mem::replace(&mut self.unacked, later);
        Ok(earlier.into_iter().chain([(tag, unacked)]).collect())
    }

    pub(super) fn take_all(&mut self) -> Vec<(u64, Unacked)> {
        std::mem::take(&mut self.unacked).into_iter().collect()
    }

    /// Takes back what a rolled back transaction had settled.
    pub(super) fn put_back(&mut self, deliveries: Vec<(u64, Unacked)>) {
        self.unacked.extend(deliveries);
    }

    /// A delivery no longer counts.
    pub(super) fn release(&mut self, unacked: &Unacked) {
        if let Some(id) = unacked.consumer {
            self.in_flight = self.in_flight.saturating_sub(1);
            if let Some(consumer) = self.consumers.get_mut(&id) {
                consumer.in_flight = consumer.in_flight.saturating_sub(1);
            }
        }
    }

    /// The queues from which more may be delivered once something of these queues' consumers was settled.
    pub(super) fn queues_to_serve(&self, consumers: &[ConsumerId], queues: &mut Vec<QueueId>) {
        let mut add = |queue: Option<QueueId>| {
            if let Some(queue) = queue.filter(|queue| !queues.contains(queue)) {
                queues.push(queue);
            }
        };
        if self.limit != 0 {
            self.consumers.values().for_each(|consumer| add(consumer.queue));
        } else {
            for id in consumers {
                add(self.consumers.get(id).and_then(|consumer| consumer.queue));
            }
        }
    }
}

impl Confirms {
    pub(super) fn published(&mut self, accepted: bool) {
        self.published += 1;
        let delivery_tag = self.published;
        match self.due.back_mut() {
            Some(last) if last.accepted == accepted => *last = Confirm { delivery_tag, multiple: true, accepted },
            _ => self.due.push_back(Confirm { delivery_tag, multiple: false, accepted }),
        }
    }

    /// The ack or nack that is due, if one is.
    pub(super) fn take(&mut self) -> Option<Confirm> {
        self.due.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::queue::Queue;

    fn channel(deliveries: u64) -> Channel {
        let mut channel = Channel { limit: 3, ..Channel::default() };
        channel.consumers.insert(ConsumerId(7), Consumer::new("c".into(), Some(QueueId(1)), false, 2));
        let mut queue = Queue::new("q".into(), "/".into());
        for _ in 0..deliveries {
            queue.push(Arc::default(), std::time::Instant::now());
            let tag = channel.next_delivery_tag();
            let entry = queue.pop().unwrap();
            channel.remember(tag, Unacked { queue: QueueId(1), consumer: Some(ConsumerId(7)), entry });
        }
        channel
    }

    fn tags(taken: Result<Vec<(u64, Unacked)>, Fault>) -> Result<Vec<u64>, String> {
        taken.map(|taken| taken.iter().map(|(tag, _)| *tag).collect()).map_err(|fault| fault.text)
    }

    #[test]
    fn c110_settling_takes_what_is_there_and_nothing_twice() {
        let mut channel = channel(6);
        assert_eq!(tags(channel.take(2, false)), Ok(vec![2]));
        assert_eq!(tags(channel.take(2, true)), Err("unknown delivery tag 2".into()));
        assert_eq!(tags(channel.take(4, true)), Ok(vec![1, 3, 4]));
        assert_eq!(tags(channel.take(9, true)), Err("unknown delivery tag 9".into()));
        assert_eq!(tags(channel.take(0, true)), Ok(vec![5, 6]));
        assert_eq!(tags(channel.take(0, true)), Ok(vec![]));
        assert_eq!(tags(channel.take(0, false)), Err("unknown delivery tag 0".into()));
    }

    #[test]
    fn c113_prefetch_of_consumer_and_channel() {
        assert!(channel(1).has_room_for(ConsumerId(7)));
        let mut full = channel(2);
        assert!(!full.has_room_for(ConsumerId(7)), "its own");
        full.consumers.insert(ConsumerId(8), Consumer::new("d".into(), Some(QueueId(2)), false, 0));
        assert!(full.has_room_for(ConsumerId(8)));
        let mut full = channel(3);
        full.consumers.insert(ConsumerId(8), Consumer::new("d".into(), Some(QueueId(2)), false, 0));
        assert!(!full.has_room_for(ConsumerId(8)), "the channel's");
        full.consumers.insert(ConsumerId(9), Consumer::new("e".into(), Some(QueueId(2)), true, 1));
        assert!(full.has_room_for(ConsumerId(9)), "without acks");
        for (_, unacked) in full.take(0, true).unwrap() {
            full.release(&unacked);
        }
        assert!(full.has_room_for(ConsumerId(8)));
    }

    #[test]
    fn c91_confirms_are_joined() {
        let mut confirms = Confirms::default();
        let confirm = |delivery_tag, multiple, accepted| Some(Confirm { delivery_tag, multiple, accepted });
        assert_eq!(confirms.take(), None);
        confirms.published(true);
        assert_eq!(confirms.take(), confirm(1, false, true));
        for accepted in [true, true, false, false, true] {
            confirms.published(accepted);
        }
        assert_eq!(confirms.take(), confirm(3, true, true));
        assert_eq!(confirms.take(), confirm(5, true, false));
        assert_eq!((confirms.take(), confirms.take()), (confirm(6, false, true), None));
    }
}
