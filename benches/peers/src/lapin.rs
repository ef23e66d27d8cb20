//! lapin, as its examples use it: `basic_publish` is awaited and gives a future for the confirm; a consumer is a stream, and
//! acknowledging a delivery is awaited.

use std::collections::VecDeque;

use async_rs::Runtime;
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, PublisherConfirm};

use crate::on_tokio;
use crate::usage::Meter;
use crate::work::{Direction, Outcome, Work};

pub(crate) fn run(port: u16, work: &'static Work) -> Outcome {
    on_tokio(async move {
        let virtual_host = if work.virtual_host == "/" { "%2f" } else { work.virtual_host };
        let url = format!("amqp://guest:guest@127.0.0.1:{port}/{virtual_host}?heartbeat=0");
        let properties = ConnectionProperties::default();
        let connection = Connection::connect_with_runtime(&url, properties, Runtime::tokio_current()).await?;
        let channel = connection.create_channel().await?;
        let usage = match work.direction {
            Direction::Publish => publish(&channel, work).await?,
            Direction::Consume { acks } => consume(&channel, work, acks).await?,
        };
        connection.close(200, "".into()).await?;
        Ok(usage)
    })
}

async fn publish(channel: &Channel, work: &Work) -> Outcome {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let (queue, body) = (work.queue(), vec![b'x'; work.body]);
    let mut unconfirmed = VecDeque::<PublisherConfirm>::with_capacity(work.window as usize);
    let mut meter = Meter::start(work);
    let mut confirmed = 0;
    for _ in 0..work.messages {
        if unconfirmed.len() as u64 == work.window
            && let Some(confirm) = unconfirmed.pop_front()
        {
            confirmed += u64::from(confirm.await?.is_ack());
        }
        meter.tick();
        let (queue, options) = (queue.as_str().into(), BasicPublishOptions::default());
        let publish = channel.basic_publish("".into(), queue, options, &body, BasicProperties::default());
        unconfirmed.push_back(publish.await?);
    }
    for confirm in unconfirmed {
        confirmed += u64::from(confirm.await?.is_ack());
    }
    Ok(meter.stop(confirmed))
}

async fn consume(channel: &Channel, work: &Work, acks: u64) -> Outcome {
    channel.basic_qos(work.prefetch(), BasicQosOptions::default()).await?;
    let meter = Meter::start(work);
    let (queue, options) = (work.queue(), BasicConsumeOptions { no_ack: acks == 0, ..Default::default() });
    let consumer = channel.basic_consume(queue.into(), "consumer".into(), options, FieldTable::default());
    let mut consumer = consumer.await?;
    let mut received = 0;
    while received < work.messages
        && let Some(delivery) = consumer.next().await
    {
        let delivery = delivery?;
        received += u64::from(delivery.data.len() == work.body);
        if acks > 0 && received % acks == 0 {
            delivery.ack(BasicAckOptions { multiple: acks > 1 }).await?;
        }
    }
    Ok(meter.stop(received))
}
