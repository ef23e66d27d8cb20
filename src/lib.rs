//! AMQP 0-9-1 in pure Rust: a client for RabbitMQ on tokio, and a broker inside your process to test against.
//!
//! ```
//! use leveret::amqp::{Confirmation, Connection};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let url = "amqp://guest:guest@localhost:5672/%2f";
//! # let broker = leveret::broker::Broker::start().await?;
//! # let url = &broker.url();
//! let connection = Connection::open(url).await?;
//! let channel = connection.open_channel().await?;
//! channel.queue_declare("orders").durable(true).await?;
//!
//! // Publish, and learn what became of it.
//! channel.confirm_select().await?;
//! let confirm = channel.basic_publish("", "orders", "one hare").mandatory(true).await?;
//! match confirm.await? {
//!     Confirmation::Ack(None) => println!("the server has it"),
//!     Confirmation::Ack(Some(returned)) => println!("no queue took it: {}", returned.reply_text()),
//!     Confirmation::Nack(_) => println!("the server could not take it"),
//!     Confirmation::NotRequested => println!("this channel has no confirms"),
//! }
//!
//! // Consume, and acknowledge.
//! let mut consumer = channel.basic_consume("orders").prefetch(100).await?;
//! while let Some(delivery) = consumer.next().await {
//!     let delivery = delivery?;
//!     println!("{}", String::from_utf8_lossy(delivery.body()));
//!     delivery.ack()?;
//! #   break;
//! }
//! connection.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The same without the protocol's words is [`messaging`]: confirms, returns and deadlines are its business there, it connects
//! again when the connection was lost, brings its receivers back, and each message ends as accepted or as an error that says
//! whether it was sent.
//!
//! # Behaviour
//!
//! **When is something sent?** Requests and publishes are values that do nothing until they are awaited. Then their frames are
//! appended to the connection's buffer, on the caller's thread; a task that belongs to the connection writes the buffer to
//! the socket as soon as it runs, everything that has gathered at once. There is nothing to flush.
//!
//! ```text
//! your task          basic_publish(..).await          confirm.await
//!                         │ frames into the buffer         ▲ the server's answer
//!                         ▼                                │
//! connection's task       write ───────► server ───────► read
//! ```
//!
//! So many messages can be on their way: publish them, keep their confirms, await those afterwards. The order on one channel is
//! the order of publishing.
//!
//! **What happens on drop?**
//!
//! | dropped | what happens |
//! |---|---|
//! | a request or a publish that was not awaited | nothing is sent |
//! | a request that waits for its answer | it stays sent; the late answer disturbs nobody |
//! | a publish that waits for room | the message is not sent |
//! | a `Confirm` | the message is on its way all the same; its fate is forgotten |
//! | a `Delivery` | it stays unsettled until its channel ends; then the server gives it to somebody again |
//! | a `Consumer` | it is cancelled; what nobody has looked at goes back into the queue |
//! | the last handle of a channel, its confirms, consumers and deliveries among them | the channel closes |
//! | the last handle of a connection | the connection closes in the background, after what was published |
//!
//! The background is the runtime's: a program that ends, or shuts its runtime down, right after the last drop may take with it
//! what was not written yet. Await the confirms, or [`Connection::close`](amqp::Connection::close).
//!
//! **Who may use what?** Handles are `Clone + Send + Sync`, and work from any task of any runtime. Tasks may share a channel: a
//! message's frames are never mixed with another's.
//!
//! **And from code that is not async?** A connection lives on a tokio runtime: the one that it was opened in, or the one that it was
//! told with `spawn_on`. Any thread waits with that runtime's `block_on`:
//!
//! ```
//! use leveret::messaging::{Client, Target};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
//! # let broker = runtime.block_on(leveret::broker::Broker::start())?;
//! # let url = &broker.url();
//! let client = runtime.block_on(Client::connect(url))?;
//! # runtime.block_on(async { client.as_amqp().await?.open_channel().await?.queue_declare("orders").await })?;
//! let sender = client.sender().build()?;
//! let (handle, orders) = (runtime.handle().clone(), sender.clone());
//! std::thread::spawn(move || handle.block_on(orders.send(Target::queue("orders"), "one hare"))).join().unwrap()?;
//!
//! // Without waiting: handed over, or handed back because there is no room. `flush` or `close` says later what became of it.
//! drop(sender.try_enqueue(Target::queue("orders"), "another hare")?);
//! runtime.block_on(client.close());
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//!
//! On a channel with [`confirm_select`](amqp::Channel::confirm_select) every publish ends in one of these ways, and none of
//! them is silent:
//!
//! | the confirm says | meaning |
//! |---|---|
//! | `Ack(None)` | the server is responsible for it now. If it was mandatory, a queue has it; if it was persistent and the queue durable, it is on disk |
//! | `Ack(Some(returned))` | it was mandatory, no queue took it, and here it is again |
//! | `Nack` | the server could not take it |
//! | `Err`, [`outcome`](error::Error::outcome) `NotSent` | it never left: sending it again cannot duplicate it |
//! | `Err`, outcome `Unknown` | the connection or channel ended before the server said anything: it may have it or not |
//!
//! Nothing is sent again behind your back. A message that is **not mandatory** and finds no queue is acknowledged and gone: that
//! is the protocol.
//!
//! What is delivered belongs to you until it is settled or its channel ends, and then goes to somebody else, marked
//! [`redelivered`](amqp::Message::redelivered): a message is handled at least once, and can be handled twice. Settling appends to the
//! buffer as publishing does; after the channel has ended it is an error and sends nothing.
//!
//! # Back-pressure
//!
//! Nothing grows without a limit, and every wait has a deadline:
//!
//! * **Publishing waits** while 1 000 000 octets are unwritten ([`max_unwritten`](amqp::ConnectionBuilder::max_unwritten)), while
//!   65 536 messages of the channel are unconfirmed
//!   ([`confirm_select_with_window`](amqp::Channel::confirm_select_with_window)), while the server has
//!   [blocked](amqp::Connection::blocked) the connection because it is short of memory or disk, or has stopped the channel's flow.
//!   After the deadline it is an error whose outcome is `NotSent`. Acknowledgements and requests never wait for room.
//! * **A consumer** has at most 256 unsettled deliveries ([`prefetch`](amqp::BasicConsume::prefetch)).
//! * **Reading stops** while 16 MiB of deliveries wait for their consumers
//!   ([`max_buffered`](amqp::ConnectionBuilder::max_buffered)): the server then keeps the rest.
//! * **Requests** have 20 seconds ([`call_deadline`](amqp::ConnectionBuilder::call_deadline)), or what their `deadline` says; connecting
//!   has 20 at all hosts together, closing 10. Only a `Confirm` and a consumer wait as long as their channel lives.
//!
//! # Errors
//!
//! [`error::Error`] has a [`kind`](error::Error::kind), the server's [code](error::Error::reply_code) and
//! [text](error::Error::reply_text), whose [turn](error::Error::origin) it is to change something, whether it
//! [may pass](error::Error::is_transient), and the [outcome](error::Error::outcome) of the message. Printed, it is one line that ends
//! with its causes and never holds a password. The reason that ends a channel or a connection reaches everybody who waits on it.
//!
//! The server answers a mistake on a channel by closing that channel: open another one. Some mistakes cost the whole connection;
//! their codes are [`is_hard`](codec::ReplyCode::is_hard).
//!
//! # Features
//!
//! * `client` (default): [`amqp`] and [`messaging`], on tokio.
//! * `broker`: `leveret::broker`, the server in memory, for tests and first steps.
//! * `tls` (default): `amqps://` and [`amqp::TlsConfig`], by rustls with graviola's cryptography: Rust and inline assembly, for x86_64
//!   and aarch64. A processor that cannot run it (before about 2013, Raspberry Pi 4) gets an error that names what is missing.
//! * `tls-ring`, `tls-aws-lc-rs`: other cryptography, partly in C, for every target. With several of these, the first of
//!   `tls-aws-lc-rs`, `tls-ring`, `tls` is taken; with `default-features = false` only what is named is built.
//! * `tls-webpki-roots`: Mozilla's root certificates, compiled in.
//! * `tls-core`: TLS for a provider of your own, switched on by the four above.
//! * `arbitrary`: frames, methods, properties and tables are made of a fuzzer's octets, to fuzz a broker or a client with.
//! * `serde`: [`amqp::Config`], properties, field tables and [`registry::RegistryConfig`] can be read from configuration files.
//! * `kafka`: Kafka behind [`messaging`], by librdkafka, which is C and takes make, gcc, g++ and about a minute to build. `kafka-ssl`,
//!   `kafka-zstd` and `kafka-gssapi` build it with OpenSSL, zstd and Cyrus SASL.
//! * `command`: the program `leveret`: `leveret broker` is the broker by itself, for clients in other languages; `leveret publish` and
//!   `leveret consume` talk to any server. A library has no use for it.
//! * `relay`: `leveret::relay`, which hands mail and log events over and says 2xx, 4xx or 5xx.
//! * `transport`: [`transport`], switched on by the two above.
//!
//! With `default-features = false` there remain [`codec`], [`protocol`] and [`error`], which know neither sockets nor a runtime.
//!
//! # TLS
//!
//! ```no_run
//! # async fn example() -> leveret::error::Result<()> {
//! use leveret::amqp::{Connection, TlsConfig};
//!
//! let tls = TlsConfig::new().root_file("ca.pem");
//! let connection = Connection::builder("amqps://guest:guest@rabbit.example/%2f")?.tls(tls).open().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Without `tls` an `amqps://` URL trusts the platform's roots, unless its parameters say otherwise. Files are read anew for each
//! connection. No provider is installed for the process, and one that is installed is not used. Trouble with certificates is an error
//! of the kind [`Tls`](error::ErrorKind::Tls), whether it shows in the handshake or, as a refused client certificate with TLS 1.3,
//! behind it.
//!
//! # Testing your own program
//!
//! With `leveret = { version = "0.1", features = ["broker"] }` under `[dev-dependencies]`:
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = leveret::broker::Broker::start().await?;
//! let connection = leveret::amqp::Connection::open(&broker.url()).await?; // or give the URL to your program
//! assert!(connection.is_open());
//!
//! broker.close_connections(320, "CONNECTION_FORCED - maintenance");
//! let error = connection.closed().await.unwrap_err();
//! assert!(error.is_transient());
//! # Ok(())
//! # }
//! ```
//!
//! # The rooms, and where next
//!
//! ```text
//!      relay                       records to queues by route rules, with a verdict on each
//!        │
//!    registry                      outgoing connections by name
//!        │
//!    messaging                     the facade, over every transport
//!        │
//!      amqp          broker        the client; the server in memory
//!        │              │
//!        └──transport───┘          sockets, pipes, and the one task that drives a connection
//!               │
//!           protocol               the rule book: state machines of both sides, without I/O and clock
//!               │
//!             codec                the alphabet: octets to frames, methods, properties, tables
//! ```
//!
//! * [`messaging`] is where most programs begin: [`messaging::Client`].
//! * [`amqp`] is for those who want the protocol's own words: [`amqp::Connection`], [`amqp::Channel`].
//! * `broker` has what it does and what it can be told to do wrong.
//! * [`protocol`] and [`codec`] are for tools that look at AMQP without being a client: proxies, analysers, fuzzers. Frames that break
//!   the rules are [`codec::UncheckedFrame`]s, and a connection is driven frame by frame with a `transport::FrameStream`.
//! * [`registry`] and `relay` are for hosts: service buses, mail servers.
//! * [`guide`] has the calls of lapin, amqprs, KumoMTA, Zato and uamqp beside ours.
//! * The examples of the repository run without a server: `cargo run --release --example quickstart` first.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "client")]
pub mod amqp;
#[cfg(feature = "broker")]
pub mod broker;
pub mod codec;
pub mod error;
#[cfg(feature = "client")]
pub mod guide;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "client")]
mod message;
#[cfg(feature = "client")]
pub mod messaging;
pub mod protocol;
#[cfg(feature = "client")]
pub mod registry;
#[cfg(feature = "relay")]
pub mod relay;
#[cfg(feature = "transport")]
pub mod transport;
mod wakes;

/// The README's programs compile.
#[cfg(all(doctest, feature = "client", feature = "broker"))]
#[doc = include_str!("../README.md")]
struct Readme;
