//! Coming from lapin.
//!
//! ```
//! use leveret::amqp::{Confirmation, Connection, Properties};
//!
//! # #[tokio::main]
//! # async fn main() -> leveret::error::Result<()> {
//! # let broker = leveret::broker::Broker::start().await?;
//! # let url = broker.url();
//! let connection = Connection::open(&url).await?;
//! let channel = connection.open_channel().await?;
//! channel.queue_declare("hello").durable(true).await?;
//! channel.confirm_select().await?;
//! let confirm = channel.basic_publish("", "hello", "w00t!").properties(&Properties::new().persistent()).await?;
//! assert!(matches!(confirm.await?, Confirmation::Ack(None)));
//!
//! let mut consumer = channel.basic_consume("hello").consumer_tag("me").await?;
//! while let Some(delivery) = consumer.next().await {
//!     delivery?.ack()?;
//! #   break;
//! }
//! # connection.close().await
//! # }
//! ```
//!
//! | lapin | here |
//! |---|---|
//! | `Connection::connect(uri, ConnectionProperties)` | [`Connection::open(url)`](crate::amqp::Connection::open), [`Connection::builder(url)?…open()`](crate::amqp::Connection::builder) |
//! | `ConnectionProperties::with_executor`, `with_reactor` | [`spawn_on(handle)`](crate::amqp::ConnectionBuilder::spawn_on): tokio, no adapters |
//! | `ConnectionProperties::with_connection_name` | [`connection_name(name)`](crate::amqp::ConnectionBuilder::connection_name) |
//! | `connection.on_error(callback)` | [`connection.closed().await`](crate::amqp::Connection::closed); [`Client::events`](crate::messaging::Client::events) |
//! | `connection.status().connected()` | [`connection.is_open()`](crate::amqp::Connection::is_open) |
//! | `connection.create_channel()` | [`connection.open_channel()`](crate::amqp::Connection::open_channel) |
//! | `queue_declare(name, QueueDeclareOptions { durable: true, .. }, FieldTable)` | `queue_declare(name).durable(true).argument(k, v)` |
//! | `basic_publish(x, key, BasicPublishOptions, &payload, BasicProperties)` | [`basic_publish(x, key, payload).properties(&p).mandatory(true)`](crate::amqp::Channel::basic_publish) |
//! | `BasicProperties::default().with_app_id(..)` | [`Properties::new().app_id(..)`](crate::amqp::Properties), `Deserialize` with the feature `serde` |
//! | `PublisherConfirm`, `confirm.await?` | [`Confirm`](crate::amqp::Confirm), `confirm.await?` |
//! | `Confirmation::{Ack, Nack, NotRequested}` | [`Confirmation`](crate::amqp::Confirmation), the same shape |
//! | `confirmation.take_message()` → `BasicReturnMessage` | `Ack(Some(returned))`, `Nack(Some(returned))`: [`Returned`](crate::amqp::Returned) |
//! | a consumer that stops | [`consumer.canceller()`](crate::amqp::Consumer::canceller), or a [`Receiver`](crate::messaging::Receiver)'s [`for_each_until`](crate::messaging::Receiver::for_each_until): what runs is settled |
//! | `channel.wait_for_confirms()` | [`channel.wait_for_confirms()`](crate::amqp::Channel::wait_for_confirms) |
//! | `basic_consume(queue, tag, options, table)` → `Stream` | [`basic_consume(queue)…await`](crate::amqp::Channel::basic_consume) → `Stream`, and `next()` |
//! | `delivery.ack(BasicAckOptions::default()).await` | [`delivery.ack()`](crate::amqp::Delivery::ack): not async, takes the delivery |
//! | `delivery.data` | [`delivery.body()`](crate::amqp::Message::body) |
//! | `enable_auto_recover()` | [`Client`](crate::messaging::Client): receivers [begin again](crate::messaging#when-the-connection-is-lost); a [`Connection`](crate::amqp::Connection) ends for good |
//! | `channel.close(200, "")`, `connection.close(200, "")` | `close()`, [`close_with(code, text)`](crate::amqp::Connection::close_with); twice is fine |
//! | `lapin::Error`, `ErrorKind` | [`Error`](crate::error::Error): kind, reply code, outcome, whether it may pass |
//!
//! # What is different
//!
//! * **Returned messages** are matched with the publish that they came back for. lapin gives a returned message to whichever confirm
//!   resolves next, which is another message's when several are on their way.
//! * **Recovery** remembers nothing that was declared: [`on_open`](crate::messaging::ClientBuilder::on_open) declares it again, and queues that the server
//!   names get another name. What does not pass by itself ends a receiver, with the reason.
//! * **While the server blocks** only publishes wait, and with a deadline; heartbeats, acks and closing go on.
//! * **Every wait has a deadline**: requests 20 s, connecting 20 s, closing 10 s. Only a confirm and a consumer wait as long as their
//!   channel lives.
//! * **Settling takes the delivery**: settling twice does not compile. After the channel's end it is an error and sends nothing.
//! * **A consumer has a prefetch** of 256 unless told otherwise.
//! * **Dropping never spawns**: handles may be dropped outside of a runtime.
