//! A producer of librdkafka, in the thread that makes it, polls it, and drops it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext, PurgeConfig};
use tokio::sync::watch;

use super::failure;
use super::health::{Callbacks, log};
use super::ledger::Ledger;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::message::Receipt;

pub(super) type Producer = BaseProducer<Reports>;

/// Where delivery reports go.
pub(super) struct Reports {
    callbacks: Callbacks,
    ledger: Weak<Ledger>,
    /// The brokers were asked.
    confirms: bool,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.callbacks.error(error, reason);
    }

    fn stats_raw(&self, _: &[u8]) {}
}

impl ProducerContext for Reports {
    /// A message's number in the ledger.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, serial: usize) {
        let result = match result {
            Ok(record) => {
                if self.confirms {
                    self.callbacks.health.up();
                }
                let offset = Some(record.offset()).filter(|offset| self.confirms && *offset >= 0);
                let timestamp = record.timestamp().to_millis();
                Ok(Receipt::kafka(record.partition(), offset, timestamp, self.confirms))
            }
            Err((error, _)) => Err(failure::delivery(error.clone())),
        };
        if let Some(ledger) = self.ledger.upgrade() {
            ledger.report(serial, result);
        }
    }
}

/// What its thread is told.
#[derive(Default)]
struct Orders {
    stop: AtomicBool,
    /// Somebody waits for everything to be delivered: nothing is held back to gather more.
    flush: AtomicUsize,
    purge: AtomicBool,
}

/// A producer, as long as somebody holds this. After that what was handed over is delivered, within its time, and the producer goes.
pub(super) struct Handle {
    orders: Arc<Orders>,
    producer: watch::Receiver<Option<Result<Arc<Producer>>>>,
}

/// How long the thread waits for reports before it looks for orders.
const TICK: Duration = Duration::from_millis(50);

impl Handle {
    /// Begins to make a producer. `linger`: how long what is on its way may take when nobody holds the handle any more.
    pub(super) fn start(
        config: ClientConfig,
        callbacks: Callbacks,
        ledger: &Arc<Ledger>,
        confirms: bool,
        linger: Duration,
    ) -> Result<Self> {
        let reports = Reports { callbacks, ledger: Arc::downgrade(ledger), confirms };
        // The messages on their way are kept until they are reported.
        let ledger = Arc::clone(ledger);
        let orders = Arc::new(Orders::default());
        let (tell, producer) = watch::channel(None);
        let obey = Arc::clone(&orders);
        thread("leveret-kafka-out", move || {
            let made = Producer::from_config_and_context(&config, reports).map(Arc::new);
            match made {
                Ok(producer) => {
                    tell.send_replace(Some(Ok(Arc::clone(&producer))));
                    drop(tell);
                    run(producer, &obey, linger);
                }
                Err(error) => {
                    let error = failure::configuration(error).with_outcome(Outcome::NotSent);
                    tell.send_replace(Some(Err(error)));
                }
            }
            drop(ledger);
        })?;
        Ok(Self { orders, producer })
    }

    /// The producer, when it is made.
    pub(super) async fn producer(&self) -> Result<Arc<Producer>> {
        let made = self.producer.clone().wait_for(Option::is_some).await.ok().and_then(|made| made.clone());
        made.unwrap_or_else(|| Err(Error::new(ErrorKind::Closed, "the thread of the producer has ended")))
    }

    /// The producer, if it is made already.
    pub(super) fn now(&self) -> Option<Result<Arc<Producer>>> {
        self.producer.borrow().clone()
    }

    /// A fatal error has ended it: librdkafka takes nothing any more.
    pub(super) fn is_dead(&self) -> bool {
        match self.now() {
            Some(Ok(producer)) => producer.context().callbacks.dead.load(Ordering::Relaxed),
            Some(Err(_)) => true,
            None => false,
        }
    }

    /// From now on, and until the guard is dropped, nothing is held back.
    pub(super) fn flush(&self) -> Flushing<'_> {
        self.orders.flush.fetch_add(1, Ordering::AcqRel);
        Flushing(&self.orders)
    }

    /// Whatever is not confirmed is given up, and reported so.
    pub(super) fn purge(&self) {
        self.orders.purge.store(true, Ordering::Release);
    }
}

pub(super) struct Flushing<'a>(&'a Orders);

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.0.flush.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.orders.stop.store(true, Ordering::Release);
    }
}

fn run(producer: Arc<Producer>, orders: &Orders, linger: Duration) {
    let purge = || {
        if orders.purge.swap(false, Ordering::AcqRel) {
            producer.purge(PurgeConfig::default().queue().inflight());
        }
    };
    while !orders.stop.load(Ordering::Acquire) {
        purge();
        // Flushing polls as well, and ends at once when there is nothing left.
        if orders.flush.load(Ordering::Acquire) == 0 || producer.flush(TICK).is_ok() {
            producer.poll(TICK);
        }
    }
    let until = Instant::now() + linger.min(Duration::from_secs(1 << 20));
    while producer.in_flight_count() > 0 && Instant::now() < until {
        purge();
        // It says only that the time is not over yet.
        let _ = producer.flush(TICK);
    }
    // Whoever is asking the brokers something still holds it, for a while. The last one must be this thread: dropping blocks.
    while Arc::strong_count(&producer) > 1 {
        producer.poll(TICK);
    }
}

/// Starts a thread.
///
/// # Errors
///
/// `LimitReached`: the system has none left.
pub(super) fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    let failed = |error| Error::with_source(ErrorKind::LimitReached, "there is no thread left for librdkafka", error);
    started.map(drop).map_err(|error| failed(error).with_outcome(Outcome::NotSent))
}
