//! A member of a group: a consumer of librdkafka, in the thread that makes it, polls it, and closes it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
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
use crate::message::Received;

pub(super) type Consumer = BaseConsumer<Groups>;

/// What all members of one receiver fill, and its stream empties.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<Waiting>,
    /// Taken out of the queue, and neither settled nor dropped.
    pub(super) unsettled: AtomicUsize,
    /// How many may be unsettled or waiting, for all members together.
    pub(super) limit: AtomicUsize,
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    waker: Option<Waker>,
    /// Members that go on.
    alive: usize,
    error: Option<Error>,
}

/// A message nobody has looked at yet.
pub(super) struct Item {
    pub(super) received: Received,
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
        let state = Mutex::new(Waiting { alive: members, ..Waiting::default() });
        Arc::new(Self { state, unsettled: AtomicUsize::new(0), limit: AtomicUsize::new(limit) })
    }

    pub(super) fn next(&self, waker: &Waker) -> Next {
        let mut state = lock(&self.state);
        if let Some(item) = state.items.pop_front() {
            self.unsettled.fetch_add(1, Ordering::AcqRel);
            return Next::Item(Box::new(item));
        }
        if let Some(error) = state.error.take() {
            return Next::Ended(Some(error));
        }
        if state.alive == 0 {
            return Next::Ended(None);
        }
        state.waker = Some(waker.clone());
        Next::Nothing
    }

    fn load(&self) -> usize {
        lock(&self.state).items.len() + self.unsettled.load(Ordering::Acquire)
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
        let gone: Vec<Item> = {
            let mut state = lock(&self.state);
            let items = std::mem::take(&mut state.items);
            let (gone, rest): (Vec<_>, _) = items.into_iter().partition(|item| item.tracker.is_revoked());
            state.items = rest.into();
            gone
        };
        drop(gone);
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
    consumer: watch::Receiver<Option<Result<Arc<Consumer>>>>,
    gone: watch::Receiver<()>,
}

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
        let obey = Arc::clone(&orders);
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
        Ok(Arc::new(Self { orders, consumer, gone }))
    }

    /// The consumer, when it is made.
    pub(super) async fn ready(&self) -> Result<()> {
        let made = self.consumer.clone().wait_for(Option::is_some).await.ok().and_then(|made| made.clone());
        made.unwrap_or_else(|| Err(ended())).map(drop)
    }

    pub(super) fn now(&self) -> Result<Arc<Consumer>> {
        self.consumer.borrow().clone().unwrap_or_else(|| Err(ended()))
    }

    pub(super) fn drain(&self) {
        self.orders.drain.store(true, Ordering::Release);
    }

    /// It leaves the group, whoever still holds it.
    pub(super) fn stop(&self) {
        self.orders.stop.store(true, Ordering::Release);
    }

    /// Ends when it has left the group.
    pub(super) fn gone(&self) -> watch::Receiver<()> {
        self.gone.clone()
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
        let limit = queue.limit.load(Ordering::Acquire);
        let full = draining || queue.load() >= limit;
        if !flow.may_poll(full) {
            std::thread::sleep(Duration::from_millis(5));
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
    // From now on nobody gets it.
    tell.send_replace(Some(Err(ended())));
    // Whoever accepts something at this moment holds it. The last one must be this thread: closing blocks.
    while Arc::strong_count(&consumer) > 1 {
        std::thread::sleep(Duration::from_millis(1));
    }
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
    fn may_poll(&mut self, full: bool) -> bool {
        if !full {
            self.full_since = None;
            if self.paused {
                self.resume();
            }
            return true;
        }
        let since = *self.full_since.get_or_insert_with(Instant::now);
        if !self.paused && since.elapsed() >= PATIENCE {
            self.pause();
        }
        self.paused
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
