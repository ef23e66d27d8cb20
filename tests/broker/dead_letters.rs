//! What a queue does not keep: messages that expire, are pushed out or refused, and where they go instead. By the client, as programs
//! declare it.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly, here too")]

use std::time::Duration;

use leveret::amqp::{Channel, Confirmation, Connection, FieldTable, FieldValue, Properties};
use leveret::broker::Broker;

use crate::raw::start;

async fn open(broker: &Broker) -> (Connection, Channel) {
    let connection = Connection::open(&broker.url()).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    channel.confirm_select().await.unwrap();
    (connection, channel)
}

async fn publish(channel: &Channel, queue: &str, body: &str, properties: &Properties) -> Confirmation {
    channel.basic_publish("", queue, body).properties(properties).mandatory(true).await.unwrap().await.unwrap()
}

async fn put(channel: &Channel, queue: &str, body: &str, properties: &Properties) {
    assert_eq!(publish(channel, queue, body, properties).await, Confirmation::Ack(None));
}

/// The next message of a queue, or what `x-death` says, once it is there.
async fn got(channel: &Channel, queue: &str) -> (String, Properties) {
    let wait = async {
        loop {
            if let Some(got) = channel.basic_get(queue).no_ack().await.unwrap() {
                return (String::from_utf8_lossy(got.body()).into_owned(), got.properties().unwrap());
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("a message")
}

async fn count(channel: &Channel, queue: &str) -> u32 {
    channel.queue_declare(queue).passive(true).await.unwrap().message_count()
}

/// Queue, reason and count of each death.
fn deaths(properties: &Properties) -> Vec<(String, String, i64)> {
    let headers = properties.headers.as_ref().unwrap();
    let deaths = headers.get("x-death").and_then(FieldValue::as_array).unwrap().iter();
    let text = |death: &FieldTable, name| death.get(name).and_then(FieldValue::as_str).unwrap().to_owned();
    let count = |death: &FieldTable| death.get("count").and_then(FieldValue::as_i64).unwrap();
    let death = |death: &FieldTable| (text(death, "queue"), text(death, "reason"), count(death));
    deaths.map(|value| death(value.as_table().unwrap())).collect()
}

fn death(queue: &str, reason: &str, count: i64) -> (String, String, i64) {
    (queue.into(), reason.into(), count)
}

/// What is refused waits in a second queue, comes back when its time there is over, and says how often.
#[tokio::test]
async fn a_retry_queue() {
    let broker = Broker::start().await.unwrap();
    let (_connection, channel) = open(&broker).await;
    channel.exchange_declare("dlx", "direct").await.unwrap();
    let work = channel.queue_declare("work").argument("x-dead-letter-exchange", "dlx");
    work.argument("x-dead-letter-routing-key", "again").await.unwrap();
    let wait = channel.queue_declare("wait").argument("x-message-ttl", 1).argument("x-dead-letter-exchange", "");
    wait.argument("x-dead-letter-routing-key", "work").await.unwrap();
    channel.queue_bind("wait", "dlx", "again").await.unwrap();
    let properties = Properties::new().message_id("7").header("mine", 1).persistent();
    put(&channel, "work", "poison", &properties).await;

    let mut work = channel.basic_consume("work").await.unwrap();
    for attempt in 0..3 {
        let next = tokio::time::timeout(Duration::from_secs(20), work.next()).await.expect("an attempt");
        let delivery = next.unwrap().unwrap();
        let properties = delivery.properties().unwrap();
        assert_eq!((delivery.body(), properties.message_id.clone()), (&b"poison"[..], Some("7".into())));
        let headers = properties.headers.clone().unwrap();
        assert_eq!(headers.get("mine"), Some(&1.into()));
        if attempt > 0 {
            assert_eq!(deaths(&properties), [death("wait", "expired", attempt), death("work", "rejected", attempt)]);
            assert_eq!(headers.get("x-first-death-queue"), Some(&"work".into()));
            assert_eq!(headers.get("x-first-death-reason"), Some(&"rejected".into()));
        }
        delivery.reject(false).unwrap();
    }
}

/// It leaves when it is the first of its queue.
#[tokio::test]
async fn what_has_expired_is_gone_or_goes_elsewhere() {
    let broker = Broker::start().await.unwrap();
    let (_connection, channel) = open(&broker).await;
    channel.queue_declare("dead").await.unwrap();
    for queue in ["q", "other"] {
        let declare = channel.queue_declare(queue).argument("x-dead-letter-exchange", "");
        declare.argument("x-dead-letter-routing-key", "dead").await.unwrap();
    }
    put(&channel, "q", "stays", &Properties::new()).await;
    put(&channel, "q", "behind it", &Properties::new().expiration("1")).await;
    put(&channel, "other", "first", &Properties::new().expiration("2")).await;
    assert_eq!(got(&channel, "dead").await.0, "first");
    assert_eq!((count(&channel, "q").await, count(&channel, "dead").await), (2, 0), "it is not its turn");
    assert_eq!(got(&channel, "q").await.0, "stays");
    let (body, properties) = got(&channel, "dead").await;
    assert_eq!((body.as_str(), deaths(&properties)), ("behind it", vec![death("q", "expired", 1)]));
    assert_eq!(properties.expiration, None, "it does not expire again");
}

/// Messages that live for no time at all are for consumers that wait, and for nobody else.
#[tokio::test]
async fn what_lives_for_no_time() {
    let broker = Broker::start().await.unwrap();
    let (_connection, channel) = open(&broker).await;
    channel.queue_declare("q").argument("x-message-ttl", 0).await.unwrap();
    put(&channel, "q", "for nobody", &Properties::new()).await;
    assert_eq!(count(&channel, "q").await, 0);
    let mut taker = channel.basic_consume("q").await.unwrap();
    put(&channel, "q", "for somebody", &Properties::new()).await;
    assert_eq!(taker.next().await.unwrap().unwrap().body(), b"for somebody");
}

/// Somebody who only waits hears of it, though the one who published is gone.
#[tokio::test]
async fn a_message_outlives_its_publisher() {
    let broker = Broker::start().await.unwrap();
    let (publisher, channel) = open(&broker).await;
    channel.queue_declare("dead").await.unwrap();
    let queue = channel.queue_declare("q").argument("x-message-ttl", 50).argument("x-dead-letter-exchange", "");
    queue.argument("x-dead-letter-routing-key", "dead").await.unwrap();
    let (_other, other) = open(&broker).await;
    let mut dead = other.basic_consume("dead").await.unwrap();
    put(&channel, "q", "x", &Properties::new()).await;
    publisher.close().await.unwrap();
    let next = tokio::time::timeout(Duration::from_secs(20), dead.next()).await.expect("a message");
    assert_eq!(next.unwrap().unwrap().body(), b"x");
}

#[tokio::test]
async fn what_is_too_much_is_pushed_out_or_refused() {
    let broker = Broker::start().await.unwrap();
    let (_connection, channel) = open(&broker).await;
    channel.exchange_declare("dlx", "fanout").await.unwrap();
    channel.queue_declare("dead").await.unwrap();
    channel.queue_bind("dead", "dlx", "").await.unwrap();
    let short = channel.queue_declare("short").argument("x-max-length", 2);
    short.argument("x-dead-letter-exchange", "dlx").await.unwrap();
    let full = channel.queue_declare("full").argument("x-max-length", 2);
    full.argument("x-overflow", "reject-publish").await.unwrap();
    for body in ["1", "2", "3"] {
        put(&channel, "short", body, &Properties::new()).await;
    }
    let (body, properties) = got(&channel, "dead").await;
    assert_eq!((body.as_str(), deaths(&properties)), ("1", vec![death("short", "maxlen", 1)]));
    assert_eq!((count(&channel, "short").await, count(&channel, "dead").await), (2, 0));

    for body in ["1", "2"] {
        put(&channel, "full", body, &Properties::new()).await;
    }
    assert_eq!(publish(&channel, "full", "3", &Properties::new()).await, Confirmation::Nack(None));
    got(&channel, "full").await;
    put(&channel, "full", "4", &Properties::new()).await;
}

/// Two queues that send each other what expires: it is dropped when it comes round.
#[tokio::test]
async fn what_goes_round_in_circles_ends() {
    let broker = Broker::start().await.unwrap();
    let (_connection, channel) = open(&broker).await;
    for (queue, other) in [("a", "b"), ("b", "a")] {
        let declare = channel.queue_declare(queue).argument("x-message-ttl", 0).argument("x-dead-letter-exchange", "");
        declare.argument("x-dead-letter-routing-key", other).await.unwrap();
    }
    put(&channel, "a", "round", &Properties::new()).await;
    assert_eq!((count(&channel, "a").await, count(&channel, "b").await), (0, 0));
}

/// Confirms keep their order, and those that end alike are joined.
#[tokio::test]
async fn publishes_are_nacked_on_demand() {
    let (broker, mut client) = start().await;
    client.declare("q").await;
    client.send(1, leveret::codec::method::confirm::Select { no_wait: false }).await;
    client.says(["confirm.select-ok"]).await;
    broker.hold_confirms(true);
    for (nack, there) in [(false, 1), (false, 2), (true, 2), (false, 3)] {
        broker.nack_publishes(nack);
        client.publish("", "q", "x").await;
        // What was published before is there by then, or is not.
        client.counts("q", there, 0).await;
    }
    broker.hold_confirms(false);
    client.says(["ack 2 multiple", "nack 3", "ack 4"]).await;
}

/// Each message that dies in one of these goes to all others: there is no end to that, and the broker answers all the same.
#[tokio::test]
async fn what_breeds_does_not_take_the_broker_with_it() {
    let broker = Broker::start().await.unwrap();
    let (_connection, channel) = open(&broker).await;
    channel.exchange_declare("dlx", "fanout").await.unwrap();
    for queue in 0..12 {
        let name = queue.to_string();
        let declare = channel.queue_declare(&name).argument("x-message-ttl", 0);
        declare.argument("x-dead-letter-exchange", "dlx").await.unwrap();
        channel.queue_bind(&name, "dlx", "").await.unwrap();
    }
    put(&channel, "0", "breeds", &Properties::new()).await;
    let (_other, other) = open(&broker).await;
    for _ in 0..10 {
        count(&other, "0").await;
    }
    broker.shutdown().await;
}
