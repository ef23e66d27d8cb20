//! What comes from the server: frames, the connection's own methods, and what breaks the rules.

use std::borrow::Cow;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use super::calls::Reply;
use super::channel::State;
use super::handshake::{Handshake, Step};
use super::{ChannelId, Connection, Phase, closed};
use crate::codec::method::connection::{self, Method as ConnectionMethod};
use crate::codec::{
    DecodeError, DecodeErrorKind, DeliverView, EncodeError, FRAME_HEAD, FRAME_OVERHEAD, FrameType, Method,
    ProtocolHeader, RawFrame, ReplyCode,
};
use crate::error::{Error, ErrorKind};
use crate::protocol::{ContentError, Incoming, KEEP_IN_PLACE_FROM};

impl Connection {
    /// Acts on the whole frames at the front of `input`.
    pub(super) fn frames(&mut self, input: &mut BytesMut, now: Instant) -> Result<(), Failure> {
        if self.joined.is_some() && !self.join(input)? {
            return Ok(());
        }
        let mut at = 0;
        while !matches!(self.phase, Phase::Ended) {
            let rest = input.get(at..).unwrap_or_default();
            let frame = match RawFrame::split(rest, self.max_payload) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => match self.not_amqp(rest) {
                    Some(Ok(())) => break,
                    Some(Err(failure)) => return Err(failure),
                    None => return Err(error.into()),
                },
            };
            let (kind, channel, len, size) = (frame.kind, frame.channel, frame.wire_len(), frame.payload.len());
            if kind == FrameType::Body && size >= KEEP_IN_PLACE_FROM {
                input.advance(at);
                at = 0;
                if self.starts_joining(channel, size) {
                    input.advance(FRAME_HEAD);
                    if self.join(input)? {
                        continue;
                    }
                    return Ok(());
                }
                let frame = input.split_to(len).freeze();
                self.channel_frame(kind, channel, Incoming::Kept(frame.slice(FRAME_HEAD..FRAME_HEAD + size)))?;
                continue;
            }
            if kind == FrameType::Method
                && frame.payload.starts_with(&DeliverView::ID)
                && let Some(len) = self.small_delivery(&frame, rest)
            {
                at += len;
                continue;
            }
            match (kind, channel) {
                (FrameType::Heartbeat, _) => {}
                (FrameType::Method, 0) => {
                    let method = Method::decode(&Bytes::copy_from_slice(frame.payload))?;
                    self.connection_method(method, now)?;
                }
                (_, 0) => {
                    return Err(Failure::new(ReplyCode::COMMAND_INVALID, "the server sent content on channel 0"));
                }
                _ => self.channel_frame(kind, channel, Incoming::Borrowed(frame.payload))?,
            }
            at += len;
        }
        input.advance(at);
        Ok(())
    }

    /// Looks at octets that are no frame: a server of another protocol answers in its own words (c2, c3, c4). `Some(Ok)`
    /// means that more has to come before it is clear.
    fn not_amqp(&self, octets: &[u8]) -> Option<Result<(), Failure>> {
        if !matches!(self.phase, Phase::Handshake(Some(Handshake::Start(_)))) {
            return None;
        }
        let begins = |word: &[u8]| word.starts_with(octets.get(..word.len()).unwrap_or(octets));
        let failed = |kind: ErrorKind, message: String| {
            Some(Err(Failure { code: ReplyCode::NOT_IMPLEMENTED, error: Error::new(kind, message) }))
        };
        let hint = |message: String| failed(ErrorKind::Unsupported, message);
        match octets {
            [b'A', ..] if octets.len() < ProtocolHeader::LEN && begins(b"AMQP") => Some(Ok(())),
            [b'A', b'M', b'Q', b'P', a, b, c, d, ..] => hint(format!(
                "the server does not speak AMQP 0-9-1, it answers with {}",
                ProtocolHeader([*a, *b, *c, *d])
            )),
            [0x15 | 0x16, ..] => failed(
                ErrorKind::Tls,
                "the server speaks TLS on this port: amqps:// does, or ConnectionBuilder::tls".into(),
            ),
            [b'H'] | [b'H', _] | [b'H', _, _] if begins(b"HTTP") => Some(Ok(())),
            [b'H', b'T', b'T', b'P', ..] => hint("the server speaks HTTP on this port".into()),
            _ => None,
        }
    }

    fn connection_method(&mut self, method: Method, now: Instant) -> Result<(), Failure> {
        let Method::Connection(method) = method else {
            let message = format!("the server sent {} on channel 0", method.info().name);
            return Err(Failure::new(ReplyCode::COMMAND_INVALID, message));
        };
        match (&mut self.phase, method) {
            (_, ConnectionMethod::Close(close)) => self.closed_by_server(&close),
            (Phase::Closing { .. }, ConnectionMethod::CloseOk(_)) => {
                self.phase = Phase::Ended;
                self.finish(&closed());
            }
            (Phase::Closing { .. } | Phase::Ended, _) => {}
            (Phase::Handshake(handshake), method) => {
                let Some(handshake) = handshake.take() else { return Ok(()) };
                let step = handshake
                    .handle(method, &self.config)
                    .map_err(|error| Failure { code: ReplyCode::COMMAND_INVALID, error })?;
                self.step(step, now)?;
            }
            (Phase::Open, ConnectionMethod::Blocked(blocked)) => {
                self.blocked = Some(blocked.reason.to_string());
                self.watchers.wake_all(&mut self.wakes);
            }
            (Phase::Open, ConnectionMethod::Unblocked(_)) => {
                self.blocked = None;
                self.publishers.wake_all(&mut self.wakes);
                self.watchers.wake_all(&mut self.wakes);
            }
            (Phase::Open, method) => {
                let reply = Reply { method: method.into(), content: None };
                self.calls.answer(reply, &mut self.wakes).map_err(|name| {
                    Failure::new(ReplyCode::COMMAND_INVALID, format!("the server sent {name} on an open connection"))
                })?;
            }
        }
        Ok(())
    }

    fn step(&mut self, step: Step, now: Instant) -> Result<(), Failure> {
        match step {
            Step::Next(methods, next) => {
                for method in methods {
                    self.answer(&method, Handshake::max_payload())
                        .map_err(|error| Failure { code: ReplyCode::FRAME_ERROR, error: error.into() })?;
                    if let Method::Connection(ConnectionMethod::TuneOk(tune)) = &method {
                        // c21: the server counts from tune-ok on, not from open-ok.
                        self.heartbeat.start(tune.heartbeat, now);
                        self.tuning.heartbeat = tune.heartbeat;
                    }
                }
                self.phase = Phase::Handshake(Some(next));
            }
            Step::Done(server, tuning) => {
                self.server = server;
                self.tuning = tuning;
                self.max_payload = tuning.frame_max as usize - FRAME_OVERHEAD;
                self.phase = Phase::Open;
                self.watchers.wake_all(&mut self.wakes);
            }
        }
        Ok(())
    }

    /// Sends on channel 0 what the server has called for. Such answers must not pile up.
    fn answer(&mut self, method: &Method, max_payload: usize) -> Result<(), EncodeError> {
        let before = self.out.len();
        let written = self.out.put_method(0, method, max_payload);
        self.answers += self.out.len() - before;
        written
    }

    /// A delivery whose header and only body frame follow in the same block: the most frequent thing to come, and worth a shorter
    /// way. Returns the octets of all three frames; with `None` they go the usual way one by one.
    #[inline]
    fn small_delivery(&mut self, method: &RawFrame<'_>, block: &[u8]) -> Option<usize> {
        let (number, max_payload, at) = (method.channel, self.max_payload, method.wire_len());
        let header = RawFrame::expected(block.get(at..)?, FrameType::Header, number, max_payload)?;
        let at = at + header.len() + FRAME_OVERHEAD;
        let body = RawFrame::expected(block.get(at..)?, FrameType::Body, number, max_payload)?;
        if body.len() >= KEEP_IN_PLACE_FROM || !matches!(self.phase, Phase::Open) {
            return None;
        }
        let id = self.numbers.channel(number);
        let (channel, mut hands) = id.and_then(|id| self.parts(id))?;
        let done = channel.small_delivery(method.payload, header, body, &mut hands);
        done.then(|| at + body.len() + FRAME_OVERHEAD)
    }

    #[inline]
    pub(super) fn channel_frame(&mut self, kind: FrameType, number: u16, payload: Incoming<'_>) -> Result<(), Failure> {
        let closing = matches!(self.phase, Phase::Closing { .. });
        let id = self.numbers.channel(number);
        let Some((channel, mut hands)) = id.and_then(|id| self.parts(id)) else {
            let message = format!("the server sent a frame on channel {number}, which is not open");
            let ignored = closing || self.numbers.is_retired(number);
            return if ignored { Ok(()) } else { Err(Failure::new(ReplyCode::CHANNEL_ERROR, message)) };
        };
        if closing {
            return Ok(());
        }
        let number_is_free = channel.frame(kind, payload, &mut hands)?;
        if number_is_free {
            let (released, closed_by_server) = (channel.released, channel.closed_by_server);
            self.numbers.release(number, closed_by_server);
            if released && let Some(slot) = id.and_then(|ChannelId(at)| self.channels.get_mut(at)) {
                *slot = None;
            }
            // Whoever waited with a full buffer learns that his channel is gone.
            self.publishers.wake_all(&mut self.wakes);
        }
        Ok(())
    }

    fn closed_by_server(&mut self, close: &connection::Close) {
        let _ = self.answer(&connection::CloseOk::default().into(), self.max_payload);
        let kind = match (&self.phase, ReplyCode(close.reply_code)) {
            // c46: crossing closes; ours is answered by the end of the stream.
            (Phase::Closing { .. }, _) => return,
            (Phase::Handshake(_), ReplyCode::ACCESS_REFUSED) => ErrorKind::Auth,
            // No virtual host was named yet, so it is the login that is not allowed (garagemq says it this way).
            (Phase::Handshake(Some(handshake)), ReplyCode::NOT_ALLOWED) if handshake.awaits_login() => ErrorKind::Auth,
            _ => ErrorKind::ConnectionClosed,
        };
        let method = (close.class_id, close.method_id);
        self.phase = Phase::Ended;
        self.finish(&Error::closed_by_peer(kind, close.reply_code, close.reply_text.as_bytes(), method));
    }

    /// The peer broke the protocol: it is told as far as it can still listen (c57), and so is everybody here.
    pub(super) fn fail(&mut self, Failure { code, error }: Failure) {
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        self.send_acks();
        // A server of another protocol would not understand it, and one that is being left was told already.
        if !matches!(self.phase, Phase::Handshake(Some(Handshake::Start(_))) | Phase::Closing { .. }) {
            let mut text = error.to_string();
            while text.len() > 255 {
                text.pop();
            }
            let close = connection::Close { reply_code: code.0, reply_text: text.into(), class_id: 0, method_id: 0 };
            let _ = self.out.put_method(0, &close.into(), self.max_payload);
        }
        self.phase = Phase::Ended;
        self.finish(&error);
    }

    /// The one place in which everybody who waits for anything on this connection is told that it is over.
    pub(super) fn finish(&mut self, reason: &Error) {
        let reason = self.end.get_or_insert_with(|| reason.clone()).clone();
        let Self { channels, wakes, buffered, .. } = self;
        for channel in channels.iter_mut().flatten() {
            channel.finish(&reason, wakes, buffered);
            channel.state = State::Closed;
        }
        self.calls.fail_all(&mut self.wakes);
        self.publishers.wake_all(&mut self.wakes);
        self.watchers.wake_all(&mut self.wakes);
    }
}

/// The peer broke the protocol: what it is told, and what everybody here is told.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(super) code: ReplyCode,
    pub(super) error: Error,
}

impl Failure {
    pub(super) fn new(code: ReplyCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, error: Error::new(ErrorKind::Protocol, message) }
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        let code = match error.kind() {
            DecodeErrorKind::UnknownMethod { .. } => ReplyCode::COMMAND_INVALID,
            DecodeErrorKind::UnknownFieldType(_) | DecodeErrorKind::TooDeep => ReplyCode::SYNTAX_ERROR,
            _ => ReplyCode::FRAME_ERROR,
        };
        Self { code, error: error.into() }
    }
}

impl From<ContentError> for Failure {
    fn from(error: ContentError) -> Self {
        Self { code: error.reply_code(), error: error.into() }
    }
}
