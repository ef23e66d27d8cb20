//! A server that is short of memory: publishing waits, and nothing else.

use std::time::Duration;

use leveret::error::{ErrorKind, Outcome};
use leveret::messaging::{Client, ClientState, Event, RetryPolicy, Target};

use crate::support::{Own, exclusive_queue, look_at, until, within};
use crate::wire::Tap;

on_every_server! {
    /// Scenario 4; 2.1's hang of lapin: blocked for more than three heartbeat intervals, the connection survives and its heartbeats are
    /// on the wire; sends end as `Blocked` and `NotSent`; afterwards everything flows.
    async fn scenario_04_blocked_for_three_heartbeats(server: Own) {
        let tap = Tap::new(&server.url).await;
        let client = Client::builder(tap.url()).unwrap().heartbeat(2).connect().await.unwrap();
        assert_eq!(client.as_amqp().await.unwrap().tuning().heartbeat, 2);
        let queue = exclusive_queue(&client).await;
        let (mut events, target) = (client.events(), Target::queue(&queue));
        let sender = client.sender().retry(RetryPolicy::never()).build().unwrap();
        sender.send(&target, "0").await.unwrap();
        server.block().await;
        // RabbitMQ tells those who publish; the broker in the box tells everybody at once, and this one waits then.
        let first = tokio::spawn({
            let (sender, target) = (sender.clone(), target.clone());
            async move { sender.send(&target, "1").await }
        });
        match within("an event", events.next()).await {
            Some(Event::Blocked(reason)) => assert!(reason.contains("memory"), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(client.state(), ClientState::Blocked);

        let hurried = sender.with_timeout(Duration::from_millis(100));
        let error = hurried.send(&target, "never").await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Blocked, Outcome::NotSent), "{error}");
        assert!(error.is_transient());
        assert_eq!(error.into_message().unwrap().1.body(), b"never");
        assert_eq!(sender.try_enqueue(&target, "never").unwrap_err().kind(), ErrorKind::Blocked);

        // Half an interval for each heartbeat: seven of them are more than three intervals.
        let before = tap.heartbeats();
        until("heartbeats on the wire", async || tap.heartbeats() >= before + 7).await;
        assert_eq!(client.state(), ClientState::Blocked, "the connection is still there");
        let waiting = tokio::spawn({
            let (sender, target) = (sender.clone(), target.clone());
            async move { sender.send(&target, "2").await }
        });
        server.unblock().await;
        assert!(matches!(within("an event", events.next()).await, Some(Event::Unblocked)));
        within("a receipt", first).await.unwrap().unwrap();
        within("a receipt", waiting).await.unwrap().unwrap();
        assert_eq!(client.state(), ClientState::Open);
        assert_eq!(look_at(&crate::support::channel(&client).await, &queue).await.message_count(), 3);
    }
}
