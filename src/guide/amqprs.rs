//! Coming from amqprs.
//!
//! ```
//! use leveret::amqp::{Config, Connection, Properties};
//!
//! # #[tokio::main]
//! # async fn main() -> leveret::error::Result<()> {
//! # let broker = leveret::broker::Broker::start().await?;
//! # let port = broker.local_addr().port();
//! let config = Config::new().host("127.0.0.1").port(port).virtual_host("/").connection_name("me").heartbeat(60);
//! let connection = Connection::open_config(&config).await?;
//! let channel = connection.open_channel().await?;
//! channel.queue_declare("hello").await?;
//!
//! channel.confirm_select().await?;
//! let properties = Properties::new().app_id("kumo").header("x-foo", "bar");
//! channel.basic_publish("", "hello", "w00t!").properties(&properties).mandatory(true).await?.await?.accepted()?;
//! # connection.close().await
//! # }
//! ```
//!
//! | amqprs | here |
//! |---|---|
//! | `OpenConnectionArguments::new(host, port, user, password)` | [`Config`](crate::amqp::Config): `Clone + Eq + Hash`, `Deserialize` with the feature `serde` |
//! | `.credentials(SecurityCredentials::new_plain(user, password))` | [`.credentials(Credentials::new(user, password))`](crate::amqp::Credentials) |
//! | `.virtual_host()`, `.connection_name()`, `.heartbeat()` | the same names |
//! | `.tls_adaptor(TlsAdaptor::with_client_auth(..)?)` | [`TlsConfig`](crate::amqp::TlsParameters)`::new().root_file(..).client_certificate_files(..)`; wrong files are errors and no panics |
//! | `Connection::open(&args)` | [`Connection::open_config(&config)`](crate::amqp::Connection::open_config) |
//! | `register_callback(DefaultConnectionCallback)` | [`connection.closed()`](crate::amqp::Connection::closed), [`Client::events`](crate::messaging::Client::events) |
//! | `connection.open_channel(None)` | [`connection.open_channel()`](crate::amqp::Connection::open_channel) |
//! | `channel.register_callback(DefaultChannelCallback)`: acks, nacks, returns | each publish's own [`Confirm`](crate::amqp::Confirm) |
//! | `confirm_select(ConfirmSelectArguments::default())` | [`confirm_select()`](crate::amqp::Channel::confirm_select) |
//! | `BasicPublishArguments::new(x, key)`, `basic_publish(props, payload, args)` | [`basic_publish(x, key, payload).properties(&p)`](crate::amqp::Channel::basic_publish) |
//! | `BasicProperties::default().with_app_id(..).finish()` | [`Properties::new().app_id(..)`](crate::amqp::Properties) |
//! | `FieldTable`, `ShortStr::try_from(..)` | [`FieldTable`](crate::amqp::FieldTable), which reads a plain map; [`ShortString`](crate::amqp::ShortString) from any text, its length checked when it is sent |
//! | `basic_consume(consumer, args)` with `AsyncConsumer` | [`basic_consume(queue)`](crate::amqp::Channel::basic_consume): a stream |
//! | `channel.basic_ack(BasicAckArguments::new(tag, false))` | [`delivery.ack()`](crate::amqp::Delivery::ack) |
//! | `is_open()` | [`is_open()`](crate::amqp::Connection::is_open) |
//! | `connection.close()` | [`connection.close()`](crate::amqp::Connection::close); twice is fine |
//!
//! # What is different
//!
//! * **A publish has a fate.** There, `basic_publish` is done when the message is in a queue of this process; here its confirm says
//!   what the server says, and an exchange that is not there is an error.
//! * **Short strings that are too long** are errors, and no panics.
//! * **TLS moves the default port** to 5671.
//! * **Nothing is spawned on drop**, and no callback has to be written for anything.
//! * **No pool is needed**: tasks share a channel, and pipeline their confirms. For "one connection per configuration" there is
//!   [`ClientCache`](crate::messaging::ClientCache).
