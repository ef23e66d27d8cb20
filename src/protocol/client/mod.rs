//! The client's side of a connection.
//!
//! [`Connection`] is the whole of it: the handshake, the channels and what waits on them, heartbeats, both ways of closing.
//! It is driven as [`protocol`](super) describes, and used through methods that name a channel by its [`ChannelId`] and that
//! answer with a [`Poll`] where the answer may have to wait for the server.

mod acks;
mod batch;
mod calls;
mod channel;
mod config;
mod confirms;
mod consumer;
mod handshake;
mod inbound;
mod joined;
mod numbers;
mod publish;
mod requests;
mod sasl;
mod wakers;

use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use batch::Heads;
pub use batch::{Batch, Delivered, Single};
pub use calls::{CallId, Reply};
use channel::{Channel, State};
pub use config::{Config, FRAME_MIN, INITIAL_FRAME_MAX, Tuning};
pub use confirms::{Confirmation, Returned, Watermark};
pub use consumer::{ConsumerId, Deliveries};
pub use handshake::ServerInfo;
use handshake::{ExpectStart, Handshake};
use inbound::Failure;
use joined::Joined;
use numbers::Numbers;
pub use publish::{PropertiesRef, Publish, STAMP, Waiting};
pub use requests::Settle;
pub use sasl::{Credentials, Sasl, SaslError, SaslExchange, SaslMechanism};
pub use wakers::Place;
use wakers::WakerQueue;

use super::heartbeat::Due;
use super::{Heartbeat, OutBuffer, Wakes};
use crate::codec::method::connection;
use crate::codec::{FRAME_OVERHEAD, ProtocolHeader, ReplyCode};
use crate::error::{Error, ErrorKind};
use crate::wakes::keep;

/// When so many octets wait to be written about what the server has sent (acks of its deliveries, answers that it called for), nothing
/// more is read. They are fewer on any connection on which both sides read: this is more than the acks of a consumer with the largest
/// prefetch there is.
const MAX_ANSWERS: usize = 1536 * 1024;

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
    /// What will not be written any more: bodies in it may have owners with code of their own.
    unsent: OutBuffer,
    heartbeat: Heartbeat,
    /// Octets of input that were left over, because they are not a whole frame yet.
    left_over: usize,
    /// A body in several frames at the front of the input.
    joined: Option<Joined>,
    /// The size of the one that has just become whole: there may be another.
    another: Option<usize>,
    channels: Vec<Option<Channel>>,
    /// Which of `channels` has which number.
    numbers: Numbers,
    /// `connection.update-secret`.
    calls: calls::Calls,
    /// How many consumer tags were made up here.
    consumer_tags_given: u64,
    blocked: Option<String>,
    /// Publishers who wait for more than their channel's window.
    publishers: WakerQueue,
    /// Those who wait for the connection to open or to end.
    watchers: WakerQueue,
    /// Octets in the consumers' queues.
    buffered: usize,
    /// What large messages have beside their bodies.
    heads: Heads,
    /// Octets in `out` about what the server has sent: acks, and answers that it called for.
    answers: usize,
    /// Channels with coalesced acks that wait for the driver to take the output.
    acking: Vec<ChannelId>,
    /// The driver was told to stop reading.
    paused: bool,
    driver: Option<Waker>,
    /// How often the driver has had its turn.
    turns: u64,
    wakes: Wakes,
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

// ------------------------------------------------------------------------------------------------------ for the owner

impl Connection {
    /// A connection whose stream has just been established. The protocol header is ready to be written.
    pub fn new(config: Config, now: Instant) -> Self {
        // Nothing is agreed on yet: a server's first words may be long, whatever limit is asked for later (c16).
        let frame_max = config.frame_max.max(INITIAL_FRAME_MAX);
        let tuning = Tuning { channel_max: 0, frame_max, heartbeat: 0 };
        let mut out = OutBuffer::new();
        out.put(&ProtocolHeader::AMQP_0_9_1.to_bytes());
        Self {
            phase: Phase::Handshake(Some(Handshake::Start(ExpectStart))),
            end: None,
            server: ServerInfo::default(),
            tuning,
            max_payload: tuning.frame_max as usize - FRAME_OVERHEAD,
            out,
            unsent: OutBuffer::new(),
            heartbeat: Heartbeat::new(now),
            left_over: 0,
            joined: None,
            another: None,
            channels: Vec::new(),
            numbers: Numbers::default(),
            calls: calls::Calls::default(),
            consumer_tags_given: 0,
            blocked: None,
            publishers: WakerQueue::default(),
            watchers: WakerQueue::default(),
            buffered: 0,
            heads: Heads::default(),
            answers: 0,
            acking: Vec::new(),
            paused: false,
            driver: None,
            turns: 0,
            wakes: Wakes::default(),
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

    /// Puts what is to be written into `out`, provided that is empty.
    pub fn take_output(&mut self, out: &mut OutBuffer, now: Instant) {
        if !out.is_empty() {
            return;
        }
        self.send_acks();
        if !self.out.is_empty() {
            std::mem::swap(out, &mut self.out);
            self.answers = 0;
            self.heartbeat.sent(now);
            if self.blocked.is_none() {
                self.publishers.wake_all(&mut self.wakes);
            }
        }
    }

    /// What will not be written any more, where the peer is taken for dead; to be dropped once the lock is released.
    pub fn take_unsent(&mut self) -> OutBuffer {
        std::mem::take(&mut self.unsent)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called at the latest.
    pub fn timeout(&self) -> Option<Instant> {
        let close = match self.phase {
            Phase::Closing { deadline } => Some(deadline),
            Phase::Ended => return None,
            _ => None,
        };
        [close, self.heartbeat.timeout()].into_iter().flatten().min()
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        // c21: the server is watched from open-ok on. Before that it may be long about the virtual host, and whoever connects has a deadline.
        let opening = matches!(self.phase, Phase::Handshake(_));
        // Nothing is read, so nothing can be received: the silence is ours. A server that blocks has said that it does not read.
        let excused = self.paused && (!self.is_unheard() || self.blocked.is_some());
        if opening || excused {
            self.heartbeat.received(now);
        }
        match self.heartbeat.due(now) {
            Due::Nothing => {}
            // What waits to be written is a sign of life as soon as the socket takes it.
            Due::Send if self.out.is_empty() => self.out.put_heartbeat(),
            Due::Send => self.heartbeat.sent(now),
            Due::PeerIsDead => {
                let seconds = self.tuning.heartbeat;
                let what = match self.is_unheard() {
                    true => "the server did not read what was said to what it sent",
                    false => "nothing came from the server",
                };
                // c40: without a handshake, since nobody would answer.
                self.unsent = std::mem::take(&mut self.out);
                let message = format!("{what} for two heartbeat intervals of {seconds} s");
                self.terminate(Error::new(ErrorKind::Heartbeat, message));
            }
        }
        if let Phase::Closing { deadline } = self.phase
            && now >= deadline
        {
            self.unsent = std::mem::take(&mut self.out);
            self.terminate(Error::new(ErrorKind::Timeout, "the server did not answer connection.close in time"));
        }
    }

    /// The stream has ended, for this reason. Everybody who waits is told.
    pub fn terminate(&mut self, reason: Error) {
        let reason = match &self.phase {
            Phase::Ended => return,
            // c56: after close was sent, the end is what was asked for. Only silence is worth an error.
            Phase::Closing { .. } if !matches!(reason.kind(), ErrorKind::Timeout | ErrorKind::Heartbeat) => {
                self.phase = Phase::Ended;
                self.finish(&closed());
                return;
            }
            Phase::Handshake(Some(handshake)) if handshake.awaits_login() && reason.kind() == ErrorKind::Io => {
                Error::because(ErrorKind::Auth, handshake.refused_login(), &reason)
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

    /// Whether more input is wanted: neither deliveries have piled up, nor acks and answers for a server that does not read them.
    pub fn wants_input(&mut self) -> bool {
        self.paused = self.buffered >= self.config.max_buffered || self.is_unheard();
        !self.paused
    }

    /// Why nothing may have come from the server, for the error of one whose deadline has passed.
    pub fn why_unread(&self) -> &'static str {
        match (self.paused, self.is_unheard()) {
            (false, _) => "",
            (true, false) => "; nothing is read while so many deliveries wait for their consumers (max_buffered)",
            (true, true) => "; nothing is read while the server does not read what is said to what it sent",
        }
    }

    /// Whether the server sends, and does not read what is said to that.
    fn is_unheard(&self) -> bool {
        self.answers >= MAX_ANSWERS
    }

    /// Whether there is anything to be done once the lock is released: for the driver, or with those of `take_wakes`.
    #[inline]
    pub fn has_wakes(&self) -> bool {
        self.driver.is_some() && self.wants_driver() || !self.wakes.is_empty()
    }

    /// Who is to be woken, or dropped, once the lock is released.
    pub fn take_wakes(&mut self, wakes: &mut Wakes) {
        wakes.append(&mut self.wakes);
    }

    /// The driver's turn is over: keeps its waker until there is something for it to do.
    pub fn set_driver(&mut self, driver: &Waker) {
        self.turns += 1;
        self.wakes.drop_later(keep(&mut self.driver, driver));
    }

    /// How often the driver has had its turn. What is published while this stays the same waits for one and the same turn, for
    /// which the driver has been woken.
    #[inline]
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// The driver's waker, if there is something for it to do and it does not know yet.
    pub fn wake_driver(&mut self) -> Option<Waker> {
        if self.wants_driver() { self.driver.take() } else { None }
    }

    #[inline]
    fn wants_driver(&self) -> bool {
        let resume = self.paused && self.buffered < self.config.max_buffered && !self.is_unheard();
        !self.out.is_empty() || !self.acking.is_empty() || resume || matches!(self.phase, Phase::Ended)
    }
}

// ------------------------------------------------------------------------------------------- the connection as a whole

impl Connection {
    /// Ready once the handshake is done, or has failed.
    pub fn poll_open(&mut self, place: &mut Option<Place>, waker: &Waker) -> Poll<Result<(), Error>> {
        match (&self.phase, &self.end) {
            (_, Some(error)) => Poll::Ready(Err(error.clone())),
            (Phase::Handshake(_), None) => {
                self.watchers.wait(place, waker, &mut self.wakes);
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
        self.send_acks();
        let close = connection::Close { reply_code: code.0, reply_text: text.into(), class_id: 0, method_id: 0 };
        self.out.put_method(0, &close.into(), self.max_payload)?;
        // A limit that is longer than any program is no reason to overflow.
        self.phase = Phase::Closing { deadline: now + limit.min(Duration::from_secs(1 << 30)) };
        self.finish(&closed());
        Ok(())
    }

    /// Ready once the connection has ended: with the reason, unless that was a close on this side.
    pub fn poll_ended(&mut self, place: &mut Option<Place>, waker: &Waker) -> Poll<Result<(), Error>> {
        match (&self.phase, &self.end) {
            (Phase::Ended, Some(error)) if error.kind() != ErrorKind::Closed => Poll::Ready(Err(error.clone())),
            (Phase::Ended, _) => Poll::Ready(Ok(())),
            _ => {
                self.watchers.wait(place, waker, &mut self.wakes);
                Poll::Pending
            }
        }
    }

    /// Somebody no longer waits for the connection to open or to end.
    pub fn unwatch(&mut self, place: Place) {
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
