//! The machine itself: frames in, events out, frames out, time.

mod input;

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::channel::Channel;
use super::fault::{Fault, reply_text};
use super::handshake::{ExpectProtocolHeader, FRAME_MIN, Handshake, Tuned};
use super::{Config, Event};
use crate::codec::method::{channel, connection};
use crate::codec::{ContentHeader, FRAME_OVERHEAD, Method, RawProperties, ReplyCode};
use crate::error::{Error, ErrorKind};
use crate::protocol::heartbeat::Due;
use crate::protocol::{Body, Heartbeat, OutBuffer};

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
            // The connection may have been left meanwhile: then nobody listens any more.
            if !matches!(self.phase, Phase::Finished) {
                self.put(number, channel::CloseOk {}.into());
            }
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
            &Body::Shared(body),
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
            Phase::Handshake(Handshake::ProtocolHeader(_) | Handshake::StartOk(_) | Handshake::SecureOk(_)) => {
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
