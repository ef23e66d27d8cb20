//! The facade with its defaults, over the client of [`client`](crate::client): what it adds is the difference to the lines there.

use std::collections::VecDeque;

use bytes::Bytes;
use leveret::messaging::{Client, PendingReceipt, Source, Target};
use leveret::transport::Stream;

use crate::client::run;
use crate::peer::{Peer, published_size};
use crate::wire;

/// Octets that a sender adds to a message: the delivery mode, and a table of headers with the message's number.
const ADDED: usize = 1 + 4 + 1 + "x-leveret-seq".len() + 1 + 8;

/// Sends, and awaits every receipt.
pub(crate) fn send(messages: u64, body: usize, window: u64) {
    run(async move {
        let (ours, theirs) = Stream::pipe();
        let size = published_size(body) + ADDED;
        tokio::spawn(async move { Peer::open(theirs, wire::CONFIRM_SELECT, "").await.confirm(size, false).await });
        let sender = open(ours).await.sender().build().unwrap();
        let (target, body) = (Target::queue("queue"), Bytes::from(vec![b'x'; body]));
        let mut unconfirmed = VecDeque::<PendingReceipt>::with_capacity(window as usize);
        for _ in 0..messages {
            if unconfirmed.len() as u64 == window
                && let Some(pending) = unconfirmed.pop_front()
            {
                pending.await.unwrap();
            }
            unconfirmed.push_back(sender.send_pipelined(&target, &body).await.unwrap());
        }
        for pending in unconfirmed {
            pending.await.unwrap();
        }
    });
}

/// Receives, and accepts every delivery by itself.
pub(crate) fn receive(messages: u64, body: usize, window: u64) {
    run(async move {
        let (ours, theirs) = Stream::pipe();
        // The tag that a connection's first consumer gets.
        let server = Peer::open(theirs, wire::BASIC_CONSUME, "leveret-1");
        tokio::spawn(async move { server.await.deliver(messages, body, window).await });
        let prefetch = u16::try_from(window).unwrap();
        let mut receiver = open(ours).await.receiver(Source::queue("queue")).prefetch(prefetch).build().await.unwrap();
        for _ in 0..messages {
            let delivery = receiver.recv().await.unwrap().unwrap();
            assert_eq!(delivery.body().len(), body);
            delivery.accept().unwrap();
        }
    });
}

async fn open(stream: Stream) -> Client {
    Client::builder("amqp://pipe?heartbeat=0").unwrap().connect_with(stream).await.unwrap()
}
