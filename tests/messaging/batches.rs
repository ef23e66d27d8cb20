//! Batches: one result for each message, in the order of the input.

use leveret::error::{ErrorKind, Outcome};
use leveret::messaging::{Message, RetryPolicy, Target};

use crate::support::{Kept, Server, channel, exclusive_queue, number, receiver, unique, within};
use crate::wire::Tap;

on_every_server! {
    /// KK4 for AMQP, U12: some of a batch cannot be sent, some find no queue; the others are sent, in order.
    async fn a_batch_with_bad_items(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let (good, nowhere) = (Target::queue(&queue), Target::queue(unique("nowhere")));
        let items = (0..100u32).map(|n| match n {
            10 => (nowhere.clone(), Message::new("x")),
            20 => (good.clone(), Message::new("x").correlation_id("y".repeat(256))),
            30 => (Target::topic("t"), Message::new("x")),
            n => (good.clone(), Message::from(n.to_string())),
        });
        let sender = client.sender().max_in_flight(7).build().unwrap();
        let report = within("a report", sender.send_batch(items)).await;
        assert_eq!(report.len(), 100);
        let failed: Vec<_> = report.failed().map(|(at, error)| (at, error.kind(), error.outcome())).collect();
        assert_eq!(
            failed,
            [
                (10, ErrorKind::Returned, Outcome::Refused),
                (20, ErrorKind::InvalidArgument, Outcome::NotSent),
                (30, ErrorKind::Unsupported, Outcome::NotSent),
            ]
        );
        let error = report.into_result().unwrap_err();
        assert!(error.to_string().starts_with("3 of 100 messages were not accepted; the first, number 10: "), "{error}");
        let mut receiver = receiver(&client, &queue).await;
        for n in (0..100).filter(|n| ![10, 20, 30].contains(n)) {
            let delivery = within("a delivery", receiver.recv()).await.unwrap().unwrap();
            assert_eq!(number(delivery.body()), n, "in order");
            delivery.accept().unwrap();
        }
        let nothing: [(Target, &str); 0] = [];
        assert!(sender.send_batch(nothing).await.is_empty());
    }

    /// Scenario 5: the connection is lost in the middle of a batch, and nobody is let in again. Every message has an outcome, and
    /// the queue has what the outcomes say.
    async fn scenario_05_lost_in_the_middle_of_a_batch(server: Server) {
        const MESSAGES: u32 = 1000;
        let kept = Kept::new(server).await;
        let (client, tap) = server.tapped().await;
        let sender = client.sender().max_in_flight(100).build().unwrap();
        let target = Target::queue(&kept.name);
        tap.refuse_after(500);
        let items = (0..MESSAGES).map(|n| (&target, n.to_string()));
        let report = within("a report", sender.send_batch(items)).await;
        assert_eq!(report.len(), MESSAGES as usize);
        let (mut accepted, mut unknown, mut not_sent) = (Vec::new(), Vec::new(), Vec::new());
        for (n, result) in (0..).zip(&report.results) {
            match result {
                Ok(_) => accepted.push(n),
                Err(error) => match error.outcome() {
                    Outcome::Unknown => unknown.push(n),
                    Outcome::NotSent => {
                        assert_eq!(error.message().unwrap().1.body(), n.to_string().as_bytes());
                        not_sent.push(n);
                    }
                    Outcome::Refused => panic!("{error}"),
                },
            }
        }
        assert_eq!(accepted.len() + unknown.len() + not_sent.len(), MESSAGES as usize);
        assert!(accepted.len() >= 300 && !not_sent.is_empty(), "{} {}", accepted.len(), not_sent.len());
        assert!(unknown.len() <= 100, "no more than the window: {}", unknown.len());
        let there = kept.delete().await;
        assert!(accepted.iter().all(|n| there.contains(n)), "what was accepted is there");
        assert!(!not_sent.iter().any(|n| there.contains(n)), "what was not sent is not");
        assert!(there.iter().all(|n| accepted.contains(n) || unknown.contains(n)));
        assert!(there.is_sorted_by(|a, b| a < b), "in order, and nothing twice");
    }

    /// The same, and the server is there again at once: the rest of the batch goes over a new connection.
    async fn a_batch_goes_on_over_a_new_connection(server: Server) {
        const MESSAGES: u32 = 1000;
        let kept = Kept::new(server).await;
        let (client, tap) = server.tapped().await;
        let sender = client.sender().max_in_flight(100).build().unwrap();
        let target = Target::queue(&kept.name);
        tap.cut_after(500);
        let items = (0..MESSAGES).map(|n| (&target, n.to_string()));
        let report = within("a report", sender.send_batch(items)).await;
        let unknown: Vec<usize> = report.failed().map(|(at, error)| {
            assert_eq!(error.outcome(), Outcome::Unknown, "{at}: {error}");
            at
        }).collect();
        assert!(unknown.len() <= 100, "{unknown:?}");
        let there = kept.delete().await;
        let missing: Vec<usize> = (0..1000).filter(|n| !there.contains(&(*n as u32))).collect();
        assert!(missing.iter().all(|n| unknown.contains(n)), "{missing:?}");
        // The server may have read what was unknown on the old connection later than what followed on the new one.
        let accepted = there.iter().filter(|n| !unknown.contains(&(**n as usize)));
        assert!(accepted.is_sorted_by(|a, b| a < b), "in order, and nothing twice");
        let different: std::collections::BTreeSet<_> = there.iter().collect();
        assert_eq!(different.len(), there.len(), "nothing twice");
    }
}

on_its_own! {
    /// Nobody listens at all: every message of a batch says so, and soon.
    async fn nobody_there() {
        let server = Server::broker().await;
        let tap = Tap::new(server.url()).await;
        tap.refuse(true);
        let client = leveret::messaging::Client::builder(tap.url()).unwrap().lazy().unwrap();
        let sender = client.sender().retry(RetryPolicy::never()).build().unwrap();
        let items = (0..3).map(|n: u32| (Target::queue("q"), n.to_string()));
        let report = within("a report", sender.send_batch(items)).await;
        assert_eq!(report.failed().filter(|(_, error)| error.outcome() == Outcome::NotSent).count(), 3);
        // With as many retries as it takes, while somebody opens the door.
        let sender = client.sender().retry(RetryPolicy::default().max_retries(u32::MAX)).build().unwrap();
        let mut events = client.events();
        let send = async { sender.send(Target::exchange("amq.fanout", "").mandatory(false), "x").await };
        let open = async {
            within("a first attempt", events.next()).await;
            tap.refuse(false);
        };
        let (sent, ()) = tokio::join!(within("a receipt", send), open);
        sent.unwrap();
        drop(channel(&client).await);
    }
}
