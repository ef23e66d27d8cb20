//! leveret itself, as its documentation says it is used: every confirm is awaited, every delivery acknowledged.

use std::collections::VecDeque;

use bytes::Bytes;
use leveret::amqp::{Channel, Confirm, Confirmation, Connection};
use tokio::runtime::{Builder, Runtime};

use crate::usage::{Meter, Usage};
use crate::{Direction, Outcome, Work};

/// Everything on one thread.
pub(crate) fn run(port: u16, work: &Work) -> Outcome {
    work_through(&Builder::new_current_thread().enable_all().build()?, port, work)
}

/// The driver on another thread than the program, when the runtime sees fit.
pub(crate) fn run_on_two_threads(port: u16, work: &Work) -> Outcome {
    work_through(&Builder::new_multi_thread().worker_threads(2).enable_all().build()?, port, work)
}

fn work_through(runtime: &Runtime, port: u16, work: &Work) -> Outcome {
    let Work { direction, body, window, messages, virtual_host, .. } = *work;
    let queue = work.queue();
    let done = async move {
        let builder = Connection::builder(&format!("amqp://127.0.0.1:{port}?heartbeat=0"))?;
        let connection = builder.virtual_host(virtual_host).open().await?;
        let channel = connection.open_channel().await?;
        let usage = match direction {
            Direction::Publish => publish(&channel, &queue, body, window, messages).await?,
            Direction::Consume => consume(&channel, &queue, window, messages).await?,
        };
        drop(channel);
        connection.close().await?;
        Ok::<_, leveret::error::Error>(usage)
    };
    Ok(runtime.block_on(runtime.spawn(done))??)
}

async fn publish(
    channel: &Channel,
    queue: &str,
    body: usize,
    window: u64,
    messages: u64,
) -> leveret::error::Result<Usage> {
    channel.confirm_select().await?;
    let body = Bytes::from(vec![b'x'; body]);
    let mut unconfirmed = VecDeque::<Confirm>::with_capacity(window as usize);
    let meter = Meter::start();
    let mut confirmed = 0;
    for _ in 0..messages {
        if unconfirmed.len() as u64 == window
            && let Some(confirm) = unconfirmed.pop_front()
        {
            confirmed += u64::from(confirm.await? == Confirmation::Ack(None));
        }
        unconfirmed.push_back(channel.basic_publish("", queue, &body).await?);
    }
    for confirm in unconfirmed {
        confirmed += u64::from(confirm.await? == Confirmation::Ack(None));
    }
    Ok(meter.stop(confirmed))
}

async fn consume(channel: &Channel, queue: &str, window: u64, messages: u64) -> leveret::error::Result<Usage> {
    let prefetch = u16::try_from(window).unwrap_or(u16::MAX);
    let meter = Meter::start();
    let mut consumer = channel.basic_consume(queue).prefetch(prefetch).await?;
    let mut received = 0;
    while received < messages
        && let Some(delivery) = consumer.next().await
    {
        let delivery = delivery?;
        received += 1;
        delivery.ack()?;
    }
    Ok(meter.stop(received))
}
