//! Deadlines and heartbeats: no wait lasts for ever.

use std::time::{Duration, Instant};

use leveret::amqp::{Channel, Connection, ConnectionBuilder};
use leveret::broker::Broker;
use leveret::codec::method::{basic, confirm, connection, queue};
use leveret::codec::{Frame, Method};
use leveret::error::{ErrorKind, Origin, Outcome};
use leveret::transport::Stream;
use tokio::io::AsyncWriteExt;

use crate::scripted::{Peer, Stage, TUNE, channel_of, connected, connected_as, connected_in_memory, start};
use crate::support::{PATIENCE, Server, assert_works, until, within};

const SHORT: Duration = Duration::from_millis(50);

async fn with_channel() -> (Connection, Peer, Channel) {
    let (connection, mut peer) = connected().await;
    let channel = channel_of(&connection, &mut peer).await;
    (connection, peer, channel)
}

fn declared(name: &str) -> queue::DeclareOk {
    queue::DeclareOk { queue: name.into(), ..Default::default() }
}

on_its_own! {
    /// c120, pain 4 and 5: the late reply belongs to the call that was given up.
    async fn a_late_reply_does_not_disturb_the_next_call() {
        let (connection, mut peer, channel) = with_channel().await;
        let begun = Instant::now();
        let error = channel.queue_declare("late").deadline(SHORT).await.unwrap_err();
        assert!(begun.elapsed() >= SHORT);
        assert_eq!((error.kind(), error.origin()), (ErrorKind::Timeout, Origin::Network));
        assert!(error.is_transient());
        let text = error.to_string();
        assert!(text.contains("queue.declare") && text.contains("50 ms"), "{text}");
        expect!(peer, Queue(queue)::Declare);

        let next = async { channel.queue_declare("next").await };
        let (queue, ()) = tokio::join!(next, async {
            expect!(peer, Queue(queue)::Declare);
            peer.send(1, declared("late")).await;
            peer.send(1, declared("next")).await;
        });
        assert_eq!(queue.unwrap().name(), "next");
        assert!(connection.is_open());
    }

    /// A server that never confirms: whoever waits so long learns that nobody knows, and may wait again.
    async fn a_confirm_can_have_a_deadline() {
        let (connection, mut peer, channel) = with_channel().await;
        let (selected, ()) = tokio::join!(channel.confirm_select(), async {
            expect!(peer, Confirm(confirm)::Select);
            peer.send(1, confirm::SelectOk {}).await;
        });
        selected.unwrap();
        let mut confirm = channel.basic_publish("", "q", "x").await.unwrap();
        let begun = Instant::now();
        let error = confirm.within(SHORT).await.unwrap_err();
        assert!(begun.elapsed() >= SHORT);
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown));
        assert_eq!(error.to_string(), "no confirm within 50 ms");
        expect!(peer, Basic(basic)::Publish);
        peer.send(1, basic::Ack { delivery_tag: 1, multiple: false }).await;
        within("the confirm", confirm.within(PATIENCE)).await.unwrap().accepted().unwrap();
        let error = confirm.within(SHORT).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "it is told once");
        assert_eq!(error.outcome(), Outcome::Unknown, "that it was not sent would be wrong");
        assert!(connection.is_open());
    }

    /// Deliveries wait for a consumer who waits for a confirm, which is behind them: the error says so, and taking them helps.
    async fn a_confirm_behind_deliveries_that_nobody_takes() {
        let server = Server::broker().await;
        let connection = server.builder().max_buffered(100_000).open().await.unwrap();
        let (source, target) = (connection.open_channel().await.unwrap(), connection.open_channel().await.unwrap());
        for queue in ["source", "target"] {
            source.queue_declare(queue).await.unwrap();
        }
        target.confirm_select().await.unwrap();
        let mut consumer = source.basic_consume("source").prefetch(0).await.unwrap();
        target.basic_publish("", "source", "first").await.unwrap().await.unwrap().accepted().unwrap();
        within("the first", consumer.next()).await.unwrap().unwrap().ack().unwrap();
        for _ in 0..40 {
            drop(target.basic_publish("", "source", vec![7; 50_000]).await.unwrap());
        }
        let mut confirm = target.basic_publish("", "target", "x").await.unwrap();
        until("so much to be there that it is no longer read", async || {
            let error = confirm.within(SHORT).await.unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown));
            error.to_string().contains("max_buffered")
        })
        .await;
        let error = target.queue_declare("another").deadline(SHORT).await.unwrap_err();
        assert!(error.to_string().contains("max_buffered"), "{error}");
        for _ in 0..40 {
            within("the rest", consumer.next()).await.unwrap().unwrap().ack().unwrap();
        }
        within("the confirm", confirm.within(PATIENCE)).await.unwrap().accepted().unwrap();
    }

    /// A server that never answers a close, of a channel and of a connection.
    async fn closing_has_a_deadline() {
        let (connection, mut peer) = connected_as(TUNE, |builder| builder.close_deadline(SHORT)).await;
        let channel = channel_of(&connection, &mut peer).await;
        let error = within("the channel's close", channel.close()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        expect!(peer, Channel(channel)::Close);
        let error = within("the connection's close", connection.close()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert_eq!(within("the end", connection.closed()).await.unwrap_err().kind(), ErrorKind::Timeout);
        expect!(peer, Connection(connection)::Close);
        peer.end().await;
    }

    /// c56: a server that closes the socket instead of answering has done what was asked.
    async fn the_end_of_the_stream_is_an_answer_to_close() {
        let (connection, mut peer) = connected().await;
        let (closed, ()) = tokio::join!(within("the end", connection.close()), async {
            expect!(peer, Connection(connection)::Close);
            drop(peer);
        });
        closed.unwrap();
    }

    /// A server that reads nothing: what is published waits for room, and not for ever.
    async fn publishing_waits_for_room_and_gives_up() {
        let (connection, mut peer) = connected_as(TUNE, |builder| builder.max_unwritten(1)).await;
        let channel = channel_of(&connection, &mut peer).await;
        let body = vec![0; 1 << 20];
        let mut sent = 0;
        let error = loop {
            match channel.basic_publish("", "q", &body).deadline(Duration::from_millis(300)).await {
                Ok(_) => sent += 1,
                Err(error) => break error,
            }
            assert!(sent < 1000, "the sockets do not take a gigabyte");
        };
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::NotSent), "{error}");
        let waits = async { channel.basic_publish("", "q", "the last").await };
        let ((), last) = tokio::join!(
            async {
                for _ in 0..sent {
                    assert_eq!(peer.published().await.1.len(), body.len());
                }
                assert_eq!(peer.published().await.1, "the last");
            },
            waits
        );
        drop(last.unwrap());
    }

    /// c12, pain 8 of lapin: whoever no longer waits for a connection leaves no socket behind.
    async fn connecting_can_be_given_up() {
        let stage = Stage::new().await;
        let mut connecting = Box::pin(stage.builder().open());
        let mut peer = tokio::select! {
            peer = stage.accept() => peer,
            _ = &mut connecting => panic!("nobody has answered"),
        };
        within("the header", async {
            tokio::select! {
                () = peer.header() => {}
                _ = &mut connecting => panic!("nobody has answered"),
            }
        })
        .await;
        drop(connecting);
        peer.end().await;
    }

    /// c38
    async fn a_heartbeat_of_the_wrong_shape() {
        for octets in [&b"\x08\0\x01\0\0\0\0\xce"[..], b"\x08\0\0\0\0\0\x01\0\xce"] {
            let (connection, mut peer) = connected().await;
            peer.raw(octets).await;
            assert_eq!(within("the end", connection.closed()).await.unwrap_err().kind(), ErrorKind::Protocol);
        }
    }
}

on_every_server! {
    /// A connection on which nothing happens stays open (c39). Servers give one up after two intervals, which a busy machine may be
    /// late by.
    async fn heartbeats_keep_a_quiet_connection(server: Server) {
        let connection = within("a connection", server.builder().heartbeat(4).open()).await.unwrap();
        assert_eq!(connection.tuning().heartbeat, 4);
        tokio::time::timeout(Duration::from_secs(10), connection.closed()).await.expect_err("it stays");
        assert_works(&connection.open_channel().await.unwrap()).await;
        connection.close().await.unwrap();
    }
}

/// The same for calls of all kinds.
#[tokio::test(start_paused = true)]
async fn every_call_has_a_deadline() {
    let (connection, mut peer) = connected_in_memory(TUNE, |builder| builder.call_deadline(SHORT)).await;
    let channel = channel_of(&connection, &mut peer).await;
    for error in [
        channel.exchange_declare("x", "fanout").await.unwrap_err(),
        channel.exchange_bind("a", "b", "").await.unwrap_err(),
        channel.queue_purge("q").await.unwrap_err(),
        channel.basic_qos(1).await.unwrap_err(),
        channel.basic_get("q").await.unwrap_err(),
        channel.basic_consume("q").await.unwrap_err(),
        channel.basic_recover().await.unwrap_err(),
        channel.confirm_select().await.unwrap_err(),
        connection.update_secret("s", "because").await.unwrap_err(),
        connection.open_channel().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(!error.to_string().contains("\"s\""), "{error}");
    }
    assert!(connection.is_open());
    assert!(channel.is_open());
}

/// A channel that was given up before it was open is closed as soon as it is, and its number is not in use until then (c49).
#[tokio::test(start_paused = true)]
async fn a_channel_that_opens_late() {
    let (connection, mut peer) = connected_in_memory(TUNE, |builder| builder.call_deadline(SHORT)).await;
    connection.open_channel().await.unwrap_err();
    assert_eq!(expect!(peer, Channel(channel)::Open).0, 1);
    assert_eq!(expect!(peer, Channel(channel)::Close).0, 1);
    let (channel, ()) = tokio::join!(connection.open_channel(), async {
        let (number, _) = expect!(peer, Channel(channel)::Open);
        assert_eq!(number, 2);
        peer.send(2, leveret::codec::method::channel::OpenOk::default()).await;
    });
    let channel = channel.unwrap();
    assert_eq!(channel.number(), 2);
    peer.send(1, leveret::codec::method::channel::OpenOk::default()).await;
    peer.send(1, leveret::codec::method::channel::CloseOk {}).await;
    let get = async { channel.basic_get("q").await };
    let (got, ()) = tokio::join!(get, async {
        expect!(peer, Basic(basic)::Get);
        peer.send(2, basic::GetEmpty::default()).await;
    });
    assert!(got.unwrap().is_none(), "by now the client knows what came before");
    assert_eq!(channel_of(&connection, &mut peer).await.number(), 1);
}

/// c37, c39, c40: heartbeats are sent, and when none come the connection is given up without a handshake.
#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up() {
    let tune = connection::Tune { heartbeat: 1, ..TUNE };
    let (connection, mut peer) = connected_in_memory(tune, |builder| builder).await;
    let channel = channel_of(&connection, &mut peer).await;
    let silent_since = tokio::time::Instant::now();
    let call = async { channel.basic_get("q").await };
    let (error, closed, heartbeats) = tokio::join!(call, connection.closed(), async {
        expect!(peer, Basic(basic)::Get);
        let mut heartbeats = 0;
        while let Some(frame) = peer.frame().await {
            assert_eq!(frame, Frame::Heartbeat, "no close handshake");
            heartbeats += 1;
        }
        heartbeats
    });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Heartbeat);
    let error = closed.unwrap_err();
    assert_eq!((error.kind(), error.origin()), (ErrorKind::Heartbeat, Origin::Network));
    assert!(error.is_transient());
    let silence = silent_since.elapsed();
    assert!(silence >= Duration::from_millis(1900) && silence < Duration::from_secs(3), "{silence:?}");
    assert!((2..=6).contains(&heartbeats), "{heartbeats} heartbeats in {silence:?}");
}

/// c41: whatever arrives is a sign of life, also single octets of a frame that is not whole for a long time.
#[tokio::test(start_paused = true)]
async fn every_octet_is_a_sign_of_life() {
    let tune = connection::Tune { heartbeat: 1, ..TUNE };
    let (connection, mut peer) = connected_in_memory(tune, |builder| builder).await;
    let channel = channel_of(&connection, &mut peer).await;
    let mut octets = Vec::new();
    Frame::Method(1, declared("slow").into()).encode(&mut octets, 4096).unwrap();
    let declare = async { channel.queue_declare("slow").await };
    let (queue, ()) = tokio::join!(declare, async {
        expect!(peer, Queue(queue)::Declare);
        let (most, last) = octets.split_at(7);
        for octet in most {
            peer.raw(&[*octet]).await;
            // Seven times more than half a second: longer than a silence may last.
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
        peer.raw(last).await;
    });
    assert_eq!(queue.unwrap().name(), "slow");
}

/// c39, with the smallest interval there is, at both ends.
#[tokio::test(start_paused = true)]
async fn heartbeats_of_a_second_keep_a_quiet_connection() {
    let server = Broker::start().await.unwrap();
    let connection = ConnectionBuilder::default().heartbeat(1).open_with(server.connect()).await.unwrap();
    assert_eq!(connection.tuning().heartbeat, 1);
    tokio::time::timeout(Duration::from_secs(3600), connection.closed()).await.expect_err("it stays");
    assert_works(&connection.open_channel().await.unwrap()).await;
    connection.close().await.unwrap();
}

/// A process that was suspended: what has come meanwhile is read before anybody is taken for dead.
#[tokio::test(start_paused = true)]
async fn c45_a_late_turn_reads_first() {
    for lives in [true, false] {
        let (ours, mut theirs) = Stream::pipe();
        let tune = connection::Tune { heartbeat: 10, ..TUNE };
        let mut octets = Vec::new();
        for method in [Method::from(start()), tune.into(), connection::OpenOk::default().into()] {
            Frame::Method(0, method).encode(&mut octets, 4096).unwrap();
        }
        theirs.write_all(&octets).await.unwrap();
        let connection = Connection::builder("amqp://nobody").unwrap().open_with(ours).await.unwrap();
        if lives {
            theirs.write_all(&Frame::HEARTBEAT).await.unwrap();
        }
        tokio::time::advance(Duration::from_secs(1000)).await;
        // Its turns are over, whichever they were.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(connection.is_open(), lives);
    }
}
