//! How long and how many messages queues keep, and where those go that they give up.

#![expect(clippy::unwrap_used, reason = "tests fail loudly, and so do their helpers")]

use std::time::Duration;

use leveret::codec::method::{basic, confirm, queue};
use leveret::codec::{FieldTable, FieldValue, Properties};
use tokio::time::Instant;

use crate::raw::{Raw, mandatory, publish, start};

async fn declare(client: &mut Raw, queue: &str, arguments: FieldTable) {
    client.send(1, queue::Declare { queue: queue.into(), arguments, ..Default::default() }).await;
    client.says([format!("declare-ok {queue} 0 0")]).await;
}

/// Arguments of a queue whose dead letters go to a queue of this name.
fn to(dead: &str) -> FieldTable {
    FieldTable::new().with("x-dead-letter-exchange", "").with("x-dead-letter-routing-key", dead)
}

async fn send(client: &mut Raw, queue: &str, properties: &Properties, bodies: &[&str]) {
    for body in bodies {
        client.publish_with(1, publish("", queue), properties, body.as_bytes()).await;
    }
}

/// What the queue has, in order; it is empty afterwards.
async fn take(client: &mut Raw, queue: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    while let Some((_, body)) = client.fetch(queue).await {
        bodies.push(String::from_utf8(body.to_vec()).unwrap());
    }
    bodies
}

fn deaths(properties: &Properties) -> Vec<String> {
    let headers = properties.headers.clone().unwrap_or_default();
    let deaths = headers.get("x-death").and_then(FieldValue::as_array).unwrap_or_default().to_vec();
    let describe = |death: FieldValue| {
        let death = death.as_table().cloned().unwrap_or_default();
        let text = |name| death.get(name).and_then(FieldValue::as_str).unwrap_or("-").to_owned();
        assert!(matches!(death.get("time"), Some(FieldValue::Timestamp(1_600_000_000..))), "{death:?}");
        let count = death.get("count").and_then(FieldValue::as_i64).unwrap_or(0);
        let keys = death.get("routing-keys").and_then(FieldValue::as_array).unwrap_or_default();
        let keys: Vec<_> = keys.iter().filter_map(FieldValue::as_str).collect();
        let (exchange, key, was) = (text("exchange"), keys.join(","), text("original-expiration"));
        format!("{count} {} {} {exchange}/{key} {was}", text("queue"), text("reason"))
    };
    deaths.into_iter().map(describe).collect()
}

async fn confirming(client: &mut Raw) {
    client.send(1, confirm::Select::default()).await;
    client.says(["confirm.select-ok"]).await;
}

#[tokio::test]
async fn a_full_queue_gives_up_its_oldest() {
    let (_broker, mut client) = start().await;
    client.declare("dead").await;
    declare(&mut client, "q", to("dead").with("x-max-length", 2)).await;
    send(&mut client, "q", &Properties::new(), &["a", "b", "c", "d", "e"]).await;
    assert_eq!(take(&mut client, "dead").await, ["a", "b", "c"]);
    // What is delivered does not count, and what comes back does.
    client.qos(1, 2, false).await;
    client.consume(1, "q", "c").await;
    client.says(["deliver c 4 /q d", "deliver c 5 /q e"]).await;
    send(&mut client, "q", &Properties::new(), &["f", "g"]).await;
    client.counts("q", 2, 1).await;
    client.send(1, basic::Cancel { consumer_tag: "c".into(), no_wait: false }).await;
    client.says(["cancel-ok c"]).await;
    client.nack(1, 5, true, true).await;
    assert_eq!(take(&mut client, "dead").await, ["d", "e"]);
    assert_eq!(take(&mut client, "q").await, ["f", "g"]);
    // A dead letter that is refused is lost.
    declare(&mut client, "full", FieldTable::new().with("x-max-length", 1).with("x-overflow", "reject-publish")).await;
    declare(&mut client, "first", to("full").with("x-max-length", 1)).await;
    send(&mut client, "first", &Properties::new(), &["h", "i", "j"]).await;
    assert_eq!(
        (take(&mut client, "first").await, take(&mut client, "full").await),
        (vec!["j".into()], vec!["h".into()])
    );
    // By octets: the last one alone is too large.
    declare(&mut client, "octets", FieldTable::new().with("x-max-length-bytes", 8)).await;
    send(&mut client, "octets", &Properties::new(), &["aaaa", "bbbb", "cccc"]).await;
    client.counts("octets", 2, 0).await;
    assert_eq!(take(&mut client, "octets").await, ["bbbb", "cccc"]);
    send(&mut client, "octets", &Properties::new(), &["aaaa", "123456789"]).await;
    assert!(take(&mut client, "octets").await.is_empty());
    send(&mut client, "octets", &Properties::new(), &["12345678"]).await;
    client.send(1, queue::Purge { queue: "octets".into(), ..Default::default() }).await;
    client.says(["purge-ok 1"]).await;
    send(&mut client, "octets", &Properties::new(), &["12345678"]).await;
    assert_eq!(take(&mut client, "octets").await, ["12345678"]);
}

/// c95
#[tokio::test]
async fn c95_a_full_queue_refuses() {
    let (broker, mut client) = start().await;
    client.declare("dead").await;
    client.declare("other").await;
    let full = |overflow: &str| to("dead").with("x-max-length", 1).with("x-overflow", overflow);
    declare(&mut client, "q", full("reject-publish")).await;
    declare(&mut client, "dlx", full("reject-publish-dlx")).await;
    for queue in ["q", "other"] {
        client.bind(queue, "amq.fanout", "").await;
    }
    confirming(&mut client).await;
    broker.hold_confirms(true);
    send(&mut client, "q", &Properties::new(), &["a", "b", "c"]).await;
    send(&mut client, "other", &Properties::new(), &["d", "e"]).await;
    // One of two queues refuses: it is refused, and the other one has it.
    client.publish("amq.fanout", "", "f").await;
    client.is_quiet().await;
    broker.hold_confirms(false);
    client.says(["ack 1", "nack 2", "nack 3", "ack 5 multiple", "nack 6"]).await;
    assert_eq!(take(&mut client, "other").await, ["d", "e", "f"]);
    assert!(take(&mut client, "dead").await.is_empty());
    for body in ["g", "h"] {
        send(&mut client, "dlx", &Properties::new(), &[body]).await;
        client.says([if body == "g" { "ack 7" } else { "nack 8" }]).await;
    }
    assert_eq!(take(&mut client, "dead").await, ["h"]);
    assert_eq!((take(&mut client, "q").await, take(&mut client, "dlx").await), (vec!["a".into()], vec!["g".into()]));
    // A dead letter is refused as any other message.
    declare(&mut client, "short", to("dlx").with("x-max-length", 1)).await;
    send(&mut client, "short", &Properties::new(), &["i", "j", "k"]).await;
    client.says(["ack 11 multiple"]).await;
    assert_eq!((take(&mut client, "dlx").await, take(&mut client, "dead").await), (vec!["i".into()], vec!["j".into()]));
}

/// The time of its last use is that of the end of its last consumer, however long nothing has come before.
#[tokio::test(start_paused = true)]
async fn a_queue_outlives_its_last_consumer_by_its_time() {
    let (broker, mut client) = start().await;
    declare(&mut client, "q", FieldTable::new().with("x-expires", 1000)).await;
    client.consume(1, "q", "c").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    broker.drop_connections();
    tokio::time::sleep(Duration::from_millis(900)).await;
    let mut client = Raw::open(&broker).await;
    client.counts("q", 0, 0).await;
}

#[tokio::test(start_paused = true)]
async fn messages_expire_at_the_head_of_their_queue() {
    let (_broker, mut client) = start().await;
    client.declare("dead").await;
    declare(&mut client, "q", to("dead").with("x-message-ttl", 1000)).await;
    declare(&mut client, "plain", to("dead")).await;
    let short = Properties::new().expiration("300");
    let begin = Instant::now();
    // The shorter time counts, and nobody has to ask.
    client.consume(1, "dead", "c").await;
    send(&mut client, "q", &short, &["short"]).await;
    client.says(["deliver c 1 /dead short"]).await;
    assert_eq!(begin.elapsed().as_millis(), 300);
    send(&mut client, "q", &Properties::new().expiration("5000"), &["long"]).await;
    client.says(["deliver c 2 /dead long"]).await;
    assert_eq!(begin.elapsed().as_millis(), 1300);
    // What is not at the head stays, and goes as soon as it is there.
    send(&mut client, "plain", &Properties::new(), &["first"]).await;
    send(&mut client, "plain", &short, &["behind"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.counts("plain", 2, 0).await;
    client.get("plain", true).await;
    client.says(["deliver c 3 /dead behind", "get-ok 4 /plain first, 1 left"]).await;
    // Nor is it delivered after its time, to whoever takes what is before it.
    send(&mut client, "plain", &Properties::new(), &["first"]).await;
    send(&mut client, "plain", &short, &["behind"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.consume(1, "plain", "d").await;
    let heard = [client.next().await, client.next().await];
    assert_eq!(heard, ["deliver d 5 /plain first", "deliver c 6 /dead behind"]);
    // What comes back keeps its time.
    send(&mut client, "plain", &short, &["back"]).await;
    assert_eq!(client.next().await, "deliver d 7 /plain back");
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.send(1, basic::Cancel { consumer_tag: "d".into(), no_wait: true }).await;
    client.nack(1, 7, false, true).await;
    assert_eq!(client.next().await, "deliver c 8 /dead back");
}

/// One more is refused: `requests_that_close_their_channel`.
#[tokio::test]
async fn ten_years_are_the_most() {
    let (_broker, mut client) = start().await;
    let years = 315_360_000_000_i64;
    declare(&mut client, "q", FieldTable::new().with("x-message-ttl", years).with("x-expires", years)).await;
    send(&mut client, "q", &Properties::new(), &["a"]).await;
    client.counts("q", 1, 0).await;
}

/// No time at all: straight to a consumer, or not at all.
#[tokio::test]
async fn messages_without_any_time() {
    let (_broker, mut client) = start().await;
    declare(&mut client, "q", FieldTable::new().with("x-message-ttl", 0)).await;
    send(&mut client, "q", &Properties::new(), &["a"]).await;
    client.counts("q", 0, 0).await;
    client.consume(1, "q", "c").await;
    send(&mut client, "q", &Properties::new().expiration("7"), &["b"]).await;
    client.says(["deliver c 1 /q b"]).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    client.nack(1, 1, false, true).await;
    client.counts("q", 0, 1).await;
}

/// Whoever published may be gone by then.
#[tokio::test(start_paused = true)]
async fn somebody_notices_what_expires() {
    let (broker, mut client) = start().await;
    client.declare("dead").await;
    declare(&mut client, "q", to("dead").with("x-message-ttl", 1000)).await;
    client.consume(1, "dead", "c").await;
    let mut other = Raw::open(&broker).await;
    send(&mut other, "q", &Properties::new(), &["x"]).await;
    other.close().await;
    client.says(["deliver c 1 /dead x"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_expires_that_nobody_uses() {
    let (_broker, mut client) = start().await;
    declare(&mut client, "q", to("dead").with("x-expires", 1000)).await;
    client.declare("dead").await;
    let most = Duration::from_millis(900);
    for _ in 0..3 {
        tokio::time::sleep(most).await;
        client.counts("q", 0, 0).await;
    }
    for _ in 0..3 {
        tokio::time::sleep(most).await;
        client.get("q", true).await;
        client.says(["basic.get-empty"]).await;
    }
    client.consume(1, "q", "c").await;
    tokio::time::sleep(most * 3).await;
    client.send(1, basic::Cancel { consumer_tag: "c".into(), no_wait: false }).await;
    client.says(["cancel-ok c"]).await;
    tokio::time::sleep(most).await;
    // A message is no use. It is not returned: the queue is there.
    client.publish_with(1, mandatory("", "q"), &Properties::new(), b"x").await;
    client.is_quiet().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    client.send(1, queue::Declare { queue: "q".into(), passive: true, ..Default::default() }).await;
    client.says(["channel closed: 404 NOT_FOUND - no queue 'q' in vhost '/' (50.10)"]).await;
    client.open_channel(1).await;
    assert!(take(&mut client, "dead").await.is_empty(), "what goes with its queue is no dead letter");
}

#[tokio::test]
async fn dead_letters_say_where_they_were_and_why() {
    let (_broker, mut client) = start().await;
    client.declare("dead").await;
    declare(&mut client, "q", FieldTable::new().with("x-dead-letter-exchange", "amq.direct")).await;
    client.bind("q", "amq.fanout", "").await;
    client.bind("dead", "amq.direct", "key").await;
    let properties = Properties::new().expiration("60000").message_id("m").header("mine", 1);
    client.publish_with(1, publish("amq.fanout", "key"), &properties, b"x").await;
    for body in ["requeued", "acked"] {
        client.publish("amq.fanout", "key", body).await;
    }
    for _ in 0..3 {
        client.get("q", false).await;
        client.next().await;
    }
    client.send(1, basic::Reject { delivery_tag: 1, requeue: false }).await;
    client.nack(1, 2, false, true).await;
    client.ack(1, 3, false).await;
    let (dead, body) = client.fetch("dead").await.unwrap();
    assert_eq!((deaths(&dead), &body[..]), (vec!["1 q rejected amq.fanout/key 60000".to_owned()], &b"x"[..]));
    let headers = dead.headers.clone().unwrap();
    for (name, value) in [("queue", "q"), ("reason", "rejected"), ("exchange", "amq.fanout")] {
        assert_eq!(headers.get(&format!("x-first-death-{name}")).and_then(FieldValue::as_str), Some(value));
    }
    assert_eq!((headers.get("mine").and_then(FieldValue::as_i64), &dead.expiration), (Some(1), &None));
    assert_eq!(dead.message_id, Some("m".into()));
    assert!(take(&mut client, "dead").await.is_empty());
    assert_eq!(take(&mut client, "q").await, ["requeued"]);
    // Several at once, in order; an exchange that is not there swallows them; and purging is none of its business.
    declare(&mut client, "lost", FieldTable::new().with("x-dead-letter-exchange", "nowhere")).await;
    declare(&mut client, "many", to("dead")).await;
    for queue in ["lost", "many"] {
        send(&mut client, queue, &Properties::new(), &["a", "b", "c"]).await;
        client.consume(1, queue, queue).await;
        for _ in 0..3 {
            client.next().await;
        }
        client.nack(1, 0, true, false).await;
    }
    assert_eq!(take(&mut client, "dead").await, ["a", "b", "c"]);
    declare(&mut client, "purged", to("dead")).await;
    send(&mut client, "purged", &Properties::new(), &["d"]).await;
    client.send(1, queue::Purge { queue: "purged".into(), ..Default::default() }).await;
    client.says(["purge-ok 1"]).await;
    client.counts("dead", 0, 0).await;
}

/// The way back is that of all keys, unless the queue says another one.
#[tokio::test]
async fn dead_letters_take_their_copies_with_them() {
    let (_broker, mut client) = start().await;
    for queue in ["dead", "copy", "blind"] {
        client.declare(queue).await;
        client.bind(queue, "amq.direct", queue).await;
    }
    declare(&mut client, "keys", FieldTable::new().with("x-dead-letter-exchange", "amq.direct")).await;
    declare(&mut client, "key", to("dead")).await;
    let keys = |key: &str| FieldValue::Array(vec![key.into()]);
    let copies = Properties::new().header("CC", keys("copy")).header("BCC", keys("blind"));
    for queue in ["key", "keys"] {
        send(&mut client, queue, &copies, &[queue]).await;
        assert_eq!(take(&mut client, "copy").await, [queue]);
        assert_eq!(take(&mut client, "blind").await, [queue]);
        client.get(queue, false).await;
        client.next().await;
        client.nack(1, 0, true, false).await;
    }
    assert_eq!(take(&mut client, "blind").await, ["keys"]);
    let (dead, body) = client.fetch("copy").await.unwrap();
    assert_eq!((deaths(&dead), &body[..]), (vec!["1 keys rejected /keys,copy -".to_owned()], &b"keys"[..]));
    let (dead, body) = client.fetch("dead").await.unwrap();
    assert_eq!((deaths(&dead), &body[..]), (vec!["1 key rejected /key,copy -".to_owned()], &b"key"[..]));
    assert!(dead.headers.unwrap().get("CC").is_none());
}

/// Round and round: as often as somebody rejects it, and not by itself.
#[tokio::test(start_paused = true)]
async fn dead_letters_do_not_go_round_by_themselves() {
    let (_broker, mut client) = start().await;
    declare(&mut client, "work", to("wait")).await;
    declare(&mut client, "wait", to("work").with("x-message-ttl", 1000)).await;
    client.send(1, basic::Consume { queue: "work".into(), consumer_tag: "c".into(), ..Default::default() }).await;
    client.says(["consume-ok c"]).await;
    send(&mut client, "work", &Properties::new(), &["x"]).await;
    for round in 1..4 {
        client.says([format!("deliver c {round} /work x")]).await;
        client.send(1, basic::Reject { delivery_tag: round, requeue: false }).await;
    }
    client.says(["deliver c 4 /work x"]).await;
    client.nack(1, 4, false, true).await;
    client.next().await;
    client.send(1, basic::Cancel { consumer_tag: "c".into(), no_wait: false }).await;
    client.says(["cancel-ok c"]).await;
    client.nack(1, 5, false, true).await;
    let (dead, _) = client.fetch("work").await.unwrap();
    assert_eq!(deaths(&dead), ["3 wait expired /wait -", "3 work rejected /work -"]);
    let headers = dead.headers.unwrap();
    for (name, value) in [("queue", "work"), ("reason", "rejected"), ("exchange", "")] {
        assert_eq!(headers.get(&format!("x-first-death-{name}")).and_then(FieldValue::as_str), Some(value));
    }
    // Each gives up to the other what does not fit.
    for (queue, other) in [("a", "b"), ("b", "a")] {
        declare(&mut client, queue, to(other).with("x-max-length", 1)).await;
    }
    send(&mut client, "a", &Properties::new(), &["1", "2", "3"]).await;
    assert_eq!((take(&mut client, "a").await, take(&mut client, "b").await), (vec!["3".into()], vec!["2".into()]));
    declare(&mut client, "self", to("self").with("x-message-ttl", 10)).await;
    send(&mut client, "self", &Properties::new(), &["x"]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.counts("self", 0, 0).await;
}

#[tokio::test]
async fn messages_of_higher_priority_come_first() {
    let (_broker, mut client) = start().await;
    declare(&mut client, "q", FieldTable::new().with("x-max-priority", 5)).await;
    client.declare("plain").await;
    for queue in ["q", "plain"] {
        send(&mut client, queue, &Properties::new(), &["none"]).await;
        for priority in [1u8, 9, 0, 5, 1] {
            send(&mut client, queue, &Properties::new().priority(priority), &[&priority.to_string()]).await;
        }
    }
    // Higher ones than the highest are as the highest. What comes back comes to its place.
    client.get("q", false).await;
    client.says(["get-ok 1 /q 9, 5 left"]).await;
    client.nack(1, 1, false, true).await;
    assert_eq!(take(&mut client, "q").await, ["9", "5", "1", "1", "none", "0"]);
    assert_eq!(take(&mut client, "plain").await, ["none", "1", "9", "0", "5", "1"]);
}
