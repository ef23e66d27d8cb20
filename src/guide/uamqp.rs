//! Coming from uamqp: `AMQPClient`, `SendClient`, `ReceiveClient`, `MgmtOperation`.
//!
//! uamqp speaks AMQP 1.0, and this library 0-9-1: another protocol of the same name. RabbitMQ speaks both. What the two have no words for
//! in common is in the last section.
//!
//! ```
//! use std::time::Duration;
//! use leveret::messaging::{Client, Message, Source, Target};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let broker = leveret::broker::Broker::start().await?;
//! # let url = &broker.url();
//! # let setup = leveret::amqp::Connection::open(url).await?;
//! # setup.open_channel().await?.queue_declare("myqueue").await?;
//! // with SendClient(target, auth=auth) as client: client.send_message_batch(messages)
//! let client = Client::connect(url).await?;
//! let sender = client.sender().build()?;
//! let messages = (0..3).map(|number| (Target::queue("myqueue"), Message::new(format!("Message {number}"))));
//! let states = sender.send_batch(messages).await;
//! assert!(states.is_ok());
//!
//! // with ReceiveClient(source, auth=auth) as client: client.receive_message_batch(10, timeout=5000)
//! let mut receiver = client.receiver(Source::queue("myqueue")).prefetch(10).build().await?;
//! for message in receiver.recv_batch(10, Some(Duration::from_secs(5))).await? {
//!     message.accept()?;
//! }
//! client.close().await;
//! # setup.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Clients
//!
//! | uamqp | here |
//! |---|---|
//! | `AMQPClient(remote_address, auth=SASLPlain(..))` | [`Client::connect(url)`](crate::messaging::Client::connect), [`Client::builder`](crate::messaging::Client::builder), [`Credentials`](crate::amqp::Credentials) as often as you like |
//! | `open()`, `client_ready()`, `auth_complete()`, `do_work()` | [`ready()`](crate::messaging::Client::ready); a task does the work |
//! | `close()`, `with` | [`close()`](crate::messaging::Client::close) hands back what was not confirmed; dropping closes in the background |
//! | `keep_alive_interval`, `idle_timeout` (ms) | [`heartbeat`](crate::messaging::ClientBuilder::heartbeat) (s), without a thread |
//! | `error_policy=ErrorPolicy(max_retries, on_error)` | [`RetryPolicy`](crate::messaging::RetryPolicy): `max_retries`, `classify`, asked about every error |
//! | `client_name`, `properties` | [`connection_name`](crate::messaging::ClientBuilder::connection_name), [`client_property`](crate::messaging::ClientBuilder::client_property) |
//! | `max_frame_size`, `channel_max` | [`frame_max`](crate::messaging::ClientBuilder::frame_max), [`channel_max`](crate::messaging::ClientBuilder::channel_max) |
//! | `http_proxy`, websockets | [`connect_with(stream)`](crate::messaging::ClientBuilder::connect_with): bring the tunnel |
//!
//! # Sending
//!
//! | uamqp | here |
//! |---|---|
//! | `queue_message(m)` (unbounded) | [`send_pipelined`](crate::messaging::Sender::send_pipelined), which waits for room; [`try_enqueue`](crate::messaging::Sender::try_enqueue), which does not |
//! | `send_all_messages()` → `[MessageState]` | [`flush()`](crate::messaging::Sender::flush) → a result for each, with its error |
//! | `send_message(m)` | [`send(target, m)`](crate::messaging::Sender::send) |
//! | `send_message_batch`, `BatchMessage` | [`send_batch`](crate::messaging::Sender::send_batch) |
//! | `messages_pending()`, `wait()`, `pending_messages` | [`in_flight()`](crate::messaging::Sender::in_flight), `flush()`, [`CloseReport`](crate::messaging::CloseReport) |
//! | `message.on_send_complete` | the [`PendingReceipt`](crate::messaging::PendingReceipt) is a future; its [`state()`](crate::messaging::PendingReceipt::state) |
//! | `msg_timeout` (ms) | [`timeout`](crate::messaging::SenderBuilder::timeout), a `Duration` |
//! | `send_settle_mode=Settled` | [`ConfirmMode::None`](crate::messaging::ConfirmMode): the receipt says `NotRequested` |
//!
//! # Receiving
//!
//! | uamqp | here |
//! |---|---|
//! | `receive_message_batch(max, timeout)` | [`recv_batch(max, wait)`](crate::messaging::Receiver::recv_batch) |
//! | `receive_messages(callback)` | [`for_each(concurrency, handler)`](crate::messaging::Receiver::for_each), [`for_each_until`](crate::messaging::Receiver::for_each_until) |
//! | `receive_messages_iter()` | [`recv()`](crate::messaging::Receiver::recv), and `Stream` |
//! | `auto_complete=True` (accepted before you see it, or when the loop breaks) | nothing is accepted unless you say so |
//! | `message.accept()` | [`accept()`](crate::messaging::Delivery::accept): `basic.ack` |
//! | `message.reject(condition, description)` | [`reject()`](crate::messaging::Delivery::reject): `basic.reject`, dead-letters; the words stay here |
//! | `message.release()` | [`release()`](crate::messaging::Delivery::release): `basic.nack` with requeue |
//! | `message.modify(failed, deliverable)` (the second one is inverted) | [`modify(Modify { delivery_failed, undeliverable_here })`](crate::messaging::Modify) |
//! | `ReceiveAndDelete` | [`build_no_ack()`](crate::messaging::ReceiverBuilder::build_no_ack) |
//! | `prefetch=300`, `reset_link_credit` | [`prefetch`](crate::messaging::ReceiverBuilder::prefetch), [`set_prefetch`](crate::messaging::Receiver::set_prefetch) |
//! | `timeout` (ms), `shutdown_after_timeout` | [`idle_timeout`](crate::messaging::ReceiverBuilder::idle_timeout) |
//! | header `delivery_count`, `first_acquirer` | [`delivery_count()`](crate::messaging::Received::delivery_count), `redelivered` |
//! | `application_properties` | headers |
//!
//! # Management
//!
//! | uamqp | here |
//! |---|---|
//! | `mgmt_request(message, operation, op_type, node, timeout)` | [`requester().build()?.manage(node, operation, kind, message)`](crate::messaging::Requester::manage) |
//! | `status_code_field`, `description_fields` | [`status_field`](crate::messaging::RequesterBuilder::status_field), [`description_field`](crate::messaging::RequesterBuilder::description_field) |
//! | a status that is not 2xx is logged | [`RequestError::Status`](crate::messaging::RequestError::Status), with the whole reply; [`any_status`](crate::messaging::RequesterBuilder::any_status) to have it as a reply |
//! | `timeout=0`: for ever | a deadline always; a late reply is an event and disturbs nobody |
//! | one bad reply breaks the link for good | it concerns its own request only |
//!
//! # What 0-9-1 does not have
//!
//! Links, sessions and their windows; redirects; a batch that is one message on the wire; bodies of values and sequences; delivery annotations
//! and footers; conditions of a rejection; CBS tokens (RabbitMQ has [`update_secret`](crate::messaging::Client::update_secret) instead).
