//! What became of a message: a receipt, or an error that says whether it may have arrived.

use std::fmt;

use super::{Cargo, Message, Target};
use crate::codec::ReplyCode;
use crate::error::{Error, ErrorKind, Outcome};

/// Proof that a message was sent.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "Confirmation")]
pub struct Receipt {
    /// What the proof is worth.
    pub status: Status,
    /// What the transport says of it.
    pub detail: ReceiptDetail,
}

/// What a [`Receipt`] is worth. A server's no is no receipt but a [`SendError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// The server has taken responsibility (`basic.ack`, or the acknowledgement of Kafka's brokers). If it was mandatory, a
    /// queue has it.
    Accepted,
    /// Nobody was asked: the sender has no confirms, or Kafka's `acks` is 0. It was handed over, and that is all.
    NotRequested,
}

/// What the transport says of a message that was sent.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptDetail {
    /// AMQP 0-9-1.
    #[non_exhaustive]
    Amqp {
        /// The channel's number.
        channel: u16,
        /// The number of the message on its channel; `None` without confirms.
        delivery_tag: Option<u64>,
    },
    /// Kafka.
    #[non_exhaustive]
    Kafka {
        /// The partition that has it.
        partition: i32,
        /// Its place in the partition; `None` where the brokers were not asked.
        offset: Option<i64>,
        /// Milliseconds since 1970, where the broker says.
        timestamp: Option<i64>,
    },
}

impl Receipt {
    pub(crate) fn amqp(channel: u16, delivery_tag: u64) -> Self {
        let delivery_tag = (delivery_tag != 0).then_some(delivery_tag);
        let status = if delivery_tag.is_some() { Status::Accepted } else { Status::NotRequested };
        Self { status, detail: ReceiptDetail::Amqp { channel, delivery_tag } }
    }

    /// Without confirms a broker has told neither offset nor time.
    #[cfg(feature = "kafka")]
    pub(crate) fn kafka(partition: i32, offset: Option<i64>, timestamp: Option<i64>, confirmed: bool) -> Self {
        let status = if confirmed { Status::Accepted } else { Status::NotRequested };
        Self { status, detail: ReceiptDetail::Kafka { partition, offset, timestamp } }
    }

    /// What the server is to be asked about this message: its number on its channel (AMQP, with confirms).
    pub fn delivery_tag(&self) -> Option<u64> {
        match self.detail {
            ReceiptDetail::Amqp { delivery_tag, .. } => delivery_tag,
            ReceiptDetail::Kafka { .. } => None,
        }
    }
}

/// A message that the server gave back because no queue took it (`basic.return`).
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct Returned {
    /// Why: mostly 312, no route.
    pub reply_code: ReplyCode,
    /// Why, in the server's words.
    pub reply_text: String,
    /// The message, as the server gave it back.
    pub message: Message,
}

impl Returned {
    pub(crate) fn new(reply_code: ReplyCode, reply_text: String, message: Message) -> Self {
        Self { reply_code, reply_text, message }
    }
}

/// Why a message was not accepted, and whether it may have arrived all the same.
///
/// | [`outcome`](Self::outcome) | meaning | sending it again |
/// |---|---|---|
/// | `NotSent` | it never left | cannot duplicate it |
/// | `Refused` | the server said no: returned or nacked | helps where it is [transient](Self::is_transient) |
/// | `Unknown` | it was handed over, and nobody knows | may duplicate it: give it a `message_id` |
///
/// The message itself is handed back, where this library still has it: see [`into_message`](Self::into_message).
#[derive(Clone)]
#[doc(alias = "MessageSendFailed")]
#[doc(alias = "ClientMessageError")]
pub struct SendError {
    error: Error,
    returned: Option<Box<Returned>>,
    message: Option<Box<Cargo>>,
}

impl SendError {
    pub(crate) fn new(error: Error) -> Self {
        Self { error, returned: None, message: None }
    }

    pub(crate) fn with_message(mut self, cargo: Cargo) -> Self {
        self.message = Some(Box::new(cargo));
        self
    }

    pub(crate) fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.error = self.error.with_outcome(outcome);
        self
    }

    pub(crate) fn with_returned(mut self, returned: Returned) -> Self {
        self.returned = Some(Box::new(returned));
        self
    }

    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    /// What became of the message.
    pub fn outcome(&self) -> Outcome {
        self.error.outcome()
    }

    /// Whether the same message may be accepted later without anybody changing it.
    pub fn is_transient(&self) -> bool {
        self.error.is_transient()
    }

    /// The server's code, where it gave one: 312 for a returned message, 404 for an exchange that is not there.
    pub fn reply_code(&self) -> Option<ReplyCode> {
        self.error.reply_code()
    }

    /// The server's words, where it used any.
    pub fn reply_text(&self) -> Option<&str> {
        self.error.reply_text()
    }

    /// What the server gave back.
    pub fn returned(&self) -> Option<&Returned> {
        self.returned.as_deref()
    }

    /// The error as this library has it everywhere.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// Where the message was to go and the message, as it was after defaults and hooks. Always there when the outcome is `NotSent`.
    pub fn message(&self) -> Option<(&Target, &Message)> {
        self.message.as_deref().map(|cargo| (&cargo.target, &cargo.message))
    }

    /// Takes the message back, to send it again or to keep it.
    pub fn into_message(self) -> Option<(Target, Message)> {
        self.message.map(|cargo| (cargo.target, cargo.message))
    }
}

impl From<SendError> for Error {
    fn from(error: SendError) -> Self {
        error.error
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl fmt::Debug for SendError {
    /// Without the message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {:?}", self.error, self.outcome())
    }
}

impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}
