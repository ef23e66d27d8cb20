//! What is refused, with which code and in which words.

use leveret::broker::Broker;
use leveret::codec::method::{access, basic, channel, connection, exchange, queue};
use leveret::codec::{FieldTable, FieldValue, Frame, Method, Properties};

use crate::raw::{Raw, content, mandatory, publish, start};

#[tokio::test]
async fn requests_that_close_their_channel() {
    let (_broker, mut client) = start().await;
    client.declare("q").await;
    let default = "ACCESS_REFUSED - operation not permitted on the default exchange";
    let (no_queue, no_exchange) =
        ("NOT_FOUND - no queue 'no' in vhost '/'", "NOT_FOUND - no exchange 'no' in vhost '/'");
    let no = || "no".into();
    let q = || "q".into();
    let direct = || "amq.direct".into();
    let cases: Vec<(Method, String)> = vec![
        (queue::Declare { queue: no(), passive: true, ..Default::default() }.into(), format!("404 {no_queue} (50.10)")),
        (queue::Purge { queue: no(), ..Default::default() }.into(), format!("404 {no_queue} (50.30)")),
        (basic::Consume { queue: no(), ..Default::default() }.into(), format!("404 {no_queue} (60.20)")),
        (basic::Get { queue: no(), ..Default::default() }.into(), format!("404 {no_queue} (60.70)")),
        (
            queue::Bind { queue: no(), exchange: direct(), ..Default::default() }.into(),
            format!("404 {no_queue} (50.20)"),
        ),
        (queue::Bind { queue: q(), exchange: no(), ..Default::default() }.into(), format!("404 {no_exchange} (50.20)")),
        (
            exchange::Declare { exchange: no(), passive: true, ..Default::default() }.into(),
            format!("404 {no_exchange} (40.10)"),
        ),
        (
            exchange::Bind { source: direct(), destination: no(), ..Default::default() }.into(),
            format!("404 {no_exchange} (40.30)"),
        ),
        (
            exchange::Bind { source: no(), destination: direct(), ..Default::default() }.into(),
            format!("404 {no_exchange} (40.30)"),
        ),
        // c104
        (exchange::Declare { kind: "direct".into(), ..Default::default() }.into(), format!("403 {default} (40.10)")),
        (exchange::Delete::default().into(), format!("403 {default} (40.20)")),
        (queue::Bind { queue: q(), ..Default::default() }.into(), format!("403 {default} (50.20)")),
        (queue::Unbind { queue: q(), ..Default::default() }.into(), format!("403 {default} (50.50)")),
        (exchange::Bind { source: direct(), ..Default::default() }.into(), format!("403 {default} (40.30)")),
        // c125
        (
            queue::Declare { queue: "amq.mine".into(), ..Default::default() }.into(),
            "403 ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*' (50.10)".into(),
        ),
        (
            exchange::Declare { exchange: "amq.mine".into(), kind: "topic".into(), ..Default::default() }.into(),
            "403 ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*' (40.10)".into(),
        ),
        (
            exchange::Delete { exchange: direct(), ..Default::default() }.into(),
            "403 ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed (40.20)".into(),
        ),
        // c110
        (
            basic::Ack { delivery_tag: 5, multiple: true }.into(),
            "406 PRECONDITION_FAILED - unknown delivery tag 5 (60.80)".into(),
        ),
        (
            basic::Nack { delivery_tag: 7, ..Default::default() }.into(),
            "406 PRECONDITION_FAILED - unknown delivery tag 7 (60.120)".into(),
        ),
        (
            basic::Reject { delivery_tag: 9, requeue: true }.into(),
            "406 PRECONDITION_FAILED - unknown delivery tag 9 (60.90)".into(),
        ),
    ];
    let with = |name: &'static str, value: FieldValue| -> Method {
        queue::Declare { queue: "new".into(), arguments: FieldTable::new().with(name, value), ..Default::default() }
            .into()
    };
    let invalid = |name: &str, reason: &str| {
        format!("406 PRECONDITION_FAILED - invalid arg '{name}' for queue 'new' in vhost '/': {reason} (50.10)")
    };
    let match_on = |value: FieldValue| -> Method {
        let arguments = FieldTable::new().with("x-match", value);
        queue::Bind { queue: q(), exchange: "amq.headers".into(), arguments, ..Default::default() }.into()
    };
    let mut cases = cases;
    // c74, in RabbitMQ's words.
    for (name, value, reason) in [
        ("x-message-ttl", (-1).into(), "{value_negative,-1}"),
        ("x-message-ttl", 315_360_000_001i64.into(), "{value_too_large,315360000001}"),
        ("x-expires", (1i64 << 40).into(), "{value_too_large,1099511627776}"),
        ("x-expires", 0.into(), "{value_zero,0}"),
        ("x-max-length", "1".into(), "\"expected integer, got longstr\""),
        ("x-max-length-bytes", (-7).into(), "{value_negative,-7}"),
        ("x-max-priority", 256.into(), "{max_value_exceeded,256}"),
        ("x-overflow", "drop".into(), "invalid_overflow"),
        ("x-overflow", 1.into(), "{unacceptable_type,signedint}"),
        ("x-single-active-consumer", "foo".into(), "{unacceptable_type,longstr}"),
        ("x-dead-letter-routing-key", "k".into(), "routing_key_but_no_dlx_defined"),
    ] {
        cases.push((with(name, value), invalid(name, reason)));
    }
    cases.push((
        with("x-dead-letter-exchange", 1.into()),
        "406 PRECONDITION_FAILED - invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'new' in vhost '/' (50.10)"
            .into(),
    ));
    let arguments = FieldTable::new().with("alternate-exchange", 1);
    cases.push((
        exchange::Declare { exchange: "new".into(), kind: "fanout".into(), arguments, ..Default::default() }.into(),
        "406 PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in exchange 'new' in vhost '/' (40.10)"
            .into(),
    ));
    cases.push((
        match_on("some".into()),
        "406 PRECONDITION_FAILED - Invalid x-match field value <<\"some\">>; expected all, any, all-with-x, or any-with-x (50.20)"
            .into(),
    ));
    cases.push((
        match_on(1.into()),
        "406 PRECONDITION_FAILED - Invalid x-match field type signedint (value 1); expected longstr (50.20)".into(),
    ));
    let arguments = FieldTable::new().with("x-priority", "a");
    cases.push((
        basic::Consume { queue: q(), arguments, ..Default::default() }.into(),
        "406 PRECONDITION_FAILED - invalid arg 'x-priority' for queue 'q' in vhost '/': \"expected integer, got longstr\" (60.20)"
            .into(),
    ));
    client.open_channel(2).await;
    for (request, expected) in cases {
        client.send(1, request).await;
        client.says([format!("channel closed: {expected}")]).await;
        client.open_channel(1).await;
        // c51: the other channel knows nothing of it.
        client.qos(2, 0, false).await;
    }
}

#[tokio::test]
async fn requests_that_close_the_connection() {
    let cases: Vec<(u16, Method, &str)> = vec![
        (
            1,
            exchange::Declare { exchange: "x".into(), kind: "x-odd".into(), ..Default::default() }.into(),
            "503 COMMAND_INVALID - unknown exchange type 'x-odd' (40.10)",
        ),
        // c113, c118, c138
        (
            1,
            basic::Qos { prefetch_size: 5, ..Default::default() }.into(),
            "540 NOT_IMPLEMENTED - prefetch_size!=0 (5) (60.10)",
        ),
        (1, basic::Recover { requeue: false }.into(), "540 NOT_IMPLEMENTED - requeue=false (60.110)"),
        (1, channel::Flow { active: false }.into(), "540 NOT_IMPLEMENTED - active=false (20.20)"),
        (1, basic::GetEmpty::default().into(), "503 COMMAND_INVALID - unimplemented method (60.72)"),
        (1, channel::Open::default().into(), "504 CHANNEL_ERROR - second 'channel.open' seen (20.10)"),
        (2, basic::Qos::default().into(), "504 CHANNEL_ERROR - expected 'channel.open' (60.10)"),
        (0, basic::Qos::default().into(), "504 CHANNEL_ERROR - unexpected method in connection state running (60.10)"),
        (
            1,
            // Content is expected, and the next method comes.
            basic::Publish::default().into(),
            "505 UNEXPECTED_FRAME - expected content, got a method frame instead (60.10)",
        ),
    ];
    for (number, request, expected) in cases {
        let (broker, mut client) = start().await;
        let mut other = Raw::open(&broker).await;
        client.send(number, request).await;
        client.send(1, basic::Qos::default()).await;
        client.says([format!("connection closed: {expected}"), "end".into()]).await;
        other.is_quiet().await;
    }
}

#[tokio::test]
async fn c23_a_frame_that_does_not_end() {
    let (_broker, mut client) = start().await;
    client.raw(b"\x01\0\x01\0\0\0\x04\0\x5a\0\x0a\0").await;
    let text = "cannot decode frame end at offset 11: the frame ends in 0x00 instead of 0xce";
    client.says([format!("connection closed: 501 FRAME_ERROR - {text} (0.0)"), "end".into()]).await;
}

/// c47, c48: what was sent behind a mistake is void, also where it would have been right.
#[tokio::test]
async fn c48_what_follows_a_mistake_is_discarded() {
    let (_broker, mut client) = start().await;
    client.declare("q").await;
    let mut frames = vec![Frame::Method(1, queue::Purge { queue: "no".into(), ..Default::default() }.into())];
    frames.extend(content(1, publish("", "q"), &Properties::new(), b"void"));
    frames.extend(content(1, mandatory("", "nobody"), &Properties::new(), b"void"));
    frames.push(Frame::Method(1, channel::Open::default().into()));
    client.frames(&frames).await;
    client.says(["channel closed: 404 NOT_FOUND - no queue 'no' in vhost '/' (50.30)"]).await;
    client.open_channel(1).await;
    client.counts("q", 0, 0).await;
}

/// The first user's, and a virtual host that is open to this one.
#[tokio::test]
async fn the_url_is_good_for_coming_in() {
    let builder = || Broker::builder().virtual_host("a").virtual_host("b");
    for (builder, login, virtual_host) in [
        (builder().user("zoe", "1").user("guest", "2").user("ann", "3"), "zoe:1", "a"),
        (builder().restricted_user("bob", "1", ["b", "c"]).user("ann", "2"), "bob:1", "b"),
        (builder().virtual_host("/"), "guest:guest", "%2f"),
    ] {
        let broker = builder.start().await.unwrap();
        assert_eq!(broker.url(), format!("amqp://{login}@{}/{virtual_host}", broker.local_addr()));
    }
}

#[tokio::test]
async fn c11_c19_who_may_come_in() {
    let broker = Broker::builder()
        .user("ann", "secret")
        .restricted_user("bob", "secret", ["/b"])
        .virtual_host("/")
        .virtual_host("/b")
        .mechanisms("PLAIN AMQPLAIN EXTERNAL")
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    assert_eq!(broker.url(), format!("amqp://ann:secret@{}/%2f", broker.local_addr()));
    let refused = "connection closed: 403 ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For \
                   details see the broker logfile. (0.0)";
    for (user, password) in [("ann", "wrong"), ("guest", "guest"), ("", "")] {
        let mut client = Raw::connect(broker.connect()).await;
        client.login(user, password).await;
        client.says([refused, "end"]).await;
    }
    let mut client = Raw::connect(broker.connect()).await;
    client.login_as(FieldTable::new(), "PLAIN", "\0ann\0wrong".into()).await;
    client.says(["end"]).await;

    for (user, virtual_host, expected) in [
        ("ann", "/b", "connection.open-ok"),
        ("bob", "/b", "connection.open-ok"),
        ("bob", "/", "connection closed: 530 NOT_ALLOWED - access to vhost '/' refused for user 'bob' (10.40)"),
        ("ann", "/c", "connection closed: 530 NOT_ALLOWED - vhost /c not found (10.40)"),
        ("ann", "", "connection closed: 530 NOT_ALLOWED - vhost  not found (10.40)"),
    ] {
        let mut client = Raw::connect(broker.connect()).await;
        client.login(user, "secret").await;
        client.says(["connection.tune"]).await;
        client.tune_and_open(virtual_host).await;
        client.says([expected]).await;
    }

    let mut amqplain = Vec::new();
    FieldTable::new().with("LOGIN", "ann").with("PASSWORD", "secret").encode(&mut amqplain).unwrap();
    for (mechanism, response) in [("AMQPLAIN", amqplain.split_off(4)), ("EXTERNAL", b"bob".into())] {
        let mut client = Raw::connect(broker.connect()).await;
        client.login_as(FieldTable::new(), mechanism, response.into()).await;
        client.says(["connection.tune"]).await;
    }
}

/// c142, and what else is answered without doing anything.
#[tokio::test]
async fn formalities() {
    let (_broker, mut client) = start().await;
    client.send(0, connection::UpdateSecret { new_secret: "new".into(), reason: "old".into() }).await;
    client.send(1, access::Request::default()).await;
    client.send(1, channel::Flow { active: true }).await;
    client.says(["connection.update-secret-ok", "access.request-ok", "channel.flow-ok"]).await;
    client.send(1, basic::CancelOk { consumer_tag: "c".into() }).await;
    client.send(1, basic::RecoverAsync { requeue: true }).await;
    client.is_quiet().await;
}
