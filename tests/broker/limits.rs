//! Nothing grows without bound: neither for a consumer that does not read, nor for one that asks and asks.

use std::time::Duration;

use leveret::codec::Properties;
use leveret::codec::method::basic;
use tokio::time::timeout;

use crate::raw::{Raw, publish, start};

const MESSAGES: u32 = 200;
const BODY: usize = 20_000;

/// Four megabytes for a consumer without a prefetch: what it does not read stays in the queue, and comes when it reads.
#[tokio::test]
async fn a_slow_consumer_leaves_messages_in_the_queue() {
    let (broker, mut client) = start().await;
    let mut slow = Raw::open(&broker).await;
    client.declare("q").await;
    slow.consume(1, "q", "slow").await;
    for _ in 0..MESSAGES {
        client.publish_with(1, publish("", "q"), &Properties::new(), &[7; BODY]).await;
    }
    client.get("q", false).await;
    let got = client.next().await;
    let left: u32 = got.rsplit_once(", ").unwrap().1.trim_end_matches(" left").parse().unwrap();
    assert!(got.starts_with("get-ok 1 /q 20000 octets") && left > MESSAGES / 2, "{got}");
    for tag in 1..MESSAGES {
        slow.says([format!("deliver slow {tag} /q {BODY} octets")]).await;
    }
    slow.is_quiet().await;
    client.counts("q", 0, 1).await;
}

/// A socket may take all at once what a pipe takes in pieces; the rest has to follow by itself.
#[tokio::test]
async fn a_slow_consumer_behind_a_socket_gets_everything() {
    let (broker, mut client) = start().await;
    let mut slow = Raw::open_over_tcp(&broker).await;
    client.declare("q").await;
    for _ in 0..MESSAGES {
        client.publish_with(1, publish("", "q"), &Properties::new(), &[7; BODY]).await;
    }
    slow.consume(1, "q", "slow").await;
    for tag in 1..=MESSAGES {
        slow.says([format!("deliver slow {tag} /q {BODY} octets")]).await;
    }
    client.counts("q", 0, 1).await;
}

/// Requests are not read while their answers pile up. Other clients notice nothing. The clock stands still as long as
/// anything moves, so the wait ends only when nothing does.
#[tokio::test(start_paused = true)]
async fn who_does_not_read_answers_is_not_read() {
    let (broker, mut client) = start().await;
    client.declare("q").await;
    client.publish_with(1, publish("", "q"), &Properties::new(), &[7; BODY]).await;
    let mut greedy = Raw::open(&broker).await;
    let mut asked = 0;
    let asking = async {
        for _ in 0..100_000 {
            greedy.get("q", false).await;
            greedy.nack(1, 0, true, true).await;
            asked += 1;
        }
    };
    assert!(timeout(Duration::from_secs(5), asking).await.is_err(), "the broker read all of it");
    client.is_quiet().await;
    // It may have been cut off in the middle of a frame; what it asked for before is answered.
    for tag in 1..=asked {
        let again = if tag == 1 { "" } else { " again" };
        greedy.says([format!("get-ok {tag}{again} /q {BODY} octets, 0 left")]).await;
    }
}

/// Many channels, many consumers, one queue.
#[tokio::test]
async fn two_thousand_channels() {
    let (_broker, mut client) = start().await;
    client.declare("q").await;
    for number in 2..=2047 {
        client.open_channel(number).await;
        client.qos(number, 1, false).await;
        client.consume(number, "q", "c").await;
    }
    for number in 2..=2047 {
        client.publish("", "q", "x").await;
        client.says([format!("{number}: deliver c 1 /q x")]).await;
    }
    client.publish("", "q", "y").await;
    client.counts("q", 1, 2046).await;
    client.send(2047, basic::Ack { delivery_tag: 1, multiple: false }).await;
    client.says(["2047: deliver c 2 /q y"]).await;
    client.send(2048, leveret::codec::method::channel::Open::default()).await;
    let text = "number of channels opened (2047) has reached the negotiated channel_max (2047)";
    client.says([format!("connection closed: 530 NOT_ALLOWED - {text} (20.10)")]).await;
}

/// A client is listened to while there is much to deliver to it: what it says is not put off until the queue is empty.
#[tokio::test]
async fn a_consumer_is_heard_in_the_middle_of_a_long_queue() {
    const MESSAGES: usize = 20_000;
    let (broker, mut client) = start().await;
    client.declare("q").await;
    let body = "x".repeat(500);
    for _ in 0..MESSAGES {
        client.publish("", "q", &body).await;
    }
    client.counts("q", u32::try_from(MESSAGES).unwrap(), 0).await;
    client.consume(1, "q", "tag").await;
    client.next().await;
    client.send(1, basic::Cancel { consumer_tag: "tag".into(), no_wait: false }).await;
    let mut delivered = 1;
    while client.next().await != "cancel-ok tag" {
        delivered += 1;
    }
    assert!(delivered < MESSAGES / 2, "{delivered} of {MESSAGES} were delivered first");
    drop(broker);
}
