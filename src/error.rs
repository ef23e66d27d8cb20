//! What went wrong, whose fault it was, and what became of the message.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::codec::{DecodeError, EncodeError, ReplyCode};

/// The result of everything that talks to a server.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something did not succeed.
///
/// One error can end many waits (a lost connection ends every call on it), so it is cheap to clone, and as small as a pointer. `Display`
/// is one line that ends with the causes; secrets never appear in it.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    outcome: Outcome,
    message: Cow<'static, str>,
    reply: Option<Reply>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    /// The message says already what the source says.
    explained: bool,
}

/// The words with which a peer closed a channel or a connection.
#[derive(Clone, Debug)]
struct Reply {
    code: ReplyCode,
    text: String,
    /// Class and method at fault, unless both are 0.
    method: Option<(u16, u16)>,
}

/// What kind of error it is.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The server refused the credentials, or offers no mechanism that is wanted here. Caller.
    Auth,
    /// The server is short of memory or disk and takes no messages (`connection.blocked`); the deadline passed. Peer.
    Blocked,
    /// A consumer was cancelled by the server, mostly because its queue is gone. Peer.
    Cancelled,
    /// The server closed the channel; [`Error::reply_code`] says why. Peer.
    ChannelClosed,
    /// Used after it was closed on this side. Caller.
    Closed,
    /// The server closed the connection; [`Error::reply_code`] says why. Peer.
    ConnectionClosed,
    /// The server could not be reached, or the handshake was not completed. Network.
    Handshake,
    /// Nothing came from the server for two heartbeat intervals. Network.
    Heartbeat,
    /// A value that the protocol cannot carry, or a request that makes no sense. Caller.
    InvalidArgument,
    /// The URL cannot be understood. Caller.
    InvalidUrl,
    /// The socket failed, or was closed without a word. Network.
    Io,
    /// Kafka's brokers, or librdkafka, have failed in a way that has no other kind here; `leveret::kafka::code` has their number for
    /// it. Peer.
    Kafka,
    /// As many channels are open as the server allows. Caller.
    LimitReached,
    /// A message is larger than the limit set for this connection. Caller when sending, peer when receiving.
    MessageTooLarge,
    /// The server did not take responsibility for a message (`basic.nack`). Peer.
    Nacked,
    /// The peer broke the protocol. Peer.
    Protocol,
    /// There is no such topic or partition (Kafka). Caller.
    NotFound,
    /// No queue took a mandatory message, and the server gave it back (`basic.return`). Caller.
    Returned,
    /// A delivery was settled after its channel had ended, or after it was settled with a later one; nothing was sent. Caller.
    Stale,
    /// The deadline passed. Network.
    Timeout,
    /// Certificates, keys or TLS itself: this side's files cannot be used, the server's certificate is not accepted here, this
    /// side's is not accepted there, or one of the two does not speak TLS. Caller.
    Tls,
    /// The server, or this version of this library, cannot do that. Caller.
    Unsupported,
}

/// Who has to change something for it to succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The program that called.
    Caller,
    /// The server.
    Peer,
    /// Whatever lies between.
    Network,
}

/// What became of a message whose publishing ended in an error: the question before every retry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It never left. Sending it again cannot duplicate it.
    NotSent,
    /// The server said no.
    Refused,
    /// It was handed over and nobody knows. Sending it again may duplicate it.
    #[default]
    Unknown,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self::build(kind, message.into(), None, None)
    }

    fn build(
        kind: ErrorKind,
        message: Cow<'static, str>,
        reply: Option<Reply>,
        source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let outcome = match kind {
            ErrorKind::InvalidArgument | ErrorKind::InvalidUrl | ErrorKind::Blocked | ErrorKind::Stale => {
                Outcome::NotSent
            }
            _ => Outcome::Unknown,
        };
        Self { inner: Arc::new(Inner { kind, outcome, message, reply, source, explained: false }) }
    }

    /// With the error that caused it.
    pub(crate) fn with_source(
        kind: ErrorKind,
        message: impl Into<Cow<'static, str>>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::build(kind, message.into(), None, Some(Arc::new(source)))
    }

    /// With the error that caused it, which the message says in better words: `Display` leaves it out.
    #[cfg(feature = "tls-core")]
    pub(crate) fn explained(
        kind: ErrorKind,
        message: impl Into<Cow<'static, str>>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        let mut error = Self::with_source(kind, message, source);
        Arc::make_mut(&mut error.inner).explained = true;
        error
    }

    /// With a cause of whatever type a user's code has.
    pub(crate) fn with_boxed(
        kind: ErrorKind,
        message: impl Into<Cow<'static, str>>,
        source: Box<dyn std::error::Error + Send + Sync>,
    ) -> Self {
        Self::build(kind, message.into(), None, Some(Arc::from(source)))
    }

    /// The peer closed something, in its own words.
    pub(crate) fn closed_by_peer(kind: ErrorKind, code: u16, text: &[u8], method: (u16, u16)) -> Self {
        let code = ReplyCode(code);
        let what = match kind {
            ErrorKind::Auth => "refused the login",
            ErrorKind::ChannelClosed => "closed the channel",
            _ => "closed the connection",
        };
        let text = String::from_utf8_lossy(text).into_owned();
        let message = format!("the server {what}: {} {text}", code.0);
        let method = (method != (0, 0)).then_some(method);
        Self::build(kind, message.into(), Some(Reply { code, text, method }), None)
    }

    /// A message came back, in the server's own words.
    pub(crate) fn returned(code: ReplyCode, text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text).into_owned();
        let message = format!("the server returned the message: {} {text}", code.0);
        let reply = Reply { code, text, method: None };
        Self::build(ErrorKind::Returned, message.into(), Some(reply), None).with_outcome(Outcome::Refused)
    }

    /// The same error seen from another place: a new kind and message, the old one as its cause, the same reply.
    pub(crate) fn because(kind: ErrorKind, message: impl Into<Cow<'static, str>>, cause: &Self) -> Self {
        Self::build(kind, message.into(), cause.inner.reply.clone(), Some(Arc::new(cause.clone())))
    }

    /// With the reply of another one, which this stands for.
    #[cfg(feature = "client")]
    pub(crate) fn with_reply_of(mut self, other: &Self) -> Self {
        Arc::make_mut(&mut self.inner).reply.clone_from(&other.inner.reply);
        self
    }

    pub(crate) fn with_outcome(mut self, outcome: Outcome) -> Self {
        Arc::make_mut(&mut self.inner).outcome = outcome;
        self
    }

    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// What became of the message, when a message was being published.
    pub fn outcome(&self) -> Outcome {
        self.inner.outcome
    }

    /// The code with which the server closed the channel or the connection.
    pub fn reply_code(&self) -> Option<ReplyCode> {
        self.inner.reply.as_ref().map(|reply| reply.code)
    }

    /// The text with which the server closed the channel or the connection; U+FFFD stands for what was not UTF-8.
    pub fn reply_text(&self) -> Option<&str> {
        self.inner.reply.as_ref().map(|reply| reply.text.as_str())
    }

    /// Class and method id of the request that the server complained about, where it named one.
    pub fn failing_method(&self) -> Option<(u16, u16)> {
        self.inner.reply.as_ref().and_then(|reply| reply.method)
    }

    /// Who has to change something for it to succeed.
    pub fn origin(&self) -> Origin {
        match self.inner.kind {
            ErrorKind::Auth
            | ErrorKind::Closed
            | ErrorKind::InvalidArgument
            | ErrorKind::InvalidUrl
            | ErrorKind::LimitReached
            | ErrorKind::MessageTooLarge
            | ErrorKind::NotFound
            | ErrorKind::Returned
            | ErrorKind::Stale
            | ErrorKind::Tls
            | ErrorKind::Unsupported => Origin::Caller,
            ErrorKind::Blocked | ErrorKind::Cancelled | ErrorKind::Kafka | ErrorKind::Nacked | ErrorKind::Protocol => {
                Origin::Peer
            }
            // A peer that says "not found" or "access refused" answers a caller who has to ask otherwise.
            ErrorKind::ChannelClosed | ErrorKind::ConnectionClosed => {
                if self.is_transient() {
                    Origin::Peer
                } else {
                    Origin::Caller
                }
            }
            ErrorKind::Handshake | ErrorKind::Heartbeat | ErrorKind::Io | ErrorKind::Timeout => Origin::Network,
        }
    }

    /// Whether the same request may succeed later without anybody changing it.
    ///
    /// So do lost connections, timeouts, a blocked server, a nack, and the reply codes 320 (operator), 405 (the other owner may
    /// leave), 506 and 541.
    pub fn is_transient(&self) -> bool {
        match self.inner.kind {
            ErrorKind::Blocked
            | ErrorKind::Handshake
            | ErrorKind::Heartbeat
            | ErrorKind::Io
            | ErrorKind::Nacked
            | ErrorKind::Timeout => true,
            ErrorKind::ChannelClosed | ErrorKind::ConnectionClosed => self.reply_code().is_some_and(|code| {
                matches!(
                    code,
                    ReplyCode::CONNECTION_FORCED
                        | ReplyCode::RESOURCE_LOCKED
                        | ReplyCode::RESOURCE_ERROR
                        | ReplyCode::INTERNAL_ERROR
                )
            }),
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)?;
        match &self.inner.source {
            Some(source) if !self.inner.explained => write!(f, ": {source}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.inner.kind)
    }
}

impl std::error::Error for Error {
    /// `Display` already names the causes; this is for programs that look for one of a certain type.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        Self::with_source(ErrorKind::InvalidArgument, "the request cannot be written", error)
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::with_source(ErrorKind::Protocol, "the peer sent something that is not AMQP 0-9-1", error)
    }
}

impl From<std::io::Error> for Error {
    /// A stream that knows better what went wrong hands over an [`Error`] of its own inside.
    fn from(error: std::io::Error) -> Self {
        if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            return inner.clone();
        }
        Self::with_source(ErrorKind::Io, "the connection was lost", error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_cheap_to_share_between_threads() {
        fn assert_shareable<T: Clone + Send + Sync + 'static>() {}
        assert_shareable::<Error>();
    }

    #[test]
    fn c53_a_reply_text_that_is_not_utf8_is_shown_lossily() {
        let error = Error::closed_by_peer(ErrorKind::ChannelClosed, 404, b"no \xff", (60, 40));
        assert_eq!(error.reply_text(), Some("no \u{fffd}"));
        assert_eq!(error.failing_method(), Some((60, 40)));
        assert_eq!(error.to_string(), "the server closed the channel: 404 no \u{fffd}");
    }

    /// Which of the server's codes are worth another try: an operator or a shutdown, a lock that may go, a server in trouble.
    #[test]
    fn c144_of_the_codes_four_may_pass() {
        for (code, ..) in ReplyCode::ALL {
            for kind in [ErrorKind::ChannelClosed, ErrorKind::ConnectionClosed] {
                let error = Error::closed_by_peer(kind, code.0, b"", (0, 0));
                assert_eq!(error.is_transient(), [320, 405, 506, 541].contains(&code.0), "{error}");
                assert_eq!(error.origin(), if error.is_transient() { Origin::Peer } else { Origin::Caller });
            }
            assert!(!Error::closed_by_peer(ErrorKind::Auth, code.0, b"", (0, 0)).is_transient(), "accounts are locked");
        }
    }
}
