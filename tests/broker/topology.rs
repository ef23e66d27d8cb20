//! Queues and exchanges come and go.

use leveret::codec::FieldTable;
use leveret::codec::method::{basic, exchange, queue};

use crate::raw::{Raw, publish, start};

/// c123, c124
#[tokio::test]
async fn c124_an_empty_name_means_a_new_queue_or_the_last() {
    let (_broker, mut client) = start().await;
    client.send(1, queue::Bind { exchange: "amq.direct".into(), ..Default::default() }).await;
    client.says(["channel closed: 404 NOT_FOUND - no previously declared queue (50.20)"]).await;
    client.open_channel(1).await;
    client.send(1, queue::Declare { exclusive: true, ..Default::default() }).await;
    let declared = client.next().await;
    assert!(declared.starts_with("declare-ok amq.gen-") && declared.ends_with(" 0 0"), "{declared}");
    let given = client.given_name();
    // c125: a name of the broker's own can be asked for.
    client.counts(&given, 0, 0).await;
    // Without a queue and a key, the name is the key.
    client.bind("", "amq.direct", "").await;
    client.publish("amq.direct", &given, "by its name").await;
    client.get("", true).await;
    client.says([format!("get-ok 1 amq.direct/{given} by its name, 0 left")]).await;
    client.consume(1, "", "c").await;
    client.send(1, queue::Purge::default()).await;
    client.send(1, queue::Delete::default()).await;
    client.says(["purge-ok 0", "cancel c no-wait", "delete-ok 0"]).await;
}

#[tokio::test]
async fn c129_c130_an_exclusive_queue_belongs_to_its_connection() {
    let (broker, mut client) = start().await;
    let mut other = Raw::open(&broker).await;
    let exclusive = queue::Declare { queue: "mine".into(), exclusive: true, durable: true, ..Default::default() };
    client.send(1, exclusive.clone()).await;
    client.send(1, queue::Declare { durable: false, ..exclusive.clone() }).await;
    client.says(["declare-ok mine 0 0", "declare-ok mine 0 0"]).await;
    // The owner, too, says what it said.
    client.send(1, queue::Declare { exclusive: false, durable: false, ..exclusive.clone() }).await;
    let words = "channel closed: 405 RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine'";
    let refused = client.next().await;
    assert!(refused.starts_with(words), "{refused}");
    client.open_channel(1).await;
    let locked = "channel closed: 405 RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine' in vhost \
                  '/'. It could be originally declared on another connection or the exclusive property value does not \
                  match that of the original declaration.";
    let queue = || "mine".into();
    let requests: [(leveret::codec::Method, &str); 6] = [
        (exclusive.clone().into(), "50.10"),
        (queue::Declare { passive: true, ..exclusive.clone() }.into(), "50.10"),
        (queue::Bind { queue: queue(), exchange: "amq.direct".into(), ..Default::default() }.into(), "50.20"),
        (queue::Delete { queue: queue(), ..Default::default() }.into(), "50.40"),
        (basic::Consume { queue: queue(), ..Default::default() }.into(), "60.20"),
        (basic::Get { queue: queue(), ..Default::default() }.into(), "60.70"),
    ];
    for (request, ids) in requests {
        other.send(1, request).await;
        other.says([format!("{locked} ({ids})")]).await;
        other.open_channel(1).await;
    }
    // Also when it is the other who says exclusive.
    other.declare("shared").await;
    other.send(1, queue::Declare { queue: "shared".into(), ..exclusive.clone() }).await;
    other.says([format!("{} (50.10)", locked.replace("mine", "shared"))]).await;
    other.open_channel(1).await;
    client.close().await;
    other.send(1, exclusive).await;
    other.says(["declare-ok mine 0 0"]).await;
}

/// c130
#[tokio::test]
async fn c130_auto_delete_goes_with_the_last_consumer_or_binding() {
    let (_broker, mut client) = start().await;
    let declare = queue::Declare { queue: "q".into(), auto_delete: true, ..Default::default() };
    client.send(1, declare.clone()).await;
    client.says(["declare-ok q 0 0"]).await;
    let (exchange, kind) = ("x".into(), "fanout".into());
    client.send(1, exchange::Declare { exchange, kind, auto_delete: true, ..Default::default() }).await;
    client.says(["exchange.declare-ok"]).await;
    client.bind("q", "x", "").await;
    client.counts("q", 0, 0).await;
    client.open_channel(2).await;
    client.consume(1, "q", "a").await;
    client.consume(2, "q", "b").await;
    client.send(1, basic::Cancel { consumer_tag: "a".into(), no_wait: true }).await;
    client.counts("q", 0, 1).await;
    client.send(2, leveret::codec::method::channel::Close::default()).await;
    client.says(["2: channel.close-ok"]).await;
    client.send(1, exchange::Declare { exchange: "x".into(), passive: true, ..Default::default() }).await;
    client.says(["channel closed: 404 NOT_FOUND - no exchange 'x' in vhost '/' (40.10)"]).await;
    client.open_channel(1).await;
    client.send(1, queue::Declare { passive: true, ..declare }).await;
    client.says(["channel closed: 404 NOT_FOUND - no queue 'q' in vhost '/' (50.10)"]).await;
}

/// c131, c133
#[tokio::test]
async fn c131_deleting_what_is_not_there_succeeds() {
    let (_broker, mut client) = start().await;
    client.declare("q").await;
    let (queue, exchange) = ("q", "no");
    client.send(1, exchange::Delete { exchange: exchange.into(), ..Default::default() }).await;
    client.send(1, queue::Delete { queue: exchange.into(), ..Default::default() }).await;
    client.says(["exchange.delete-ok", "delete-ok 0"]).await;
    for (queue, exchange) in [(queue, exchange), ("no", "amq.direct"), (queue, "amq.direct")] {
        client.send(1, queue::Unbind { queue: queue.into(), exchange: exchange.into(), ..Default::default() }).await;
        client.says(["queue.unbind-ok"]).await;
    }
    let (destination, source) = ("no".into(), "amq.direct".into());
    client.send(1, exchange::Unbind { destination, source, ..Default::default() }).await;
    client.says(["exchange.unbind-ok"]).await;
}

#[tokio::test]
async fn deleting_with_conditions() {
    let (_broker, mut client) = start().await;
    client.declare("q").await;
    client.exchange("x", "direct").await;
    client.bind("q", "x", "q").await;
    client.publish_with(1, publish("x", "q"), &Default::default(), b"").await;
    let closed = |text: &str| format!("channel closed: 406 PRECONDITION_FAILED - {text}");
    let empty = queue::Delete { queue: "q".into(), if_empty: true, ..Default::default() };
    client.send(1, empty.clone()).await;
    client.says([closed("queue 'q' in vhost '/' not empty (50.40)")]).await;
    client.open_channel(1).await;
    client.send(1, exchange::Delete { exchange: "x".into(), if_unused: true, ..Default::default() }).await;
    client.says([closed("exchange 'x' in vhost '/' in use (40.20)")]).await;
    client.open_channel(1).await;
    client.send(1, queue::Purge { queue: "q".into(), ..Default::default() }).await;
    client.says(["purge-ok 1"]).await;
    client.consume(1, "q", "c").await;
    client.send(1, queue::Delete { queue: "q".into(), if_unused: true, ..Default::default() }).await;
    client.says([closed("queue 'q' in vhost '/' in use (50.40)")]).await;
    client.open_channel(1).await;
    client.send(1, queue::Delete { if_unused: true, ..empty }).await;
    client.says(["delete-ok 0"]).await;
    client.send(1, exchange::Delete { exchange: "x".into(), if_unused: true, ..Default::default() }).await;
    client.says(["exchange.delete-ok"]).await;
}

/// c74, c75, c126
#[tokio::test]
async fn c126_declaring_again_with_other_properties() {
    let (_broker, mut client) = start().await;
    let with =
        |arguments: FieldTable| queue::Declare { queue: "q".into(), durable: true, arguments, ..Default::default() };
    let ttl = |ttl: i32| FieldTable::new().with("x-message-ttl", ttl).with("mine", ttl);
    client.send(1, with(ttl(60_000))).await;
    client.says(["declare-ok q 0 0"]).await;
    client.send(1, with(FieldTable::new().with("x-message-ttl", 60_000i64))).await;
    client.says(["declare-ok q 0 0"]).await;
    let cases = [
        (queue::Declare { durable: false, ..with(ttl(60_000)) }, "durable", "'false' but current is 'true'"),
        (queue::Declare { auto_delete: true, ..with(ttl(60_000)) }, "auto_delete", "'true' but current is 'false'"),
        (with(ttl(1)), "x-message-ttl", "'1' but current is '60000'"),
        (with(FieldTable::new()), "x-message-ttl", "none but current is the value '60000' of type 'signedint'"),
        (
            with(ttl(60_000).with("x-dead-letter-exchange", "dlx")),
            "x-dead-letter-exchange",
            "the value 'dlx' of type 'longstr' but current is none",
        ),
    ];
    for (declare, argument, received) in cases {
        client.send(1, declare).await;
        let text = format!("inequivalent arg '{argument}' for queue 'q' in vhost '/': received {received} (50.10)");
        client.says([format!("channel closed: 406 PRECONDITION_FAILED - {text}")]).await;
        client.open_channel(1).await;
    }
    let string =
        queue::Declare { queue: "p".into(), arguments: FieldTable::new().with("x-message-ttl", "1"), ..with(ttl(1)) };
    client.send(1, string).await;
    let text = "invalid arg 'x-message-ttl' for queue 'p' in vhost '/': \"expected integer, got longstr\" (50.10)";
    client.says([format!("channel closed: 406 PRECONDITION_FAILED - {text}")]).await;
    client.open_channel(1).await;
    let exchange =
        exchange::Declare { exchange: "amq.topic".into(), kind: "topic".into(), durable: true, ..Default::default() };
    client.send(1, exchange.clone()).await;
    client.says(["exchange.declare-ok"]).await;
    for (declare, argument, received) in [
        (exchange::Declare { kind: "fanout".into(), ..exchange.clone() }, "type", "'fanout' but current is 'topic'"),
        (exchange::Declare { durable: false, ..exchange.clone() }, "durable", "'false' but current is 'true'"),
    ] {
        client.send(1, declare).await;
        let resource = "exchange 'amq.topic' in vhost '/'";
        let text = format!("inequivalent arg '{argument}' for {resource}: received {received} (40.10)");
        client.says([format!("channel closed: 406 PRECONDITION_FAILED - {text}")]).await;
        client.open_channel(1).await;
    }
}

/// c127, c128
#[tokio::test]
async fn c128_no_wait_is_answered_only_when_it_fails() {
    let (_broker, mut client) = start().await;
    let no_wait = true;
    client.send(1, queue::Declare { queue: "q".into(), no_wait, ..Default::default() }).await;
    client
        .send(1, exchange::Declare { exchange: "x".into(), kind: "topic".into(), no_wait, ..Default::default() })
        .await;
    client.send(1, queue::Bind { queue: "q".into(), exchange: "x".into(), no_wait, ..Default::default() }).await;
    client.send(1, queue::Purge { queue: "q".into(), no_wait, ..Default::default() }).await;
    client.send(1, queue::Delete { queue: "q".into(), no_wait, ..Default::default() }).await;
    client.send(1, exchange::Delete { exchange: "x".into(), no_wait, ..Default::default() }).await;
    client.is_quiet().await;
    client.send(1, queue::Declare { queue: "q".into(), passive: true, no_wait, ..Default::default() }).await;
    client.says(["channel closed: 404 NOT_FOUND - no queue 'q' in vhost '/' (50.10)"]).await;
}
