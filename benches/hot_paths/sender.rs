//! The facade's sender, with its defaults: mandatory, persistent, stamped, with a deadline for each message, which it keeps
//! until it is confirmed.

use std::collections::VecDeque;

use bytes::Bytes;
use leveret::messaging::{Client, PendingReceipt, Sender, Target};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::usage::Meter;
use crate::work::{Outcome, Work};

pub(crate) fn run(port: u16, work: &'static Work) -> Outcome {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let done = async move {
        let builder = Client::builder(&format!("amqp://127.0.0.1:{port}?heartbeat=0"))?;
        let client = builder.virtual_host(work.virtual_host).connect().await?;
        let connection = client.as_amqp().await?;
        let mut idle = Vec::new();
        for _ in 0..work.idle_channels {
            idle.push(connection.open_channel().await?);
        }
        let window = usize::try_from(work.window).unwrap_or(usize::MAX);
        let sender = client.sender().channels(work.channels).max_in_flight(window).build()?;
        let mut meter = Meter::start(work);
        let done = match work.tasks {
            1 => publish(&sender, work, Some(&mut meter)).await?,
            _ => publish_with_many(&sender, work).await?,
        };
        let usage = meter.stop(done);
        drop((idle, connection));
        client.close().await;
        Ok::<_, leveret::error::Error>(usage)
    };
    Ok(runtime.block_on(runtime.spawn(done))??)
}

/// One task's part of the work.
async fn publish(sender: &Sender, work: &Work, mut meter: Option<&mut Meter>) -> leveret::error::Result<u64> {
    let (target, body) = (Target::queue(work.queue()), Bytes::from(vec![b'x'; work.body]));
    let (window, messages) = (work.window / u64::from(work.tasks), work.messages / u64::from(work.tasks));
    let mut unconfirmed = VecDeque::<PendingReceipt>::with_capacity(window as usize);
    let mut confirmed = 0;
    for _ in 0..messages {
        if unconfirmed.len() as u64 == window
            && let Some(pending) = unconfirmed.pop_front()
        {
            confirmed += u64::from(pending.await.is_ok());
        }
        if let Some(meter) = &mut meter {
            meter.tick();
        }
        unconfirmed.push_back(sender.send_pipelined(&target, body.clone()).await?);
    }
    for pending in unconfirmed {
        confirmed += u64::from(pending.await.is_ok());
    }
    Ok(confirmed)
}

async fn publish_with_many(sender: &Sender, work: &'static Work) -> leveret::error::Result<u64> {
    let mut tasks = JoinSet::new();
    for _ in 0..work.tasks {
        let sender = sender.clone();
        tasks.spawn(async move { publish(&sender, work, None).await });
    }
    tasks.join_all().await.into_iter().sum()
}
