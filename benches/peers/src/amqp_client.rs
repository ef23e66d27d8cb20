//! amqp-client, through its channel (its high-level client awaits each message by itself): `basic_publish_confirmed` gives a
//! future, as leveret's publish does; bodies are `Bytes`, which it does not copy.

use std::collections::VecDeque;

use amqp_client::{BasicProperties, Config, Connection, ConsumeOpts, PublishConfirm};
use bytes::Bytes;

use crate::on_tokio;
use crate::usage::Meter;
use crate::work::{Direction, Outcome, Work};

pub(crate) fn run(port: u16, work: &'static Work) -> Outcome {
    on_tokio(async move {
        let config = Config { host: "127.0.0.1".into(), port, vhost: work.virtual_host.into(), ..Config::default() };
        let connection = Connection::connect_with_config(config).await?;
        let channel = connection.open_channel().await?;
        let queue = work.queue();
        let usage = match work.direction {
            Direction::Publish => {
                channel.confirm_select().await?;
                let body = Bytes::from(vec![b'x'; work.body]);
                let mut unconfirmed = VecDeque::<PublishConfirm>::with_capacity(work.window as usize);
                let mut meter = Meter::start(work);
                let mut confirmed = 0;
                for _ in 0..work.messages {
                    if unconfirmed.len() as u64 == work.window
                        && let Some(confirm) = unconfirmed.pop_front()
                    {
                        confirm.await?;
                        confirmed += 1;
                    }
                    meter.tick();
                    let properties = BasicProperties::new();
                    let publish = channel.basic_publish_confirmed("", &queue, body.clone(), properties, false);
                    unconfirmed.push_back(publish.await?);
                }
                for confirm in unconfirmed {
                    confirm.await?;
                    confirmed += 1;
                }
                meter.stop(confirmed)
            }
            Direction::Consume { acks } => {
                let no_ack = acks == 0;
                channel.basic_qos(work.prefetch(), false).await?;
                let meter = Meter::start(work);
                let options = ConsumeOpts { no_ack, ..ConsumeOpts::default() };
                let mut consumer = channel.basic_consume(&queue, "consumer", options).await?;
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
                meter.stop(received)
            }
        };
        connection.close().await?;
        Ok(usage)
    })
}
