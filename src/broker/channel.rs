//! A channel's books: consumers, what is delivered and not settled, confirms, a transaction.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// Publishes are counted from 1 (c90), and confirmed in order.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    published: u64,
    confirmed: u64,
    /// Those of the rest that need a word of their own, or get none.
    apart: VecDeque<(u64, Apart)>,
    /// Those before `confirmed` that are not confirmed: a `multiple` confirm would be of them, too.
    passed_over: usize,
    /// When some of these are confirmed after all.
    late: Vec<(Instant, Due)>,
}

#[derive(Clone, Copy, Debug)]
enum Apart {
    /// A queue did not take it (c95).
    Refused,
    /// A script has lost its confirm, or delays it.
    PassedOver,
}

/// When a message is confirmed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum ConfirmTime {
    #[default]
    Now,
    After(Duration),
    Never,
}

/// What is to be said of publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Ack { tag: u64, multiple: bool },
    Nack { tag: u64 },
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
    Done,
    /// Refused for good.
    Refuse,
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
    pub(super) fn published(&mut self, accepted: bool, confirm: ConfirmTime, now: Instant) {
        self.published += 1;
        let tag = self.published;
        let apart = match confirm {
            ConfirmTime::Now if accepted => return,
            ConfirmTime::Now => Apart::Refused,
            ConfirmTime::Never => Apart::PassedOver,
            ConfirmTime::After(time) => {
                let due = if accepted { Due::Ack { tag, multiple: false } } else { Due::Nack { tag } };
                // A time that has no end is never over.
                self.late.extend(now.checked_add(time).map(|at| (at, due)));
                Apart::PassedOver
            }
        };
        self.apart.push_back((tag, apart));
    }

    /// What is due first, if anything is: one ack for as many as there are in a row, where they may be `joined`.
    pub(super) fn take(&mut self, joined: bool) -> Option<Due> {
        loop {
            let last = self.apart.front().map_or(self.published, |(tag, _)| tag - 1);
            let count = last - self.confirmed;
            if count > 0 {
                let tag = if joined && self.passed_over == 0 { last } else { self.confirmed + 1 };
                let multiple = tag > self.confirmed + 1;
                self.confirmed = tag;
                return Some(Due::Ack { tag, multiple });
            }
            let (tag, apart) = self.apart.pop_front()?;
            self.confirmed = tag;
            match apart {
                Apart::Refused => return Some(Due::Nack { tag }),
                Apart::PassedOver => self.passed_over += 1,
            }
        }
    }

    /// What was late and is so no more. Each was passed over, for [`take`](Self::take) comes first.
    pub(super) fn take_late(&mut self, now: Instant) -> Vec<Due> {
        let due: Vec<Due> = self.late.extract_if(.., |(at, _)| *at <= now).map(|(_, due)| due).collect();
        self.passed_over = self.passed_over.saturating_sub(due.len());
        due
    }

    pub(super) fn next_late(&self) -> Option<Instant> {
        self.late.iter().map(|(at, _)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::broker::queue::Queue;
    use crate::broker::rules::Rules;

    fn channel(deliveries: u64) -> Channel {
        let mut channel = Channel { limit: 3, ..Channel::default() };
        channel.consumers.insert(ConsumerId(7), Consumer::new("c".into(), Some(QueueId(1)), false, 2));
        let mut queue = Queue::new("q".into(), "/".into(), Rules::default(), Instant::now());
        for _ in 0..deliveries {
            queue.push(Arc::default(), Instant::now());
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
        let now = Instant::now();
        assert_eq!(confirms.take(true), None);
        confirms.published(true, ConfirmTime::Now, now);
        assert_eq!(confirms.take(true), Some(Due::Ack { tag: 1, multiple: false }));
        for accepted in [true, true, false, false, true] {
            confirms.published(accepted, ConfirmTime::Now, now);
        }
        let rest: Vec<Due> = std::iter::from_fn(|| confirms.take(true)).collect();
        let ack = |tag, multiple| Due::Ack { tag, multiple };
        assert_eq!(rest, [ack(3, true), Due::Nack { tag: 4 }, Due::Nack { tag: 5 }, ack(6, false)]);
    }

    /// One that is not confirmed is not confirmed by the way, either.
    #[test]
    fn no_confirm_is_of_those_that_were_passed_over() {
        let (mut confirms, now) = (Confirms::default(), Instant::now());
        let late = now + Duration::from_millis(5);
        for confirm in
            [ConfirmTime::Now, ConfirmTime::Now, ConfirmTime::After(late - now), ConfirmTime::Now, ConfirmTime::Now]
        {
            confirms.published(true, confirm, now);
        }
        let ack = |tag, multiple| Due::Ack { tag, multiple };
        assert_eq!(
            std::iter::from_fn(|| confirms.take(true)).collect::<Vec<_>>(),
            [ack(2, true), ack(4, false), ack(5, false)]
        );
        assert_eq!((confirms.take_late(now), confirms.next_late()), (vec![], Some(late)));
        confirms.published(true, ConfirmTime::Never, now);
        assert_eq!(
            (confirms.take(true), confirms.take_late(late), confirms.next_late()),
            (None, vec![ack(3, false)], None)
        );
        for _ in 0..2 {
            confirms.published(true, ConfirmTime::Now, now);
        }
        assert_eq!(std::iter::from_fn(|| confirms.take(true)).collect::<Vec<_>>(), [ack(7, false), ack(8, false)]);
    }
}
