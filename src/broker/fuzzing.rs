//! What the fuzz target for the broker asserts. It stands here so that `cargo test` can replay its seeds; nobody else calls it.

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;
use std::time::{Duration, Instant};

use ::arbitrary::{Result, Unstructured};
use bytes::{Bytes, BytesMut};

use super::ConnectionId;
use super::settings::Settings;
use super::state::State;
use crate::codec::method::{MethodInfo, Sender, basic, channel, confirm, connection, exchange, queue};
use crate::codec::{ContentHeader, Frame, Method, Properties, ProtocolHeader, ReplyCode, UncheckedFrame};
use crate::error::{Error, ErrorKind};
use crate::protocol::OutBuffer;

const MOST_STEPS: usize = 200;
const MOST_CLIENTS: usize = 3;
const MAX_PAYLOAD: usize = 8192 - 8;
/// Names that meet each other.
const NAMES: [&str; 4] = ["a", "b", "c", ""];

/// Clients that say what they like: whatever it is, every request is answered or its channel closed, delivery tags count from
/// one, no message is confirmed twice or that was not published, and nothing of a client is left when it has gone.
pub fn broker(data: &[u8], now: Instant) {
    let u = &mut Unstructured::new(data);
    let mut settings = Settings::default();
    settings.machine.frame_max = 8192;
    settings.machine.channel_max = 3;
    settings.machine.max_message_size = 500;
    let mut house = House { state: State::new(settings, now), clients: Vec::new(), now };
    for _ in 0..MOST_STEPS {
        if u.is_empty() || house.step(u).is_err() {
            break;
        }
    }
    house.close();
}

struct House {
    state: State,
    clients: Vec<Client>,
    now: Instant,
}

/// A client, and what it knows.
struct Client {
    id: ConnectionId,
    input: BytesMut,
    output: OutBuffer,
    heard: BytesMut,
    channels: BTreeMap<u16, Channel>,
    /// `connection.close` came, or was sent: nothing counts any more.
    closing: bool,
    gone: bool,
    /// It has broken a rule of the wire, which ends in one way or another.
    broken: bool,
}

#[derive(Default)]
struct Channel {
    opened: bool,
    closing: bool,
    /// What was asked for, in order.
    requests: VecDeque<MethodInfo>,
    last_delivery: u64,
    /// `confirm.select` was sent.
    confirming: bool,
    published: u64,
    confirmed: u64,
    /// A message that is being delivered: octets that are due, once its header has come.
    due: Option<Option<u64>>,
}

impl House {
    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let choice = u.int_in_range(0..=19)?;
        if self.clients.is_empty() || (choice == 0 && self.clients.len() < MOST_CLIENTS) {
            self.admit();
            return Ok(());
        }
        let at = u.choose_index(self.clients.len())?;
        match choice {
            1 => match u.int_in_range(0..=7)? {
                0 => self.state.block("memory"),
                1 => self.state.unblock(),
                2 => self.state.hold_confirms(true),
                3 => self.state.hold_confirms(false),
                4 => self.state.set_flow(u.arbitrary()?),
                5 if u.ratio(1, 8)? => {
                    self.state.close_all(ReplyCode::CONNECTION_FORCED, "maintenance", self.now);
                    self.clients.iter_mut().for_each(|client| client.closing = true);
                }
                _ => self.now += Duration::from_secs(u.int_in_range(0..=30)?),
            },
            2 if u.ratio(1, 4)? => {
                let error = u.arbitrary::<bool>()?.then(|| Error::new(ErrorKind::Io, "the stream has ended"));
                self.leave(at, error);
            }
            3 => self.turn(at, None),
            _ => {
                let mut said = Vec::new();
                if let Some(client) = self.clients.get_mut(at) {
                    client.say(u, &mut said)?;
                    client.input.extend_from_slice(&said);
                }
                if u.ratio(3, 4)? {
                    self.turn(at, None);
                }
            }
        }
        Ok(())
    }

    fn admit(&mut self) {
        let Some(id) = self.state.admit(self.now) else { unreachable!("the broker runs") };
        let mut said = ProtocolHeader::AMQP_0_9_1.to_bytes().to_vec();
        let names = ["authentication_failure_close", "consumer_cancel_notify", "connection.blocked"];
        let capabilities: crate::codec::FieldTable = names.iter().map(|name| (*name, true)).collect();
        let start_ok = connection::StartOk {
            mechanism: "PLAIN".into(),
            response: Bytes::from_static(b"\0guest\0guest"),
            client_properties: crate::codec::FieldTable::new().with("capabilities", capabilities),
            ..Default::default()
        };
        let tune_ok = connection::TuneOk { channel_max: 3, frame_max: 8192, heartbeat: 60 };
        let open = connection::Open { virtual_host: "/".into(), ..Default::default() };
        for method in [start_ok.into(), tune_ok.into(), open.into()] {
            put(&mut said, &Frame::Method(0, method));
        }
        let mut channels = BTreeMap::new();
        for number in 1..=2 {
            put(&mut said, &Frame::Method(number, channel::Open::default().into()));
            channels.insert(number, Channel::opening());
        }
        let client = Client {
            id,
            input: said.as_slice().into(),
            output: OutBuffer::new(),
            heard: BytesMut::new(),
            channels,
            closing: false,
            gone: false,
            broken: false,
        };
        self.clients.push(client);
        self.turn(self.clients.len() - 1, None);
    }

    /// A turn of a client's driver, and what the client hears in it.
    fn turn(&mut self, at: usize, ended: Option<Error>) {
        let Some(client) = self.clients.get_mut(at) else { return };
        if client.gone {
            return;
        }
        let over = ended.is_some();
        let next = self.state.turn(client.id, &mut client.input, &mut client.output, ended, Waker::noop(), self.now);
        drop(self.state.take_wakes());
        let said = client.output.to_vec();
        client.output.clear();
        client.heard.extend_from_slice(&said);
        client.hear();
        client.gone = next.finished || over;
        if client.gone {
            self.state.forget(client.id, self.now);
            self.clients.remove(at);
        }
    }

    fn leave(&mut self, at: usize, error: Option<Error>) {
        match error {
            Some(error) => self.turn(at, Some(error)),
            None => {
                let client = self.clients.remove(at);
                self.state.forget(client.id, self.now);
            }
        }
    }

    /// Everything goes on that was held up; then nobody may be left without an answer, and nothing of those who go.
    fn close(mut self) {
        self.state.unblock();
        self.state.hold_confirms(false);
        for _ in 0..4 {
            for at in (0..self.clients.len()).rev() {
                self.turn(at, None);
            }
        }
        for client in &self.clients {
            for (number, channel) in client.channels.iter().filter(|_| !client.closing && !client.broken) {
                let waiting: Vec<_> = channel.requests.iter().map(|request| request.name).collect();
                assert!(waiting.is_empty() || channel.closing, "no answer on channel {number} to {waiting:?}");
                let due = channel.published - channel.confirmed;
                assert!(due == 0 || channel.closing, "{due} of {} messages are not confirmed", channel.published);
            }
        }
        while !self.clients.is_empty() {
            self.leave(0, None);
        }
        assert!(self.state.clients.is_empty() && self.state.replies.is_empty());
        for queue in self.state.queues.values() {
            assert!(queue.owner.is_none() && queue.consumers().len() == 0, "{queue:?}");
        }
    }
}

impl Channel {
    fn opening() -> Self {
        Self { requests: VecDeque::from([info(&channel::Open::default().into())]), ..Self::default() }
    }
}

impl Client {
    /// What it says next: something that makes sense, mostly.
    fn say(&mut self, u: &mut Unstructured<'_>, said: &mut Vec<u8>) -> Result<()> {
        let number = u.int_in_range(1..=3)?;
        if self.closing || self.broken {
            return Ok(());
        }
        let Some(channel) = self.channels.get_mut(&number) else {
            put(said, &Frame::Method(number, channel::Open::default().into()));
            self.channels.insert(number, Channel::opening());
            return Ok(());
        };
        if channel.closing {
            return Ok(());
        }
        let name = *u.choose(&NAMES)?;
        let method: Method = match u.int_in_range(0..=23)? {
            0 => queue::Declare {
                queue: name.into(),
                exclusive: u.arbitrary()?,
                auto_delete: u.arbitrary()?,
                ..Default::default()
            }
            .into(),
            1 => {
                let kind = *u.choose(&["direct", "fanout", "topic", "headers"])?;
                exchange::Declare {
                    exchange: name.into(),
                    kind: kind.into(),
                    auto_delete: u.arbitrary()?,
                    ..Default::default()
                }
                .into()
            }
            2 => queue::Bind { queue: name.into(), no_wait: false, ..u.arbitrary()? }.into(),
            3 => exchange::Bind {
                destination: name.into(),
                source: (*u.choose(&NAMES)?).into(),
                no_wait: false,
                ..u.arbitrary()?
            }
            .into(),
            4 | 5 => {
                let consumer_tag = (*u.choose(&NAMES)?).into();
                basic::Consume { queue: name.into(), consumer_tag, no_ack: u.arbitrary()?, ..Default::default() }.into()
            }
            6 => basic::Get { queue: name.into(), no_ack: u.arbitrary()?, ..Default::default() }.into(),
            7 => basic::Cancel { consumer_tag: name.into(), no_wait: false }.into(),
            8 => confirm::Select { no_wait: false }.into(),
            9 => basic::Qos { prefetch_count: u.int_in_range(0..=3)?, global: u.arbitrary()?, ..Default::default() }
                .into(),
            10..=12 if channel.last_delivery > 0 => {
                let (delivery_tag, multiple) = (u.int_in_range(1..=channel.last_delivery)?, u.arbitrary()?);
                match u.int_in_range(0..=2)? {
                    0 => basic::Ack { delivery_tag, multiple }.into(),
                    1 => basic::Nack { delivery_tag, multiple, requeue: u.arbitrary()? }.into(),
                    _ => basic::Reject { delivery_tag, requeue: u.arbitrary()? }.into(),
                }
            }
            13..=17 => return self.publish(u, number, said),
            18 => {
                let method: Method = u.arbitrary()?;
                if method.info().sender == Sender::Server {
                    self.broken = true;
                }
                method
            }
            19 => basic::Recover { requeue: true }.into(),
            20 => match u.int_in_range(0..=2)? {
                0 => crate::codec::method::tx::Select {}.into(),
                1 => crate::codec::method::tx::Commit {}.into(),
                _ => crate::codec::method::tx::Rollback {}.into(),
            },
            21 => queue::Delete { queue: name.into(), ..Default::default() }.into(),
            22 if u.ratio(1, 8)? => {
                self.broken = true;
                let mut illegal = Vec::new();
                match u.arbitrary()? {
                    true => u.arbitrary::<UncheckedFrame>()?.write_unchecked(&mut illegal),
                    false => put(&mut illegal, &u.arbitrary()?),
                }
                said.extend_from_slice(&illegal);
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.request(number, method, said);
        Ok(())
    }

    fn request(&mut self, number: u16, method: Method, said: &mut Vec<u8>) {
        let info = method.info();
        if info.has_content || info.name == "channel.close-ok" || matches!(method, Method::Connection(_)) {
            self.broken = true;
        }
        if let Some(channel) = self.channels.get_mut(&number) {
            match &method {
                Method::Channel(channel::Method::Close(_)) => channel.closing = true,
                Method::Channel(channel::Method::Open(_)) => self.broken = true,
                Method::Confirm(confirm::Method::Select(_)) => channel.confirming = true,
                _ => {}
            }
            if !info.replies.is_empty() && !no_wait(&method) {
                channel.requests.push_back(info);
            }
        }
        put(said, &Frame::Method(number, method));
    }

    fn publish(&mut self, u: &mut Unstructured<'_>, number: u16, said: &mut Vec<u8>) -> Result<()> {
        let exchange = *u.choose(&["", "a", "b", "amq.fanout", "amq.topic", "amq.headers"])?;
        let publish = basic::Publish {
            exchange: exchange.into(),
            routing_key: (*u.choose(&NAMES)?).into(),
            mandatory: u.arbitrary()?,
            ..Default::default()
        };
        let properties: Properties = if u.arbitrary()? { u.arbitrary()? } else { Properties::new() };
        let mut octets = Vec::new();
        assert_eq!(properties.encode(&mut octets), Ok(()));
        let body = vec![7; *u.choose(&[0, 1, 100, 501])?];
        put(said, &Frame::Method(number, publish.into()));
        let header =
            ContentHeader { body_size: body.len() as u64, properties: crate::codec::RawProperties::new(octets.into()) };
        put(said, &Frame::Header(number, header));
        if !body.is_empty() {
            put(said, &Frame::Body(number, body.into()));
        }
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.published += u64::from(channel.confirming);
        }
        Ok(())
    }

    fn hear(&mut self) {
        let mut rest = self.heard.split().freeze();
        loop {
            match Frame::decode(&mut rest, MAX_PAYLOAD) {
                Ok(Some(frame)) => self.take(frame),
                Ok(None) => break,
                Err(error) => unreachable!("{error} in what the broker said: {rest:?}"),
            }
        }
        assert!(rest.is_empty(), "the broker said half a frame");
    }

    fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Heartbeat => {}
            Frame::Method(0, method) => match method {
                Method::Connection(connection::Method::Close(_)) => {
                    self.closing = true;
                    put_into(&mut self.input, &Frame::Method(0, connection::CloseOk {}.into()));
                }
                Method::Connection(_) => {}
                other => unreachable!("{other:?} on channel 0"),
            },
            Frame::Method(number, method) => self.method(number, &method),
            Frame::Header(number, header) => {
                let due = self.channels.get_mut(&number).and_then(|channel| channel.due.as_mut());
                let Some(due @ None) = due else { unreachable!("a header on channel {number}") };
                *due = Some(header.body_size);
                self.end_message(number);
            }
            Frame::Body(number, octets) => {
                let due = self.channels.get_mut(&number).and_then(|channel| channel.due.as_mut());
                let Some(Some(due)) = due else { unreachable!("a body on channel {number}") };
                assert!(*due >= octets.len() as u64);
                *due -= octets.len() as u64;
                self.end_message(number);
            }
        }
    }

    fn end_message(&mut self, number: u16) {
        if let Some(channel) = self.channels.get_mut(&number)
            && channel.due == Some(Some(0))
        {
            channel.due = None;
        }
    }

    fn method(&mut self, number: u16, method: &Method) {
        let info = method.info();
        let Some(channel) = self.channels.get_mut(&number) else {
            assert!(self.broken, "{method:?} on channel {number}, which is not open");
            return;
        };
        assert_eq!(channel.due, None, "{method:?} in the middle of a message");
        match method {
            Method::Channel(channel::Method::Close(_)) => {
                put_into(&mut self.input, &Frame::Method(number, channel::CloseOk {}.into()));
                // Where both have closed, ours is still answered (c46).
                if !channel.closing {
                    self.channels.remove(&number);
                }
                return;
            }
            Method::Channel(channel::Method::CloseOk(_)) => {
                self.channels.remove(&number);
                return;
            }
            Method::Channel(channel::Method::OpenOk(_)) => channel.opened = true,
            Method::Basic(
                basic::Method::Deliver(basic::Deliver { delivery_tag, .. })
                | basic::Method::GetOk(basic::GetOk { delivery_tag, .. }),
            ) => {
                channel.last_delivery += 1;
                assert_eq!(*delivery_tag, channel.last_delivery, "c109");
            }
            Method::Basic(basic::Method::Ack(basic::Ack { delivery_tag, multiple })) => {
                let next = channel.confirmed + 1;
                assert!(*delivery_tag == next || (*multiple && *delivery_tag >= next), "{delivery_tag} behind {next}");
                assert!(*delivery_tag <= channel.published || self.broken, "{delivery_tag} was never published");
                channel.confirmed = *delivery_tag;
            }
            _ => {}
        }
        if info.has_content {
            channel.due = Some(None);
        }
        let request = channel.requests.front();
        if let Some(request) = request
            && request.class_id == info.class_id
            && request.replies.contains(&info.method_id)
        {
            channel.requests.pop_front();
        } else {
            let unasked = ["basic.deliver", "basic.ack", "basic.return", "basic.cancel", "channel.flow"];
            assert!(unasked.contains(&info.name) || self.broken, "{} answers nothing: {request:?}", info.name);
        }
    }
}

fn info(method: &Method) -> MethodInfo {
    method.info()
}

/// Whether a request wants no answer.
fn no_wait(method: &Method) -> bool {
    match method {
        Method::Exchange(exchange::Method::Declare(it)) => it.no_wait,
        Method::Exchange(exchange::Method::Delete(it)) => it.no_wait,
        Method::Exchange(exchange::Method::Bind(it)) => it.no_wait,
        Method::Exchange(exchange::Method::Unbind(it)) => it.no_wait,
        Method::Queue(queue::Method::Declare(it)) => it.no_wait,
        Method::Queue(queue::Method::Bind(it)) => it.no_wait,
        Method::Queue(queue::Method::Purge(it)) => it.no_wait,
        Method::Queue(queue::Method::Delete(it)) => it.no_wait,
        Method::Basic(basic::Method::Consume(it)) => it.no_wait,
        Method::Basic(basic::Method::Cancel(it)) => it.no_wait,
        Method::Confirm(confirm::Method::Select(it)) => it.no_wait,
        _ => false,
    }
}

fn put(out: &mut Vec<u8>, frame: &Frame) {
    assert_eq!(frame.encode(out, usize::MAX), Ok(()));
}

fn put_into(input: &mut BytesMut, frame: &Frame) {
    let mut octets = Vec::new();
    put(&mut octets, frame);
    input.extend_from_slice(&octets);
}
