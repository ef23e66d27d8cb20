//! What another client has to say for itself, and the work, which is said once for all of them.

use std::error::Error;

use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::usage::Meter;
use crate::work::{Direction, Outcome, Work};

/// An error as text: not all of them can change threads.
pub(crate) struct Failed(String);

impl<E: Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl From<Failed> for Box<dyn Error> {
    fn from(Failed(error): Failed) -> Self {
        error.into()
    }
}

pub(crate) type Result<T> = std::result::Result<T, Failed>;

/// A client, as its documentation says it is used.
pub(crate) trait Peer {
    type Connection: Send + Sync;
    type Channel: Clone + Send + Sync + 'static;

    fn connect(port: u16, work: &Work) -> impl Future<Output = Result<Self::Connection>> + Send;

    /// With confirms, where something is published.
    fn open_channel(connection: &Self::Connection, work: &Work) -> impl Future<Output = Result<Self::Channel>> + Send;

    /// One task's part of the work: how many were confirmed.
    fn publish(
        channel: &Self::Channel,
        work: &Work,
        meter: Option<&mut Meter>,
    ) -> impl Future<Output = Result<u64>> + Send;

    /// How many came.
    fn consume(channel: &Self::Channel, work: &Work, acks: u64) -> impl Future<Output = Result<u64>> + Send;
}

/// On two worker threads, as `#[tokio::main]` does on two cores.
pub(crate) fn run<P: Peer + 'static>(port: u16, work: &'static Work) -> Outcome {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = async move {
        let (mut connections, mut channels, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..work.connections {
            let connection = P::connect(port, work).await?;
            for _ in 0..work.idle_channels {
                idle.push(P::open_channel(&connection, work).await?);
            }
            for _ in 0..work.channels {
                channels.push(P::open_channel(&connection, work).await?);
            }
            connections.push(connection);
        }
        let mut meter = Meter::start(work);
        let done = match (work.direction, work.tasks) {
            (Direction::Publish, 1) => P::publish(&channels[0], work, Some(&mut meter)).await?,
            (Direction::Publish, _) => publish_with_many::<P>(&channels, work).await?,
            (Direction::Consume { acks }, _) => P::consume(&channels[0], work, acks).await?,
            (Direction::Both, _) => publish_and_consume::<P>(&channels, work).await?,
        };
        let usage = meter.stop(done);
        // Not every one of them comes out of a flood in good order, and what it says when it ends is not measured.
        drop((channels, idle, connections));
        Ok::<_, Failed>(usage)
    };
    runtime.block_on(runtime.spawn(done))?.map_err(Into::into)
}

async fn publish_with_many<P: Peer + 'static>(channels: &[P::Channel], work: &'static Work) -> Result<u64> {
    let mut tasks = JoinSet::new();
    for (_, channel) in (0..work.tasks).zip(channels.iter().cycle()) {
        let channel = channel.clone();
        tasks.spawn(async move { P::publish(&channel, work, None).await });
    }
    tasks.join_all().await.into_iter().sum()
}

async fn publish_and_consume<P: Peer + 'static>(channels: &[P::Channel], work: &'static Work) -> Result<u64> {
    let (publisher, consumer) = (channels[0].clone(), channels[1].clone());
    let publishing = tokio::spawn(async move { P::publish(&publisher, work, None).await });
    let consuming = tokio::spawn(async move { P::consume(&consumer, work, 1).await });
    Ok(publishing.await??.min(consuming.await??))
}
