//! Opening, watching and closing a connection.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::runtime::Handle;

#[cfg(feature = "tls-core")]
use super::TlsConfig;
use super::call::within;
use super::channel::Channel;
use super::shared::{Guard, Shared};
use super::url;
use super::{Credentials, FieldTable, FieldValue, ReplyCode, SaslMechanism, ServerInfo, ShortString, Tuning};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::client::{Config, Connection as Machine};
use crate::transport::{Address, Stream, dial, drive, now};

/// A connection to a server.
///
/// A cheap handle: clones share the connection. It lives as long as any handle that came from it, and closes in the
/// background when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    guard: Arc<Guard>,
}

impl Connection {
    /// Connects to the server at an `amqp://` or `amqps://` URL, with the defaults of [`ConnectionBuilder`].
    ///
    /// # Errors
    ///
    /// `InvalidUrl`; `Handshake` when nobody listens or the handshake breaks off; `Auth` when the login is refused;
    /// `ConnectionClosed` with code 530 for an unknown virtual host; `Tls` for trouble with certificates, or where one side speaks TLS
    /// and the other does not; `Timeout`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes whatever has been opened.
    pub async fn open(url: &str) -> Result<Self> {
        Self::builder(url)?.open().await
    }

    /// Begins with the settings of an `amqp://` or `amqps://` URL.
    ///
    /// # Errors
    ///
    /// `InvalidUrl` says what is wrong with it, without repeating it; `Unsupported` for `amqps://` where this crate was built without
    /// TLS.
    pub fn builder(url: &str) -> Result<ConnectionBuilder> {
        let url::Parsed { address, config, connect_timeout, tls } = url::parse(url)?;
        let mut builder = ConnectionBuilder { address, config, ..ConnectionBuilder::default() };
        if tls {
            builder = builder.with_tls()?;
        }
        if let Some(timeout) = connect_timeout {
            builder.connect_timeout = timeout;
        }
        Ok(builder)
    }

    /// Opens a channel (`channel.open`).
    ///
    /// # Errors
    ///
    /// `LimitReached` when as many are open as was agreed with the server; whatever has ended the connection.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the channel.
    pub async fn open_channel(&self) -> Result<Channel> {
        Channel::open(&self.guard).await
    }

    /// Closes the connection (`connection.close`, code 200) after what was published before, and waits until the server
    /// agrees. What is still waited for on it ends with errors of the kind `Closed`. Closing twice is fine.
    ///
    /// # Errors
    ///
    /// `Timeout` when the server does not answer within [`ConnectionBuilder::close_deadline`], as a blocked one does not: the
    /// socket is closed then. Whatever has ended the connection before.
    ///
    /// # Cancel safety
    ///
    /// The connection closes even when the future is dropped.
    pub async fn close(&self) -> Result<()> {
        self.close_with(ReplyCode::REPLY_SUCCESS, "").await
    }

    /// Closes the connection with a code and a text for the server's log. Otherwise as [`close`](Self::close).
    ///
    /// # Errors
    ///
    /// As [`close`](Self::close); `InvalidArgument` for a text of more than 255 octets.
    pub async fn close_with(&self, code: ReplyCode, text: &str) -> Result<()> {
        let limit = self.guard.close_deadline;
        self.guard.shared.with(|machine| machine.close(code, text, now(), limit))?;
        self.closed().await
    }

    /// Waits for the end of the connection, whoever brings it about: `Ok` when this side closed it, otherwise the reason.
    ///
    /// # Errors
    ///
    /// Whatever has ended the connection.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn closed(&self) -> Result<()> {
        let mut watcher = Watcher { guard: &self.guard, place: None };
        poll_fn(|cx| self.guard.shared.with(|machine| machine.poll_ended(&mut watcher.place, cx.waker()))).await
    }

    /// Whether the connection can be used.
    pub fn is_open(&self) -> bool {
        self.guard.shared.look(|machine| machine.end().is_none())
    }

    /// Why the server takes no messages at the moment (`connection.blocked`), if so.
    pub fn blocked(&self) -> Option<String> {
        self.guard.shared.look(|machine| machine.blocked().map(str::to_owned))
    }

    /// What the server told of itself: product, version, capabilities.
    pub fn server(&self) -> ServerInfo {
        self.guard.shared.look(|machine| machine.server().clone())
    }

    /// The limits that were agreed on.
    pub fn tuning(&self) -> Tuning {
        self.guard.shared.look(Machine::tuning)
    }

    /// Replaces the secret of a login that is about to expire (`connection.update-secret`, RabbitMQ).
    ///
    /// # Errors
    ///
    /// The server closes the connection with 530 when it refuses; `Timeout`.
    ///
    /// # Cancel safety
    ///
    /// The request is sent even when the future is dropped.
    pub async fn update_secret(&self, secret: &str, reason: &str) -> Result<()> {
        let shared = &self.guard.shared;
        let id = shared.with(|machine| machine.update_secret(secret, reason))?;
        let poll = |waker: &Waker| shared.with(|machine| machine.poll_connection_call(id, waker));
        let abandon = || shared.with(|machine| machine.abandon_connection_call(id));
        within(&self.guard, "connection.update-secret", None, poll, abandon).await.map(drop)
    }
}

/// Somebody who waits for the connection to open or to end.
struct Watcher<'a> {
    guard: &'a Guard,
    place: Option<crate::protocol::client::Place>,
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.guard.shared.with(|machine| machine.unwatch(place));
        }
    }
}

/// How to connect. Begins with a URL or with [`default`](Self::default); everything can be changed.
///
/// | setting | default |
/// |---|---|
/// | host, port, virtual host | `localhost`, 5672 (`amqps://`: 5671), `/` |
/// | TLS | none; with an `amqps://` URL by `TlsConfig`'s defaults |
/// | credentials | `guest` / `guest` |
/// | mechanisms | PLAIN, then AMQPLAIN |
/// | heartbeat | 60 s |
/// | frame_max | 131072 octets |
/// | channel_max | 2047 |
/// | connect timeout | 20 s for everything up to `connection.open-ok` |
/// | call deadline | 20 s |
/// | close deadline | 10 s |
/// | largest message accepted | 128 MiB |
/// | buffered deliveries | 16 MiB |
/// | unwritten publishes | 256 KiB |
#[derive(Clone, Debug)]
pub struct ConnectionBuilder {
    address: Address,
    config: Config,
    connect_timeout: Duration,
    call_deadline: Duration,
    close_deadline: Duration,
    runtime: Option<Handle>,
    #[cfg(feature = "tls-core")]
    tls: Option<TlsConfig>,
}

impl Default for ConnectionBuilder {
    fn default() -> Self {
        Self {
            address: Address { host: "localhost".into(), port: 5672 },
            config: Config::default(),
            connect_timeout: Duration::from_secs(20),
            call_deadline: Duration::from_secs(20),
            close_deadline: Duration::from_secs(10),
            runtime: None,
            #[cfg(feature = "tls-core")]
            tls: None,
        }
    }
}

impl ConnectionBuilder {
    /// A host name or an IP address, without brackets.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.address.host = host.into();
        self
    }

    /// The port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.address.port = port;
        self
    }

    /// Speaks TLS, as this says. With an `amqps://` URL that is so already, by [`TlsConfig`]'s defaults. The port stays what it is:
    /// 5672, unless the URL or [`port`](Self::port) say otherwise.
    #[cfg(feature = "tls-core")]
    #[must_use]
    pub fn tls(mut self, config: TlsConfig) -> Self {
        self.tls = Some(config);
        self
    }

    #[cfg(feature = "tls-core")]
    #[expect(clippy::unnecessary_wraps, reason = "without the feature it is an error")]
    fn with_tls(self) -> Result<Self> {
        Ok(self.tls(TlsConfig::default()))
    }

    #[cfg(not(feature = "tls-core"))]
    #[expect(clippy::unused_self, reason = "with the feature it is used")]
    fn with_tls(self) -> Result<Self> {
        let message = "amqps:// needs TLS, and leveret was built without it: switch on its feature tls (it is a default one), \
                       tls-ring or tls-aws-lc-rs";
        Err(Error::new(ErrorKind::Unsupported, message))
    }

    /// Who logs in.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.config.credentials = credentials;
        self
    }

    /// How to log in, in the order of preference.
    #[must_use]
    pub fn mechanisms(mut self, mechanisms: impl IntoIterator<Item = SaslMechanism>) -> Self {
        self.config.mechanisms = mechanisms.into_iter().collect();
        self
    }

    /// The virtual host.
    #[must_use]
    pub fn virtual_host(mut self, name: impl Into<ShortString>) -> Self {
        self.config.virtual_host = name.into();
        self
    }

    /// The connection's name in the server's management pages.
    #[must_use]
    pub fn connection_name(self, name: impl Into<String>) -> Self {
        self.client_property("connection_name", name.into())
    }

    /// Something else to tell the server of this client.
    #[must_use]
    pub fn client_property(mut self, name: impl Into<ShortString>, value: impl Into<FieldValue>) -> Self {
        self.config.client_properties.insert(name, value);
        self
    }

    /// All that the server is told of this client, in place of what was said so far. Product, version, platform and
    /// capabilities are added where they are missing.
    #[must_use]
    pub fn client_properties(mut self, properties: FieldTable) -> Self {
        self.config.client_properties = properties;
        self
    }

    /// Heartbeat interval in whole seconds, 0 for none. If the server proposes a lower one, that holds. Under 5 s a busy
    /// machine is easily taken for a dead one.
    #[must_use]
    pub fn heartbeat(mut self, seconds: u16) -> Self {
        self.config.heartbeat = seconds;
        self
    }

    /// Largest frame in octets, 0 for as large as the server allows. RabbitMQ 4.1 and later refuse less than 8192.
    #[must_use]
    pub fn frame_max(mut self, octets: u32) -> Self {
        self.config.frame_max = octets;
        self
    }

    /// How many channels may be open, 0 for as many as the server allows.
    #[must_use]
    pub fn channel_max(mut self, channels: u16) -> Self {
        self.config.channel_max = channels;
        self
    }

    /// How long connecting may take, from the name's resolution to `connection.open-ok`.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long requests wait for their replies, and publishes for room, unless they say otherwise.
    #[must_use]
    pub fn call_deadline(mut self, limit: Duration) -> Self {
        self.call_deadline = limit;
        self
    }

    /// How long closing may wait for the server before the socket is simply closed.
    #[must_use]
    pub fn close_deadline(mut self, limit: Duration) -> Self {
        self.close_deadline = limit;
        self
    }

    /// The largest message accepted from the server, in octets. A larger one ends the connection.
    #[must_use]
    pub fn max_message_size(mut self, octets: u64) -> Self {
        self.config.max_message_size = octets;
        self
    }

    /// How many octets of deliveries may wait for their consumers. Beyond it the socket is not read until they catch up.
    #[must_use]
    pub fn max_buffered(mut self, octets: usize) -> Self {
        self.config.max_buffered = octets;
        self
    }

    /// How many octets may wait to be written before publishing waits. Acks and requests never do.
    #[must_use]
    pub fn max_unwritten(mut self, octets: usize) -> Self {
        self.config.max_unwritten = octets;
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

    /// Connects over a stream that is there already; where TLS is wanted, it is done inside of that stream.
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

    async fn open_over(self, stream: Option<Stream>) -> Result<Connection> {
        if self.config.frame_max != 0 && self.config.frame_max < 4096 {
            return Err(Error::new(ErrorKind::InvalidArgument, "frame_max is 4096 octets at least, or 0"));
        }
        let (limit, runtime) = (self.connect_timeout, self.runtime.clone());
        let whom = if stream.is_none() { format!(" to {}", self.address) } else { String::new() };
        let connect = async move {
            match tokio::time::timeout(limit, self.handshake(stream)).await {
                Ok(connected) => connected,
                Err(_) => {
                    let message = format!("no connection{whom} within {} ms", limit.as_millis());
                    Err(Error::new(ErrorKind::Timeout, message))
                }
            }
        };
        match runtime {
            None => connect.await,
            Some(runtime) => runtime.spawn(connect).await.unwrap_or_else(|error| {
                Err(Error::with_source(
                    ErrorKind::Closed,
                    "the runtime that was to hold the connection has ended",
                    error,
                ))
            }),
        }
    }

    /// Runs on the runtime that the driver is to live on.
    async fn handshake(self, stream: Option<Stream>) -> Result<Connection> {
        let Self { address, config, call_deadline, close_deadline, .. } = self;
        #[cfg(feature = "tls-core")]
        let tls = self.tls;
        // Files that cannot be used are noticed before anybody is called.
        #[cfg(feature = "tls-core")]
        let tls = match tls {
            Some(tls) => Some(tls.prepare(&address.host).await?),
            None => None,
        };
        let stream = match stream {
            Some(stream) => stream,
            None => dial(&address).await?,
        };
        #[cfg(feature = "tls-core")]
        let stream = match tls {
            Some(tls) => tls.connect(stream).await?,
            None => stream,
        };
        let nameless = config.virtual_host.is_empty();
        let shared = Shared::new(Machine::new(config, now()));
        let guard = Arc::new(Guard { shared: shared.clone(), call_deadline, close_deadline });
        let connection = Connection { guard };
        tokio::spawn(drive(stream, shared));
        let mut watcher = Watcher { guard: &connection.guard, place: None };
        let opened =
            poll_fn(|cx| watcher.guard.shared.with(|machine| machine.poll_open(&mut watcher.place, cx.waker())));
        opened.await.map_err(|error| if nameless { nameless_virtual_host(error) } else { error })?;
        drop(watcher);
        tracing::debug!(server = %address, "connection open");
        Ok(connection)
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
