//! One channel number, as the server sees it.
//!
//! ```text
//!                       close from the client        accepted by the owner: close-ok
//!                      ┌────────────────────► Leaving ─────────────────────────────┐
//!              open    │                                                           ▼
//!   (free) ─────────► Open                                                       (free)
//!                      │                                                           ▲
//!                      └────────────────────► Closing ─────────────────────────────┘
//!                       close by the server    │    ▲      close-ok from the client
//!                                              └────┘ close from the client: answered (c46);
//!                                                     everything else: discarded (c47)
//! ```

use super::Publish;
use super::fault::Fault;
use crate::codec::{DecodeError, DecodeErrorKind, ReplyCode, short_string};
use crate::protocol::{Assembler, ContentError};

/// The state of a channel number that is in use.
#[derive(Debug)]
pub(super) enum Channel {
    /// Open, with the message that is being read.
    Open(Assembler<Publish>),
    /// The client has sent close and waits for the owner to accept it.
    Leaving,
    /// Close was sent; the number is taken until close-ok comes (c49).
    Closing,
}

impl Channel {
    pub(super) fn new() -> Self {
        Self::Open(Assembler::new())
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }
}

/// `basic.publish` as it stands in the buffer, for it comes once per message.
pub(super) struct PublishView<'a> {
    pub(super) publish: Publish,
    /// Exchange and routing key, each with its length octet.
    pub(super) address: &'a [u8],
}

impl<'a> PublishView<'a> {
    pub(super) const ID: [u8; 4] = [0, 60, 0, 40];

    /// Reads the fields behind the class and method id.
    pub(super) fn parse(fields: &'a [u8]) -> Result<Self, DecodeError> {
        let parsed = || {
            let (_reserved, address) = fields.split_first_chunk::<2>()?;
            let (_, rest) = short_string(address)?;
            let (_, rest) = short_string(rest)?;
            let (bits, _) = rest.split_first()?;
            Some(Self {
                publish: Publish { mandatory: bits & 1 != 0, immediate: bits & 2 != 0 },
                address: address.get(..address.len() - rest.len())?,
            })
        };
        parsed().ok_or_else(|| {
            let kind = DecodeErrorKind::Truncated { needed: fields.len() + 1, available: fields.len() };
            DecodeError::new(kind, "basic.publish", 4)
        })
    }
}

/// Frames that do not make a message, in the words for the client; `unexpected` is what to say of a frame out of place.
pub(super) fn content_fault(error: &ContentError, unexpected: &str) -> Fault {
    let fault = match error {
        ContentError::Unexpected(_) => Fault::new(error.reply_code(), unexpected),
        ContentError::Overflow => Fault::new(error.reply_code(), "the body is longer than its header announced"),
        // RabbitMQ's code and words: of this channel, not of the connection (c88).
        ContentError::TooLarge { size, limit } => {
            let text = format!("message size {size} is larger than configured max size {limit}");
            Fault::new(ReplyCode::PRECONDITION_FAILED, text)
        }
        ContentError::Decode(error) => match error.kind() {
            DecodeErrorKind::ContentClass(class) => {
                let text = format!("expected content header for class 60, got one for class {class} instead");
                Fault::new(ReplyCode::UNEXPECTED_FRAME, text)
            }
            _ => Fault::from(error),
        },
    };
    fault.of(60, 40)
}
