//! Consumers: prefetch, turns, cancelling, exclusiveness.

use leveret::codec::FieldTable;
use leveret::codec::method::{basic, channel, queue};

use crate::raw::{Raw, start};

/// c113, c114: each consumer's own limit, for those started after it was set (c115).
#[tokio::test]
async fn c114_prefetch_of_a_consumer() {
    let (_broker, mut client) = start().await;
    client.declare("q").await;
    client.qos(1, 2, false).await;
    client.consume(1, "q", "two").await;
    client.qos(1, 1, false).await;
    client.consume(1, "q", "one").await;
    for body in ["a", "b", "c", "d", "e"] {
        client.publish("", "q", body).await;
    }
    client.says(["deliver two 1 /q a", "deliver one 2 /q b", "deliver two 3 /q c"]).await;
    client.counts("q", 2, 2).await;
    client.ack(1, 2, false).await;
    client.says(["deliver one 4 /q d"]).await;
    client.nack(1, 1, false, false).await;
    client.says(["deliver two 5 /q e"]).await;
    client.is_quiet().await;
}

/// c114: the channel's limit, over all consumers and at once.
#[tokio::test]
async fn c114_prefetch_of_a_channel() {
    let (_broker, mut client) = start().await;
    for queue in ["p", "q"] {
        client.declare(queue).await;
        client.publish("", queue, "a").await;
        client.publish("", queue, "b").await;
    }
    client.qos(1, 3, true).await;
    client.consume(1, "p", "p").await;
    client.says(["deliver p 1 /p a", "deliver p 2 /p b"]).await;
    client.consume(1, "q", "q").await;
    client.says(["deliver q 3 /q a"]).await;
    client.ack(1, 1, false).await;
    client.says(["deliver q 4 /q b"]).await;
    client.publish("", "p", "c").await;
    client.is_quiet().await;
    client.send(1, basic::Qos { prefetch_count: 4, global: true, ..Default::default() }).await;
    client.says(["basic.qos-ok", "deliver p 5 /p c"]).await;
    client.get("q", false).await;
    client.says(["basic.get-empty"]).await;
}

#[tokio::test]
async fn consumers_take_turns_across_connections() {
    let (broker, mut client) = start().await;
    let mut other = Raw::open(&broker).await;
    client.declare("q").await;
    client.consume(1, "q", "a").await;
    other.consume(1, "q", "b").await;
    client.consume(1, "q", "c").await;
    for body in ["1", "2", "3", "4", "5"] {
        client.publish("", "q", body).await;
    }
    client.says(["deliver a 1 /q 1", "deliver c 2 /q 3", "deliver a 3 /q 4"]).await;
    other.says(["deliver b 1 /q 2", "deliver b 2 /q 5"]).await;
}

#[tokio::test]
async fn a_consumer_of_higher_priority_comes_first() {
    let (_broker, mut client) = start().await;
    client.declare("q").await;
    client.qos(1, 1, false).await;
    client.consume(1, "q", "low").await;
    let arguments = FieldTable::new().with("x-priority", 10i32);
    let consume = basic::Consume { queue: "q".into(), consumer_tag: "high".into(), arguments, ..Default::default() };
    client.send(1, consume).await;
    client.says(["consume-ok high"]).await;
    client.publish("", "q", "1").await;
    client.publish("", "q", "2").await;
    client.says(["deliver high 1 /q 1", "deliver low 2 /q 2"]).await;
}

/// c107: what was delivered before stays to be settled.
#[tokio::test]
async fn a_cancelled_consumer_gets_nothing_more() {
    let (_broker, mut client) = start().await;
    client.declare("q").await;
    client.consume(1, "q", "c").await;
    client.publish("", "q", "1").await;
    client.says(["deliver c 1 /q 1"]).await;
    for _ in 0..2 {
        client.send(1, basic::Cancel { consumer_tag: "c".into(), no_wait: false }).await;
        client.says(["cancel-ok c"]).await;
    }
    client.publish("", "q", "2").await;
    client.counts("q", 1, 0).await;
    client.ack(1, 1, false).await;
    client.consume(1, "q", "c").await;
    client.says(["deliver c 2 /q 2"]).await;
}

#[tokio::test]
async fn c108_a_deleted_queue_cancels_its_consumers() {
    let (broker, mut client) = start().await;
    let mut other = Raw::open(&broker).await;
    client.declare("q").await;
    client.publish("", "q", "1").await;
    client.publish("", "q", "2").await;
    other.qos(1, 1, false).await;
    other.consume(1, "q", "c").await;
    other.says(["deliver c 1 /q 1"]).await;
    client.send(1, queue::Delete { queue: "q".into(), ..Default::default() }).await;
    client.says(["delete-ok 1"]).await;
    other.says(["cancel c no-wait"]).await;
    // What it holds can still be settled, and comes back nowhere, not even to a new queue of the old name.
    client.declare("q").await;
    other.nack(1, 1, false, true).await;
    other.is_quiet().await;
    client.counts("q", 0, 0).await;
    // The tag is free.
    other.consume(1, "q", "c").await;
}

/// c105
#[tokio::test]
async fn c105_tags_are_given_or_unique() {
    let (_broker, mut client) = start().await;
    client.declare("q").await;
    client.send(1, basic::Consume { queue: "q".into(), ..Default::default() }).await;
    let given = client.next().await;
    assert!(given.starts_with("consume-ok amq.ctag-"), "{given}");
    client.open_channel(2).await;
    client.consume(1, "q", "c").await;
    client.consume(2, "q", "c").await;
    let again = basic::Consume { queue: "q".into(), consumer_tag: "c".into(), ..Default::default() };
    client.send(2, again).await;
    client.says(["connection closed: 530 NOT_ALLOWED - attempt to reuse consumer tag 'c' (60.20)", "end"]).await;
}

#[tokio::test]
async fn an_exclusive_consumer_is_alone() {
    let (_broker, mut client) = start().await;
    client.declare("q").await;
    let exclusive = basic::Consume { queue: "q".into(), exclusive: true, no_wait: true, ..Default::default() };
    client.open_channel(2).await;
    client.send(2, exclusive.clone()).await;
    client.is_quiet().await;
    client.send(1, basic::Consume { queue: "q".into(), ..Default::default() }).await;
    let refused = "channel closed: 403 ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use (60.20)";
    client.says([refused]).await;
    client.open_channel(1).await;
    client.declare("p").await;
    client.consume(1, "p", "first").await;
    client.send(1, basic::Consume { queue: "p".into(), ..exclusive }).await;
    client.says([refused.replace('q', "p").replace("pueue", "queue")]).await;
}

/// c106: without a wait the first delivery comes unannounced.
#[tokio::test]
async fn c106_no_wait_and_no_ack() {
    let (_broker, mut client) = start().await;
    client.declare("q").await;
    client.qos(1, 1, false).await;
    client.publish("", "q", "1").await;
    client.publish("", "q", "2").await;
    let (queue, consumer_tag) = ("q".into(), "c".into());
    client.send(1, basic::Consume { queue, consumer_tag, no_ack: true, no_wait: true, ..Default::default() }).await;
    client.says(["deliver c 1 /q 1", "deliver c 2 /q 2"]).await;
}

/// One after the other, in the order in which they came.
#[tokio::test]
async fn a_single_active_consumer() {
    let (_broker, mut client) = start().await;
    let arguments = FieldTable::new().with("x-single-active-consumer", true);
    client.send(1, queue::Declare { queue: "q".into(), arguments, ..Default::default() }).await;
    client.says(["declare-ok q 0 0"]).await;
    client.qos(1, 1, false).await;
    client.consume(1, "q", "a").await;
    client.consume(1, "q", "b").await;
    for body in ["1", "2", "3"] {
        client.publish("", "q", body).await;
    }
    client.says(["deliver a 1 /q 1"]).await;
    client.ack(1, 1, false).await;
    client.says(["deliver a 2 /q 2"]).await;
    client.send(1, basic::Cancel { consumer_tag: "a".into(), no_wait: false }).await;
    client.says(["cancel-ok a", "deliver b 3 /q 3"]).await;
    // So it is when a channel ends, and what it had comes first.
    client.open_channel(2).await;
    client.consume(2, "q", "c").await;
    client.send(1, channel::Close::default()).await;
    client.says(["2: deliver c 1 again /q 2", "2: deliver c 2 again /q 3", "channel.close-ok"]).await;
    // Nobody is exclusive there, and not for that there are others.
    client.send(2, basic::Cancel { consumer_tag: "c".into(), no_wait: true }).await;
    client.send(2, basic::Consume { queue: "q".into(), exclusive: true, ..Default::default() }).await;
    client.says(["2: channel closed: 403 ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use (60.20)"]).await;
}
