//! What a real RabbitMQ says, frame by frame: asked for everything it has, recorded, and held against the codec.
//!
//! ```console
//! $ LEVERET_CAPTURE=spec/vectors/rabbitmq-3.10 tests/run --test spec captured
//! ```
//!
//! writes what it says to that file, from where `vectors` reads it on machines without a RabbitMQ.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use leveret::codec::method::{basic, channel, confirm, connection, exchange, queue, tx};
use leveret::codec::{
    ContentHeader, FieldTable, Frame, Method, Properties, ProtocolHeader, RawProperties, UncheckedFrame,
};
use leveret::transport::{FrameStream, Stream};
use tokio::net::TcpStream;

/// The name under which a frame is recorded.
pub(crate) fn name_of(frame: &Frame) -> String {
    match frame {
        Frame::Method(_, method) => method.info().name.to_owned(),
        Frame::Header(..) => "header".to_owned(),
        Frame::Body(..) => "body".to_owned(),
        Frame::Heartbeat => "heartbeat".to_owned(),
    }
}

struct Talk {
    frames: FrameStream,
    record: Vec<(String, Vec<u8>, String)>,
}

impl Talk {
    async fn begin(address: &str, virtual_host: &str) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        let mut talk = Self { frames: FrameStream::new(Stream::tcp(socket).unwrap()), record: Vec::new() };
        talk.frames.send_header(ProtocolHeader::AMQP_0_9_1).await.unwrap();
        talk.until("connection.start").await;
        let capabilities = [
            "authentication_failure_close",
            "consumer_cancel_notify",
            "connection.blocked",
            "basic.nack",
            "publisher_confirms",
        ];
        let capabilities: FieldTable = capabilities.into_iter().map(|name| (name, true)).collect();
        talk.say(
            0,
            connection::StartOk {
                client_properties: FieldTable::new().with("capabilities", capabilities),
                mechanism: "PLAIN".into(),
                response: "\0guest\0guest".into(),
                locale: "en_US".into(),
            },
        )
        .await;
        talk.until("connection.tune").await;
        talk.say(0, connection::TuneOk { channel_max: 10, frame_max: 131_072, heartbeat: 0 }).await;
        talk.say(0, connection::Open { virtual_host: virtual_host.into(), ..Default::default() }).await;
        talk
    }

    async fn say(&mut self, number: u16, method: impl Into<Method>) {
        self.frames.send_method(number, method).await.unwrap();
    }

    /// Asks, and waits for the answer.
    async fn ask(&mut self, number: u16, method: impl Into<Method>, answer: &str) {
        self.say(number, method).await;
        self.until(answer).await;
    }

    /// Records what comes, up to a frame of this name.
    async fn until(&mut self, name: &str) {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(20), self.frames.next_unchecked()).await;
            let Some(raw) = next.unwrap_or_else(|_| panic!("{name} does not come")).unwrap() else {
                panic!("the end in place of {name}: {:?}", self.record.last())
            };
            let said = self.take(&raw);
            if said == name {
                return;
            }
        }
    }

    /// What is read is written with the same octets.
    fn take(&mut self, raw: &UncheckedFrame) -> String {
        let mut octets = Vec::new();
        raw.write_unchecked(&mut octets);
        let frame = Frame::decode(&mut Bytes::copy_from_slice(&octets), 131_072).unwrap().unwrap();
        let mut written = Vec::new();
        frame.encode(&mut written, 131_072).unwrap();
        assert_eq!(written, octets, "{frame:?}");
        let name = name_of(&frame);
        let value = format!("{frame:?}");
        if !self.record.iter().any(|(_, recorded, _)| *recorded == octets) {
            self.record.push((name.clone(), octets, value));
        }
        name
    }

    async fn publish(&mut self, number: u16, publish: basic::Publish, properties: Properties, body: &'static str) {
        let mut octets = Vec::new();
        properties.encode(&mut octets).unwrap();
        let header = ContentHeader { body_size: body.len() as u64, properties: RawProperties::new(octets.into()) };
        self.say(number, publish).await;
        self.frames.send(&Frame::Header(number, header)).await.unwrap();
        if !body.is_empty() {
            self.frames.send(&Frame::Body(number, body.into())).await.unwrap();
        }
    }
}

fn address() -> String {
    let url = std::env::var("LEVERET_RABBITMQ_URL").unwrap_or_else(|_| panic!("tests/run gives the URL of a RabbitMQ"));
    let (_, rest) = url.rsplit_once('@').unwrap();
    rest.split('/').next().unwrap().to_owned()
}

async fn everything() -> Vec<(String, Vec<u8>, String)> {
    let address = address();
    let mut talk = Talk::begin(&address, "/").await;
    talk.until("connection.open-ok").await;
    talk.ask(
        0,
        connection::UpdateSecret { new_secret: "guest".into(), reason: "test".into() },
        "connection.update-secret-ok",
    )
    .await;
    for number in 1..=3 {
        talk.ask(number, channel::Open::default(), "channel.open-ok").await;
    }
    let (one, other) = ("leveret.captured", "leveret.captured.other");
    talk.ask(
        1,
        exchange::Declare { exchange: one.into(), kind: "topic".into(), ..Default::default() },
        "exchange.declare-ok",
    )
    .await;
    talk.ask(
        1,
        exchange::Declare { exchange: other.into(), kind: "fanout".into(), ..Default::default() },
        "exchange.declare-ok",
    )
    .await;
    talk.ask(
        1,
        exchange::Bind { destination: one.into(), source: other.into(), ..Default::default() },
        "exchange.bind-ok",
    )
    .await;
    talk.ask(
        1,
        exchange::Unbind { destination: one.into(), source: other.into(), ..Default::default() },
        "exchange.unbind-ok",
    )
    .await;
    talk.ask(1, queue::Declare { queue: one.into(), exclusive: true, ..Default::default() }, "queue.declare-ok").await;
    talk.ask(
        1,
        queue::Bind { queue: one.into(), exchange: one.into(), routing_key: "#".into(), ..Default::default() },
        "queue.bind-ok",
    )
    .await;
    talk.ask(1, basic::Qos { prefetch_count: 10, ..Default::default() }, "basic.qos-ok").await;
    talk.ask(1, confirm::Select::default(), "confirm.select-ok").await;

    // A message with everything a message can have.
    let inner = FieldTable::new().with("inner", "table");
    let headers = FieldTable::new()
        .with("bool", true)
        .with("i8", -1_i8)
        .with("u8", 255_u8)
        .with("i16", -2_i16)
        .with("u16", 65535_u16)
        .with("i32", -3_i32)
        .with("u32", u32::MAX)
        .with("i64", i64::MIN)
        .with("f32", 1.5_f32)
        .with("f64", -2.5_f64)
        .with("text", "text")
        .with("table", inner)
        .with("array", vec![leveret::codec::FieldValue::Void, 1_i32.into()]);
    let properties = Properties {
        headers: Some(headers),
        ..Properties::new()
            .content_type("text/plain")
            .content_encoding("utf-8")
            .persistent()
            .priority(3)
            .correlation_id("c")
            .reply_to("r")
            .expiration("600000")
            .message_id("m")
            .timestamp(1_700_000_000_u64)
            .kind("t")
            .user_id("guest")
            .app_id("a")
            .cluster_id("x")
    };
    let publish = |exchange: &str, mandatory| basic::Publish {
        exchange: exchange.into(),
        routing_key: "a.b".into(),
        mandatory,
        ..Default::default()
    };
    talk.publish(1, publish(one, false), properties, "hello").await;
    talk.until("basic.ack").await;
    talk.ask(1, basic::Get { queue: one.into(), ..Default::default() }, "body").await;
    talk.ask(1, basic::Recover { requeue: true }, "basic.recover-ok").await;
    talk.ask(
        1,
        basic::Consume { queue: one.into(), consumer_tag: "tag".into(), ..Default::default() },
        "basic.consume-ok",
    )
    .await;
    talk.until("body").await;
    talk.publish(1, publish("", true), Properties::new(), "to nobody").await;
    talk.until("basic.return").await;
    talk.until("basic.ack").await;
    talk.ask(1, basic::Cancel { consumer_tag: "tag".into(), no_wait: false }, "basic.cancel-ok").await;
    talk.say(1, basic::Ack { delivery_tag: 0, multiple: true }).await;
    talk.ask(1, queue::Purge { queue: one.into(), ..Default::default() }, "queue.purge-ok").await;
    talk.ask(1, basic::Get { queue: one.into(), ..Default::default() }, "basic.get-empty").await;
    talk.ask(1, channel::Flow { active: true }, "channel.flow-ok").await;
    talk.ask(
        1,
        queue::Unbind { queue: one.into(), exchange: one.into(), routing_key: "#".into(), ..Default::default() },
        "queue.unbind-ok",
    )
    .await;

    // A queue that is full refuses.
    let arguments = FieldTable::new().with("x-max-length", 1_i32).with("x-overflow", "reject-publish");
    talk.ask(
        1,
        queue::Declare { queue: other.into(), exclusive: true, arguments, ..Default::default() },
        "queue.declare-ok",
    )
    .await;
    let to_other = || basic::Publish { routing_key: other.into(), ..Default::default() };
    talk.publish(1, to_other(), Properties::new(), "first").await;
    talk.until("basic.ack").await;
    talk.publish(1, to_other(), Properties::new(), "second").await;
    talk.until("basic.nack").await;

    for (ask, answer) in [
        (Method::from(tx::Select {}), "tx.select-ok"),
        (tx::Commit {}.into(), "tx.commit-ok"),
        (tx::Rollback {}.into(), "tx.rollback-ok"),
    ] {
        talk.ask(2, ask, answer).await;
    }
    // A consumer whose queue goes is cancelled.
    talk.ask(
        2,
        basic::Consume { queue: one.into(), consumer_tag: "orphan".into(), ..Default::default() },
        "basic.consume-ok",
    )
    .await;
    talk.say(1, queue::Delete { queue: one.into(), ..Default::default() }).await;
    let mut both = ["basic.cancel", "queue.delete-ok"].to_vec();
    while !both.is_empty() {
        let raw = talk.frames.next_unchecked().await.unwrap().unwrap();
        let name = talk.take(&raw);
        both.retain(|due| *due != name);
    }
    talk.ask(1, exchange::Delete { exchange: one.into(), ..Default::default() }, "exchange.delete-ok").await;
    talk.ask(1, exchange::Delete { exchange: other.into(), ..Default::default() }, "exchange.delete-ok").await;

    talk.ask(3, queue::Declare { queue: "leveret.none".into(), passive: true, ..Default::default() }, "channel.close")
        .await;
    talk.say(3, channel::CloseOk {}).await;
    talk.ask(2, channel::Close::default(), "channel.close-ok").await;
    talk.ask(0, connection::Close::default(), "connection.close-ok").await;

    let mut refused = Talk::begin(&address, "nowhere").await;
    refused.until("connection.close").await;
    talk.record.append(&mut refused.record);
    talk.record
}

#[test]
#[ignore = "needs RabbitMQ: run tests/run"]
fn rabbitmq_is_read_and_written_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let record = runtime.block_on(everything());
    let mut names: Vec<&str> = record.iter().map(|(name, ..)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() >= 35, "{names:?}");
    let Ok(file) = std::env::var("LEVERET_CAPTURE") else { return };
    let mut text = String::from(
        "# What a RabbitMQ has said, frame by frame. Written by tests/spec/captured.rs; README.md says how to read this.\n\n",
    );
    for (name, octets, value) in &record {
        let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        writeln!(text, "{name}\n    {hex}\n    {value}").unwrap();
    }
    std::fs::write(file, text).unwrap();
}
