//! How a client connects: every setting of the transport, and where its tasks live.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;

use super::client::Client;
use super::config::Config;
use crate::amqp::{
    Address, ConnectionBuilder, Credentials, FieldTable, FieldValue, HostOrder, Sasl, ShortString, settings,
};
#[cfg(feature = "kafka")]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
#[cfg(feature = "kafka")]
use crate::kafka::KafkaConfig;

/// How to connect. Begins with a URL or a [`Config`]; everything can be changed, each setting of [`amqp::Config`](crate::amqp::Config)
/// by a method of its name.
#[derive(Clone, Debug)]
#[must_use = "nothing happens until connect() or lazy()"]
pub struct ClientBuilder {
    setup: Setup,
    runtime: Option<Handle>,
    /// A setting of another transport, told when the client is built.
    misused: Option<Error>,
}

#[derive(Clone, Debug)]
enum Setup {
    Amqp(Box<ConnectionBuilder>),
    #[cfg(feature = "kafka")]
    Kafka(KafkaConfig),
}

impl From<Config> for ClientBuilder {
    fn from(config: Config) -> Self {
        match config {
            Config::Amqp(config) => ConnectionBuilder::from(config).into(),
            #[cfg(feature = "kafka")]
            Config::Kafka(config) => Self { setup: Setup::Kafka(config), runtime: None, misused: None },
        }
    }
}

impl From<ConnectionBuilder> for ClientBuilder {
    fn from(builder: ConnectionBuilder) -> Self {
        Self { setup: Setup::Amqp(Box::new(builder)), runtime: None, misused: None }
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
        match self.setup {
            Setup::Amqp(builder) => self.setup = Setup::Amqp(Box::new(change(*builder))),
            #[cfg(feature = "kafka")]
            Setup::Kafka(_) => self = self.misuse("this is a client of Kafka, and a setting of AMQP was made"),
        }
        self
    }

    /// Whatever a [`KafkaConfig`] can be told.
    ///
    /// ```
    /// # fn example() -> leveret::error::Result<()> {
    /// use leveret::kafka::PropertyMapping;
    /// use leveret::messaging::Client;
    ///
    /// let client = Client::builder("kafka://h1:9092,h2:9092")?
    ///     .kafka(|config| config.set("compression.type", "lz4").map_properties(PropertyMapping::Headers))
    ///     .lazy()?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "kafka")]
    pub fn kafka(mut self, change: impl FnOnce(KafkaConfig) -> KafkaConfig) -> Self {
        match self.setup {
            Setup::Kafka(config) => self.setup = Setup::Kafka(change(config)),
            Setup::Amqp(_) => self = self.misuse("this is a client of AMQP, and a setting of Kafka was made"),
        }
        self
    }

    /// Sets a property of librdkafka.
    #[cfg(feature = "kafka")]
    #[doc(alias = "rdkafka")]
    pub fn kafka_set(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.kafka(|config| config.set(name, value))
    }

    #[cfg(feature = "kafka")]
    fn misuse(mut self, what: &'static str) -> Self {
        self.misused.get_or_insert_with(|| Error::new(ErrorKind::Unsupported, what));
        self
    }

    /// The runtime that the connection and its tasks live on, where that is not the caller's: the caller's may end before the
    /// connection does. Kafka needs none: librdkafka has threads of its own.
    pub fn spawn_on(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime.clone());
        match self.setup {
            Setup::Amqp(builder) => self.setup = Setup::Amqp(Box::new(builder.spawn_on(runtime))),
            #[cfg(feature = "kafka")]
            Setup::Kafka(_) => {}
        }
        self
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
    /// `InvalidArgument`: the settings make no sense together, or librdkafka does not take one of its properties; `Unsupported`:
    /// a setting of another transport was made.
    pub fn lazy(self) -> Result<Client> {
        if let Some(error) = self.misused {
            return Err(error);
        }
        match self.setup {
            Setup::Amqp(builder) => {
                builder.config().check()?;
                Ok(Client::over_amqp(*builder, self.runtime))
            }
            #[cfg(feature = "kafka")]
            Setup::Kafka(config) => {
                config.check()?;
                Ok(Client::over_kafka(config))
            }
        }
    }

    /// Connects over anything that carries octets both ways: a proxy's tunnel, a WebSocket, a pipe in memory. When that is lost, the
    /// next use connects to the hosts of the settings.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect); `Unsupported` for Kafka.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the stream.
    pub async fn connect_with(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Client> {
        if let Some(error) = self.misused {
            return Err(error);
        }
        match self.setup {
            Setup::Amqp(builder) => Client::over_stream(*builder, self.runtime, stream).await,
            #[cfg(feature = "kafka")]
            Setup::Kafka(_) => super::over_kafka::unsupported("single stream that carries everything"),
        }
    }
}
