//! How a client's brokers are, as far as is known, and whom that is told.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::{failure, lock};
use crate::error::{Error, ErrorKind};

/// Something that is no message's business, and that somebody may want to know.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    /// The brokers have answered: for the first time, or again.
    Up,
    /// No broker can be reached. librdkafka tries again by itself.
    Down(Error),
    /// Something has failed, and librdkafka goes on.
    Trouble(Error),
    /// A receiver has got these partitions.
    Assigned(Vec<(String, i32)>),
    /// A receiver has these partitions no more.
    Revoked(Vec<(String, i32)>),
}

/// How the brokers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Nobody has asked them yet.
    Unknown,
    Up,
    Down,
}

type Listener = Box<dyn Fn(Notice) + Send + Sync>;

/// One for all that a client has of librdkafka's instances.
pub(crate) struct Health {
    condition: AtomicU8,
    listener: Listener,
    last: Mutex<Option<(Instant, Code, Error)>>,
}

const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

/// The same trouble is told once in this time.
const AGAIN: Duration = Duration::from_secs(1);

impl Health {
    pub(crate) fn new(listener: impl Fn(Notice) + Send + Sync + 'static) -> Self {
        Self { condition: AtomicU8::new(UNKNOWN), listener: Box::new(listener), last: Mutex::default() }
    }

    pub(crate) fn condition(&self) -> Condition {
        match self.condition.load(Ordering::Relaxed) {
            UP => Condition::Up,
            DOWN => Condition::Down,
            _ => Condition::Unknown,
        }
    }

    pub(super) fn tell(&self, notice: Notice) {
        (self.listener)(notice);
    }

    /// A broker has answered.
    pub(super) fn up(&self) {
        // Asked with every message: read first, because it is nearly always up already.
        if self.condition.load(Ordering::Relaxed) != UP && self.condition.swap(UP, Ordering::Relaxed) != UP {
            self.tell(Notice::Up);
        }
    }

    fn down(&self, error: Error) {
        if self.condition.swap(DOWN, Ordering::Relaxed) != DOWN {
            self.tell(Notice::Down(error));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        tracing::debug!(%error, reason, "librdkafka");
        let kind = failure::general("", error.clone()).kind();
        let error = Error::with_source(kind, format!("the brokers: {reason}"), error);
        // Told once each time that they go, however soon that is.
        if code == Code::AllBrokersDown {
            return self.down(error);
        }
        {
            // librdkafka tells each error twice through rdkafka, and the same one again with every attempt to connect.
            let mut last = lock(&self.last);
            let known = last.as_ref().is_some_and(|(at, known, _)| *known == code && at.elapsed() < AGAIN);
            if known {
                return;
            }
            *last = Some((Instant::now(), code, error.clone()));
        }
        self.tell(Notice::Trouble(error));
    }

    /// Why the brokers may not answer, where that has been told since.
    pub(super) fn reason(&self, since: Instant) -> Option<Error> {
        let last = lock(&self.last);
        let (_, _, error) = last.as_ref().filter(|(at, ..)| *at >= since)?;
        matches!(error.kind(), ErrorKind::Auth | ErrorKind::Tls).then(|| error.clone())
    }
}

/// What librdkafka calls in each of its instances.
pub(super) struct Callbacks {
    pub(super) health: Arc<Health>,
    /// The instance cannot be used any more.
    pub(super) dead: AtomicBool,
}

impl Callbacks {
    pub(super) fn new(health: Arc<Health>) -> Self {
        Self { health, dead: AtomicBool::new(false) }
    }

    pub(super) fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(Code::Fatal) {
            self.dead.store(true, Ordering::Relaxed);
        }
        self.health.error(error, reason);
    }
}

pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    // Connections that come and go are told as events; for the log they are nothing to worry about.
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, message, "librdkafka");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::warn!(facility, message, "librdkafka"),
        _ => tracing::debug!(facility, message, "librdkafka"),
    }
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Self::error(self, error, reason);
    }

    fn stats_raw(&self, _: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// However soon they go again, and whatever was told in between.
    #[test]
    fn brokers_that_come_and_go_are_told_each_time() {
        let (tell, told) = mpsc::channel();
        let health = Health::new(move |notice| tell.send(notice).unwrap());
        let down = || KafkaError::Global(Code::AllBrokersDown);
        for _ in 0..2 {
            health.up();
            health.error(down(), "none is up");
            health.error(down(), "none is up");
            assert_eq!(health.condition(), Condition::Down);
        }
        for _ in 0..2 {
            assert!(matches!(told.try_recv(), Ok(Notice::Up)));
            assert!(matches!(told.try_recv(), Ok(Notice::Down(_))));
        }
        health.error(KafkaError::Global(Code::Resolve), "no such host");
        health.error(KafkaError::Global(Code::Resolve), "no such host");
        assert!(matches!(told.try_recv(), Ok(Notice::Trouble(_))));
        assert!(told.try_recv().is_err(), "the same again");
    }
}
