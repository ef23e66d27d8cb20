//! A connection that is opened when it is first used, and again when it was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use super::pace::Pace;

use crate::amqp::{Channel, Connection, ConnectionBuilder, Happening, Observer};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{EVER, RecoveryPolicy};
use crate::messaging::deadline::by;
use crate::messaging::events::{Event, Events};
use crate::messaging::hook::Hook;
use crate::messaging::on_demand::{Now, OnDemand};
use crate::messaging::state::ClientState;

#[derive(Debug)]
pub(in crate::messaging) struct Link {
    setup: Setup,
    events: Arc<Events>,
    connection: OnDemand<Line>,
    /// As many clones as there are receivers and requests that wait.
    guests: Arc<()>,
    /// As many clones as there are receivers that are being started again.
    recovering: Arc<()>,
    pub(super) pace: Pace,
    /// It was closed for good.
    closed: watch::Sender<bool>,
}

/// A connection, and whether it was lost, for those who cannot ask it for each message.
#[derive(Clone, Debug)]
struct Line {
    connection: Connection,
    lost: Arc<AtomicBool>,
    /// Nothing more is told of it when its sender is gone.
    told: watch::Receiver<()>,
}

impl Line {
    /// And a task to be spawned that tells what happens to it, as long as it is there.
    fn new(connection: Connection, events: &Arc<Events>) -> (Self, impl Future<Output = ()> + Send + use<>) {
        events.tell(&Event::Opened);
        let lost = Arc::new(AtomicBool::new(false));
        let (tells, told) = watch::channel(());
        let watch = watch(connection.observer(), Arc::clone(&lost), Arc::clone(events));
        let watch = async move {
            let _tells = tells;
            watch.await;
        };
        (Self { connection, lost, told }, watch)
    }

    fn is_open(&self) -> bool {
        self.connection.is_open()
    }
}

/// How to connect, and what is done then.
#[derive(Clone, Debug)]
pub(in crate::messaging) struct Setup {
    pub(in crate::messaging) builder: ConnectionBuilder,
    /// Where tasks live, unless it is the caller's runtime.
    pub(in crate::messaging) runtime: Option<Handle>,
    /// Has every new connection before anybody else.
    pub(in crate::messaging) on_open: Option<Hook<Connection, ()>>,
    pub(in crate::messaging) recovery: RecoveryPolicy,
}

impl Setup {
    /// A connection: to the servers of the settings, or over something that is there already.
    ///
    /// # Errors
    ///
    /// As [`ConnectionBuilder::open`]; what `on_open` fails with.
    pub(in crate::messaging) async fn open(
        self,
        connect: impl AsyncFnOnce(ConnectionBuilder) -> Result<Connection>,
    ) -> Result<Connection> {
        let (until, limit) = self.limit();
        let connection = connect(self.builder).await?;
        if let Some(on_open) = self.on_open {
            on_open.call(connection.clone(), self.runtime.as_ref(), until, limit).await?;
        }
        Ok(connection)
    }

    /// Until when connecting may take if it begins now, and how long that is.
    fn limit(&self) -> (Instant, Duration) {
        let limit = self.builder.config().connect_timeout.min(EVER);
        (Instant::now() + limit, limit)
    }
}

/// Keeps the connection from being closed because it is idle.
#[derive(Clone, Debug)]
pub(in crate::messaging) struct Guest(#[expect(dead_code, reason = "it is counted")] Arc<()>);

impl Link {
    pub(in crate::messaging) fn new(setup: Setup, events: Arc<Events>) -> Self {
        Self {
            setup,
            events,
            connection: OnDemand::new(),
            guests: Arc::default(),
            recovering: Arc::default(),
            pace: Pace::default(),
            closed: watch::Sender::new(false),
        }
    }

    /// A link whose connection is there already.
    pub(in crate::messaging) fn with(connection: Connection, setup: Setup, events: Arc<Events>) -> Self {
        let (line, watch) = Line::new(connection, &events);
        match &setup.runtime {
            Some(runtime) => runtime.spawn(watch),
            None => tokio::spawn(watch),
        };
        Self { connection: OnDemand::with(line), ..Self::new(setup, events) }
    }

    pub(in crate::messaging) fn runtime(&self) -> Option<&Handle> {
        self.setup.runtime.as_ref()
    }

    /// Who keeps the time for one who is outside of any runtime.
    pub(in crate::messaging) fn timers(&self) -> Option<Handle> {
        self.runtime().cloned().or_else(|| match self.connection.now() {
            Now::Ready(line) => Some(line.connection.runtime().clone()),
            _ => None,
        })
    }

    /// What becomes of receivers when the connection is lost, unless they say otherwise.
    pub(super) fn recovery(&self) -> RecoveryPolicy {
        self.setup.recovery
    }

    /// Until when something may take that belongs to connecting, if it begins now, and how long that is.
    pub(super) fn limit(&self) -> (Instant, Duration) {
        self.setup.limit()
    }

    pub(in crate::messaging) fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// The open connection, or a new one.
    pub(in crate::messaging) async fn connection(&self) -> Result<Connection> {
        self.line().await.map(|line| line.connection)
    }

    async fn line(&self) -> Result<Line> {
        let before = match self.connection.now() {
            Now::Ready(line) => Some(line.told),
            _ => None,
        };
        let make = || {
            let (setup, events, before) = (self.setup.clone(), Arc::clone(&self.events), before.clone());
            async move {
                // Somebody who is told that a connection is lost, and that one is open, is told so in this order.
                if let Some(mut before) = before {
                    let _ = before.changed().await;
                }
                match setup.open(ConnectionBuilder::open).await {
                    Ok(connection) => {
                        let (line, watch) = Line::new(connection, &events);
                        tokio::spawn(watch);
                        Ok(line)
                    }
                    Err(error) => {
                        events.tell(&Event::ConnectFailed(error.clone()));
                        Err(error)
                    }
                }
            }
        };
        self.connection.get(self.runtime(), Line::is_open, make).await
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

    /// So many new channels, at least one, all of one connection; a new one where that is necessary. And what says later whether
    /// that connection was lost.
    pub(super) async fn channels(&self, count: u16) -> Result<(Vec<Channel>, Arc<AtomicBool>)> {
        async fn open(Line { connection, lost, .. }: Line, count: u16) -> Result<(Vec<Channel>, Arc<AtomicBool>)> {
            let mut channels = Vec::new();
            for _ in 0..count.max(1) {
                channels.push(connection.open_channel().await?);
            }
            Ok((channels, lost))
        }
        let line = self.line().await?;
        match open(line.clone(), count).await {
            // As above.
            Err(_) if !line.is_open() => open(self.line().await?, count).await,
            opened => opened,
        }
    }

    /// Somebody who is being started again.
    pub(super) fn recovering(&self) -> Guest {
        Guest(Arc::clone(&self.recovering))
    }

    /// Waits until it is closed for good.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut closed = self.closed.subscribe();
        async move {
            // The link may be gone altogether, and is as good as closed.
            let _ = closed.wait_for(|closed| *closed).await;
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Somebody who must not be disturbed as long as the guest is kept.
    pub(in crate::messaging) fn guest(&self) -> Guest {
        Guest(Arc::clone(&self.guests))
    }

    pub(in crate::messaging) fn state(&self) -> ClientState {
        match self.connection.now() {
            Now::Nothing | Now::Making | Now::Ready(_) if Arc::strong_count(&self.recovering) > 1 => {
                ClientState::Recovering
            }
            Now::Nothing => ClientState::Idle,
            Now::Making => ClientState::Connecting,
            Now::Ready(line) if !line.is_open() => ClientState::Lost,
            Now::Ready(line) if line.connection.blocked().is_some() => ClientState::Blocked,
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
        self.closed.send_replace(true);
        let timers = self.timers();
        let closed = match self.connection.close() {
            Some(Line { connection, .. }) => {
                let until = until.max(Instant::now() + Duration::from_secs(1));
                let was_open = connection.is_open();
                match by(timers.as_ref(), until, connection.close()).await {
                    // It was lost before: it is closed, then.
                    Some(Err(error)) if !(was_open && is_silence(&error)) => Ok(()),
                    Some(closed) => closed,
                    None => Err(Error::new(ErrorKind::Timeout, "the server did not answer connection.close in time")),
                }
            }
            None => Ok(()),
        };
        self.events.tell(&Event::Closed);
        closed
    }

    /// Closes the connection until it is used again, unless there are guests. Says whether there is none open now.
    pub(in crate::messaging) async fn disconnect(&self) -> Result<bool> {
        let Now::Ready(Line { connection, .. }) = self.connection.now() else { return Ok(true) };
        if Arc::strong_count(&self.guests) > 1 {
            return Ok(false);
        }
        self.connection.forget(|_| true);
        let was_open = connection.is_open();
        match connection.close().await {
            // It was lost before, so it is closed.
            Err(error) if !(was_open && is_silence(&error)) => Ok(true),
            closed => closed.map(|()| true),
        }
    }
}

/// The server does not answer.
fn is_silence(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Heartbeat)
}

/// Tells what happens to a connection, as long as it is there.
async fn watch(mut connection: Observer, lost: Arc<AtomicBool>, events: Arc<Events>) {
    loop {
        let event = match connection.next().await {
            Happening::Blocked(reason) => Event::Blocked(reason),
            Happening::Unblocked => Event::Unblocked,
            // Whoever closed it knows.
            Happening::Ended(Ok(())) => return,
            Happening::Ended(Err(error)) => {
                tracing::debug!(%error, "connection lost");
                lost.store(true, Ordering::Relaxed);
                events.tell(&Event::Lost(error));
                return;
            }
        };
        events.tell(&event);
    }
}
