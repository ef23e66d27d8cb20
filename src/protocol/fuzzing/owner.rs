//! A server's owner: it answers, delivers, confirms and closes as it likes, and knows which events may come.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ::arbitrary::{Result, Unstructured};
use ::bytes::BytesMut;

use super::octets;
use super::operations::{Channel, Said, verdict};
use super::session::Session;
use super::words::Words;
use crate::codec::method::{Sender, basic, channel, connection};
use crate::codec::{ContentHeader, Frame, Method, Properties, ProtocolHeader, ReplyCode, UncheckedFrame};
use crate::error::{Error, ErrorKind};
use crate::protocol::server::{Config, Connection, Event, Publish};
use crate::protocol::{Content, OutBuffer};

const MOST_STEPS: usize = 200;

/// An owner with its machine.
pub(super) struct Owner {
    pub(super) machine: Connection,
    channels: BTreeMap<u16, Channel>,
    /// Channels whose close was not accepted yet.
    leaving: Vec<u16>,
    /// `connection.update-secret` that were not answered yet.
    secrets: usize,
    /// The client has gone, or was sent away: no more events.
    over: bool,
    /// Which of the program's books belongs to a channel that is open here.
    books: BTreeMap<u16, usize>,
    /// How many of the program's books were opened here, by number.
    opened: Vec<usize>,
    /// What was said of messages: book, tag, multiple, ack.
    verdicts: Vec<(usize, (u64, bool, bool))>,
}

impl Owner {
    pub(super) fn new(machine: Connection) -> Self {
        Self {
            machine,
            channels: BTreeMap::new(),
            leaving: Vec::new(),
            secrets: 0,
            over: false,
            books: BTreeMap::new(),
            opened: Vec::new(),
            verdicts: Vec::new(),
        }
    }

    /// Lets the machine read, and takes note of what it reports.
    pub(super) fn feed(&mut self, input: &mut BytesMut, session: &mut Session<'_>) {
        loop {
            self.machine.feed(input, session.now);
            let Some(event) = self.machine.next_event() else { break };
            if let Event::Closed(error) = &event {
                assert_ne!(error.kind(), ErrorKind::Protocol, "the server finds fault with the client: {error}");
            }
            if let Event::ChannelClosed(number) = &event {
                unreachable!("the server finds fault with channel {number}");
            }
            if let Event::ChannelOpened(number) = &event {
                let mut books = session.books.iter().enumerate();
                let book = books.find(|(at, book)| book.number == *number && !self.opened.contains(at));
                let Some((at, _)) = book else { unreachable!("nobody opened channel {number}") };
                self.opened.push(at);
                self.books.insert(*number, at);
            }
            if let Event::Publish(number, publish, content) = &event {
                let book = self.books.get(number).and_then(|at| session.books.get_mut(*at));
                let sent = book.and_then(|book| book.messages.pop_front());
                let Some(sent) = sent else { unreachable!("a message that nobody published") };
                let encoded = |properties: &Properties| {
                    let mut out = Vec::new();
                    assert_eq!(properties.encode(&mut out), Ok(()));
                    out
                };
                assert_eq!(
                    (content.exchange().as_bytes(), content.routing_key().as_bytes()),
                    (&*sent.exchange, &*sent.routing_key)
                );
                assert_eq!(*publish, Publish { mandatory: sent.mandatory, immediate: false });
                assert_eq!(content.properties().as_bytes(), &encoded(&sent.properties.unwrap_or_default()));
                assert!(content.body() == sent.body, "a body of {} octets", sent.body.len());
            }
            self.take(event);
        }
        for (at, said) in self.verdicts.drain(..) {
            session.note(at, said);
        }
    }

    /// Acts on an event, and checks that it may come.
    fn take(&mut self, event: Event) {
        assert!(!self.over, "{event:?} behind the end");
        match event {
            Event::Authenticate(_) => self.machine.accept_login(),
            Event::Open { .. } => self.machine.accept_open(),
            Event::ChannelOpened(number) => {
                let before = self.channels.insert(number, Channel::default());
                assert!(before.is_none() && number != 0, "channel {number} was open");
            }
            Event::Method(0, Method::Connection(connection::Method::UpdateSecret(_))) => self.secrets += 1,
            Event::Method(number, method) => {
                let info = method.info();
                assert!(info.sender != Sender::Server && !info.has_content, "{method:?}");
                self.open(number).asked(method);
            }
            Event::Publish(number, _, content) => {
                check(&content);
                self.open(number).got_message();
            }
            Event::ChannelClose(number) => {
                self.open(number);
                self.leaving.push(number);
            }
            Event::ChannelClosed(number) => {
                self.open(number);
                self.forget(number);
            }
            Event::Close => {
                self.over = true;
                self.machine.accept_close(0);
                assert!(self.machine.is_finished());
            }
            Event::Closed(_) => self.over = true,
        }
    }

    /// A channel on which something may happen.
    fn open(&mut self, number: u16) -> &mut Channel {
        assert!(!self.leaving.contains(&number), "an event on channel {number}, which its client closes");
        match self.channels.get_mut(&number) {
            Some(channel) => channel,
            None => unreachable!("an event on channel {number}, which is not open"),
        }
    }

    fn forget(&mut self, number: u16) {
        self.channels.remove(&number);
        self.leaving.retain(|leaving| *leaving != number);
    }

    /// One thing that an owner may do.
    pub(super) fn act(&mut self, u: &mut Unstructured<'_>, now: Instant) -> Result<()> {
        let choice = u.int_in_range(0..=15)?;
        if choice == 0 && self.secrets > 0 {
            self.secrets -= 1;
            self.machine.send(0, connection::UpdateSecretOk {});
        }
        if choice == 1 {
            let method: Method = match u.arbitrary()? {
                true => connection::Blocked { reason: "memory".into() }.into(),
                false => connection::Unblocked {}.into(),
            };
            self.machine.send(0, method);
        }
        if choice == 2 && u.ratio(1, 16)? {
            self.machine.close_connection(ReplyCode::CONNECTION_FORCED, "maintenance", (0, 0), now);
            self.over = true;
        }
        let numbers: Vec<u16> = self.channels.keys().copied().collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let number = *u.choose(&numbers)?;
        let Some(channel) = self.channels.get_mut(&number) else { return Ok(()) };
        let said = match choice {
            3..=6 => channel.reply(u)?,
            7..=9 => channel.unasked(u)?,
            10 | 11 => match channel.confirm(u)? {
                Some((tag, multiple, ack)) => {
                    // With 0 it would speak of messages that are still on their way to it.
                    let tag = if tag == 0 { channel.published } else { tag };
                    if let Some(at) = self.books.get(&number) {
                        self.verdicts.push((*at, (tag, multiple, ack)));
                    }
                    Some(Said::Method(verdict(tag, multiple, ack)))
                }
                None => None,
            },
            12 if u.ratio(1, 4)? && !self.leaving.contains(&number) => {
                self.machine.close_channel(number, ReplyCode::NOT_FOUND, "NOT_FOUND", (50, 10));
                self.forget(number);
                None
            }
            13..=15 if self.leaving.contains(&number) => {
                self.machine.accept_close(number);
                self.forget(number);
                None
            }
            _ => None,
        };
        match said {
            Some(Said::Method(method)) => self.machine.send(number, method),
            Some(Said::Content(method, properties, body)) => {
                self.machine.send_content(number, method, &properties, &body.into(), now);
            }
            None => {}
        }
        Ok(())
    }
}

/// A message can be looked at whatever its properties are.
fn check(content: &Content) {
    let _ = content.properties().decode();
    assert!(content.len() >= content.body().len());
    let body = content.body().to_vec();
    assert!(content.clone().into_body() == body);
}

// ------------------------------------------------------------------------------------------------- against a made-up client

/// What a client says, right or wrong, and what an owner does, in any order: the events are those that may come, and the server
/// says nothing that it may not.
pub fn server_operations(data: &[u8], now: Instant) {
    let u = &mut Unstructured::new(data);
    let config = Config { channel_max: 3, frame_max: 8192, heartbeat: 10, max_message_size: 200, ..Config::default() };
    let mut client = Client {
        owner: Owner::new(Connection::new(config, now)),
        words: Words::of(Sender::Server),
        input: BytesMut::new(),
        now,
    };
    let mut result = client.greet(u);
    for _ in 0..MOST_STEPS {
        if result.is_err() || u.is_empty() {
            break;
        }
        result = client.step(u);
        client.hear();
    }
    let finished = client.owner.machine.is_finished();
    client.owner.machine.terminate(Error::new(ErrorKind::Io, "the stream has ended"));
    assert!(client.owner.machine.is_finished() && client.owner.machine.timeout().is_none());
    let last = client.owner.machine.next_event();
    assert!(last.is_none() || !finished, "{last:?} behind the end");
    client.owner.machine.feed(&mut BytesMut::from(&b"anything"[..]), now);
    assert!(client.owner.machine.next_event().is_none());
}

struct Client {
    owner: Owner,
    words: Words,
    input: BytesMut,
    now: Instant,
}

impl Client {
    fn say(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
        self.read();
    }

    fn read(&mut self) {
        loop {
            self.owner.machine.feed(&mut self.input, self.now);
            let Some(event) = self.owner.machine.next_event() else { return };
            self.owner.take(event);
        }
    }

    fn hear(&mut self) {
        let mut out = OutBuffer::new();
        self.owner.machine.take_output(&mut out, self.now);
        let said = out.to_vec();
        // A server of another protocol's version says so in eight octets, and nothing else.
        if !said.starts_with(b"AMQP") {
            drop(self.words.hear(&said, 8192));
        }
        assert!(self.words.is_whole());
    }

    fn greet(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let header = if u.ratio(1, 32)? { u.arbitrary()? } else { ProtocolHeader::AMQP_0_9_1 };
        self.say(&header.to_bytes());
        let heartbeat = *u.choose(&[0, 10])?;
        let methods: [Method; 3] = [
            connection::StartOk { mechanism: "PLAIN".into(), response: "\0u\0p".into(), ..Default::default() }.into(),
            connection::TuneOk { channel_max: 3, frame_max: 8192, heartbeat }.into(),
            connection::Open::default().into(),
        ];
        for method in methods {
            let method = if u.ratio(1, 64)? { u.arbitrary()? } else { method };
            self.say(&octets(&[Frame::Method(0, method)]));
            self.hear();
        }
        Ok(())
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let number = u.int_in_range(0..=4)?;
        match u.int_in_range(0..=15)? {
            0 | 1 => self.say(&octets(&[Frame::Method(number, channel::Open::default().into())])),
            2..=4 => {
                let body_size = u.int_in_range(0..=250)?;
                let header = ContentHeader { body_size, properties: u.arbitrary()? };
                let publish = basic::Publish { ..u.arbitrary()? };
                let mut frames = vec![Frame::Method(number, publish.into()), Frame::Header(number, header)];
                let mut due = usize::try_from(body_size).unwrap_or(0);
                while due > 0 {
                    let piece = u.int_in_range(0..=due)?;
                    frames.push(Frame::Body(number, vec![7; piece.max(1)].into()));
                    due -= piece.max(1);
                    if u.ratio(1, 8)? {
                        frames.push(u.arbitrary()?);
                    }
                }
                self.say(&octets(&frames));
            }
            5 | 6 => {
                let method: Method = u.arbitrary()?;
                if method.info().sender != Sender::Server || u.ratio(1, 16)? {
                    self.say(&octets(&[Frame::Method(number, method)]));
                }
            }
            7 => self.say(&octets(&[Frame::Method(number, channel::Close::default().into())])),
            8 => self.say(&octets(&[Frame::Method(number, channel::CloseOk {}.into())])),
            9 if u.ratio(1, 8)? => self.say(&octets(&[u.arbitrary()?])),
            10 if u.ratio(1, 16)? => {
                let mut illegal = Vec::new();
                u.arbitrary::<UncheckedFrame>()?.write_unchecked(&mut illegal);
                self.say(&illegal);
            }
            11 => {
                self.now += Duration::from_secs(u.int_in_range(0..=15)?);
                self.owner.machine.handle_timeout(self.now);
                self.read();
            }
            _ => self.owner.act(u, self.now)?,
        }
        self.read();
        Ok(())
    }
}
