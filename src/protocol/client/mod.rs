//! The client's side of a connection.
//!
//! [`Connection`] is the whole of it: the handshake, the channels and what waits on them, heartbeats, both ways of closing.
//! It is driven as [`protocol`](super) describes, and used through methods that name a channel by its [`ChannelId`] and that
//! answer with a [`Poll`] where the answer may have to wait for the server.

mod calls;
mod channel;
mod config;
mod confirms;
mod consumer;
mod handshake;
mod publish;
mod requests;
mod wakers;

use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};

pub use calls::{CallId, Reply};
use channel::{Channel, Hands, State};
pub use config::{Config, Credentials, SaslMechanism, Tuning};
pub use confirms::{Confirmation, Returned, Watermark};
pub use consumer::{ConsumerId, Delivered, Deliveries};
pub use handshake::ServerInfo;
use handshake::{ExpectStart, Handshake, Step};
pub(crate) use publish::{Publish, Waiting};
pub(crate) use requests::Settle;
pub(crate) use wakers::Place;
use wakers::WakerQueue;

use super::heartbeat::Due;
use super::{Chunk, ContentError, Heartbeat, Incoming, KEEP_IN_PLACE_FROM, OutBuffer};
use crate::codec::method::connection::{self, Method as ConnectionMethod};
use crate::codec::{
    DecodeError, DecodeErrorKind, DeliverView, FRAME_OVERHEAD, FrameType, Method, ProtocolHeader, RawFrame, ReplyCode,
};
use crate::error::{Error, ErrorKind};

/// One connection to a server, as the client sees it.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    phase: Phase,
    /// Why the connection can no longer be used. Set as soon as it is closing.
    end: Option<Error>,
    server: ServerInfo,
    tuning: Tuning,
    max_payload: usize,
    out: OutBuffer,
    heartbeat: Heartbeat,
    /// Octets of input that were left over, because they are not a whole frame yet.
    left_over: usize,
    channels: Vec<Option<Channel>>,
    /// Which of `channels` has number `index + 1`.
    numbers: Vec<Option<ChannelId>>,
    /// `connection.update-secret`.
    calls: calls::Calls,
    blocked: Option<String>,
    /// Publishers who wait for more than their channel's window.
    publishers: WakerQueue,
    /// Those who wait for the connection to open or to end.
    watchers: WakerQueue,
    /// Octets in the consumers' queues.
    buffered: usize,
    /// The driver was told to stop reading.
    paused: bool,
    chunk: Chunk,
    driver: Option<Waker>,
    wakes: Vec<Waker>,
}

/// ```text
///   ┌───────────┐ open-ok  ┌──────┐ close sent  ┌─────────┐ close-ok, deadline  ┌───────┐
///   │ Handshake │ ───────► │ Open │ ──────────► │ Closing │ ──────────────────► │ Ended │
///   └───────────┘          └──────┘             └─────────┘                     └───────┘
///         │                    │ close received (close-ok is sent), violation,      ▲
///         └────────────────────┴─ heartbeat missed, end of the stream ──────────────┘
/// ```
#[derive(Debug)]
enum Phase {
    /// `None` only while a method is handled: a handshake that has failed stays failed.
    Handshake(Option<Handshake>),
    Open,
    Closing {
        deadline: Instant,
    },
    Ended,
}

/// Names a channel of a connection to its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelId(usize);

/// The peer broke the protocol: what it is told, and what everybody here is told.
#[derive(Debug)]
pub(crate) struct Failure {
    code: ReplyCode,
    error: Error,
}

impl Failure {
    fn new(code: ReplyCode, message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
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

// ------------------------------------------------------------------------------------------------------ for the owner

impl Connection {
    /// A connection whose stream has just been established. The protocol header is ready to be written.
    pub fn new(config: Config, now: Instant) -> Self {
        let tuning = Tuning { channel_max: 0, frame_max: config.frame_max.max(config::FRAME_MIN), heartbeat: 0 };
        let mut out = OutBuffer::new();
        out.put(&ProtocolHeader::AMQP_0_9_1.to_bytes());
        Self {
            phase: Phase::Handshake(Some(Handshake::Start(ExpectStart))),
            end: None,
            server: ServerInfo::default(),
            tuning,
            max_payload: tuning.frame_max as usize - FRAME_OVERHEAD,
            out,
            heartbeat: Heartbeat::new(now),
            left_over: 0,
            channels: Vec::new(),
            numbers: Vec::new(),
            calls: calls::Calls::default(),
            blocked: None,
            publishers: WakerQueue::default(),
            watchers: WakerQueue::default(),
            buffered: 0,
            paused: false,
            chunk: Chunk::default(),
            driver: None,
            wakes: Vec::new(),
            config,
        }
    }

    /// Takes what has arrived. Whole frames are taken off the front of `input`; what is left belongs to the next call.
    pub fn feed(&mut self, input: &mut BytesMut, now: Instant) {
        if input.len() > self.left_over {
            self.heartbeat.received(now);
        }
        if let Err(failure) = self.frames(input, now) {
            self.fail(failure);
        }
        if matches!(self.phase, Phase::Ended) {
            input.clear();
        }
        self.left_over = input.len();
    }

    fn frames(&mut self, input: &mut BytesMut, now: Instant) -> Result<(), Failure> {
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
                let frame = input.split_to(len).freeze();
                self.channel_frame(kind, channel, Incoming::Kept(frame.slice(7..7 + size)))?;
                continue;
            }
            if kind == FrameType::Method
                && frame.payload.starts_with(&DeliverView::ID)
                && let Some(len) = self.small_delivery(&frame, rest)?
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

    /// Puts what is to be written into `out`, provided that is empty.
    pub fn take_output(&mut self, out: &mut OutBuffer, now: Instant) {
        if out.is_empty() && !self.out.is_empty() {
            std::mem::swap(out, &mut self.out);
            self.heartbeat.sent(now);
            if self.blocked.is_none() {
                self.publishers.wake_all(&mut self.wakes);
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called at the latest.
    pub fn timeout(&self) -> Option<Instant> {
        let close = match self.phase {
            Phase::Closing { deadline } => Some(deadline),
            _ => None,
        };
        [close, self.heartbeat.timeout()].into_iter().flatten().min()
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        if self.paused {
            // Nothing is read, so nothing can be received: the silence is ours.
            self.heartbeat.received(now);
        }
        match self.heartbeat.due(now) {
            Due::Nothing => {}
            // What waits to be written is a sign of life as soon as the socket takes it.
            Due::Send if self.out.is_empty() => self.out.put_heartbeat(),
            Due::Send => self.heartbeat.sent(now),
            Due::PeerIsDead => {
                let seconds = self.tuning.heartbeat;
                // c40: without a handshake, since nobody would answer.
                self.out.clear();
                self.terminate(Error::new(
                    ErrorKind::Heartbeat,
                    format!("nothing came from the server for two heartbeat intervals of {seconds} s"),
                ));
            }
        }
        if let Phase::Closing { deadline } = self.phase
            && now >= deadline
        {
            self.out.clear();
            self.terminate(Error::new(ErrorKind::Timeout, "the server did not answer connection.close in time"));
        }
    }

    /// The stream has ended, for this reason. Everybody who waits is told.
    pub fn terminate(&mut self, reason: Error) {
        let reason = match &self.phase {
            Phase::Ended => return,
            // c56: after close was sent, the end is what was asked for. Only silence is worth an error.
            Phase::Closing { .. } if reason.kind() != ErrorKind::Timeout => {
                self.phase = Phase::Ended;
                self.finish(&closed());
                return;
            }
            Phase::Handshake(Some(handshake)) if handshake.awaits_login() && reason.kind() == ErrorKind::Io => {
                Error::because(
                    ErrorKind::Auth,
                    "the connection was closed during the login, most likely a wrong user name or password",
                    &reason,
                )
            }
            Phase::Handshake(Some(handshake)) if reason.kind() == ErrorKind::Io => {
                let message = format!("the connection was closed where {} was due", handshake.expects());
                Error::because(ErrorKind::Handshake, message, &reason)
            }
            _ => reason,
        };
        if matches!(self.phase, Phase::Closing { .. }) {
            self.end = Some(reason.clone());
        }
        self.phase = Phase::Ended;
        self.finish(&reason);
    }

    /// Whether the stream is to be closed once the output is written.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Whether more input is wanted: deliveries have not piled up.
    pub fn wants_input(&mut self) -> bool {
        self.paused = self.buffered >= self.config.max_buffered;
        !self.paused
    }

    /// Who is to be woken once the lock is released.
    pub fn take_wakes(&mut self, wakes: &mut Vec<Waker>) {
        wakes.append(&mut self.wakes);
    }

    /// Keeps the driver's waker until there is something for it to do.
    pub fn set_driver(&mut self, driver: &Waker) {
        match &mut self.driver {
            Some(old) => old.clone_from(driver),
            None => self.driver = Some(driver.clone()),
        }
    }

    /// The driver's waker, if there is something for it to do and it does not know yet.
    #[inline]
    pub fn wake_driver(&mut self) -> Option<Waker> {
        let resume = self.paused && self.buffered < self.config.max_buffered;
        if !self.out.is_empty() || resume || matches!(self.phase, Phase::Ended) { self.driver.take() } else { None }
    }
}

// ---------------------------------------------------------------------------------------------------- what comes in

impl Connection {
    /// Looks at octets that are no frame: a server of another protocol answers in its own words (c2, c3, c4). `Some(Ok)`
    /// means that more has to come before it is clear.
    fn not_amqp(&self, octets: &[u8]) -> Option<Result<(), Failure>> {
        if !matches!(self.phase, Phase::Handshake(Some(Handshake::Start(_)))) {
            return None;
        }
        let hint = |message: String| {
            let error = Error::new(ErrorKind::Unsupported, message);
            Some(Err(Failure { code: ReplyCode::NOT_IMPLEMENTED, error }))
        };
        match octets {
            [b'A', ..]
                if octets.len() < ProtocolHeader::LEN && b"AMQP".starts_with(octets.get(..4).unwrap_or(octets)) =>
            {
                Some(Ok(()))
            }
            [b'A', b'M', b'Q', b'P', a, b, c, d, ..] => hint(format!(
                "the server does not speak AMQP 0-9-1, it answers with {}",
                ProtocolHeader([*a, *b, *c, *d])
            )),
            [0x15 | 0x16, ..] => hint("the server speaks TLS on this port".into()),
            [b'H', ..] => hint("the server speaks HTTP on this port".into()),
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
                self.calls.answer(reply, &mut self.wakes).map_err(|reply| {
                    let name = reply.method.info().name;
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
                    self.out
                        .put_method(0, &method, Handshake::max_payload())
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

    /// A delivery whose header and only body frame follow in the same block: the most frequent thing to come, and worth a shorter
    /// way. Returns the octets of all three frames; with `None` they go the usual way one by one.
    #[inline]
    fn small_delivery(&mut self, method: &RawFrame<'_>, block: &[u8]) -> Result<Option<usize>, Failure> {
        let at = method.wire_len();
        let Ok(Some(header)) = RawFrame::split(block.get(at..).unwrap_or_default(), self.max_payload) else {
            return Ok(None);
        };
        let end = at + header.wire_len();
        let Ok(Some(body)) = RawFrame::split(block.get(end..).unwrap_or_default(), self.max_payload) else {
            return Ok(None);
        };
        let together = (header.kind, body.kind) == (FrameType::Header, FrameType::Body)
            && header.channel == method.channel
            && body.channel == method.channel;
        if !together || body.payload.len() >= KEEP_IN_PLACE_FROM || !matches!(self.phase, Phase::Open) {
            return Ok(None);
        }
        let id = self.numbers.get(usize::from(method.channel).wrapping_sub(1)).copied().flatten();
        let Some((channel, mut hands)) = id.and_then(|id| self.parts(id)) else { return Ok(None) };
        let done = channel.small_delivery(method.payload, header.payload, body.payload, &mut hands)?;
        Ok(done.then(|| end + body.wire_len()))
    }

    #[inline]
    fn channel_frame(&mut self, kind: FrameType, number: u16, payload: Incoming<'_>) -> Result<(), Failure> {
        let id = self.numbers.get(usize::from(number).wrapping_sub(1)).copied().flatten();
        let channel = id.and_then(|ChannelId(at)| self.channels.get_mut(at)).and_then(Option::as_mut);
        let Some(channel) = channel else {
            return match self.phase {
                Phase::Closing { .. } => Ok(()),
                _ => Err(Failure::new(
                    ReplyCode::CHANNEL_ERROR,
                    format!("the server sent a frame on channel {number}, which is not open"),
                )),
            };
        };
        if matches!(self.phase, Phase::Closing { .. }) {
            return Ok(());
        }
        let mut hands = Hands {
            out: &mut self.out,
            wakes: &mut self.wakes,
            chunk: &mut self.chunk,
            buffered: &mut self.buffered,
            max_payload: self.max_payload,
            max_body: self.config.max_message_size,
            publishers: &mut self.publishers,
        };
        let number_is_free = channel.frame(kind, payload, &mut hands)?;
        if number_is_free {
            let released = channel.released;
            if let Some(slot) = self.numbers.get_mut(usize::from(number).wrapping_sub(1)) {
                *slot = None;
            }
            if released && let Some(slot) = id.and_then(|ChannelId(at)| self.channels.get_mut(at)) {
                *slot = None;
            }
            // Whoever waited with a full buffer learns that his channel is gone.
            self.publishers.wake_all(&mut self.wakes);
        }
        Ok(())
    }

    fn closed_by_server(&mut self, close: &connection::Close) {
        let _ = self.out.put_method(0, &connection::CloseOk::default().into(), self.max_payload);
        let kind = match (&self.phase, ReplyCode(close.reply_code)) {
            // c46: crossing closes; ours is answered by the end of the stream.
            (Phase::Closing { .. }, _) => return,
            (Phase::Handshake(_), ReplyCode::ACCESS_REFUSED) => ErrorKind::Auth,
            _ => ErrorKind::ConnectionClosed,
        };
        let method = (close.class_id, close.method_id);
        self.phase = Phase::Ended;
        self.finish(&Error::closed_by_peer(kind, close.reply_code, close.reply_text.as_bytes(), method));
    }

    /// The peer broke the protocol: it is told as far as it can still listen (c57), and so is everybody here.
    fn fail(&mut self, Failure { code, error }: Failure) {
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        if !matches!(self.phase, Phase::Handshake(Some(Handshake::Start(_)))) {
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
    fn finish(&mut self, reason: &Error) {
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

// ------------------------------------------------------------------------------------------- the connection as a whole

impl Connection {
    /// Ready once the handshake is done, or has failed.
    pub(crate) fn poll_open(&mut self, place: &mut Option<Place>, waker: &Waker) -> Poll<Result<(), Error>> {
        match (&self.phase, &self.end) {
            (_, Some(error)) => Poll::Ready(Err(error.clone())),
            (Phase::Handshake(_), None) => {
                self.watchers.wait(place, waker);
                Poll::Pending
            }
            (_, None) => Poll::Ready(Ok(())),
        }
    }

    /// Sends `connection.close`; what is to be written before it still is. Nothing happens when it is closing already.
    pub fn close(&mut self, code: ReplyCode, text: &str, now: Instant, limit: Duration) -> Result<(), Error> {
        match self.phase {
            Phase::Open => {}
            Phase::Handshake(_) => {
                self.phase = Phase::Ended;
                self.finish(&closed());
                return Ok(());
            }
            Phase::Closing { .. } | Phase::Ended => return Ok(()),
        }
        let close = connection::Close { reply_code: code.0, reply_text: text.into(), class_id: 0, method_id: 0 };
        self.out.put_method(0, &close.into(), self.max_payload)?;
        self.phase = Phase::Closing { deadline: now + limit };
        self.finish(&closed());
        Ok(())
    }

    /// Ready once the connection has ended: with the reason, unless that was a close on this side.
    pub(crate) fn poll_ended(&mut self, place: &mut Option<Place>, waker: &Waker) -> Poll<Result<(), Error>> {
        match (&self.phase, &self.end) {
            (Phase::Ended, Some(error)) if error.kind() != ErrorKind::Closed => Poll::Ready(Err(error.clone())),
            (Phase::Ended, _) => Poll::Ready(Ok(())),
            _ => {
                self.watchers.wait(place, waker);
                Poll::Pending
            }
        }
    }

    /// Somebody no longer waits for the connection to open or to end.
    pub(crate) fn unwatch(&mut self, place: Place) {
        self.watchers.leave(place, &mut self.wakes);
    }

    /// Why the connection cannot be used any more, if so.
    pub fn end(&self) -> Option<&Error> {
        self.end.as_ref()
    }

    /// Why the server takes no messages (`connection.blocked`), if so.
    pub fn blocked(&self) -> Option<&str> {
        self.blocked.as_deref()
    }

    /// What the server told of itself.
    pub fn server(&self) -> &ServerInfo {
        &self.server
    }

    /// The limits both sides have agreed on.
    pub fn tuning(&self) -> Tuning {
        self.tuning
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the connection was closed on this side")
}
