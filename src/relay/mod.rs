//! From a mail server to a queue: one call that hands a message over and says 2xx, 4xx or 5xx, and a loop that does it for a stream of
//! JSON lines.
//!
//! ```
//! # use leveret::amqp::Connection;
//! use leveret::relay::{Record, Relay, RelayConfig};
//! use leveret::registry::{Registry, RegistryConfig};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let broker = leveret::broker::Broker::start().await?;
//! # let setup = Connection::open(&broker.url()).await?;
//! # setup.open_channel().await?.queue_declare("mail.Bounce").await?;
//! # let names = serde_json::json!({"connections": {"mq": broker.url()}, "outgoing": {"events": {"connection": "mq"}}});
//! # let routes = serde_json::json!({"routes": [{"outgoing": "events", "queue": "mail.{type}"}]});
//! # let (names, routes) = (names.to_string(), routes.to_string());
//! let registry = Registry::from_config(serde_json::from_str::<RegistryConfig>(&names)?)?;
//! let relay = Relay::new(registry, serde_json::from_str::<RelayConfig>(&routes)?)?;
//!
//! // In the handler of a delivery: what to tell the mail server.
//! let record = Record::new("From: a@example\r\n\r\nhello").id("spool-4711").field("type", "Bounce");
//! let verdict = relay.deliver(&record).await;
//! assert_eq!((verdict.code, verdict.text.as_str()), (250, "accepted"));
//! # setup.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # The verdict
//!
//! | what became of the message | code | what the host does |
//! |---|---|---|
//! | the server accepted it; without confirms: it was handed over | 250 | done |
//! | it came back (no queue takes it), or this message alone made the server close its channel (403, 404, 406) | 550 | bounce |
//! | no route takes it, a field is missing for its route, a name in it is longer than 255 octets | 550 | bounce |
//! | it is too large | 552 | bounce |
//! | the server nacked it, or takes no messages at the moment; the connection failed; a deadline passed | 451 | try again |
//! | nobody knows what became of it | 451 | try again: it may arrive twice, with the same `message_id` |
//! | the entry of the registry is not there, not active, or of a transport that cannot do it; the login fails | 451 | try again: the operator has to do something |
//! | the client or the registry was closed | 421 | try again, over another connection |
//!
//! A text of the server's is made one line of printable ASCII, so that it can stand in a reply of SMTP.
//!
//! A server that closes a channel (404: no such exchange) does not say because of which message, and everything on the channel is of
//! unknown outcome. Those messages are sent once more, one at a time on a channel of their own, so that the one whose fault it was is
//! refused for certain and the others are not.
//!
//! # Routes
//!
//! The first route whose conditions hold takes the record; [`Route`] says how they are written. In TOML:
//!
//! ```toml
//! unrouted = "refuse"                  # or "drop"
//!
//! [[routes]]
//! name = "bounces"
//! when = { type = ["Bounce", "OOB"], "meta.tenant" = "acme" }
//! outgoing = "events"                  # an entry of the registry
//! exchange = "mail"                    # or queue, or topic; without them that of the entry
//! routing_key = "log.{type}.{meta.tenant|none}"
//! message_id = "{id}-{type}"
//! headers = { x-type = "{type}" }
//!
//! [[routes]]                           # everything else
//! outgoing = "archive"
//! topic = "mail-log"
//! key = "{id}"
//! ```
//!
//! # A stream
//!
//! [`Relay::run`] reads JSON lines until the input ends: in batches, with retries, and never with more in memory than [`RelayConfig`]
//! allows. It tells of each line once, when its fate is certain or its attempts are used up, and ends with a [`RelayReport`].

mod config;
mod deliver;
mod lines;
mod record;
mod report;
mod route;
mod run;
mod template;
mod verdict;

pub use config::{RelayConfig, RelayError, Unrouted};
pub use deliver::Relay;
pub use record::{Record, RecordError};
pub use report::{RelayReport, RouteCounts};
pub use route::{OneOf, Route};
pub use run::Fate;
pub use verdict::{Class, Verdict};
