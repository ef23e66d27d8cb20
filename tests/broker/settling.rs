//! What becomes of deliveries: acknowledged, rejected, back in their place.

use leveret::codec::method::{basic, channel};

use crate::raw::{Raw, start};

async fn filled(client: &mut Raw, bodies: &[&str]) {
    client.declare("q").await;
    for body in bodies {
        client.publish("", "q", body).await;
    }
}

#[tokio::test]
async fn what_is_acknowledged_is_gone() {
    let (broker, mut client) = start().await;
    filled(&mut client, &["a", "b", "c"]).await;
    client.consume(1, "q", "c").await;
    client.says(["deliver c 1 /q a", "deliver c 2 /q b", "deliver c 3 /q c"]).await;
    client.counts("q", 0, 1).await;
    client.ack(1, 2, true).await;
    client.close().await;
    let mut other = Raw::open(&broker).await;
    other.counts("q", 1, 0).await;
    other.get("q", true).await;
    other.says(["get-ok 1 again /q c, 0 left"]).await;
}

/// c121
#[tokio::test]
async fn what_is_requeued_comes_again_in_its_old_place() {
    let (_broker, mut client) = start().await;
    filled(&mut client, &["a", "b", "c", "d"]).await;
    for _ in 0..3 {
        client.get("q", false).await;
    }
    client.says(["get-ok 1 /q a, 3 left", "get-ok 2 /q b, 2 left", "get-ok 3 /q c, 1 left"]).await;
    client.send(1, basic::Reject { delivery_tag: 3, requeue: true }).await;
    client.nack(1, 1, false, true).await;
    client.get("q", false).await;
    client.get("q", false).await;
    client.get("q", false).await;
    client.says(["get-ok 4 again /q a, 2 left", "get-ok 5 again /q c, 1 left", "get-ok 6 /q d, 0 left"]).await;
    client.nack(1, 0, true, true).await;
    client.counts("q", 4, 0).await;
    for _ in 0..4 {
        client.get("q", true).await;
    }
    client.says(["get-ok 7 again /q a, 3 left", "get-ok 8 again /q b, 2 left"]).await;
    client.says(["get-ok 9 again /q c, 1 left", "get-ok 10 again /q d, 0 left"]).await;
}

#[tokio::test]
async fn what_is_refused_without_requeue_is_gone() {
    let (_broker, mut client) = start().await;
    filled(&mut client, &["a", "b", "c"]).await;
    client.consume(1, "q", "c").await;
    client.says(["deliver c 1 /q a", "deliver c 2 /q b", "deliver c 3 /q c"]).await;
    client.send(1, basic::Reject { delivery_tag: 1, requeue: false }).await;
    client.nack(1, 3, true, false).await;
    client.counts("q", 0, 1).await;
}

/// c50, c51: of the channel that closes, in order, and of no other.
#[tokio::test]
async fn c50_a_closed_channel_gives_its_deliveries_back() {
    let (_broker, mut client) = start().await;
    client.open_channel(2).await;
    filled(&mut client, &["a", "b", "c"]).await;
    client.get("q", false).await;
    client.says(["get-ok 1 /q a, 2 left"]).await;
    client.consume(2, "q", "c").await;
    client.says(["2: deliver c 1 /q b", "2: deliver c 2 /q c"]).await;
    client.send(2, channel::Close::default()).await;
    client.says(["2: channel.close-ok"]).await;
    client.counts("q", 2, 0).await;
    client.nack(1, 1, false, true).await;
    client.consume(1, "q", "d").await;
    client.says(["deliver d 2 again /q a", "deliver d 3 again /q b", "deliver d 4 again /q c"]).await;
}

#[tokio::test]
async fn c50_a_lost_connection_gives_its_deliveries_back() {
    let (broker, mut client) = start().await;
    filled(&mut client, &["a", "b"]).await;
    client.consume(1, "q", "c").await;
    client.says(["deliver c 1 /q a", "deliver c 2 /q b"]).await;
    let mut other = Raw::open(&broker).await;
    other.consume(1, "q", "d").await;
    drop(client);
    other.says(["deliver d 1 again /q a", "deliver d 2 again /q b"]).await;
}

#[tokio::test]
async fn recover_delivers_everything_again() {
    let (_broker, mut client) = start().await;
    filled(&mut client, &["a", "b"]).await;
    client.consume(1, "q", "c").await;
    client.says(["deliver c 1 /q a", "deliver c 2 /q b"]).await;
    client.send(1, basic::Recover { requeue: true }).await;
    client.says(["basic.recover-ok", "deliver c 3 again /q a", "deliver c 4 again /q b"]).await;
    client.ack(1, 4, true).await;
    client.counts("q", 0, 1).await;
}

/// c109, c112: delivery tags count per channel, whether they are acknowledged or not.
#[tokio::test]
async fn c109_tags_belong_to_a_channel() {
    let (_broker, mut client) = start().await;
    client.open_channel(2).await;
    filled(&mut client, &["a", "b", "c"]).await;
    client.get("q", true).await;
    client.get("q", false).await;
    client.says(["get-ok 1 /q a, 2 left", "get-ok 2 /q b, 1 left"]).await;
    client.ack(2, 2, false).await;
    client.says(["2: channel closed: 406 PRECONDITION_FAILED - unknown delivery tag 2 (60.80)"]).await;
    client.ack(1, 2, false).await;
    client.is_quiet().await;
    client.ack(1, 1, false).await;
    client.says(["channel closed: 406 PRECONDITION_FAILED - unknown delivery tag 1 (60.80)"]).await;
}
