//! Confirms and returns.

use leveret::codec::method::{basic, confirm};
use leveret::codec::{Frame, Properties};

use crate::raw::{Raw, content, mandatory, publish, start};

async fn confirming(client: &mut Raw) {
    client.send(1, confirm::Select { no_wait: false }).await;
    client.says(["confirm.select-ok"]).await;
}

/// c90, c91: one block of input is answered with one ack for all; what comes alone is answered alone.
#[tokio::test]
async fn c91_confirms_count_from_one() {
    let (_broker, mut client) = start().await;
    client.declare("q").await;
    client.publish("", "q", "before").await;
    confirming(&mut client).await;
    client.publish("", "q", "1").await;
    client.says(["ack 1"]).await;
    let message = content(1, publish("", "q"), &Properties::new(), b"more");
    let three: Vec<Frame> = [message.clone(), message.clone(), message].concat();
    client.frames(&three).await;
    client.says(["ack 4 multiple"]).await;
}

/// c92, c93, c94
#[tokio::test]
async fn c92_a_return_precedes_its_ack() {
    let (_broker, mut client) = start().await;
    client.declare("q").await;
    confirming(&mut client).await;
    let properties = Properties::new();
    let messages = [
        content(1, mandatory("", "q"), &properties, b"1"),
        content(1, mandatory("", "nobody"), &properties, b"2"),
        content(1, publish("", "nobody"), &properties, b"3"),
        content(1, mandatory("amq.topic", "some.key"), &properties, b""),
    ];
    client.frames(&messages.concat()).await;
    client.says(["return 312 NO_ROUTE /nobody 2", "return 312 NO_ROUTE amq.topic/some.key "]).await;
    client.says(["ack 4 multiple"]).await;
}

#[tokio::test]
async fn a_return_without_confirms() {
    let (_broker, mut client) = start().await;
    client.publish_with(1, mandatory("", "nobody"), &Properties::new(), b"back").await;
    client.says(["return 312 NO_ROUTE /nobody back"]).await;
    client.is_quiet().await;
}

/// c99: what is confirmed before a method comes is said before the method's answer, errors included.
#[tokio::test]
async fn confirms_are_sent_before_the_channel_closes() {
    let (_broker, mut client) = start().await;
    confirming(&mut client).await;
    let properties = Properties::new();
    client
        .frames(
            &[content(1, publish("", "x"), &properties, b""), content(1, publish("no", "x"), &properties, b"")]
                .concat(),
        )
        .await;
    client.says(["ack 1", "channel closed: 404 NOT_FOUND - no exchange 'no' in vhost '/' (60.40)"]).await;
    client.open_channel(1).await;
    confirming(&mut client).await;
    let mut frames = content(1, publish("", "x"), &properties, b"");
    frames.push(Frame::Method(1, leveret::codec::method::channel::Close::default().into()));
    client.frames(&frames).await;
    client.says(["ack 1", "channel.close-ok"]).await;
}

#[tokio::test]
async fn c98_confirms_and_transactions_exclude_each_other() {
    use leveret::codec::method::tx;
    let (_broker, mut client) = start().await;
    confirming(&mut client).await;
    confirming(&mut client).await;
    client.send(1, tx::Select {}).await;
    client.says(["channel closed: 406 PRECONDITION_FAILED - cannot switch from confirm to tx mode (90.10)"]).await;
    client.open_channel(1).await;
    client.send(1, tx::Select {}).await;
    client.says(["tx.select-ok"]).await;
    client.send(1, confirm::Select { no_wait: true }).await;
    client.says(["channel closed: 406 PRECONDITION_FAILED - cannot switch from tx to confirm mode (85.10)"]).await;
}

/// c100
#[tokio::test]
async fn c100_exchanges_that_take_nothing_from_clients() {
    use leveret::codec::method::exchange;
    let (_broker, mut client) = start().await;
    let declare =
        exchange::Declare { exchange: "in".into(), kind: "direct".into(), internal: true, ..Default::default() };
    client.send(1, declare).await;
    client.says(["exchange.declare-ok"]).await;
    client.publish("in", "k", "").await;
    let text = "ACCESS_REFUSED - cannot publish to internal exchange 'in' in vhost '/'";
    client.says([format!("channel closed: 403 {text} (60.40)")]).await;
}

/// c82, c83
#[tokio::test]
async fn c83_properties_that_the_broker_checks() {
    const LONG: &str = "340282366920938463463374607431768211456";
    let (_broker, mut client) = start().await;
    for expiration in ["60000", "0", "-0", "+7", "007", "315360000000"] {
        let properties = Properties::new().user_id("guest").expiration(expiration);
        client.publish_with(1, publish("", "x"), &properties, b"").await;
    }
    client.is_quiet().await;
    client.publish_with(1, publish("", "x"), &Properties::new().user_id("bob"), b"").await;
    let text = "PRECONDITION_FAILED - user_id property set to 'bob' but authenticated user was 'guest'";
    client.says([format!("channel closed: 406 {text} (60.40)")]).await;
    for (expiration, reason) in [
        ("soon", "no_integer"),
        ("", "no_integer"),
        (" 1", "no_integer"),
        ("-1", "{value_negative,-1}"),
        ("0.5", "{leftover_string,\".5\"}"),
        // Ten years are the most, as for the time that a queue sets.
        ("315360000001", "{value_too_large,315360000001}"),
        ("-00315360000001", "{value_negative,-315360000001}"),
        (LONG, &format!("{{value_too_large,{LONG}}}")),
    ] {
        client.open_channel(1).await;
        client.publish_with(1, publish("", "x"), &Properties::new().expiration(expiration), b"").await;
        let text = format!("PRECONDITION_FAILED - invalid expiration '{expiration}': {reason}");
        client.says([format!("channel closed: 406 {text} (60.40)")]).await;
    }
}

#[tokio::test]
async fn c101_immediate_is_not_implemented() {
    let (_broker, mut client) = start().await;
    let immediate = basic::Publish { immediate: true, ..publish("", "q") };
    client.publish_with(1, immediate, &Properties::new(), b"").await;
    client.says(["connection closed: 540 NOT_IMPLEMENTED - immediate=true (60.40)", "end"]).await;
}
