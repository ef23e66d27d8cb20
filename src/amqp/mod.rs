//! The client in AMQP 0-9-1's own words: connections, channels, confirms, consumers.
//!
//! ```no_run
//! # async fn example() -> leveret::error::Result<()> {
//! use leveret::amqp::{Confirmation, Connection};
//!
//! let connection = Connection::open("amqp://guest:guest@localhost:5672/%2f").await?;
//! let channel = connection.open_channel().await?;
//!
//! channel.queue_declare("orders").durable(true).await?;
//! channel.confirm_select().await?;
//! let confirm = channel.basic_publish("", "orders", "hello").mandatory(true).await?;
//! match confirm.await? {
//!     Confirmation::Ack(None) => println!("the server has it"),
//!     Confirmation::Ack(Some(returned)) => println!("no queue took it: {}", returned.reply_text()),
//!     Confirmation::Nack(_) => println!("the server did not take it"),
//!     Confirmation::NotRequested => println!("nobody knows"),
//! }
//!
//! let mut consumer = channel.basic_consume("orders").prefetch(200).await?;
//! while let Some(delivery) = consumer.next().await {
//!     let delivery = delivery?;
//!     println!("{:?}", delivery.body());
//!     delivery.ack()?;
//! }
//! connection.close().await
//! # }
//! ```
//!
//! # Behaviour
//!
//! * **Handles** ([`Connection`], [`Channel`], and whatever comes from them) can be cloned or moved to any task or thread of any
//!   runtime. A connection lives as long as any of its handles; dropping the last one closes it in the background, after
//!   what was published before. Nothing is spawned in a `Drop`, so handles may outlive their runtime. Tasks may be of any executor, and deadlines are the connection's runtime's there:
//!   their wakers are woken and dropped where no lock is held, so that a task may own handles and be its own waker.
//! * **Requests** are values that are sent when they are awaited. Optional arguments are methods on them. Each has a deadline
//!   ([`ConnectionBuilder::call_deadline`]); a request that is given up, by its deadline or by dropping it, does not disturb
//!   the next one.
//! * **Publishing** appends the message's frames to the connection's buffer, on the caller's thread, under one short lock. It waits
//!   only while the server blocks the connection or stops the channel's flow, while too much is unwritten, or while the channel's
//!   window of unconfirmed messages is full.
//! * **Confirms** arrive as [`Confirm`] futures. A channel or connection that ends resolves all of them with an error whose
//!   [`outcome`](crate::error::Error::outcome) is unknown. Dropping one forgets it.
//! * **Consumers** are streams, with a finite prefetch unless told otherwise. A stream ends with its reason, or plainly when
//!   this side ended it. Dropping it cancels the
//!   consumer, and puts back what nobody has looked at.
//! * **Settling** ([`Delivery::ack`] and its kin) does not wait and consumes the delivery. After the channel has ended, or when the
//!   delivery was settled with a later one, it is an error of the kind [`Stale`](crate::error::ErrorKind::Stale) and sends nothing. Acks
//!   can be coalesced ([`BasicConsume::coalesce_acks`]).
//!
//! Left out on purpose: `channel.flow` by the client and `basic.recover` without requeue, which RabbitMQ refuses with 540;
//! `basic.recover-async`, which is deprecated; the class `access`, which does nothing; no-wait requests, whose errors reach
//! nobody.

mod builder;
mod call;
mod channel;
mod config;
mod connection;
mod consumer;
mod delivery;
#[doc(hidden)]
pub mod fuzzing;
mod provider;
mod publish;
mod servers;
mod shared;
mod topology;
mod url;

pub(crate) use crate::protocol::Body;
pub(crate) use crate::protocol::client::{PropertiesRef, Publish, STAMP, Settle, Watermark};
pub(crate) use config::settings;
pub(crate) use connection::{Happening, Observer};
pub(crate) use delivery::Settler;
pub(crate) use publish::Posted;

pub use builder::ConnectionBuilder;
pub use channel::{BasicGet, BasicGetNoAck, BasicQos, Channel, Got, GotNoAck, ReturnedMessages};
#[cfg(feature = "serde")]
pub(crate) use config::Span;
pub use config::{Address, Config, HostOrder, Secret, TlsParameters};
pub use connection::Connection;
pub use consumer::{BasicConsume, BasicConsumeNoAck, Canceller, Consumer, MessageStream};
pub use delivery::{Acker, Delivery, Message};
pub use provider::{CredentialsProvider, ExpiringCredentials};
pub use publish::{BasicPublish, Confirm, Payload};
pub use topology::{
    ExchangeBind, ExchangeDeclare, ExchangeDelete, ExchangeKind, ExchangeUnbind, Queue, QueueBind, QueueDeclare,
    QueueDelete, QueuePurge, QueueUnbind,
};

pub use crate::codec::{FieldArray, FieldTable, FieldValue, Properties, ReplyCode, ShortString};
pub use crate::protocol::client::{
    Confirmation, Credentials, Returned, Sasl, SaslError, SaslExchange, SaslMechanism, ServerInfo, Tuning,
};

#[cfg(feature = "tls-core")]
pub use crate::transport::{TlsConfig, TlsVersion};
/// The version of rustls that [`TlsConfig::from_client_config`] and [`TlsConfig::provider`] take values of.
#[cfg(feature = "tls-core")]
#[doc(no_inline)]
pub use rustls;
