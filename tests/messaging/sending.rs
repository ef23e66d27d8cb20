//! Sending: what a receipt says, what comes back, and who is disturbed by whose mistakes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use leveret::amqp::{FieldTable, ReplyCode};
use leveret::error::{ErrorKind, Outcome};
use leveret::messaging::{ConfirmMode, Event, Message, RetryDecision, RetryPolicy, SendState, Sender, Status, Target};

use crate::support::{
    PATIENCE, Server, channel, exclusive_queue, look_at, next, number, receiver, stalled, unique, until, within,
};
use crate::wire::Tap;

on_every_server! {
    /// Scenario 1; KA3, KA4, KA5, KB8, KB10, KB11, Z2, Z12.
    async fn scenario_01_what_a_receipt_says(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;

        let unconfirmed = client.sender().confirms(ConfirmMode::None).build().unwrap();
        let receipt = within("a receipt", unconfirmed.send(Target::queue(&queue), "a")).await.unwrap();
        assert_eq!((receipt.status, receipt.delivery_tag()), (Status::NotRequested, None));

        let sender = client.sender().build().unwrap();
        let receipt = within("a receipt", sender.send(Target::exchange("", &queue), "b")).await.unwrap();
        assert_eq!((receipt.status, receipt.delivery_tag()), (Status::Accepted, Some(1)));

        let nowhere = Target::queue(unique("nowhere"));
        let error = within("an error", sender.send(&nowhere, "c")).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Returned, Outcome::Refused), "{error}");
        assert_eq!(error.reply_code(), Some(ReplyCode(312)));
        let returned = error.returned().unwrap();
        assert_eq!((returned.reply_code.0, returned.reply_text.as_str()), (312, "NO_ROUTE"));
        assert_eq!(returned.message.body(), b"c");
        assert_eq!(returned.message.headers(), None, "the private header is taken off again");
        assert_eq!(error.into_message().unwrap().0, nowhere);

        // Not mandatory: accepted, and gone.
        let receipt = within("a receipt", sender.send(nowhere.mandatory(false), "d")).await.unwrap();
        assert_eq!(receipt.status, Status::Accepted);

        let mut events = client.events();
        let missing = Target::exchange(unique("missing"), "");
        let error = within("an error", sender.send(&missing, "e")).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::ChannelClosed, Outcome::Unknown), "{error}");
        assert_eq!(error.reply_code(), Some(ReplyCode::NOT_FOUND));
        let receipt = within("a receipt", sender.send(Target::queue(&queue), "f")).await.unwrap();
        assert_eq!((receipt.status, receipt.delivery_tag()), (Status::Accepted, Some(1)), "a fresh channel");
        match within("an event", events.next()).await {
            Some(Event::ChannelClosed(error)) => assert_eq!(error.reply_code(), Some(ReplyCode::NOT_FOUND)),
            other => panic!("{other:?}"),
        }

        // Messages on several channels are in no order.
        let channel = channel(&client).await;
        let mut bodies = Vec::new();
        while let Some(got) = channel.basic_get(&queue).no_ack().await.unwrap() {
            bodies.push(got.message.into_body());
        }
        bodies.sort();
        assert_eq!(bodies, ["a", "b", "f"]);
    }

    /// Scenario 2; the defect of lapin in 2.1. All messages look the same but for a header that a headers exchange routes by, so
    /// only the private header tells them apart.
    async fn scenario_02_exactly_the_odd_ones_come_back(server: Server) {
        const MESSAGES: usize = 1000;
        let client = server.client().await;
        let (queue, exchange) = (exclusive_queue(&client).await, unique("headers"));
        let setup = channel(&client).await;
        setup.exchange_declare(&exchange, "headers").auto_delete(true).await.unwrap();
        let arguments = FieldTable::new().with("x-match", "all").with("wanted", true);
        setup.queue_bind(&queue, &exchange, "").arguments(arguments).await.unwrap();
        if let Some(broker) = &server.broker {
            // One ack for all, in the end.
            broker.hold_confirms(true);
        }

        let sender = client.sender().build().unwrap();
        let tasks: Vec<_> = (0..MESSAGES)
            .map(|at| {
                let (sender, target) = (sender.clone(), Target::exchange(&exchange, "key"));
                let message = Message::new("always the same").header("wanted", at % 2 == 0);
                tokio::spawn(async move { sender.send(target, message).await })
            })
            .collect();
        until("all to be sent", async || sender.in_flight() == MESSAGES || server.broker.is_none()).await;
        if let Some(broker) = &server.broker {
            broker.hold_confirms(false);
        }
        for (at, result) in within("all results", join_all(tasks)).await.into_iter().enumerate() {
            match (at % 2, result.unwrap()) {
                (0, Ok(receipt)) => assert_eq!(receipt.status, Status::Accepted),
                (1, Err(error)) => {
                    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Returned, Outcome::Refused));
                    let returned = &error.returned().unwrap().message;
                    assert_eq!(returned.properties.headers, Some(FieldTable::new().with("wanted", false)));
                }
                (_, other) => panic!("number {at}: {other:?}"),
            }
        }
        assert_eq!(look_at(&setup, &queue).await.message_count() as usize, MESSAGES / 2);
        assert_eq!(sender.in_flight(), 0);
    }

    /// Without the private header, messages that look different are still told apart.
    async fn returns_without_the_private_header(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let sender = client.sender().exact_returns(false).build().unwrap();
        let nowhere = unique("nowhere");
        let messages = (0..100).map(|at| (Target::queue(if at % 2 == 0 { &queue } else { &nowhere }), at.to_string()));
        let report = within("a report", sender.send_batch(messages)).await;
        let failed: Vec<usize> = report.failed().map(|(at, _)| at).collect();
        assert_eq!(failed, (0..100).filter(|at| at % 2 == 1).collect::<Vec<_>>());
        let mut receiver = receiver(&client, &queue).await;
        let delivery = within("a delivery", receiver.recv()).await.unwrap().unwrap();
        assert_eq!(delivery.headers(), None);
    }

    /// 2.1: one who publishes to an exchange that is not there disturbs no other sender, and his own other messages have an outcome.
    async fn one_bad_exchange_disturbs_nobody_else(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let (good, bad) = (client.sender().build().unwrap(), client.sender().retry(RetryPolicy::never()).build().unwrap());
        let missing = unique("missing");
        for _ in 0..20 {
            let (bad_one, neighbour, good_one) = tokio::join!(
                bad.send(Target::exchange(&missing, ""), "x"),
                bad.send(Target::queue(&queue), "neighbour"),
                good.send(Target::queue(&queue), "good"),
            );
            assert_eq!(bad_one.unwrap_err().reply_code(), Some(ReplyCode::NOT_FOUND));
            good_one.unwrap();
            if let Err(error) = neighbour {
                assert_eq!((error.kind(), error.outcome()), (ErrorKind::ChannelClosed, Outcome::Unknown));
            }
        }
    }

    /// KA6, Z1: handing over without waiting; the receipt can be polled, waited for with a limit, and dropped.
    async fn handing_over_and_asking_later(server: Server) {
        let (client, tap, sender, queue) = stalled(server, |sender| sender).await;
        let target = Target::queue(&queue);
        let mut pending = sender.send_pipelined(&target, "0").await.unwrap();
        assert_eq!(pending.delivery_tag(), Some(2));
        assert!(within("nothing", pending.within(Duration::from_millis(1))).await.is_none());
        assert_eq!((sender.in_flight(), pending.state()), (1, SendState::Written));
        tap.stall(false);
        let receipt = within("a result", pending.within(PATIENCE)).await.unwrap().unwrap();
        assert_eq!(receipt.status, Status::Accepted);
        assert_eq!(pending.state(), SendState::Settled);

        // Nobody cares; they are sent all the same, in order.
        for n in 1..100u32 {
            drop(sender.send_pipelined(&target, n.to_string()).await.unwrap());
        }
        let report = within("a flush", sender.flush()).await;
        assert!(report.is_ok() && report.len() == 99, "{report:?}");
        assert!(within("a flush", sender.flush()).await.is_empty(), "they were told");
        let mut receiver = receiver(&client, &queue).await;
        assert_eq!(next(&mut receiver).await.body(), b"warm");
        for n in 0..100 {
            let delivery = next(&mut receiver).await;
            assert_eq!(number(delivery.body()), n);
            delivery.accept().unwrap();
        }
    }

    /// U11, U13: what nobody awaited is in the report of the flush, failures among them, in the order of sending.
    async fn a_flush_reports_what_nobody_awaited(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let sender = client.sender().build().unwrap();
        let nowhere = unique("nowhere");
        let mut held = None;
        for at in 0..10 {
            let target = Target::queue(if at == 7 { &nowhere } else { &queue });
            let pending = sender.send_pipelined(target, "x").await.unwrap();
            if at == 3 {
                held = Some(pending);
            }
        }
        let report = within("a flush", sender.flush()).await;
        assert_eq!(report.len(), 9, "one is held by somebody");
        assert_eq!(report.failed().map(|(at, error)| (at, error.kind())).collect::<Vec<_>>(), [(6, ErrorKind::Returned)]);
        assert_eq!(held.as_ref().unwrap().state(), SendState::Settled, "the flush has waited for this one, too");
        assert_eq!(within("a receipt", held.unwrap()).await.unwrap().status, Status::Accepted);
    }

    /// What is kept for a message that is not accepted is let go once it was: large payloads at once, others together with those that
    /// were sent about the same time.
    async fn payloads_are_let_go(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let sender = client.sender().build().unwrap();
        let target = Target::queue(&queue);
        let alive = Arc::new(());
        let payload = |size: usize| Bytes::from_owner(Payload(vec![b'x'; size], Arc::clone(&alive)));
        let send = |size: usize| sender.send_pipelined(&target, payload(size));
        let count = || Arc::strong_count(&alive) - 1;
        let mut pending = Vec::new();
        for _ in 0..100 {
            pending.push(send(10).await.unwrap());
        }
        for receipt in within("receipts", join_all(pending)).await {
            receipt.unwrap();
        }
        assert_eq!(count(), 0, "the newest one was asked for");
        // Nobody asks for the newest one for the time being.
        let (small, large) = (send(10).await.unwrap(), send(10_000).await.unwrap());
        let newest = send(10).await.unwrap();
        within("a receipt", small).await.unwrap();
        within("a receipt", large).await.unwrap();
        let left = count();
        assert!(left <= 2, "the large one is among the {left} that are kept");
        within("a receipt", newest).await.unwrap();
        assert_eq!(count(), 0);
        // Nobody asks for these at all.
        for _ in 0..100 {
            drop(send(10).await.unwrap());
        }
        assert!(within("a flush", sender.flush()).await.is_ok());
        assert_eq!(count(), 0);
    }

    /// Nothing more will be heard of these, and so nothing is kept.
    async fn what_is_sent_without_confirms_is_let_go(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let sender = client.sender().confirms(ConfirmMode::None).build().unwrap();
        let (target, alive) = (Target::queue(&queue), Arc::new(()));
        for size in [10, 10_000].repeat(10) {
            let payload = Bytes::from_owner(Payload(vec![b'x'; size], Arc::clone(&alive)));
            let receipt = within("a receipt", sender.send(&target, payload)).await.unwrap();
            assert_eq!(receipt.status, Status::NotRequested);
        }
        until("everything to be written", async || Arc::strong_count(&alive) == 1).await;
    }

    /// A waker may do what it likes, even with the sender that wakes it: here one that waits for room behind a message that turns out to
    /// be impossible, and gives its room to the next in line.
    async fn a_waker_that_sends(server: Server) {
        let (_client, tap, sender, queue) = stalled(server, |sender| sender.max_in_flight(1)).await;
        let target = Target::queue(&queue);
        let first = sender.send_pipelined(&target, "first").await.unwrap();
        let mut impossible = Box::pin({
            let (sender, target) = (sender.clone(), Target::queue("q".repeat(256)));
            async move { sender.send(target, "impossible").await.map(drop) }
        });
        assert!(impossible.as_mut().now_or_never().is_none(), "it waits for room");
        let impossible = tokio::spawn(impossible);
        let waker = Arc::new(Resend { sender: sender.clone(), target: target.clone(), woken: AtomicBool::new(false) });
        let mut second = Box::pin(sender.send_pipelined(&target, "second"));
        assert!(second.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&waker)))).is_pending());
        tap.stall(false);
        until("the waker", async || waker.woken.load(Ordering::SeqCst)).await;
        assert_eq!(within("an error", impossible).await.unwrap().unwrap_err().kind(), ErrorKind::InvalidArgument);
        within("a receipt", first).await.unwrap();
        let second = within("room", second).await.unwrap();
        within("a receipt", second).await.unwrap();
    }

    /// U10: never waits, and gives the message back.
    async fn enqueueing_without_waiting(server: Server) {
        let tap = Tap::new(server.url()).await;
        let client = leveret::messaging::Client::builder(tap.url()).unwrap().lazy().unwrap();
        let sender = client.sender().max_in_flight(3).build().unwrap();
        let queue = exclusive_queue(&client).await;
        let target = Target::queue(&queue);
        let error = sender.try_enqueue(&target, "too early").unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::NotSent), "{error}");
        assert_eq!(error.into_message().unwrap().1.body(), b"too early");
        let mut first = None;
        until("a channel", async || {
            first = sender.try_enqueue(&target, "0").ok();
            first.is_some()
        })
        .await;
        within("a receipt", first.unwrap()).await.unwrap();

        // No confirms come: the window fills up.
        tap.stall(true);
        let pending: Vec<_> = (1..4).map(|n| sender.try_enqueue(&target, n.to_string()).unwrap()).collect();
        let error = sender.try_enqueue(&target, "one too many").unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::NotSent), "{error}");
        assert_eq!(error.into_message().unwrap().1.body(), b"one too many");
        tap.stall(false);
        for receipt in within("receipts", join_all(pending)).await {
            receipt.unwrap();
        }
        sender.try_enqueue(&target, "4").unwrap().await.unwrap();
    }

    /// KB4, KB5, U16: the deadline is for everything. Before the message was written it is `NotSent`, after that `Unknown`.
    async fn deadlines_and_what_they_mean(server: Server) {
        let (client, tap, sender, queue) =
            stalled(server, |sender| sender.max_in_flight(2).retry(RetryPolicy::never())).await;
        let target = Target::queue(&queue);
        let hurried = sender.with_timeout(Duration::from_millis(50));
        let (first, second) = tokio::join!(hurried.send(&target, "a"), hurried.send(&target, "b"));
        for error in [first.unwrap_err(), second.unwrap_err()] {
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown), "{error}");
            assert!(error.message().is_some());
        }
        let error = hurried.send(&target, "c").await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::NotSent), "the window is full: {error}");
        assert_eq!(error.into_message().unwrap().1.body(), b"c");
        tap.stall(false);
        until("the late confirms", async || sender.in_flight() == 0).await;
        within("a receipt", sender.send(&target, "d")).await.unwrap();
        assert_eq!(look_at(&channel(&client).await, &queue).await.message_count(), 4, "c was not sent");
    }

    /// KB3, Z10: several channels, one sender.
    async fn several_channels(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let sender = client.sender().channels(3).build().unwrap();
        let mut channels = std::collections::BTreeSet::new();
        for _ in 0..6 {
            let receipt = sender.send(Target::queue(&queue), "x").await.unwrap();
            let leveret::messaging::ReceiptDetail::Amqp { channel, .. } = receipt.detail else { panic!("{receipt:?}") };
            channels.insert(channel);
        }
        assert_eq!(channels.len(), 3);
        // A batch is in order, so it keeps to one of them.
        let report = sender.send_batch((0..6).map(|n: u32| (Target::queue(&queue), n.to_string()))).await;
        let tags: Vec<_> = report.into_result().unwrap().iter().map(|receipt| receipt.delivery_tag().unwrap()).collect();
        assert_eq!(tags, (tags[0]..tags[0] + 6).collect::<Vec<_>>());
    }

    /// U17, §4.7: a classifier decides about every error; the message that is sent again is the same, hooks and all.
    async fn a_classifier_that_waits_for_an_exchange(server: Server) {
        let client = server.client().await;
        let (queue, exchange) = (exclusive_queue(&client).await, unique("late"));
        let policy = RetryPolicy::default().max_retries(u32::MAX).classify(|error| match error.reply_code() {
            Some(ReplyCode::NOT_FOUND) => RetryDecision::RetryAfter(Duration::from_millis(10)),
            _ => RetryDecision::Fail,
        });
        let hooked = Arc::new(AtomicU32::new(0));
        let count = hooked.clone();
        let sender = client.sender().retry(policy).map_message(move |_, message| {
            let times = count.fetch_add(1, Ordering::Relaxed) + 1;
            message.properties.headers.get_or_insert_default().insert("times", i64::from(times));
        });
        let sender = sender.build().unwrap();
        let mut events = client.events();
        let task = tokio::spawn({
            let (sender, target) = (sender.clone(), Target::exchange(&exchange, ""));
            async move { sender.send(target, "at last").await }
        });
        while !matches!(within("an event", events.next()).await, Some(Event::ChannelClosed(_))) {}
        let setup = channel(&client).await;
        setup.exchange_declare(&exchange, "fanout").auto_delete(true).await.unwrap();
        setup.queue_bind(&queue, &exchange, "").await.unwrap();
        // It may have met the exchange before its queue.
        if let Err(error) = within("a result", task).await.unwrap() {
            assert_eq!(error.kind(), ErrorKind::Returned);
            sender.send(Target::exchange(&exchange, ""), "at last").await.unwrap();
        }
        let mut receiver = receiver(&client, &queue).await;
        let delivery = within("a delivery", receiver.recv()).await.unwrap().unwrap();
        let times = delivery.get_header("times").and_then(leveret::amqp::FieldValue::as_i64);
        assert_eq!(times, Some(hooked.load(Ordering::Relaxed).into()), "once for each send");
    }

    /// §4.8: what the transport cannot do is said before anything is sent, and so is what is too large (c88).
    async fn what_amqp_cannot_do(server: Server) {
        let (client, tap) = server.tapped().await;
        let sender = client.sender().build().unwrap();
        for (target, message) in [
            (Target::topic("t"), Message::new("x")),
            (Target::topic("t").partition(1), Message::new("x")),
            (Target::queue("q"), Message::new("x").key("k")),
        ] {
            let error = sender.send(target.clone(), message.clone()).await.unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unsupported, Outcome::NotSent), "{error}");
            assert_eq!(error.into_message(), Some((target.clone(), message.clone().persistent())));
            let error = sender.send_pipelined(target.clone(), message.clone()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert_eq!(sender.try_enqueue(target, message).unwrap_err().kind(), ErrorKind::Unsupported);
        }
        assert_eq!(tap.publishes(), 0);
        assert!(client.sender().confirms(ConfirmMode::None).mandatory(true).build().is_err());
        let unconfirmed = client.sender().confirms(ConfirmMode::None).build().unwrap();
        let error = unconfirmed.send(Target::queue("q").mandatory(true), "x").await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::InvalidArgument, Outcome::NotSent));
        let small = client.sender().max_message_size(3).build().unwrap();
        let error = small.send(Target::queue("q"), "four").await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::MessageTooLarge, Outcome::NotSent));
    }
}

on_every_server! {
    /// §4.7: a nack is refused, and tried again a bounded number of times.
    async fn a_full_queue_refuses(server: Server) {
        let (client, tap) = server.tapped().await;
        let queue = unique("full");
        let declare = channel(&client).await;
        let declare = declare.queue_declare(&queue).exclusive(true).argument("x-max-length", 1);
        declare.argument("x-overflow", "reject-publish").await.unwrap();
        let target = Target::queue(&queue);
        let sender = client.sender().retry(RetryPolicy::never()).build().unwrap();
        let error = loop {
            if let Err(error) = within("a result", sender.send(&target, "x")).await {
                break error;
            }
        };
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Nacked, Outcome::Refused));
        assert!(error.is_transient() && error.message().is_some());
        let before = tap.publishes();
        let policy = RetryPolicy::default().max_retries(2);
        let stubborn = client.sender().retry(policy).build().unwrap();
        assert_eq!(within("a result", stubborn.send(&target, "x")).await.unwrap_err().kind(), ErrorKind::Nacked);
        assert_eq!(tap.publishes(), before + 3);
    }
}

on_every_server! {
    /// KL8: one awaited message at a time goes out at once, and many sessions share a connection.
    async fn one_at_a_time_from_many_sessions(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let sessions: Vec<_> = (0..50)
            .map(|_| {
                let (sender, target) = (client.sender().build().unwrap(), Target::queue(&queue));
                tokio::spawn(async move {
                    for n in 0..20 {
                        sender.send(&target, n.to_string()).await.unwrap();
                    }
                })
            })
            .collect();
        for session in within("all sessions", join_all(sessions)).await {
            session.unwrap();
        }
        assert_eq!(look_at(&channel(&client).await, &queue).await.message_count(), 1000);
    }
}

/// Octets that tell when they are dropped.
struct Payload(Vec<u8>, #[expect(dead_code, reason = "it is counted")] Arc<()>);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Sends something when it is woken.
struct Resend {
    sender: Sender,
    target: Target,
    woken: AtomicBool,
}

impl Wake for Resend {
    fn wake(self: Arc<Self>) {
        drop(self.sender.try_enqueue(&self.target, "from the waker"));
        self.woken.store(true, Ordering::SeqCst);
    }
}
