//! How a client connects: every setting of the transport, and where its tasks live.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;

use super::client::Client;
use super::config::Config;
use super::hook::{BoxError, Hook};
use super::over_amqp::link::Setup;
use crate::amqp::{
    Address, Connection, ConnectionBuilder, Credentials, FieldTable, FieldValue, HostOrder, Sasl, ShortString, settings,
};
#[cfg(feature = "kafka")]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
#[cfg(feature = "kafka")]
use crate::kafka::KafkaConfig;
use crate::message::RecoveryPolicy;

/// How to connect. Begins with a URL or a [`Config`]; everything can be changed, each setting of [`amqp::Config`](crate::amqp::Config)
/// by a method of its name.
#[derive(Clone, Debug)]
#[must_use = "nothing happens until connect() or lazy()"]
pub struct ClientBuilder {
    transport: Transport,
    runtime: Option<Handle>,
    on_open: Option<Hook<Connection, ()>>,
    recovery: Option<RecoveryPolicy>,
    /// A setting of another transport, told when the client is built.
    misused: Option<Error>,
}

#[derive(Clone, Debug)]
enum Transport {
    Amqp(Box<ConnectionBuilder>),
    #[cfg(feature = "kafka")]
    Kafka(KafkaConfig),
}

impl From<Config> for ClientBuilder {
    fn from(config: Config) -> Self {
        match config {
            Config::Amqp(config) => ConnectionBuilder::from(config).into(),
            #[cfg(feature = "kafka")]
            Config::Kafka(config) => Self::over(Transport::Kafka(config)),
        }
    }
}

impl From<ConnectionBuilder> for ClientBuilder {
    fn from(builder: ConnectionBuilder) -> Self {
        Self::over(Transport::Amqp(Box::new(builder)))
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
    fn over(transport: Transport) -> Self {
        Self { transport, runtime: None, on_open: None, recovery: None, misused: None }
    }

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
        match self.transport {
            Transport::Amqp(builder) => self.transport = Transport::Amqp(Box::new(change(*builder))),
            #[cfg(feature = "kafka")]
            Transport::Kafka(_) => self = self.misuse("this is a client of Kafka, and a setting of AMQP was made"),
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
        match self.transport {
            Transport::Kafka(config) => self.transport = Transport::Kafka(change(config)),
            Transport::Amqp(_) => self = self.misuse("this is a client of AMQP, and a setting of Kafka was made"),
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
        match self.transport {
            Transport::Amqp(builder) => self.transport = Transport::Amqp(Box::new(builder.spawn_on(runtime))),
            #[cfg(feature = "kafka")]
            Transport::Kafka(_) => {}
        }
        self
    }

    /// What is done with each new connection before anybody else gets it: queues, exchanges and bindings are declared here that
    /// are to be there again when the server has been away. AMQP only.
    ///
    /// ```
    /// # async fn example() -> leveret::error::Result<()> {
    /// use leveret::messaging::Client;
    ///
    /// let client = Client::builder("amqp://rabbit.example")?
    ///     .on_open(|connection| async move {
    ///         let channel = connection.open_channel().await?;
    ///         channel.exchange_declare("news", "fanout").durable(true).await?;
    ///         channel.queue_declare("orders").durable(true).await?;
    ///         Ok(())
    ///     })
    ///     .connect()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It has what is left of [`connect_timeout`](Self::connect_timeout). When it fails, connecting has failed: with an error that says so
    /// and has the kind and the reply code of what went wrong, or is a `Handshake` for an error of the program's own. The
    /// connection is closed then. Exclusive queues belong to the connection, so those that are declared here can be used by
    /// the client's senders and receivers.
    ///
    /// The client itself waits for it, so it uses the connection it is given, and not the client.
    #[doc(alias = "setup")]
    #[doc(alias = "topology")]
    #[doc(alias = "onconnect")]
    pub fn on_open<F, Fut>(mut self, prepare: F) -> Self
    where
        F: Fn(Connection) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.on_open = Some(Hook::new("on_open", prepare));
        self.amqp(|builder| builder)
    }

    /// What becomes of receivers when the connection is lost: by default they begin again, at once and then after waits
    /// that grow, for as long as it takes. AMQP only: members of a Kafka group come back by themselves.
    ///
    /// A receiver can say [otherwise](super::ReceiverBuilder::recovery) for itself.
    #[doc(alias = "reconnect")]
    pub fn recovery(mut self, policy: RecoveryPolicy) -> Self {
        self.recovery = Some(policy);
        self.amqp(|builder| builder)
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// As [`amqp::Connection::open`](crate::amqp::Connection::open), and as [`on_open`](Self::on_open) fails.
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
        match self.transport {
            Transport::Amqp(builder) => {
                builder.config().check()?;
                let recovery = self.recovery.unwrap_or_default();
                let Self { runtime, on_open, .. } = self;
                Ok(Client::over_amqp(Setup { builder: *builder, runtime, on_open, recovery }))
            }
            #[cfg(feature = "kafka")]
            Transport::Kafka(config) => {
                config.check()?;
                Ok(Client::over_kafka(config))
            }
        }
    }

    /// Connects over anything that carries octets both ways: a proxy's tunnel, a WebSocket, a pipe in memory. When that is lost, the
    /// next use connects to the hosts of the settings; receivers do so by themselves only where [`recovery`](Self::recovery) was set.
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
        match self.transport {
            Transport::Amqp(builder) => {
                // Nobody has said that these hosts are the same server.
                let recovery = self.recovery.unwrap_or_else(RecoveryPolicy::never);
                let Self { runtime, on_open, .. } = self;
                Client::over_stream(Setup { builder: *builder, runtime, on_open, recovery }, stream).await
            }
            #[cfg(feature = "kafka")]
            Transport::Kafka(_) => super::over_kafka::unsupported("single stream that carries everything"),
        }
    }
}
