//! Credentials that expire: asked for before each connect, and replaced on an open connection before their time is up.

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::Credentials;
use super::call::within;
use super::shared::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::client::SaslError;

/// The shortest time between two requests for new credentials, and the first pause after one that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Pauses double up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Where credentials come from that do not last, such as the tokens of an OAuth 2 server.
///
/// It is asked before each connect. If what it gives expires, it is asked again on the open connection when four fifths of that
/// time have passed, and the server is given the new secret (`connection.update-secret`). When that fails it is tried again
/// after one second, then two, up to thirty, until it succeeds or the connection ends: the server closes it when the old
/// secret has expired.
///
/// All of this happens in the connection's own task, on its runtime: a provider must not block, and one that panics ends the
/// connection.
///
/// A function that returns a future is one, too:
///
/// ```no_run
/// use std::time::Duration;
/// use leveret::amqp::{Connection, Credentials, ExpiringCredentials};
///
/// # async fn ask_the_token_server() -> std::io::Result<String> { Ok(String::new()) }
/// # async fn example() -> leveret::error::Result<()> {
/// let tokens = || async {
///     let token = ask_the_token_server().await?;
///     let credentials = Credentials::new("", token);
///     Ok::<_, std::io::Error>(ExpiringCredentials::new(credentials).valid_for(Duration::from_secs(300)))
/// };
/// let connection = Connection::builder("amqp://broker.example/%2f")?.credentials_provider(tokens).open().await?;
/// # Ok(())
/// # }
/// ```
pub trait CredentialsProvider: Send + Sync + 'static {
    /// Credentials that are good now. Of those that come while the connection is open only the secret is used.
    ///
    /// An error is shown as the cause of one of this library's, and logged: it should not hold the secret.
    ///
    /// Cancelled when it takes longer than the connect timeout, or on an open connection longer than the call deadline.
    fn provide(&self) -> Pin<Box<dyn Future<Output = Result<ExpiringCredentials, SaslError>> + Send + '_>>;
}

impl<F, Provided, E> CredentialsProvider for F
where
    F: Fn() -> Provided + Send + Sync + 'static,
    Provided: Future<Output = Result<ExpiringCredentials, E>> + Send + 'static,
    E: Into<SaslError> + 'static,
{
    fn provide(&self) -> Pin<Box<dyn Future<Output = Result<ExpiringCredentials, SaslError>> + Send + '_>> {
        let provided = self();
        Box::pin(async move { provided.await.map_err(Into::into) })
    }
}

/// Credentials, and how long they are good.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExpiringCredentials {
    credentials: Credentials,
    valid_for: Option<Duration>,
}

impl ExpiringCredentials {
    /// Credentials that last.
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials, valid_for: None }
    }

    /// How long they are good from now on.
    #[must_use]
    pub fn valid_for(mut self, time: Duration) -> Self {
        self.valid_for = Some(time);
        self
    }
}

/// The provider of one builder, and of the connections that come from it.
#[derive(Clone)]
pub(crate) struct Source(Arc<dyn CredentialsProvider>);

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialsProvider")
    }
}

impl Source {
    pub(crate) fn new(provider: impl CredentialsProvider) -> Self {
        Self(Arc::new(provider))
    }

    /// Asks for credentials, to connect with, or to replace those that expire.
    async fn ask(&self, limit: Duration) -> Result<ExpiringCredentials> {
        match tokio::time::timeout(limit, self.0.provide()).await {
            Ok(Ok(provided)) => Ok(provided),
            Ok(Err(error)) => Err(Error::with_boxed(ErrorKind::Handshake, "the provider gave no credentials", error)),
            Err(_) => {
                let message = format!("the provider gave no credentials within {} ms", limit.as_millis());
                Err(Error::new(ErrorKind::Timeout, message))
            }
        }
    }

    /// The credentials for a new connection, and what will keep them fresh.
    pub(crate) async fn begin(self, connect: Duration, call: Duration) -> Result<(Credentials, Refresh)> {
        let ExpiringCredentials { credentials, valid_for } = self.ask(connect).await?;
        Ok((credentials, Refresh { source: self, due: due(valid_for), limit: call }))
    }
}

/// When to ask for the successor of what is good for this long, if ever.
fn due(valid_for: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add((valid_for? / 5 * 4).max(PAUSE))
}

/// Keeps the secret of one connection fresh.
#[derive(Clone, Debug)]
pub(crate) struct Refresh {
    source: Source,
    due: Option<Instant>,
    limit: Duration,
}

impl Refresh {
    /// Runs beside the driver, in its task, and ends only with it.
    pub(crate) async fn run(self, shared: &Shared) -> Infallible {
        let Self { source, due: mut next, limit } = self;
        loop {
            let Some(at) = next else { return pending().await };
            tokio::time::sleep_until(at).await;
            let mut pause = PAUSE;
            let valid_for = loop {
                match renew(&source, shared, limit).await {
                    Ok(valid_for) => break valid_for,
                    Err(error) => {
                        tracing::warn!(%error, "the connection's secret was not replaced; trying again");
                        // Many clients of one token server do not come back all at once.
                        tokio::time::sleep(pause.mul_f64(1.0 + fastrand::f64() / 4.0)).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            };
            tracing::debug!("the connection's secret was replaced");
            next = due(valid_for);
        }
    }
}

async fn renew(source: &Source, shared: &Shared, limit: Duration) -> Result<Option<Duration>> {
    let fresh = source.ask(limit).await?;
    update_secret(shared, fresh.credentials.secret(), "the old one is about to expire", limit).await?;
    Ok(fresh.valid_for)
}

/// `connection.update-secret`, and the wait for its answer.
pub(crate) async fn update_secret(shared: &Shared, secret: &str, reason: &str, limit: Duration) -> Result<()> {
    let id = shared.with(|machine| machine.update_secret(secret, reason))?;
    let poll = |waker: &Waker| shared.with(|machine| machine.poll_connection_call(id, waker));
    let abandon = || shared.with(|machine| machine.abandon_connection_call(id));
    within(shared, limit, "connection.update-secret", poll, abandon).await.map(drop)
}
