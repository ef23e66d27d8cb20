//! A client that knows frames and nothing else, and writes down what it hears.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly, here too")]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use leveret::broker::Broker;
use leveret::codec::method::{basic, channel, connection, exchange, queue};
use leveret::codec::{ContentHeader, FieldTable, Frame, Method, Properties, ProtocolHeader, RawProperties};
use leveret::transport::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const MAX_PAYLOAD: usize = 131_072 - 8;

pub(crate) struct Raw {
    stream: Stream,
    input: BytesMut,
    /// The name that the broker gave last.
    last_name: String,
}

/// A broker and a client with channel 1 open.
pub(crate) async fn start() -> (Broker, Raw) {
    let broker = Broker::start().await.unwrap();
    let client = Raw::open(&broker).await;
    (broker, client)
}

pub(crate) fn capabilities() -> FieldTable {
    let names = ["authentication_failure_close", "consumer_cancel_notify", "connection.blocked"];
    let capabilities: FieldTable = names.iter().map(|name| (*name, true)).collect();
    FieldTable::new().with("capabilities", capabilities)
}

impl Raw {
    /// Opens a connection and channel 1.
    pub(crate) async fn open(broker: &Broker) -> Self {
        Self::open_over(broker.connect()).await
    }

    /// The same through a socket.
    pub(crate) async fn open_over_tcp(broker: &Broker) -> Self {
        let socket = TcpStream::connect(broker.local_addr()).await.unwrap();
        Self::open_over(Stream::tcp(socket).unwrap()).await
    }

    async fn open_over(stream: Stream) -> Self {
        let mut client = Self::connect(stream).await;
        client.login("guest", "guest").await;
        client.says(["connection.tune"]).await;
        client.tune_and_open("/").await;
        client.says(["connection.open-ok"]).await;
        client.open_channel(1).await;
        client
    }

    /// The handshake up to `connection.start`.
    pub(crate) async fn connect(stream: Stream) -> Self {
        let mut client = Self { stream, input: BytesMut::new(), last_name: String::new() };
        client.raw(&ProtocolHeader::AMQP_0_9_1.to_bytes()).await;
        client.says(["connection.start"]).await;
        client
    }

    pub(crate) async fn login(&mut self, user: &str, password: &str) {
        self.login_as(capabilities(), "PLAIN", format!("\0{user}\0{password}").into()).await;
    }

    pub(crate) async fn login_as(&mut self, client_properties: FieldTable, mechanism: &str, response: Bytes) {
        let mechanism = mechanism.into();
        self.send(0, connection::StartOk { client_properties, mechanism, response, locale: "en_US".into() }).await;
    }

    pub(crate) async fn tune_and_open(&mut self, virtual_host: &str) {
        self.send(0, connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 0 }).await;
        self.send(0, connection::Open { virtual_host: virtual_host.into(), ..Default::default() }).await;
    }

    pub(crate) async fn open_channel(&mut self, number: u16) {
        self.send(number, channel::Open::default()).await;
        let expected = if number == 1 { "channel.open-ok".into() } else { format!("{number}: channel.open-ok") };
        self.says([expected]).await;
    }

    pub(crate) async fn raw(&mut self, octets: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(octets)).await.unwrap().unwrap();
    }

    pub(crate) async fn frames(&mut self, frames: &[Frame]) {
        let mut octets = Vec::new();
        for frame in frames {
            frame.encode(&mut octets, MAX_PAYLOAD).unwrap();
        }
        self.raw(&octets).await;
    }

    pub(crate) async fn send(&mut self, number: u16, method: impl Into<Method>) {
        self.frames(&[Frame::Method(number, method.into())]).await;
    }

    // ------------------------------------------------------------------------------------------------ short requests

    pub(crate) async fn declare(&mut self, queue: &str) {
        self.send(1, queue::Declare { queue: queue.into(), ..Default::default() }).await;
        self.says([format!("declare-ok {queue} 0 0")]).await;
    }

    pub(crate) async fn counts(&mut self, queue: &str, messages: u32, consumers: u32) {
        self.send(1, queue::Declare { queue: queue.into(), passive: true, ..Default::default() }).await;
        self.says([format!("declare-ok {queue} {messages} {consumers}")]).await;
    }

    pub(crate) async fn exchange(&mut self, exchange: &str, kind: &str) {
        self.send(1, exchange::Declare { exchange: exchange.into(), kind: kind.into(), ..Default::default() }).await;
        self.says(["exchange.declare-ok"]).await;
    }

    pub(crate) async fn bind(&mut self, queue: &str, exchange: &str, key: &str) {
        self.bind_with(queue, exchange, key, FieldTable::new()).await;
    }

    pub(crate) async fn bind_with(&mut self, queue: &str, exchange: &str, key: &str, arguments: FieldTable) {
        let (queue, exchange, routing_key) = (queue.into(), exchange.into(), key.into());
        self.send(1, queue::Bind { queue, exchange, routing_key, arguments, ..Default::default() }).await;
        self.says(["queue.bind-ok"]).await;
    }

    pub(crate) async fn consume(&mut self, number: u16, queue: &str, tag: &str) {
        let consume = basic::Consume { queue: queue.into(), consumer_tag: tag.into(), ..Default::default() };
        self.send(number, consume).await;
        let prefix = if number == 1 { String::new() } else { format!("{number}: ") };
        self.says([format!("{prefix}consume-ok {tag}")]).await;
    }

    pub(crate) async fn qos(&mut self, number: u16, prefetch_count: u16, global: bool) {
        self.send(number, basic::Qos { prefetch_size: 0, prefetch_count, global }).await;
        self.says([if number == 1 { "basic.qos-ok".into() } else { format!("{number}: basic.qos-ok") }]).await;
    }

    pub(crate) async fn get(&mut self, queue: &str, no_ack: bool) {
        self.send(1, basic::Get { queue: queue.into(), no_ack, ..Default::default() }).await;
    }

    /// A message out of a queue, without settling; `None` when it is empty.
    pub(crate) async fn fetch(&mut self, queue: &str) -> Option<(Properties, Bytes)> {
        self.get(queue, true).await;
        match self.frame().await {
            Some(Frame::Method(_, Method::Basic(basic::Method::GetOk(_)))) => Some(self.content().await),
            Some(Frame::Method(_, Method::Basic(basic::Method::GetEmpty(_)))) => None,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn ack(&mut self, number: u16, delivery_tag: u64, multiple: bool) {
        self.send(number, basic::Ack { delivery_tag, multiple }).await;
    }

    pub(crate) async fn nack(&mut self, number: u16, delivery_tag: u64, multiple: bool, requeue: bool) {
        self.send(number, basic::Nack { delivery_tag, multiple, requeue }).await;
    }

    pub(crate) async fn publish(&mut self, exchange: &str, key: &str, body: &str) {
        self.publish_with(1, publish(exchange, key), &Properties::new(), body.as_bytes()).await;
    }

    pub(crate) async fn publish_with(
        &mut self,
        number: u16,
        publish: basic::Publish,
        properties: &Properties,
        body: &[u8],
    ) {
        self.frames(&content(number, publish, properties, body)).await;
    }

    /// Closes the connection, and hears the end of it.
    pub(crate) async fn close(mut self) {
        self.send(0, connection::Close::default()).await;
        self.says(["connection.close-ok", "end"]).await;
    }

    // ------------------------------------------------------------------------------------------------------ listening

    /// The next things the broker says are these.
    pub(crate) async fn says<T: AsRef<str>>(&mut self, lines: impl IntoIterator<Item = T>) {
        for line in lines {
            assert_eq!(self.next().await, line.as_ref());
        }
    }

    /// Nothing is said: a request that comes now is answered at once.
    pub(crate) async fn is_quiet(&mut self) {
        self.qos(1, 0, false).await;
    }

    /// Nothing is said, and a request would not be answered, either: nothing comes for a moment.
    pub(crate) async fn hears_nothing(&mut self) {
        let read = timeout(Duration::from_millis(20), self.stream.read_buf(&mut self.input)).await;
        assert!(read.is_err(), "{:?}", self.input);
    }

    /// The name that the broker gave last, to a queue or to a consumer.
    pub(crate) fn given_name(&self) -> String {
        self.last_name.clone()
    }

    /// The next thing the broker says, as a line. Closes are answered.
    pub(crate) async fn next(&mut self) -> String {
        let Some(frame) = self.frame().await else { return "end".into() };
        let (number, line) = match frame {
            Frame::Method(number, method) if method.info().has_content => {
                let (properties, body) = self.content().await;
                (number, with_content(method, &properties, &body))
            }
            Frame::Method(number, method) => (number, self.line(number, method).await),
            Frame::Heartbeat => (0, "heartbeat".into()),
            other => panic!("{other:?} without a method before it"),
        };
        if number < 2 { line } else { format!("{number}: {line}") }
    }

    async fn line(&mut self, number: u16, method: Method) -> String {
        match method {
            Method::Queue(queue::Method::DeclareOk(ok)) => {
                self.last_name = ok.queue.to_string();
                format!("declare-ok {} {} {}", ok.queue, ok.message_count, ok.consumer_count)
            }
            Method::Queue(queue::Method::DeleteOk(ok)) => format!("delete-ok {}", ok.message_count),
            Method::Queue(queue::Method::PurgeOk(ok)) => format!("purge-ok {}", ok.message_count),
            Method::Basic(basic::Method::ConsumeOk(ok)) => {
                self.last_name = ok.consumer_tag.to_string();
                format!("consume-ok {}", ok.consumer_tag)
            }
            Method::Basic(basic::Method::CancelOk(ok)) => format!("cancel-ok {}", ok.consumer_tag),
            Method::Basic(basic::Method::Cancel(it)) => {
                format!("cancel {}{}", it.consumer_tag, if it.no_wait { " no-wait" } else { "" })
            }
            Method::Basic(basic::Method::Ack(ack)) => {
                format!("ack {}{}", ack.delivery_tag, if ack.multiple { " multiple" } else { "" })
            }
            Method::Basic(basic::Method::Nack(nack)) => {
                format!("nack {}{}", nack.delivery_tag, if nack.multiple { " multiple" } else { "" })
            }
            Method::Channel(channel::Method::Close(close)) => {
                self.answer(number, channel::CloseOk {}).await;
                format!(
                    "channel closed: {} {} ({}.{})",
                    close.reply_code, close.reply_text, close.class_id, close.method_id
                )
            }
            Method::Channel(channel::Method::Flow(flow)) => format!("flow {}", flow.active),
            Method::Connection(connection::Method::Blocked(it)) => format!("blocked {}", it.reason),
            Method::Connection(connection::Method::Close(close)) => {
                self.answer(0, connection::CloseOk {}).await;
                format!(
                    "connection closed: {} {} ({}.{})",
                    close.reply_code, close.reply_text, close.class_id, close.method_id
                )
            }
            method => method.info().name.into(),
        }
    }

    /// Answers a close. The broker may be gone already, where it could not expect an answer.
    async fn answer(&mut self, number: u16, method: impl Into<Method>) {
        let mut octets = Vec::new();
        Frame::Method(number, method.into()).encode(&mut octets, MAX_PAYLOAD).unwrap();
        let _ = timeout(PATIENCE, self.stream.write_all(&octets)).await.unwrap();
    }

    async fn content(&mut self) -> (Properties, Bytes) {
        let Some(Frame::Header(_, header)) = self.frame().await else { panic!("no header") };
        let mut body = BytesMut::new();
        while (body.len() as u64) < header.body_size {
            let Some(Frame::Body(_, piece)) = self.frame().await else { panic!("no body") };
            body.extend_from_slice(&piece);
        }
        (header.properties.decode().unwrap(), body.freeze())
    }

    async fn frame(&mut self) -> Option<Frame> {
        loop {
            let mut whole = self.input.clone().freeze();
            if let Some(frame) = Frame::decode(&mut whole, MAX_PAYLOAD).unwrap() {
                let rest = whole.len();
                let _ = self.input.split_to(self.input.len() - rest);
                return Some(frame);
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await;
            if !matches!(read.expect("the broker says nothing"), Ok(1..)) {
                return None;
            }
        }
    }
}

pub(crate) fn publish(exchange: &str, key: &str) -> basic::Publish {
    basic::Publish { exchange: exchange.into(), routing_key: key.into(), ..Default::default() }
}

pub(crate) fn mandatory(exchange: &str, key: &str) -> basic::Publish {
    basic::Publish { mandatory: true, ..publish(exchange, key) }
}

/// The frames of a message.
pub(crate) fn content(number: u16, publish: basic::Publish, properties: &Properties, body: &[u8]) -> Vec<Frame> {
    let mut octets = Vec::new();
    properties.encode(&mut octets).unwrap();
    let header = ContentHeader { body_size: body.len() as u64, properties: RawProperties::new(octets.into()) };
    let mut frames = vec![Frame::Method(number, publish.into()), Frame::Header(number, header)];
    frames.extend(body.chunks(MAX_PAYLOAD).map(|piece| Frame::Body(number, Bytes::copy_from_slice(piece))));
    frames
}

fn with_content(method: Method, properties: &Properties, body: &[u8]) -> String {
    let body = if body.len() > 100 { format!("{} octets", body.len()) } else { String::from_utf8_lossy(body).into() };
    let again = |redelivered| if redelivered { " again" } else { "" };
    let reply_to = properties.reply_to.as_ref().map(|name| format!(" reply-to {name}")).unwrap_or_default();
    match method {
        Method::Basic(basic::Method::Deliver(it)) => format!(
            "deliver {} {}{} {}/{} {body}{reply_to}",
            it.consumer_tag,
            it.delivery_tag,
            again(it.redelivered),
            it.exchange,
            it.routing_key
        ),
        Method::Basic(basic::Method::GetOk(it)) => format!(
            "get-ok {}{} {}/{} {body}{reply_to}, {} left",
            it.delivery_tag,
            again(it.redelivered),
            it.exchange,
            it.routing_key,
            it.message_count
        ),
        Method::Basic(basic::Method::Return(it)) => {
            format!("return {} {} {}/{} {body}", it.reply_code, it.reply_text, it.exchange, it.routing_key)
        }
        other => other.info().name.into(),
    }
}
