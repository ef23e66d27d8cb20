//! Servers for the tests of what is built on the facade: the broker in the box under a plain `cargo test`, RabbitMQ under `tests/run`.
//!
//! Each test of `on_every_server!` has a server for itself, on RabbitMQ a virtual host, so queues can have the names that a test is
//! easy to read with. Bodies in `on_its_own!` ask for what RabbitMQ does not do on command, or not to one test alone: to hold confirms
//! back, or to take no messages (`tests/messaging/blocking.rs` has that, with servers of its own).

use leveret::broker::Broker;

use crate::running::{command, environment, unique};

/// Of no server it is known that it differs.
pub(crate) async fn against_rabbitmq(_test: &str, body: impl Future<Output = ()>) {
    body.await;
}

/// A server that no other test uses.
pub(crate) struct Server {
    pub(crate) url: String,
    broker: Option<Broker>,
}

impl Server {
    pub(crate) async fn broker() -> Self {
        let broker = Broker::start().await.unwrap();
        Self { url: broker.url(), broker: Some(broker) }
    }

    /// A virtual host of its own. It goes with the server, when `tests/run` is done.
    pub(crate) async fn rabbitmq() -> Self {
        let (url, ctl, host) =
            (environment("LEVERET_RABBITMQ_URL"), environment("LEVERET_RABBITMQ_CTL"), unique("host"));
        command(&ctl, &["add_vhost", &host]).await;
        command(&ctl, &["set_permissions", "-p", &host, "guest", ".*", ".*", ".*"]).await;
        let (server, _) = url.rsplit_once('/').unwrap();
        Self { url: format!("{server}/{host}"), broker: None }
    }

    /// The broker in the box, to be told what to do.
    pub(crate) fn in_the_box(&self) -> &Broker {
        self.broker.as_ref().unwrap()
    }
}
