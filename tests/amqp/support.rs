//! Servers to test against, waits that end, and what many tests do.

use std::path::PathBuf;
use std::process::{Command, Output};

use leveret::amqp::{Channel, Connection, ConnectionBuilder, Consumer, Credentials, Delivery, Queue};
use leveret::broker::Broker;
use leveret::error::{Error, ErrorKind};

pub(crate) use crate::running::{PATIENCE, command, environment, run, unique, until, within};

// ------------------------------------------------------------------------------------------------------------- running

/// Makes two tests of each body: `NAME::broker` and `NAME::rabbitmq`. The second is run against other servers, too, with the
/// exceptions in `differences`.
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
                crate::support::run(async {
                    let server = &Server::rabbitmq();
                    crate::differences::run(module_path!(), server.builder(), body(server)).await;
                });
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
                crate::support::run(async {
                    let server = Own::rabbitmq().await;
                    crate::differences::run(module_path!(), server.builder(), body(server)).await;
                });
            }
        }
    )*};
}

/// Makes a test of each body that a real RabbitMQ is needed for, because it is about what RabbitMQ alone does or can be made to do.
macro_rules! on_rabbitmq {
    ($( $(#[$meta:meta])* async fn $name:ident($($server:ident: Server)?) $body:block )*) => {$(
        $(#[$meta])*
        #[test]
        #[ignore = "needs RabbitMQ: run tests/run"]
        fn $name() {
            crate::support::run(async {
                $( let $server = &Server::rabbitmq(); )?
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
    _broker: Option<Broker>,
    _garagemq: Option<Garagemq>,
}

impl Server {
    /// The RabbitMQ that `tests/run` has started, or the other server.
    pub(crate) fn rabbitmq() -> Self {
        if let Ok(script) = std::env::var("LEVERET_GARAGEMQ") {
            let (garagemq, url) = Garagemq::start(script);
            return Self { url, _broker: None, _garagemq: Some(garagemq) };
        }
        Self { url: environment("LEVERET_RABBITMQ_URL"), _broker: None, _garagemq: None }
    }

    pub(crate) async fn broker() -> Self {
        let broker = Broker::start().await.unwrap();
        Self { url: broker.url(), _broker: Some(broker), _garagemq: None }
    }

    pub(crate) fn builder(&self) -> ConnectionBuilder {
        Connection::builder(&self.url).unwrap()
    }

    /// A connection as somebody else, or to somewhere else.
    pub(crate) fn builder_as(&self, user: &str, password: &str, virtual_host: &str) -> ConnectionBuilder {
        self.builder().credentials(Credentials::new(user, password)).virtual_host(virtual_host)
    }

    pub(crate) async fn connect(&self) -> Connection {
        within("a connection", self.builder().open()).await.unwrap()
    }

    /// A channel on a connection of its own, which lives as long as the channel.
    pub(crate) async fn channel(&self) -> Channel {
        self.connect().await.open_channel().await.unwrap()
    }
}

/// A garagemq for one test alone: one that has met some of them hangs, or falls over.
#[derive(Debug)]
pub(crate) struct Garagemq {
    script: String,
    dir: PathBuf,
}

impl Garagemq {
    fn start(script: String) -> (Self, String) {
        let dir = PathBuf::from(environment("LEVERET_RABBITMQ_DIRS")).join(unique("garagemq"));
        let Output { status, stdout, stderr } = Command::new(&script).arg("start").arg(&dir).output().unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        let url = String::from_utf8(stdout).unwrap().trim().to_owned();
        (Self { script, dir }, url)
    }
}

impl Drop for Garagemq {
    fn drop(&mut self) {
        let ended = Command::new(&self.script).arg("stop").arg(&self.dir).status();
        if !std::thread::panicking() {
            assert!(ended.unwrap().success(), "the garagemq of this test is still there");
        }
    }
}

/// Runs `rabbitmqctl` against the RabbitMQ that all tests share.
pub(crate) async fn shared_ctl(arguments: &[&str]) -> String {
    command(&environment("LEVERET_RABBITMQ_CTL"), arguments).await
}

/// A server for one test alone.
#[derive(Debug)]
pub(crate) enum Own {
    Broker(Broker),
    RabbitMq { dir: PathBuf, ctl: String, url: String },
    Garagemq { garagemq: Garagemq, url: String },
}

impl Own {
    pub(crate) async fn broker() -> Self {
        Self::Broker(Broker::start().await.unwrap())
    }

    /// As `tests/run` has it, or the other server.
    pub(crate) async fn rabbitmq() -> Self {
        if let Ok(script) = std::env::var("LEVERET_GARAGEMQ") {
            let (garagemq, url) = Garagemq::start(script);
            return Self::Garagemq { garagemq, url };
        }
        Self::rabbitmq_with("").await
    }

    /// A RabbitMQ with these lines in its configuration.
    pub(crate) async fn rabbitmq_with(more: &str) -> Self {
        let dir = PathBuf::from(environment("LEVERET_RABBITMQ_DIRS")).join(unique("own"));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("more.conf"), more).unwrap();
        let started = command(&environment("LEVERET_RABBITMQ"), &["start", dir.to_str().unwrap()]).await;
        let mut lines = started.lines().map(str::to_owned);
        let (url, ctl) = (lines.next().unwrap(), lines.next().unwrap());
        Self::RabbitMq { dir, ctl, url }
    }

    pub(crate) fn builder(&self) -> ConnectionBuilder {
        match self {
            Self::Broker(broker) => Connection::builder(&broker.url()).unwrap(),
            Self::RabbitMq { url, .. } | Self::Garagemq { url, .. } => Connection::builder(url).unwrap(),
        }
    }

    pub(crate) async fn connect(&self) -> Connection {
        within("a connection", self.builder().open()).await.unwrap()
    }

    /// The operator closes every connection.
    pub(crate) async fn close_connections(&self) {
        match self {
            Self::Broker(broker) => broker.close_connections(320, "CONNECTION_FORCED - bye"),
            Self::RabbitMq { ctl, .. } => drop(command(ctl, &["close_all_connections", "bye"]).await),
            Self::Garagemq { .. } => panic!("nobody can tell it to: see differences.rs"),
        }
    }

    /// The server runs out of memory.
    pub(crate) async fn block(&self) {
        match self {
            Self::Broker(broker) => broker.block("low on memory"),
            Self::RabbitMq { ctl, .. } => drop(command(ctl, &["set_vm_memory_high_watermark", "0.0000001"]).await),
            Self::Garagemq { .. } => panic!("nobody can tell it to: see differences.rs"),
        }
    }

    /// The server has memory again.
    pub(crate) async fn unblock(&self) {
        match self {
            Self::Broker(broker) => broker.unblock(),
            Self::RabbitMq { ctl, .. } => drop(command(ctl, &["set_vm_memory_high_watermark", "0.4"]).await),
            Self::Garagemq { .. } => panic!("nobody can tell it to: see differences.rs"),
        }
    }

    /// The server is gone from one moment to the next.
    pub(crate) async fn kill(&self) {
        match self {
            Self::Broker(broker) => broker.drop_connections(),
            Self::RabbitMq { dir, .. } => {
                command(&environment("LEVERET_RABBITMQ"), &["kill", dir.to_str().unwrap()]).await;
            }
            Self::Garagemq { garagemq: Garagemq { script, dir }, .. } => {
                command(script, &["kill", dir.to_str().unwrap()]).await;
            }
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

// ------------------------------------------------------------------------------------------- what many tests do

/// A queue for this connection alone.
pub(crate) async fn exclusive_queue(channel: &Channel) -> String {
    let queue = channel.queue_declare(&unique("queue")).exclusive(true).await.unwrap();
    queue.name().to_owned()
}

/// What the server knows of a queue.
pub(crate) async fn look_at(channel: &Channel, queue: &str) -> Queue {
    channel.queue_declare(queue).passive(true).await.unwrap()
}

/// How many messages are ready in a queue. What was put back before may take a moment: RabbitMQ's queues answer this question first.
pub(crate) async fn ready(channel: &Channel, queue: &str) -> u32 {
    look_at(channel, queue).await.message_count()
}

/// Publishes messages with the bodies `first..last` and waits until the server has them. Puts the channel into confirm mode.
pub(crate) async fn fill(channel: &Channel, queue: &str, numbers: std::ops::Range<u32>) {
    channel.confirm_select().await.unwrap();
    let mut confirms = Vec::new();
    for number in numbers {
        confirms.push(channel.basic_publish("", queue, number.to_string()).mandatory(true).await.unwrap());
    }
    for confirm in confirms {
        let confirmation = within("a confirm", confirm).await.unwrap();
        assert_eq!(confirmation, leveret::amqp::Confirmation::Ack(None));
    }
}

/// The next delivery, which has to come.
pub(crate) async fn next(consumer: &mut Consumer) -> Delivery {
    within("a delivery", consumer.next()).await.expect("the consumer goes on").unwrap()
}

/// A message's body as the number that `fill` put there.
pub(crate) fn number(message: &leveret::amqp::Message) -> u32 {
    std::str::from_utf8(message.body()).unwrap().parse().unwrap()
}

/// The server has closed the channel, and has said why.
#[track_caller]
pub(crate) fn assert_channel_closed(error: &Error, code: u16) {
    assert_eq!(error.kind(), ErrorKind::ChannelClosed, "{error}");
    assert_eq!(error.reply_code().map(|code| code.0), Some(code), "{error}");
    assert!(error.to_string().contains(error.reply_text().unwrap()), "{error}");
}

/// The channel still does what it is asked.
pub(crate) async fn assert_works(channel: &Channel) {
    let queue = channel.queue_declare(&unique("works")).exclusive(true).auto_delete(true).await.unwrap();
    assert_eq!(channel.queue_delete(queue.name()).await.unwrap(), 0);
}

/// Polls once, and says whether it is ready.
pub(crate) async fn ready_at_once(future: &mut std::pin::Pin<Box<impl Future>>) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

/// The number in the next delivery, which stays unsettled.
pub(crate) async fn next_number(consumer: &mut Consumer) -> u32 {
    let delivery = next(consumer).await;
    number(&delivery)
}
