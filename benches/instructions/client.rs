//! The whole client, its driver included, over a pipe in memory, everything on one thread.

use std::collections::VecDeque;

use bytes::Bytes;
use leveret::amqp::{Channel, Confirm, Confirmation, Connection};
use leveret::transport::Stream;
use tokio::runtime::Builder;

use crate::peer::{Peer, published_size};
use crate::wire;

/// Publishes, and awaits every confirm.
pub(crate) fn publish(messages: u64, body: usize, window: u64, each: bool) {
    run(async move {
        let (ours, theirs) = Stream::pipe();
        tokio::spawn(async move {
            Peer::open(theirs, wire::CONFIRM_SELECT, "").await.confirm(published_size(body), each).await
        });
        let channel = open(ours).await;
        channel.confirm_select().await.unwrap();
        let body = Bytes::from(vec![b'x'; body]);
        let mut unconfirmed = VecDeque::<Confirm>::with_capacity(window as usize);
        for _ in 0..messages {
            if unconfirmed.len() as u64 == window
                && let Some(confirm) = unconfirmed.pop_front()
            {
                assert_eq!(confirm.await.unwrap(), Confirmation::Ack(None));
            }
            unconfirmed.push_back(channel.basic_publish("", "queue", &body).await.unwrap());
        }
        for confirm in unconfirmed {
            assert_eq!(confirm.await.unwrap(), Confirmation::Ack(None));
        }
    });
}

/// Consumes, and acknowledges every delivery by itself.
pub(crate) fn consume(messages: u64, body: usize, window: u64) {
    run(async move {
        let (ours, theirs) = Stream::pipe();
        let server =
            async move { Peer::open(theirs, wire::BASIC_CONSUME, "c").await.deliver(messages, body, window).await };
        tokio::spawn(server);
        let channel = open(ours).await;
        let prefetch = u16::try_from(window).unwrap();
        let mut consumer = channel.basic_consume("queue").consumer_tag("c").prefetch(prefetch).await.unwrap();
        for _ in 0..messages {
            let delivery = consumer.next().await.unwrap().unwrap();
            assert_eq!(delivery.body().len(), body);
            delivery.ack().unwrap();
        }
        // Dropped, it would be cancelled; what is left of the run falls out of the difference.
    });
}

async fn open(stream: Stream) -> Channel {
    let builder = Connection::builder("amqp://pipe?heartbeat=0").unwrap();
    builder.open_with(stream).await.unwrap().open_channel().await.unwrap()
}

pub(crate) fn run(work: impl Future<Output = ()> + Send + 'static) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(runtime.spawn(work)).unwrap();
}
