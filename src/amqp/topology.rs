//! Exchanges, queues and bindings: one request each, sent when it is awaited.

use std::time::Duration;

use super::call::awaited;
use super::channel::Channel;
use super::{FieldTable, FieldValue, ShortString};
use crate::codec::Method;
use crate::codec::method::{exchange, queue};
use crate::error::{Error, ErrorKind};

/// A type of exchange.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExchangeKind {
    /// To the queues whose binding key is the routing key.
    Direct,
    /// To all queues.
    Fanout,
    /// To the queues whose pattern fits the routing key: `*` is one word, `#` any number.
    Topic,
    /// To the queues whose arguments fit the headers.
    Headers,
    /// A plugin's, by its name.
    Other(ShortString),
}

impl ExchangeKind {
    fn name(self) -> ShortString {
        match self {
            Self::Direct => ShortString::from_static("direct"),
            Self::Fanout => ShortString::from_static("fanout"),
            Self::Topic => ShortString::from_static("topic"),
            Self::Headers => ShortString::from_static("headers"),
            Self::Other(name) => name,
        }
    }
}

impl From<&str> for ExchangeKind {
    fn from(name: &str) -> Self {
        match name {
            "direct" => Self::Direct,
            "fanout" => Self::Fanout,
            "topic" => Self::Topic,
            "headers" => Self::Headers,
            other => Self::Other(other.into()),
        }
    }
}

/// A queue as the server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    name: String,
    message_count: u32,
    consumer_count: u32,
}

impl Queue {
    /// The name; the server's choice when it was declared with an empty one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Messages ready for delivery, at that moment.
    pub fn message_count(&self) -> u32 {
        self.message_count
    }

    /// Active consumers, at that moment.
    pub fn consumer_count(&self) -> u32 {
        self.consumer_count
    }
}

/// A request: its builder, its optional arguments and what its answer becomes.
macro_rules! requests {
    ($(
        $(#[$doc:meta])*
        $request:ident($method:ty) => $output:ty, |$reply:ident| $answer:expr, {
            $( $(#[$flag_doc:meta])* flag $flag:ident; )*
            $( arguments $arguments:ident; )?
        }
    )*) => {
        $(
            $(#[$doc])*
            ///
            /// Sent with `.await`. Dropping the future does not take the request back once it is sent.
            #[derive(Debug)]
            #[must_use = "a request is sent when it is awaited"]
            pub struct $request<'a> {
                channel: &'a Channel,
                method: $method,
                deadline: Option<Duration>,
            }

            impl $request<'_> {
                $(
                    $(#[$flag_doc])*
                    pub fn $flag(mut self, $flag: bool) -> Self {
                        self.method.$flag = $flag;
                        self
                    }
                )*

                $(
                    /// One more argument.
                    pub fn argument(mut self, name: impl Into<ShortString>, value: impl Into<FieldValue>) -> Self {
                        self.method.$arguments.insert(name, value);
                        self
                    }

                    /// All arguments.
                    pub fn arguments(mut self, $arguments: FieldTable) -> Self {
                        self.method.$arguments = $arguments;
                        self
                    }
                )?

                /// How long to wait for the answer, in place of
                /// [`ConnectionBuilder::call_deadline`](super::ConnectionBuilder::call_deadline).
                pub fn deadline(mut self, limit: Duration) -> Self {
                    self.deadline = Some(limit);
                    self
                }
            }

            awaited! {
                $request<'a> => $output, |request| async move {
                    let $reply = request.channel.call(request.method, request.deadline).await?.method;
                    $answer
                };
            }
        )*
    };
}

requests! {
    /// Creates an exchange, or checks that it is there as described (`exchange.declare`).
    ///
    /// # Errors
    ///
    /// The server closes the channel with 406 when it is there with other settings, 404 when it is passive and not there, 403 for
    /// reserved names; the connection with 503 for an unknown type. `Timeout`.
    ExchangeDeclare(exchange::Declare) => (), |_reply| Ok(()), {
        /// Only check that it is there.
        flag passive;
        /// Keep it over a restart of the server.
        flag durable;
        /// Delete it with its last binding.
        flag auto_delete;
        /// It takes messages from other exchanges only.
        flag internal;
        arguments arguments;
    }

    /// Removes an exchange; one that is not there is fine (`exchange.delete`).
    ///
    /// # Errors
    ///
    /// The server closes the channel with 406 when it is in use and that matters, 403 for reserved names. `Timeout`.
    ExchangeDelete(exchange::Delete) => (), |_reply| Ok(()), {
        /// Only when nothing is bound to it.
        flag if_unused;
    }

    /// Routes from one exchange to another (`exchange.bind`, RabbitMQ).
    ///
    /// # Errors
    ///
    /// The server closes the channel with 404 when one of them is missing, 403 for the default exchange. `Timeout`.
    ExchangeBind(exchange::Bind) => (), |_reply| Ok(()), {
        arguments arguments;
    }

    /// Removes a binding between exchanges; it takes the arguments that made it (`exchange.unbind`, RabbitMQ).
    ///
    /// # Errors
    ///
    /// The server closes the channel with 404 when one of them is missing. `Timeout`.
    ExchangeUnbind(exchange::Unbind) => (), |_reply| Ok(()), {
        arguments arguments;
    }

    /// Creates a queue, or checks that it is there as described (`queue.declare`).
    ///
    /// # Errors
    ///
    /// The server closes the channel with 406 when it is there with other settings, 404 when it is passive and not there, 405 when it
    /// belongs to another connection, 403 for reserved names. `Timeout`.
    QueueDeclare(queue::Declare) => Queue, |reply| match reply {
        Method::Queue(queue::Method::DeclareOk(ok)) => Ok(Queue {
            name: ok.queue.to_string(),
            message_count: ok.message_count,
            consumer_count: ok.consumer_count,
        }),
        other => Err(unexpected(&other)),
    }, {
        /// Only check that it is there.
        flag passive;
        /// Keep it over a restart of the server.
        flag durable;
        /// Keep it for this connection, and delete it with it.
        flag exclusive;
        /// Delete it with its last consumer.
        flag auto_delete;
        arguments arguments;
    }

    /// Routes from an exchange to a queue (`queue.bind`).
    ///
    /// # Errors
    ///
    /// The server closes the channel with 404 when one of them is missing, 403 for the default exchange. `Timeout`.
    QueueBind(queue::Bind) => (), |_reply| Ok(()), {
        arguments arguments;
    }

    /// Removes a binding; it takes the arguments that made it (`queue.unbind`).
    ///
    /// # Errors
    ///
    /// The server closes the channel with 404 when one of them is missing. `Timeout`.
    QueueUnbind(queue::Unbind) => (), |_reply| Ok(()), {
        arguments arguments;
    }

    /// Removes all messages that are ready for delivery, and says how many there were (`queue.purge`).
    ///
    /// # Errors
    ///
    /// The server closes the channel with 404 when there is no such queue. `Timeout`.
    QueuePurge(queue::Purge) => u32, |reply| match reply {
        Method::Queue(queue::Method::PurgeOk(ok)) => Ok(ok.message_count),
        other => Err(unexpected(&other)),
    }, {
    }

    /// Removes a queue, and says how many messages went with it; one that is not there is fine (`queue.delete`).
    ///
    /// # Errors
    ///
    /// The server closes the channel with 406 when it is in use or not empty and that matters. `Timeout`.
    QueueDelete(queue::Delete) => u32, |reply| match reply {
        Method::Queue(queue::Method::DeleteOk(ok)) => Ok(ok.message_count),
        other => Err(unexpected(&other)),
    }, {
        /// Only when it has no consumers.
        flag if_unused;
        /// Only when it has no messages.
        flag if_empty;
    }
}

/// The machine checks that a reply fits its request, so this is never seen.
fn unexpected(method: &Method) -> Error {
    Error::new(ErrorKind::Protocol, format!("the server answered with {}", method.info().name))
}

impl Channel {
    /// Creates an exchange (`exchange.declare`).
    pub fn exchange_declare(&self, exchange: &str, kind: impl Into<ExchangeKind>) -> ExchangeDeclare<'_> {
        let method = exchange::Declare { exchange: exchange.into(), kind: kind.into().name(), ..Default::default() };
        ExchangeDeclare { channel: self, method, deadline: None }
    }

    /// Removes an exchange (`exchange.delete`).
    pub fn exchange_delete(&self, exchange: &str) -> ExchangeDelete<'_> {
        let method = exchange::Delete { exchange: exchange.into(), ..Default::default() };
        ExchangeDelete { channel: self, method, deadline: None }
    }

    /// Routes from the exchange `source` to the exchange `destination` (`exchange.bind`).
    pub fn exchange_bind(&self, destination: &str, source: &str, routing_key: &str) -> ExchangeBind<'_> {
        let method = exchange::Bind {
            destination: destination.into(),
            source: source.into(),
            routing_key: routing_key.into(),
            ..Default::default()
        };
        ExchangeBind { channel: self, method, deadline: None }
    }

    /// Removes a binding between exchanges (`exchange.unbind`).
    pub fn exchange_unbind(&self, destination: &str, source: &str, routing_key: &str) -> ExchangeUnbind<'_> {
        let method = exchange::Unbind {
            destination: destination.into(),
            source: source.into(),
            routing_key: routing_key.into(),
            ..Default::default()
        };
        ExchangeUnbind { channel: self, method, deadline: None }
    }

    /// Creates a queue (`queue.declare`). With an empty name the server chooses one: use the one in the answer.
    pub fn queue_declare(&self, queue: &str) -> QueueDeclare<'_> {
        let method = queue::Declare { queue: queue.into(), ..Default::default() };
        QueueDeclare { channel: self, method, deadline: None }
    }

    /// Routes from an exchange to a queue (`queue.bind`).
    pub fn queue_bind(&self, queue: &str, exchange: &str, routing_key: &str) -> QueueBind<'_> {
        let method = queue::Bind {
            queue: queue.into(),
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            ..Default::default()
        };
        QueueBind { channel: self, method, deadline: None }
    }

    /// Removes a binding (`queue.unbind`).
    pub fn queue_unbind(&self, queue: &str, exchange: &str, routing_key: &str) -> QueueUnbind<'_> {
        let method = queue::Unbind {
            queue: queue.into(),
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            ..Default::default()
        };
        QueueUnbind { channel: self, method, deadline: None }
    }

    /// Removes all messages that are ready for delivery (`queue.purge`).
    pub fn queue_purge(&self, queue: &str) -> QueuePurge<'_> {
        let method = queue::Purge { queue: queue.into(), ..Default::default() };
        QueuePurge { channel: self, method, deadline: None }
    }

    /// Removes a queue (`queue.delete`).
    pub fn queue_delete(&self, queue: &str) -> QueueDelete<'_> {
        let method = queue::Delete { queue: queue.into(), ..Default::default() };
        QueueDelete { channel: self, method, deadline: None }
    }
}
