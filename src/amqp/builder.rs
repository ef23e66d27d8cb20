//! Connecting: the settings, and the way from them to an open connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::time::Instant;

#[cfg(feature = "tls-core")]
use super::TlsConfig;
use super::call::OnDrop;
use super::config::{Config, HostOrder, settings};
use super::connection::{Connection, Watcher};
use super::provider::{CredentialsProvider, Refresh, Source};
use super::servers::{Attempts, earlier, share};
use super::shared::{Guard, Shared};
use super::{Address, Credentials, FieldTable, FieldValue, ReplyCode, Sasl, ShortString};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::client::{self as machine, Connection as Machine, SaslMechanism};
#[cfg(feature = "tls-core")]
use crate::transport::TlsReady;
use crate::transport::{Stream, connect, drive, now, resolve};

/// Heartbeats under so many seconds are warned of (c44): RabbitMQ's documentation has seen them close connections for nothing.
const HASTY: u16 = 5;

/// How to connect: a [`Config`], and what is not data. Begins with a URL, a config or [`default`](Self::default); everything
/// can be changed, each setting by the method with the name of the config's field.
///
/// ```no_run
/// # async fn ask_the_token_server() -> std::io::Result<String> { Ok(String::new()) }
/// # async fn example(runtime: tokio::runtime::Handle) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use leveret::amqp::{Config, ConnectionBuilder, Credentials, ExpiringCredentials};
///
/// // Asked before each connect, and again before a token expires.
/// let tokens = || async {
///     let credentials = Credentials::new("", ask_the_token_server().await?);
///     std::io::Result::Ok(ExpiringCredentials::new(credentials).valid_for(Duration::from_secs(300)))
/// };
/// let config = Config::from_env()?; // the URL in AMQP_URL
/// let connection = ConnectionBuilder::from(config)
///     .connection_name("orders")
///     .credentials_provider(tokens)
///     .spawn_on(runtime) // where it lives, whatever becomes of the caller's
///     .open()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[doc(alias = "ConnectionProperties")]
pub struct ConnectionBuilder {
    config: Config,
    sasl: Vec<Arc<dyn SaslMechanism>>,
    source: Option<Source>,
    runtime: Option<Handle>,
    #[cfg(feature = "tls-core")]
    tls: Option<TlsConfig>,
}

impl Connection {
    /// Connects to the server at an `amqp://` or `amqps://` URL, with the defaults of [`Config`] for what it does not say.
    ///
    /// ```text
    /// amqp://user:password@host:port,host:port/vhost?heartbeat=10&frame_max=65536
    /// ```
    ///
    /// Everything but `amqp://` may be left out. Without a path the virtual host is `/`; a path that is only a slash names the
    /// virtual host without a name. What has a meaning in URLs is written with percent signs: `/%2f` is the virtual host `/`. So is an
    /// `@` in a virtual host (`%40`): one that stands there as it is may belong to a password with a slash in it, and is an error.
    ///
    /// | parameter | meaning |
    /// |---|---|
    /// | `heartbeat` | seconds, 0 for none |
    /// | `connection_timeout` | milliseconds for connecting |
    /// | `channel_max`, `frame_max` | limits, 0 for the server's |
    /// | `auth_mechanism` | PLAIN, AMQPLAIN, EXTERNAL, ANONYMOUS or RABBIT-CR-DEMO; may be repeated, the first is preferred |
    /// | `cacertfile`, `certfile`, `keyfile`, `password` | `amqps://`: PEM files, and what the key is encrypted with (not supported yet) |
    /// | `verify` | `amqps://`: `verify_peer` or `verify_none` |
    /// | `server_name_indication` | `amqps://`: the name to find in the certificate |
    ///
    /// An unknown parameter is an error that lists these.
    ///
    /// Several hosts, and several addresses of a name, are tried one after the other until one lets the client in, each within
    /// its share of the time. A login that is refused, or a virtual host that is not there, is not tried elsewhere.
    ///
    /// # Errors
    ///
    /// `InvalidUrl`; `Handshake` when nobody listens or the handshake breaks off; `Auth` when the login is refused;
    /// `ConnectionClosed` with code 530 for an unknown virtual host; `Tls` for trouble with certificates, or where one side speaks
    /// TLS and the other does not; `Unsupported` for `amqps://` where this crate was built without; `Timeout`. Where several servers
    /// were tried, the error tells what happened at each.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes whatever has been opened.
    #[doc(alias = "connect")]
    pub async fn open(url: &str) -> Result<Self> {
        Self::builder(url)?.open().await
    }

    /// Connects as a [`Config`] says.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes whatever has been opened.
    pub async fn open_config(config: &Config) -> Result<Self> {
        ConnectionBuilder::from(config.clone()).open().await
    }

    /// Begins with the settings of an `amqp://` or `amqps://` URL.
    ///
    /// # Errors
    ///
    /// `InvalidUrl` says what is wrong with it, without repeating it.
    pub fn builder(url: &str) -> Result<ConnectionBuilder> {
        Ok(Config::from_url(url)?.into())
    }
}

macro_rules! methods {
    ($( $(#[$doc:meta])* fn $name:ident($config:ident $(, $argument:ident: $type:ty)*) $body:block )*) => {
        impl ConnectionBuilder {$(
            $(#[$doc])*
            #[must_use]
            pub fn $name(mut self $(, $argument: $type)*) -> Self {
                self.config = self.config.$name($($argument),*);
                self
            }
        )*}
    };
}

settings!(methods);

impl From<Config> for ConnectionBuilder {
    fn from(config: Config) -> Self {
        Self { config, ..Self::default() }
    }
}

impl ConnectionBuilder {
    /// The settings, as far as they are data.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Another way to log in, preferred to those of [`mechanisms`](Self::mechanisms). Of several, the first is preferred.
    #[must_use]
    pub fn sasl(mut self, mechanism: impl SaslMechanism + 'static) -> Self {
        self.sasl.push(Arc::new(mechanism));
        self
    }

    /// Where the credentials come from, in place of those that were set: asked before each connect and, when they expire, again
    /// while the connection is open.
    #[must_use]
    pub fn credentials_provider(mut self, provider: impl CredentialsProvider) -> Self {
        self.source = Some(Source::new(provider));
        self
    }

    /// Speaks TLS, and as this says: in place of what the URL or the config say of it. Hosts that name no port are then asked on
    /// 5671.
    #[cfg(feature = "tls-core")]
    #[must_use]
    pub fn tls(mut self, tls: TlsConfig) -> Self {
        self.config.tls.get_or_insert_default();
        self.tls = Some(tls);
        self
    }

    /// The runtime that the connection lives on, where that is not the caller's: the caller's may end before the connection does.
    #[must_use]
    pub fn spawn_on(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// As [`Connection::open`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes whatever has been opened.
    pub async fn open(self) -> Result<Connection> {
        self.open_over(None).await
    }

    /// Connects over a stream that is there already: a pipe in memory, or a TCP connection of one's own making. Where TLS is
    /// wanted, it is done inside of that stream, with the name of the first host.
    ///
    /// # Errors
    ///
    /// As [`Connection::open`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the stream.
    pub async fn open_with(self, stream: Stream) -> Result<Connection> {
        self.open_over(Some(stream)).await
    }

    /// Connects over anything that carries octets both ways: a proxy's tunnel, a WebSocket, a Unix socket.
    ///
    /// ```no_run
    /// # #[cfg(unix)]
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use leveret::amqp::ConnectionBuilder;
    ///
    /// let socket = tokio::net::UnixStream::connect("/run/amqp.sock").await?;
    /// let connection = ConnectionBuilder::default().connect_with(socket).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Connection::open`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the stream.
    pub async fn connect_with(
        self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Connection> {
        self.open_with(Stream::new(stream)).await
    }

    async fn open_over(self, stream: Option<Stream>) -> Result<Connection> {
        self.config.check()?;
        #[cfg(not(feature = "tls-core"))]
        if self.config.tls.is_some() {
            let message = "amqps:// needs TLS, and leveret was built without it: switch on its feature tls (a default one), \
                           tls-ring or tls-aws-lc-rs";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let runtime = self.runtime.clone();
        let connect = self.connect(stream);
        match runtime {
            None => match Handle::try_current() {
                Ok(_) => connect.await,
                Err(_) => {
                    let message = "there is no tokio runtime here for the connection to live on: connect in one, or name one \
                                   (ConnectionBuilder::spawn_on)";
                    Err(Error::new(ErrorKind::InvalidArgument, message))
                }
            },
            Some(runtime) => {
                let task = runtime.spawn(connect);
                let handle = task.abort_handle();
                // By itself it would go on when nobody waits for it any more.
                let _ends = OnDrop(Some(move || handle.abort()));
                task.await.unwrap_or_else(|error| {
                    let message = "the runtime that was to hold the connection has ended";
                    Err(Error::with_source(ErrorKind::Closed, message, error))
                })
            }
        }
    }

    /// Runs on the runtime that the driver is to live on.
    async fn connect(self, stream: Option<Stream>) -> Result<Connection> {
        let Self { config, sasl, source, .. } = self;
        let until = Instant::now().checked_add(config.connect_timeout);
        // Files that cannot be used are noticed before anybody is called.
        #[cfg(feature = "tls-core")]
        let tls = match self.tls.or_else(|| config.tls.as_ref().map(TlsConfig::from)) {
            Some(tls) => {
                let ready = within(share(until, 1), tls.prepare()).await;
                Some(ready.unwrap_or_else(|| Err(late("", config.connect_timeout)))?)
            }
            None => None,
        };
        let (credentials, refresh) = match source {
            Some(source) => {
                let (credentials, refresh) = source.begin(config.connect_timeout, config.call_deadline).await?;
                (credentials, Some(refresh))
            }
            None => (config.credentials.clone(), None),
        };
        let machine = config.machine(credentials, &sasl);
        config.check_login(&machine)?;
        let login = Login {
            config: &config,
            machine,
            refresh,
            #[cfg(feature = "tls-core")]
            tls,
        };
        let Some(stream) = stream else { return login.anywhere(until).await };
        let host = config.hosts.first().map_or("localhost", |address| address.host.as_str());
        within(share(until, 1), login.over(stream, host)).await.unwrap_or_else(|| Err(late("", config.connect_timeout)))
    }
}

/// No connection in time; `whom` is empty or begins with a space.
fn late(whom: &str, limit: Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("no connection{whom} within {} ms", limit.as_millis()))
}

async fn within<T>(until: Instant, wait: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout_at(until, wait).await.ok()
}

/// What it takes to log in at any of the servers.
struct Login<'a> {
    config: &'a Config,
    machine: machine::Config,
    refresh: Option<Refresh>,
    #[cfg(feature = "tls-core")]
    tls: Option<TlsReady>,
}

impl Login<'_> {
    /// Tries the hosts one after the other, and each address of their names, until one lets the client in.
    async fn anywhere(&self, until: Option<Instant>) -> Result<Connection> {
        let mut hosts: Vec<&Address> = self.config.hosts.iter().collect();
        self.arrange(&mut hosts);
        let mut attempts = Attempts::default();
        for (at, address) in hosts.iter().enumerate() {
            let port = address.port.unwrap_or_else(|| self.config.default_port());
            let name = Address::new(address.host.as_str(), port).to_string();
            if at > 0 && until.is_some_and(|until| Instant::now() >= until) {
                attempts.not_tried(name);
                continue;
            }
            let host_until = share(until, hosts.len() - at);
            let found = within(host_until, resolve(&address.host, port)).await;
            let found = found.unwrap_or_else(|| Err(late(&format!(" to {name}"), self.limit(until, host_until))));
            let ended = match found {
                Ok(found) => self.at_any(found, &address.host, &name, host_until, until, &mut attempts).await,
                Err(error) => {
                    attempts.failed(name, error);
                    None
                }
            };
            if let Some(ended) = ended {
                return ended;
            }
        }
        Err(attempts.into_error())
    }

    /// Tries each address of a host's name; `None` when the next host may do better. The host's share of the time ends at
    /// `host_until`, all of it at `until`.
    async fn at_any(
        &self,
        mut addresses: Vec<SocketAddr>,
        host: &str,
        name: &str,
        host_until: Instant,
        until: Option<Instant>,
        attempts: &mut Attempts,
    ) -> Option<Result<Connection>> {
        self.arrange(&mut addresses);
        for (at, address) in addresses.iter().enumerate() {
            let label = match address.to_string() {
                same if same == name => same,
                other => format!("{name} ({other})"),
            };
            let attempt_until = match self.config.attempt_timeout {
                // What one attempt leaves is the others', so those of a host are not held to its share.
                Some(limit) => earlier(Instant::now().checked_add(limit), until),
                None => share(Some(host_until), addresses.len() - at),
            };
            let limit = self.limit(until, attempt_until);
            match within(attempt_until, self.at(*address, host, &label)).await {
                Some(Ok(connection)) => {
                    tracing::debug!(server = %label, "connection open");
                    return Some(Ok(connection));
                }
                Some(Err(error)) if would_be_the_same_elsewhere(&error) => return Some(Err(error)),
                Some(Err(error)) => attempts.failed(label, error),
                None => attempts.failed(label, late(&format!(" to {name}"), limit)),
            }
        }
        None
    }

    /// How long somebody has who begins now, for the error that says so: all of the time, where it is the whole that ends.
    fn limit(&self, whole: Option<Instant>, until: Instant) -> Duration {
        match whole {
            Some(whole) if until >= whole => self.config.connect_timeout,
            _ => until.saturating_duration_since(Instant::now()),
        }
    }

    async fn at(&self, address: SocketAddr, host: &str, label: &str) -> Result<Connection> {
        let stream = connect(address)
            .await
            .map_err(|error| Error::with_source(ErrorKind::Handshake, format!("cannot connect to {label}"), error))?;
        self.over(stream, host).await
    }

    fn arrange<T>(&self, places: &mut [T]) {
        if self.config.order == HostOrder::Shuffled {
            fastrand::shuffle(places);
        }
    }

    /// Logs in over a stream to this host.
    #[cfg_attr(not(feature = "tls-core"), expect(unused_variables, reason = "only certificates have names"))]
    async fn over(&self, stream: Stream, host: &str) -> Result<Connection> {
        #[cfg(feature = "tls-core")]
        let stream = match &self.tls {
            Some(tls) => tls.connect(stream, host).await?,
            None => stream,
        };
        let nameless = self.config.virtual_host.is_empty();
        let shared = Shared::new(Machine::new(self.machine.clone(), now()));
        let (call_deadline, close_deadline) = (self.config.call_deadline, self.config.close_deadline);
        let guard = Arc::new(Guard { shared: shared.clone(), call_deadline, close_deadline });
        let connection = Connection::new(guard);
        let driver = drive(stream, Arc::clone(&shared));
        match self.refresh.clone() {
            None => drop(tokio::spawn(driver)),
            Some(refresh) => drop(tokio::spawn(async move {
                tokio::select! {
                    () = driver => {}
                    never = refresh.run(&shared) => match never {},
                }
            })),
        }
        let opened = Watcher::opened(&connection).await;
        opened.map_err(|error| if nameless { nameless_virtual_host(error) } else { error })?;
        let seconds = connection.tuning().heartbeat;
        if (1..HASTY).contains(&seconds) {
            tracing::warn!(
                seconds,
                "heartbeats are so close together that a busy server, or a busy program, looks dead"
            );
        }
        Ok(connection)
    }
}

/// Whether another host would not do better: it has the same users, and the same client asks.
fn would_be_the_same_elsewhere(error: &Error) -> bool {
    match error.kind() {
        // Somebody on that port speaks something else, or has another certificate.
        ErrorKind::Protocol | ErrorKind::Tls | ErrorKind::Unsupported => false,
        _ => !error.is_transient(),
    }
}

/// Few want a virtual host without a name, and the server's "vhost  not found" does not tell what happened.
fn nameless_virtual_host(error: Error) -> Error {
    match error.reply_code() {
        Some(ReplyCode::NOT_ALLOWED) => {
            let message = "the virtual host's name is empty, as in a URL that ends in / (the usual one is /%2f)";
            Error::because(error.kind(), message, &error)
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// Whatever this machine's names have, a name may have several addresses.
    #[tokio::test]
    async fn each_address_of_a_name_is_tried() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rude = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // A port that nobody listens at, and that nobody else is given.
        let nobody = TcpSocket::new_v4().unwrap();
        nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let dead = nobody.local_addr().unwrap();
        let addresses = vec![dead, silent.local_addr().unwrap(), rude.local_addr().unwrap()];

        let config = Config::new().attempt_timeout(Duration::from_secs(2));
        let login = Login {
            config: &config,
            machine: config.machine(Credentials::default(), &[]),
            refresh: None,
            #[cfg(feature = "tls-core")]
            tls: None,
        };
        let mut attempts = Attempts::default();
        let (name, until) = ("rabbit.example:5672", share(None, 1));
        let ended =
            tokio::join!(login.at_any(addresses.clone(), "rabbit.example", name, until, None, &mut attempts), async {
                drop(rude.accept().await.unwrap())
            },);
        assert!(ended.0.is_none(), "the next host may do better");
        let words = attempts.into_error().to_string();
        let places: Vec<usize> =
            addresses.iter().map(|address| words.find(&format!("{name} ({address}): ")).unwrap()).collect();
        assert!(places.is_sorted(), "{words}");
        let told: Vec<&str> = words.split("; ").collect();
        assert!(!words.contains("20000 ms"), "that is the time for all of them: {words}");
        for (told, word) in told.iter().zip(["refused", "no connection to rabbit.example:5672 within ", "closed"]) {
            assert!(told.contains(word), "{word:?} is not in {told:?}");
        }
    }
}
