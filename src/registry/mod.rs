//! Outgoing connections by name: what a service bus or a mail server keeps in its configuration, and changes while it runs.
//!
//! ```
//! use leveret::amqp::Properties;
//! use leveret::messaging::{Client, Message, Target};
//! use leveret::registry::{Outgoing, Registry};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let url = "amqp://guest:guest@localhost:5672/%2f";
//! # let broker = leveret::broker::Broker::start().await?;
//! # let url = &broker.url();
//! # let setup = Client::connect(url).await?;
//! # setup.as_amqp().await?.open_channel().await?.queue_declare("CRM1").await?;
//! let registry = Registry::new();
//! registry.set_connection("crm", Client::builder(url)?)?;
//! registry.set_outgoing("CRM1", Outgoing::new("crm").defaults(Properties::new().app_id("ESB")))?;
//!
//! // Connects, and waits for the server's confirm.
//! registry.send_to("CRM1", Target::queue("CRM1"), Message::new("Hello AMQP broker!").header("X-Foo", "bar")).await?;
//! # setup.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # From a configuration file
//!
//! With the feature `serde` a [`RegistryConfig`] is read from TOML, JSON, or whatever else serde reads:
//!
//! ```toml
//! [connections]
//! events = "amqps://rabbit.example/%2f"           # a URL, or
//!
//! [connections.crm]                               # a map: see leveret::amqp::Config
//! host = "localhost"
//! username = "esb"
//! password = "..."
//!
//! [outgoing.CRM1]
//! connection = "crm"
//! exchange = "CRM1"                               # where messages go that do not say it themselves:
//! routing_key = ""                                # exchange and routing_key, or queue, or topic, or target
//! properties = { app_id = "ESB", headers = { X-Foo = "bar" } }
//! confirms = true
//! mandatory = true
//! timeout = "30s"
//! max_in_flight = 1000
//! channels = 1
//! active = true
//! ```
//!
//! Everything but `connection` may be left out; [`Outgoing`] has the defaults.
//!
//! # Changing it while it runs
//!
//! Every change takes hold at once, for the next message. Nothing that is on its way is lost by it: whoever waits in a
//! [`send`](Registry::send) ends it over the connection with which it began, and is told what became of it. What was replaced is handed out
//! as [`Retired`]: drop it, and the old connection closes in the background after its last user; or await [`Retired::close_within`] to
//! know that everything was confirmed.

mod entry;
mod error;
mod names;
mod retired;
mod settings;

pub use error::RegistryError;
pub use names::{Registry, RegistryBuilder};
pub use retired::Retired;
pub use settings::{Outgoing, RegistryConfig};
