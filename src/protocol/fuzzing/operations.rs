//! A program, its client, and a server: one that is made up as it goes and may break the rules, or a real machine.

use std::collections::BTreeMap;
use std::time::Instant;

use ::arbitrary::{Result, Unstructured};
use ::bytes::BytesMut;

use super::owner::Owner;
use super::session::{Session, body_of};
use super::words::Words;
use super::{blank_reply, octets};
use crate::codec::method::{MethodInfo, Sender, basic, channel, connection};
use crate::codec::{ContentHeader, Frame, Method, RawProperties, ShortString, UncheckedFrame};
use crate::error::ErrorKind;
use crate::protocol::client::{Config, Connection};
use crate::protocol::{OutBuffer, server};

/// Steps of one run.
const MOST_STEPS: usize = 200;

/// What a server knows of a channel.
#[derive(Debug, Default)]
pub(super) struct Channel {
    pub(super) requests: Vec<Method>,
    pub(super) consumers: Vec<ShortString>,
    pub(super) delivery_tag: u64,
    /// Messages that count, when they do.
    pub(super) confirming: bool,
    pub(super) published: u64,
}

/// What a server says next.
#[derive(Debug)]
pub(super) enum Said {
    Method(Method),
    Content(Method, RawProperties, Vec<u8>),
}

impl Channel {
    /// The client asks for something.
    pub(super) fn asked(&mut self, method: Method) {
        let info = method.info();
        if matches!(method, Method::Confirm(_)) {
            self.confirming = true;
        }
        if !info.replies.is_empty() {
            self.requests.push(method);
        }
    }

    pub(super) fn got_message(&mut self) {
        self.published += u64::from(self.confirming);
    }

    /// The answer to the oldest request.
    pub(super) fn reply(&mut self, u: &mut Unstructured<'_>) -> Result<Option<Said>> {
        if self.requests.is_empty() {
            return Ok(None);
        }
        let request = self.requests.remove(0);
        let method = match &request {
            Method::Basic(basic::Method::Consume(consume)) => {
                self.consumers.push(consume.consumer_tag.clone());
                basic::ConsumeOk { consumer_tag: consume.consumer_tag.clone() }.into()
            }
            Method::Basic(basic::Method::Cancel(cancel)) => {
                self.consumers.retain(|tag| *tag != cancel.consumer_tag);
                basic::CancelOk { consumer_tag: cancel.consumer_tag.clone() }.into()
            }
            Method::Basic(basic::Method::Get(_)) if u.arbitrary()? => {
                self.delivery_tag += 1;
                let get_ok = basic::GetOk { delivery_tag: self.delivery_tag, ..Default::default() };
                return Ok(Some(Said::Content(get_ok.into(), u.arbitrary()?, body_of(self.delivery_tag))));
            }
            Method::Basic(basic::Method::Get(_)) => basic::GetEmpty::default().into(),
            request => match blank_reply(request.info()) {
                Some(reply) => reply,
                None => return Ok(None),
            },
        };
        Ok(Some(Said::Method(method)))
    }

    /// Something that was not asked for, and that a server may say all the same. An ack or a nack is said through
    /// [`confirm`](Self::confirm).
    pub(super) fn unasked(&mut self, u: &mut Unstructured<'_>) -> Result<Option<Said>> {
        Ok(Some(match u.int_in_range(0..=7)? {
            0..=3 if !self.consumers.is_empty() => {
                self.delivery_tag += 1;
                let deliver = basic::Deliver {
                    consumer_tag: u.choose(&self.consumers)?.clone(),
                    delivery_tag: self.delivery_tag,
                    ..u.arbitrary()?
                };
                Said::Content(deliver.into(), u.arbitrary()?, body_of(self.delivery_tag))
            }
            4 => {
                let returned = basic::Return { routing_key: "a".into(), ..Default::default() };
                Said::Content(returned.into(), u.arbitrary()?, vec![b'b'; u.int_in_range(0..=1)?])
            }
            5 => Said::Method(channel::Flow { active: u.ratio(3, 4)? }.into()),
            6 if !self.consumers.is_empty() => {
                let at = u.choose_index(self.consumers.len())?;
                Said::Method(
                    basic::Cancel { consumer_tag: self.consumers.swap_remove(at), no_wait: u.arbitrary()? }.into(),
                )
            }
            _ => return Ok(None),
        }))
    }

    /// A tag that may be confirmed, whether it is for all up to it, and whether it is an ack.
    pub(super) fn confirm(&self, u: &mut Unstructured<'_>) -> Result<Option<(u64, bool, bool)>> {
        if self.published == 0 {
            return Ok(None);
        }
        let multiple: bool = u.arbitrary()?;
        let least = u64::from(!multiple);
        Ok(Some((u.int_in_range(least..=self.published)?, multiple, u.ratio(3, 4)?)))
    }
}

pub(super) fn verdict(delivery_tag: u64, multiple: bool, ack: bool) -> Method {
    match ack {
        true => basic::Ack { delivery_tag, multiple }.into(),
        false => basic::Nack { delivery_tag, multiple, requeue: false }.into(),
    }
}

/// A small client: every limit is reached soon.
fn config(u: &mut Unstructured<'_>) -> Result<Config> {
    Ok(Config {
        max_buffered: u.int_in_range(1..=50_000)?,
        max_unwritten: u.int_in_range(1..=50_000)?,
        max_message_size: 30_000,
        channel_max: 3,
        frame_max: 4096,
        heartbeat: *u.choose(&[0, 10])?,
        ..Config::default()
    })
}

// ------------------------------------------------------------------------------------------- against a server made up

/// A server that is made up as it goes.
struct Script<'a> {
    session: Session<'a>,
    words: Words,
    channels: BTreeMap<u16, Channel>,
    /// `connection.update-secret` and the handshake, which come in order.
    requests: Vec<MethodInfo>,
    input: BytesMut,
    steps: usize,
}

impl Script<'_> {
    fn hear(&mut self) {
        let mut out = OutBuffer::new();
        self.session.machine.take_output(&mut out, self.session.now);
        let frame_max = self.session.machine.tuning().frame_max;
        for frame in self.words.hear(&out.to_vec(), frame_max) {
            match frame {
                Frame::Method(0, method) if !method.info().replies.is_empty() => self.requests.push(method.info()),
                Frame::Method(number, Method::Channel(channel::Method::CloseOk(_))) => {
                    self.channels.remove(&number);
                }
                Frame::Method(number, method) => {
                    let channel = self.channels.entry(number).or_default();
                    if matches!(method, Method::Channel(channel::Method::Open(_))) {
                        *channel = Channel::default();
                    }
                    if matches!(method, Method::Basic(basic::Method::Publish(_))) {
                        channel.got_message();
                    }
                    channel.asked(method);
                }
                _ => {}
            }
        }
        assert!(self.words.is_whole());
    }

    fn say(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
        self.session.machine.feed(&mut self.input, self.session.now);
    }

    fn say_on(&mut self, number: u16, said: Said) {
        let frames = match said {
            Said::Method(method) => vec![Frame::Method(number, method)],
            Said::Content(method, properties, body) => {
                let header = ContentHeader { body_size: body.len() as u64, properties };
                let pieces = body.chunks(4088).map(|piece| Frame::Body(number, piece.to_vec().into()));
                [Frame::Method(number, method), Frame::Header(number, header)].into_iter().chain(pieces).collect()
            }
        };
        self.say(&octets(&frames));
    }

    fn reply_on_connection(&mut self) {
        if self.requests.is_empty() {
            return;
        }
        let request = self.requests.remove(0);
        let replies: Vec<Method> = match request.name {
            "connection.open" => vec![connection::OpenOk::default().into()],
            _ => blank_reply(request).into_iter().collect(),
        };
        for method in replies {
            self.say(&octets(&[Frame::Method(0, method)]));
        }
    }

    fn greet(&mut self) -> Result<()> {
        let heartbeat = *self.session.u.choose(&[0, 5])?;
        let start = connection::Start { version_minor: 9, mechanisms: "PLAIN".into(), ..Default::default() };
        let tune = connection::Tune { channel_max: 3, frame_max: 4096, heartbeat };
        for method in [start.into(), tune.into(), connection::OpenOk::default().into()] {
            let method: Method = method;
            self.say(&octets(&[Frame::Method(0, method)]));
            self.hear();
        }
        self.requests.clear();
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        let choice = self.session.u.int_in_range(0..=15)?;
        if choice < 8 {
            return self.session.act();
        }
        self.hear();
        let numbers: Vec<u16> = self.channels.keys().copied().collect();
        let u = &mut self.session.u;
        let number = if numbers.is_empty() { 0 } else { *u.choose(&numbers)? };
        let channel = self.channels.entry(number).or_default();
        match choice {
            8..=10 if number != 0 => {
                if let Some(said) = channel.reply(u)? {
                    if matches!(said, Said::Method(Method::Channel(channel::Method::CloseOk(_)))) {
                        self.channels.remove(&number);
                    }
                    self.say_on(number, said);
                }
            }
            11 if number != 0 => {
                if let Some(said) = channel.unasked(u)? {
                    self.say_on(number, said);
                }
            }
            12 if number != 0 => {
                if let Some((tag, multiple, ack)) = channel.confirm(u)? {
                    self.session.note_number(number, (tag, multiple, ack));
                    self.say_on(number, Said::Method(verdict(tag, multiple, ack)));
                }
            }
            13 if number != 0 && u.ratio(1, 4)? => {
                channel.requests.clear();
                channel.consumers.clear();
                self.say_on(number, Said::Method(channel::Close::default().into()));
            }
            14 => {
                let method: Method = match u.int_in_range(0..=7)? {
                    0 => connection::Blocked { reason: "memory".into() }.into(),
                    1 => connection::Unblocked {}.into(),
                    2 => connection::Close { reply_code: 320, ..Default::default() }.into(),
                    _ => {
                        self.reply_on_connection();
                        return Ok(());
                    }
                };
                self.say_on(0, Said::Method(method));
            }
            15 if u.ratio(1, 4)? => {
                self.session.honest = false;
                let mut illegal = Vec::new();
                match u.arbitrary()? {
                    true => u.arbitrary::<UncheckedFrame>()?.write_unchecked(&mut illegal),
                    false => illegal = octets(&[u.arbitrary()?]),
                }
                self.say(&illegal);
            }
            _ => {}
        }
        Ok(())
    }
}

/// What a program asks for, what a server answers, and what no server should say, in any order. Whatever comes, the client says
/// nothing that it may not, everybody who waits is woken in time, and confirms tell what the server said.
pub fn client_operations(data: &[u8], now: Instant) {
    let mut u = Unstructured::new(data);
    let Ok(config) = config(&mut u) else { return };
    let machine = Connection::new(config, now);
    let mut script = Script {
        session: Session::new(u, machine, now),
        words: Words::of(Sender::Client),
        channels: BTreeMap::new(),
        requests: Vec::new(),
        input: BytesMut::new(),
        steps: 0,
    };
    script.session.heard_at_once = true;
    let mut result = script.greet();
    while result.is_ok() && script.steps < MOST_STEPS && !script.session.u.is_empty() {
        script.steps += 1;
        result = script.step();
        script.session.settle_down();
    }
    script.hear();
    script.session.end();
}

// ---------------------------------------------------------------------------------------------- against the other machine

/// Both machines, and the octets between them.
struct Pair<'a> {
    session: Session<'a>,
    owner: Owner,
    by_client: Words,
    by_server: Words,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    client_input: BytesMut,
    server_input: BytesMut,
}

impl Pair<'_> {
    /// Takes what both have to say, hears it, and puts it on its way.
    fn collect(&mut self) {
        let mut out = OutBuffer::new();
        self.session.machine.take_output(&mut out, self.session.now);
        let said = out.to_vec();
        let _ = self.by_client.hear(&said, self.session.machine.tuning().frame_max);
        self.to_server.extend_from_slice(&said);
        out.clear();
        self.owner.machine.take_output(&mut out, self.session.now);
        let said = out.to_vec();
        let _ = self.by_server.hear(&said, 8192);
        self.to_client.extend_from_slice(&said);
    }

    /// Hands over some of what is on its way.
    fn carry(&mut self, to_server: usize, to_client: usize) {
        let count = to_server.min(self.to_server.len());
        self.server_input.extend(self.to_server.drain(..count));
        self.owner.feed(&mut self.server_input, &mut self.session);
        let count = to_client.min(self.to_client.len());
        self.client_input.extend(self.to_client.drain(..count));
        self.session.machine.feed(&mut self.client_input, self.session.now);
    }

    fn carry_all(&mut self) {
        loop {
            self.collect();
            if self.to_server.is_empty() && self.to_client.is_empty() {
                return;
            }
            self.carry(usize::MAX, usize::MAX);
            self.session.settle_down();
        }
    }

    fn step(&mut self) -> Result<()> {
        match self.session.u.int_in_range(0..=15)? {
            0..=7 => self.session.act(),
            8..=12 => {
                let (owner, session) = (&mut self.owner, &mut self.session);
                owner.act(&mut session.u, session.now)
            }
            13 => {
                self.owner.machine.handle_timeout(self.session.now);
                self.owner.feed(&mut self.server_input, &mut self.session);
                Ok(())
            }
            14 => {
                self.collect();
                let (to_server, to_client) =
                    (self.session.u.int_in_range(0..=300)?, self.session.u.int_in_range(0..=300)?);
                self.carry(to_server, to_client);
                Ok(())
            }
            _ => {
                self.carry_all();
                Ok(())
            }
        }
    }
}

/// Client and server connected, with a program and an owner that may do whatever is allowed: neither finds a fault with the
/// other, what is published arrives as it was, and so does what is delivered.
pub fn pair(data: &[u8], now: Instant) {
    let mut u = Unstructured::new(data);
    let Ok(config) = config(&mut u) else { return };
    let config = Config { frame_max: 8192, ..config };
    let server =
        server::Config { channel_max: 3, frame_max: 8192, heartbeat: config.heartbeat, ..server::Config::default() };
    let mut pair = Pair {
        session: Session::new(u, Connection::new(config, now), now),
        owner: Owner::new(server::Connection::new(server, now)),
        by_client: Words::of(Sender::Client),
        by_server: Words::of(Sender::Server),
        to_server: Vec::new(),
        to_client: Vec::new(),
        client_input: BytesMut::new(),
        server_input: BytesMut::new(),
    };
    pair.carry_all();
    assert!(pair.session.machine.end().is_none(), "{:?}", pair.session.machine.end());
    let mut result = Ok(());
    let mut steps = 0;
    while result.is_ok() && steps < MOST_STEPS && !pair.session.u.is_empty() {
        steps += 1;
        result = pair.step();
        pair.session.settle_down();
        let fault = pair.session.machine.end().filter(|error| error.kind() == ErrorKind::Protocol);
        assert!(fault.is_none(), "the client finds fault with the server: {fault:?}");
    }
    pair.carry_all();
    let fault = pair.session.machine.end().filter(|error| error.kind() == ErrorKind::Protocol);
    assert!(fault.is_none(), "the client finds fault with the server: {fault:?}");
    pair.session.end();
}
