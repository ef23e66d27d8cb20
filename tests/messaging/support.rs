//! Servers to test against, waits that end, and what many tests do.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use leveret::amqp::{Channel, Queue};
use leveret::broker::Broker;
use leveret::messaging::{Client, ClientBuilder, Delivery, Receiver, Source};

use crate::wire::Tap;

/// How long a test waits for one thing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long a whole test may take.
const WHOLE: Duration = Duration::from_secs(120);

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

/// Makes a test of each body that brings its own server, a broker in the box most likely.
macro_rules! on_its_own {
    ($( $(#[$meta:meta])* async fn $name:ident() $body:block )*) => {$(
        $(#[$meta])*
        #[test]
        fn $name() {
            crate::support::run(async $body);
        }
    )*};
}

/// Runs a test on a runtime of its own.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let ended = runtime.block_on(async { tokio::time::timeout(WHOLE, test).await });
    // A task that is stuck must not hold the test up.
    runtime.shutdown_timeout(Duration::from_secs(1));
    assert!(ended.is_ok(), "the test did not end within {} s", WHOLE.as_secs());
}

/// Waits for something, but not for ever.
pub(crate) async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(value) => value,
        Err(_) => panic!("waited {} s in vain: {what}", PATIENCE.as_secs()),
    }
}

/// Asks again and again until it is so, where nothing tells when.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// A name that nobody else uses.
pub(crate) fn unique(word: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("leveret.{}.{}.{word}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
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

pub(crate) fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run tests/run"))
}

/// A server for one test alone.
#[derive(Debug)]
pub(crate) enum Own {
    Broker(Broker),
    RabbitMq { dir: PathBuf, ctl: String, url: String },
}

impl Own {
    pub(crate) async fn broker() -> Self {
        Self::Broker(Broker::start().await.unwrap())
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
            Self::Broker(broker) => broker.url(),
            Self::RabbitMq { url, .. } => url.clone(),
        }
    }

    /// The server runs out of memory.
    pub(crate) async fn block(&self) {
        match self {
            Self::Broker(broker) => broker.block("low on memory"),
            Self::RabbitMq { ctl, .. } => drop(command(ctl, &["set_vm_memory_high_watermark", "0.0000001"]).await),
        }
    }

    /// The server has memory again.
    pub(crate) async fn unblock(&self) {
        match self {
            Self::Broker(broker) => broker.unblock(),
            Self::RabbitMq { ctl, .. } => drop(command(ctl, &["set_vm_memory_high_watermark", "0.4"]).await),
        }
    }

    /// The operator closes every connection.
    pub(crate) async fn close_connections(&self) {
        match self {
            Self::Broker(broker) => broker.close_connections(320, "CONNECTION_FORCED - bye"),
            Self::RabbitMq { ctl, .. } => drop(command(ctl, &["close_all_connections", "bye"]).await),
        }
    }
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

async fn command(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    let Output { status, stdout, stderr } =
        within(program, tokio::task::spawn_blocking(move || command.output())).await.unwrap().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
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
pub(crate) fn number(message: &leveret::messaging::Message) -> u32 {
    std::str::from_utf8(message.body()).unwrap().parse().unwrap()
}
