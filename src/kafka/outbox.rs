//! Sending over Kafka: a producer of one's own, a window, and a deadline that holds.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::BaseRecord;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::{Instant, timeout_at};

use super::convert::envelope;
use super::ledger::{Ledger, Pending};
use super::link::Link;
use super::producer::{Handle, Producer};
use super::{code, failure, lock};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::message::{BatchReport, Cargo, CloseReport, SendError};

/// How one sender sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) confirms: bool,
    /// How many messages may be unconfirmed.
    pub(crate) window: usize,
    pub(crate) timeout: Duration,
}

pub(crate) struct Outbox {
    link: Arc<Link>,
    settings: Settings,
    ledger: Arc<Ledger>,
    window: Arc<Semaphore>,
    handle: Mutex<Slot>,
}

enum Slot {
    /// There is no producer until the next message.
    Empty,
    Running(Arc<Handle>),
    Closed,
}

/// A full local queue is looked at again after this time, unless a report comes before.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What was purged is reported within this time, or never.
const PURGE: Duration = Duration::from_secs(1);

impl Outbox {
    /// Begins to make the producer: no time is lost with the first message.
    pub(crate) fn new(link: Arc<Link>, settings: Settings) -> Result<Self> {
        let window = settings.window.clamp(1, Semaphore::MAX_PERMITS);
        let outbox = Self {
            link,
            settings,
            ledger: Arc::new(Ledger::new(window)),
            window: Arc::new(Semaphore::new(window)),
            handle: Mutex::new(Slot::Empty),
        };
        outbox.handle()?;
        Ok(outbox)
    }

    /// The producer, or a new one where the last has died.
    fn handle(&self) -> Result<Arc<Handle>> {
        let mut slot = lock(&self.handle);
        match &*slot {
            Slot::Running(handle) if !handle.is_dead() => return Ok(Arc::clone(handle)),
            Slot::Closed => return Err(closed()),
            Slot::Empty | Slot::Running(_) => {}
        }
        let Settings { confirms, timeout, .. } = self.settings;
        let config = self.link.config();
        let properties = config.producer(timeout, confirms);
        let asked = confirms && config.confirms();
        let callbacks = self.link.callbacks()?;
        let handle = Arc::new(Handle::start(properties, callbacks, &self.ledger, asked, timeout)?);
        *slot = Slot::Running(Arc::clone(&handle));
        Ok(handle)
    }

    fn running(&self) -> Option<Arc<Handle>> {
        match &*lock(&self.handle) {
            Slot::Running(handle) => Some(Arc::clone(handle)),
            Slot::Empty | Slot::Closed => None,
        }
    }

    /// Hands a message over as soon as there is room. An error has the message in it, and says `NotSent`.
    pub(crate) async fn enqueue(&self, cargo: &mut Cargo, until: Instant) -> Result<Pending, SendError> {
        self.hand_over(cargo, until).await.map_err(|error| cargo.refuse(error))
    }

    async fn hand_over(&self, cargo: &mut Cargo, until: Instant) -> Result<Pending> {
        // What cannot be sent at all waits for nothing.
        envelope(&cargo.target, &cargo.message, self.link.config().property_mapping)?;
        let permit = match timeout_at(until, Arc::clone(&self.window).acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(closed()),
            Err(_) => return Err(full("the window of unconfirmed messages is full")),
        };
        let mut permit = Some(permit);
        loop {
            let handle = self.handle()?;
            let producer = timeout_at(until, handle.producer()).await;
            let producer = producer.unwrap_or_else(|_| Err(full("there was no producer before the deadline")))?;
            let progress = self.ledger.progress();
            let error = match self.put(&producer, cargo, &mut permit, until) {
                Ok(pending) => return Ok(pending),
                Err(error) => error,
            };
            if code(&error) != Some(RDKafkaErrorCode::QueueFull as i32) || Instant::now() >= until {
                return Err(error);
            }
            // Not held while waiting: the producer's thread waits for whoever holds it.
            drop(producer);
            let _ = timeout_at(until.min(Instant::now() + LOOK_AGAIN), progress).await;
        }
    }

    /// Hands a message over if there is room now. An error has the message in it, and says `NotSent`.
    pub(crate) fn try_enqueue(&self, cargo: &mut Cargo, until: Instant) -> Result<Pending, SendError> {
        self.hand_over_at_once(cargo, until).map_err(|error| cargo.refuse(error))
    }

    fn hand_over_at_once(&self, cargo: &mut Cargo, until: Instant) -> Result<Pending> {
        envelope(&cargo.target, &cargo.message, self.link.config().property_mapping)?;
        let permit = Arc::clone(&self.window).try_acquire_owned().map_err(|error| match error {
            TryAcquireError::Closed => closed(),
            TryAcquireError::NoPermits => full("the window of unconfirmed messages is full"),
        })?;
        let producer = self.handle()?.now();
        let producer = producer.unwrap_or_else(|| Err(full("there is no producer yet; it is being made")))?;
        self.put(&producer, cargo, &mut Some(permit), until)
    }

    fn put(
        &self,
        producer: &Producer,
        cargo: &mut Cargo,
        permit: &mut Option<OwnedSemaphorePermit>,
        until: Instant,
    ) -> Result<Pending> {
        let mapping = self.link.config().property_mapping;
        self.ledger.enter(cargo, permit, until, |Cargo { target, message }, serial| {
            let envelope = envelope(target, message, mapping)?;
            let record = BaseRecord::<[u8], [u8], usize> {
                topic: envelope.topic,
                partition: envelope.partition,
                payload: message.payload.as_deref(),
                key: message.key.as_deref(),
                timestamp: envelope.timestamp,
                headers: envelope.headers,
                delivery_opaque: serial,
            };
            producer.send(record).map_err(|(error, _): (KafkaError, _)| failure::not_taken(error))
        })
    }

    /// How many messages the brokers have not confirmed yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.ledger.in_flight()
    }

    /// Waits until everything that was handed over is confirmed, or has failed.
    pub(crate) async fn settled(&self, until: Instant) -> Result<()> {
        let Some(handle) = self.running() else { return Ok(()) };
        let _flushing = handle.flush();
        timeout_at(until, self.ledger.settled()).await.map_err(|_| {
            let message = format!("{} messages are not confirmed yet", self.in_flight());
            Error::new(ErrorKind::Timeout, message)
        })
    }

    pub(crate) async fn flush(&self, until: Instant) -> BatchReport {
        // Who is late stands in the report.
        let _ = self.settled(until).await;
        BatchReport::new(self.ledger.fates())
    }

    /// Lets go of the producer until the next message. What is on its way stays on its way.
    pub(crate) fn rest(&self) {
        let mut slot = lock(&self.handle);
        if matches!(*slot, Slot::Running(_)) {
            *slot = Slot::Empty;
        }
    }

    /// Nothing is handed over from now on. What is not confirmed in time is given up and handed back.
    pub(crate) async fn close(&self, until: Instant) -> CloseReport {
        self.window.close();
        let _ = self.settled(until).await;
        self.ledger.begin_to_close();
        let running = match std::mem::replace(&mut *lock(&self.handle), Slot::Closed) {
            Slot::Running(handle) => Some(handle),
            Slot::Empty | Slot::Closed => None,
        };
        if let Some(handle) = running
            && self.in_flight() > 0
        {
            handle.purge();
            // What is not reported by then is of unknown outcome.
            let _ = tokio::time::timeout(PURGE, self.ledger.settled()).await;
        }
        let (unsent, unconfirmed) =
            self.ledger.hand_back().into_iter().partition(|unsent| unsent.outcome == Outcome::NotSent);
        CloseReport { unsent, unconfirmed, error: None }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the sender was closed on this side").with_outcome(Outcome::NotSent)
}

fn full(what: &'static str) -> Error {
    Error::new(ErrorKind::Timeout, what).with_outcome(Outcome::NotSent)
}
