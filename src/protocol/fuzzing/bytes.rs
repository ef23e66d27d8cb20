//! Octets from the peer, handed over at once and in pieces.

use std::collections::VecDeque;
use std::task::Poll;
use std::time::Instant;

use ::bytes::BytesMut;

use super::octets;
use super::waiting::Bell;
use crate::codec::method::{basic, channel, confirm, connection, queue};
use crate::codec::{FieldTable, Frame, ProtocolHeader};
use crate::error::{Error, ErrorKind};
use crate::protocol::client::{self, CallId, ChannelId, ConsumerId, Deliveries, Publish};
use crate::protocol::server::{self, Event};
use crate::protocol::{Body, OutBuffer, Wakes};

/// What may be answered beyond what came: the words of a close, and a handshake.
const WORDS: usize = 2048;

/// How the first octet is understood: where to begin, and how the rest is cut.
fn beginning(data: &[u8]) -> (usize, usize, &[u8]) {
    match data {
        [] => (0, 1, data),
        [first, rest @ ..] => (usize::from(first & 3), usize::from(first >> 2).max(1), rest),
    }
}

// ---------------------------------------------------------------------------------------------------------- the client

/// A client that waits for everything one can wait for.
struct Client {
    machine: client::Connection,
    channel: Option<ChannelId>,
    calls: Vec<(CallId, Bell)>,
    consumer: Option<(ConsumerId, Bell)>,
    confirms: Vec<(u64, Bell)>,
    returned: Bell,
    opened: Bell,
    ended: Bell,
}

/// What has become of a client: what it says, why it ended, what it got.
#[derive(Debug, PartialEq)]
struct Outcome {
    said: Vec<u8>,
    end: Option<String>,
    finished: bool,
    blocked: Option<String>,
    left: usize,
    got: Vec<String>,
}

/// What a server says until everything is open: the answers to [`Client::open`].
fn answers(stage: usize) -> Vec<u8> {
    let mechanisms = ::bytes::Bytes::from_static(b"PLAIN");
    let start =
        connection::Start { version_minor: 9, mechanisms, server_properties: FieldTable::new(), ..Default::default() };
    let tune = connection::Tune { channel_max: 3, frame_max: 4096, heartbeat: 0 };
    let mut frames = vec![Frame::Method(0, start.into())];
    if stage > 1 {
        frames.push(Frame::Method(0, tune.into()));
        frames.push(Frame::Method(0, connection::OpenOk::default().into()));
    }
    octets(&frames)
}

impl Client {
    /// 0: nothing has come. 1: start has. 2: the connection is open, and a channel with requests, a consumer and unconfirmed
    /// messages. 3: the same, with the channel closing.
    fn open(stage: usize, now: Instant) -> Self {
        let config = client::Config { max_message_size: 10_000, ..Default::default() };
        let mut client = Self {
            machine: client::Connection::new(config, now),
            channel: None,
            calls: Vec::new(),
            consumer: None,
            confirms: Vec::new(),
            returned: Bell::new(),
            opened: Bell::new(),
            ended: Bell::new(),
        };
        if stage > 0 {
            client.machine.feed(&mut answers(stage).as_slice().into(), now);
        }
        if stage > 1 && client.prepare(now).is_err() {
            unreachable!("an open connection refuses what every program does");
        }
        if let (3, Some(id)) = (stage, client.channel) {
            let close = client.machine.close_channel(id, crate::codec::ReplyCode::REPLY_SUCCESS, "");
            client.calls.extend(close.ok().flatten().map(|call| (call, Bell::new())));
        }
        client
    }

    fn prepare(&mut self, now: Instant) -> Result<(), Error> {
        let (id, _) = self.machine.open_channel()?;
        self.channel = Some(id);
        self.machine.feed(&mut octets(&[Frame::Method(1, channel::OpenOk::default().into())]).as_slice().into(), now);
        let consume = basic::Consume { consumer_tag: "c".into(), ..Default::default() };
        let (consumer, call) = self.machine.consume(id, consume)?;
        self.consumer = Some((consumer, Bell::new()));
        self.calls.push((call, Bell::new()));
        for method in [
            confirm::Select::default().into(),
            queue::Declare::default().into(),
            basic::Get::default().into(),
            queue::Purge::default().into(),
        ] {
            self.calls.push((self.machine.call(id, method, 100)?, Bell::new()));
        }
        for mandatory in [false, true, true, false] {
            let body = Body::Borrowed(b"body");
            let publish = Publish {
                exchange: b"",
                routing_key: b"a",
                mandatory,
                immediate: false,
                stamped: false,
                properties: None,
                body,
            };
            if let Poll::Ready(tag) = self.machine.poll_publish(id, &publish, &mut None, std::task::Waker::noop()) {
                self.confirms.push((tag?, Bell::new()));
            }
        }
        Ok(())
    }

    /// Asks for everything. What is there goes into `got`; the number of those who still wait is returned.
    fn poll(&mut self, got: &mut Vec<String>) -> usize {
        let mut waiting = 0;
        waiting += usize::from(self.machine.poll_open(&mut None, self.opened.waker()).is_pending());
        waiting += usize::from(self.machine.poll_ended(&mut None, self.ended.waker()).is_pending());
        let Some(id) = self.channel else { return waiting };
        for (call, bell) in &self.calls {
            match self.machine.poll_call(id, *call, bell.waker()) {
                Poll::Pending => waiting += 1,
                Poll::Ready(reply) => got.push(format!("{call:?} {reply:?}")),
            }
        }
        for (tag, bell) in &self.confirms {
            match self.machine.poll_confirm(id, *tag, bell.waker()) {
                Poll::Pending => waiting += 1,
                Poll::Ready(confirmation) => got.push(format!("{tag} {confirmation:?}")),
            }
        }
        loop {
            match self.machine.poll_returned(id, &mut None, self.returned.waker()) {
                Poll::Pending => waiting += 1,
                Poll::Ready(None) => {}
                Poll::Ready(Some(returned)) => {
                    got.push(format!("{returned:?}"));
                    continue;
                }
            }
            break;
        }
        let Some((consumer, bell)) = &self.consumer else { return waiting };
        loop {
            let mut batches = VecDeque::new();
            match self.machine.poll_deliveries(id, *consumer, &mut batches, bell.waker()) {
                Poll::Pending => waiting += 1,
                Poll::Ready(Deliveries::End(reason)) => got.push(format!("the end {reason:?}")),
                Poll::Ready(Deliveries::Some) => {
                    for batch in batches {
                        let memory = batch.memory();
                        for (place, one) in batch.delivered().iter().enumerate() {
                            let body = batch.body(place);
                            let address = one.layout.address(memory);
                            let properties = one.layout.properties(memory);
                            got.push(format!(
                                "{} {} {address:?} {properties:?} {body:?}",
                                one.delivery_tag, one.redelivered
                            ));
                        }
                    }
                    continue;
                }
            }
            break;
        }
        waiting
    }

    fn bells(&self) -> impl Iterator<Item = &Bell> {
        let calls = self.calls.iter().map(|(_, bell)| bell);
        let confirms = self.confirms.iter().map(|(_, bell)| bell);
        calls.chain(confirms).chain(self.consumer.as_ref().map(|(_, bell)| bell)).chain([
            &self.returned,
            &self.opened,
            &self.ended,
        ])
    }

    fn fed(mut self, data: &[u8], piece: usize, now: Instant) -> Outcome {
        let mut input = BytesMut::new();
        for piece in data.chunks(piece) {
            input.extend_from_slice(piece);
            self.machine.feed(&mut input, now);
        }
        let mut out = OutBuffer::new();
        self.machine.take_output(&mut out, now);
        assert!(out.len() <= data.len() + WORDS, "{} octets are answered with {}", data.len(), out.len());
        let mut got = Vec::new();
        self.poll(&mut got);
        let outcome = Outcome {
            said: out.to_vec(),
            end: self.machine.end().map(ToString::to_string),
            finished: self.machine.is_finished(),
            blocked: self.machine.blocked().map(str::to_owned),
            left: input.len(),
            got,
        };
        self.over();
        outcome
    }

    /// The stream ends: nobody goes on waiting, and who was waiting is woken.
    fn over(&mut self) {
        self.bells().for_each(|bell| {
            bell.take();
        });
        self.machine.take_wakes(&mut Wakes::default());
        let waiting = self.poll(&mut Vec::new());
        self.machine.terminate(Error::new(ErrorKind::Io, "the stream has ended"));
        let mut wakes = Wakes::default();
        self.machine.take_wakes(&mut wakes);
        wakes.release();
        let woken = self.bells().filter(|bell| bell.take()).count();
        assert_eq!(woken, waiting, "woken, of those who waited");
        assert_eq!(self.poll(&mut Vec::new()), 0, "nobody waits for what is over");
    }
}

/// Octets from a server: a client comes to the same whether they arrive at once or in pieces, and whoever waits is woken when it
/// is over.
pub fn client_bytes(data: &[u8], now: Instant) {
    let (stage, piece, data) = beginning(data);
    let whole = Client::open(stage, now).fed(data, usize::MAX, now);
    let pieces = Client::open(stage, now).fed(data, piece, now);
    assert_eq!(whole, pieces, "in pieces of {piece}");
}

// ---------------------------------------------------------------------------------------------------------- the server

fn server(stage: usize, data: &[u8], piece: usize, now: Instant) -> (Vec<u8>, Vec<String>, bool) {
    let config = server::Config { max_message_size: 10_000, channel_max: 4, ..Default::default() };
    let mut machine = server::Connection::new(config, now);
    let mut events = Vec::new();
    let mut input = BytesMut::new();
    if stage > 0 {
        input.extend_from_slice(&ProtocolHeader::AMQP_0_9_1.to_bytes());
    }
    if stage > 1 {
        let response = ::bytes::Bytes::from_static(b"\0u\0p");
        let tune = connection::TuneOk { channel_max: 4, frame_max: 8192, heartbeat: 0 };
        input.extend_from_slice(&octets(&[
            Frame::Method(0, connection::StartOk { mechanism: "PLAIN".into(), response, ..Default::default() }.into()),
            Frame::Method(0, tune.into()),
            Frame::Method(0, connection::Open::default().into()),
            Frame::Method(1, channel::Open::default().into()),
            Frame::Method(2, channel::Open::default().into()),
        ]));
    }
    act(&mut machine, &mut input, &mut events, now);
    if stage > 2 {
        machine.close_channel(1, crate::codec::ReplyCode::NOT_FOUND, "", (0, 0));
    }
    let mut out = OutBuffer::new();
    machine.take_output(&mut out, now);
    out.clear();
    for piece in data.chunks(piece) {
        input.extend_from_slice(piece);
        act(&mut machine, &mut input, &mut events, now);
    }
    machine.take_output(&mut out, now);
    assert!(out.len() <= data.len() + WORDS, "{} octets are answered with {}", data.len(), out.len());
    let finished = machine.is_finished();
    machine.terminate(Error::new(ErrorKind::Io, "the stream has ended"));
    assert!(machine.is_finished() && machine.timeout().is_none());
    let last = machine.next_event();
    assert!(finished || matches!(last, None | Some(Event::Closed(_))), "{last:?}");
    (out.to_vec(), events, finished)
}

/// What an owner does who agrees to everything.
fn act(machine: &mut server::Connection, input: &mut BytesMut, events: &mut Vec<String>, now: Instant) {
    loop {
        machine.feed(input, now);
        let Some(event) = machine.next_event() else { return };
        events.push(format!("{event:?}"));
        match event {
            Event::Authenticate(_) => machine.accept_login(),
            Event::Open { .. } => machine.accept_open(),
            Event::ChannelClose(number) => machine.accept_close(number),
            Event::Close => machine.accept_close(0),
            _ => {}
        }
    }
}

/// Octets from a client: a server sees the same events and says the same, whether they arrive at once or in pieces.
pub fn server_bytes(data: &[u8], now: Instant) {
    let (stage, piece, data) = beginning(data);
    let whole = server(stage, data, usize::MAX, now);
    let pieces = server(stage, data, piece, now);
    assert_eq!(whole, pieces, "in pieces of {piece}");
}
