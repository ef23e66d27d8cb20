//! Why a channel or a connection was closed, or a message returned.

use std::fmt;

/// A reply code of AMQP 0-9-1. The set is open: a peer may send any number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplyCode(pub u16);

macro_rules! reply_codes {
    ($( $(#[$doc:meta])* $constant:ident = $code:literal, $name:literal, $severity:ident; )*) => {
        impl ReplyCode {
            $( $(#[$doc])* pub const $constant: Self = Self($code); )*

            /// Every code the protocol names: number, name, and whether it closes the connection rather than a channel.
            pub const ALL: &'static [(Self, &'static str, bool)] = &[$( (Self($code), $name, reply_codes!(@ $severity)), )*];
        }
    };
    (@ soft) => { false };
    (@ hard) => { true };
}

reply_codes! {
    /// Success.
    REPLY_SUCCESS = 200, "REPLY_SUCCESS", soft;
    /// The content is too large for the server at this time.
    CONTENT_TOO_LARGE = 311, "CONTENT_TOO_LARGE", soft;
    /// A mandatory message reached no queue. Seen in `basic.return` only.
    NO_ROUTE = 312, "NO_ROUTE", soft;
    /// An immediate message had no consumer. Seen in `basic.return` only.
    NO_CONSUMERS = 313, "NO_CONSUMERS", soft;
    /// An operator closed the connection, or the server is shutting down.
    CONNECTION_FORCED = 320, "CONNECTION_FORCED", hard;
    /// The virtual host is unknown.
    INVALID_PATH = 402, "INVALID_PATH", hard;
    /// The user may not do that.
    ACCESS_REFUSED = 403, "ACCESS_REFUSED", soft;
    /// There is no such queue or exchange.
    NOT_FOUND = 404, "NOT_FOUND", soft;
    /// Another connection has the queue for itself.
    RESOURCE_LOCKED = 405, "RESOURCE_LOCKED", soft;
    /// The request does not fit what is there: other arguments, an unknown delivery tag, a queue in use.
    PRECONDITION_FAILED = 406, "PRECONDITION_FAILED", soft;
    /// A frame could not be decoded.
    FRAME_ERROR = 501, "FRAME_ERROR", hard;
    /// A field has an illegal value.
    SYNTAX_ERROR = 502, "SYNTAX_ERROR", hard;
    /// The method does not belong here.
    COMMAND_INVALID = 503, "COMMAND_INVALID", hard;
    /// The channel is not open, or opened twice.
    CHANNEL_ERROR = 504, "CHANNEL_ERROR", hard;
    /// A frame that does not belong here, mostly in the middle of content.
    UNEXPECTED_FRAME = 505, "UNEXPECTED_FRAME", hard;
    /// The server has run out of something.
    RESOURCE_ERROR = 506, "RESOURCE_ERROR", hard;
    /// The server will not do that, for example open an unknown virtual host.
    NOT_ALLOWED = 530, "NOT_ALLOWED", hard;
    /// The server cannot do that.
    NOT_IMPLEMENTED = 540, "NOT_IMPLEMENTED", hard;
    /// Something failed inside the server.
    INTERNAL_ERROR = 541, "INTERNAL_ERROR", hard;
}

impl ReplyCode {
    /// The protocol's name for the code, as servers write it at the start of a reply text.
    pub fn name(self) -> Option<&'static str> {
        Self::ALL.iter().find(|(code, ..)| *code == self).map(|(_, name, _)| *name)
    }

    /// Whether the code closes the connection rather than a channel. Codes the protocol does not name count as hard.
    pub fn is_hard(self) -> bool {
        Self::ALL.iter().find(|(code, ..)| *code == self).is_none_or(|(.., hard)| *hard)
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} {name}", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
