//! An AMQP 0-9-1 server in memory, **for tests and first steps, not a product to run in production**.
//!
//! [`Broker::start`] listens on a loopback port; [`Broker::connect`] gives a pipe to it without any socket. It behaves as
//! RabbitMQ does, its reply texts included, and keeps nothing: when the last handle is dropped, everything is gone. It also runs by
//! itself, for clients in other languages: `leveret broker`, with the feature `command`.
//!
//! ```
//! # async fn run() -> std::io::Result<()> {
//! let broker = leveret::broker::Broker::start().await?;
//! println!("connect to {}", broker.url());
//! broker.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Queues act on `x-message-ttl`, `x-expires`, `x-max-length`, `x-max-length-bytes`, `x-overflow`, `x-max-priority`,
//! `x-single-active-consumer`, `x-dead-letter-exchange` and `x-dead-letter-routing-key` (with `x-death` as RabbitMQ writes it), exchanges
//! on `alternate-exchange`, and publishing on the headers `CC` and `BCC`. All queues are classic ones, whatever `x-queue-type` says;
//! other arguments that RabbitMQ knows (`x-delivery-limit`, ...) are compared and otherwise of no effect. There is no TLS (a proxy of the
//! test's can have it), no management and no plugin.
//!
//! # Doing wrong
//!
//! Beyond serving, it misbehaves on demand, so that a client's answer to it can be tested. All connections at once do what the handle
//! says: see [`block`](Broker::block), [`hold_confirms`](Broker::hold_confirms), [`nack_publishes`](Broker::nack_publishes),
//! [`set_flow`](Broker::set_flow), [`close_connections`](Broker::close_connections) and
//! [`drop_connections`](Broker::drop_connections).
//!
//! What is to happen on one connection, and at which octet, frame or message of it, is a [`Script`], handed over with
//! [`Broker::script`]: cuts and stalls, closes with any code, octets of one's own, cancelled consumers, messages that are refused or returned,
//! confirms that are lost, late or in disorder. [`Script::seeded`] makes one out of a number: a test that plays many finds what nobody has
//! thought of, and prints the seed, with which it is played again.
//!
//! ```
//! use leveret::amqp::{Confirmation, Connection};
//! use leveret::broker::Broker;
//! use leveret::error::Outcome;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = Broker::start().await?;
//! broker.script(["published 1: nack; published 2: cut".parse()?]);
//!
//! let connection = Connection::open(&broker.url()).await?;
//! let channel = connection.open_channel().await?;
//! channel.queue_declare("orders").await?;
//! channel.confirm_select().await?;
//! let refused = channel.basic_publish("", "orders", "one hare").await?.await?;
//! assert!(matches!(refused, Confirmation::Nack(_)));
//! // The broker has taken the second one, but nobody has heard of it.
//! let lost = channel.basic_publish("", "orders", "another").await?.await.unwrap_err();
//! assert_eq!(lost.outcome(), Outcome::Unknown);
//! # Ok(())
//! # }
//! ```
//!
//! # Inside
//!
//! Everything the broker knows stands behind one lock. Each client has a machine
//! ([`protocol::server`](crate::protocol::server)) and a driver task; a turn of the driver takes the lock once, acts on what
//! came, and leaves what others are to be told in their machines' buffers. A script under way stands between the driver's buffers and the
//! machine, where it lets octets pass up to the next moment.

mod builder;
mod channel;
mod client;
mod death;
mod faults;
#[cfg(feature = "arbitrary")]
#[doc(hidden)]
pub mod fuzzing;
mod link;
mod message;
mod methods;
mod names;
mod play;
mod queue;
mod routing;
mod rules;
mod script;
mod settings;
mod state;

pub use builder::Builder;
pub use script::{Act, ConfirmOrder, Moment, Script, ScriptError};

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::codec::ReplyCode;
use crate::transport::{Stream, drive, now};
use link::{Link, Shared};

/// Names a client's connection inside the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct ConnectionId(u64);

/// A channel of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    connection: ConnectionId,
    channel: u16,
}

/// How long [`Broker::shutdown`] waits for clients to say goodbye.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long the listener rests when the system has no more sockets.
const REST: Duration = Duration::from_millis(10);

/// A running broker. Dropping it stops the listener and cuts every connection.
pub struct Broker {
    shared: Arc<Shared>,
    address: SocketAddr,
    url: String,
    listener: AbortHandle,
    runtime: Handle,
}

impl Broker {
    /// Starts a broker on a free loopback port, with user and password `guest` and the virtual host `/`.
    ///
    /// # Errors
    ///
    /// The system gives no port.
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// Settings for a broker.
    pub fn builder() -> Builder {
        Builder::new()
    }

    fn run(settings: settings::Settings, listener: TcpListener) -> io::Result<Self> {
        let (address, runtime) = (listener.local_addr()?, Handle::current());
        let url = settings.url(address);
        let shared = Arc::new(Shared::new(state::State::new(settings, now())));
        let listener = runtime.spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { shared, address, url, listener, runtime })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A URL with the first user, the password and a virtual host: `amqp://guest:guest@127.0.0.1:PORT/%2f`.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// A connection to the broker through a pipe in memory. The client speaks first, as on a socket.
    pub fn connect(&self) -> Stream {
        let (ours, theirs) = Stream::pipe();
        if let Some(link) = admit(&self.shared) {
            self.runtime.spawn(drive(ours, Arc::new(link)));
        }
        theirs
    }

    /// What is to go wrong on the next connections: each gets one of these scripts, in the order in which they are accepted, and later
    /// ones none (or [that of the builder](Builder::script)). Scripts that were given before and have found no connection yet come first.
    ///
    /// A connection through [`connect`](Self::connect) is accepted when that is called, one through a socket soon after it is
    /// established. All scripts are kept until they are needed, so they must come to an end.
    ///
    /// ```
    /// # use leveret::broker::{Broker, Script};
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let broker = Broker::start().await?;
    /// // The first connection is lost before anything is confirmed, the second refuses a message; all others are served.
    /// broker.script(["published 1: cut".parse()?, "published 2: nack".parse::<Script>()?]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn script(&self, scripts: impl IntoIterator<Item = Script>) {
        let scripts = Vec::from_iter(scripts);
        self.shared.with(|state| state.add_scripts(scripts));
    }

    /// From now on the broker is short of something: messages are not read, and clients that announced the capability are
    /// told with `connection.blocked`.
    ///
    /// As with RabbitMQ, nothing at all is read from a client behind its first message, not even acknowledgements or a
    /// close. Other than RabbitMQ, all clients are told at once and not only those that publish; one that connects later is
    /// told when it publishes.
    pub fn block(&self, reason: &str) {
        self.shared.with(|state| state.block(reason));
    }

    /// The shortage is over: `connection.unblocked` to those who were told, and everything is read.
    pub fn unblock(&self) {
        self.shared.with(state::State::unblock);
    }

    /// Holds publisher confirms back, or lets them go: what has gathered is then sent as one confirm per channel.
    pub fn hold_confirms(&self, hold: bool) {
        self.shared.with(|state| state.hold_confirms(hold));
    }

    /// Takes no responsibility for what is published from now on, or does again: it reaches no queue, is not returned, and is answered
    /// with `basic.nack` on channels with confirms. What is published in a transaction is left alone.
    pub fn nack_publishes(&self, nack: bool) {
        self.shared.with(|state| state.nack_publishes(nack));
    }

    /// Asks all channels that are open to stop sending messages, or to go on (`channel.flow`).
    pub fn set_flow(&self, active: bool) {
        self.shared.with(|state| state.set_flow(active));
    }

    /// Closes every connection in words, with this code and text.
    pub fn close_connections(&self, code: u16, text: &str) {
        self.shared.with(|state| state.close_all(ReplyCode(code), text, now()));
    }

    /// Closes every connection's socket without a word.
    #[doc(alias = "cut")]
    pub fn drop_connections(&self) {
        self.shared.with(|state| state.cut_all(now()));
    }

    /// Closes every connection with 320 and stops listening. Clients have two seconds to say goodbye.
    ///
    /// Cancel-safe: once it has begun, nobody new is let in.
    pub async fn shutdown(&self) {
        self.shared.with(|state| {
            state.stop();
            let text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";
            state.close_all(ReplyCode::CONNECTION_FORCED, text, now());
        });
        let everybody_left = async {
            loop {
                let gone = self.shared.gone.notified();
                tokio::pin!(gone);
                gone.as_mut().enable();
                if self.shared.lock().clients.is_empty() {
                    return;
                }
                gone.await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL, everybody_left).await;
        self.listener.abort();
        self.shared.with(|state| state.cut_all(now()));
    }
}

impl std::fmt::Debug for Broker {
    /// Without the URL, which has a password in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.listener.abort();
        self.shared.with(|state| {
            state.stop();
            state.cut_all(now());
        });
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                if let (Ok(stream), Some(link)) = (Stream::tcp(socket), admit(&shared)) {
                    tokio::spawn(drive(stream, Arc::new(link)));
                }
            }
            // The peer is gone already, or there are no more sockets: others may do better later.
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

fn admit(shared: &Arc<Shared>) -> Option<Link> {
    let id = shared.lock().admit(now())?;
    Some(Link::new(Arc::clone(shared), id))
}
