//! Opening, watching and closing a connection.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::channel::Channel;
use super::provider::update_secret;
use super::shared::{Guard, Shared};
use super::{ReplyCode, ServerInfo, Tuning};
use crate::error::Result;
use crate::protocol::client::{Connection as Machine, Place};
use crate::transport::now;

/// A connection to a server.
///
/// A cheap handle: clones share the connection. It lives as long as any handle that came from it, and closes in the
/// background when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    guard: Arc<Guard>,
}

impl Connection {
    pub(super) fn new(guard: Arc<Guard>) -> Self {
        Self { guard }
    }

    /// Where its driver lives.
    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        self.guard.shared.runtime()
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
    #[doc(alias = "create_channel")]
    #[doc(alias = "channel")]
    pub async fn open_channel(&self) -> Result<Channel> {
        Channel::open(&self.guard).await
    }

    /// Closes the connection (`connection.close`, code 200) after what was published before, and waits until the server
    /// agrees. What is still waited for on it ends with errors of the kind `Closed`. Closing twice is fine.
    ///
    /// # Errors
    ///
    /// `Timeout` when the server does not answer within [`Config::close_deadline`](super::Config::close_deadline), as a blocked one does not: the
    /// socket is closed then. `Heartbeat` when it falls silent and two heartbeat intervals are less. Whatever has ended the connection before.
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
    #[doc(alias = "on_error")]
    #[doc(alias = "register_callback")]
    pub async fn closed(&self) -> Result<()> {
        let mut watcher = Watcher { shared: &self.guard.shared, place: None };
        poll_fn(|cx| self.guard.shared.with(|machine| machine.poll_ended(&mut watcher.place, cx.waker()))).await
    }

    /// Whether the connection can be used.
    #[doc(alias = "connected")]
    #[doc(alias = "status")]
    pub fn is_open(&self) -> bool {
        self.guard.shared.look(|machine| machine.end().is_none())
    }

    /// Why the server takes no messages at the moment (`connection.blocked`), if so.
    ///
    /// Publishing waits then, and nothing else does here. But RabbitMQ reads nothing more of a connection on which a message has come
    /// meanwhile, neither acks nor requests: consumers that are to go on have a connection of their own, on which nothing is published.
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

    pub(crate) fn observer(&self) -> Observer {
        Observer { shared: self.guard.shared.clone(), place: None, blocked: None }
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
        update_secret(&self.guard.shared, secret, reason, self.guard.call_deadline).await
    }
}

/// Somebody who is told what happens to a connection, and does not keep it open.
#[derive(Debug)]
pub(crate) struct Observer {
    shared: Arc<Shared>,
    place: Option<Place>,
    blocked: Option<String>,
}

/// What happens to a connection.
#[derive(Debug)]
pub(crate) enum Happening {
    /// `connection.blocked`, and why.
    Blocked(String),
    /// `connection.unblocked`.
    Unblocked,
    /// It has ended: with the reason, unless that was a close on this side.
    Ended(Result<()>),
}

impl Observer {
    /// The next that happens. After the end, the end again.
    pub(crate) async fn next(&mut self) -> Happening {
        let Self { shared, place, blocked } = self;
        poll_fn(|cx| {
            shared.with(|machine| {
                if let Poll::Ready(end) = machine.poll_ended(place, cx.waker()) {
                    return Poll::Ready(Happening::Ended(end));
                }
                if machine.blocked() == blocked.as_deref() {
                    return Poll::Pending;
                }
                *blocked = machine.blocked().map(str::to_owned);
                Poll::Ready(blocked.clone().map_or(Happening::Unblocked, Happening::Blocked))
            })
        })
        .await
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.shared.with(|machine| machine.unwatch(place));
        }
    }
}

/// Somebody who waits for the connection to open or to end.
pub(super) struct Watcher<'a> {
    shared: &'a Shared,
    place: Option<Place>,
}

impl Watcher<'_> {
    /// Waits for the handshake's end.
    pub(super) async fn opened(connection: &Connection) -> Result<()> {
        let mut watcher = Watcher { shared: &connection.guard.shared, place: None };
        poll_fn(|cx| watcher.shared.with(|machine| machine.poll_open(&mut watcher.place, cx.waker()))).await
    }
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.shared.with(|machine| machine.unwatch(place));
        }
    }
}
