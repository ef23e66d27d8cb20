//! The call sites of the hosts, in this library's words: what KumoMTA does with its two AMQP clients, Zato with its outgoing connections and
//! channels, and programs with uamqp's clients. Each port is what the host would have in its tree; its tests run it against the broker in
//! the box, and under `tests/run` against RabbitMQ. `leveret::guide` has the same as tables.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail loudly, and so do their helpers"
)]

#[macro_use]
#[path = "../shared/running.rs"]
mod running;
#[path = "../shared/servers.rs"]
mod servers;

mod kumomta_basic_publish;
mod kumomta_build_client;
mod uamqp;
mod zato;

use leveret::amqp::{Channel, Connection};

pub(crate) use crate::running::{PATIENCE, until, within};
pub(crate) use crate::servers::{Server, against_rabbitmq};

/// A queue, and a channel to look at it.
async fn prepared(server: &Server, queue: &str) -> Channel {
    let channel = within("a connection", Connection::open(&server.url)).await.unwrap().open_channel().await.unwrap();
    channel.queue_declare(queue).await.unwrap();
    channel
}

/// The next message of a queue, which has to be there.
async fn take(channel: &Channel, queue: &str) -> leveret::amqp::Message {
    let mut taken = None;
    until("a message", async || {
        taken = channel.basic_get(queue).no_ack().await.unwrap();
        taken.is_some()
    })
    .await;
    taken.unwrap().message
}
