//! Messages that queues push out, refuse or pass on for each other, by the client, as programs declare it; exact frames and times are in
//! `keeping.rs`.
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

/// The next message of a queue and its properties, once it is there.
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

/// Each message that dies in one of these goes to all others, 100 million times before it ends: the broker answers all the same.
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
