//! Wakers of tasks that lock the facade again when they are dropped: see `tests/amqp/wakers.rs`.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use leveret::broker::Broker;
use leveret::messaging::{Client, PendingReceipt, Target};
use tokio::sync::oneshot;

use crate::support::within;
use crate::tasks::{Shared, alone};

/// Something to be dropped, and who is told when it has been.
async fn dropped<T>(hold: impl AsyncFnOnce((T, oneshot::Sender<()>)), baggage: T) {
    let (tell, dropped) = oneshot::channel();
    hold((baggage, tell)).await;
    assert!(within("the end of the task", dropped).await.is_err());
}

/// The task that waits for events has the last handle of the client, and hands its stream on to another.
#[test]
fn an_event_and_the_last_handle() {
    alone("events", || async {
        let broker = Broker::start().await.unwrap();
        let client = Client::connect(&broker.url()).await.unwrap();
        let mut events = client.events();
        let wait = Shared::new(async move { while events.next().await.is_some() {} });
        let hold = async |baggage| {
            wait.begin(baggage);
            assert_eq!(wait.poll(&mut Context::from_waker(Waker::noop())), Poll::Pending);
        };
        dropped(hold, client).await;
        within("the last event", std::future::poll_fn(|cx| wait.poll(cx))).await;
    });
}

/// Receipts of one sender in one task.
#[test]
fn a_receipt_and_another() {
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Replaced,
        Forgotten,
        Late,
        Lost,
    }
    for fate in [Fate::Replaced, Fate::Forgotten, Fate::Late, Fate::Lost] {
        alone(&format!("{fate:?}"), move || async move {
            let broker = Broker::start().await.unwrap();
            let client = Client::connect(&broker.url()).await.unwrap();
            let sender = client.sender().build().unwrap();
            broker.hold_confirms(true);
            let limit = if let Fate::Late = fate { Duration::from_millis(20) } else { Duration::from_secs(60) };
            let send = async || -> PendingReceipt {
                let sender = sender.with_timeout(limit);
                sender.send_pipelined(Target::queue("nowhere"), "x").await.unwrap()
            };
            let (receipt, other) = (send().await, send().await);
            let wait = Shared::new(async move { drop(receipt.await) });
            let hold = async |baggage| {
                wait.begin(baggage);
                match fate {
                    Fate::Replaced => assert_eq!(wait.poll(&mut Context::from_waker(Waker::noop())), Poll::Pending),
                    Fate::Forgotten => wait.forget(),
                    Fate::Late => within("the deadline", std::future::poll_fn(|cx| wait.poll(cx))).await,
                    Fate::Lost => {}
                }
                let next = send().await;
                broker.drop_connections();
                assert!(within("the end", next).await.is_err());
                wait.forget();
                // The books keep what nobody waits for until somebody asks.
                drop(sender.flush().await);
            };
            dropped(hold, other).await;
        });
    }
}
