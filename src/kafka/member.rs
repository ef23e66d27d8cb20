//! A member of a group: a consumer of librdkafka, in the thread that makes it, polls it, and closes it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::watch;

use super::config::PropertyMapping;
use super::health::{Callbacks, Notice, log};
use super::producer::thread;
use super::tracker::Tracker;
use super::{convert, failure, lock};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Arrived;
use crate::wakes::keep;

pub(super) type Consumer = BaseConsumer<Groups>;

/// What all members of one receiver fill, and its stream empties.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<Waiting>,
    /// There may be room, or a member has an order.
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    waker: Option<Waker>,
    /// Taken out of the queue, and neither settled nor dropped.
    unsettled: usize,
    /// How many may be unsettled or waiting, for all members together.
    limit: usize,
    /// Members that wait for room: telling nobody would cost a system call.
    waiting: usize,
    /// Members that go on.
    alive: usize,
    error: Option<Error>,
}

/// A message nobody has looked at yet.
pub(super) struct Item {
    pub(super) received: Arrived,
    pub(super) offset: i64,
    pub(super) tracker: Arc<Tracker>,
    /// Which member has received it.
    pub(super) member: usize,
}

/// What is next.
pub(super) enum Next {
    Item(Box<Item>),
    Nothing,
    Ended(Option<Error>),
}

impl Queue {
    pub(super) fn new(members: usize, limit: usize) -> Arc<Self> {
        let state = Mutex::new(Waiting { alive: members, limit, ..Waiting::default() });
        Arc::new(Self { state, changed: Condvar::new() })
    }

    pub(super) fn next(&self, waker: &Waker) -> Next {
        let mut state = lock(&self.state);
        if let Some(item) = state.items.pop_front() {
            state.unsettled += 1;
            return Next::Item(Box::new(item));
        }
        if let Some(error) = state.error.take() {
            return Next::Ended(Some(error));
        }
        if state.alive == 0 {
            return Next::Ended(None);
        }
        let replaced = keep(&mut state.waker, waker);
        drop(state);
        drop(replaced);
        Next::Nothing
    }

    pub(super) fn unsettled(&self) -> usize {
        lock(&self.state).unsettled
    }

    pub(super) fn set_limit(&self, limit: usize) {
        self.change(|state| state.limit = limit);
    }

    /// A message that was taken out is settled, or dropped.
    pub(super) fn settled(&self) {
        self.change(|state| state.unsettled = state.unsettled.saturating_sub(1));
    }

    /// Something that a member may wait for.
    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        let mut state = lock(&self.state);
        change(&mut state);
        let waiting = state.waiting > 0;
        drop(state);
        if waiting {
            self.changed.notify_all();
        }
    }

    fn is_full(&self) -> bool {
        lock(&self.state).is_full()
    }

    /// Waits while the queue is full and there is no order, but not beyond `until`.
    fn wait_for_room(&self, until: Instant, ordered: impl Fn() -> bool) {
        let mut state = lock(&self.state);
        while state.is_full() && !ordered() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state.waiting += 1;
            (state, _) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    fn push(&self, item: Item) {
        let waker = {
            let mut state = lock(&self.state);
            state.items.push_back(item);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What waits of partitions that are somebody else's now is delivered there.
    fn forget_revoked(&self) {
        let mut gone = Vec::new();
        self.change(|state| {
            let items = std::mem::take(&mut state.items);
            let (revoked, rest): (_, Vec<_>) = items.into_iter().partition(|item| item.tracker.is_revoked());
            (gone, state.items) = (revoked, rest.into());
        });
    }

    /// A member receives nothing more.
    fn end(&self, error: Option<Error>) {
        let waker = {
            let mut state = lock(&self.state);
            state.alive = state.alive.saturating_sub(1);
            if state.error.is_none() {
                state.error = error;
            }
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Waiting {
    fn is_full(&self) -> bool {
        self.items.len() + self.unsettled >= self.limit
    }
}

/// What librdkafka calls in a member.
pub(super) struct Groups {
    callbacks: Callbacks,
    queue: Arc<Queue>,
    trackers: Mutex<HashMap<(String, i32), Arc<Tracker>>>,
}

impl ClientContext for Groups {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.callbacks.error(error, reason);
    }

    fn stats_raw(&self, _: &[u8]) {}
}

impl ConsumerContext for Groups {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                let names = names(partitions);
                let mut trackers = lock(&self.trackers);
                for (topic, partition) in &names {
                    trackers.insert((topic.clone(), *partition), Tracker::new(topic, *partition));
                }
                drop(trackers);
                self.callbacks.health.up();
                self.callbacks.health.tell(Notice::Assigned(names));
            }
            Rebalance::Revoke(partitions) => {
                let names = names(partitions);
                let mut trackers = lock(&self.trackers);
                let gone: Vec<_> = names.iter().filter_map(|name| trackers.remove(name)).collect();
                drop(trackers);
                gone.iter().for_each(|tracker| tracker.revoke());
                self.queue.forget_revoked();
                self.callbacks.health.tell(Notice::Revoked(names));
            }
            Rebalance::Error(error) => {
                let error = failure::general("the group could not share its partitions", error.clone());
                self.callbacks.health.tell(Notice::Trouble(error));
            }
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        match result {
            // There was nothing to commit.
            Ok(()) | Err(KafkaError::ConsumerCommit(Code::NoOffset)) => {}
            Err(error) => {
                let error = failure::general("offsets could not be committed", error);
                self.callbacks.health.tell(Notice::Trouble(error));
            }
        }
    }
}

fn names(partitions: &TopicPartitionList) -> Vec<(String, i32)> {
    partitions.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect()
}

impl Groups {
    fn tracker(&self, topic: &str, partition: i32) -> Arc<Tracker> {
        let mut trackers = lock(&self.trackers);
        Arc::clone(trackers.entry((topic.to_owned(), partition)).or_insert_with(|| Tracker::new(topic, partition)))
    }
}

/// What its thread is told.
#[derive(Default)]
struct Orders {
    /// Nothing more is to be received; what was can still be accepted.
    drain: AtomicBool,
    stop: AtomicBool,
}

/// A member, as long as somebody holds this: the receiver, and every delivery that can still be accepted. After that its offsets are
/// committed, and it leaves the group.
pub(super) struct Member {
    orders: Arc<Orders>,
    queue: Arc<Queue>,
    consumer: watch::Receiver<Option<Result<Arc<Consumer>>>>,
    gone: Gone,
}

/// Nothing is ever told: it ends with an error when the member has left its group.
pub(super) type Gone = watch::Receiver<()>;

type Tell = watch::Sender<Option<Result<Arc<Consumer>>>>;

/// How a member begins.
pub(super) struct Start {
    pub(super) config: ClientConfig,
    pub(super) topics: Vec<String>,
    pub(super) mapping: PropertyMapping,
    pub(super) callbacks: Callbacks,
    pub(super) queue: Arc<Queue>,
    pub(super) number: usize,
}

impl Member {
    pub(super) fn start(start: Start) -> Result<Arc<Self>> {
        let orders = Arc::new(Orders::default());
        let (tell, consumer) = watch::channel(None);
        let (alive, gone) = watch::channel(());
        let (obey, queue) = (Arc::clone(&orders), Arc::clone(&start.queue));
        thread("leveret-kafka-in", move || {
            let _alive = alive;
            let Start { config, topics, mapping, callbacks, queue, number } = start;
            let groups = Groups { callbacks, queue: Arc::clone(&queue), trackers: Mutex::default() };
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            let made = Consumer::from_config_and_context(&config, groups).map_err(failure::configuration);
            let made = made.and_then(|consumer| match consumer.subscribe(&topics) {
                Ok(()) => Ok(Arc::new(consumer)),
                Err(error) => Err(Error::with_source(ErrorKind::InvalidArgument, "these topics cannot be had", error)),
            });
            match made {
                Ok(consumer) => {
                    tell.send_replace(Some(Ok(Arc::clone(&consumer))));
                    run(&tell, consumer, &obey, &queue, mapping, number);
                }
                Err(error) => {
                    tell.send_replace(Some(Err(error)));
                    queue.end(None);
                }
            }
        })?;
        Ok(Arc::new(Self { orders, queue, consumer, gone }))
    }

    /// The consumer, when it is made.
    pub(super) async fn ready(&self) -> Result<()> {
        let mut consumer = self.consumer.clone();
        let made = consumer.wait_for(Option::is_some).await.map_err(|_| ended())?;
        look(&made).map(drop)
    }

    /// Does something with the consumer. It does not end meanwhile.
    pub(super) fn with<R>(&self, act: impl FnOnce(&Consumer) -> Result<R>) -> Result<R> {
        act(look(&self.consumer.borrow())?)
    }

    pub(super) fn drain(&self) {
        self.orders.drain.store(true, Ordering::Release);
        self.queue.change(|_| {});
    }

    /// It leaves the group, whoever still holds it.
    pub(super) fn stop(&self) {
        self.orders.stop.store(true, Ordering::Release);
        self.queue.change(|_| {});
    }

    /// Ends when it has left the group.
    pub(super) fn gone(&self) -> Gone {
        self.gone.clone()
    }
}

fn look(made: &Option<Result<Arc<Consumer>>>) -> Result<&Consumer> {
    match made {
        Some(Ok(consumer)) => Ok(consumer),
        Some(Err(error)) => Err(error.clone()),
        None => Err(ended()),
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Closed, "the member has left its group")
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How long the thread waits for messages before it looks for orders.
const TICK: Duration = Duration::from_millis(50);

/// As long as the queue is full nothing is polled, for this long: fetching goes on meanwhile, to librdkafka's own limits. After that
/// the partitions are paused, because the group wants to hear from its members.
const PATIENCE: Duration = Duration::from_secs(2);

fn run(tell: &Tell, consumer: Arc<Consumer>, orders: &Orders, queue: &Queue, mapping: PropertyMapping, number: usize) {
    let mut flow = Flow { consumer: &consumer, full_since: None, paused: false };
    let mut draining = false;
    let mut error = None;
    while !orders.stop.load(Ordering::Acquire) {
        if orders.drain.load(Ordering::Acquire) && !draining {
            draining = true;
            flow.pause();
            queue.end(None);
        }
        if let Some(until) = flow.held_back(draining || queue.is_full()) {
            let ordered = || orders.stop.load(Ordering::Acquire) || orders.drain.load(Ordering::Acquire);
            queue.wait_for_room(until, ordered);
            continue;
        }
        match consumer.poll(TICK) {
            None => {}
            // It had been fetched before the pause. It was not accepted, so it comes again to whoever goes on.
            Some(Ok(_)) if draining => flow.pause(),
            Some(Ok(record)) => {
                let tracker = consumer.context().tracker(record.topic(), record.partition());
                let offset = record.offset();
                tracker.delivered(offset);
                let received = convert::received(&record, mapping);
                queue.push(Item { received, offset, tracker, member: number });
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(trouble)) => {
                let fatal = matches!(trouble, KafkaError::MessageConsumptionFatal(_));
                let trouble = failure::general("receiving has failed", trouble);
                if fatal || matches!(trouble.kind(), ErrorKind::Auth | ErrorKind::NotFound) {
                    error = Some(trouble);
                    break;
                }
                consumer.context().callbacks.health.tell(Notice::Trouble(trouble));
            }
        }
    }
    if !draining {
        queue.end(error);
    }
    // Waits for whoever accepts something at this moment; from now on nobody gets it. So this thread is the last to hold it, as it
    // must be: closing blocks.
    tell.send_replace(Some(Err(ended())));
    // Revokes everything, commits what was accepted, and leaves the group.
    drop(consumer);
}

/// Whether messages are fetched.
struct Flow<'a> {
    consumer: &'a Consumer,
    full_since: Option<Instant>,
    paused: bool,
}

impl Flow<'_> {
    /// Until when nothing is to be polled, unless there is room before; `None` when something is to be.
    fn held_back(&mut self, full: bool) -> Option<Instant> {
        if !full {
            self.full_since = None;
            if self.paused {
                self.resume();
            }
            return None;
        }
        let until = *self.full_since.get_or_insert_with(Instant::now) + PATIENCE;
        if !self.paused && until <= Instant::now() {
            self.pause();
        }
        (!self.paused).then_some(until)
    }

    fn pause(&mut self) {
        self.paused = true;
        // Without an assignment there is nothing to pause; what comes later is paused then.
        let _ = self.consumer.assignment().and_then(|partitions| self.consumer.pause(&partitions));
    }

    fn resume(&mut self) {
        self.paused = false;
        let _ = self.consumer.assignment().and_then(|partitions| self.consumer.resume(&partitions));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::thread;

    use super::*;
    use crate::message::{DeliveryDetail, Message};

    fn item() -> Item {
        let detail = DeliveryDetail::Kafka { topic: "t".into(), partition: 0, offset: 0, timestamp: None };
        let received = Arrived { message: Message::default(), detail, malformed: None };
        Item { received, offset: 0, tracker: Tracker::new("t", 0), member: 0 }
    }

    /// Waits for room in a full queue while `act` does something, and says how often it has looked for orders.
    fn looks(act: impl FnOnce(&Queue, &AtomicBool)) -> usize {
        let (queue, ordered) = (Queue::new(1, 1), AtomicBool::new(false));
        queue.push(item());
        assert!(matches!(queue.next(Waker::noop()), Next::Item(_)) && queue.is_full());
        let looks = Cell::new(0);
        thread::scope(|scope| {
            let (queue, ordered) = (&queue, &ordered);
            let waiter = scope.spawn(move || {
                let begin = Instant::now();
                queue.wait_for_room(begin + Duration::from_secs(30), || {
                    looks.set(looks.get() + 1);
                    ordered.load(Ordering::Acquire)
                });
                assert!(begin.elapsed() < Duration::from_secs(20), "nobody was told");
                looks.get()
            });
            while lock(&queue.state).waiting == 0 {
                thread::yield_now();
            }
            act(queue, ordered);
            waiter.join().unwrap()
        })
    }

    #[test]
    fn a_member_with_a_full_queue_is_told_when_there_is_room() {
        assert_eq!(looks(|queue, _| queue.settled()), 1);
        assert_eq!(looks(|queue, _| queue.set_limit(2)), 1);
    }

    #[test]
    fn a_member_with_a_full_queue_is_told_its_orders() {
        let order = |queue: &Queue, ordered: &AtomicBool| {
            ordered.store(true, Ordering::Release);
            queue.change(|_| {});
        };
        assert_eq!(looks(order), 2);
    }

    #[test]
    fn room_is_waited_for_until_the_group_wants_to_hear_something() {
        let queue = Queue::new(1, 0);
        let begin = Instant::now();
        queue.wait_for_room(begin + Duration::from_millis(20), || false);
        assert!(begin.elapsed() >= Duration::from_millis(20));
    }

    /// Whose last waker is dropped may have deliveries, which are let go then.
    #[test]
    fn a_waker_that_is_replaced_is_dropped_without_the_lock() {
        struct Task(Arc<Queue>);
        impl std::task::Wake for Task {
            fn wake(self: Arc<Self>) {}
        }
        impl Drop for Task {
            fn drop(&mut self) {
                assert!(self.0.state.try_lock().is_ok(), "under the lock");
            }
        }
        let queue = Queue::new(1, 1);
        for _ in 0..2 {
            assert!(matches!(queue.next(&Arc::new(Task(Arc::clone(&queue))).into()), Next::Nothing));
        }
        queue.push(item());
        assert_eq!(Arc::strong_count(&queue), 1, "both are gone");
    }
}
