//! Servers that are closed by an operator, run out of memory, or are gone from one moment to the next.

use std::time::{Duration, Instant};

use leveret::amqp::{Channel, Confirm, Confirmation, Connection};
use leveret::error::{Error, ErrorKind, Origin, Outcome};

use crate::own::Kind;
use crate::support::{Own, assert_works, exclusive_queue, fill, next, ready, until, within};

/// Longer than it takes to tell any server anything.
const HOUR: Duration = Duration::from_secs(3600);

/// Publishes until it no longer works; how many confirms came, and with what the others ended.
async fn publish_until_the_end(channel: Channel, queue: String) -> (u32, Vec<Error>) {
    let (mut confirmed, mut errors) = (0, Vec::new());
    loop {
        let mut confirms = Vec::new();
        for _ in 0..100 {
            match channel.basic_publish("", &queue, "x").await {
                Ok(confirm) => confirms.push(confirm),
                Err(error) => {
                    assert_eq!(error.outcome(), Outcome::NotSent);
                    errors.push(error);
                    break;
                }
            }
        }
        for confirm in confirms {
            match within("a confirm", confirm).await {
                Ok(Confirmation::Ack(None)) => confirmed += 1,
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    assert_eq!(error.outcome(), Outcome::Unknown);
                    errors.push(error);
                }
            }
        }
        if !errors.is_empty() {
            return (confirmed, errors);
        }
    }
}

/// Keeps a connection busy, lets something happen to it, and sees what everybody is told.
async fn in_the_middle_of_work(server: &Own, happens: impl AsyncFnOnce(&Own)) -> Vec<Error> {
    let connection = server.connect().await;
    let channel = connection.open_channel().await.unwrap();
    let queue = exclusive_queue(&channel).await;
    channel.confirm_select().await.unwrap();
    let empty = exclusive_queue(&channel).await;
    let mut consumer = channel.basic_consume(&empty).await.unwrap();
    let waits = tokio::spawn(async move { consumer.next().await.unwrap().unwrap_err() });
    let watcher = connection.clone();
    let watches = tokio::spawn(async move { watcher.closed().await.unwrap_err() });
    let publishes = tokio::spawn(publish_until_the_end(channel.clone(), queue));
    let caller = connection.open_channel().await.unwrap();
    let calls = tokio::spawn(async move {
        loop {
            if let Err(error) = caller.basic_get(&empty).await {
                return error;
            }
        }
    });
    until("some work to be done", async || channel.unconfirmed() > 0).await;

    happens(server).await;

    let mut errors = vec![
        within("the end", watches).await.unwrap(),
        within("the consumer", waits).await.unwrap(),
        within("the call", calls).await.unwrap(),
    ];
    let (confirmed, others) = within("the publisher", publishes).await.unwrap();
    assert!(!others.is_empty(), "{confirmed} were confirmed");
    errors.extend(others);
    assert!(!connection.is_open());
    errors
}

/// Publishes to a server that is short of memory until the client is told, and gives the message that the server no longer reads.
///
/// RabbitMQ tells those who publish, once it has noticed. The broker in the box tells everybody at once and reads on until a
/// message comes: there may be none that got stuck.
async fn publish_into_the_block(connection: &Connection, channel: &Channel, queue: &str) -> Option<Confirm> {
    let moment = Duration::from_millis(50);
    within("connection.blocked", async {
        loop {
            let published = channel.basic_publish("", queue, "x").deadline(moment).await;
            let mut confirm =
                published.map_err(|error| assert_eq!(error.kind(), ErrorKind::Blocked, "{error}")).ok()?;
            loop {
                let blocked = connection.blocked().is_some();
                match tokio::time::timeout(moment, &mut confirm).await {
                    Ok(confirmation) => break assert_eq!(confirmation.unwrap(), Confirmation::Ack(None)),
                    Err(_) if blocked => return Some(confirm),
                    Err(_) => {}
                }
            }
        }
    })
    .await
}

on_every_server! {
    /// c144
    async fn an_operator_closes_the_connections(server: Own) {
        for error in in_the_middle_of_work(server, Own::close_connections).await {
            assert_eq!(error.kind(), ErrorKind::ConnectionClosed, "{error}");
            assert_eq!(error.reply_code().map(|code| code.0), Some(320), "{error}");
            assert!(error.reply_text().unwrap().contains("bye"), "{error}");
            assert_eq!(error.origin(), Origin::Peer);
            assert!(error.is_transient());
        }
        // The server is still there.
        let again = server.connect().await;
        assert_works(&again.open_channel().await.unwrap()).await;
    }

    /// lapin 409
    async fn the_server_is_gone(server: Own) {
        for error in in_the_middle_of_work(server, Own::kill).await {
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert_eq!(error.origin(), Origin::Network);
            assert!(error.is_transient());
        }
    }

    /// c139, c140, c141: who publishes waits, with a deadline; everybody else goes on; and then it all flows again.
    async fn the_server_is_short_of_memory(server: Own) {
        let (publishing, consuming) = (server.connect().await, server.connect().await);
        let channel = publishing.open_channel().await.unwrap();
        let other = consuming.open_channel().await.unwrap();
        let queue = crate::support::unique("blocked");
        channel.queue_declare(&queue).await.unwrap();
        fill(&channel, &queue, 0..10).await;
        let mut consumer = channel.basic_consume(&queue).prefetch(2).await.unwrap();
        let delivery = next(&mut consumer).await;

        server.block().await;
        let first = publish_into_the_block(&publishing, &channel, &queue).await;
        until("blocked", async || publishing.blocked().is_some()).await;
        assert!(publishing.blocked().unwrap().contains("memory"), "{:?}", publishing.blocked());

        let limit = Duration::from_millis(200);
        let begun = Instant::now();
        let error = channel.basic_publish("", &queue, "not sent").deadline(limit).await.unwrap_err();
        assert!(begun.elapsed() >= limit);
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Blocked, Outcome::NotSent), "{error}");
        assert_eq!(error.origin(), Origin::Peer);
        assert!(error.is_transient() && error.to_string().contains("memory"), "{error}");
        delivery.ack().expect("acks do not wait");
        if first.is_some() {
            let error = channel.basic_get(&queue).deadline(limit).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "the server reads nothing of this connection: {error}");
        }

        // A connection that has published nothing is read.
        until("deliveries elsewhere", async || other.basic_get(&queue).no_ack().await.unwrap().is_some()).await;

        let waiter = tokio::spawn({
            let (channel, queue) = (channel.clone(), queue.clone());
            async move { channel.basic_publish("", &queue, "11").deadline(HOUR).await }
        });
        server.unblock().await;
        until("unblocked", async || publishing.blocked().is_none()).await;
        if let Some(first) = first {
            assert_eq!(within("a confirm", first).await.unwrap(), Confirmation::Ack(None));
        }
        let second = within("room", waiter).await.unwrap().unwrap();
        assert_eq!(within("a confirm", second).await.unwrap(), Confirmation::Ack(None));
        next(&mut consumer).await.ack().unwrap();
        drop(consumer);
        until("the get that was given up to be put back", async || ready(&channel, &queue).await > 0).await;
        channel.queue_delete(&queue).await.unwrap();
        publishing.close().await.unwrap();
    }

    /// c55, pain 17: a blocked server does not read the close.
    async fn closing_while_blocked(server: Own) {
        let limit = Duration::from_secs(3);
        let connection = within("a connection", server.builder().close_deadline(limit).open()).await.unwrap();
        let channel = connection.open_channel().await.unwrap();
        let queue = exclusive_queue(&channel).await;
        server.block().await;
        channel.confirm_select().await.unwrap();
        let confirm = publish_into_the_block(&connection, &channel, &queue).await;
        let begun = Instant::now();
        let closed = within("the end", connection.close()).await;
        if confirm.is_none() && matches!(server.kind, Kind::Broker(_)) {
            // No message has reached it, and it goes on reading until one does.
            return closed.unwrap();
        }
        let error = closed.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(begun.elapsed() >= limit);
        if let Some(confirm) = confirm {
            assert_eq!(within("the confirm", confirm).await.unwrap_err().outcome(), Outcome::Unknown);
        }
        server.unblock().await;
    }

    /// A publisher that waits because the server is blocked, when the server goes.
    async fn the_server_is_gone_while_blocked(server: Own) {
        let connection = server.connect().await;
        let channel = connection.open_channel().await.unwrap();
        let queue = exclusive_queue(&channel).await;
        server.block().await;
        channel.confirm_select().await.unwrap();
        let confirm = publish_into_the_block(&connection, &channel, &queue).await;
        let publisher = tokio::spawn({
            let channel = channel.clone();
            async move { channel.basic_publish("", &queue, "y").deadline(HOUR).await.unwrap_err() }
        });
        tokio::task::yield_now().await;
        server.kill().await;
        let error = within("the publisher", publisher).await.unwrap();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Io, Outcome::NotSent), "{error}");
        if let Some(confirm) = confirm {
            let error = within("the confirm", confirm).await.unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::Io, Outcome::Unknown), "{error}");
        }
        within("the end", connection.closed()).await.unwrap_err();
    }
}
