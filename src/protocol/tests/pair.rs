//! Two machines, the octets between them, and a server's owner that does the least a broker does.

use std::collections::VecDeque;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::codec::method::{basic, channel, confirm, queue};
use crate::codec::{Method, Properties, RawProperties};
use crate::error::Error;
use crate::protocol::client::{self, CallId, ChannelId, Config, Confirmation, ConsumerId, Deliveries, Publish, Reply};
use crate::protocol::server::{self, Event};
use crate::protocol::{Body, Content, OutBuffer};

/// How the octets of one direction are handed over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    /// As they come.
    Never,
    /// In pieces of this size.
    Every(usize),
    /// Once, after so many octets.
    At(usize),
}

pub(super) struct Pair {
    pub(super) client: client::Connection,
    pub(super) server: server::Connection,
    pub(super) now: Instant,
    /// Whether octets get through.
    pub(super) connected: bool,
    /// Whether the server's owner answers requests.
    pub(super) answering: bool,
    /// What the server's owner saw.
    pub(super) events: Vec<Event>,
    to_client: Pipe,
    to_server: Pipe,
    published: u64,
    delivery_tag: u64,
}

struct Pipe {
    cut: Cut,
    under_way: VecDeque<u8>,
    input: BytesMut,
    /// Octets handed over so far.
    carried: usize,
}

impl Pipe {
    fn new(cut: Cut) -> Self {
        Self { cut, under_way: VecDeque::new(), input: BytesMut::new(), carried: 0 }
    }

    /// Puts the next piece into `input`.
    fn next(&mut self) -> bool {
        let size = match self.cut {
            Cut::Never => usize::MAX,
            Cut::Every(size) => size,
            Cut::At(place) if self.carried < place => place - self.carried,
            Cut::At(_) => usize::MAX,
        };
        let size = size.min(self.under_way.len());
        self.input.extend(self.under_way.drain(..size));
        self.carried += size;
        size > 0
    }
}

/// A message to the default exchange that asks for nothing.
pub(super) fn plain<'a>(routing_key: &'a str, body: Body<'a>) -> Publish<'a> {
    let routing_key = routing_key.as_bytes();
    Publish { exchange: b"", routing_key, mandatory: false, immediate: false, stamped: false, properties: None, body }
}

impl Pair {
    pub(super) fn new(config: Config, cut: Cut) -> Self {
        let now = Instant::now();
        let server_config = server::Config { heartbeat: config.heartbeat, ..server::Config::default() };
        Self {
            client: client::Connection::new(config, now),
            server: server::Connection::new(server_config, now),
            now,
            connected: true,
            answering: true,
            events: Vec::new(),
            to_client: Pipe::new(cut),
            to_server: Pipe::new(cut),
            published: 0,
            delivery_tag: 0,
        }
    }

    /// Two machines after their handshake.
    pub(super) fn open() -> Self {
        let mut pair = Self::new(Config::default(), Cut::Never);
        pair.drive();
        assert!(matches!(pair.client.poll_open(&mut None, Waker::noop()), Poll::Ready(Ok(()))));
        pair
    }

    /// With one open channel.
    pub(super) fn with_channel() -> (Self, ChannelId) {
        let mut pair = Self::open();
        let channel = pair.open_channel();
        (pair, channel)
    }

    /// Octets that the server has sent, and the client has taken, so far.
    pub(super) fn received_by_client(&self) -> usize {
        self.to_client.carried
    }

    pub(super) fn received_by_server(&self) -> usize {
        self.to_server.carried
    }

    /// Lets everything happen that needs no time.
    pub(super) fn drive(&mut self) {
        loop {
            let mut out = OutBuffer::new();
            self.client.take_output(&mut out, self.now);
            self.to_server.under_way.extend(out.to_vec());
            out.clear();
            self.server.take_output(&mut out, self.now);
            self.to_client.under_way.extend(out.to_vec());
            if !self.connected {
                self.to_client.under_way.clear();
                self.to_server.under_way.clear();
            }
            let moved = self.to_server.next() | self.to_client.next();
            if !moved {
                return;
            }
            self.client.feed(&mut self.to_client.input, self.now);
            loop {
                self.server.feed(&mut self.to_server.input, self.now);
                let Some(event) = self.server.next_event() else { break };
                self.events.push(event.clone());
                self.serve(event);
            }
        }
    }

    /// What the server's owner does.
    fn serve(&mut self, event: Event) {
        match event {
            Event::Authenticate(_) => self.server.accept_login(),
            Event::Open { .. } => self.server.accept_open(),
            Event::ChannelClose(number) => self.server.accept_close(number),
            Event::Close => self.server.accept_close(0),
            Event::Method(number, method) if self.answering => self.answer(number, method),
            Event::Publish(number, _, content) => {
                self.published += 1;
                let ack = basic::Ack { delivery_tag: self.published, multiple: false };
                self.server.send(number, ack);
                if content.routing_key() == "deliver" {
                    self.deliver(number, "tag", content.body());
                }
            }
            _ => {}
        }
    }

    fn answer(&mut self, number: u16, method: Method) {
        match method {
            Method::Queue(queue::Method::Declare(declare)) => {
                let ok = queue::DeclareOk { queue: declare.queue, message_count: 3, consumer_count: 1 };
                self.server.send(number, ok);
            }
            Method::Confirm(confirm::Method::Select(_)) => self.server.send(number, confirm::SelectOk {}),
            Method::Basic(basic::Method::Consume(consume)) => {
                self.server.send(number, basic::ConsumeOk { consumer_tag: consume.consumer_tag });
            }
            Method::Basic(basic::Method::Cancel(cancel)) => {
                self.server.send(number, basic::CancelOk { consumer_tag: cancel.consumer_tag });
            }
            Method::Basic(basic::Method::Get(_)) => self.server.send(number, basic::GetEmpty::default()),
            _ => {}
        }
    }

    /// Delivers a message to a consumer.
    pub(super) fn deliver(&mut self, number: u16, tag: &str, body: &[u8]) {
        self.delivery_tag += 1;
        let deliver = basic::Deliver {
            consumer_tag: tag.into(),
            delivery_tag: self.delivery_tag,
            redelivered: false,
            exchange: "exchange".into(),
            routing_key: "key".into(),
        };
        let mut properties = Vec::new();
        Properties::new().message_id("id").encode(&mut properties).unwrap();
        let (properties, body) = (RawProperties::new(properties.into()), body.to_vec().into());
        self.server.send_content(number, deliver, &properties, &body, self.now);
    }

    /// Answers `basic.get` with a message.
    pub(super) fn get_ok(&mut self, number: u16) {
        self.delivery_tag += 1;
        let get_ok = basic::GetOk { delivery_tag: self.delivery_tag, ..Default::default() };
        self.server.send_content(number, get_ok, &RawProperties::default(), &"body".into(), self.now);
    }

    /// The client hears what the server says, and says nothing itself.
    pub(super) fn hear(&mut self) {
        let mut out = OutBuffer::new();
        self.server.take_output(&mut out, self.now);
        self.to_client.input.extend_from_slice(&out.to_vec());
        self.client.feed(&mut self.to_client.input, self.now);
    }

    pub(super) fn open_channel(&mut self) -> ChannelId {
        let (id, call) = self.client.open_channel().unwrap();
        self.drive();
        assert!(self.client.poll_call(id, call, Waker::noop()).is_ready());
        id
    }

    pub(super) fn call(&mut self, id: ChannelId, method: impl Into<Method>) -> CallId {
        self.client.call(id, method.into(), 1000).unwrap()
    }

    pub(super) fn reply(&mut self, id: ChannelId, call: CallId) -> Poll<Result<Reply, Error>> {
        self.client.poll_call(id, call, Waker::noop())
    }

    pub(super) fn confirm_select(&mut self, id: ChannelId) {
        let call = self.call(id, confirm::Select::default());
        self.drive();
        assert!(self.reply(id, call).is_ready());
    }

    pub(super) fn publish(&mut self, id: ChannelId, routing_key: &str, body: &[u8]) -> Poll<Result<u64, Error>> {
        let publish = plain(routing_key, Body::Borrowed(body));
        self.client.poll_publish(id, &publish, &mut None, Waker::noop())
    }

    pub(super) fn confirmed(&mut self, id: ChannelId, tag: u64) -> Poll<Result<Confirmation, Error>> {
        self.client.poll_confirm(id, tag, Waker::noop())
    }

    pub(super) fn consume(&mut self, id: ChannelId, no_ack: bool) -> ConsumerId {
        let consume = basic::Consume { consumer_tag: "tag".into(), no_ack, ..Default::default() };
        let (consumer, call) = self.client.consume(id, consume).unwrap();
        self.drive();
        assert!(self.reply(id, call).is_ready());
        consumer
    }

    /// The tags and messages that a consumer has got.
    pub(super) fn deliveries(
        &mut self,
        id: ChannelId,
        consumer: ConsumerId,
    ) -> (Vec<(u64, Content)>, Poll<Deliveries>) {
        let mut all = Vec::new();
        loop {
            let mut taken = VecDeque::new();
            let polled = self.client.poll_deliveries(id, consumer, &mut taken, Waker::noop());
            for batch in taken {
                all.extend(batch.delivered().iter().enumerate().map(|(place, one)| {
                    let (memory, layout) = one.layout.alone(batch.memory());
                    let apart = batch.apart(place).cloned().map(Box::new);
                    (one.delivery_tag, Content { memory, layout, apart })
                }));
            }
            if !matches!(polled, Poll::Ready(Deliveries::Some)) {
                return (all, polled);
            }
        }
    }

    /// Lets time pass, calling the machines when they asked for it.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let next = [self.client.timeout(), self.server.timeout()].into_iter().flatten().min();
            match next {
                Some(next) if next <= until => self.now = self.now.max(next),
                _ => break,
            }
            self.client.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
            self.drive();
        }
        self.now = until;
    }

    /// The methods that the server's owner was given, by name.
    pub(super) fn seen(&self) -> Vec<&'static str> {
        let name = |event: &Event| match event {
            Event::Method(_, method) => Some(method.info().name),
            _ => None,
        };
        self.events.iter().filter_map(name).collect()
    }
}

/// `channel.close` as a server sends it when there is no such queue.
pub(super) fn not_found() -> channel::Close {
    channel::Close { reply_code: 404, reply_text: "NOT_FOUND".into(), class_id: 50, method_id: 10 }
}
