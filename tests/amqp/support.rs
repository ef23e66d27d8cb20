//! Servers to test against, waits that end, and what many tests do.

use leveret::amqp::{Channel, Connection, ConnectionBuilder, Consumer, Credentials, Delivery, Queue};
use leveret::error::{Error, ErrorKind};
use tokio::net::TcpSocket;

pub(crate) use crate::own::Own;
pub(crate) use crate::running::{PATIENCE, command, environment, run, unique, until, within};

/// Makes a test of each body that a real RabbitMQ is needed for, because it is about what RabbitMQ alone does or can be made to do.
macro_rules! on_rabbitmq {
    ($( $(#[$meta:meta])* async fn $name:ident($($server:ident: Server)?) $body:block )*) => {$(
        $(#[$meta])*
        #[test]
        #[ignore = "needs RabbitMQ: run tests/run"]
        fn $name() {
            crate::running::run(async {
                $( let $server = &Server::rabbitmq().await; )?
                $body
            });
        }
    )*};
}

// ------------------------------------------------------------------------------------------------------------- servers

/// The broker in the box, one for each test, or the RabbitMQ or Qpid that all tests share. Of garagemq each test has its own: one that
/// has met some of them hangs, or falls over.
#[derive(Debug)]
pub(crate) struct Server {
    url: String,
    _own: Option<Own>,
}

impl Server {
    /// The RabbitMQ that `tests/run` has started, or the other server.
    pub(crate) async fn rabbitmq() -> Self {
        match std::env::var("LEVERET_OTHER") {
            Ok(script) if script.ends_with("/garagemq") => Self::own(Own::rabbitmq().await),
            _ => Self { url: environment("LEVERET_RABBITMQ_URL"), _own: None },
        }
    }

    pub(crate) async fn broker() -> Self {
        Self::own(Own::broker().await)
    }

    fn own(own: Own) -> Self {
        Self { url: own.url.clone(), _own: Some(own) }
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

    /// Two channels of one connection, and a queue of theirs that has these numbers. The second channel has confirms.
    pub(crate) async fn filled(&self, numbers: std::ops::Range<u32>) -> (Channel, Channel, String) {
        let connection = self.connect().await;
        let (channel, other) = (connection.open_channel().await.unwrap(), connection.open_channel().await.unwrap());
        let queue = exclusive_queue(&channel).await;
        fill(&other, &queue, numbers).await;
        (channel, other, queue)
    }
}

impl Own {
    pub(crate) fn builder(&self) -> ConnectionBuilder {
        Connection::builder(&self.url).unwrap()
    }

    pub(crate) async fn connect(&self) -> Connection {
        within("a connection", self.builder().open()).await.unwrap()
    }
}

/// A port at which nobody listens, and that nobody else is given as long as this lives.
#[derive(Debug)]
pub(crate) struct Nobody(TcpSocket);

impl Nobody {
    pub(crate) fn v4() -> Self {
        Self::at(TcpSocket::new_v4().unwrap(), "127.0.0.1:0")
    }

    pub(crate) fn v6() -> Self {
        Self::at(TcpSocket::new_v6().unwrap(), "[::1]:0")
    }

    fn at(socket: TcpSocket, address: &str) -> Self {
        socket.bind(address.parse().unwrap()).unwrap();
        Self(socket)
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }
}

/// Runs `rabbitmqctl` against the RabbitMQ that all tests share.
pub(crate) async fn shared_ctl(arguments: &[&str]) -> String {
    command(&environment("LEVERET_RABBITMQ_CTL"), arguments).await
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
