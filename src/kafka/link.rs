//! What a client has of Kafka: its configuration, how the brokers are, and an instance of librdkafka to ask them.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use rdkafka::producer::Producer as _;
use tokio::sync::oneshot;

use super::config::KafkaConfig;
use super::health::{Callbacks, Condition, Health};
use super::ledger::Ledger;
use super::member::{Gone, Member};
use super::producer::{Handle, thread};
use super::{failure, inbox, lock, producer};
use crate::error::{Error, ErrorKind, Outcome, Result};

pub(crate) struct Link {
    config: KafkaConfig,
    health: Arc<Health>,
    asking: Mutex<Slot>,
    /// Members of groups, which go when the client is closed, and such as are on their way out.
    members: Mutex<Vec<(Weak<Member>, Gone)>>,
}

/// Who asks the brokers something.
enum Slot {
    Nobody,
    Asker(Arc<Handle>),
    Closed,
}

impl Link {
    pub(crate) fn new(config: KafkaConfig, health: Health) -> Self {
        Self { config, health: Arc::new(health), asking: Mutex::new(Slot::Nobody), members: Mutex::default() }
    }

    pub(crate) fn config(&self) -> &KafkaConfig {
        &self.config
    }

    /// `None` after closing.
    pub(crate) fn condition(&self) -> Option<Condition> {
        match *lock(&self.asking) {
            Slot::Closed => None,
            Slot::Nobody | Slot::Asker(_) => Some(self.health.condition()),
        }
    }

    /// # Errors
    ///
    /// `Closed`: nothing is begun any more.
    pub(super) fn callbacks(&self) -> Result<Callbacks> {
        match *lock(&self.asking) {
            Slot::Closed => Err(closed()),
            Slot::Nobody | Slot::Asker(_) => Ok(Callbacks::new(Arc::clone(&self.health))),
        }
    }

    fn asker(&self) -> Result<Arc<Handle>> {
        let mut slot = lock(&self.asking);
        match &*slot {
            Slot::Asker(handle) if !handle.is_dead() => return Ok(Arc::clone(handle)),
            Slot::Closed => return Err(closed()),
            Slot::Nobody | Slot::Asker(_) => {}
        }
        // It sends nothing; idempotence, of which brokers are told when it begins, is of no use to it.
        let mut config = self.config.producer(Duration::from_secs(60), true);
        if self.config.get("enable.idempotence").is_none() {
            config.set("enable.idempotence", "false");
        }
        let callbacks = Callbacks::new(Arc::clone(&self.health));
        let handle = Handle::start(config, callbacks, &Arc::new(Ledger::new(0)), false, Duration::ZERO)?;
        let handle = Arc::new(handle);
        *slot = Slot::Asker(Arc::clone(&handle));
        Ok(handle)
    }

    /// Asks a broker for the metadata of the cluster, and says how long that took.
    pub(crate) async fn ping(&self, timeout: Duration) -> Result<Duration> {
        let begin = Instant::now();
        let asker = self.asker()?;
        let producer = tokio::time::timeout(timeout, asker.producer()).await.unwrap_or_else(|_| Err(late(timeout)))?;
        let (tell, answer) = oneshot::channel();
        let left = timeout.saturating_sub(begin.elapsed()).max(Duration::from_millis(1));
        // It waits, and so it has a thread of its own: that does not hold up the runtime's end as a blocking task would.
        thread("leveret-kafka-ask", move || {
            let asked = Instant::now();
            let answer = ask(&producer, left).map(|()| asked.elapsed());
            drop(producer);
            // Whoever asked may be gone.
            let _ = tell.send(answer);
        })?;
        // librdkafka keeps its times well enough, and this is for certain.
        let answer = match tokio::time::timeout(left, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::new(ErrorKind::Closed, "the thread that asked has ended")),
            Err(_) => Err(late(timeout)),
        };
        match answer {
            Ok(took) => {
                self.health.up();
                Ok(took)
            }
            Err(error) => Err(self.health.reason(begin).unwrap_or(error)),
        }
    }

    /// Lets go of what is only there for asking.
    pub(crate) fn rest(&self) {
        let mut slot = lock(&self.asking);
        if matches!(*slot, Slot::Asker(_)) {
            *slot = Slot::Nobody;
        }
    }

    pub(super) fn add_member(&self, member: &Arc<Member>) {
        let mut members = lock(&self.members);
        // One that has gone has nothing to tell any more.
        members.retain(|(_, gone)| gone.has_changed().is_ok());
        members.push((Arc::downgrade(member), member.gone()));
    }

    /// Nothing is begun from now on, and members leave their groups, after their offsets are committed. Says whether it was open, and
    /// whether they have gone by `until`.
    pub(crate) async fn close(&self, until: tokio::time::Instant) -> (bool, bool) {
        let was_open = !matches!(std::mem::replace(&mut *lock(&self.asking), Slot::Closed), Slot::Closed);
        let members = std::mem::take(&mut *lock(&self.members));
        (was_open, inbox::stop(members, until).await)
    }
}

fn ask(producer: &producer::Producer, timeout: Duration) -> Result<()> {
    let answer = producer.client().fetch_metadata(None, timeout);
    answer.map(drop).map_err(|error| failure::general("the brokers do not answer", error))
}

fn late(timeout: Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("no answer within {} ms", timeout.as_millis()))
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the client was closed on this side").with_outcome(Outcome::NotSent)
}
