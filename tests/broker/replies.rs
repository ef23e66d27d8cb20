//! Direct replies: `amq.rabbitmq.reply-to`.

use leveret::codec::Properties;
use leveret::codec::method::{basic, queue};

use crate::raw::{Raw, mandatory, publish, start};

const REPLY_TO: &str = "amq.rabbitmq.reply-to";

fn consume(no_ack: bool) -> basic::Consume {
    basic::Consume { queue: REPLY_TO.into(), consumer_tag: "r".into(), no_ack, ..Default::default() }
}

/// c122
#[tokio::test]
async fn c122_an_answer_goes_straight_to_who_asked() {
    let (broker, mut client) = start().await;
    let mut server = Raw::open(&broker).await;
    server.declare("requests").await;
    client.send(1, consume(true)).await;
    client.says(["consume-ok r"]).await;
    let properties = Properties::new().reply_to(REPLY_TO).correlation_id("1");
    client.publish_with(1, publish("", "requests"), &properties, b"question").await;
    client.is_quiet().await;

    server.get("requests", true).await;
    let request = server.next().await;
    let (_, reply_to) = request.split_once(" reply-to ").unwrap();
    let reply_to = reply_to.trim_end_matches(", 0 left");
    assert!(reply_to.starts_with("amq.rabbitmq.reply-to."), "{request}");
    server.send(1, queue::Declare { queue: reply_to.into(), passive: true, ..Default::default() }).await;
    server.says([format!("declare-ok {reply_to} 0 1")]).await;
    server.publish_with(1, mandatory("", reply_to), &Properties::new(), b"answer").await;
    client.says([format!("deliver r 1 /{reply_to} answer")]).await;

    client.send(1, basic::Cancel { consumer_tag: "r".into(), no_wait: false }).await;
    client.says(["cancel-ok r"]).await;
    server.publish_with(1, mandatory("", reply_to), &Properties::new(), b"too late").await;
    server.says([format!("return 312 NO_ROUTE /{reply_to} too late")]).await;
    server.send(1, queue::Declare { queue: reply_to.into(), passive: true, ..Default::default() }).await;
    server.says([format!("channel closed: 404 NOT_FOUND - no queue '{reply_to}' in vhost '/' (50.10)")]).await;
}

#[tokio::test]
async fn c122_what_is_not_allowed() {
    let (_broker, mut client) = start().await;
    let closed = |text| format!("channel closed: 406 PRECONDITION_FAILED - {text}");
    client.send(1, consume(false)).await;
    client.says([closed("reply consumer cannot acknowledge (60.20)")]).await;
    client.open_channel(1).await;
    client.publish_with(1, publish("", "q"), &Properties::new().reply_to(REPLY_TO), b"").await;
    client.says([closed("fast reply consumer does not exist (60.40)")]).await;
    client.open_channel(1).await;
    client.send(1, consume(true)).await;
    client.send(1, basic::Consume { consumer_tag: "s".into(), ..consume(true) }).await;
    client.says(["consume-ok r", &closed("reply consumer already set (60.20)")]).await;
}
