//! The facade's sender and receiver, with their defaults: messages are mandatory, persistent, stamped, with a deadline for each, and
//! kept until they are confirmed; deliveries are accepted one by one unless the work says otherwise.

use std::collections::VecDeque;

use bytes::Bytes;
use leveret::error::Result;
use leveret::messaging::{Client, Disposition, PendingReceipt, Sender, Source, Target};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::client;
use crate::usage::Meter;
use crate::work::{Direction, Outcome, Work};

pub(crate) fn run(port: u16, work: &'static Work) -> Outcome {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let done = async move {
        let (mut clients, mut senders, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..work.connections {
            let client = connect(port, work).await?;
            let connection = client.as_amqp().await?;
            for _ in 0..work.idle_channels {
                idle.push(connection.open_channel().await?);
            }
            let window = work.window / u64::from(work.connections);
            let window = usize::try_from(window).unwrap_or(usize::MAX);
            senders.push(client.sender().channels(work.channels).max_in_flight(window).build()?);
            clients.push(client);
        }
        let mut meter = Meter::start(work);
        let done = match (work.direction, work.tasks, senders.as_slice()) {
            (Direction::Publish, 1, [sender]) => publish(sender, work, Some(&mut meter)).await?,
            (Direction::Publish, ..) => publish_with_many(&senders, work).await?,
            (Direction::Consume { acks: 0 }, ..) => consume_without_acks(&clients[0], work).await?,
            (Direction::Consume { acks }, ..) => consume(&clients[0], work, acks).await?,
            (Direction::Both, ..) => publish_and_consume(&clients[0], &senders[0], work).await?,
        };
        let usage = meter.stop(done);
        drop(idle);
        for client in clients {
            client.close().await;
        }
        Ok::<_, leveret::error::Error>(usage)
    };
    Ok(runtime.block_on(runtime.spawn(done))??)
}

async fn connect(port: u16, work: &Work) -> Result<Client> {
    let mut builder = Client::builder(&client::url(port, work))?.virtual_host(work.virtual_host);
    if let Some(tls) = client::tls(port, work) {
        builder = builder.amqp(|builder| builder.tls(tls));
    }
    builder.connect().await
}

/// One task's part of the work.
async fn publish(sender: &Sender, work: &Work, mut meter: Option<&mut Meter>) -> Result<u64> {
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
        unconfirmed.push_back(sender.send_pipelined(&target, &body).await?);
    }
    for pending in unconfirmed {
        confirmed += u64::from(pending.await.is_ok());
    }
    Ok(confirmed)
}

async fn publish_with_many(senders: &[Sender], work: &'static Work) -> Result<u64> {
    let mut tasks = JoinSet::new();
    for (_, sender) in (0..work.tasks).zip(senders.iter().cycle()) {
        let sender = sender.clone();
        tasks.spawn(async move { publish(&sender, work, None).await });
    }
    tasks.join_all().await.into_iter().sum()
}

async fn publish_and_consume(client: &Client, sender: &Sender, work: &'static Work) -> Result<u64> {
    let (client, sender) = (client.clone(), sender.clone());
    let publishing = tokio::spawn(async move { publish(&sender, work, None).await });
    let consuming = tokio::spawn(async move { consume(&client, work, 1).await });
    Ok(publishing.await.unwrap()?.min(consuming.await.unwrap()?))
}

async fn consume(client: &Client, work: &Work, acks: u64) -> Result<u64> {
    let receiver = client.receiver(Source::queue(work.queue())).prefetch(work.prefetch());
    let mut receiver = receiver.coalesce_acks(work.coalesced).build().await?;
    let (mut received, mut waiting) = (0, Vec::new());
    while received < work.messages
        && let Some(delivery) = receiver.recv().await
    {
        let delivery = delivery?;
        received += 1;
        if acks == 1 {
            delivery.accept()?;
            continue;
        }
        // One that is dropped goes back to the queue, so they are kept until one acknowledgement settles them all.
        waiting.push(delivery);
        if received % acks == 0
            && let Some(last) = waiting.last()
        {
            receiver.settle_up_to(last, Disposition::Accept)?;
            waiting.clear();
        }
    }
    Ok(received)
}

async fn consume_without_acks(client: &Client, work: &Work) -> Result<u64> {
    let mut messages = client.receiver(Source::queue(work.queue())).build_no_ack().await?;
    let mut received = 0;
    while received < work.messages
        && let Some(message) = messages.recv().await
    {
        received += u64::from(message?.body().len() == work.body);
    }
    Ok(received)
}
