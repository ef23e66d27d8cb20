//! amqprs. Publishing returns when the message is queued, and confirms come to a callback, so the window is a semaphore: the
//! callback gives back what was confirmed. Deliveries come through `basic_consume_rx`.
//!
//! It keeps its heartbeat of 60 s: without one it takes the server for dead at once.

use std::sync::Arc;

use amqprs::callbacks::ChannelCallback;
use amqprs::channel::{
    BasicAckArguments, BasicCancelArguments, BasicConsumeArguments, BasicPublishArguments, BasicQosArguments, Channel,
    ConfirmSelectArguments,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::error::Error;
use amqprs::{Ack, BasicProperties, Cancel, CloseChannel, Nack, Return};
use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::on_tokio;
use crate::usage::Meter;
use crate::work::{Direction, Outcome, Work};

pub(crate) fn run(port: u16, work: &'static Work) -> Outcome {
    on_tokio(async move {
        let mut arguments = OpenConnectionArguments::new("127.0.0.1", port, "guest", "guest");
        let connection = Connection::open(&arguments.virtual_host(work.virtual_host).finish()).await?;
        let channel = connection.open_channel(None).await?;
        let usage = match work.direction {
            Direction::Publish => publish(&channel, work).await?,
            Direction::Consume { acks } => consume(&channel, work, acks).await?,
        };
        channel.close().await?;
        connection.close().await?;
        Ok(usage)
    })
}

async fn publish(channel: &Channel, work: &Work) -> Outcome {
    let room = Arc::new(Semaphore::new(work.window as usize));
    channel.register_callback(Confirms { confirmed: 0, room: room.clone() }).await?;
    channel.confirm_select(ConfirmSelectArguments::default()).await?;
    let (queue, body) = (work.queue(), vec![b'x'; work.body]);
    let mut meter = Meter::start(work);
    for _ in 0..work.messages {
        room.acquire().await?.forget();
        meter.tick();
        let arguments = BasicPublishArguments::new("", &queue);
        channel.basic_publish(BasicProperties::default(), body.clone(), arguments).await?;
    }
    room.acquire_many(work.window.try_into()?).await?.forget();
    Ok(meter.stop(work.messages))
}

async fn consume(channel: &Channel, work: &Work, acks: u64) -> Outcome {
    channel.basic_qos(BasicQosArguments::new(0, work.prefetch(), false)).await?;
    let meter = Meter::start(work);
    let arguments = BasicConsumeArguments::new(&work.queue(), "consumer").manual_ack(acks > 0).finish();
    let (tag, mut messages) = channel.basic_consume_rx(arguments).await?;
    let mut received = 0;
    while received < work.messages
        && let Some(message) = messages.recv().await
    {
        received += u64::from(message.content.is_some_and(|body| body.len() == work.body));
        if let Some(deliver) = message.deliver
            && acks > 0
            && received % acks == 0
        {
            channel.basic_ack(BasicAckArguments::new(deliver.delivery_tag(), acks > 1)).await?;
        }
    }
    let usage = meter.stop(received);
    channel.basic_cancel(BasicCancelArguments::new(&tag)).await?;
    Ok(usage)
}

/// Counts what was confirmed.
struct Confirms {
    /// The highest tag; confirms come in order from the servers used here.
    confirmed: u64,
    room: Arc<Semaphore>,
}

#[async_trait]
impl ChannelCallback for Confirms {
    async fn close(&mut self, _: &Channel, _: CloseChannel) -> Result<(), Error> {
        Ok(())
    }

    async fn cancel(&mut self, _: &Channel, _: Cancel) -> Result<(), Error> {
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool, Error> {
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        let count = if ack.mutiple() { ack.delivery_tag().saturating_sub(self.confirmed) } else { 1 };
        self.confirmed = if ack.mutiple() { ack.delivery_tag() } else { self.confirmed + 1 };
        self.room.add_permits(count as usize);
    }

    async fn publish_nack(&mut self, _: &Channel, _: Nack) {}

    async fn publish_return(&mut self, _: &Channel, _: Return, _: BasicProperties, _: Vec<u8>) {}
}
