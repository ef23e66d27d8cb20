//! lapin, as its examples use it: `basic_publish` is awaited and gives a future for the confirm; a consumer is a stream, and
//! acknowledging a delivery is awaited.

use std::collections::VecDeque;
use std::fs;

use async_rs::Runtime;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, PublisherConfirm};

use crate::memory::{self, Holder};
use crate::peer::{Peer, Result};
use crate::tls;
use crate::usage::Meter;
use crate::work::{Direction, Work};

pub(crate) struct Lapin;

impl Peer for Lapin {
    type Connection = Connection;
    type Channel = Channel;

    async fn connect(port: u16, work: &Work) -> Result<Connection> {
        connect(port, work.virtual_host, work.tls).await
    }

    async fn open_channel(connection: &Connection, work: &Work) -> Result<Channel> {
        let channel = connection.create_channel().await?;
        if !matches!(work.direction, Direction::Consume { .. }) {
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
        }
        Ok(channel)
    }

    async fn publish(channel: &Channel, work: &Work, mut meter: Option<&mut Meter>) -> Result<u64> {
        let (queue, body) = (work.queue(), vec![b'x'; work.body]);
        let [window, messages] = [work.window, work.messages].map(|number| number / u64::from(work.tasks));
        let mut unconfirmed = VecDeque::<PublisherConfirm>::with_capacity(window as usize);
        let mut confirmed = 0;
        for _ in 0..messages {
            if unconfirmed.len() as u64 == window
                && let Some(confirm) = unconfirmed.pop_front()
            {
                confirmed += u64::from(confirm.await?.is_ack());
            }
            if let Some(meter) = &mut meter {
                meter.tick();
            }
            unconfirmed.push_back(publish_one(channel, &queue, &body).await?);
        }
        for confirm in unconfirmed {
            confirmed += u64::from(confirm.await?.is_ack());
        }
        Ok(confirmed)
    }

    async fn consume(channel: &Channel, work: &Work, acks: u64) -> Result<u64> {
        channel.basic_qos(work.prefetch(), BasicQosOptions::default()).await?;
        let mut consumer = consumer(channel, &work.queue(), acks == 0).await?;
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
        Ok(received)
    }
}

async fn connect(port: u16, virtual_host: &str, over_tls: bool) -> Result<Connection> {
    let virtual_host = if virtual_host == "/" { "%2f" } else { virtual_host };
    let scheme = if over_tls { "amqps" } else { "amqp" };
    let url = format!("{scheme}://guest:guest@127.0.0.1:{port}/{virtual_host}?heartbeat=0");
    let cert_chain = if over_tls { Some(fs::read_to_string(tls::certificate_file(port))?) } else { None };
    let (properties, tls) = (ConnectionProperties::default(), OwnedTLSConfig { identity: None, cert_chain });
    Ok(Connection::connect_with_config(&url, properties, tls, Runtime::tokio_current()).await?)
}

async fn publish_one(channel: &Channel, queue: &str, body: &[u8]) -> Result<PublisherConfirm> {
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    Ok(channel.basic_publish("".into(), queue.into(), options, body, properties).await?)
}

async fn consumer(channel: &Channel, queue: &str, no_ack: bool) -> Result<Consumer> {
    let options = BasicConsumeOptions { no_ack, ..Default::default() };
    Ok(channel.basic_consume(queue.into(), "consumer".into(), options, FieldTable::default()).await?)
}

impl Holder for Lapin {
    type Connection = Connection;
    type Channel = Channel;
    type Delivery = Delivery;
    type Confirm = PublisherConfirm;
    type Consumer = Consumer;

    async fn connect(port: u16, virtual_host: &str) -> memory::Result<Connection> {
        Ok(connect(port, virtual_host, false).await?)
    }

    async fn open_channel(connection: &Connection) -> memory::Result<Channel> {
        Ok(connection.create_channel().await?)
    }

    async fn keep(channel: &Channel, count: u64) -> memory::Result<Vec<Delivery>> {
        channel.basic_qos(1000, BasicQosOptions::default()).await?;
        let mut consumer = consumer(channel, "100", false).await?;
        memory::collect(count, async || {
            let delivery = consumer.next().await.ok_or("no message")??;
            delivery.ack(BasicAckOptions::default()).await?;
            Ok(delivery)
        })
        .await
    }

    async fn publish(channel: &Channel, count: u64) -> memory::Result<Vec<PublisherConfirm>> {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        memory::collect(count, async || Ok(publish_one(channel, "100", &[b'x'; 100]).await?)).await
    }

    async fn fall_behind(channel: &Channel) -> memory::Result<Consumer> {
        let mut consumer = consumer(channel, "100", true).await?;
        consumer.next().await.ok_or("no message")??;
        Ok(consumer)
    }
}
