//! The machine itself: frames in, events out, frames out, time.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use super::channel::{Channel, PublishView, content_fault};
use super::fault::{Fault, reply_text};
use super::handshake::{ExpectProtocolHeader, FRAME_MIN, Greeting, Handshake, Tuned, unexpected};
use super::{Config, Event, Publish};
use crate::codec::method::{Sender, channel, connection};
use crate::codec::{
    ContentHeader, FRAME_OVERHEAD, FrameType, Method, ProtocolHeader, RawFrame, RawProperties, ReplyCode,
};
use crate::error::{Error, ErrorKind};
use crate::protocol::heartbeat::Due;
use crate::protocol::{Assembler, Body, Chunk, Heartbeat, Incoming, KEEP_IN_PLACE_FROM, OutBuffer};

/// What a frame may hold when no limit was agreed on (c28).
const UNLIMITED_FRAME: usize = 16 * 1024 * 1024;

/// The server's side of one connection.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    phase: Phase,
    /// When the phase has to be over: for the handshake and for closing.
    phase_ends: Option<Instant>,
    tuned: Tuned,
    /// Numbers in use. A number that is free is not in it.
    channels: BTreeMap<u16, Channel>,
    out: OutBuffer,
    event: Option<Event>,
    heartbeat: Heartbeat,
    chunk: Chunk,
    /// Octets that the last `feed` left, to see whether new ones have come.
    left: usize,
}

#[derive(Debug)]
enum Phase {
    Handshake(Handshake),
    Running,
    /// The client has sent `connection.close` and waits for the owner to accept it.
    Leaving,
    /// `connection.close` was sent.
    Closing,
    Finished,
}

/// What to do after a frame.
type Handled = Result<(), Fault>;

impl Connection {
    /// A connection on which nothing has come yet.
    pub fn new(config: Config, now: Instant) -> Self {
        let phase_ends = now.checked_add(config.handshake_timeout);
        Self {
            phase: Phase::Handshake(Handshake::ProtocolHeader(ExpectProtocolHeader)),
            phase_ends,
            tuned: Tuned { channel_max: config.channel_max, frame_max: FRAME_MIN, heartbeat: 0 },
            channels: BTreeMap::new(),
            out: OutBuffer::new(),
            event: None,
            heartbeat: Heartbeat::new(now),
            chunk: Chunk::default(),
            left: 0,
            config,
        }
    }

    // ------------------------------------------------------------------------------------------------------ input

    /// Acts on the whole frames at the front of `input`, up to the first that makes an event. Call it again, after acting
    /// on the event, until there is none.
    pub fn feed(&mut self, input: &mut BytesMut, now: Instant) {
        if input.len() > self.left {
            self.heartbeat.received(now);
        }
        while self.event.is_none() && self.step(input, now) {}
        if matches!(self.phase, Phase::Finished) {
            input.clear();
        }
        self.left = input.len();
    }

    /// What the client did.
    pub fn next_event(&mut self) -> Option<Event> {
        self.event.take()
    }

    /// Acts on one frame. Returns whether there may be more to do.
    fn step(&mut self, input: &mut BytesMut, now: Instant) -> bool {
        match &self.phase {
            Phase::Finished | Phase::Leaving => return false,
            Phase::Handshake(Handshake::LoginVerdict(_) | Handshake::OpenVerdict(_)) => return false,
            Phase::Handshake(Handshake::ProtocolHeader(state)) => {
                return match state.read(input) {
                    Greeting::Partial => false,
                    Greeting::Ours => {
                        let start = state.start(&self.config);
                        self.put(0, start.into());
                        self.phase = Phase::Handshake(Handshake::StartOk(super::handshake::ExpectStartOk));
                        true
                    }
                    Greeting::Foreign => {
                        self.out.put(&ProtocolHeader::AMQP_0_9_1.to_bytes());
                        self.end(Error::new(ErrorKind::Protocol, "the client does not speak AMQP 0-9-1"));
                        false
                    }
                };
            }
            _ => {}
        }
        let frame = match RawFrame::split(input, self.max_payload()) {
            Ok(Some(frame)) => frame,
            Ok(None) => return false,
            Err(error) => {
                // Where the next frame begins is unknown: the words go out, no answer is waited for (c23).
                self.fail(&Fault::from(&error), now);
                self.phase = Phase::Finished;
                return false;
            }
        };
        let (kind, number, len) = (frame.kind, frame.channel, frame.wire_len());
        let handled = match kind {
            FrameType::Heartbeat => Ok(()),
            FrameType::Body if frame.payload.len() >= KEEP_IN_PLACE_FROM => {
                let payload_len = frame.payload.len();
                let mut frame = input.split_to(len);
                frame.advance(len - 1 - payload_len);
                frame.truncate(payload_len);
                let handled = self.body(number, Incoming::Kept(frame.freeze()));
                return self.finish_step(handled, number, now);
            }
            FrameType::Body => self.body(number, Incoming::Borrowed(frame.payload)),
            FrameType::Header => self.header(number, frame.payload),
            FrameType::Method => self.method(number, frame.payload, now),
        };
        input.advance(len);
        self.finish_step(handled, number, now)
    }

    fn finish_step(&mut self, handled: Handled, number: u16, now: Instant) -> bool {
        if let Err(fault) = handled {
            if fault.code.is_hard() || number == 0 {
                self.fail(&fault, now);
            } else {
                self.close_channel(number, fault.code, &fault.reply_text().to_string_lossy(), fault.method);
                self.event = Some(Event::ChannelClosed(number));
            }
        }
        true
    }

    fn method(&mut self, number: u16, payload: &[u8], now: Instant) -> Handled {
        if matches!(self.phase, Phase::Running)
            && let Some((&PublishView::ID, fields)) = payload.split_first_chunk()
            && let Some(Channel::Open(assembler)) = self.channels.get_mut(&number)
            && assembler.is_idle()
        {
            let view = PublishView::parse(fields).map_err(|error| Fault::from(&error).of(60, 40))?;
            assembler.begin(view.publish, view.address);
            return Ok(());
        }
        // Copied: what is kept of a method (a queue's name) must not pin the block it was read in.
        let method = match Method::decode(&Bytes::copy_from_slice(payload)) {
            Ok(method) => method,
            Err(_) if matches!(self.phase, Phase::Closing) => return Ok(()),
            Err(error) => {
                let (class, method) = match payload.split_first_chunk() {
                    Some((&[c1, c0, m1, m0], _)) => (u16::from_be_bytes([c1, c0]), u16::from_be_bytes([m1, m0])),
                    None => (0, 0),
                };
                return Err(Fault::from(&error).of(class, method));
            }
        };
        match &self.phase {
            Phase::Handshake(_) => self.handshake(number, method, now),
            Phase::Running if number == 0 => self.on_connection(method),
            Phase::Running => self.on_channel(number, method),
            Phase::Closing => {
                self.while_closing(number, &method);
                Ok(())
            }
            Phase::Leaving | Phase::Finished => Ok(()),
        }
    }

    fn handshake(&mut self, number: u16, method: Method, now: Instant) -> Handled {
        let Phase::Handshake(state) = &self.phase else { return Ok(()) };
        if number != 0 {
            return Err(Fault::new(ReplyCode::UNEXPECTED_FRAME, "a channel's frame before the connection is open"));
        }
        if let Method::Connection(connection::Method::Close(_)) = method {
            self.phase = Phase::Leaving;
            self.event = Some(Event::Close);
            return Ok(());
        }
        let next = match state {
            Handshake::StartOk(state) => {
                let (next, event) = state.receive(method, &self.config)?;
                self.event = Some(event);
                Handshake::LoginVerdict(next)
            }
            Handshake::TuneOk(state) => {
                let (next, tuned) = state.receive(method, &self.config)?;
                self.tuned = tuned;
                self.heartbeat.start(tuned.heartbeat, now);
                Handshake::Open(next)
            }
            Handshake::Open(state) => {
                let (next, event) = state.receive(method)?;
                self.event = Some(event);
                Handshake::OpenVerdict(next)
            }
            // No input is looked at in these.
            Handshake::ProtocolHeader(_) | Handshake::LoginVerdict(_) | Handshake::OpenVerdict(_) => return Ok(()),
        };
        self.phase = Phase::Handshake(next);
        Ok(())
    }

    /// c29: channel 0 is for the connection class.
    fn on_connection(&mut self, method: Method) -> Handled {
        match method {
            Method::Connection(connection::Method::Close(_)) => {
                self.phase = Phase::Leaving;
                self.event = Some(Event::Close);
                Ok(())
            }
            Method::Connection(connection::Method::CloseOk(_)) => Ok(()),
            method @ Method::Connection(connection::Method::UpdateSecret(_)) => {
                self.event = Some(Event::Method(0, method));
                Ok(())
            }
            method => Err(unexpected(&method, "running")),
        }
    }

    fn on_channel(&mut self, number: u16, method: Method) -> Handled {
        let info = method.info();
        let fault = |code, text: &str| Err(Fault::new(code, text).of(info.class_id, info.method_id));
        let Some(channel) = self.channels.get_mut(&number) else {
            return match method {
                Method::Channel(channel::Method::Open(_)) => self.open_channel(number),
                _ => fault(ReplyCode::CHANNEL_ERROR, "expected 'channel.open'"),
            };
        };
        let Channel::Open(assembler) = channel else {
            if matches!(channel, Channel::Closing) {
                match method {
                    Method::Channel(channel::Method::CloseOk(_)) => {
                        self.channels.remove(&number);
                    }
                    Method::Channel(channel::Method::Close(_)) => self.put(number, channel::CloseOk {}.into()),
                    _ => {}
                }
            }
            return Ok(());
        };
        if !assembler.is_idle() {
            return fault(ReplyCode::UNEXPECTED_FRAME, "expected content, got a method frame instead");
        }
        match method {
            Method::Channel(channel::Method::Open(_)) => fault(ReplyCode::CHANNEL_ERROR, "second 'channel.open' seen"),
            Method::Channel(channel::Method::Close(_)) => {
                *channel = Channel::Leaving;
                self.event = Some(Event::ChannelClose(number));
                Ok(())
            }
            // c30
            Method::Connection(_) | Method::Channel(channel::Method::CloseOk(_)) => {
                fault(ReplyCode::COMMAND_INVALID, "unimplemented method")
            }
            _ if info.sender == Sender::Server => fault(ReplyCode::COMMAND_INVALID, "unimplemented method"),
            method => {
                self.event = Some(Event::Method(number, method));
                Ok(())
            }
        }
    }

    fn open_channel(&mut self, number: u16) -> Handled {
        let (open, max) = (self.channels.len(), usize::from(self.tuned.channel_max));
        if max != 0 && open >= max {
            let text = format!("number of channels opened ({open}) has reached the negotiated channel_max ({max})");
            return Err(Fault::new(ReplyCode::NOT_ALLOWED, text).of(20, 10));
        }
        self.channels.insert(number, Channel::new());
        self.put(number, channel::OpenOk::default().into());
        self.event = Some(Event::ChannelOpened(number));
        Ok(())
    }

    /// c46, c47: after close only close and close-ok count.
    fn while_closing(&mut self, number: u16, method: &Method) {
        match method {
            Method::Connection(connection::Method::Close(_)) if number == 0 => {
                self.put(0, connection::CloseOk {}.into());
            }
            Method::Connection(connection::Method::CloseOk(_)) if number == 0 => self.phase = Phase::Finished,
            _ => {}
        }
    }

    fn header(&mut self, number: u16, payload: &[u8]) -> Handled {
        let limit = self.config.max_message_size;
        let Some((assembler, chunk)) = self.assembler(number)? else { return Ok(()) };
        let complete = assembler
            .header(payload, limit, chunk)
            .map_err(|error| content_fault(&error, "expected content body, got non content body frame instead"))?;
        self.event = complete.map(|(publish, content)| Event::Publish(number, publish, content));
        Ok(())
    }

    fn body(&mut self, number: u16, payload: Incoming<'_>) -> Handled {
        let Some((assembler, chunk)) = self.assembler(number)? else { return Ok(()) };
        let complete = assembler.body(payload, chunk).map_err(|error| {
            content_fault(&error, "expected content header for class 60, got non content header frame instead")
        })?;
        self.event = complete.map(|(publish, content)| Event::Publish(number, publish, content));
        Ok(())
    }

    /// Where a content frame of a channel belongs; `None` when it is to be discarded.
    fn assembler(&mut self, number: u16) -> Result<Option<(&mut Assembler<Publish>, &mut Chunk)>, Fault> {
        let fault = |text: &str| Err(Fault::new(ReplyCode::UNEXPECTED_FRAME, text));
        match (&self.phase, self.channels.get_mut(&number)) {
            (Phase::Running, Some(Channel::Open(assembler))) if !assembler.is_idle() => {
                Ok(Some((assembler, &mut self.chunk)))
            }
            (Phase::Running, None) if number == 0 => fault("content on channel 0"),
            (Phase::Running, None | Some(Channel::Open(_))) => {
                fault("expected method frame, got non method frame instead")
            }
            (Phase::Handshake(_), _) => fault("content before the connection is open"),
            _ => Ok(None),
        }
    }

    // ----------------------------------------------------------------------------------------------- the owner's say

    /// The login is good: the client is told the limits.
    pub fn accept_login(&mut self) {
        if let Phase::Handshake(Handshake::LoginVerdict(state)) = &self.phase {
            let (next, tune) = state.accepted(&self.config);
            self.phase = Phase::Handshake(Handshake::TuneOk(next));
            self.put(0, tune.into());
        }
    }

    /// The login is refused: with 403 when the client wants to hear it, without a word otherwise (c11).
    pub fn refuse_login(&mut self, text: &str, now: Instant) {
        if let Phase::Handshake(Handshake::LoginVerdict(state)) = &self.phase {
            if state.wants_close() {
                self.close_connection(ReplyCode::ACCESS_REFUSED, text, (0, 0), now);
            } else {
                self.phase = Phase::Finished;
            }
        }
    }

    /// The virtual host is there and open to the client.
    pub fn accept_open(&mut self) {
        if let Phase::Handshake(Handshake::OpenVerdict(_)) = &self.phase {
            self.phase = Phase::Running;
            self.phase_ends = None;
            self.put(0, connection::OpenOk::default().into());
        }
    }

    /// Answers a close of the client: of a channel, or of the connection when `number` is 0.
    pub fn accept_close(&mut self, number: u16) {
        if number == 0 {
            if matches!(self.phase, Phase::Leaving) {
                self.put(0, connection::CloseOk {}.into());
                self.phase = Phase::Finished;
            }
        } else if matches!(self.channels.get(&number), Some(Channel::Leaving)) {
            self.channels.remove(&number);
            self.put(number, channel::CloseOk {}.into());
        }
    }

    // ----------------------------------------------------------------------------------------------------- output

    /// Sends a method. On a channel that is not open it is dropped, for the client would not expect it (c48).
    pub fn send(&mut self, number: u16, method: impl Into<Method>) {
        if self.may_send(number) {
            self.put(number, method.into());
        }
    }

    /// Sends a message: a method, its properties as they are to stand on the wire, its body.
    pub fn send_content(
        &mut self,
        number: u16,
        method: impl Into<Method>,
        properties: &RawProperties,
        body: &Bytes,
        now: Instant,
    ) {
        if !self.may_send(number) {
            return;
        }
        let (method, max_payload) = (method.into(), self.max_payload());
        let written = self.out.put_content(
            number,
            max_payload,
            method.info().name,
            |out| method.encode(out),
            |out, body_size| {
                ContentHeader { body_size, properties: properties.clone() }.encode(out);
                Ok(())
            },
            Body::Shared(body),
        );
        if let Err(error) = written {
            // A message that came through larger frames than this client takes.
            self.fail(&Fault::new(ReplyCode::INTERNAL_ERROR, error.to_string()), now);
        }
    }

    fn may_send(&self, number: u16) -> bool {
        let open = number == 0
            || self.channels.get(&number).is_some_and(Channel::is_open)
            || matches!(self.channels.get(&number), Some(Channel::Leaving));
        open && matches!(self.phase, Phase::Running | Phase::Leaving)
    }

    /// Closes a channel. The text is sent as it is, cut to 255 octets.
    pub fn close_channel(&mut self, number: u16, code: ReplyCode, text: &str, (class_id, method_id): (u16, u16)) {
        let Some(channel) = self.channels.get_mut(&number) else { return };
        if !channel.is_open() || !matches!(self.phase, Phase::Running) {
            return;
        }
        *channel = Channel::Closing;
        self.put(
            number,
            channel::Close { reply_code: code.0, reply_text: reply_text(text), class_id, method_id }.into(),
        );
    }

    /// Closes the connection. The text is sent as it is, cut to 255 octets. A client that is not yet logged in is left
    /// without a word, except one whose login is refused.
    pub fn close_connection(&mut self, code: ReplyCode, text: &str, (class_id, method_id): (u16, u16), now: Instant) {
        match &self.phase {
            Phase::Closing | Phase::Finished => return,
            Phase::Handshake(Handshake::ProtocolHeader(_) | Handshake::StartOk(_)) => {
                self.phase = Phase::Finished;
                return;
            }
            _ => {}
        }
        self.phase = Phase::Closing;
        self.phase_ends = now.checked_add(self.config.close_timeout);
        self.channels.clear();
        self.put(0, connection::Close { reply_code: code.0, reply_text: reply_text(text), class_id, method_id }.into());
    }

    /// The client is at fault, and its connection ends.
    fn fail(&mut self, fault: &Fault, now: Instant) {
        if matches!(self.phase, Phase::Closing | Phase::Finished) {
            return;
        }
        self.close_connection(fault.code, &fault.reply_text().to_string_lossy(), fault.method, now);
        self.event = Some(Event::Closed(Error::from(fault)));
    }

    fn put(&mut self, number: u16, method: Method) {
        // What a server says fits: its strings came out of frames or were cut to fit.
        let _ = self.out.put_method(number, &method, self.max_payload());
    }

    /// Octets that wait to be taken.
    pub fn buffered(&self) -> usize {
        self.out.len()
    }

    /// Hands over what is to be written, when `output` is empty. Returns whether it did.
    pub fn take_output(&mut self, output: &mut OutBuffer, now: Instant) -> bool {
        if !output.is_empty() || self.out.is_empty() {
            return false;
        }
        std::mem::swap(output, &mut self.out);
        self.heartbeat.sent(now);
        true
    }

    // ------------------------------------------------------------------------------------------- time and the end

    /// When [`handle_timeout`](Self::handle_timeout) has to be called at the latest.
    pub fn timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Finished => None,
            _ => [self.phase_ends, self.heartbeat.timeout()].into_iter().flatten().min(),
        }
    }

    /// Does what is due: heartbeats, and giving up on a client that takes too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Finished) {
            return;
        }
        if self.phase_ends.is_some_and(|end| now >= end) {
            self.end(Error::new(ErrorKind::Timeout, "the client took too long to open or to close the connection"));
            return;
        }
        match self.heartbeat.due(now) {
            Due::Nothing => {}
            // While something waits to be written the socket is full, not idle.
            Due::Send => {
                if self.out.is_empty() {
                    self.out.put_heartbeat();
                }
                self.heartbeat.sent(now);
            }
            // c40: without a handshake.
            Due::PeerIsDead => {
                self.end(Error::new(ErrorKind::Heartbeat, "nothing came from the client for two heartbeat intervals"));
            }
        }
    }

    /// Nothing was read because the owner did not want to: the client's silence proves nothing.
    pub fn excuse_silence(&mut self, now: Instant) {
        self.heartbeat.received(now);
    }

    /// The stream has ended.
    pub fn terminate(&mut self, error: Error) {
        self.out.clear();
        self.end(error);
    }

    fn end(&mut self, error: Error) {
        if !matches!(self.phase, Phase::Closing | Phase::Finished) {
            self.event = Some(Event::Closed(error));
        }
        self.phase = Phase::Finished;
    }

    /// Whether everything has been said. What is still buffered is to be written, then the stream closed.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Finished)
    }

    fn max_payload(&self) -> usize {
        match usize::try_from(self.tuned.frame_max) {
            Ok(0) | Err(_) => UNLIMITED_FRAME,
            Ok(max) => max.saturating_sub(FRAME_OVERHEAD),
        }
    }
}
