//! The client: a server, a login, and a connection that is there when it is needed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::builder::ClientBuilder;
use super::config::{Config, Transport};
use super::deadline::by;
use super::events::{EventStream, Events};
use super::hook::{BoxError, Hook};
use super::outbox::Outbox;
use super::over_amqp::inbox::Origin;
use super::over_amqp::link::{Link, Setup};
#[cfg(feature = "kafka")]
use super::over_kafka;
use super::state::ClientState;
use super::{Source, receiver, requester, responder, sender};
use crate::amqp;
use crate::error::{Error, ErrorKind, Result};
#[cfg(feature = "kafka")]
use crate::kafka;
use crate::message::{CloseReport, EVER};

/// A server, who one is there, and one connection for everything that comes from this client.
///
/// A cheap handle: clones share the connection, from any task of any runtime ([outside of tokio](crate#behaviour) by `block_on`). The
/// connection is opened
/// ([`connect`](Self::connect)) or left for its first use ([`lazy`](ClientBuilder::lazy)). When it is lost, whoever waits on it is told what
/// became of his message, the next use connects again, and receivers [begin again](super#when-the-connection-is-lost); nothing hangs.
///
/// Who both sends much and receives should do so with two clients: a server that is short of memory or disk reads nothing more of a
/// connection on which a message has come, not even acks, and delivers nothing beyond the prefetch meanwhile.
///
/// ```
/// use leveret::messaging::{Client, Target};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = leveret::broker::Broker::start().await?;
/// # let url = &broker.url();
/// let client = Client::connect(url).await?;
/// # client.as_amqp().await?.open_channel().await?.queue_declare("orders").await?;
/// let receipt = client.sender().build()?.send(Target::queue("orders"), "one hare").await?;
/// println!("{:?}", receipt.status);
/// client.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[doc(alias = "build_client")]
#[doc(alias = "AMQPClient")]
#[doc(alias = "SendClient")]
#[doc(alias = "ReceiveClient")]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    backend: Backend,
    events: Arc<Events>,
    /// Whoever has something to report when the client is closed.
    senders: Mutex<Vec<Weak<Outbox>>>,
}

/// The transports. A new one has a variant here, in the senders' and in the receivers' enum of this name.
pub(super) enum Backend {
    Amqp(Arc<Link>),
    #[cfg(feature = "kafka")]
    Kafka(Arc<kafka::Link>),
}

impl Client {
    /// Connects to the server at a URL: `amqp://`, `amqps://`, of the form that [`amqp::Connection::open`] describes, or with the
    /// feature `kafka` to a cluster, `kafka://h1:9092,h2:9092`, as `KafkaConfig::from_url` describes.
    ///
    /// # Errors
    ///
    /// As [`amqp::Connection::open`]; `Unsupported` for a transport that this crate was built without.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes whatever has been opened.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::builder(url)?.connect().await
    }

    /// Begins with what a URL says.
    ///
    /// # Errors
    ///
    /// `InvalidUrl` says what is wrong with it, without repeating it; `Unsupported`.
    pub fn builder(url: &str) -> Result<ClientBuilder> {
        Config::from_url(url).map(ClientBuilder::from)
    }

    /// Begins with a [`Config`], or an [`amqp::Config`].
    pub fn from_config(config: impl Into<Config>) -> ClientBuilder {
        ClientBuilder::from(config.into())
    }

    pub(super) fn over_amqp(setup: Setup) -> Self {
        let events = Arc::new(Events::default());
        let config = Config::Amqp(setup.builder.config().clone());
        let backend = Backend::Amqp(Arc::new(Link::new(setup, Arc::clone(&events))));
        Self::new(config, backend, events)
    }

    pub(super) async fn over_stream(
        setup: Setup,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Self> {
        let events = Arc::new(Events::default());
        let config = Config::Amqp(setup.builder.config().clone());
        let connection = setup.clone().open(async |builder| builder.connect_with(stream).await).await?;
        let backend = Backend::Amqp(Arc::new(Link::with(connection, setup, Arc::clone(&events))));
        Ok(Self::new(config, backend, events))
    }

    #[cfg(feature = "kafka")]
    pub(super) fn over_kafka(config: kafka::KafkaConfig) -> Self {
        let events = Arc::new(Events::default());
        let link = over_kafka::link(config.clone(), &events);
        Self::new(Config::Kafka(config), Backend::Kafka(Arc::new(link)), events)
    }

    fn new(config: Config, backend: Backend, events: Arc<Events>) -> Self {
        Self { inner: Arc::new(Inner { config, backend, events, senders: Mutex::default() }) }
    }

    pub(super) fn backend(&self) -> &Backend {
        &self.inner.backend
    }

    /// The client is told of a sender, to close it when it is closed itself.
    pub(super) fn add_sender(&self, outbox: &Arc<Outbox>) {
        // Nothing panics under the lock.
        let mut senders = self.inner.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|other| other.strong_count() > 0);
        senders.push(Arc::downgrade(outbox));
    }

    /// Begins a sender: one's own channel, defaults, window and deadline.
    #[doc(alias = "publish")]
    #[doc(alias = "build_producer")]
    pub fn sender(&self) -> sender::SenderBuilder {
        sender::SenderBuilder::new(self.clone())
    }

    /// Begins a receiver of what a queue or some topics deliver.
    #[doc(alias = "subscribe")]
    #[doc(alias = "consume")]
    #[doc(alias = "basic_consume")]
    pub fn receiver(&self, source: impl Into<Source>) -> receiver::ReceiverBuilder {
        receiver::ReceiverBuilder::new(self.clone(), Origin::Fixed(source.into()))
    }

    /// Begins a receiver whose source is made each time that it begins, on the channel of its first consumer: when it is
    /// built, and when it begins again after its connection was lost. For queues that go with their connection, and may have another
    /// name the next time. AMQP only.
    ///
    /// ```
    /// use leveret::messaging::{Client, Source};
    ///
    /// # async fn example(client: Client) -> leveret::error::Result<()> {
    /// let mut receiver = client
    ///     .receiver_from(|channel| async move {
    ///         let queue = channel.queue_declare("").exclusive(true).await?; // RabbitMQ gives it a name
    ///         channel.queue_bind(queue.name(), "news", "").await?;
    ///         Ok(Source::queue(queue.name()))
    ///     })
    ///     .build()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It has as long as connecting has. When it fails, so does [`build`](receiver::ReceiverBuilder::build), with an error that says so and has
    /// the kind and the reply code of what went wrong, or is a `Handshake` for an error of the program's own; whether the receiver
    /// tries again when it was to begin anew goes by that, too.
    pub fn receiver_from<F, Fut>(&self, make: F) -> receiver::ReceiverBuilder
    where
        F: Fn(amqp::Channel) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Source, BoxError>> + Send + 'static,
    {
        receiver::ReceiverBuilder::new(self.clone(), Origin::Made(Hook::new("receiver_from", make)))
    }

    /// Begins a requester: somebody who sends requests and waits for their replies. AMQP only.
    #[doc(alias = "rpc")]
    #[doc(alias = "mgmt_request")]
    #[doc(alias = "request")]
    pub fn requester(&self) -> requester::RequesterBuilder {
        requester::RequesterBuilder::new(self.clone())
    }

    /// Begins a responder: somebody who answers the requests that come to a queue. AMQP only.
    #[doc(alias = "reply")]
    #[doc(alias = "serve")]
    pub fn responder(&self, source: impl Into<Source>) -> responder::Responder {
        responder::Responder::new(self.clone(), source.into())
    }

    /// Connects, unless it is connected.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect); `Closed`.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe; connecting goes on.
    #[doc(alias = "open")]
    #[doc(alias = "client_ready")]
    pub async fn ready(&self) -> Result<()> {
        match self.backend() {
            Backend::Amqp(link) => link.connection().await.map(drop),
            #[cfg(feature = "kafka")]
            Backend::Kafka(link) => over_kafka::ready(link, &self.inner.events).await,
        }
    }

    /// Asks the server for something small, and says how long the answer took: a channel is opened and closed; on Kafka the
    /// cluster's metadata are fetched. Connects where that is necessary, in the same time.
    ///
    /// # Errors
    ///
    /// `Timeout`; whatever keeps it from connecting.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn ping(&self, timeout: Duration) -> Result<Duration> {
        let ping = async {
            match self.backend() {
                Backend::Amqp(link) => link.ping().await,
                #[cfg(feature = "kafka")]
                Backend::Kafka(link) => over_kafka::ping(link, timeout).await,
            }
        };
        by(self.timers().as_ref(), Instant::now() + timeout.min(EVER), ping).await.unwrap_or_else(|| {
            Err(Error::new(ErrorKind::Timeout, format!("no answer within {} ms", timeout.as_millis())))
        })
    }

    /// Who keeps the time for one who is outside of any runtime.
    pub(super) fn timers(&self) -> Option<Handle> {
        match self.backend() {
            Backend::Amqp(link) => link.timers(),
            #[cfg(feature = "kafka")]
            Backend::Kafka(_) => None,
        }
    }

    /// How the client is at the moment.
    #[doc(alias = "is_open")]
    pub fn state(&self) -> ClientState {
        match self.backend() {
            Backend::Amqp(link) => link.state(),
            #[cfg(feature = "kafka")]
            Backend::Kafka(link) => over_kafka::state(link),
        }
    }

    /// What happens from now on.
    #[doc(alias = "on_error")]
    pub fn events(&self) -> EventStream {
        self.inner.events.subscribe()
    }

    /// What it connects to, and how.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// What carries the messages.
    pub fn transport(&self) -> Transport {
        self.inner.config.transport()
    }

    /// The connection in AMQP's own words, to declare queues, to bind, to purge, for transactions. Connects where that is necessary.
    /// Keep it no longer than needed: the client may have another one when this is lost.
    ///
    /// # Errors
    ///
    /// `Unsupported` on another transport; whatever keeps it from connecting.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn as_amqp(&self) -> Result<amqp::Connection> {
        match self.backend() {
            Backend::Amqp(link) => link.connection().await,
            #[cfg(feature = "kafka")]
            Backend::Kafka(_) => over_kafka::unsupported("AMQP connection"),
        }
    }

    /// Replaces the secret of a login that is about to expire (`connection.update-secret`, RabbitMQ), on the connection that is there.
    ///
    /// The next connection logs in as the settings say. For secrets that come from somewhere again and again, and are to be had for the
    /// next connection as well, [`ClientBuilder::amqp`] takes a [`CredentialsProvider`](amqp::CredentialsProvider).
    ///
    /// # Errors
    ///
    /// `Unsupported` on another transport; the server closes the connection with 530 when it refuses.
    ///
    /// # Cancel safety
    ///
    /// The request is sent even when the future is dropped.
    pub async fn update_secret(&self, secret: &str, reason: &str) -> Result<()> {
        self.as_amqp().await?.update_secret(secret, reason).await
    }

    /// Closes the connection for the time being, after everything that was sent has been confirmed: the next use opens it again. For
    /// times when memory or sockets are short. It stays open as long as there are receivers, or requests that wait for their replies;
    /// whoever uses it in AMQP's own words ([`as_amqp`](Self::as_amqp)) is not asked. Says whether it is closed.
    ///
    /// # Errors
    ///
    /// `Timeout`: there is still something on its way after [`close_deadline`](ClientBuilder::close_deadline), and the connection stays
    /// open.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the connection is closed or not.
    #[doc(alias = "shrink")]
    pub async fn close_idle(&self) -> Result<bool> {
        let until = Instant::now() + self.close_deadline().min(EVER);
        for outbox in self.senders() {
            outbox.settled(until).await?;
        }
        match self.backend() {
            Backend::Amqp(link) => link.disconnect().await,
            #[cfg(feature = "kafka")]
            Backend::Kafka(link) => {
                self.senders().iter().for_each(|outbox| outbox.rest());
                link.rest();
                Ok(true)
            }
        }
    }

    /// Closes the client for good, within [`close_deadline`](ClientBuilder::close_deadline): see [`close_within`](Self::close_within).
    ///
    /// # Cancel safety
    ///
    /// As [`close_within`](Self::close_within).
    pub async fn close(&self) -> CloseReport {
        self.close_within(self.close_deadline()).await
    }

    /// Takes no more messages, waits until those on their way are confirmed, and closes the connection: receivers end, and
    /// whoever still waits is told. What was not confirmed in time is handed back in the report. Closing twice is fine, and the
    /// second report is empty.
    ///
    /// It takes at most `deadline`, and two seconds more where the server does not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves the client as far closed as it is by then; closing again goes on.
    pub async fn close_within(&self, deadline: Duration) -> CloseReport {
        let until = Instant::now() + deadline.min(EVER);
        let mut report = CloseReport::default();
        let senders = self.senders();
        senders.iter().for_each(|outbox| outbox.stop());
        for outbox in senders {
            report.append(outbox.close(until).await);
        }
        match self.backend() {
            Backend::Amqp(link) => report.error = link.close(until).await.err(),
            #[cfg(feature = "kafka")]
            Backend::Kafka(link) => {
                let (was_open, gone) = link.close(until.max(Instant::now() + Duration::from_secs(1))).await;
                if was_open {
                    self.inner.events.tell(&super::Event::Closed);
                }
                if !gone {
                    let message = "a receiver has not left its group in time; what it had accepted may come again";
                    report.error = Some(Error::new(ErrorKind::Timeout, message));
                }
            }
        }
        report
    }

    fn close_deadline(&self) -> Duration {
        match &self.inner.config {
            Config::Amqp(config) => config.close_deadline,
            #[cfg(feature = "kafka")]
            Config::Kafka(config) => config.close_deadline,
        }
    }

    fn senders(&self) -> Vec<Arc<Outbox>> {
        let senders = self.inner.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.iter().filter_map(Weak::upgrade).collect()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.inner.config).field("state", &self.state()).finish()
    }
}
