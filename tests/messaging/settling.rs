//! Settling: each verdict is exactly one method on the wire, and nothing is settled twice or on the wrong channel.

use leveret::error::ErrorKind;
use leveret::messaging::{Disposition, Modify, OnDrop, RecoveryPolicy, Source};

use crate::support::{Kept, Server, channel, exclusive_queue, fill, look_at, next, number, receiver, until, within};
use crate::wire::Settlement;

const FAILED: Modify = Modify { delivery_failed: true, undeliverable_here: false };
const ELSEWHERE: Modify = Modify { delivery_failed: true, undeliverable_here: true };
const UNTOUCHED: Modify = Modify { delivery_failed: false, undeliverable_here: false };

on_every_server! {
    /// Scenario 8; U34, U35, U36, U37, Z14: the methods of each verdict, by their numbers. On RabbitMQ the queue is a quorum queue,
    /// which tells a reject from a nack.
    async fn scenario_08_each_verdict_is_one_method(server: Server) {
        let kept = Kept::with(server, if server.broker.is_some() { "classic" } else { "quorum" }).await;
        let (client, tap) = server.tapped().await;
        fill(&client, &kept.name, 0..7).await;
        let mut receiver = receiver(&client, &kept.name).await;
        let mut deliveries = Vec::new();
        for _ in 0..7 {
            deliveries.push(next(&mut receiver).await);
        }
        let verdicts = [
            Disposition::Accept,
            Disposition::Reject,
            Disposition::Release,
            Disposition::Modify(FAILED),
            Disposition::Modify(ELSEWHERE),
            Disposition::Modify(UNTOUCHED),
            Disposition::Accept,
        ];
        for (delivery, verdict) in deliveries.into_iter().zip(verdicts) {
            delivery.settle(verdict).unwrap();
        }
        let settled = tap.settled(7).await;
        assert_eq!(
            settled[..7],
            [
                Settlement::Ack { tag: 1, multiple: false },
                Settlement::Reject { tag: 2, requeue: false },
                Settlement::Nack { tag: 3, multiple: false, requeue: true },
                Settlement::Reject { tag: 4, requeue: true },
                Settlement::Reject { tag: 5, requeue: false },
                Settlement::Nack { tag: 6, multiple: false, requeue: true },
                Settlement::Ack { tag: 7, multiple: false },
            ]
        );
        // Three went back.
        let mut again = Vec::new();
        for _ in 0..3 {
            let delivery = next(&mut receiver).await;
            assert!(delivery.redelivered());
            again.push((number(delivery.body()), delivery.delivery_count()));
            delivery.accept().unwrap();
        }
        again.sort_unstable();
        assert_eq!(again.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [2, 3, 5]);
        if server.broker.is_none() {
            let counted = again.iter().find(|(n, _)| *n == 3).unwrap().1;
            assert_eq!(counted, Some(1), "a reject with requeue counts as a failed delivery");
        }
        drop(receiver);
        assert_eq!(kept.delete().await, [0u32; 0]);
    }

    /// The shorthands, and an acker on its own, from another task.
    async fn shorthands_and_ackers(server: Server) {
        let (client, tap) = server.tapped().await;
        let queue = exclusive_queue(&client).await;
        fill(&client, &queue, 0..8).await;
        let mut receiver = receiver(&client, &queue).await;
        next(&mut receiver).await.accept().unwrap();
        next(&mut receiver).await.reject().unwrap();
        next(&mut receiver).await.release().unwrap();
        next(&mut receiver).await.modify(ELSEWHERE).unwrap();
        let (message, acker) = next(&mut receiver).await.detach();
        assert_eq!(number(message.body()), 4);
        assert!(!acker.is_settled());
        // On another thread, without a runtime.
        std::thread::spawn(move || acker.accept()).join().unwrap().unwrap();
        next(&mut receiver).await.detach().1.reject().unwrap();
        next(&mut receiver).await.detach().1.release().unwrap();
        next(&mut receiver).await.detach().1.settle(Disposition::Accept).unwrap();
        let settled = tap.settled(8).await;
        assert_eq!(
            settled,
            [
                Settlement::Ack { tag: 1, multiple: false },
                Settlement::Reject { tag: 2, requeue: false },
                Settlement::Nack { tag: 3, multiple: false, requeue: true },
                Settlement::Reject { tag: 4, requeue: false },
                Settlement::Ack { tag: 5, multiple: false },
                Settlement::Reject { tag: 6, requeue: false },
                Settlement::Nack { tag: 7, multiple: false, requeue: true },
                Settlement::Ack { tag: 8, multiple: false },
            ]
        );
    }

    /// Everything up to one delivery at once; what that has settled is not settled again, neither by hand nor by being dropped.
    async fn everything_up_to_here(server: Server) {
        let (client, tap) = server.tapped().await;
        let queue = exclusive_queue(&client).await;
        fill(&client, &queue, 0..9).await;
        let mut receiver = receiver(&client, &queue).await;
        let mut deliveries = Vec::new();
        for _ in 0..9 {
            deliveries.push(next(&mut receiver).await);
        }
        receiver.settle_up_to(&deliveries[2], Disposition::Accept).unwrap();
        let error = receiver.settle_up_to(&deliveries[1], Disposition::Accept).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale);
        let mut deliveries = deliveries.into_iter();
        let first = deliveries.next().unwrap();
        assert_eq!(first.accept().unwrap_err().kind(), ErrorKind::Stale);
        let (_, second) = deliveries.next().unwrap().detach();
        assert!(second.is_settled());
        drop(second);
        drop(deliveries.next());
        let rest: Vec<_> = deliveries.collect();
        receiver.settle_up_to(&rest[1], Disposition::Release).unwrap();
        receiver.settle_up_to(&rest[3], Disposition::Reject).unwrap();
        assert_eq!(receiver.settle_up_to(&rest[5], Disposition::Modify(FAILED)).unwrap_err().kind(), ErrorKind::Unsupported);
        receiver.settle_up_to(&rest[5], Disposition::Accept).unwrap();
        drop(rest);
        for n in [3, 4] {
            let delivery = next(&mut receiver).await;
            assert_eq!((number(delivery.body()), delivery.redelivered()), (n, true));
            delivery.accept().unwrap();
        }
        let settled = tap.settled(6).await;
        assert_eq!(
            settled,
            [
                Settlement::Ack { tag: 3, multiple: true },
                Settlement::Nack { tag: 5, multiple: true, requeue: true },
                Settlement::Nack { tag: 7, multiple: true, requeue: false },
                Settlement::Ack { tag: 9, multiple: true },
                Settlement::Ack { tag: 10, multiple: false },
                Settlement::Ack { tag: 11, multiple: false },
            ]
        );
        let look = channel(&client).await;
        assert_eq!(look_at(&look, &queue).await.message_count(), 0);
    }

    /// One ack for those that follow one another, and each other verdict in its place.
    async fn acks_are_coalesced_where_that_is_asked_for(server: Server) {
        let (client, tap) = server.tapped().await;
        let queue = exclusive_queue(&client).await;
        fill(&client, &queue, 0..200).await;
        let mut receiver = client.receiver(Source::queue(&queue)).prefetch(50).coalesce_acks(true).build().await.unwrap();
        let mut held = Vec::new();
        for n in 0..200 {
            let delivery = next(&mut receiver).await;
            assert_eq!(number(delivery.body()), n);
            match n {
                7 | 150 => held.push(delivery),
                70 => delivery.reject().unwrap(),
                _ if n % 3 == 0 => delivery.detach().1.accept().unwrap(),
                _ => delivery.accept().unwrap(),
            }
        }
        held.swap_remove(0).accept().unwrap();
        client.close().await;
        let mut settled = vec![false; 201];
        for one in tap.settlements() {
            let (tag, multiple) = match one {
                Settlement::Ack { tag, multiple } => (usize::try_from(tag).unwrap(), multiple),
                Settlement::Reject { tag: 71, requeue: false } => (71, false),
                other => panic!("{other:?}"),
            };
            assert!(!settled[tag], "{tag} twice");
            settled[if multiple { 1 } else { tag }..=tag].fill(true);
        }
        let unsettled: Vec<usize> = (1..=200).filter(|tag| !settled[*tag]).collect();
        assert_eq!(unsettled, [151], "it is held");
        drop(held);
    }

    /// What becomes of a delivery that is dropped, and of those that nobody has looked at when the receiver is.
    async fn dropped_deliveries(server: Server) {
        for (on_drop, expected) in [
            (OnDrop::Release, Some(Settlement::Nack { tag: 1, multiple: false, requeue: true })),
            (OnDrop::Reject, Some(Settlement::Reject { tag: 1, requeue: false })),
            (OnDrop::Leave, None),
        ] {
            let kept = Kept::new(server).await;
            let (client, tap) = server.tapped().await;
            fill(&client, &kept.name, 0..2).await;
            let builder = client.receiver(Source::queue(&kept.name)).prefetch(1).on_drop(on_drop);
            let mut receiver = builder.build().await.unwrap();
            drop(next(&mut receiver).await);
            match expected {
                Some(expected) => {
                    let settled = tap.settled(1).await;
                    assert_eq!(settled[0], expected);
                }
                None => {
                    // It is unsettled, so the next one does not come.
                    let wait = std::time::Duration::from_millis(50);
                    assert!(tokio::time::timeout(wait, receiver.recv()).await.is_err());
                    assert_eq!(tap.settlements(), []);
                }
            }
            drop(receiver);
            client.close().await;
            let mut there = kept.delete().await;
            there.sort_unstable();
            match on_drop {
                OnDrop::Release | OnDrop::Leave => assert_eq!(there, [0, 1]),
                // The second may have been delivered, and was not looked at, when the receiver was dropped.
                OnDrop::Reject => assert!(there.is_empty() || there == [1], "{there:?}"),
            }
        }
    }

    /// §4.5: after the channel has ended settling is an error that sends nothing; the classic loop of 406 does not begin.
    async fn settling_after_the_end(server: Server) {
        let kept = Kept::new(server).await;
        let (client, tap) = server.tapped().await;
        fill(&client, &kept.name, 0..3).await;
        let builder = client.receiver(Source::queue(&kept.name)).recovery(RecoveryPolicy::never());
        let mut first = within("a receiver", builder.build()).await.unwrap();
        let old = next(&mut first).await;
        let dropped = next(&mut first).await;
        tap.cut();
        while within("the end", first.recv()).await.is_some() {}
        let mut second = receiver(&client, &kept.name).await;
        let before = tap.settlements().len();
        assert_eq!(old.accept().unwrap_err().kind(), ErrorKind::Stale);
        drop(dropped);
        let mut numbers = Vec::new();
        for _ in 0..3 {
            let delivery = next(&mut second).await;
            numbers.push(number(delivery.body()));
            delivery.accept().unwrap();
        }
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2]);
        let settled = tap.settled(before + 3).await;
        assert!(settled[before..].iter().all(|one| matches!(one, Settlement::Ack { multiple: false, .. })), "{settled:?}");
        let look = channel(&client).await;
        until("an empty queue", async || look_at(&look, &kept.name).await.message_count() == 0).await;
        drop(second);
        assert_eq!(kept.delete().await, [0u32; 0]);
    }
}
