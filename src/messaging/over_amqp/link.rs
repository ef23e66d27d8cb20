//! A connection that is opened when it is first used, and again when it was lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::amqp::{Channel, Connection, ConnectionBuilder, Happening, Observer};
use crate::error::{Error, ErrorKind, Result};
use crate::messaging::events::{Event, Events};
use crate::messaging::on_demand::{Now, OnDemand};
use crate::messaging::state::ClientState;

#[derive(Debug)]
pub(in crate::messaging) struct Link {
    builder: ConnectionBuilder,
    /// Where tasks live, unless it is the caller's runtime.
    runtime: Option<Handle>,
    events: Arc<Events>,
    connection: OnDemand<Connection>,
    /// As many clones as there are receivers and requests that wait.
    guests: Arc<()>,
}

/// Keeps the connection from being closed because it is idle.
#[derive(Clone, Debug)]
pub(in crate::messaging) struct Guest(#[expect(dead_code, reason = "it is counted")] Arc<()>);

impl Link {
    pub(in crate::messaging) fn new(builder: ConnectionBuilder, runtime: Option<Handle>, events: Arc<Events>) -> Self {
        Self { builder, runtime, events, connection: OnDemand::new(), guests: Arc::default() }
    }

    /// A link whose connection is there already. There is no other one when it is lost.
    pub(in crate::messaging) fn with(
        connection: Connection,
        builder: ConnectionBuilder,
        runtime: Option<Handle>,
        events: Arc<Events>,
    ) -> Self {
        events.tell(&Event::Opened);
        let watch = watch(connection.observer(), Arc::clone(&events));
        match &runtime {
            Some(runtime) => runtime.spawn(watch),
            None => tokio::spawn(watch),
        };
        Self { builder, runtime, events, connection: OnDemand::with(connection), guests: Arc::default() }
    }

    pub(in crate::messaging) fn runtime(&self) -> Option<&Handle> {
        self.runtime.as_ref()
    }

    pub(in crate::messaging) fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// The open connection, or a new one.
    pub(in crate::messaging) async fn connection(&self) -> Result<Connection> {
        let make = || {
            let (builder, events) = (self.builder.clone(), Arc::clone(&self.events));
            async move {
                match builder.open().await {
                    Ok(connection) => {
                        events.tell(&Event::Opened);
                        tokio::spawn(watch(connection.observer(), events));
                        Ok(connection)
                    }
                    Err(error) => {
                        events.tell(&Event::ConnectFailed(error.clone()));
                        Err(error)
                    }
                }
            }
        };
        self.connection.get(self.runtime.as_ref(), Connection::is_open, make).await
    }

    /// A new channel, on a new connection where that is necessary.
    pub(in crate::messaging) async fn channel(&self) -> Result<Channel> {
        let connection = self.connection().await?;
        match connection.open_channel().await {
            // Lost at this very moment: nothing depends on it yet.
            Err(_) if !connection.is_open() => self.connection().await?.open_channel().await,
            opened => opened,
        }
    }

    /// Somebody who must not be disturbed as long as the guest is kept.
    pub(in crate::messaging) fn guest(&self) -> Guest {
        Guest(Arc::clone(&self.guests))
    }

    pub(in crate::messaging) fn state(&self) -> ClientState {
        match self.connection.now() {
            Now::Nothing => ClientState::Idle,
            Now::Making => ClientState::Connecting,
            Now::Ready(connection) if !connection.is_open() => ClientState::Lost,
            Now::Ready(connection) if connection.blocked().is_some() => ClientState::Blocked,
            Now::Ready(_) => ClientState::Open,
            Now::Closed => ClientState::Closed,
        }
    }

    /// How long it takes to open a channel and to close it.
    pub(in crate::messaging) async fn ping(&self) -> Result<Duration> {
        let connection = self.connection().await?;
        let begin = Instant::now();
        let channel = connection.open_channel().await?;
        channel.close().await?;
        Ok(begin.elapsed())
    }

    /// Closes the connection for good, by `until` or a second later.
    pub(in crate::messaging) async fn close(&self, until: Instant) -> Result<()> {
        let closed = match self.connection.close() {
            Some(connection) => {
                let until = until.max(Instant::now() + Duration::from_secs(1));
                match tokio::time::timeout_at(until, connection.close()).await {
                    // It was lost before: it is closed, then.
                    Ok(Err(error)) if error.kind() != ErrorKind::Timeout => Ok(()),
                    Ok(closed) => closed,
                    Err(_) => Err(Error::new(ErrorKind::Timeout, "the server did not answer connection.close in time")),
                }
            }
            None => Ok(()),
        };
        self.events.tell(&Event::Closed);
        closed
    }

    /// Closes the connection until it is used again, unless there are guests. Says whether there is none open now.
    pub(in crate::messaging) async fn disconnect(&self) -> Result<bool> {
        let Now::Ready(connection) = self.connection.now() else { return Ok(true) };
        if Arc::strong_count(&self.guests) > 1 {
            return Ok(false);
        }
        self.connection.forget(|_| true);
        match connection.close().await {
            // It was lost before, so it is closed.
            Err(error) if error.kind() != ErrorKind::Timeout => Ok(true),
            closed => closed.map(|()| true),
        }
    }
}

/// Tells what happens to a connection, as long as it is there.
async fn watch(mut connection: Observer, events: Arc<Events>) {
    loop {
        let event = match connection.next().await {
            Happening::Blocked(reason) => Event::Blocked(reason),
            Happening::Unblocked => Event::Unblocked,
            // Whoever closed it knows.
            Happening::Ended(Ok(())) => return,
            Happening::Ended(Err(error)) => {
                tracing::debug!(%error, "connection lost");
                events.tell(&Event::Lost(error));
                return;
            }
        };
        events.tell(&event);
    }
}
