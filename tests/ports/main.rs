//! The call sites of the hosts, in this library's words: what KumoMTA does with its two AMQP clients, Zato with its outgoing connections and
//! channels, and programs with uamqp's clients. Each port is what the host would have in its tree; its tests run it against the broker in
//! the box. `leveret::guide` has the same as tables.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail loudly, and so do their helpers"
)]

mod kumomta_basic_publish;
mod kumomta_build_client;
mod uamqp;
mod zato;

use std::time::Duration;

use leveret::amqp::{Channel, Connection};
use leveret::broker::Broker;

const PATIENCE: Duration = Duration::from_secs(20);

async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// A broker with one queue, and a channel to look at it.
async fn server(queue: &str) -> (Broker, Channel) {
    let broker = Broker::start().await.unwrap();
    let channel = within("a connection", Connection::open(&broker.url())).await.unwrap().open_channel().await.unwrap();
    channel.queue_declare(queue).await.unwrap();
    (broker, channel)
}

/// The next message of a queue, which has to be there.
async fn take(channel: &Channel, queue: &str) -> leveret::amqp::Message {
    within("a message", async {
        loop {
            if let Some(got) = channel.basic_get(queue).no_ack().await.unwrap() {
                return got.message;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}
