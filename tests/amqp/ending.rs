//! The ends of channels and connections: in order, crossing each other, and by a breach of the protocol.

use bytes::Bytes;
use leveret::amqp::{Channel, Confirmation, Connection, Consumer, Message};
use leveret::codec::method::{basic, channel, confirm, connection, queue};
use leveret::codec::{ContentHeader, Frame};
use leveret::error::{Error, ErrorKind, Outcome, Result};

use crate::scripted::{Peer, TUNE, channel_of, connected, connected_as, content};
use crate::support::{Server, exclusive_queue, fill, number, ready, ready_at_once, unique, within};

fn connection_close(code: u16, text: &str) -> connection::Close {
    connection::Close { reply_code: code, reply_text: text.into(), class_id: 0, method_id: 0 }
}

fn channel_close(code: u16, text: &str) -> channel::Close {
    channel::Close { reply_code: code, reply_text: text.into(), class_id: 0, method_id: 0 }
}

async fn confirming(channel: &Channel, peer: &mut Peer) {
    let (selected, ()) = tokio::join!(channel.confirm_select_with_window(100), async {
        expect!(peer, Confirm(confirm)::Select);
        peer.send(1, confirm::SelectOk {}).await;
    });
    selected.unwrap();
}

/// A call, a hundred confirms, a consumer, a publisher that waits for the window, somebody who listens for returns and
/// somebody who waits for the end: what each of them is told when `happens` happens to the connection.
async fn everybody_is_told(happens: impl AsyncFnOnce(&mut Peer)) -> Error {
    let (connection, mut peer) = connected().await;
    let channel = channel_of(&connection, &mut peer).await;
    confirming(&channel, &mut peer).await;
    let consume = async { channel.basic_consume("q").await };
    let (consumer, ()) = tokio::join!(consume, async {
        expect!(peer, Basic(basic)::Qos);
        peer.send(1, basic::QosOk {}).await;
        let (_, consume) = expect!(peer, Basic(basic)::Consume);
        peer.send(1, basic::ConsumeOk { consumer_tag: consume.consumer_tag }).await;
    });
    let mut consumer: Consumer = consumer.unwrap();
    let mut confirms = Vec::new();
    for _ in 0..100 {
        confirms.push(channel.basic_publish("", "q", "x").await.unwrap());
        peer.published().await;
    }
    let call = spawn({
        let channel = channel.clone();
        async move { channel.queue_purge("q").await.map(drop) }
    });
    expect!(peer, Queue(queue)::Purge);
    let opener = spawn({
        let connection = connection.clone();
        async move { connection.open_channel().await.map(drop) }
    });
    expect!(peer, Channel(channel)::Open);
    let publisher = spawn({
        let channel = channel.clone();
        async move { channel.basic_publish("", "q", "no room").await.map(drop) }
    });
    let watcher = spawn({
        let connection = connection.clone();
        async move { connection.closed().await }
    });
    let mut returns = channel.returned_messages();
    let listener = tokio::spawn(async move { returns.next().await });
    tokio::task::yield_now().await;

    happens(&mut peer).await;

    let error = told(watcher).await;
    let is_the_same = |other: &Error| {
        assert_eq!((other.kind(), other.reply_code()), (error.kind(), error.reply_code()), "{other} / {error}");
    };
    is_the_same(&told(call).await);
    is_the_same(&told(opener).await);
    let not_sent = told(publisher).await;
    is_the_same(&not_sent);
    assert_eq!(not_sent.outcome(), Outcome::NotSent);
    for confirm in confirms {
        let unknown = within("a confirm", confirm).await.unwrap_err();
        is_the_same(&unknown);
        assert_eq!(unknown.outcome(), Outcome::Unknown);
    }
    is_the_same(&within("the consumer's end", consumer.next()).await.unwrap().unwrap_err());
    assert!(within("nothing more", consumer.next()).await.is_none());
    assert!(within("the end of returns", listener).await.unwrap().is_none());
    is_the_same(&channel.end().unwrap());
    is_the_same(&channel.basic_get("q").await.unwrap_err());
    is_the_same(&channel.basic_publish("", "q", "late").await.unwrap_err());
    is_the_same(&connection.open_channel().await.unwrap_err());
    error
}

fn spawn(wait: impl Future<Output = Result<()>> + Send + 'static) -> tokio::task::JoinHandle<Result<()>> {
    tokio::spawn(wait)
}

async fn told(task: tokio::task::JoinHandle<Result<()>>) -> Error {
    within("the end of a wait", task).await.unwrap().unwrap_err()
}

on_its_own! {
    /// c50, c102, c144, pain 3
    async fn everybody_learns_of_a_close_by_the_server() {
        let error = everybody_is_told(async |peer| {
            peer.send(0, connection_close(320, "CONNECTION_FORCED - broker forced connection closure")).await;
            // What the client has written before it knew may stand before its close-ok.
            while !matches!(peer.method().await.1, leveret::codec::Method::Connection(connection::Method::CloseOk(_))) {}
            peer.end().await;
        })
        .await;
        assert_eq!(error.kind(), ErrorKind::ConnectionClosed);
        assert_eq!(error.reply_code().map(|code| code.0), Some(320));
        assert!(error.is_transient());
    }

    /// lapin 409, 187, 283, 389: the socket closes without a word.
    async fn everybody_learns_of_the_end_of_the_stream() {
        let error = everybody_is_told(async |peer| peer.hang_up().await).await;
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.is_transient());
    }

    /// c23
    async fn everybody_learns_of_a_breach_of_the_protocol() {
        let error = everybody_is_told(async |peer| peer.raw(b"\x01\0\x01\0\0\0\x04\0\x14\0\x15\xcd").await).await;
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(!error.is_transient());
    }

    /// c23, c24, c25, c29, c30, c31, c35, c57, c73, c77, c78, c84: the client says what is wrong, here and there.
    async fn breaches_of_the_protocol() {
        let header = |body_size| Frame::Header(1, ContentHeader { body_size, ..Default::default() });
        let encoded = |frames: &[Frame]| {
            let mut octets = Vec::new();
            frames.iter().for_each(|frame| frame.encode(&mut octets, 1 << 20).unwrap());
            octets
        };
        let returned = || Frame::Method(1, basic::Return { reply_code: 312, ..Default::default() }.into());
        for (what, octets, code) in [
            ("a wrong end", b"\x01\0\x01\0\0\0\x04\0\x14\0\x15\xcd".to_vec(), 501),
            ("type 4", b"\x04\0\0\0\0\0\0\xce".to_vec(), 501),
            ("a frame that is too large", b"\x03\0\x01\x00\x02\x00\x01".to_vec(), 501),
            ("a method of two octets", b"\x01\0\x01\0\0\0\x02\0\x14\xce".to_vec(), 501),
            ("an unknown method", b"\x01\0\x01\0\0\0\x04\0\x14\0\x63\xce".to_vec(), 503),
            ("a table with the tag Q", b"\x01\0\0\0\0\0\x0d\0\x0a\0\x0a\0\x09\0\0\0\x03\x01kQ\xce".to_vec(), 502),
            ("content on channel 0", encoded(&[Frame::Body(0, "x".into())]), 503),
            ("queue.declare-ok on channel 0", encoded(&[Frame::Method(0, queue::DeclareOk::default().into())]), 503),
            ("connection.tune on channel 1", encoded(&[Frame::Method(1, TUNE.into())]), 503),
            ("connection.tune on an open connection", encoded(&[Frame::Method(0, TUNE.into())]), 503),
            ("a reply that nobody waits for", encoded(&[Frame::Method(1, queue::PurgeOk::default().into())]), 503),
            ("a channel that is not open", encoded(&[Frame::Method(9, queue::PurgeOk::default().into())]), 504),
            ("a header without a method", encoded(&[header(1)]), 505),
            ("a body without a header", encoded(&[Frame::Body(1, "x".into())]), 505),
            ("a body instead of a header", encoded(&[returned(), Frame::Body(1, "x".into())]), 505),
            ("a method instead of a header", encoded(&[returned(), returned()]), 505),
            ("a method instead of a body", encoded(&[returned(), header(1), returned()]), 505),
            ("a body that is too long", encoded(&[returned(), header(1), Frame::Body(1, "xy".into())]), 501),
            ("an ack without confirms", encoded(&[Frame::Method(1, basic::Ack::default().into())]), 503),
        ] {
            let (connection, mut peer) = connected().await;
            let channel = channel_of(&connection, &mut peer).await;
            peer.raw(&octets).await;
            let error = within(what, connection.closed()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{what}: {error}");
            assert!(!channel.is_open());
            let (_, close) = expect!(peer, Connection(connection)::Close);
            assert_eq!(close.reply_code, code, "{what}: {error}");
            assert!(!close.reply_text.is_empty(), "{what}");
            peer.end().await;
        }
    }

    /// c36: octets behind the last field that is known.
    async fn longer_methods_than_known() {
        let (connection, mut peer) = connected().await;
        let channel = channel_of(&connection, &mut peer).await;
        let purge = async { channel.queue_purge("q").await };
        let (purged, ()) = tokio::join!(purge, async {
            expect!(peer, Queue(queue)::Purge);
            peer.raw(b"\x01\0\x01\0\0\0\x0b\0\x32\0\x1f\0\0\0\x07new\xce").await;
        });
        assert_eq!(purged.unwrap(), 7);
        assert!(connection.is_open());
    }

    /// c46, c42: both sides close the connection at the same time.
    async fn connection_closes_that_cross() {
        let (connection, mut peer) = connected().await;
        let (closed, ()) = tokio::join!(within("the end", connection.close()), async {
            peer.send(0, connection_close(320, "at the same time")).await;
            let mut seen = Vec::new();
            for _ in 0..2 {
                let (_, method) = peer.method().await;
                seen.push(method.info().name);
                // The client may have learnt of our close before it could send its own.
                if seen == ["connection.close-ok"] {
                    break;
                }
            }
            assert!(seen == ["connection.close", "connection.close-ok"] || seen == ["connection.close-ok"], "{seen:?}");
            peer.send(0, connection::CloseOk {}).await;
            peer.end().await;
        });
        // Whoever was first: the connection is closed, and nobody waits.
        if let Err(error) = closed {
            assert_eq!(error.reply_code().map(|code| code.0), Some(320), "{error}");
        }

        let (connection, mut peer) = connected().await;
        let mut close = Box::pin(connection.close());
        assert!(!ready_at_once(&mut close).await);
        expect!(peer, Connection(connection)::Close);
        peer.send(0, connection_close(320, "at the same time")).await;
        expect!(peer, Connection(connection)::CloseOk);
        peer.send(0, connection::CloseOk {}).await;
        within("the end", close).await.expect("this side closed it");
        peer.end().await;
    }

    /// c46, c47, c49: both sides close the channel.
    async fn channel_closes_that_cross() {
        let (connection, mut peer) = connected().await;
        let channel = channel_of(&connection, &mut peer).await;
        let mut close = Box::pin(channel.close());
        assert!(!ready_at_once(&mut close).await);
        expect!(peer, Channel(channel)::Close);
        peer.send(1, channel_close(404, "at the same time")).await;
        expect!(peer, Channel(channel)::CloseOk);
        within("the end", close).await.expect("RabbitMQ may or may not answer ours");
        let other = channel_of(&connection, &mut peer).await;
        assert_eq!(other.number(), 2, "and it may not be done with 1");
        peer.send(1, channel::CloseOk {}).await;
        assert_eq!(channel_of(&connection, &mut peer).await.number(), 3);
        assert!(connection.is_open(), "the answer that came is fine, too");
        assert_eq!(channel.end().unwrap().kind(), ErrorKind::Closed);
    }

    /// c47: after a channel's close was sent everything for it is discarded: deliveries, returns, confirms, half a message.
    async fn what_arrives_after_close_is_discarded() {
        let (connection, mut peer) = connected().await;
        let channel = channel_of(&connection, &mut peer).await;
        let mut close = Box::pin(channel.close());
        assert!(!ready_at_once(&mut close).await);
        expect!(peer, Channel(channel)::Close);
        let deliver = basic::Deliver { consumer_tag: "nobody".into(), delivery_tag: 1, ..Default::default() };
        let mut frames = content(1, deliver, b"x");
        frames.extend(content(1, basic::Return { reply_code: 312, ..Default::default() }, b"y").into_iter().take(2));
        frames.push(Frame::Method(1, basic::Ack { delivery_tag: 77, multiple: true }.into()));
        frames.push(Frame::Method(1, basic::Cancel { consumer_tag: "nobody".into(), no_wait: false }.into()));
        frames.push(Frame::Method(1, channel::CloseOk {}.into()));
        peer.frames(&frames).await;
        within("close-ok", close).await.unwrap();
        let next = channel_of(&connection, &mut peer).await;
        assert_eq!(next.number(), 1);
        assert!(connection.is_open());
    }

    /// c31: RabbitMQ sends deliveries behind its own `channel.close`, as long as it has not read close-ok. They harm neither the
    /// connection nor the next channel, whichever number that has.
    async fn deliveries_behind_the_servers_close() {
        let (connection, mut peer) = connected_as(TUNE, |builder| builder.channel_max(1)).await;
        let channel = channel_of(&connection, &mut peer).await;
        let deliver = basic::Deliver { consumer_tag: "leveret-1".into(), delivery_tag: 1, ..Default::default() };
        let stray = [&content(1, deliver.clone(), b"small")[..], &content(1, deliver, &[0; 10_000])].concat();
        peer.send(1, channel_close(404, "NOT_FOUND")).await;
        peer.frames(&stray).await;
        expect!(peer, Channel(channel)::CloseOk);
        crate::support::until("the end", async || !channel.is_open()).await;
        let mut opening = Box::pin(connection.open_channel());
        assert!(!ready_at_once(&mut opening).await);
        assert_eq!(expect!(peer, Channel(channel)::Open).0, 1, "it is the only number there is");
        peer.frames(&stray).await;
        peer.send(1, channel::OpenOk::default()).await;
        let next = within("open-ok", opening).await.unwrap();
        let purge = async { next.queue_purge("q").await };
        let (purged, ()) = tokio::join!(purge, async {
            expect!(peer, Queue(queue)::Purge);
            peer.send(1, queue::PurgeOk { message_count: 3 }).await;
        });
        assert_eq!(purged.unwrap(), 3);
        assert!(connection.is_open());
    }

    /// c87: half a message dies with its channel, and the channel's successor begins anew.
    async fn a_channel_closes_in_the_middle_of_a_message() {
        let (connection, mut peer) = connected().await;
        let channel = channel_of(&connection, &mut peer).await;
        let mut frames = content(1, basic::Return { reply_code: 312, ..Default::default() }, b"whole");
        frames.truncate(2);
        frames.push(Frame::Body(1, Bytes::from_static(b"ha")));
        frames.push(Frame::Method(1, channel_close(541, "no more").into()));
        peer.frames(&frames).await;
        expect!(peer, Channel(channel)::CloseOk);
        assert_eq!(channel.end().unwrap().reply_code().map(|code| code.0), Some(541));
        let next = channel_of(&connection, &mut peer).await;
        let mut returns = next.returned_messages();
        peer.frames(&content(next.number(), basic::Return { reply_code: 312, ..Default::default() }, b"new")).await;
        let (returned, _) = within("a return", returns.next()).await.unwrap();
        let message: Message = returned.message();
        assert_eq!(message.body(), b"new");
    }

    /// Nothing is sent behind `connection.close`, and nothing that was not sent is called unknown.
    async fn nothing_goes_out_after_close() {
        let (connection, mut peer) = connected().await;
        let channel = channel_of(&connection, &mut peer).await;
        let fetch = async { channel.basic_get("q").await };
        let (got, ()) = tokio::join!(fetch, async {
            expect!(peer, Basic(basic)::Get);
            peer.frames(&content(1, basic::GetOk { delivery_tag: 1, ..Default::default() }, b"x")).await;
        });
        let delivery = got.unwrap().unwrap().delivery;
        let mut close = Box::pin(connection.close());
        assert!(!ready_at_once(&mut close).await);
        let error = within("an error", async { channel.basic_publish("", "q", "late").await }).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Closed, Outcome::NotSent), "{error}");
        let error = within("an error", async { channel.basic_get("q").await }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        assert_eq!(delivery.ack().unwrap_err().kind(), ErrorKind::Stale);
        drop(channel);
        expect!(peer, Connection(connection)::Close);
        peer.send(0, connection::CloseOk {}).await;
        within("close-ok", close).await.unwrap();
        peer.end().await;
    }

    /// The same for a publisher who was waiting for room when the close came.
    async fn closing_ends_the_wait_for_room() {
        let (connection, mut peer) = connected_as(TUNE, |builder| builder).await;
        let channel = channel_of(&connection, &mut peer).await;
        peer.send(0, connection::Blocked { reason: "low on disk".into() }).await;
        crate::support::until("blocked", async || connection.blocked().is_some()).await;
        let mut publish = Box::pin(async { channel.basic_publish("", "q", "x").await });
        assert!(!ready_at_once(&mut publish).await);
        let mut close = Box::pin(connection.close());
        assert!(!ready_at_once(&mut close).await);
        let error = within("an error", publish).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Closed, Outcome::NotSent), "{error}");
        peer.agree_to_close().await;
        within("close-ok", close).await.unwrap();
    }

    /// go 69 and 327, net 1749: however many close at the same time, one close is sent, and all of them are told when it is over.
    async fn many_close_at_the_same_time() {
        let (connection, mut peer) = connected().await;
        let channel = channel_of(&connection, &mut peer).await;
        let close_channel = (0..10).map(|_| {
            let channel = channel.clone();
            spawn(async move { channel.close().await })
        });
        let closes: Vec<_> = close_channel.collect();
        expect!(peer, Channel(channel)::Close);
        peer.send(1, channel::CloseOk {}).await;
        for close in closes {
            within("the channel's end", close).await.unwrap().unwrap();
        }
        let close_connection = (0..10).map(|_| {
            let connection = connection.clone();
            spawn(async move { connection.close().await })
        });
        let closes: Vec<_> = close_connection.collect();
        peer.agree_to_close().await;
        for close in closes {
            within("the end", close).await.unwrap().unwrap();
        }
    }

    /// The last handle is dropped: what was published goes out, then the close.
    async fn dropping_the_last_handle_says_goodbye() {
        let (connection, mut peer) = connected().await;
        let channel = channel_of(&connection, &mut peer).await;
        drop(connection);
        drop(channel.basic_publish("", "q", "the last word").await.unwrap());
        drop(channel);
        assert_eq!(peer.published().await.1, "the last word");
        expect!(peer, Channel(channel)::Close);
        peer.agree_to_close().await;
    }
}

on_every_server! {
    /// Closing waits for what was published before.
    async fn closing_flushes(server: Server) {
        let watcher = server.channel().await;
        let queue = unique("flushed");
        watcher.queue_declare(&queue).await.unwrap();
        let connection: Connection = server.connect().await;
        let channel = connection.open_channel().await.unwrap();
        let body = Bytes::from(vec![7; 100_000]);
        for _ in 0..100 {
            drop(channel.basic_publish("", &queue, body.clone()).await.unwrap());
        }
        within("close-ok", connection.close()).await.unwrap();
        crate::support::until("all to arrive", async || ready(&watcher, &queue).await == 100).await;
        watcher.queue_delete(&queue).await.unwrap();
    }

    /// c46: our close and the server's meet on the way, again and again.
    async fn closes_that_cross(server: Server) {
        let connection = server.connect().await;
        let queue = exclusive_queue(&connection.open_channel().await.unwrap()).await;
        for _ in 0..200 {
            let channel = connection.open_channel().await.unwrap();
            channel.confirm_select().await.unwrap();
            drop(channel.basic_publish("no such exchange", "", "x").await.unwrap());
            within("the channel's end", channel.close()).await.unwrap();
        }
        assert!(connection.is_open());
        assert_eq!(ready(&connection.open_channel().await.unwrap(), &queue).await, 0);
        within("close-ok", connection.close()).await.unwrap();
    }

    /// c31: a channel is closed by the server while it delivers at full speed.
    async fn a_channel_ends_while_it_delivers(server: Server) {
        let connection = server.connect().await;
        let filler = connection.open_channel().await.unwrap();
        let queue = exclusive_queue(&filler).await;
        fill(&filler, &queue, 0..1000).await;
        for _ in 0..50 {
            let channel = connection.open_channel().await.unwrap();
            let mut consumer = channel.basic_consume(&queue).prefetch(0).await.unwrap();
            drop(channel.basic_publish("no such exchange", "", "x").await.unwrap());
            while let Some(Ok(_)) = within("a delivery or the end", consumer.next()).await {}
        }
        crate::support::until("all to be back", async || ready(&filler, &queue).await == 1000).await;
        within("close-ok", connection.close()).await.unwrap();
    }

    /// A channel that ends leaves its neighbours alone (c51), in the middle of their work.
    async fn channels_end_apart(server: Server) {
        let connection = server.connect().await;
        let worker = connection.open_channel().await.unwrap();
        let queue = exclusive_queue(&worker).await;
        worker.confirm_select().await.unwrap();
        for round in 0..50u32 {
            let other = connection.open_channel().await.unwrap();
            let confirm = worker.basic_publish("", &queue, round.to_string()).await.unwrap();
            let error = other.queue_declare(&unique("nothing")).passive(true).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ChannelClosed);
            assert_eq!(within("a confirm", confirm).await.unwrap(), Confirmation::Ack(None));
        }
        fill(&worker, &queue, 50..60).await;
        for expected in 0..60 {
            assert_eq!(number(&worker.basic_get(&queue).no_ack().await.unwrap().unwrap()), expected);
        }
    }
}
