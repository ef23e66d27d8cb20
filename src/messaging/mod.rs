//! One way to send and receive, whatever carries the messages: AMQP 0-9-1 or, with the feature `kafka`, Kafka.
//!
//! ```
//! use leveret::messaging::{Client, Source, Target};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let url = "amqp://guest:guest@localhost:5672/%2f";
//! # let broker = leveret::broker::Broker::start().await?;
//! # let url = &broker.url();
//! let client = Client::connect(url).await?;
//! client.as_amqp().await?.open_channel().await?.queue_declare("orders").durable(true).await?;
//!
//! // Accepted, or an error that says why not, and whether it may have arrived all the same.
//! let sender = client.sender().build()?;
//! let receipt = sender.send(Target::queue("orders"), "one hare").await?;
//!
//! let mut receiver = client.receiver(Source::queue("orders")).build().await?;
//! while let Some(delivery) = receiver.recv().await {
//!     let delivery = delivery?;
//!     println!("{}", String::from_utf8_lossy(delivery.body()));
//!     delivery.accept()?;
//! #   break;
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What there is
//!
//! | | |
//! |---|---|
//! | [`Client`] | a server and a login; one connection, opened when it is needed |
//! | [`Sender`] | sends [`Message`]s to [`Target`]s; each ends as a [`Receipt`] or a [`SendError`] |
//! | [`Receiver`] | a stream of [`Delivery`]s from a [`Source`], each to be settled |
//! | [`Requester`], [`Responder`] | requests and their replies |
//! | [`ClientCache`] | one client for each [`Config`] |
//!
//! # What became of it
//!
//! The server's confirms are on, messages are mandatory and persistent, and every wait has a deadline, unless told otherwise. So a
//! receipt that says [`Accepted`](Status::Accepted) means: the server has the message, and a queue has it. Whatever else happens is
//! a [`SendError`], whose [`outcome`](SendError::outcome) answers the question before every retry:
//!
//! | outcome | |
//! |---|---|
//! | `NotSent` | it never left |
//! | `Refused` | the server said no |
//! | `Unknown` | nobody knows: the connection or the channel ended, or the deadline passed, before the server said anything |
//!
//! Nothing of unknown outcome is sent again unless a [`RetryPolicy`] asks for it.
//!
//! # When the connection is lost
//!
//! Every send and every request that waits ends with its outcome. The client, its senders and its requesters connect again when
//! they are used the next time. Receivers begin again by themselves, while they are polled: at once, and where that fails after waits
//! that grow, as the client's [`recovery`](ClientBuilder::recovery) says. So do [message streams](MessageStream),
//! [`for_each`](Receiver::for_each) and [responders](Responder::serve).
//!
//! Beginning again is what [`build`](ReceiverBuilder::build) does, with the same settings; nothing is remembered of what was declared before.
//! Queues that do not survive the server or the connection are declared by the program, in one of two places:
//!
//! | | |
//! |---|---|
//! | [`ClientBuilder::on_open`] | has each new connection before anybody else: for what everybody needs |
//! | [`Client::receiver_from`] | makes a receiver's source on its channel, each time that it begins: for queues that the server names |
//!
//! | what happened | what a receiver does |
//! |---|---|
//! | the connection was lost, the server fell silent, or closed it for a reason that may pass (320, 541) | begins again |
//! | this fails: nobody there, no answer in time, 320, 541, a queue whose node is not up yet (404), somebody else's for the moment (405, 403 "in exclusive use"), too many connections (530 "limit ... is reached") | tries again after a wait |
//! | this fails otherwise: no such queue or virtual host, no permission, a refused login, a certificate | ends, with that error |
//! | the server closed the channel, or ended the consumer | ends, with that error |
//! | it was ended on this side | ends |
//!
//! A stream (`x-queue-type: stream`) is read again from where the receiver's `x-stream-offset` says, for the plan is the same:
//! [`receiver_from`](Client::receiver_from) can say each time where to go on.
//!
//! What had been delivered and was not settled comes again, to this receiver or to another one. Settling it by the old
//! [`Delivery`] is `Stale`, and sends nothing. What nobody has fetched by then is dropped, unless it came without acknowledgements: then it
//! is nowhere else, and is handed out.
//!
//! The client's [`state`](Client::state) is [`Recovering`](ClientState::Recovering) meanwhile, and its [events](Client::events) say
//! [`Lost`](Event::Lost), [`ConnectFailed`](Event::ConnectFailed), [`Opened`](Event::Opened) and [`Recovered`](Event::Recovered). On Kafka all of this is
//! librdkafka's, which goes on by itself.
//!
//! # The seam between the transports
//!
//! What the transports have in common is plain data, in the room `message`. The transports know that room and nothing of this one.
//! Each handle here holds a private enum with one variant for each transport, and does itself whatever does not depend on it:
//! defaults, hooks, deadlines, retries.

mod builder;
mod cache;
mod client;
mod config;
mod deadline;
mod delivery;
mod events;
mod for_each;
mod hook;
mod idle;
mod message_stream;
mod on_demand;
mod outbox;
mod over_amqp;
#[cfg(feature = "kafka")]
mod over_kafka;
mod pending;
mod received;
mod receiver;
mod requester;
mod responder;
mod sender;
mod state;

pub use builder::ClientBuilder;
pub use cache::ClientCache;
pub use client::Client;
pub use config::{Config, Transport};
pub use delivery::{Acker, Delivery};
pub use events::{Event, EventStream};
pub use message_stream::MessageStream;
pub use pending::{PendingReceipt, SendState};
pub use received::Received;
pub use receiver::{Receiver, ReceiverBuilder};
pub use requester::{ManagementReply, ReplyQueue, RequestError, Requester, RequesterBuilder};
pub use responder::Responder;
pub use sender::{ConfirmMode, Sender, SenderBuilder};
pub use state::ClientState;

pub use crate::message::{
    Address, Backoff, BatchError, BatchReport, CloseReport, DeliveryDetail, Disposition, Message, Modify, OnDrop,
    OnUnknown, Receipt, ReceiptDetail, RecoveryPolicy, RetryDecision, RetryPolicy, Returned, SendError,
    SharedProperties, Source, Status, Target, Unsent,
};
