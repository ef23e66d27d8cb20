//! Coming from KumoMTA: what its Lua modules do, for those who write them, or who write another mail server.
//!
//! # `kumo.amqp.build_client` (deprecated there)
//!
//! | KumoMTA | here |
//! |---|---|
//! | `kumo.amqp.build_client(uri)` | [`Connection::builder(uri)?.spawn_on(main).open()`](crate::amqp::ConnectionBuilder::spawn_on); 20 s to connect, as there |
//! | `client:publish { routing_key, payload, exchange }` | [`channel.basic_publish(exchange, routing_key, payload)`](crate::amqp::Channel::basic_publish); octets, and not only UTF-8 |
//! | … `options { mandatory, immediate }`, `properties { … }` | `.mandatory(true)`, `.properties(&p)`; [`Properties`](crate::amqp::Properties) are `Deserialize` from a plain table |
//! | `confirm:wait()` → `{ status, reply_code, reply_text }` | `confirm.await` → [`Confirmation`](crate::amqp::Confirmation); awaiting twice does not compile |
//! | `status == 'NotRequested'`, always | until [`confirm_select()`](crate::amqp::Channel::confirm_select); then `Ack` and `Nack`, with what was returned |
//! | `client:publish_with_timeout(params, millis)` | [`Sender::with_timeout`](crate::messaging::Sender::with_timeout); or `tokio::time::timeout`, as there: a confirm can be dropped |
//! | `client:close()`, twice is an error | `close()`, twice is fine |
//!
//! # `kumo.amqp.basic_publish`
//!
//! ```
//! use leveret::amqp::Config;
//! use leveret::messaging::{ClientCache, Message, Target};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let broker = leveret::broker::Broker::start().await?;
//! # let setup = leveret::amqp::Connection::open(&broker.url()).await?;
//! # setup.open_channel().await?.queue_declare("logging").await?;
//! // Instead of a pool for each connection table: one client, whose connection lives on the main runtime.
//! let cache = ClientCache::new().spawn_on(tokio::runtime::Handle::current());
//! # let port = broker.local_addr().port();
//! let connection = Config::new().host("127.0.0.1").port(port); // a table, with the feature `serde`
//! let sender = cache.get(connection)?.sender().build()?;
//! sender.send(Target::exchange("", "logging"), Message::new("w00t!").app_id("kumo")).await?;
//! # setup.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! | KumoMTA | here |
//! |---|---|
//! | `connection = { host, port, username, password, vhost, connection_name, heartbeat }` | [`Config`](crate::amqp::Config), the same names; or a URL |
//! | `enable_tls`, `root_ca_cert`, `client_cert`, `client_private_key` | `tls = { ca_cert_file, cert_file, key_file }`; the port follows (5671) |
//! | `pool_size`, `recycle_timeout`, `wait_timeout` | not needed: calls share a connection and wait for their own confirms only |
//! | `connect_timeout` (none unless set) | `connect_timeout`, 20 s |
//! | `publish_timeout` (guards a queue of the process) | [`timeout`](crate::messaging::SenderBuilder::timeout), 60 s for everything up to the confirm |
//! | `confirm_select = true` ("not fully implemented") | [`confirms`](crate::messaging::SenderBuilder::confirms): on unless switched off |
//! | `headers` (cannot be written in Lua) | a plain map |
//! | `mandatory` (logged) | an error of the kind `Returned`; on unless switched off |
//! | success: it is in a queue of this process | success: the server has it, and a queue |
//! | idle connections closed when memory is short | [`ClientCache::close_idle`](crate::messaging::ClientCache::close_idle) |
//!
//! # `kumo.kafka.build_producer`
//!
//! | KumoMTA | here (feature `kafka`) |
//! |---|---|
//! | `kumo.kafka.build_producer { ['bootstrap.servers'] = … }` | a client for `kafka://h1:9092,h2:9092`; librdkafka's properties pass through |
//! | `producer:send { topic, payload, partition, key, headers }` → `partition, offset` | [`sender.send(Target::topic(t).partition(p), message)`](crate::messaging::Sender::send) → [`ReceiptDetail::Kafka`](crate::messaging::ReceiptDetail) |
//! | `timeout` (how long a full queue is retried; brokers that are down cost 5 minutes) | one deadline for everything |
//! | `producer:send_batch { … }` → `failed_items, errors` | [`send_batch`](crate::messaging::Sender::send_batch) → [`failed()`](crate::messaging::BatchReport::failed), places counted from 0; receipts of the others too |
//! | `producer:close()` (throws away what is queued) | [`close()`](crate::messaging::Client::close): flushes, and hands back what was not delivered |
//!
//! # `custom_lua`, log hooks: routing messages via AMQP
//!
//! `leveret::relay` (feature `relay`) is made for these. Its one call says what `connection:send(message)` has to:
//!
//! | KumoMTA | here |
//! |---|---|
//! | constructor event `make.NAME` → connection object | a clone of a `Relay`: all sessions share its connections |
//! | `connection:send(message)` → text, or `kumo.reject(code, text)` | `relay.deliver(&record).await` → `Verdict { class, code, text }`: 250; 421, 451; 550, 552 |
//! | `connection:send_batch(messages)`, one disposition for all | `relay.deliver_batch(&records).await` → a verdict each; `Verdict::of_batch` for one |
//! | any other error: `400`, tried again, may be a duplicate | 451, and the message id is the same: the host's id through `Record::id` |
//! | `connection:close()` | `registry.close_within(deadline)` |
//! | `log_hooks:new { name, batch_size, filter, … }` | routes with `when`; `relay.run(lines, …)` for a stream of JSON lines |
//!
//! The example of KumoMTA's page "Routing Messages via AMQP" becomes:
//!
#![cfg_attr(feature = "relay", doc = "```")]
#![cfg_attr(not(feature = "relay"), doc = "```ignore")]
//! # use leveret::amqp::Connection;
//! use leveret::messaging::{Client, Target};
//! use leveret::registry::{Outgoing, Registry};
//! use leveret::relay::{Record, Relay, RelayConfig, Route};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let broker = leveret::broker::Broker::start().await?;
//! # let url = &broker.url();
//! # let setup = Connection::open(url).await?;
//! # setup.open_channel().await?.queue_declare("logging").await?;
//! // make.amqp: once
//! let registry = Registry::new();
//! registry.set_connection("mq", Client::builder(url)?)?;
//! registry.set_outgoing("logging", Outgoing::new("mq").target(Target::queue("logging")))?;
//! let mut route = Route::default();
//! route.outgoing = "logging".into();
//! let mut config = RelayConfig::new();
//! config.routes.push(route);
//! let relay = Relay::new(registry, config)?;
//!
//! // send(message): for each
//! let verdict = relay.deliver(&Record::new("message:get_data()").id("message:id()")).await;
//! if !verdict.is_accepted() {
//!     println!("kumo.reject({}, {:?})", verdict.code, verdict.text);
//! }
//! # assert_eq!(verdict.code, 250);
//! # setup.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What a host must know
//!
//! * **A caller's runtime may end** while the connection lives on: `spawn_on`. Handles are `Send + Sync + 'static` and have no lifetimes.
//! * **Errors printed are one line with all causes**: `{}` does what `{:#}` does elsewhere.
//! * **One message at a time** on each of many sessions is fine: a single send is written at once, and sessions share connections.
