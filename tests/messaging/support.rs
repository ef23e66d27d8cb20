//! Servers to test against, waits that end, and what many tests do.

use std::net::SocketAddr;

use leveret::amqp::{Channel, Queue};
use leveret::broker::Broker;
use leveret::messaging::{
    Client, ClientBuilder, Delivery, Event, EventStream, Receiver, Sender, SenderBuilder, Source, Target,
};

use crate::own::Kind;
pub(crate) use crate::own::Own;
use crate::running::environment;
pub(crate) use crate::running::{PATIENCE, unique, until, within};
use crate::wire::Tap;

// ------------------------------------------------------------------------------------------------------------- servers

/// The broker in the box, one for each test, or the RabbitMQ that all tests share.
#[derive(Debug)]
pub(crate) struct Server {
    url: String,
    pub(crate) broker: Option<Broker>,
}

impl Server {
    pub(crate) async fn rabbitmq() -> Self {
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

impl Own {
    /// The server shuts down in order.
    pub(crate) async fn stop(&self) {
        match &self.kind {
            Kind::Broker(broker) => {
                let broker = broker.lock().unwrap().take();
                broker.unwrap().shutdown().await;
            }
            Kind::Started(started) => drop(started.then("stop").await),
        }
    }

    /// It is there again, where it was. The broker in the box has forgotten everything.
    pub(crate) async fn start(&self) {
        match &self.kind {
            Kind::Broker(broker) => {
                let (_, address) = self.url.rsplit_once('@').unwrap();
                let (address, _) = address.split_once('/').unwrap();
                let again = broker_at(address.parse().unwrap(), Broker::builder).await;
                *broker.lock().unwrap() = Some(again);
            }
            Kind::Started(started) => drop(started.then("start").await),
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

    /// The numbers in it, when all receivers are gone; it is gone afterwards.
    pub(crate) async fn delete(self) -> Vec<u32> {
        let client = within("a connection", Client::connect(&self.url)).await.unwrap();
        let channel = channel(&client).await;
        // Nobody has any of them then, and what was not settled is back.
        until("the receivers to be gone", async || look_at(&channel, &self.name).await.consumer_count() == 0).await;
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
    let target = Target::queue(queue);
    let report = sender.send_batch(numbers.map(|number| (&target, number.to_string()))).await;
    assert!(report.is_ok(), "{report:?}");
}

/// A sender that has sent one message to this queue, and hears nothing of the next ones before `tap.stall(false)`.
pub(crate) async fn stalled(
    server: &Server,
    configure: impl FnOnce(SenderBuilder) -> SenderBuilder,
) -> (Client, Tap, Sender, String) {
    let (client, tap) = server.tapped().await;
    let sender = configure(client.sender()).build().unwrap();
    let queue = exclusive_queue(&client).await;
    within("a receipt", sender.send(Target::queue(&queue), "warm")).await.unwrap();
    tap.stall(true);
    (client, tap, sender, queue)
}

/// A receiver of a queue.
pub(crate) async fn receiver(client: &Client, queue: &str) -> Receiver {
    within("a receiver", client.receiver(Source::queue(queue)).build()).await.unwrap()
}

/// Waits until all that is in a queue has been delivered to this client, its only consumer, whether anybody has looked at it yet or not: the
/// server has none left, and its answer comes behind them.
pub(crate) async fn delivered(client: &Client, queue: &str) {
    let look = channel(client).await;
    until("the deliveries", async || look_at(&look, queue).await.message_count() == 0).await;
    within("an answer", client.ping(PATIENCE)).await.unwrap();
}

/// Waits until the client has noticed that its connection is lost, which has been cut.
pub(crate) async fn lost(events: &mut EventStream) {
    while !matches!(within("the loss", events.next()).await.expect("the client is not closed"), Event::Lost(_)) {}
}

/// The next delivery, which has to come.
pub(crate) async fn next(receiver: &mut Receiver) -> Delivery {
    within("a delivery", receiver.recv()).await.expect("the receiver goes on").unwrap()
}

/// A message's body as the number that `fill` put there.
pub(crate) fn number(body: &[u8]) -> u32 {
    std::str::from_utf8(body).unwrap().parse().unwrap()
}
