//! Servers for one test alone, which may do to them what it likes: the broker in the box, or what `tests/rabbitmq`,
//! `tests/garagemq` and `tests/qpid` start. Shared by the tests of the client and those of the facade.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use leveret::broker::Broker;

use crate::running::{command, environment, unique};

/// A server for one test alone.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) url: String,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// It is there or not.
    Broker(Mutex<Option<Broker>>),
    Started(Started),
}

/// What one of the scripts has started.
#[derive(Debug)]
pub(crate) struct Started {
    script: String,
    dir: PathBuf,
    ctl: Option<String>,
}

impl Own {
    pub(crate) async fn broker() -> Self {
        let broker = Broker::start().await.unwrap();
        Self { url: broker.url(), kind: Kind::Broker(Mutex::new(Some(broker))) }
    }

    /// As `tests/run` has it, or the other server.
    pub(crate) async fn rabbitmq() -> Self {
        match std::env::var("LEVERET_OTHER") {
            Ok(script) => Self::start_with(script, "").await,
            Err(_) => Self::rabbitmq_with("").await,
        }
    }

    /// A RabbitMQ with these lines in its configuration.
    pub(crate) async fn rabbitmq_with(more: &str) -> Self {
        Self::start_with(environment("LEVERET_RABBITMQ"), more).await
    }

    async fn start_with(script: String, more: &str) -> Self {
        let dir = PathBuf::from(environment("LEVERET_RABBITMQ_DIRS")).join(unique("own"));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("more.conf"), more).unwrap();
        let mut started = Started { script, dir, ctl: None };
        let said = started.then("start").await;
        let mut lines = said.lines().map(str::to_owned);
        let url = lines.next().unwrap();
        started.ctl = lines.next();
        Self { url, kind: Kind::Started(started) }
    }

    /// The operator closes every connection.
    pub(crate) async fn close_connections(&self) {
        self.told(|broker| broker.close_connections(320, "CONNECTION_FORCED - bye"), &["close_all_connections", "bye"])
            .await;
    }

    /// The server runs out of memory.
    pub(crate) async fn block(&self) {
        self.told(|broker| broker.block("low on memory"), &["set_vm_memory_high_watermark", "0.0000001"]).await;
    }

    /// The server has memory again.
    pub(crate) async fn unblock(&self) {
        self.told(Broker::unblock, &["set_vm_memory_high_watermark", "0.4"]).await;
    }

    /// Tells the broker in the box, or RabbitMQ by its `rabbitmqctl`.
    async fn told(&self, broker: impl FnOnce(&Broker), rabbitmq: &[&str]) {
        match &self.kind {
            Kind::Broker(there) => broker(there.lock().unwrap().as_ref().unwrap()),
            Kind::Started(Started { ctl, .. }) => {
                let ctl = ctl.as_ref().expect("only RabbitMQ can be told to: see tests/amqp/differences.rs");
                command(ctl, rabbitmq).await;
            }
        }
    }

    /// The server is gone from one moment to the next.
    pub(crate) async fn kill(&self) {
        match &self.kind {
            Kind::Broker(broker) => drop(broker.lock().unwrap().take()),
            Kind::Started(started) => drop(started.then("kill").await),
        }
    }
}

impl Started {
    /// Has the script do something to it: start, stop, kill.
    pub(crate) async fn then(&self, action: &str) -> String {
        command(&self.script, &[action, self.dir.to_str().unwrap()]).await
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let ended = Command::new(&self.script).arg("kill").arg(&self.dir).status();
        if !std::thread::panicking() {
            assert!(ended.unwrap().success(), "the server of this test is still there");
        }
    }
}
