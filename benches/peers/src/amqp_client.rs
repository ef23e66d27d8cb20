//! amqp-client, through its channel (its high-level client awaits each message by itself): `basic_publish_confirmed` gives a
//! future, as leveret's publish does; bodies are `Bytes`, which it does not copy.
//!
//! Over TLS it trusts Mozilla's authorities and nobody else, so it cannot be measured here.

use std::collections::VecDeque;
use std::sync::Arc;

use amqp_client::{
    BasicProperties, Channel, Config, Connection, ConsumeOpts, Consumer, DeliverMessage, PublishConfirm,
};
use bytes::Bytes;

use crate::memory::{self, Holder};
use crate::peer::{Peer, Result};
use crate::usage::Meter;
use crate::work::{Direction, Work};

pub(crate) struct AmqpClient;

impl Peer for AmqpClient {
    type Connection = Connection;
    type Channel = Arc<Channel>;

    async fn connect(port: u16, work: &Work) -> Result<Connection> {
        connect(port, work.virtual_host).await
    }

    async fn open_channel(connection: &Connection, work: &Work) -> Result<Arc<Channel>> {
        let channel = connection.open_channel().await?;
        if !matches!(work.direction, Direction::Consume { .. }) {
            channel.confirm_select().await?;
        }
        Ok(Arc::new(channel))
    }

    async fn publish(channel: &Arc<Channel>, work: &Work, mut meter: Option<&mut Meter>) -> Result<u64> {
        let (queue, body) = (work.queue(), Bytes::from(vec![b'x'; work.body]));
        let [window, messages] = [work.window, work.messages].map(|number| number / u64::from(work.tasks));
        let mut unconfirmed = VecDeque::<PublishConfirm>::with_capacity(window as usize);
        let mut confirmed = 0;
        for _ in 0..messages {
            if unconfirmed.len() as u64 == window
                && let Some(confirm) = unconfirmed.pop_front()
            {
                confirm.await?;
                confirmed += 1;
            }
            if let Some(meter) = &mut meter {
                meter.tick();
            }
            unconfirmed.push_back(publish_one(channel, &queue, &body).await?);
        }
        for confirm in unconfirmed {
            confirm.await?;
            confirmed += 1;
        }
        Ok(confirmed)
    }

    async fn consume(channel: &Arc<Channel>, work: &Work, acks: u64) -> Result<u64> {
        channel.basic_qos(work.prefetch(), false).await?;
        let mut consumer = consumer(channel, &work.queue(), acks == 0).await?;
        let mut received = 0;
        while received < work.messages
            && let Some(message) = consumer.next().await
        {
            received += u64::from(message.body.len() == work.body);
            match acks {
                0 => {}
                1 => message.ack()?,
                _ if received % acks == 0 => channel.basic_ack(received, true)?,
                _ => {}
            }
        }
        Ok(received)
    }
}

async fn connect(port: u16, virtual_host: &str) -> Result<Connection> {
    let config = Config { host: "127.0.0.1".into(), port, vhost: virtual_host.into(), ..Config::default() };
    Ok(Connection::connect_with_config(config).await?)
}

async fn publish_one(channel: &Channel, queue: &str, body: &Bytes) -> Result<PublishConfirm> {
    Ok(channel.basic_publish_confirmed("", queue, body.clone(), BasicProperties::new(), false).await?)
}

async fn consumer(channel: &Channel, queue: &str, no_ack: bool) -> Result<Consumer> {
    Ok(channel.basic_consume(queue, "consumer", ConsumeOpts { no_ack, ..ConsumeOpts::default() }).await?)
}

impl Holder for AmqpClient {
    type Connection = Connection;
    type Channel = Channel;
    type Delivery = DeliverMessage;
    type Confirm = PublishConfirm;
    type Consumer = Consumer;

    async fn connect(port: u16, virtual_host: &str) -> memory::Result<Connection> {
        Ok(connect(port, virtual_host).await?)
    }

    async fn open_channel(connection: &Connection) -> memory::Result<Channel> {
        Ok(connection.open_channel().await?)
    }

    async fn keep(channel: &Channel, count: u64) -> memory::Result<Vec<DeliverMessage>> {
        channel.basic_qos(1000, false).await?;
        let mut consumer = consumer(channel, "100", false).await?;
        memory::collect(count, async || {
            let message = consumer.next().await.ok_or("no message")?;
            message.ack()?;
            Ok(message)
        })
        .await
    }

    async fn publish(channel: &Channel, count: u64) -> memory::Result<Vec<PublishConfirm>> {
        channel.confirm_select().await?;
        let body = Bytes::from(vec![b'x'; 100]);
        memory::collect(count, async || Ok(publish_one(channel, "100", &body).await?)).await
    }

    async fn fall_behind(channel: &Channel) -> memory::Result<Consumer> {
        let mut consumer = consumer(channel, "100", true).await?;
        consumer.next().await.ok_or("no message")?;
        Ok(consumer)
    }
}
