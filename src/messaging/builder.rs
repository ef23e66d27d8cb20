//! How a client connects: every setting of the transport, and where its tasks live.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;

use super::client::Client;
use super::config::Config;
use crate::amqp::{
    Address, ConnectionBuilder, Credentials, FieldTable, FieldValue, HostOrder, SaslMechanism, ShortString, settings,
};
use crate::error::Result;

/// How to connect. Begins with a URL or a [`Config`]; everything can be changed, each setting of [`amqp::Config`](crate::amqp::Config)
/// by a method of its name.
#[derive(Clone, Debug)]
#[must_use = "nothing happens until connect() or lazy()"]
pub struct ClientBuilder {
    builder: ConnectionBuilder,
    runtime: Option<Handle>,
}

impl From<Config> for ClientBuilder {
    fn from(config: Config) -> Self {
        match config {
            Config::Amqp(config) => ConnectionBuilder::from(config).into(),
        }
    }
}

impl From<ConnectionBuilder> for ClientBuilder {
    fn from(builder: ConnectionBuilder) -> Self {
        Self { builder, runtime: None }
    }
}

macro_rules! methods {
    ($( $(#[$doc:meta])* fn $name:ident($config:ident $(, $argument:ident: $type:ty)*) $body:block )*) => {
        impl ClientBuilder {$(
            $(#[$doc])*
            pub fn $name(self $(, $argument: $type)*) -> Self {
                self.amqp(|builder| builder.$name($($argument),*))
            }
        )*}
    };
}

settings!(methods);

impl ClientBuilder {
    /// Whatever else an [`amqp::ConnectionBuilder`](ConnectionBuilder) can be told: TLS, mechanisms and credentials of one's own.
    ///
    /// ```
    /// # fn example() -> leveret::error::Result<()> {
    /// use leveret::amqp::TlsConfig;
    /// use leveret::messaging::Client;
    ///
    /// let tls = TlsConfig::new().root_file("ca.pem");
    /// let client = Client::builder("amqps://rabbit.example/%2f")?.amqp(|builder| builder.tls(tls)).lazy()?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "tls")]
    #[doc(alias = "credentials_provider")]
    pub fn amqp(mut self, change: impl FnOnce(ConnectionBuilder) -> ConnectionBuilder) -> Self {
        self.builder = change(self.builder);
        self
    }

    /// The runtime that the connection and its tasks live on, where that is not the caller's: the caller's may end before the
    /// connection does.
    pub fn spawn_on(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime.clone());
        self.amqp(|builder| builder.spawn_on(runtime))
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// As [`amqp::Connection::open`](crate::amqp::Connection::open).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes whatever has been opened.
    pub async fn connect(self) -> Result<Client> {
        let client = self.lazy()?;
        client.ready().await?;
        Ok(client)
    }

    /// A client that connects when it is first used.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: the settings make no sense together.
    pub fn lazy(self) -> Result<Client> {
        self.builder.config().check()?;
        Ok(Client::over_amqp(self.builder, self.runtime))
    }

    /// Connects over anything that carries octets both ways: a proxy's tunnel, a WebSocket, a pipe in memory. When that is lost, the
    /// next use connects to the hosts of the settings.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the stream.
    pub async fn connect_with(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Client> {
        Client::over_stream(self.builder, self.runtime, stream).await
    }
}
