//! Receiving: one by one, in batches, by a function; what stops it, and what becomes of the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use leveret::amqp::FieldValue;
use leveret::broker::Broker;
use leveret::error::ErrorKind;
use leveret::messaging::{Client, ClientState, Disposition, RecoveryPolicy, Source, Target};
use tokio::sync::{Barrier, Semaphore, mpsc};

use crate::support::{
    Kept, Server, channel, delivered, exclusive_queue, fill, look_at, next, number, receiver, unique, until, within,
};
use crate::wire::Settlement;

/// Remembers that it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

on_every_server! {
    /// U30: at least one, at most so many, and nothing is an empty batch and no error.
    async fn batches(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let mut receiver = receiver(&client, &queue).await;
        let nothing = receiver.recv_batch(10, Some(Duration::from_millis(20))).await.unwrap();
        assert!(nothing.is_empty());
        assert!(receiver.recv_batch(0, None).await.unwrap().is_empty());
        fill(&client, &queue, 0..100).await;
        let mut got = Vec::new();
        while got.len() < 100 {
            let batch = within("a batch", receiver.recv_batch(7, None)).await.unwrap();
            assert!(!batch.is_empty() && batch.len() <= 7);
            for delivery in batch {
                got.push(number(delivery.body()));
                delivery.accept().unwrap();
            }
        }
        assert_eq!(got, (0..100).collect::<Vec<_>>());
        // What came before the end is handed out first, then the reason.
        fill(&client, &queue, 0..3).await;
        let mut rest = Vec::new();
        while rest.len() < 3 {
            rest.append(&mut within("a batch", receiver.recv_batch(1, None)).await.unwrap());
        }
        channel(&client).await.queue_delete(&queue).await.unwrap();
        let error = within("the reason", receiver.recv_batch(7, None)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert_eq!(within("the end", receiver.recv_batch(7, None)).await.unwrap_err().kind(), ErrorKind::Closed);
    }

    /// An error that comes behind deliveries which are handed out together is told the next time.
    async fn an_error_behind_a_batch(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let look = channel(&client).await;
        let mut receiver = receiver(&client, &queue).await;
        fill(&client, &queue, 0..3).await;
        until("the deliveries", async || look_at(&look, &queue).await.message_count() == 0).await;
        look.queue_delete(&queue).await.unwrap();
        let mut got = 0;
        while got < 3 {
            got += within("a batch", receiver.recv_batch(7, None)).await.unwrap().len();
        }
        let error = within("the reason", receiver.recv_batch(7, None)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }

    /// However far they have come in taking turns when the old consumers end, the new ones are all listened to.
    async fn another_prefetch_for_several_consumers(server: Server) {
        let client = server.client().await;
        for taken in 0..6 {
            let queue = exclusive_queue(&client).await;
            let mut receiver = client.receiver(Source::queue(&queue)).consumers(2).build().await.unwrap();
            fill(&client, &queue, 0..taken).await;
            for _ in 0..taken {
                next(&mut receiver).await.accept().unwrap();
            }
            receiver.set_prefetch(3).await.unwrap();
            // Here the old ones end; the message may come to any of the new ones.
            let woken = Arc::new(Woken::default());
            let polled = receiver.poll_next_unpin(&mut Context::from_waker(&Waker::from(Arc::clone(&woken))));
            assert!(polled.is_pending());
            fill(&client, &queue, 7..8).await;
            until("the receiver is woken", async || woken.0.load(Ordering::SeqCst)).await;
            assert_eq!(number(next(&mut receiver).await.body()), 7);
        }
    }

    /// U32, Z13: a stream like any other; nothing is accepted behind one's back.
    async fn a_stream(server: Server) {
        let (client, tap) = server.tapped().await;
        let queue = exclusive_queue(&client).await;
        fill(&client, &queue, 0..10).await;
        let mut receiver = receiver(&client, &queue).await;
        let numbers: Vec<_> =
            within("ten", (&mut receiver).take(10).map(|delivery| number(delivery.unwrap().body())).collect::<Vec<_>>()).await;
        assert_eq!(numbers, (0..10).collect::<Vec<_>>());
        // All of them were dropped, and came back.
        let settled = tap.settled(10).await;
        assert!(settled.iter().all(|one| matches!(one, Settlement::Nack { requeue: true, .. })), "{settled:?}");
        assert!(next(&mut receiver).await.redelivered());
    }

    /// Scenario 7; Z15, U39: without acknowledgements nothing is settled on the wire, and nothing can be: what comes has no
    /// methods for it (that neither this nor settling twice compiles is tested in the documentation of `MessageStream` and `Delivery`).
    async fn scenario_07_nothing_is_settled_without_acknowledgements(server: Server) {
        let (client, tap) = server.tapped().await;
        let queue = exclusive_queue(&client).await;
        fill(&client, &queue, 0..100).await;
        let mut stream = client.receiver(Source::queue(&queue)).build_no_ack().await.unwrap();
        for n in 0..100 {
            let received = within("a message", stream.recv()).await.unwrap().unwrap();
            assert_eq!(number(received.body()), n);
        }
        stream.cancel().await.unwrap();
        assert!(within("the end", stream.next()).await.is_none());
        drop(stream);
        let channel = channel(&client).await;
        assert_eq!(look_at(&channel, &queue).await.message_count(), 0);
        client.close().await;
        assert_eq!(tap.settlements(), []);
    }

    /// U31, Z14, KL8: several at a time; a handler that fails or panics disturbs no other, and its message comes again, as failed.
    async fn handlers_that_fail_and_panic(server: Server) {
        let (client, tap) = server.tapped().await;
        let queue = exclusive_queue(&client).await;
        fill(&client, &queue, 0..30).await;
        let receiver = client
            .receiver(Source::queue(&queue))
            .on_failure(Disposition::Modify(leveret::messaging::Modify { delivery_failed: true, undeliverable_here: false }), Duration::from_millis(10))
            .build()
            .await
            .unwrap();
        // The first two wait for each other.
        let together = Arc::new(Barrier::new(2));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (told, mut tell) = mpsc::unbounded_channel();
        let handler = |received: leveret::messaging::Received| {
            let n = number(received.body());
            assert!(n != 5 || received.redelivered(), "a panic before there is a future");
            let (now, most, told, together) = (now.clone(), most.clone(), told.clone(), together.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                if n < 2 {
                    together.wait().await;
                }
                now.fetch_sub(1, Ordering::SeqCst);
                assert!(n != 7 || received.redelivered(), "a panic in the future");
                told.send((n, received.redelivered())).unwrap();
                match (n, received.redelivered()) {
                    (11, false) => Err("a failure"),
                    (13, _) => Ok(Disposition::Reject),
                    _ => Ok(Disposition::Accept),
                }
            }
        };
        let stop = tap.settled(33);
        within("the end", receiver.for_each_until(4, stop, handler)).await.unwrap();
        let mut seen = Vec::new();
        while let Ok(one) = tell.try_recv() {
            seen.push(one);
        }
        seen.sort_unstable();
        let expected = (0..30).flat_map(|n| match n {
            5 | 7 => vec![(n, true)],
            11 => vec![(n, false), (n, true)],
            _ => vec![(n, false)],
        });
        assert_eq!(seen, expected.collect::<Vec<_>>());
        assert!((2..=4).contains(&most.load(Ordering::SeqCst)), "{most:?}");
        let settled = tap.settled(33).await;
        assert_eq!(settled.len(), 33);
        let rejects = settled.iter().filter(|one| matches!(one, Settlement::Reject { requeue: true, .. })).count();
        assert_eq!(rejects, 3, "5, 7 and 11 went back as failed");
        assert_eq!(settled.iter().filter(|one| matches!(one, Settlement::Reject { requeue: false, .. })).count(), 1);
    }

    /// Z14: a message that always fails does not keep the queue spinning, and does not hold up the others.
    async fn a_message_that_always_fails(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        fill(&client, &queue, 0..20).await;
        let receiver = client
            .receiver(Source::queue(&queue))
            .on_failure(Disposition::Release, Duration::from_secs(3600))
            .build()
            .await
            .unwrap();
        let (attempts, done) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let handler = |received: leveret::messaging::Received| {
            let (attempts, done) = (attempts.clone(), done.clone());
            async move {
                if number(received.body()) == 0 {
                    attempts.fetch_add(1, Ordering::SeqCst);
                    return Err("never");
                }
                done.fetch_add(1, Ordering::SeqCst);
                Ok(Disposition::Accept)
            }
        };
        tokio::select! {
            end = receiver.for_each(1, handler) => panic!("{end:?}"),
            () = until("the others", async || done.load(Ordering::SeqCst) == 19) => {}
        }
        assert_eq!(attempts.load(Ordering::SeqCst), 1);
        // The function is gone, and what rested goes back at once.
        let delivery = next(&mut self::receiver(&client, &queue).await).await;
        assert_eq!((number(delivery.body()), delivery.redelivered()), (0, true));
    }

    /// Dropping `for_each` stops the handlers where they wait, and what they had goes back.
    async fn for_each_is_dropped(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        fill(&client, &queue, 0..5).await;
        let failing = receiver(&client, &queue).await;
        let running = Arc::new(Semaphore::new(0));
        let handler = |_| {
            let running = running.clone();
            async move {
                running.add_permits(1);
                std::future::pending::<Result<Disposition, &str>>().await
            }
        };
        tokio::select! {
            end = failing.for_each(5, handler) => panic!("{end:?}"),
            started = running.acquire_many(5) => drop(started.unwrap()),
        }
        let (mut numbers, mut receiver) = (Vec::new(), receiver(&client, &queue).await);
        for _ in 0..5 {
            let delivery = next(&mut receiver).await;
            assert!(delivery.redelivered());
            numbers.push(number(delivery.body()));
            delivery.accept().unwrap();
        }
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
    }

    /// c58: told to stop, the handlers that run end and what they did is settled; what they did not get goes back at once, and so does what
    /// has failed.
    async fn for_each_until_it_is_told(server: Server) {
        let kept = Kept::new(server).await;
        let client = server.client().await;
        fill(&client, &kept.name, 0..50).await;
        let building = client.receiver(Source::queue(&kept.name)).on_failure(Disposition::Release, Duration::from_secs(3600));
        let receiver = building.build().await.unwrap();
        let (running, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (started, permit) = (running.clone(), go_on.clone());
        let handler = move |received: leveret::messaging::Received| {
            let (started, permit) = (started.clone(), permit.clone());
            async move {
                started.add_permits(1);
                let fails = number(received.body()) == 0;
                if !fails {
                    permit.acquire().await.unwrap().forget();
                }
                if fails { Err("it is the first one") } else { Ok(Disposition::Accept) }
            }
        };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let ended = tokio::spawn(receiver.for_each_until(4, stopped, handler));
        // The one that fails, and four that wait.
        within("the handlers", running.acquire_many(5)).await.unwrap().forget();
        stop.send(()).unwrap();
        // What nobody has got goes back while the handlers still run, and so does what has failed.
        let look = channel(&client).await;
        until("the others", async || look_at(&look, &kept.name).await.message_count() == 46).await;
        assert!(!ended.is_finished());
        go_on.add_permits(4);
        within("the end", ended).await.unwrap().unwrap();
        assert_eq!(running.available_permits(), 0, "nobody else was begun");
        assert!(client.close().await.is_clean());
        let mut there = kept.delete().await;
        there.sort_unstable();
        assert_eq!(there, [vec![0], (5..50).collect()].concat(), "what was done is settled");
    }

    /// Closing a receiver hands back what had been delivered and not fetched.
    async fn closing_hands_back_the_rest(server: Server) {
        let kept = Kept::new(server).await;
        let client = server.client().await;
        fill(&client, &kept.name, 0..10).await;
        let mut receiver = receiver(&client, &kept.name).await;
        next(&mut receiver).await.accept().unwrap();
        // All ten have been delivered when the queue is empty.
        let look = channel(&client).await;
        until("the deliveries", async || look_at(&look, &kept.name).await.message_count() == 0).await;
        let rest = within("the rest", receiver.close()).await.unwrap();
        assert_eq!(rest.iter().map(|delivery| number(delivery.body())).collect::<Vec<_>>(), (1..10).collect::<Vec<_>>());
        for delivery in rest {
            if number(delivery.body()).is_multiple_of(2) {
                delivery.accept().unwrap();
            }
        }
        until("the odd ones", async || look_at(&look, &kept.name).await.message_count() == 5).await;
        let mut there = kept.delete().await;
        there.sort_unstable();
        assert_eq!(there, [1, 3, 5, 7, 9]);
    }

    /// Uamqp's `timeout` of a receiver: it ends when nothing has come for a while, and not before.
    async fn an_idle_timeout(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let limit = Duration::from_secs(2);
        let mut receiver = client.receiver(Source::queue(&queue)).idle_timeout(limit).build().await.unwrap();
        let begin = tokio::time::Instant::now();
        let mut numbers = Vec::new();
        for n in 0..3 {
            fill(&client, &queue, n..n + 1).await;
            // It counts from the last time that there was one to be had, whoever was late to ask for it.
            delivered(&client, &queue).await;
            let delivery = next(&mut receiver).await;
            numbers.push(number(delivery.body()));
            delivery.accept().unwrap();
            // All of them together take longer than one may be waited for.
            assert!(tokio::time::timeout(limit * 2 / 5, receiver.recv()).await.is_err());
        }
        assert!(within("the end", receiver.recv()).await.is_none());
        assert!(begin.elapsed() >= limit * 9 / 5 - Duration::from_millis(10), "{:?}", begin.elapsed());
        assert_eq!(numbers, [0, 1, 2]);
        assert!(within("the end", receiver.recv()).await.is_none());
    }

    /// Z13: several consumers with tags of one's own, and a limit for each; the tags are on the wire.
    async fn several_consumers_with_tags(server: Server) {
        let (client, tap) = server.tapped().await;
        let queue = exclusive_queue(&client).await;
        fill(&client, &queue, 0..20).await;
        let builder = client.receiver(Source::queue(&queue)).consumers(3).prefetch(2).tag_prefix("zato-").priority(5);
        let mut receiver = builder.build().await.unwrap();
        let mut held = Vec::new();
        for _ in 0..6 {
            held.push(next(&mut receiver).await);
        }
        let more = tokio::time::timeout(Duration::from_millis(50), receiver.recv()).await;
        assert!(more.is_err(), "three consumers with two each");
        for delivery in held {
            delivery.accept().unwrap();
        }
        for _ in 6..20 {
            next(&mut receiver).await.accept().unwrap();
        }
        use leveret::codec::method::basic::Method::Consume;
        let frames = tap.frames();
        let consumes: Vec<_> = frames.iter().filter_map(|frame| match frame {
            leveret::codec::Frame::Method(channel, leveret::codec::Method::Basic(Consume(consume))) => Some((channel, consume)),
            _ => None,
        }).collect();
        assert_eq!(consumes.len(), 3);
        for (at, (channel, consume)) in consumes.iter().enumerate() {
            assert!(consume.consumer_tag.to_string().starts_with("zato-"));
            assert_eq!(consume.arguments.get("x-priority").and_then(FieldValue::as_i64), Some(5));
            let others = consumes.iter().skip(at + 1);
            assert!(others.into_iter().all(|(number, other)| number != channel && other.consumer_tag != consume.consumer_tag));
        }
    }

    /// U44: another prefetch on the way, and nothing is lost.
    async fn another_prefetch(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let mut receiver = client.receiver(Source::queue(&queue).exclusive()).prefetch(1).build().await.unwrap();
        fill(&client, &queue, 0..20).await;
        let first = next(&mut receiver).await;
        within("the answer", receiver.set_prefetch(5)).await.unwrap();
        let mut held = vec![first];
        // The old consumer's last one and the new one's five.
        for _ in 0..5 {
            held.push(next(&mut receiver).await);
        }
        let mut numbers = Vec::new();
        for delivery in held {
            numbers.push(number(delivery.body()));
            delivery.accept().unwrap();
        }
        while numbers.len() < 20 {
            let delivery = next(&mut receiver).await;
            numbers.push(number(delivery.body()));
            delivery.accept().unwrap();
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    }

    /// Consumers that have been replaced already, and have not been asked since, are not replaced again.
    async fn another_prefetch_and_another(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let mut receiver = client.receiver(Source::queue(&queue).exclusive()).build().await.unwrap();
        for count in [5, 6, 7] {
            within("the answer", receiver.set_prefetch(count)).await.unwrap();
        }
        assert_eq!(look_at(&channel(&client).await, &queue).await.consumer_count(), 1);
        fill(&client, &queue, 0..1).await;
        let delivery = next(&mut receiver).await;
        assert_eq!(number(delivery.body()), 0);
        delivery.accept().unwrap();
        assert!(within("the rest", receiver.close()).await.unwrap().is_empty());
    }

    /// The old consumer's deliveries come before those of the new one, which has its own already.
    async fn another_prefetch_keeps_the_order(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let look = channel(&client).await;
        fill(&client, &queue, 0..30).await;
        let mut receiver = client.receiver(Source::queue(&queue)).prefetch(10).build().await.unwrap();
        for left in [20, 10, 0] {
            until("ten deliveries", async || look_at(&look, &queue).await.message_count() == left).await;
            within("the answer", receiver.set_prefetch(10)).await.unwrap();
        }
        let mut numbers = Vec::new();
        let mut held = Vec::new();
        for _ in 0..30 {
            let delivery = next(&mut receiver).await;
            numbers.push(number(delivery.body()));
            held.push(delivery);
        }
        assert_eq!(numbers, (0..30).collect::<Vec<_>>());
    }

    /// A stream that has ended keeps no messages from others, even if it is still there.
    async fn what_has_ended_receives_nothing_more(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let look = channel(&client).await;
        let builder = || client.receiver(Source::queue(&queue)).consumers(2).idle_timeout(Duration::from_millis(20));
        let mut receiver = builder().build().await.unwrap();
        assert!(within("the end", receiver.recv()).await.is_none());
        until("no consumers", async || look_at(&look, &queue).await.consumer_count() == 0).await;
        let mut stream = builder().build_no_ack().await.unwrap();
        assert!(within("the end", stream.recv()).await.is_none());
        until("no consumers", async || look_at(&look, &queue).await.consumer_count() == 0).await;
        fill(&client, &queue, 0..3).await;
        assert_eq!(look_at(&look, &queue).await.message_count(), 3);
        assert!(receiver.recv().await.is_none() && stream.recv().await.is_none());
        assert!(within("the rest", receiver.close()).await.unwrap().is_empty());
    }

    /// Nor when one of its consumers has ended it.
    async fn what_one_consumer_has_ended_receives_nothing_more(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let (tell, mut told) = mpsc::unbounded_channel();
        let source = Source::queue(&queue);
        let builder = client.receiver_from(move |channel| {
            tell.send(channel).unwrap();
            let source = source.clone();
            async move { Ok(source) }
        });
        let mut receiver = builder.consumers(2).build().await.unwrap();
        let look = channel(&client).await;
        assert_eq!(look_at(&look, &queue).await.consumer_count(), 2);
        let first = told.recv().await.unwrap();
        first.queue_declare(&unique("missing")).passive(true).await.unwrap_err();
        let error = within("the reason", receiver.recv()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ChannelClosed);
        until("no consumers", async || look_at(&look, &queue).await.consumer_count() == 0).await;
        assert!(within("the end", receiver.recv()).await.is_none());
    }

    /// Whoever waits for the end does not wait for messages that rest: they go back with it.
    async fn what_rests_does_not_hold_up_the_end(server: Server) {
        let (client, tap) = server.tapped().await;
        let queue = exclusive_queue(&client).await;
        fill(&client, &queue, 0..3).await;
        let failed = Disposition::Modify(leveret::messaging::Modify { delivery_failed: true, undeliverable_here: true });
        let receiver = client
            .receiver(Source::queue(&queue))
            .on_failure(failed, Duration::from_secs(3600))
            .idle_timeout(Duration::from_millis(100))
            .build()
            .await
            .unwrap();
        delivered(&client, &queue).await;
        within("the end", receiver.for_each(1, async |_| Err::<Disposition, _>("never"))).await.unwrap();
        let settled = tap.settled(3).await;
        assert!(settled.iter().all(|one| matches!(one, Settlement::Reject { requeue: false, .. })), "{settled:?}");
    }

    /// What starting a receiver fails with.
    async fn receivers_that_cannot_be(server: Server) {
        let client = server.client().await;
        let missing = within("an error", client.receiver(Source::queue(unique("missing"))).build()).await.unwrap_err();
        assert_eq!((missing.kind(), missing.reply_code().unwrap().0), (ErrorKind::ChannelClosed, 404));
        let topic = client.receiver(Source::topic("t", "g")).build().await.unwrap_err();
        assert_eq!(topic.kind(), ErrorKind::Unsupported);
        assert_eq!(client.receiver(Source::topic("t", "g")).build_no_ack().await.unwrap_err().kind(), ErrorKind::Unsupported);
        let queue = exclusive_queue(&client).await;
        let _exclusive = client.receiver(Source::queue(&queue)).exclusive(true).build().await.unwrap();
        let refused = within("an error", client.receiver(Source::queue(&queue)).build()).await.unwrap_err();
        assert_eq!(refused.reply_code().unwrap().0, 403, "{refused}");
    }

    /// 2.5, azure#15555: a batch that waits for its first message and is given up loses nothing.
    async fn a_batch_that_is_given_up_loses_nothing(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let mut receiver = receiver(&client, &queue).await;
        let sender = client.sender().build().unwrap();
        let mut got = Vec::new();
        let mut sent = 0u32;
        while got.len() < 50 {
            if sent < 50 {
                drop(sender.send_pipelined(Target::queue(&queue), sent.to_string()).await.unwrap());
                sent += 1;
            }
            let wait = Duration::from_micros(u64::from(sent % 5) * 100);
            for delivery in within("a batch", receiver.recv_batch(3, Some(wait))).await.unwrap() {
                got.push(number(delivery.body()));
                delivery.accept().unwrap();
            }
        }
        assert_eq!(got, (0..50).collect::<Vec<_>>());
    }
}

/// pika 93, 564, 636 and 1104: a handler keeps its thread for longer than two heartbeat intervals. The connection lives on another
/// runtime, and its heartbeats go on.
#[test]
fn a_handler_that_blocks_its_thread() {
    let holder = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let broker = holder.block_on(Broker::builder().heartbeat(2).start()).unwrap();
    let caller = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    caller.block_on(async {
        let builder = Client::builder(&broker.url()).unwrap().spawn_on(holder.handle().clone());
        let client = within("a connection", builder.recovery(RecoveryPolicy::never()).connect()).await.unwrap();
        let queue = exclusive_queue(&client).await;
        let mut receiver = receiver(&client, &queue).await;
        for n in 0..2 {
            fill(&client, &queue, n..n + 1).await;
            let delivery = next(&mut receiver).await;
            assert_eq!(number(delivery.body()), n);
            // What takes so long is the handler's own work.
            std::thread::sleep(Duration::from_secs(if n == 0 { 5 } else { 0 }));
            delivery.accept().unwrap();
        }
        assert_eq!(client.state(), ClientState::Open);
    });
    drop(broker);
}
