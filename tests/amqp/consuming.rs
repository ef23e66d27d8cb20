//! Consumers: what they deliver, how they end, and what becomes of what they have not delivered.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use leveret::amqp::{Channel, Connection, Consumer, FieldValue, Properties};
use leveret::codec::Frame;
use leveret::codec::method::basic;
use leveret::error::{ErrorKind, Origin};

use crate::scripted::{Peer, channel_of, connected, content};
use crate::support::{
    Server, assert_channel_closed, assert_works, exclusive_queue, fill, look_at, next, next_number, number, ready,
    unique, until, within,
};

on_every_server! {
    /// c89
    async fn deliveries_say_where_they_come_from(server: Server) {
        let channel = server.channel().await;
        let (queue, exchange) = (exclusive_queue(&channel).await, unique("exchange"));
        channel.exchange_declare(&exchange, "direct").auto_delete(true).await.unwrap();
        channel.queue_bind(&queue, &exchange, "key").await.unwrap();
        let mut consumer = channel.basic_consume(&queue).consumer_tag("mine").await.unwrap();
        assert_eq!(consumer.consumer_tag(), "mine");
        let properties = Properties::new().message_id("m-1");
        drop(channel.basic_publish(&exchange, "key", "body").properties(&properties).await.unwrap());
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.exchange(), *exchange);
        assert_eq!(delivery.routing_key(), "key");
        assert_eq!(delivery.body(), b"body");
        assert_eq!(delivery.properties().unwrap(), properties);
        assert_eq!((delivery.delivery_tag(), delivery.redelivered()), (1, false));
        delivery.ack().unwrap();
    }

    /// As a `Stream`, in the order of the queue, one by one.
    async fn everything_once_and_in_order(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        fill(&channel, &queue, 0..2000).await;
        let consumer = channel.basic_consume(&queue).prefetch(100).await.unwrap();
        let mut numbers = consumer.take(2000).map(|delivery| {
            let delivery = delivery.unwrap();
            let number = number(&delivery);
            delivery.ack().unwrap();
            number
        });
        for expected in 0..2000 {
            assert_eq!(within("a delivery", numbers.next()).await, Some(expected));
        }
        drop(numbers);
        channel.close().await.unwrap();
        let channel = server.channel().await;
        assert!(channel.queue_declare(&queue).passive(true).await.is_err(), "it belongs to the other connection");
    }

    /// c112: messages without acknowledgement have nothing to settle.
    async fn without_acknowledgement(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        fill(&channel, &queue, 0..1000).await;
        let mut messages = channel.basic_consume(&queue).no_ack().await.unwrap();
        for expected in 0..1000 {
            let message = within("a message", messages.next()).await.unwrap().unwrap();
            assert_eq!(number(&message), expected);
        }
        messages.cancel().await.unwrap();
        assert!(within("the end", messages.next()).await.is_none());
        assert_eq!(ready(&channel, &queue).await, 0);
    }

    /// c113, c114, c115
    async fn prefetch_limits_what_is_unsettled(server: Server) {
        let connection = server.connect().await;
        let channel = connection.open_channel().await.unwrap();
        let queue = exclusive_queue(&channel).await;
        fill(&channel, &queue, 0..10).await;
        let mut consumer = channel.basic_consume(&queue).prefetch(3).await.unwrap();
        let mut unsettled = Vec::new();
        for _ in 0..3 {
            unsettled.push(next(&mut consumer).await);
        }
        assert_eq!(ready(&channel, &queue).await, 7);
        assert!(consumer.next().now_or_never().is_none());
        unsettled.remove(0).ack().unwrap();
        assert_eq!(next_number(&mut consumer).await, 3);
        assert_eq!(ready(&channel, &queue).await, 6);
        drop(consumer);
        for delivery in unsettled {
            delivery.ack().unwrap();
        }

        // What was said for the channel holds for consumers that say nothing.
        let channel = connection.open_channel().await.unwrap();
        channel.basic_qos(2).await.unwrap();
        let consumer = channel.basic_consume(&queue).await.unwrap();
        until("two deliveries", async || ready(&channel, &queue).await == 4).await;
        assert_works(&channel).await;
        assert_eq!(ready(&channel, &queue).await, 4);
        drop(consumer);
        channel.close().await.unwrap();
    }

    /// c114: one limit for all consumers of a channel. (RabbitMQ 4.3 and later refuse it.)
    async fn prefetch_for_the_whole_channel(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        fill(&channel, &queue, 0..10).await;
        channel.basic_qos(3).global(true).await.unwrap();
        let consumers =
            [channel.basic_consume(&queue).await.unwrap(), channel.basic_consume(&queue).await.unwrap()];
        until("three deliveries", async || ready(&channel, &queue).await == 7).await;
        assert_works(&channel).await;
        assert_eq!(ready(&channel, &queue).await, 7);
        drop(consumers);
        let error = channel.basic_qos(0).global(true).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    async fn an_exclusive_consumer(server: Server) {
        let connection = server.connect().await;
        let channel = connection.open_channel().await.unwrap();
        let queue = exclusive_queue(&channel).await;
        let consumer = channel.basic_consume(&queue).exclusive(true).await.unwrap();
        let other = connection.open_channel().await.unwrap();
        assert_channel_closed(&other.basic_consume(&queue).await.unwrap_err(), 403);
        consumer.cancel().await.unwrap();
        let other = connection.open_channel().await.unwrap();
        other.basic_consume(&queue).exclusive(true).await.unwrap();
    }

    /// A consumer of a higher priority gets everything, as long as it takes it.
    async fn consumers_with_priorities(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        let mut low = channel.basic_consume(&queue).argument("x-priority", -5).await.unwrap();
        let mut high = channel.basic_consume(&queue).argument("x-priority", 5).await.unwrap();
        fill(&channel, &queue, 0..10).await;
        for expected in 0..10 {
            let delivery = next(&mut high).await;
            assert_eq!(number(&delivery), expected);
            delivery.ack().unwrap();
        }
        assert!(low.next().now_or_never().is_none());
    }

    /// c105: a tag that is taken would cost the whole connection, so it is refused here.
    async fn a_tag_is_used_once(server: Server) {
        let connection = server.connect().await;
        let (channel, publisher) = (connection.open_channel().await.unwrap(), connection.open_channel().await.unwrap());
        let queue = exclusive_queue(&channel).await;
        let first = channel.basic_consume(&queue).consumer_tag("twice").await.unwrap();
        let error = channel.basic_consume(&queue).consumer_tag("twice").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert_works(&channel).await;
        first.cancel().await.unwrap();
        let again = channel.basic_consume(&queue).consumer_tag("twice").await.unwrap();
        drop(first);
        fill(&publisher, &queue, 0..1).await;
        let mut again = again;
        next(&mut again).await.ack().unwrap();
        let names: HashSet<_> =
            [channel.basic_consume(&queue).await.unwrap(), channel.basic_consume(&queue).await.unwrap()]
                .iter()
                .map(Consumer::consumer_tag)
                .collect();
        assert_eq!(names.len(), 2);
    }

    /// c107: what was delivered before the server agreed can still be taken.
    async fn cancelling_keeps_what_was_delivered(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        fill(&channel, &queue, 0..10).await;
        let mut consumer = channel.basic_consume(&queue).prefetch(5).await.unwrap();
        next(&mut consumer).await.ack().unwrap();
        within("cancel-ok", consumer.cancel()).await.unwrap();
        consumer.cancel().await.expect("a second time is fine");
        let mut taken = 1;
        while let Some(delivery) = within("the rest", consumer.next()).await {
            let delivery = delivery.unwrap();
            assert_eq!(number(&delivery), taken);
            delivery.ack().unwrap();
            taken += 1;
        }
        assert!(within("the end", consumer.next()).await.is_none(), "it stays at its end");
        assert_eq!(ready(&channel, &queue).await, 10 - taken);
        assert_eq!(look_at(&channel, &queue).await.consumer_count(), 0);
    }

    /// A consumer that is dropped is cancelled, and what nobody has seen is there for the next one.
    async fn a_dropped_consumer_gives_back_what_nobody_has_seen(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        fill(&channel, &queue, 0..100).await;
        let mut consumer = channel.basic_consume(&queue).prefetch(50).await.unwrap();
        let in_hand = next(&mut consumer).await;
        drop(consumer);
        until("the rest to be back", async || ready(&channel, &queue).await == 99).await;
        assert_eq!(look_at(&channel, &queue).await.consumer_count(), 0);
        in_hand.ack().expect("what is in hand can be settled");
        let mut other = channel.basic_consume(&queue).await.unwrap();
        let mut numbers = HashSet::new();
        for _ in 0..99 {
            let delivery = next(&mut other).await;
            numbers.insert(number(&delivery));
            delivery.ack().unwrap();
        }
        assert_eq!(numbers, (1..100).collect());
        assert_eq!(ready(&channel, &queue).await, 0);
    }

    /// Each of these stands by itself in memory, and all have been taken over when the first is handed out.
    async fn a_dropped_consumer_gives_back_large_messages(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        channel.confirm_select().await.unwrap();
        for _ in 0..10 {
            let confirm = channel.basic_publish("", &queue, vec![7; 20_000]).await.unwrap();
            within("a confirm", confirm).await.unwrap().accepted().unwrap();
        }
        let mut consumer = channel.basic_consume(&queue).prefetch(10).await.unwrap();
        until("all of them are delivered", async || ready(&channel, &queue).await == 0).await;
        let in_hand = next(&mut consumer).await;
        drop(consumer);
        until("the rest to be back", async || ready(&channel, &queue).await == 9).await;
        in_hand.ack().unwrap();
    }

    /// The future of a consume that is dropped half-way leaves no consumer behind.
    async fn a_consume_that_is_given_up(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        fill(&channel, &queue, 0..10).await;
        for _ in 0..20 {
            let mut consume = Box::pin(async { channel.basic_consume(&queue).await });
            crate::support::ready_at_once(&mut consume).await;
            drop(consume);
        }
        until("everything to be as before", async || {
            let queue = look_at(&channel, &queue).await;
            (queue.message_count(), queue.consumer_count()) == (10, 0)
        })
        .await;
    }

    /// c108, pain 8
    async fn a_queue_is_deleted_under_its_consumer(server: Server) {
        let connection = server.connect().await;
        let (channel, other) = (connection.open_channel().await.unwrap(), connection.open_channel().await.unwrap());
        let queue = exclusive_queue(&channel).await;
        fill(&channel, &queue, 0..1).await;
        let mut consumer = channel.basic_consume(&queue).await.unwrap();
        let mut silent = channel.basic_consume(&queue).no_ack().await.unwrap();
        let delivery = next(&mut consumer).await;
        other.queue_delete(&queue).await.unwrap();
        let error = within("the end", consumer.next()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        assert_eq!(error.origin(), Origin::Peer);
        assert!(error.to_string().contains(consumer.consumer_tag().to_str().unwrap()), "{error}");
        assert!(within("nothing more", consumer.next()).await.is_none());
        assert_eq!(within("the end", silent.next()).await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
        consumer.cancel().await.expect("it has ended already");
        delivery.ack().expect("acks for a queue that is gone are fine");
        assert_works(&channel).await;
    }

    /// Consumers end with what ended their channel, or their connection.
    async fn a_channel_ends_under_its_consumer(server: Server) {
        let connection = server.connect().await;
        let channel = connection.open_channel().await.unwrap();
        let queue = exclusive_queue(&channel).await;
        let mut consumer = channel.basic_consume(&queue).await.unwrap();
        channel.queue_declare(&unique("nothing")).passive(true).await.unwrap_err();
        let error = within("the end", consumer.next()).await.unwrap().unwrap_err();
        assert_channel_closed(&error, 404);
        assert!(within("nothing more", consumer.next()).await.is_none());
        assert_channel_closed(&consumer.cancel().await.unwrap_err(), 404);

        let channel = connection.open_channel().await.unwrap();
        let mut consumer = channel.basic_consume(&queue).await.unwrap();
        channel.close().await.unwrap();
        assert!(within("the end", consumer.next()).await.is_none(), "this side knows why");

        let channel = connection.open_channel().await.unwrap();
        let mut consumer = channel.basic_consume(&queue).await.unwrap();
        connection.close().await.unwrap();
        assert!(within("the end", consumer.next()).await.is_none());
    }

    /// One task waits for deliveries, another tells the consumer to stop.
    async fn a_consumer_is_cancelled_from_elsewhere(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        let mut consumer = channel.basic_consume(&queue).await.unwrap();
        let canceller = consumer.canceller();
        let waiting = tokio::spawn(async move { consumer.next().await.is_none() });
        within("the cancel", canceller.cancel()).await.unwrap();
        assert!(within("the consumer", waiting).await.unwrap(), "the stream ends plainly");
        let _next = channel.basic_consume(&queue).await.unwrap();
        within("a cancel too late", canceller.cancel()).await.unwrap();
        assert_eq!(channel.queue_declare(&queue).passive(true).await.unwrap().consumer_count(), 1);
    }

    async fn consuming_from_nothing(server: Server) {
        let channel = server.channel().await;
        let error = channel.basic_consume(&unique("nothing")).await.unwrap_err();
        assert_channel_closed(&error, 404);
        assert_eq!(error.failing_method(), Some((60, 20)), "basic.consume");
    }

    /// A consumer that does not read: memory is bounded, and nothing is lost (pain 13).
    async fn a_consumer_that_does_not_read(server: Server) {
        const MANY: u32 = 4000;
        let publisher = server.channel().await;
        let queue = unique("pressure");
        publisher.queue_declare(&queue).await.unwrap();
        publisher.confirm_select().await.unwrap();
        let body = |n: u32| Bytes::from(format!("{n:08}").repeat(1024));

        let connection = within("a connection", server.builder().max_buffered(256 * 1024).open()).await.unwrap();
        let channel = connection.open_channel().await.unwrap();
        let mut messages = channel.basic_consume(&queue).no_ack().await.unwrap();
        let mut last = None;
        for n in 0..MANY {
            last = Some(publisher.basic_publish("", &queue, body(n)).await.unwrap());
        }
        within("the last confirm", last.unwrap()).await.unwrap().accepted().unwrap();
        // 32 MB went into the queue. While nobody takes them they wait here, in the sockets and in the server.
        for n in 0..MANY {
            let message = within("a message", messages.next()).await.unwrap().unwrap();
            assert!(*message.body() == body(n), "message {n}");
        }
        assert_works(&channel).await;
        publisher.queue_delete(&queue).await.unwrap();
    }

    /// c122
    async fn direct_reply_to(server: Server) {
        let connection = server.connect().await;
        let (asks, answers) = (connection.open_channel().await.unwrap(), connection.open_channel().await.unwrap());
        let queue = exclusive_queue(&answers).await;
        let mut questions = answers.basic_consume(&queue).await.unwrap();
        let mut replies = asks.basic_consume("amq.rabbitmq.reply-to").no_ack().await.unwrap();
        let properties = Properties::new().reply_to("amq.rabbitmq.reply-to").correlation_id("7");
        drop(asks.basic_publish("", &queue, "question").properties(&properties).await.unwrap());
        let question = next(&mut questions).await;
        let asked = question.properties().unwrap();
        let properties = Properties { correlation_id: asked.correlation_id, ..Properties::new() };
        let reply_to = asked.reply_to.unwrap();
        drop(answers.basic_publish("", reply_to.to_str().unwrap(), "answer").properties(&properties).await.unwrap());
        question.ack().unwrap();
        let reply = within("the reply", replies.next()).await.unwrap().unwrap();
        assert_eq!(reply.body(), b"answer");
        assert_eq!(reply.properties().unwrap().correlation_id, Some("7".into()));
    }
}

/// A consumer of a scripted peer, with its tag.
async fn consumer_of(channel: &Channel, peer: &mut Peer) -> Consumer {
    let (consumer, ()) = tokio::join!(async { channel.basic_consume("q").await }, async {
        expect!(peer, Basic(basic)::Qos);
        peer.send(1, basic::QosOk {}).await;
        let (_, consume) = expect!(peer, Basic(basic)::Consume);
        peer.send(1, basic::ConsumeOk { consumer_tag: consume.consumer_tag }).await;
    });
    consumer.unwrap()
}

fn deliver(tag: &str, delivery_tag: u64) -> Vec<Frame> {
    let deliver = basic::Deliver {
        consumer_tag: tag.into(),
        delivery_tag,
        redelivered: false,
        exchange: "".into(),
        routing_key: "q".into(),
    };
    content(1, deliver, delivery_tag.to_string().as_bytes())
}

on_its_own! {
    /// c113, c114: a consumer has a limit of its own, unless told otherwise, and is told of no octets.
    async fn a_consumer_has_a_limit_unless_told_otherwise() {
        let (connection, mut peer) = connected().await;
        let channel = channel_of(&connection, &mut peer).await;
        let mut consumers = Vec::new();
        for (prefetch, expected) in [(None, 256), (Some(7), 7), (Some(0), 0)] {
            let consume = channel.basic_consume("q");
            let consume = prefetch.into_iter().fold(consume, |consume, count| consume.prefetch(count));
            let (consumer, ()) = tokio::join!(async { consume.await }, async {
                let (_, qos) = expect!(peer, Basic(basic)::Qos);
                assert_eq!(qos, basic::Qos { prefetch_size: 0, prefetch_count: expected, global: false });
                peer.send(1, basic::QosOk {}).await;
                let (_, consume) = expect!(peer, Basic(basic)::Consume);
                peer.send(1, basic::ConsumeOk { consumer_tag: consume.consumer_tag }).await;
            });
            consumers.push(consumer.unwrap());
        }
    }

    /// c106: a delivery that is faster than consume-ok.
    async fn a_delivery_before_consume_ok() {
        let (connection, mut peer) = connected().await;
        let channel = channel_of(&connection, &mut peer).await;
        let consume = async { channel.basic_consume("q").consumer_tag("eager").await };
        let (consumer, ()) = tokio::join!(consume, async {
            expect!(peer, Basic(basic)::Qos);
            peer.send(1, basic::QosOk {}).await;
            expect!(peer, Basic(basic)::Consume);
            peer.frames(&deliver("eager", 1)).await;
            peer.send(1, basic::ConsumeOk { consumer_tag: "eager".into() }).await;
        });
        let delivery = next(&mut consumer.unwrap()).await;
        assert_eq!(number(&delivery), 1);
    }

    /// c108: a server that wants an answer to its cancel gets one.
    async fn a_server_that_wants_cancel_ok() {
        let (connection, mut peer) = connected().await;
        let channel = channel_of(&connection, &mut peer).await;
        let mut consumer = consumer_of(&channel, &mut peer).await;
        let consumer_tag = consumer.consumer_tag();
        peer.frames(&deliver(consumer_tag.to_str().unwrap(), 1)).await;
        peer.send(1, basic::Cancel { consumer_tag: consumer_tag.clone(), no_wait: false }).await;
        assert_eq!(expect!(peer, Basic(basic)::CancelOk).1, basic::CancelOk { consumer_tag });
        assert_eq!(next_number(&mut consumer).await, 1, "what came before the end is delivered before the end");
        assert_eq!(within("the end", consumer.next()).await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    }

    /// c107: what arrives after the consumer was dropped goes back at once.
    async fn deliveries_to_a_dropped_consumer_go_back() {
        let (connection, mut peer) = connected().await;
        let channel = channel_of(&connection, &mut peer).await;
        let mut consumer = consumer_of(&channel, &mut peer).await;
        let tag = consumer.consumer_tag();
        let tag = tag.to_str().unwrap();
        peer.frames(&[deliver(tag, 1), deliver(tag, 2), deliver(tag, 3)].concat()).await;
        let first = next(&mut consumer).await;
        drop(consumer);
        let (_, cancel) = expect!(peer, Basic(basic)::Cancel);
        assert_eq!(cancel.consumer_tag, *tag);
        for delivery_tag in [2, 3] {
            assert_eq!(expect!(peer, Basic(basic)::Reject).1, basic::Reject { delivery_tag, requeue: true });
        }
        peer.frames(&deliver(tag, 4)).await;
        peer.send(1, basic::CancelOk { consumer_tag: tag.into() }).await;
        assert_eq!(expect!(peer, Basic(basic)::Reject).1, basic::Reject { delivery_tag: 4, requeue: true });
        first.ack().unwrap();
        assert_eq!(expect!(peer, Basic(basic)::Ack).1, basic::Ack { delivery_tag: 1, multiple: false });
        assert!(connection.is_open());
    }

    /// A consumer that nobody wants before it has begun is cancelled when it has: RabbitMQ's channel does not survive a cancel that
    /// is faster than its own consume-ok.
    async fn a_cancel_waits_for_consume_ok() {
        let (connection, mut peer) = connected().await;
        let channel = channel_of(&connection, &mut peer).await;
        let consume = async { channel.basic_consume("q").deadline(Duration::from_millis(20)).await };
        consume.await.unwrap_err();
        expect!(peer, Basic(basic)::Qos);
        let (_, consume) = expect!(peer, Basic(basic)::Consume);
        let next_call = async { channel.basic_get("q").await };
        let (got, ()) = tokio::join!(next_call, async {
            peer.send(1, basic::QosOk {}).await;
            expect!(peer, Basic(basic)::Get);
            let consumer_tag = consume.consumer_tag;
            peer.send(1, basic::ConsumeOk { consumer_tag: consumer_tag.clone() }).await;
            assert_eq!(expect!(peer, Basic(basic)::Cancel).1.consumer_tag, consumer_tag);
            peer.send(1, basic::GetEmpty::default()).await;
            peer.send(1, basic::CancelOk { consumer_tag }).await;
        });
        assert!(got.unwrap().is_none());
        assert!(connection.is_open());
    }

    /// A message that was fetched for somebody who no longer waits goes back, too.
    async fn a_get_that_is_given_up() {
        let (connection, mut peer) = connected().await;
        let channel = channel_of(&connection, &mut peer).await;
        let error = channel.basic_get("q").deadline(Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        expect!(peer, Basic(basic)::Get);
        let get_ok = basic::GetOk { delivery_tag: 5, ..Default::default() };
        peer.frames(&content(1, get_ok, b"late")).await;
        assert_eq!(expect!(peer, Basic(basic)::Reject).1, basic::Reject { delivery_tag: 5, requeue: true });
        assert!(connection.is_open());
    }

    /// What nobody reads is not read from the socket either: the server cannot fill the memory, and then nothing is lost (pain 13).
    async fn memory_is_bounded() {
        const EACH: usize = 8 * 1024;
        let (connection, mut peer) =
            crate::scripted::connected_as(crate::scripted::TUNE, |builder| builder.max_buffered(64 * 1024)).await;
        let channel = channel_of(&connection, &mut peer).await;
        let consume = async { channel.basic_consume("q").consumer_tag("idle").no_ack().await };
        let (messages, ()) = tokio::join!(consume, async {
            expect!(peer, Basic(basic)::Consume);
            peer.send(1, basic::ConsumeOk { consumer_tag: "idle".into() }).await;
        });
        let mut messages = messages.unwrap();
        let deliver = basic::Deliver { consumer_tag: "idle".into(), ..Default::default() };
        let frames = content(1, deliver, &[7; EACH]);
        let mut sent = 0;
        // As much as the sockets hold, and a little more.
        while let Some(rest) = peer.frames_for(&frames, Duration::from_millis(500)).await {
            sent += 1;
            assert!(sent * EACH < 64 << 20, "64 MiB have gone to a consumer that does not read");
            if !rest.is_empty() {
                let ((), read) = tokio::join!(peer.raw(&rest), async {
                    for _ in 0..sent - 1 {
                        let message = within("a message", messages.next()).await.unwrap().unwrap();
                        assert_eq!(message.body().len(), EACH);
                    }
                    true
                });
                assert!(read);
                break;
            }
        }
        assert_eq!(within("the last message", messages.next()).await.unwrap().unwrap().body(), [7; EACH]);
        assert!(connection.is_open());
    }

}

/// A reader that pauses does not take the silence for a dead server (pain 16).
#[tokio::test(start_paused = true)]
async fn a_pause_is_no_missed_heartbeat() {
    let tune = leveret::codec::method::connection::Tune { heartbeat: 1, ..crate::scripted::TUNE };
    let (connection, mut peer): (Connection, Peer) =
        crate::scripted::connected_in_memory(tune, |builder| builder.max_buffered(1)).await;
    let channel = channel_of(&connection, &mut peer).await;
    let mut consumer = consumer_of(&channel, &mut peer).await;
    let tag = consumer.consumer_tag();
    peer.frames(&deliver(tag.to_str().unwrap(), 1)).await;
    // Nothing is read from here on; what the peer hears of the client are heartbeats.
    for _ in 0..7 {
        assert_eq!(within("a heartbeat", peer.frame()).await, Some(Frame::Heartbeat));
    }
    assert!(connection.is_open());
    assert_eq!(next_number(&mut consumer).await, 1);
    // A server has its time again from here on.
    tokio::time::sleep(Duration::from_secs(1)).await;
    peer.frames(&deliver(tag.to_str().unwrap(), 2)).await;
    assert_eq!(next_number(&mut consumer).await, 2);
}

on_rabbitmq! {
    /// c136: streams are read from where one likes, with a prefetch and acks.
    async fn a_stream(server: Server) {
        let channel = server.channel().await;
        let stream = unique("stream");
        channel.queue_declare(&stream).durable(true).argument("x-queue-type", "stream").await.unwrap();
        fill(&channel, &stream, 0..100).await;
        for (offset, first) in [(FieldValue::from("first"), 0), (FieldValue::from(40i64), 40)] {
            let consume = channel.basic_consume(&stream).prefetch(10).argument("x-stream-offset", offset);
            let mut consumer = consume.await.unwrap();
            for expected in first..100 {
                let delivery = next(&mut consumer).await;
                assert_eq!(number(&delivery), expected);
                let headers = delivery.properties().unwrap().headers.unwrap();
                assert_eq!(headers.get("x-stream-offset").unwrap().as_i64(), Some(expected.into()));
                delivery.ack().unwrap();
            }
            consumer.cancel().await.unwrap();
        }
        channel.queue_delete(&stream).await.unwrap();
    }

    async fn a_quorum_queue(server: Server) {
        let channel = server.channel().await;
        let queue = unique("quorum");
        channel.queue_declare(&queue).durable(true).argument("x-queue-type", "quorum").await.unwrap();
        fill(&channel, &queue, 0..100).await;
        let mut consumer = channel.basic_consume(&queue).prefetch(10).await.unwrap();
        for expected in 0..100 {
            let delivery = next(&mut consumer).await;
            assert_eq!(number(&delivery), expected);
            delivery.ack().unwrap();
        }
        fill(&channel, &queue, 100..101).await;
        next(&mut consumer).await.nack(true).unwrap();
        let again = next(&mut consumer).await;
        let headers = again.properties().unwrap().headers.unwrap();
        assert_eq!(headers.get("x-delivery-count").unwrap().as_i64(), Some(1));
        again.ack().unwrap();
        drop(consumer);
        channel.queue_delete(&queue).await.unwrap();
    }
}
