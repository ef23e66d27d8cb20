//! amqprs. Publishing returns when the message is queued, and confirms come to a callback, so the window is a semaphore: the
//! callback gives back what was confirmed. Deliveries come through `basic_consume_rx`.
//!
//! It keeps its heartbeat of 60 s: without one it takes the server for dead at once.

use std::mem;
use std::sync::Arc;

use amqprs::callbacks::ChannelCallback;
use amqprs::channel::{
    BasicAckArguments, BasicConsumeArguments, BasicPublishArguments, BasicQosArguments, Channel,
    ConfirmSelectArguments, ConsumerMessage,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::error::Error;
use amqprs::tls::TlsAdaptor;
use amqprs::{Ack, BasicProperties, Cancel, CloseChannel, Nack, Return};
use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_rustls::TlsConnector;

use crate::memory::{self, Holder};
use crate::peer::{self, Peer};
use crate::tls;
use crate::usage::Meter;
use crate::work::{Direction, Work};

pub(crate) struct Amqprs;

/// A channel, and the window of its unconfirmed messages, which is empty where nothing is published.
#[derive(Clone)]
pub(crate) struct Publisher {
    channel: Channel,
    room: Arc<Semaphore>,
    window: u32,
}

impl Peer for Amqprs {
    type Connection = Connection;
    type Channel = Publisher;

    async fn connect(port: u16, work: &Work) -> peer::Result<Connection> {
        connect(port, work.virtual_host, work.tls).await
    }

    async fn open_channel(connection: &Connection, work: &Work) -> peer::Result<Publisher> {
        let channel = connection.open_channel(None).await?;
        let window = match work.direction {
            Direction::Consume { .. } => 0,
            Direction::Publish => work.window / u64::from(work.connections * work.channels),
            Direction::Both => work.window,
        };
        let window = u32::try_from(window)?;
        let room = Arc::new(Semaphore::new(window as usize));
        if window > 0 {
            channel.register_callback(Confirms { confirmed: 0, room: room.clone() }).await?;
            channel.confirm_select(ConfirmSelectArguments::default()).await?;
        }
        Ok(Publisher { channel, room, window })
    }

    async fn publish(publisher: &Publisher, work: &Work, mut meter: Option<&mut Meter>) -> peer::Result<u64> {
        let (queue, body) = (work.queue(), vec![b'x'; work.body]);
        let messages = work.messages / u64::from(work.tasks);
        for _ in 0..messages {
            publisher.room.acquire().await?.forget();
            if let Some(meter) = &mut meter {
                meter.tick();
            }
            let arguments = BasicPublishArguments::new("", &queue);
            publisher.channel.basic_publish(BasicProperties::default(), body.clone(), arguments).await?;
        }
        // All of it is free: everything is confirmed.
        drop(publisher.room.acquire_many(publisher.window).await?);
        Ok(messages)
    }

    async fn consume(Publisher { channel, .. }: &Publisher, work: &Work, acks: u64) -> peer::Result<u64> {
        channel.basic_qos(BasicQosArguments::new(0, work.prefetch(), false)).await?;
        let arguments = BasicConsumeArguments::new(&work.queue(), "consumer").manual_ack(acks > 0).finish();
        let (_, mut messages) = channel.basic_consume_rx(arguments).await?;
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
        // Dropped, it would end the connection with the next delivery.
        mem::forget(messages);
        Ok(received)
    }
}

async fn connect(port: u16, virtual_host: &str, over_tls: bool) -> peer::Result<Connection> {
    let mut arguments = OpenConnectionArguments::new("127.0.0.1", port, "guest", "guest");
    arguments.virtual_host(virtual_host);
    if over_tls {
        let connector = TlsConnector::from(tls::client_config(port)?);
        arguments.tls_adaptor(TlsAdaptor::new(connector, "127.0.0.1".to_owned()));
    }
    Ok(Connection::open(&arguments.finish()).await?)
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

impl Holder for Amqprs {
    type Connection = Connection;
    type Channel = Channel;
    type Delivery = ConsumerMessage;
    /// There is nothing to hold on to.
    type Confirm = ();
    type Consumer = UnboundedReceiver<ConsumerMessage>;

    async fn connect(port: u16, virtual_host: &str) -> memory::Result<Connection> {
        Ok(connect(port, virtual_host, false).await?)
    }

    async fn open_channel(connection: &Connection) -> memory::Result<Channel> {
        Ok(connection.open_channel(None).await?)
    }

    async fn keep(channel: &Channel, count: u64) -> memory::Result<Vec<ConsumerMessage>> {
        channel.basic_qos(BasicQosArguments::new(0, 1000, false)).await?;
        let arguments = BasicConsumeArguments::new("100", "consumer").manual_ack(true).finish();
        let (_, mut messages) = channel.basic_consume_rx(arguments).await?;
        memory::collect(count, async || {
            let message = messages.recv().await.ok_or("no message")?;
            if let Some(deliver) = &message.deliver {
                channel.basic_ack(BasicAckArguments::new(deliver.delivery_tag(), false)).await?;
            }
            Ok(message)
        })
        .await
    }

    async fn publish(channel: &Channel, count: u64) -> memory::Result<Vec<()>> {
        channel.register_callback(Confirms { confirmed: 0, room: Arc::new(Semaphore::new(0)) }).await?;
        channel.confirm_select(ConfirmSelectArguments::default()).await?;
        for _ in 0..count {
            let arguments = BasicPublishArguments::new("", "100");
            channel.basic_publish(BasicProperties::default(), vec![b'x'; 100], arguments).await?;
        }
        Ok(Vec::new())
    }

    async fn fall_behind(channel: &Channel) -> memory::Result<Self::Consumer> {
        let arguments = BasicConsumeArguments::new("100", "consumer").manual_ack(false).finish();
        let (_, mut messages) = channel.basic_consume_rx(arguments).await?;
        messages.recv().await.ok_or("no message")?;
        Ok(messages)
    }
}
