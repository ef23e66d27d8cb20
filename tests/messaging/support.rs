//! Servers to test against, waits that end, and what many tests do.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use leveret::amqp::{Channel, Queue};
use leveret::broker::Broker;
use leveret::messaging::{Client, ClientBuilder, Delivery, Receiver, Source};

pub(crate) use crate::running::{PATIENCE, command, environment, run, unique, until, within};
use crate::wire::Tap;

// ------------------------------------------------------------------------------------------------------------- running

/// Makes two tests of each body: `NAME::broker` and `NAME::rabbitmq`.
macro_rules! on_every_server {
    ($( $(#[$meta:meta])* async fn $name:ident($server:ident: Server) $body:block )*) => {$(
        $(#[$meta])*
        mod $name {
            use super::*;

            async fn body($server: &Server) $body

            #[test]
            fn broker() {
                crate::support::run(async { body(&Server::broker().await).await });
            }

            #[test]
            #[ignore = "needs RabbitMQ: run tests/run"]
            fn rabbitmq() {
                crate::support::run(async { body(&Server::rabbitmq()).await });
            }
        }
    )*};
}

/// As `on_every_server!`, with a server that nobody else uses, so that the test may do to it what it likes.
macro_rules! on_every_own_server {
    ($( $(#[$meta:meta])* async fn $name:ident($server:ident: Own) $body:block )*) => {$(
        $(#[$meta])*
        mod $name {
            use super::*;

            async fn body($server: Own) $body

            #[test]
            fn broker() {
                crate::support::run(async { body(Own::broker().await).await });
            }

            #[test]
            #[ignore = "needs RabbitMQ: run tests/run"]
            fn rabbitmq() {
                crate::support::run(async { body(Own::rabbitmq().await).await });
            }
        }
    )*};
}

/// Makes a test of each body that a real RabbitMQ is needed for.
macro_rules! on_rabbitmq {
    ($( $(#[$meta:meta])* async fn $name:ident($server:ident: Server) $body:block )*) => {$(
        $(#[$meta])*
        #[test]
        #[ignore = "needs RabbitMQ: run tests/run"]
        fn $name() {
            crate::support::run(async {
                let $server = &Server::rabbitmq();
                $body
            });
        }
    )*};
}

// ------------------------------------------------------------------------------------------------------------- servers

/// The broker in the box, one for each test, or the RabbitMQ that all tests share.
#[derive(Debug)]
pub(crate) struct Server {
    url: String,
    pub(crate) broker: Option<Broker>,
}

impl Server {
    pub(crate) fn rabbitmq() -> Self {
        Self { url: environment("LEVERET_RABBITMQ_URL"), broker: None }
    }

    pub(crate) async fn broker() -> Self {
        let broker = Broker::start().await.unwrap();
        Self { url: broker.url(), broker: Some(broker) }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder(&self.url).unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        within("a connection", self.builder().connect()).await.unwrap()
    }

    /// A client behind a tap.
    pub(crate) async fn tapped(&self) -> (Client, Tap) {
        let tap = Tap::new(&self.url).await;
        let client = within("a connection", Client::connect(tap.url())).await.unwrap();
        (client, tap)
    }
}

/// A server for one test alone.
#[derive(Debug)]
pub(crate) enum Own {
    /// It is there or not.
    Broker(Option<Broker>, SocketAddr),
    RabbitMq {
        dir: PathBuf,
        ctl: String,
        url: String,
    },
}

impl Own {
    pub(crate) async fn broker() -> Self {
        let broker = Broker::start().await.unwrap();
        let address = broker.local_addr();
        Self::Broker(Some(broker), address)
    }

    pub(crate) async fn rabbitmq() -> Self {
        let dir = PathBuf::from(environment("LEVERET_RABBITMQ_DIRS")).join(unique("own"));
        let started = command(&environment("LEVERET_RABBITMQ"), &["start", dir.to_str().unwrap()]).await;
        let mut lines = started.lines().map(str::to_owned);
        let (url, ctl) = (lines.next().unwrap(), lines.next().unwrap());
        Self::RabbitMq { dir, ctl, url }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Broker(_, address) => format!("amqp://guest:guest@{address}/%2f"),
            Self::RabbitMq { url, .. } => url.clone(),
        }
    }

    /// The server runs out of memory.
    pub(crate) async fn block(&self) {
        match self {
            Self::Broker(broker, _) => broker.as_ref().unwrap().block("low on memory"),
            Self::RabbitMq { ctl, .. } => drop(command(ctl, &["set_vm_memory_high_watermark", "0.0000001"]).await),
        }
    }

    /// The server has memory again.
    pub(crate) async fn unblock(&self) {
        match self {
            Self::Broker(broker, _) => broker.as_ref().unwrap().unblock(),
            Self::RabbitMq { ctl, .. } => drop(command(ctl, &["set_vm_memory_high_watermark", "0.4"]).await),
        }
    }

    /// The operator closes every connection.
    pub(crate) async fn close_connections(&self) {
        match self {
            Self::Broker(broker, _) => broker.as_ref().unwrap().close_connections(320, "CONNECTION_FORCED - bye"),
            Self::RabbitMq { ctl, .. } => drop(command(ctl, &["close_all_connections", "bye"]).await),
        }
    }

    /// The server is gone from one moment to the next.
    pub(crate) async fn kill(&mut self) {
        match self {
            Self::Broker(broker, _) => drop(broker.take()),
            Self::RabbitMq { dir, .. } => {
                command(&environment("LEVERET_RABBITMQ"), &["kill", dir.to_str().unwrap()]).await;
            }
        }
    }

    /// The server shuts down in order.
    pub(crate) async fn stop(&mut self) {
        match self {
            Self::Broker(broker, _) => {
                if let Some(broker) = broker.take() {
                    broker.shutdown().await;
                }
            }
            Self::RabbitMq { dir, .. } => {
                command(&environment("LEVERET_RABBITMQ"), &["stop", dir.to_str().unwrap()]).await;
            }
        }
    }

    /// It is there again, where it was. The broker in the box has forgotten everything.
    pub(crate) async fn start(&mut self) {
        match self {
            Self::Broker(broker, address) => {
                *broker = Some(broker_at(*address, Broker::builder).await);
            }
            Self::RabbitMq { dir, .. } => {
                command(&environment("LEVERET_RABBITMQ"), &["start", dir.to_str().unwrap()]).await;
            }
        }
    }
}

/// A broker where another one was. That one's listener may not be gone yet.
pub(crate) async fn broker_at(address: SocketAddr, builder: impl Fn() -> leveret::broker::Builder) -> Broker {
    within("the port", async {
        loop {
            match builder().bind(address).await {
                Ok(broker) => return broker,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{error}"),
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Self::RabbitMq { dir, .. } = self {
            let ended = Command::new(environment("LEVERET_RABBITMQ")).arg("kill").arg(dir).status();
            if !std::thread::panicking() {
                assert!(ended.unwrap().success(), "the RabbitMQ of this test is still there");
            }
        }
    }
}

// ------------------------------------------------------------------------------------------- what many tests do

/// A channel of the client's connection, to declare things with and to look at them.
pub(crate) async fn channel(client: &Client) -> Channel {
    client.as_amqp().await.unwrap().open_channel().await.unwrap()
}

/// A queue that goes with the client's connection.
pub(crate) async fn exclusive_queue(client: &Client) -> String {
    let queue = unique("queue");
    channel(client).await.queue_declare(&queue).exclusive(true).await.unwrap();
    queue
}

/// A queue that stays when connections go; [`Kept::delete`] takes it away.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) name: String,
    url: String,
}

impl Kept {
    pub(crate) async fn new(server: &Server) -> Self {
        Self::with(server, "classic").await
    }

    pub(crate) async fn with(server: &Server, kind: &str) -> Self {
        let kept = Self { name: unique("kept"), url: server.url().to_owned() };
        let client = server.client().await;
        let channel = channel(&client).await;
        channel.queue_declare(&kept.name).durable(true).argument("x-queue-type", kind).await.unwrap();
        kept
    }

    /// The numbers in it; it is gone afterwards.
    pub(crate) async fn delete(self) -> Vec<u32> {
        let client = within("a connection", Client::connect(&self.url)).await.unwrap();
        let channel = channel(&client).await;
        let mut numbers = Vec::new();
        while let Some(got) = channel.basic_get(&self.name).no_ack().await.unwrap() {
            numbers.push(std::str::from_utf8(got.body()).unwrap().parse().unwrap());
        }
        channel.queue_delete(&self.name).await.unwrap();
        numbers
    }
}

/// What the server knows of a queue.
pub(crate) async fn look_at(channel: &Channel, queue: &str) -> Queue {
    channel.queue_declare(queue).passive(true).await.unwrap()
}

/// Sends messages with the bodies `first..last` to a queue and waits until the server has them.
pub(crate) async fn fill(client: &Client, queue: &str, numbers: std::ops::Range<u32>) {
    let sender = client.sender().build().unwrap();
    let target = leveret::messaging::Target::queue(queue);
    let report = sender.send_batch(numbers.map(|number| (&target, number.to_string()))).await;
    assert!(report.is_ok(), "{report:?}");
}

/// A receiver of a queue.
pub(crate) async fn receiver(client: &Client, queue: &str) -> Receiver {
    within("a receiver", client.receiver(Source::queue(queue)).build()).await.unwrap()
}

/// The next delivery, which has to come.
pub(crate) async fn next(receiver: &mut Receiver) -> Delivery {
    within("a delivery", receiver.recv()).await.expect("the receiver goes on").unwrap()
}

/// A message's body as the number that `fill` put there.
pub(crate) fn number(body: &[u8]) -> u32 {
    std::str::from_utf8(body).unwrap().parse().unwrap()
}
