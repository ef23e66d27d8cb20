//! Servers that are none, speak something else, or end the handshake early.

use leveret::codec::method::connection;
use leveret::error::{Error, ErrorKind};

use crate::scripted::{Peer, Stage, TUNE, start};
use crate::support::within;

/// What a client makes of a peer that plays this script and then closes the connection.
async fn meets(script: impl AsyncFnOnce(&mut Peer)) -> Error {
    let stage = Stage::new().await;
    let (opened, ()) = tokio::join!(within("an error", stage.builder().open()), async {
        let mut peer = stage.accept().await;
        peer.header().await;
        script(&mut peer).await;
    });
    opened.unwrap_err()
}

/// The steps of a handshake, as far as `steps` goes.
async fn handshake(peer: &mut Peer, steps: usize) {
    if steps > 0 {
        peer.send(0, start()).await;
        expect!(peer, Connection(connection)::StartOk);
    }
    if steps > 1 {
        peer.send(0, TUNE).await;
        expect!(peer, Connection(connection)::TuneOk);
        expect!(peer, Connection(connection)::Open);
    }
}

on_its_own! {
    /// c2, c3, c4: each is named, and nothing is tried again.
    async fn a_server_of_another_protocol() {
        for (answer, word) in [
            (&b"AMQP\x00\x01\x00\x00"[..], "0-1-0-0"),
            (b"AMQP\x03\x01\x00\x00", "3-1-0-0"),
            (b"AMQP\x00\x00\x08\x00", "0-0-8-0"),
            (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "HTTP"),
            (b"\x15\x03\x01\x00\x02\x02\x16", "TLS"),
            (b"\x16\x03\x03\x00\x31", "TLS"),
        ] {
            let error = meets(async |peer| peer.raw(answer).await).await;
            let kind = if word == "TLS" { ErrorKind::Tls } else { ErrorKind::Unsupported };
            assert_eq!(error.kind(), kind, "{word}: {error}");
            assert!(error.to_string().contains(word), "{error}");
            assert!(!error.is_transient(), "{error}");
        }
    }

    /// c3, with the header in two pieces.
    async fn a_header_that_arrives_octet_by_octet() {
        let error = meets(async |peer| {
            for octet in b"AMQP\x00\x01\x00\x00" {
                peer.raw(&[*octet]).await;
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("0-1-0-0"), "{error}");
    }

    async fn a_server_that_talks_nonsense() {
        let error = meets(async |peer| peer.raw(b"220 mail.example ESMTP\r\n").await).await;
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    }

    /// c5
    async fn a_server_of_another_version() {
        let error = meets(async |peer| {
            peer.send(0, connection::Start { version_major: 1, version_minor: 0, ..start() }).await;
        })
        .await;
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("1-0"), "{error}");
    }

    /// c6: a mechanism is a whole word of the list.
    async fn a_server_without_a_mechanism_for_us() {
        let error = meets(async |peer| {
            peer.send(0, connection::Start { mechanisms: "SCRAM-SHA-256 XPLAIN".into(), ..start() }).await;
        })
        .await;
        assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
        assert!(error.to_string().contains("SCRAM-SHA-256"), "{error}");
    }

    /// c8: PLAIN has said everything already.
    async fn a_server_that_asks_for_more() {
        let error = meets(async |peer| {
            handshake(peer, 1).await;
            peer.send(0, connection::Secure { challenge: "who?".into() }).await;
        })
        .await;
        assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
        assert!(error.to_string().contains("PLAIN"), "{error}");
    }

    /// c11, c12: the end of the stream at each step.
    async fn a_server_that_goes_in_the_middle_of_the_handshake() {
        let kinds = [ErrorKind::Handshake, ErrorKind::Auth, ErrorKind::Handshake];
        for (steps, kind) in kinds.into_iter().enumerate() {
            let error = meets(async |peer| handshake(peer, steps).await).await;
            assert_eq!(error.kind(), kind, "after {steps} steps: {error}");
            assert!(!error.to_string().is_empty());
        }
        let error = meets(async |peer| peer.raw(b"\x01\0\0\0").await).await;
        assert_eq!(error.kind(), ErrorKind::Handshake, "in the middle of a frame: {error}");
    }

    /// c20: `connection.close` at each step is answered, and its words reach the user.
    async fn a_server_that_closes_in_the_middle_of_the_handshake() {
        for steps in 0..3 {
            let error = meets(async |peer| {
                handshake(peer, steps).await;
                let text = "CONNECTION_FORCED - not today".into();
                peer.send(0, connection::Close { reply_code: 320, reply_text: text, class_id: 0, method_id: 0 }).await;
                expect!(peer, Connection(connection)::CloseOk);
                peer.end().await;
            })
            .await;
            assert_eq!(error.kind(), ErrorKind::ConnectionClosed, "after {steps} steps: {error}");
            assert_eq!(error.reply_code().map(|code| code.0), Some(320));
            assert_eq!(error.reply_text(), Some("CONNECTION_FORCED - not today"));
            assert_eq!(error.failing_method(), None, "c52");
            assert!(error.is_transient(), "c144");
        }
    }

    /// c11, c19: the same code means another thing before the limits and behind them.
    async fn a_server_that_does_not_allow_it() {
        for (steps, kind) in [(1, ErrorKind::Auth), (2, ErrorKind::ConnectionClosed)] {
            let error = meets(async |peer| {
                handshake(peer, steps).await;
                let text = "NOT_ALLOWED - no".into();
                peer.send(0, connection::Close { reply_code: 530, reply_text: text, class_id: 0, method_id: 0 }).await;
                expect!(peer, Connection(connection)::CloseOk);
            })
            .await;
            assert_eq!(error.kind(), kind, "after {steps} steps: {error}");
        }
    }

    /// c13 to c17: what is agreed on for what the client wants and the server proposes: channels, octets, seconds.
    async fn limits_that_are_agreed_on() {
        for (wanted, proposed, agreed) in [
            ((2047, 131_072, 60), (4096, 65_536, 10), (2047, 65_536, 10)),
            ((2047, 131_072, 60), (1, 4096, 1), (1, 4096, 1)),
            ((2047, 131_072, 60), (u16::MAX, u32::MAX, u16::MAX), (2047, 131_072, 60)),
            ((0, 0, 0), (10, 8192, 60), (10, 8192, 0)),
            ((0, 0, 60), (0, 0, 0), (u16::MAX, 16 * 1024 * 1024, 60)),
            ((1, 8192, 5), (0, 0, 60), (1, 8192, 5)),
        ] {
            let tune =
                |(channel_max, frame_max, heartbeat)| connection::Tune { channel_max, frame_max, heartbeat };
            let stage = Stage::new().await;
            let builder = stage.builder().channel_max(wanted.0).frame_max(wanted.1).heartbeat(wanted.2);
            let (opened, (tune_ok, _peer)) = tokio::join!(builder.open(), async {
                let mut peer = stage.accept().await;
                peer.open_until_tune().await;
                peer.send(0, tune(proposed)).await;
                let (_, tune_ok) = expect!(peer, Connection(connection)::TuneOk);
                expect!(peer, Connection(connection)::Open);
                peer.send(0, connection::OpenOk::default()).await;
                (tune_ok, peer)
            });
            let told = (tune_ok.channel_max, tune_ok.frame_max, tune_ok.heartbeat);
            assert_eq!(told, agreed, "{wanted:?} and {proposed:?}");
            let tuning = opened.unwrap().tuning();
            assert_eq!((tuning.channel_max, tuning.frame_max, tuning.heartbeat), agreed);
        }
        let error = meets(async |peer| {
            handshake(peer, 1).await;
            peer.send(0, connection::Tune { frame_max: 4095, ..TUNE }).await;
        })
        .await;
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    }

    /// c16: a server may have much to say of itself before any limit is agreed on, whatever the client wants later.
    async fn a_long_start() {
        let stage = Stage::new().await;
        let (opened, ()) = tokio::join!(stage.builder().frame_max(0).open(), async {
            let mut peer = stage.accept().await;
            peer.header().await;
            let properties = start().server_properties.with("motto", "x".repeat(7000));
            peer.send(0, connection::Start { server_properties: properties, ..start() }).await;
            expect!(peer, Connection(connection)::StartOk);
        });
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::Auth, "and it went in the middle of the login");
    }

    /// c53
    async fn a_server_whose_words_are_not_utf8() {
        let error = meets(async |peer| {
            let text = bytes::Bytes::from_static(b"caf\xe9").into();
            peer.send(0, connection::Close { reply_code: 541, reply_text: text, class_id: 10, method_id: 40 }).await;
            expect!(peer, Connection(connection)::CloseOk);
        })
        .await;
        assert_eq!(error.reply_text(), Some("caf\u{fffd}"));
        assert_eq!(error.failing_method(), Some((10, 40)), "c52");
    }

    /// Every other step than the one that is due.
    async fn a_server_that_skips_a_step() {
        let error = meets(async |peer| {
            peer.send(0, TUNE).await;
        })
        .await;
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(error.to_string().contains("connection.start"), "{error}");
        let error = meets(async |peer| {
            handshake(peer, 1).await;
            peer.send(0, connection::OpenOk::default()).await;
        })
        .await;
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(error.to_string().contains("connection.tune"), "{error}");
    }

    /// c13, c28: a server without limits.
    async fn zero_means_no_limit() {
        let (connection, mut peer) = crate::scripted::connected_as(
            connection::Tune { channel_max: 0, frame_max: 0, heartbeat: 0 },
            |builder| builder.heartbeat(7),
        )
        .await;
        let tuning = connection.tuning();
        assert_eq!((tuning.channel_max, tuning.frame_max, tuning.heartbeat), (2047, 131_072, 7));
        let (closed, ()) = tokio::join!(connection.close(), peer.agree_to_close());
        closed.unwrap();
    }

    /// c22: blocked directly behind open-ok.
    async fn blocked_may_come_with_open_ok() {
        let stage = Stage::new().await;
        let (connection, mut peer) = tokio::join!(stage.builder().open(), async {
            let mut peer = stage.accept().await;
            peer.header().await;
            handshake(&mut peer, 2).await;
            peer.frames(&[
                leveret::codec::Frame::Method(0, connection::OpenOk::default().into()),
                leveret::codec::Frame::Method(0, connection::Blocked { reason: "low on disk".into() }.into()),
            ])
            .await;
            peer
        });
        let connection = connection.unwrap();
        assert_eq!(connection.blocked().as_deref(), Some("low on disk"));
        let (closed, ()) = tokio::join!(connection.close(), peer.agree_to_close());
        closed.unwrap();
    }
}
