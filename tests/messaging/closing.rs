//! Closing: once or twice, with nothing or much on its way, and whether anybody is left waiting.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use leveret::error::{ErrorKind, Outcome};
use leveret::messaging::{ClientCache, ClientState, Config, Status, Target};

use crate::support::{PATIENCE, Server, exclusive_queue, fill, next, receiver, stalled, until, within};

on_every_server! {
    /// Scenario 3, first half; KA7, U2, KL6.
    async fn scenario_03_closing_twice(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let sender = client.sender().build().unwrap();
        sender.send(Target::queue(&queue), "x").await.unwrap();
        for _ in 0..2 {
            let report = within("the end", sender.close()).await;
            assert!(report.is_clean(), "{report:?}");
        }
        assert_eq!(sender.send(Target::queue(&queue), "x").await.unwrap_err().kind(), ErrorKind::Closed);
        // The client is not closed, and another sender is another matter.
        fill(&client, &queue, 0..3).await;
        for _ in 0..2 {
            let report = within("the end", client.close()).await;
            assert!(report.is_clean(), "{report:?}");
            assert_eq!(client.state(), ClientState::Closed);
        }
        let error = client.ready().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        let late = client.sender().build().unwrap().send(Target::queue(&queue), "x").await.unwrap_err();
        assert_eq!((late.kind(), late.outcome()), (ErrorKind::Closed, Outcome::NotSent));
        assert!(late.into_message().is_some());
    }

    /// From the beginning nobody hands anything over, while one sender after the other is closed.
    async fn a_closing_client_takes_nothing_more(server: Server) {
        let (client, tap) = server.tapped().await;
        let queue = exclusive_queue(&client).await;
        let senders = [client.sender().build().unwrap(), client.sender().build().unwrap()];
        for sender in &senders {
            sender.send(Target::queue(&queue), "x").await.unwrap();
        }
        tap.stall(true);
        let pending = senders[0].send_pipelined(Target::queue(&queue), "x").await.unwrap();
        let mut closing = std::pin::pin!(client.close());
        assert!(closing.as_mut().now_or_never().is_none());
        for sender in &senders {
            let error = sender.try_enqueue(Target::queue(&queue), "x").unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::Closed, Outcome::NotSent));
        }
        tap.stall(false);
        assert!(within("the end", closing).await.is_clean());
        assert_eq!(within("a receipt", pending).await.unwrap().status, Status::Accepted);
    }

    /// Scenario 3, second half: 100 unconfirmed are all in the report, whoever waits for them is told, and nothing hangs. The server
    /// says nothing any more.
    async fn scenario_03_closing_with_a_hundred_unconfirmed(server: Server) {
        let (client, _tap, sender, queue) = stalled(server, |sender| sender.max_in_flight(100)).await;
        let target = Target::queue(&queue);
        // Some are held, some are awaited by tasks, and nobody cares for the rest.
        let mut held = Vec::new();
        let mut awaited = Vec::new();
        for n in 0..100u32 {
            let pending = sender.send_pipelined(&target, n.to_string()).await.unwrap();
            match n % 3 {
                0 => held.push(pending),
                1 => awaited.push(tokio::spawn(pending)),
                _ => drop(pending),
            }
        }
        assert_eq!(sender.in_flight(), 100);
        // The window is full: this one waits for room.
        let waiting = tokio::spawn({
            let (sender, target) = (sender.clone(), target.clone());
            async move { sender.send(&target, "never sent").await }
        });
        tokio::task::yield_now().await;
        let report = within("the end", client.close_within(Duration::from_millis(100))).await;
        let mut bodies: Vec<u32> = report.unconfirmed.iter().map(|unsent| crate::support::number(unsent.message.body())).collect();
        assert!(report.unconfirmed.iter().all(|unsent| unsent.outcome == Outcome::Unknown && unsent.target == target));
        assert!(bodies.is_sorted(), "in the order of sending");
        bodies.dedup();
        assert_eq!(bodies, (0..100).collect::<Vec<_>>());
        assert_eq!(report.error.map(|error| error.kind()), Some(ErrorKind::Timeout), "the server did not agree");
        for result in within("those who wait", join_all(held)).await {
            let error = result.unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::Closed, Outcome::Unknown), "{error}");
        }
        for result in within("those who wait", join_all(awaited)).await {
            assert_eq!(result.unwrap().unwrap_err().outcome(), Outcome::Unknown);
        }
        let error = within("the one who waits for room", waiting).await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Closed, Outcome::NotSent), "{error}");
        assert_eq!(error.into_message().unwrap().1.body(), b"never sent");
        let report = within("the end", client.close()).await;
        assert!(report.unconfirmed.is_empty());
    }

    /// A duration that is longer than any program is no reason to overflow.
    async fn all_the_time_in_the_world(server: Server) {
        let cache = ClientCache::new();
        let client = cache.get(Config::from_url(server.url()).unwrap()).unwrap();
        let queue = exclusive_queue(&client).await;
        let sender = client.sender().timeout(Duration::MAX).build().unwrap();
        let (target, patient) = (Target::queue(&queue), sender.with_timeout(Duration::MAX));
        within("a receipt", sender.send(&target, "x")).await.unwrap();
        within("a receipt", patient.send_pipelined(&target, "x").await.unwrap()).await.unwrap();
        assert!(within("a batch", patient.send_batch([(&target, "x")])).await.is_ok());
        within("idle connections to close", cache.close_idle(Duration::MAX)).await;
        assert_eq!(client.state(), ClientState::Idle);
        client.ready().await.unwrap();
        let report = within("the end", client.close_within(Duration::MAX)).await;
        assert!(report.is_clean(), "{report:?}");
        assert!(within("the end", cache.close(Duration::MAX)).await.is_clean());
    }

    /// c58: what is confirmed in time is not in the report: closing waits for it.
    async fn closing_waits_for_what_is_on_its_way(server: Server) {
        let (client, tap, sender, queue) = stalled(server, |sender| sender).await;
        let target = Target::queue(&queue);
        let mut pending = Vec::new();
        for n in 0..10u32 {
            pending.push(sender.send_pipelined(&target, n.to_string()).await.unwrap());
        }
        let (report, ()) = tokio::join!(within("the end", client.close_within(PATIENCE)), async {
            until("the last message", async || tap.publishes() == 11).await;
            tap.stall(false);
        });
        assert!(report.is_clean(), "{report:?}");
        for result in within("receipts", join_all(pending)).await {
            assert_eq!(result.unwrap().status, Status::Accepted);
        }
    }

    /// c58: a receiver's stream ends without an error when the client is closed; what it had goes back.
    async fn streams_end_when_the_client_closes(server: Server) {
        let kept = crate::support::Kept::new(server).await;
        let client = server.client().await;
        fill(&client, &kept.name, 0..2).await;
        let mut receiver = receiver(&client, &kept.name).await;
        let delivery = next(&mut receiver).await;
        client.close().await;
        // What had been delivered may still come.
        while let Some(rest) = within("the end", receiver.recv()).await {
            drop(rest.unwrap());
        }
        assert!(within("the end", receiver.recv()).await.is_none());
        assert_eq!(delivery.accept().unwrap_err().kind(), ErrorKind::Stale);
        assert_eq!(kept.delete().await, [0, 1]);
    }

    /// Dropping the last handle closes the channels, after what was handed over.
    async fn dropping_a_sender(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let sender = client.sender().build().unwrap();
        for n in 0..100u32 {
            drop(sender.send_pipelined(Target::queue(&queue), n.to_string()).await.unwrap());
        }
        drop(sender);
        let channel = crate::support::channel(&client).await;
        until("the messages", async || crate::support::look_at(&channel, &queue).await.message_count() == 100).await;
    }
}
