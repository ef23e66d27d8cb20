//! The handle: misbehaving on demand, and the end.

use std::time::Duration;

use leveret::broker::Broker;
use leveret::codec::Properties;
use leveret::codec::method::{channel, confirm, connection, queue};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::raw::{PATIENCE, Raw, content, publish, start};

async fn confirming(client: &mut Raw) {
    client.send(1, confirm::Select { no_wait: false }).await;
    client.says(["confirm.select-ok"]).await;
}

/// c22, c43, c55, c139, c140, c141
#[tokio::test]
async fn c139_a_blocked_broker_reads_nothing_behind_a_message() {
    let (broker, mut client) = start().await;
    let mut consumer = Raw::open(&broker).await;
    client.declare("q").await;
    confirming(&mut client).await;
    broker.block("low on memory");
    client.says(["blocked low on memory"]).await;
    consumer.says(["blocked low on memory"]).await;
    client.is_quiet().await;

    client.publish("", "q", "1").await;
    client.publish("", "q", "2").await;
    client.send(0, connection::Close::default()).await;
    consumer.counts("q", 0, 0).await;

    // Who comes now is told when it publishes, and who does not want to hear it is not told.
    let mut late = Raw::open(&broker).await;
    late.is_quiet().await;
    late.publish("", "q", "3").await;
    late.says(["blocked low on memory"]).await;

    broker.unblock();
    client.says(["connection.unblocked", "ack 2 multiple", "connection.close-ok", "end"]).await;
    late.says(["connection.unblocked"]).await;
    late.is_quiet().await;
    consumer.says(["connection.unblocked"]).await;
    consumer.counts("q", 3, 0).await;
}

/// It would not fit otherwise, and the client would not be told.
#[tokio::test]
async fn a_long_reason_is_cut() {
    let (broker, mut client) = start().await;
    broker.block(&"é".repeat(200));
    client.says([format!("blocked {}", "é".repeat(127))]).await;
}

#[tokio::test]
async fn a_blocked_client_can_be_closed() {
    let (broker, mut client) = start().await;
    broker.block("disk");
    client.says(["blocked disk"]).await;
    client.publish("", "q", "held").await;
    client.publish("", "q", "held").await;
    broker.close_connections(320, "CONNECTION_FORCED - operator");
    client.says(["connection closed: 320 CONNECTION_FORCED - operator (0.0)", "end"]).await;
}

#[tokio::test]
async fn confirms_are_held_and_let_go() {
    let (broker, mut client) = start().await;
    confirming(&mut client).await;
    client.open_channel(2).await;
    client.send(2, confirm::Select { no_wait: true }).await;
    broker.hold_confirms(true);
    for number in [1, 2, 1, 1] {
        client.publish_with(number, publish("", "x"), &Properties::new(), b"").await;
    }
    client.is_quiet().await;
    broker.hold_confirms(false);
    client.says(["ack 3 multiple", "2: ack 1"]).await;
    client.publish("", "x", "").await;
    client.says(["ack 4"]).await;
}

#[tokio::test]
async fn c137_flow_goes_to_every_open_channel() {
    let (broker, mut client) = start().await;
    client.open_channel(7).await;
    for active in [false, true] {
        broker.set_flow(active);
        client.says([format!("flow {active}"), format!("7: flow {active}")]).await;
        client.send(1, channel::FlowOk { active }).await;
    }
    client.is_quiet().await;
}

#[tokio::test]
async fn connections_are_dropped_without_a_word() {
    let (broker, mut client) = start().await;
    client.send(1, queue::Declare { queue: "mine".into(), exclusive: true, ..Default::default() }).await;
    client.says(["declare-ok mine 0 0"]).await;
    broker.drop_connections();
    client.says(["end"]).await;
    let mut client = Raw::open(&broker).await;
    client.send(1, queue::Declare { queue: "mine".into(), passive: true, ..Default::default() }).await;
    client.says(["channel closed: 404 NOT_FOUND - no queue 'mine' in vhost '/' (50.10)"]).await;
}

/// c144: every client is told and has its time to answer.
#[tokio::test]
async fn c144_shutdown() {
    let broker = Broker::start().await.unwrap();
    let mut over_tcp = Raw::open_over_tcp(&broker).await;
    let mut client = Raw::open(&broker).await;
    let forced =
        "connection closed: 320 CONNECTION_FORCED - broker forced connection closure with reason 'shutdown' (0.0)";
    let ((), (), ()) = tokio::join!(broker.shutdown(), client.says([forced, "end"]), over_tcp.says([forced, "end"]));
    let refused = async {
        while TcpStream::connect(broker.local_addr()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, refused).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_the_silent() {
    let (broker, client) = start().await;
    let before = tokio::time::Instant::now();
    broker.shutdown().await;
    assert!(before.elapsed() < Duration::from_secs(3));
    drop(client);
}

#[tokio::test]
async fn a_dropped_broker_ends_its_connections() {
    let (broker, mut client) = start().await;
    drop(broker);
    client.says(["end"]).await;
}

/// c39, c40
#[tokio::test(start_paused = true)]
async fn c40_heartbeats() {
    let broker = Broker::builder().heartbeat(4).bind("127.0.0.1:0").await.unwrap();
    let mut client = Raw::connect(broker.connect()).await;
    client.login("guest", "guest").await;
    client.says(["connection.tune"]).await;
    client.send(0, connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 4 }).await;
    client.send(0, connection::Open { virtual_host: "/".into(), ..Default::default() }).await;
    client.says(["connection.open-ok"]).await;
    let start = tokio::time::Instant::now();
    client.says(["heartbeat", "heartbeat", "heartbeat", "end"]).await;
    assert_eq!(start.elapsed().as_secs(), 8);
}

/// c88
#[tokio::test]
async fn c88_the_largest_message_can_be_set() {
    let broker = Broker::builder().max_message_size(10).bind("127.0.0.1:0").await.unwrap();
    let mut client = Raw::open(&broker).await;
    client.publish("", "q", "0123456789").await;
    client.is_quiet().await;
    client.frames(&content(1, publish("", "q"), &Properties::new(), b"0123456789x")).await;
    let text = "message size 11 is larger than configured max size 10";
    client.says([format!("channel closed: 406 PRECONDITION_FAILED - {text} (60.40)")]).await;
}
