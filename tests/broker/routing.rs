//! Which queues a message reaches, through every type of exchange.

use leveret::codec::method::{exchange, queue};
use leveret::codec::{FieldTable, FieldValue, Properties};

use crate::raw::{Raw, mandatory, publish, start};

/// How many messages each of these queues has.
async fn counts<const N: usize>(client: &mut Raw, expected: [(&str, u32); N]) {
    for (queue, messages) in expected {
        client.counts(queue, messages, 0).await;
    }
}

#[tokio::test]
async fn the_default_exchange_knows_every_queue_by_name() {
    let (_broker, mut client) = start().await;
    client.declare("q").await;
    client.publish("", "q", "hello").await;
    client.publish("", "nobody", "lost").await;
    client.get("q", false).await;
    client.says(["get-ok 1 /q hello, 0 left"]).await;
    client.get("q", false).await;
    client.says(["basic.get-empty"]).await;
}

#[tokio::test]
async fn direct_fanout_and_topic() {
    let (_broker, mut client) = start().await;
    for queue in ["a", "b"] {
        client.declare(queue).await;
    }
    client.exchange("d", "direct").await;
    client.bind("a", "d", "one").await;
    client.bind("b", "d", "two").await;
    client.publish("d", "one", "1").await;
    client.publish("d", "three", "3").await;
    counts(&mut client, [("a", 1), ("b", 0)]).await;

    client.bind("a", "amq.fanout", "whatever").await;
    client.bind("b", "amq.fanout", "").await;
    client.publish("amq.fanout", "x", "2").await;
    counts(&mut client, [("a", 2), ("b", 1)]).await;

    client.exchange("t", "topic").await;
    client.bind("a", "t", "*.orange.*").await;
    client.bind("b", "t", "lazy.#").await;
    for key in ["quick.orange.rabbit", "lazy.orange.male.rabbit", "lazy", "orange", "lazy.orange.fox"] {
        client.publish("t", key, key).await;
    }
    counts(&mut client, [("a", 4), ("b", 4)]).await;
}

#[tokio::test]
async fn headers() {
    let (_broker, mut client) = start().await;
    for queue in ["all", "any"] {
        client.declare(queue).await;
        let arguments = FieldTable::new().with("x-match", queue).with("k", 1i32).with("v", FieldValue::Void);
        client.bind_with(queue, "amq.headers", "", arguments).await;
    }
    for properties in [
        Properties::new().header("k", 1i64).header("v", "anything"),
        Properties::new().header("k", 1i32),
        Properties::new().header("k", 2i32),
        Properties::new(),
    ] {
        client.publish_with(1, publish("amq.headers", ""), &properties, b"").await;
    }
    counts(&mut client, [("all", 1), ("any", 2)]).await;
}

/// c132, c134
#[tokio::test]
async fn c134_exchanges_bound_to_exchanges() {
    let (_broker, mut client) = start().await;
    client.declare("q").await;
    client.exchange("source", "topic").await;
    client.exchange("middle", "fanout").await;
    client.bind("q", "middle", "").await;
    client.bind("q", "source", "#").await;
    let (destination, source) = ("middle".into(), "source".into());
    let bind = exchange::Bind { destination, source, routing_key: "a.*".into(), ..Default::default() };
    client.send(1, bind.clone()).await;
    client.says(["exchange.bind-ok"]).await;
    client.publish("source", "a.b", "by two ways, once").await;
    counts(&mut client, [("q", 1)]).await;
    let unbind =
        queue::Unbind { queue: "q".into(), exchange: "source".into(), routing_key: "#".into(), ..Default::default() };
    client.send(1, unbind).await;
    client.says(["queue.unbind-ok"]).await;
    client.publish("source", "a.b", "by one way").await;
    counts(&mut client, [("q", 2)]).await;
    let exchange::Bind { destination, source, routing_key, .. } = bind;
    client.send(1, exchange::Unbind { destination, source, routing_key, ..Default::default() }).await;
    client.says(["exchange.unbind-ok"]).await;
    client.publish("source", "a.b", "lost").await;
    counts(&mut client, [("q", 2)]).await;
}

#[tokio::test]
async fn what_passes_through_is_not_changed() {
    let (_broker, mut client) = start().await;
    client.declare("q").await;
    let body: String = "0123456789".repeat(50_000);
    for body in ["", "x", &body] {
        client.publish("", "q", body).await;
        client.get("q", true).await;
    }
    client.says(["get-ok 1 /q , 0 left", "get-ok 2 /q x, 0 left", "get-ok 3 /q 500000 octets, 0 left"]).await;
}

/// Sender-selected distribution: further routing keys in the headers `CC` and `BCC`.
#[tokio::test]
async fn copies_go_to_whom_the_publisher_names() {
    let (_broker, mut client) = start().await;
    for queue in ["q", "copy", "blind"] {
        client.declare(queue).await;
        client.bind(queue, "amq.topic", queue).await;
    }
    let keys = |keys: &[&str]| FieldValue::Array(keys.iter().map(|key| (*key).into()).collect());
    let properties = Properties::new().header("CC", keys(&["copy", "q", "nowhere"])).header("BCC", keys(&["blind"]));
    for exchange in ["", "amq.topic"] {
        client.publish_with(1, publish(exchange, "q"), &properties, b"x").await;
        for queue in ["q", "copy", "blind"] {
            let (got, _) = client.fetch(queue).await.unwrap();
            let headers = got.headers.unwrap();
            assert_eq!((headers.get("CC").is_some(), headers.get("BCC").is_some()), (true, false), "{queue}");
            assert!(client.fetch(queue).await.is_none(), "once, and not for each key");
        }
    }
    // One of them is a way.
    client.publish_with(1, mandatory("amq.topic", "nowhere"), &properties, b"x").await;
    counts(&mut client, [("q", 1), ("copy", 1), ("blind", 1)]).await;
    client.publish_with(1, publish("", "q"), &Properties::new().header("BCC", "copy"), b"x").await;
    let text = "PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,\"BCC\",longstr}";
    client.says([format!("channel closed: 406 {text} (60.40)")]).await;
}
