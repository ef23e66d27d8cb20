//! Many tasks on one channel, many channels on one connection, and what handles are good for.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::Thread;
use std::time::Duration;

use futures_util::future::join_all;
use leveret::amqp::{Channel, Confirm, Confirmation, Connection, ConnectionBuilder, Consumer, Delivery, MessageStream};
use leveret::broker::Broker;
use leveret::error::{ErrorKind, Outcome};
use leveret::transport::Stream;
use tokio::io::AsyncReadExt;
use tokio::runtime::{Handle, Runtime};

use crate::support::{
    Server, assert_works, exclusive_queue, next, number, ready, ready_at_once, unique, until, within,
};

on_every_server! {
    /// c32, pain 15: messages of several frames from 200 tasks on one channel are never mixed, and each comes out once.
    async fn two_hundred_tasks_share_a_channel(server: Server) {
        const TASKS: u32 = 200;
        const EACH: u32 = 20;
        let connection = within("a connection", server.builder().frame_max(8192).open()).await.unwrap();
        let channel = connection.open_channel().await.unwrap();
        let queue = exclusive_queue(&channel).await;
        channel.confirm_select().await.unwrap();
        let mut consumer = channel.basic_consume(&queue).prefetch(100).await.unwrap();
        let body = |n: u32| format!("{n:08}").repeat(1 + n as usize % 3000);

        let publishers = (0..TASKS).map(|task| {
            let (channel, queue) = (channel.clone(), queue.clone());
            tokio::spawn(async move {
                for n in 0..EACH {
                    let confirm = channel.basic_publish("", &queue, body(task * EACH + n)).mandatory(true).await.unwrap();
                    assert_eq!(within("a confirm", confirm).await.unwrap(), Confirmation::Ack(None));
                }
            })
        });
        let publishers: Vec<_> = publishers.collect();
        let mut seen = HashSet::new();
        for _ in 0..TASKS * EACH {
            let delivery = next(&mut consumer).await;
            let n: u32 = std::str::from_utf8(&delivery.body()[..8]).unwrap().parse().unwrap();
            assert!(*delivery.body() == *body(n).as_bytes(), "message {n} is whole");
            assert!(seen.insert(n), "message {n} came twice");
            delivery.ack().unwrap();
        }
        for publisher in publishers {
            publisher.await.unwrap();
        }
        assert_eq!(ready(&channel, &queue).await, 0);
    }

    /// c120: calls of all kinds at the same time on one channel each get their own answer.
    async fn calls_from_many_tasks(server: Server) {
        let channel = server.channel().await;
        let tasks = (0..100).map(|n| {
            let channel = channel.clone();
            tokio::spawn(async move {
                let name = unique(&format!("own-{n}"));
                let queue = channel.queue_declare(&name).exclusive(true).await.unwrap();
                assert_eq!(queue.name(), name);
                for i in 0..n % 5 {
                    drop(channel.basic_publish("", &name, format!("{n}{i}")).await.unwrap());
                }
                if n % 2 == 0 {
                    let got = channel.basic_get(&name).no_ack().await.unwrap();
                    assert_eq!(got.is_some(), n % 5 != 0);
                    let left = u32::saturating_sub(n % 5, 1);
                    assert_eq!(channel.queue_purge(&name).await.unwrap(), left);
                    assert_eq!(channel.queue_delete(&name).await.unwrap(), 0);
                } else {
                    assert_eq!(channel.queue_delete(&name).await.unwrap(), n % 5);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            within("a task", task).await.unwrap();
        }
    }

    /// c120: futures of calls dropped at any moment leave their late answers to nobody else (amqprs 196, pain 5).
    async fn calls_that_are_dropped_under_way(server: Server) {
        let channel = server.channel().await;
        for round in 0..200 {
            let name = unique("given-up");
            let mut declare = Box::pin(async { channel.queue_declare(&name).exclusive(true).await });
            ready_at_once(&mut declare).await;
            if round % 2 == 0 {
                tokio::task::yield_now().await;
            }
            drop(declare);
            let own = unique("own");
            let queue = channel.queue_declare(&own).exclusive(true).await.unwrap();
            assert_eq!(queue.name(), own);
            assert_eq!(channel.queue_delete(&own).await.unwrap(), 0);
            channel.queue_declare(&name).passive(true).await.expect("the request was sent, and carried out");
            channel.queue_delete(&name).await.unwrap();
        }
    }

    async fn a_thousand_channels_one_after_another(server: Server) {
        let connection = server.connect().await;
        for n in 0..1000 {
            let channel = connection.open_channel().await.unwrap();
            assert_eq!(channel.number(), 1, "round {n}");
            channel.close().await.unwrap();
        }
        for _ in 0..200 {
            // c49: without waiting for close-ok, so that numbers are taken while the old ones are still closing.
            drop(connection.open_channel().await.unwrap());
        }
        assert_works(&connection.open_channel().await.unwrap()).await;
    }

    async fn many_channels_at_the_same_time(server: Server) {
        let connection = server.connect().await;
        let opened = join_all((0..500).map(|_| connection.open_channel())).await;
        let channels: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
        let numbers: HashSet<_> = channels.iter().map(Channel::number).collect();
        assert_eq!(numbers, (1..=500).collect());
        for channel in join_all(channels.iter().map(|channel| async move { channel.basic_qos(1).await })).await {
            channel.unwrap();
        }
        for closed in join_all(channels.iter().map(Channel::close)).await {
            closed.unwrap();
        }
        assert_eq!(connection.open_channel().await.unwrap().number(), 1);
    }

    /// lapin 430: an error, and not the end of the world.
    async fn as_many_channels_as_agreed(server: Server) {
        let connection = within("a connection", server.builder().channel_max(3).open()).await.unwrap();
        let mut channels = Vec::new();
        for _ in 0..3 {
            channels.push(connection.open_channel().await.unwrap());
        }
        for _ in 0..3 {
            let error = connection.open_channel().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitReached, "{error}");
            assert!(error.to_string().contains('3'), "{error}");
        }
        channels.remove(1).close().await.unwrap();
        let again = connection.open_channel().await.unwrap();
        assert_eq!(again.number(), 2);
        assert_works(&again).await;
        connection.open_channel().await.unwrap_err();
        drop(again);
        within("the number to be free", async {
            while connection.open_channel().await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// The connection closes when nobody holds anything of it any more, after what was published has left.
    async fn the_last_handle_closes_the_connection(server: Server) {
        let watcher = server.channel().await;
        let queue = unique("flushed");
        watcher.queue_declare(&queue).await.unwrap();
        {
            let channel = server.channel().await; // its connection's own handle is gone already
            for n in 0..1000u32 {
                drop(channel.basic_publish("", &queue, n.to_string()).await.unwrap());
            }
        }
        until("everything to arrive", async || ready(&watcher, &queue).await == 1000).await;
        for n in 0..1000 {
            assert_eq!(number(&watcher.basic_get(&queue).no_ack().await.unwrap().unwrap()), n);
        }
        watcher.queue_delete(&queue).await.unwrap();

        // A confirm, a consumer or a delivery keeps it, too.
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        channel.confirm_select().await.unwrap();
        let confirm = channel.basic_publish("", &queue, "x").await.unwrap();
        let mut consumer = channel.basic_consume(&queue).await.unwrap();
        drop(channel);
        assert_eq!(within("a confirm", confirm).await.unwrap(), Confirmation::Ack(None));
        let delivery = next(&mut consumer).await;
        drop(consumer);
        delivery.ack().unwrap();
    }

    /// Handles are made on one runtime, used on another, and dropped where there is none.
    async fn handles_outlive_runtimes(server: Server) {
        let holder = Arc::new(Runtime::new().unwrap());
        let builder = server.builder().spawn_on(holder.handle().clone());
        let queue = unique("kept");
        let name = queue.clone();
        let (connection, channel) = std::thread::spawn(move || {
            let caller = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&caller, async move {
                let connection = builder.open().await.unwrap();
                let channel = connection.open_channel().await.unwrap();
                channel.queue_declare(&name).exclusive(true).await.unwrap();
                (connection, channel)
            })
        })
        .join()
        .unwrap();
        // The runtime that called is gone; the one that holds the connection is not.
        assert!(connection.is_open());
        channel.confirm_select().await.unwrap();
        let confirm = channel.basic_publish("", &queue, "x").await.unwrap();
        assert_eq!(within("a confirm", confirm).await.unwrap(), Confirmation::Ack(None));
        let consumer = channel.basic_consume(&queue).await.unwrap();
        std::thread::spawn(move || drop((consumer, channel, connection))).join().unwrap();
        tokio::task::spawn_blocking(move || drop(holder)).await.unwrap();
    }

    /// Deadlines hold wherever somebody waits: outside of any runtime they are the connection's runtime's.
    async fn handles_work_where_there_is_no_runtime(server: Server) {
        let connection = server.connect().await;
        let channel = connection.open_channel().await.unwrap();
        let queue = exclusive_queue(&channel).await;
        let nobody = connection.clone();
        let outside = std::thread::spawn(move || {
            block_on(async {
                let channel = nobody.open_channel().await?;
                channel.confirm_select().await?;
                let mut confirm = channel.basic_publish("", &queue, "x").mandatory(true).await?;
                confirm.within(Duration::from_secs(20)).await?.accepted()?;
                channel.queue_declare(&queue).passive(true).await?;
                let mut consumer = channel.basic_consume(&queue).await?;
                let delivery = consumer.next().await.unwrap()?;
                delivery.ack()?;
                consumer.cancel().await?;
                channel.close().await?;
                nobody.close().await
            })
        });
        let outside = tokio::task::spawn_blocking(move || outside.join());
        within("the thread", outside).await.unwrap().unwrap().unwrap();
        // What is to live on a runtime has to be told on which.
        let builder = server.builder();
        let opened = std::thread::spawn(move || block_on(builder.open()).map(drop)).join().unwrap();
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("spawn_on"), "{error}");
    }

    /// The runtime that holds a connection ends: everybody who waits is told, and dropping what is left harms nobody.
    async fn a_runtime_ends_under_its_connection(server: Server) {
        let holder = Runtime::new().unwrap();
        let connection =
            within("a connection", server.builder().spawn_on(holder.handle().clone()).open()).await.unwrap();
        let channel = connection.open_channel().await.unwrap();
        let queue = exclusive_queue(&channel).await;
        let mut consumer = channel.basic_consume(&queue).await.unwrap();
        holder.shutdown_background();
        within("the end", connection.closed()).await.unwrap_err();
        within("the end", consumer.next()).await.unwrap().unwrap_err();
        within("an error", async { channel.basic_get(&queue).await }).await.unwrap_err();
        assert!(!connection.is_open());
    }
}

on_its_own! {
    /// The connection's runtime keeps the time for whoever polls outside of any.
    async fn an_executor_of_somebody_else() {
        const SHORT: Duration = Duration::from_millis(50);
        let broker = Broker::start().await.unwrap();
        broker.hold_confirms(true);
        let builder = Connection::builder(&broker.url()).unwrap().spawn_on(Handle::current());
        let outside = tokio::task::spawn_blocking(|| {
            std::thread::spawn(|| {
                block_on(async {
                    let connection = builder.open().await.unwrap();
                    let channel = connection.open_channel().await.unwrap();
                    channel.confirm_select_with_window(1).await.unwrap();
                    let mut confirm = channel.basic_publish("", "nowhere", "x").await.unwrap();
                    let error = confirm.within(SHORT).await.unwrap_err();
                    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown));
                    let error = channel.basic_publish("", "nowhere", "y").deadline(SHORT).await.unwrap_err();
                    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::NotSent));
                    connection.close().await.unwrap();
                });
            })
            .join()
        });
        within("the other executor", outside).await.unwrap().unwrap();
        broker.shutdown().await;
    }

    /// Nobody waits for it any more: it is not opened on the other runtime either.
    async fn an_opening_elsewhere_ends_with_its_future() {
        let (ours, mut theirs) = Stream::pipe();
        let builder = ConnectionBuilder::default().connect_timeout(Duration::from_secs(3600));
        let mut opening = Box::pin(builder.spawn_on(Handle::current()).open_with(ours));
        assert!(!ready_at_once(&mut opening).await);
        within("the header", theirs.read_exact(&mut [0; 8])).await.unwrap();
        drop(opening);
        let end = within("the end of the stream", theirs.read(&mut [0; 8])).await;
        assert_eq!(end.unwrap(), 0);
    }
}

/// An executor that knows nothing of tokio.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn handles_can_be_shared() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    fn sent<T: Send + Sync + 'static>() {}
    shared::<Connection>();
    shared::<Channel>();
    shared::<ConnectionBuilder>();
    sent::<Consumer>();
    sent::<MessageStream>();
    sent::<Delivery>();
    sent::<Confirm>();
}
