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

/// Asks from another task, which is no task at all.
fn ask(wait: &Shared) -> Poll<()> {
    wait.poll(&mut Context::from_waker(Waker::noop()))
}

/// The task that waits for events has the last handle of the client, and hands its stream on to another.
#[test]
fn an_event_and_the_last_handle() {
    alone("events", || async {
        let client = Client::builder("amqp://nobody.example").unwrap().lazy().unwrap();
        let mut events = client.events();
        let wait = Shared::new(async move { while events.next().await.is_some() {} });
        let hold = async |baggage| {
            wait.begin(baggage);
            assert_eq!(ask(&wait), Poll::Pending);
        };
        dropped(hold, client).await;
        assert_eq!(ask(&wait), Poll::Ready(()), "the client is gone");
    });
}

/// Two receipts of one sender in one task, which knows nothing of tokio. Where nobody asks again, it is the deadline that lets go of it.
#[test]
fn a_receipt_and_another() {
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Replaced,
        Forgotten,
        Lost,
    }
    for fate in [Fate::Replaced, Fate::Forgotten, Fate::Lost] {
        alone(&format!("{fate:?}"), move || async move {
            let broker = Broker::start().await.unwrap();
            let client = Client::connect(&broker.url()).await.unwrap();
            let sender = client.sender().timeout(Duration::from_secs(5)).build().unwrap();
            broker.hold_confirms(true);
            let send = async || sender.send_pipelined(Target::queue("nowhere"), "x").await.unwrap();
            let (receipt, other): (PendingReceipt, _) = (send().await, send().await);
            let wait = Shared::new(async move { drop(receipt.await) });
            let hold = async |baggage| {
                let asked = wait.clone();
                let thread = std::thread::spawn(move || {
                    asked.begin(baggage);
                    match fate {
                        Fate::Replaced => assert_eq!(ask(&asked), Poll::Pending),
                        Fate::Forgotten => asked.forget(),
                        Fate::Lost => {}
                    }
                });
                thread.join().unwrap();
                let next = send().await;
                broker.drop_connections();
                assert!(within("the end", next).await.is_err());
                // The books keep what nobody waits for until somebody asks.
                drop(sender.flush().await);
            };
            dropped(hold, other).await;
        });
    }
}
