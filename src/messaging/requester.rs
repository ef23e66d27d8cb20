//! Requests that wait for their replies.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::client::{Backend as ClientBackend, Client};
use super::over_amqp::replies::Replies;
use crate::amqp::{FieldValue, Properties, ShortString};
use crate::error::{Error, Outcome, Result};
use crate::message::{Cargo, EVER, Message, Returned, SendError, Target};

/// Where replies come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReplyQueue {
    /// Directly to the channel where the server has that (RabbitMQ's direct reply-to), otherwise to a queue of one's own.
    #[default]
    Best,
    /// Directly to the channel: `amq.rabbitmq.reply-to`.
    Direct,
    /// To an exclusive queue that the server names, and deletes with the channel.
    Exclusive,
}

/// How requests are made.
///
/// | setting | default |
/// |---|---|
/// | timeout | 30 s for everything: connecting, sending, the reply |
/// | reply queue | direct reply-to where there is that |
/// | status and description of management replies | the headers `statusCode` and `statusDescription` |
/// | replies whose status is not 2xx | an error |
#[derive(Clone, Debug)]
#[must_use = "nothing happens until build()"]
pub struct RequesterBuilder {
    client: Client,
    queue: ReplyQueue,
    timeout: Duration,
    settings: Settings,
}

#[derive(Clone, Debug)]
struct Settings {
    status_field: String,
    description_field: String,
    any_status: bool,
}

impl RequesterBuilder {
    pub(super) fn new(client: Client) -> Self {
        let settings = Settings {
            status_field: "statusCode".into(),
            description_field: "statusDescription".into(),
            any_status: false,
        };
        Self { client, queue: ReplyQueue::Best, timeout: Duration::from_secs(30), settings }
    }

    /// How long a request may take in all.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Where replies come to.
    pub fn reply_queue(mut self, queue: ReplyQueue) -> Self {
        self.queue = queue;
        self
    }

    /// The header that has the status of a management reply: an integer of any type, or digits.
    #[doc(alias = "status_code_field")]
    pub fn status_field(mut self, name: impl Into<String>) -> Self {
        self.settings.status_field = name.into();
        self
    }

    /// The header that has the description of a management reply.
    #[doc(alias = "description_fields")]
    pub fn description_field(mut self, name: impl Into<String>) -> Self {
        self.settings.description_field = name.into();
        self
    }

    /// A management reply is no error, whatever its status.
    #[doc(alias = "raw")]
    pub fn any_status(mut self) -> Self {
        self.settings.any_status = true;
        self
    }

    /// The requester. Its channel is opened by its first request.
    ///
    /// # Errors
    ///
    /// `Unsupported` on another transport than AMQP.
    pub fn build(self) -> Result<Requester> {
        let replies = match self.client.backend() {
            ClientBackend::Amqp(link) => Replies::new(Arc::clone(link), self.queue),
            #[cfg(feature = "kafka")]
            ClientBackend::Kafka(_) => return super::over_kafka::unsupported("requests and replies"),
        };
        Ok(Requester { inner: Arc::new(Inner { replies, settings: self.settings }), timeout: self.timeout })
    }
}

/// Sends requests and waits for their replies, many at a time, on a channel of its own.
///
/// A cheap handle: clones share the channel. Replies are told apart by the correlation id that each request gets, so they may come
/// in any order. A reply that nobody waits for, because it is late or somebody else's, is an
/// [`Event::StrayReply`](super::Event::StrayReply) and disturbs nobody. When the channel ends, so does every request that waits; the next one
/// gets a new channel.
#[derive(Clone)]
#[doc(alias = "MgmtOperation")]
#[doc(alias = "RpcClient")]
pub struct Requester {
    inner: Arc<Inner>,
    timeout: Duration,
}

struct Inner {
    replies: Replies,
    settings: Settings,
}

/// The reply to a management request.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct ManagementReply {
    /// The status: 200 to 299 where it went well.
    pub status: i32,
    /// What the other side says of it.
    pub description: Option<String>,
    /// The whole reply.
    pub message: Message,
}

/// Why a request has no reply, or not the one that was hoped for.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum RequestError {
    /// A management reply whose status is not 2xx.
    Status(Box<ManagementReply>),
    /// A management reply without a status that can be understood.
    NoStatus(Box<Message>),
    /// No queue took the request, and the server gave it back: nobody serves there.
    NoRoute(Box<Returned>),
    /// No reply came in time. The request may have been handled.
    Timeout,
    /// The channel or the connection ended before the reply came. The request may have been handled.
    Lost(Error),
    /// The request was not sent, or was refused.
    Send(SendError),
}

impl RequestError {
    /// What became of the request.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Status(_) | Self::NoStatus(_) | Self::NoRoute(_) => Outcome::Refused,
            Self::Timeout | Self::Lost(_) => Outcome::Unknown,
            Self::Send(error) => error.outcome(),
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(reply) => match &reply.description {
                Some(description) => write!(f, "the reply has the status {}: {description}", reply.status),
                None => write!(f, "the reply has the status {}", reply.status),
            },
            Self::NoStatus(_) => f.write_str("the reply has no status"),
            Self::NoRoute(returned) => {
                write!(f, "nobody serves there: {} {}", returned.reply_code.0, returned.reply_text)
            }
            Self::Timeout => f.write_str("no reply in time"),
            Self::Lost(error) => write!(f, "the reply was lost: {error}"),
            Self::Send(error) => write!(f, "the request was not sent: {error}"),
        }
    }
}

impl std::error::Error for RequestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Lost(error) => Some(error),
            Self::Send(error) => Some(error),
            _ => None,
        }
    }
}

impl Requester {
    /// The same requester with another deadline for each request.
    pub fn with_timeout(&self, limit: Duration) -> Self {
        Self { timeout: limit, ..self.clone() }
    }

    /// Sends a request and waits for its reply. The message's `reply_to` and `correlation_id` are set here.
    ///
    /// It is mandatory: where there is no queue for it, it fails at once.
    ///
    /// # Errors
    ///
    /// See [`RequestError`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, it no longer waits; a late reply disturbs nobody.
    pub async fn request(
        &self,
        target: impl Into<Target>,
        message: impl Into<Message>,
    ) -> Result<Message, RequestError> {
        let until = Instant::now() + self.timeout.min(EVER);
        self.inner.replies.request(Cargo::new(target.into(), message.into()), until).await
    }

    /// Sends a management request: the headers `operation` and, where there is one, `type` say what is to be done, and the reply's
    /// headers how it went.
    ///
    /// # Errors
    ///
    /// As [`request`](Self::request); `Status` for a reply whose status is not 2xx, `NoStatus` for one without.
    ///
    /// # Cancel safety
    ///
    /// As [`request`](Self::request).
    #[doc(alias = "mgmt_request")]
    #[doc(alias = "execute")]
    pub async fn manage(
        &self,
        node: impl Into<Target>,
        operation: &str,
        kind: Option<&str>,
        message: impl Into<Message>,
    ) -> Result<ManagementReply, RequestError> {
        let mut message = message.into().header("operation", operation);
        if let Some(kind) = kind {
            message = message.header("type", kind);
        }
        let reply = self.request(node, message).await?;
        let settings = &self.inner.settings;
        let Some(status) = reply.get_header(&settings.status_field).and_then(status) else {
            return Err(RequestError::NoStatus(Box::new(reply)));
        };
        let description = reply.get_header(&settings.description_field).and_then(FieldValue::as_str);
        let reply = ManagementReply { status, description: description.map(str::to_owned), message: reply };
        match reply.status {
            200..=299 => Ok(reply),
            _ if settings.any_status => Ok(reply),
            _ => Err(RequestError::Status(Box::new(reply))),
        }
    }
}

/// An integer of any type, or digits.
fn status(value: &FieldValue) -> Option<i32> {
    match value.as_str() {
        Some(text) => text.trim().parse().ok(),
        None => i32::try_from(value.as_i64()?).ok(),
    }
}

impl fmt::Debug for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requester").field("settings", &self.inner.settings).field("timeout", &self.timeout).finish()
    }
}

/// What a request's reply goes back to, and how it is recognised there.
pub(super) fn return_address(properties: &Properties) -> (Option<ShortString>, Option<ShortString>) {
    // Where the requester has given its request no id of the kind, it knows the reply by the request's own.
    let id = properties.correlation_id.clone().or_else(|| properties.message_id.clone());
    (properties.reply_to.clone(), id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u55_a_status_is_an_integer_of_any_type_or_digits() {
        for value in [FieldValue::U8(200), FieldValue::I64(200), FieldValue::I32(200), "200".into(), " 200".into()] {
            assert_eq!(status(&value), Some(200), "{value:?}");
        }
        for value in [FieldValue::I64(i64::MAX), "ok".into(), FieldValue::Bool(true), FieldValue::Void] {
            assert_eq!(status(&value), None, "{value:?}");
        }
    }
}
