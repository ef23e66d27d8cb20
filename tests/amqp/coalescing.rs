//! Acks that are coalesced: the server settles what the program has acked, and nothing else.

use leveret::amqp::{Channel, Delivery};
use leveret::codec::method::basic;
use leveret::error::ErrorKind;

use crate::scripted::{channel_of, connected, content};
use crate::support::{Server, assert_works, exclusive_queue, fill, next, number, ready, until, within};

/// The messages that a queue has, in their order, once there are so many.
async fn left(channel: &Channel, queue: &str, count: u32) -> Vec<u32> {
    until("the rest to be back", async || ready(channel, queue).await == count).await;
    let mut left = Vec::new();
    while let Some(message) = channel.basic_get(queue).no_ack().await.unwrap() {
        left.push(number(&message));
    }
    left
}

on_every_server! {
    /// In order and out of order, from several tasks, with some that are held.
    async fn what_is_held_comes_back_and_nothing_else(server: Server) {
        let (channel, other, queue) = server.filled(0..3000).await;
        let mut consumer = channel.basic_consume(&queue).prefetch(500).coalesce_acks(true).await.unwrap();
        let (mut held, mut handled, mut tasks): (Vec<Delivery>, Vec<Delivery>, Vec<_>) = Default::default();
        for n in 0..3000 {
            let delivery = next(&mut consumer).await;
            assert_eq!(number(&delivery), n);
            match n {
                _ if n % 1000 == 500 => held.push(delivery),
                0..1000 => delivery.ack().unwrap(),
                1000..2000 => handled.push(delivery),
                _ => tasks.push(tokio::spawn(async move { delivery.detach().1.ack().unwrap() })),
            }
            if handled.len() == 111 {
                handled.drain(..).rev().for_each(|delivery| delivery.ack().unwrap());
            }
        }
        for task in tasks {
            task.await.unwrap();
        }
        // What the server had heard before the end counts.
        assert_works(&channel).await;
        channel.close().await.unwrap();
        assert_eq!(left(&other, &queue, 3).await, [500, 1500, 2500]);
        assert_eq!(held.remove(0).ack().unwrap_err().kind(), ErrorKind::Stale);
    }

    /// One channel, whose tags all of them share.
    async fn consumers_and_gets_on_one_channel(server: Server) {
        let (channel, other, queue) = server.filled(0..100).await;
        let second = exclusive_queue(&channel).await;
        fill(&other, &second, 0..10).await;
        let mut coalescing = channel.basic_consume(&queue).prefetch(10).coalesce_acks(true).await.unwrap();
        let mut plain = channel.basic_consume(&second).prefetch(5).await.unwrap();
        let mut held = vec![next(&mut plain).await];
        for n in 0..50 {
            next(&mut coalescing).await.ack().unwrap();
            match n % 10 {
                3 => next(&mut coalescing).await.reject(false).unwrap(),
                6 => next(&mut coalescing).await.nack(false).unwrap(),
                _ => {}
            }
        }
        held.push(next(&mut plain).await);
        next(&mut plain).await.ack().unwrap();
        coalescing.cancel().await.unwrap();
        // What had been delivered can still be taken; it is held as well.
        while let Some(delivery) = within("the rest", coalescing.next()).await {
            held.push(delivery.unwrap());
        }
        held.push(channel.basic_get(&queue).await.unwrap().unwrap().delivery);
        assert_works(&channel).await;
        let count = 100 - 60;
        channel.close().await.unwrap();
        assert_eq!(left(&other, &queue, count).await, (60..100).collect::<Vec<_>>());
        assert_eq!(left(&other, &second, 9).await, [0, 1, 3, 4, 5, 6, 7, 8, 9]);
    }

    /// Everything that was acked by then is settled, and what is acked afterwards belongs to the next.
    async fn acks_in_a_transaction(server: Server) {
        let (channel, other, queue) = server.filled(0..30).await;
        channel.tx_select().await.unwrap();
        let mut consumer = channel.basic_consume(&queue).coalesce_acks(true).await.unwrap();
        for end in ["commit", "rollback", "commit", "close"] {
            for _ in 0..5 {
                next(&mut consumer).await.ack().unwrap();
            }
            match end {
                "commit" => channel.tx_commit().await.unwrap(),
                "rollback" => channel.tx_rollback().await.unwrap(),
                _ => channel.close().await.unwrap(),
            }
        }
        let expected: Vec<u32> = (5..10).chain(15..30).collect();
        assert_eq!(left(&other, &queue, 20).await, expected);
    }

    /// An ack that waits is sent before what follows it, whatever that is.
    async fn acks_come_before_recover_and_the_end(server: Server) {
        let connection = server.connect().await;
        let watcher = server.channel().await;
        let channel = connection.open_channel().await.unwrap();
        let name = crate::support::unique("queue");
        watcher.queue_declare(&name).await.unwrap();
        fill(&watcher, &name, 0..10).await;
        let mut consumer = channel.basic_consume(&name).coalesce_acks(true).await.unwrap();
        let mut deliveries = Vec::new();
        for _ in 0..10 {
            deliveries.push(next(&mut consumer).await);
        }
        deliveries.drain(..5).for_each(|delivery| delivery.ack().unwrap());
        channel.basic_recover().await.unwrap();
        // They come again with new tags; the old ones are nobody's any more.
        for n in 5..8 {
            let delivery = next(&mut consumer).await;
            assert_eq!((number(&delivery), delivery.redelivered()), (n, true));
            delivery.ack().unwrap();
        }
        connection.close().await.unwrap();
        assert_eq!(left(&watcher, &name, 2).await, [8, 9]);
        watcher.queue_delete(&name).await.unwrap();
    }

    async fn it_is_asked_for_in_time(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        let _plain = channel.basic_consume(&queue).await.unwrap();
        let error = channel.basic_consume(&queue).coalesce_acks(true).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert_works(&channel).await;
    }

    /// What was settled with a later one cannot be settled again.
    async fn an_ack_behind_one_for_all_sends_nothing(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        fill(&channel, &queue, 0..2).await;
        let mut consumer = channel.basic_consume(&queue).coalesce_acks(true).await.unwrap();
        let (first, second) = (next(&mut consumer).await, next(&mut consumer).await);
        second.ack_multiple().unwrap();
        assert_eq!(first.ack().unwrap_err().kind(), ErrorKind::Stale);
        assert_works(&channel).await;
    }
}

/// What is on the wire: one frame for what was acked between two writes.
#[test]
fn the_server_gets_one_ack_for_many() {
    // With one thread it is known what happens between two turns of the driver.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(within("everything", async {
        let (connection, mut peer) = connected().await;
        let channel = channel_of(&connection, &mut peer).await;
        let consume = async { channel.basic_consume("q").consumer_tag("c").coalesce_acks(true).await };
        let (consumer, ()) = tokio::join!(consume, async {
            expect!(peer, Basic(basic)::Qos);
            peer.send(1, basic::QosOk {}).await;
            expect!(peer, Basic(basic)::Consume);
            peer.send(1, basic::ConsumeOk { consumer_tag: "c".into() }).await;
        });
        let mut consumer = consumer.unwrap();
        let mut octets = Vec::new();
        for delivery_tag in 1..=9 {
            let deliver = basic::Deliver { consumer_tag: "c".into(), delivery_tag, ..Default::default() };
            octets.extend(content(1, deliver, b"x"));
        }
        peer.frames(&octets).await;
        let mut deliveries = Vec::new();
        for _ in 0..9 {
            deliveries.push(next(&mut consumer).await);
        }
        deliveries.drain(..7).for_each(|delivery| delivery.ack().unwrap());
        let (_, ack) = expect!(peer, Basic(basic)::Ack);
        assert_eq!((ack.delivery_tag, ack.multiple), (7, true));
        deliveries.remove(1).ack().unwrap();
        let (_, ack) = expect!(peer, Basic(basic)::Ack);
        assert_eq!((ack.delivery_tag, ack.multiple), (9, false));
        deliveries.remove(0).ack().unwrap();
        let (_, ack) = expect!(peer, Basic(basic)::Ack);
        assert_eq!((ack.delivery_tag, ack.multiple), (8, false), "a server knows nothing of 9 any more");
        let (closed, ()) = tokio::join!(within("close-ok", connection.close()), peer.agree_to_close());
        closed.unwrap();
    }));
}
