//! Coming from Zato: outgoing AMQP connections, connection definitions, channels.
//!
//! ```
//! use leveret::amqp::Properties;
//! use leveret::messaging::{Client, Message, Target};
//! use leveret::registry::{Outgoing, Registry};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let broker = leveret::broker::Broker::start().await?;
//! # let url = &broker.url();
//! # let setup = leveret::amqp::Connection::open(url).await?;
//! # let channel = setup.open_channel().await?;
//! # channel.exchange_declare("CRM1", "direct").await?;
//! # channel.queue_declare("CRM1").await?;
//! # channel.queue_bind("CRM1", "CRM1", "").await?;
//! // What the web-admin or enmasse would create; or from a file: see `registry`.
//! let outgoing = Registry::builder()
//!     .stamp(|_name, _target, message| {
//!         if message.get_header("X-Zato-Component").is_none() {
//!             *message = std::mem::take(message).header("X-Zato-Component", "server1");
//!         }
//!     })
//!     .build();
//! outgoing.set_connection("crm", Client::builder(url)?)?;
//! outgoing.set_outgoing("CRM1", Outgoing::new("crm").defaults(Properties::new().priority(5)))?;
//!
//! // self.outgoing.amqp.send(msg, 'CRM1', 'CRM1', '', {'app_id': 'ESB'}, {'X-Foo': 'bar'})
//! let message = Message::new("Hello AMQP broker!").app_id("ESB").header("X-Foo", "bar");
//! outgoing.post_to("CRM1", Target::exchange("CRM1", ""), message).await?;
//! # outgoing.flush("CRM1").await?.into_result()?;
//! # setup.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! | Zato | here |
//! |---|---|
//! | connection definition: host, port, vhost, username, password, frame_max, heartbeat | [`Config`](crate::amqp::Config) in [`set_connection`](crate::registry::Registry::set_connection); nothing is put into a URL, and nothing shows the password |
//! | outgoing connection: name, definition, delivery mode, priority, content type, … | [`Outgoing`](crate::registry::Outgoing) in [`set_outgoing`](crate::registry::Registry::set_outgoing) |
//! | `self.outgoing.amqp.send(msg, out_name, exchange, routing_key, properties, headers)` | [`post_to`](crate::registry::Registry::post_to), or [`send_to`](crate::registry::Registry::send_to) to know what became of it |
//! | `self.amqp.publish`, `amqp_invoke`, `amqp_invoke_async` | [`send`](crate::registry::Registry::send), [`post`](crate::registry::Registry::post) |
//! | unknown name: nothing happens (2.0), `KeyError` (3.x) | [`UnknownOutgoing`](crate::registry::RegistryError::UnknownOutgoing) |
//! | `is_active` | [`Inactive`](crate::registry::RegistryError::Inactive), [`activate`](crate::registry::Registry::activate), [`deactivate`](crate::registry::Registry::deactivate) |
//! | the message's property wins if it is not falsy | it wins if it is set: 0 and `""` are values |
//! | `X-Zato-Component`, `X-Zato-Msg-TS` if absent | [`stamp`](crate::registry::RegistryBuilder::stamp) |
//! | `expiration` (seconds with kombu; unset it is `"0"`: gone at once) | [`expires_after(duration)`](crate::messaging::Message::expires_after); unset it stays unset |
//! | delivery mode 2 unless told otherwise | the same |
//! | `pool_size`, `acquire_block`, `acquire_timeout` | [`max_in_flight`](crate::registry::Outgoing::max_in_flight), [`timeout`](crate::registry::Outgoing::timeout) |
//! | edit, rename, delete, `change_password` | [`edit_outgoing`](crate::registry::Registry::edit_outgoing), [`rename_outgoing`](crate::registry::Registry::rename_outgoing), [`remove_outgoing`](crate::registry::Registry::remove_outgoing), [`set_connection`](crate::registry::Registry::set_connection): what is on its way ends where it began |
//! | connects on first use | the same; [`client(name)?.ping(..)`](crate::messaging::Client::ping) to try |
//! | exchange `/` | does not exist: the default exchange is `""`, or [`Target::queue`](crate::messaging::Target::queue) |
//! | channel: queue, `consumer_tag_prefix`, `pool_size`, `prefetch_count` (0: no limit) | [`client.receiver(Source::queue(q))`](crate::messaging::Client::receiver)`.tag_prefix(..).consumers(..).prefetch(..)`; a limit unless told otherwise |
//! | the service succeeds: ack; raises: requeued at once, for ever | [`for_each`](crate::messaging::Receiver::for_each) with [`on_failure(disposition, delay)`](crate::messaging::ReceiverBuilder::on_failure) |
//! | a channel is stopped or deleted | [`for_each_until`](crate::messaging::Receiver::for_each_until): services that run are waited for, the rest goes back |
//! | `ack_mode` `reject` (no_ack and reject: the channel closes) | [`Disposition::Reject`](crate::messaging::Disposition); or [`build_no_ack`](crate::messaging::ReceiverBuilder::build_no_ack), whose messages have nothing to settle with |
//! | `msg.ack()` by the service first | [`detach`](crate::messaging::Delivery::detach): the message and its [`Acker`](crate::messaging::Acker) |
//!
//! # What is different
//!
//! * **Retries are bounded** ([`RetryPolicy`](crate::messaging::RetryPolicy)), and nothing whose fate is unknown is sent again unless asked for. There, 2.0
//!   retries for ever, and later versions lose the first message on a stale connection.
//! * **Heartbeats go on** while nobody sends.
//! * **Consumers start again by themselves** when their connection is lost, at once and then after waits that grow up to 10 s; there,
//!   every 2 s, whatever the reason. A queue that is gone or not allowed ends them, with the reason.
