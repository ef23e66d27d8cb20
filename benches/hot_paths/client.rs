//! leveret itself, as its documentation says it is used: every confirm is awaited, every delivery acknowledged.

use std::collections::VecDeque;
use std::error::Error;

use bytes::Bytes;
use leveret::amqp::{Channel, Confirm, Confirmation, Connection, TlsConfig};
use leveret::error::Result;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::tls;
use crate::usage::Meter;
use crate::work::{Direction, Outcome, Work};

/// Everything on one thread.
pub(crate) fn run(port: u16, work: &'static Work) -> Outcome {
    work_through(&Builder::new_current_thread().enable_all().build()?, port, work)
}

/// The driver on another thread than the program, when the runtime sees fit.
pub(crate) fn run_on_two_threads(port: u16, work: &'static Work) -> Outcome {
    work_through(&Builder::new_multi_thread().worker_threads(2).enable_all().build()?, port, work)
}

fn work_through(runtime: &Runtime, port: u16, work: &'static Work) -> Outcome {
    let done = async move {
        let (mut connections, mut channels, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..work.connections {
            let connection = connect(port, work).await?;
            for _ in 0..work.idle_channels {
                idle.push(connection.open_channel().await?);
            }
            for _ in 0..work.channels {
                let channel = connection.open_channel().await?;
                if !matches!(work.direction, Direction::Consume { .. }) {
                    channel.confirm_select().await?;
                }
                channels.push(channel);
            }
            connections.push(connection);
        }
        let mut meter = Meter::start(work);
        let done = match (work.direction, work.tasks, channels.as_slice()) {
            (Direction::Publish, 1, [channel]) => publish(channel, work, Some(&mut meter)).await?,
            (Direction::Publish, ..) => publish_with_many(&channels, work).await?,
            (Direction::Both, ..) => publish_and_consume(&channels, work).await?,
            (Direction::Consume { acks: 0 }, ..) => consume_without_acks(&channels[0], work).await?,
            (Direction::Consume { acks }, ..) => consume(&channels[0], work, acks).await?,
        };
        let usage = meter.stop(done);
        drop((channels, idle));
        for connection in connections {
            connection.close().await?;
        }
        Ok::<_, leveret::error::Error>(usage)
    };
    Ok(runtime.block_on(runtime.spawn(done))??)
}

async fn connect(port: u16, work: &Work) -> Result<Connection> {
    let mut builder = Connection::builder(&url(port, work))?.virtual_host(work.virtual_host);
    if let Some(tls) = tls(port, work) {
        builder = builder.tls(tls);
    }
    builder.open().await
}

pub(crate) fn url(port: u16, work: &Work) -> String {
    format!("{}://127.0.0.1:{port}?heartbeat=0", if work.tls { "amqps" } else { "amqp" })
}

/// Trusts the raw server.
pub(crate) fn tls(port: u16, work: &Work) -> Option<TlsConfig> {
    work.tls.then(|| TlsConfig::from_client_config(tls::client_config(port).unwrap()))
}

/// One task's part of the work.
async fn publish(channel: &Channel, work: &Work, mut meter: Option<&mut Meter>) -> Result<u64> {
    let (queue, body) = (work.queue(), Bytes::from(vec![b'x'; work.body]));
    let (window, messages) = (work.window / u64::from(work.tasks), work.messages / u64::from(work.tasks));
    let mut unconfirmed = VecDeque::<Confirm>::with_capacity(window as usize);
    let mut confirmed = 0;
    for _ in 0..messages {
        if unconfirmed.len() as u64 == window
            && let Some(confirm) = unconfirmed.pop_front()
        {
            confirmed += u64::from(confirm.await? == Confirmation::Ack(None));
        }
        if let Some(meter) = &mut meter {
            meter.tick();
        }
        unconfirmed.push_back(channel.basic_publish("", &queue, &body).await?);
    }
    for confirm in unconfirmed {
        confirmed += u64::from(confirm.await? == Confirmation::Ack(None));
    }
    Ok(confirmed)
}

async fn publish_with_many(channels: &[Channel], work: &'static Work) -> Result<u64> {
    let mut tasks = JoinSet::new();
    for (_, channel) in (0..work.tasks).zip(channels.iter().cycle()) {
        let channel = channel.clone();
        tasks.spawn(async move { publish(&channel, work, None).await });
    }
    tasks.join_all().await.into_iter().sum()
}

/// Says how many have gone both ways.
async fn publish_and_consume(channels: &[Channel], work: &'static Work) -> Result<u64> {
    let (publisher, consumer) = (channels[0].clone(), channels[1].clone());
    let publishing = tokio::spawn(async move { publish(&publisher, work, None).await });
    let consuming = tokio::spawn(async move { consume(&consumer, work, 1).await });
    Ok(publishing.await.unwrap()?.min(consuming.await.unwrap()?))
}

async fn consume(channel: &Channel, work: &Work, acks: u64) -> Result<u64> {
    let queue = work.queue();
    let consume = channel.basic_consume(&queue).prefetch(work.prefetch());
    let mut consumer = consume.coalesce_acks(work.coalesced).await?;
    let mut received = 0;
    while received < work.messages
        && let Some(delivery) = consumer.next().await
    {
        let delivery = delivery?;
        received += 1;
        match received % acks {
            0 if acks > 1 => delivery.ack_multiple()?,
            0 => delivery.ack()?,
            _ => {}
        }
    }
    Ok(received)
}

async fn consume_without_acks(channel: &Channel, work: &Work) -> Result<u64> {
    let mut consumer = channel.basic_consume(&work.queue()).no_ack().await?;
    let mut received = 0;
    while received < work.messages
        && let Some(message) = consumer.next().await
    {
        received += u64::from(message?.body().len() == work.body);
    }
    Ok(received)
}

/// Makes sure that the work finds its queue on a real server, and finds it empty. It is not durable: the facade's messages are
/// persistent, and would wait for the disk in one that is.
pub(crate) fn prepare_queue(port: u16, work: &Work) -> std::result::Result<(), Box<dyn Error>> {
    let done = async {
        let connection = connect(port, work).await?;
        let channel = connection.open_channel().await?;
        channel.queue_delete(&work.queue()).await?;
        channel.queue_declare(&work.queue()).await?;
        connection.close().await
    };
    Ok(Builder::new_current_thread().enable_all().build()?.block_on(done)?)
}
