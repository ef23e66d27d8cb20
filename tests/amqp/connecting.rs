//! Opening a connection: what is agreed on, and what goes wrong in ways that users meet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use leveret::amqp::{Connection, FieldTable, Sasl};
use leveret::error::{ErrorKind, Origin};

use crate::support::{Nobody, Server, assert_works, shared_ctl, unique, within};

on_every_server! {
    /// c5, c6, c10
    async fn opens_and_closes(server: Server) {
        let connection = server.connect().await;
        assert!(connection.is_open());
        assert_eq!(connection.blocked(), None);
        let info = connection.server();
        assert!(info.properties.get("product").and_then(|product| product.as_str()).is_some(), "{info:?}");
        let capabilities = info.properties.get("capabilities").and_then(|value| value.as_table()).cloned();
        assert_eq!(capabilities.unwrap_or_default().get("publisher_confirms").and_then(|is| is.as_bool()), Some(true));
        assert!(info.mechanisms.iter().any(|name| name == "PLAIN"), "{info:?}");

        let channel = connection.open_channel().await.unwrap();
        assert_eq!(channel.number(), 1);
        assert_works(&channel).await;
        let shown = format!("{connection:?} {channel:?}");
        assert!(shown.len() < 500, "handles are shown, and not all that stands behind them: {shown}");

        within("the connection to close", connection.close()).await.unwrap();
        assert!(!connection.is_open());
        assert!(!channel.is_open());
        connection.close().await.expect("closing twice is fine");
        connection.closed().await.expect("this side closed it");
        assert_eq!(connection.open_channel().await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(channel.queue_declare("").await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(channel.end().unwrap().kind(), ErrorKind::Closed);
        channel.close().await.expect("closing a closed channel is fine");
    }

    /// c13, c14, c17
    async fn agrees_on_limits(server: Server) {
        let small = server.builder().frame_max(8192).channel_max(7).heartbeat(5);
        let connection = within("a connection", small.open()).await.unwrap();
        let tuning = connection.tuning();
        assert_eq!((tuning.frame_max, tuning.channel_max, tuning.heartbeat), (8192, 7, 5));
        connection.close().await.unwrap();

        let as_the_server_likes = server.builder().frame_max(0).channel_max(0).heartbeat(0);
        let connection = within("a connection", as_the_server_likes.open()).await.unwrap();
        let tuning = connection.tuning();
        assert!(tuning.frame_max >= 4096 && tuning.channel_max >= 1, "{tuning:?}");
        assert_eq!(tuning.heartbeat, 0);
        assert_works(&connection.open_channel().await.unwrap()).await;
        connection.close().await.unwrap();
    }

    /// c7
    async fn logs_in_with_each_mechanism(server: Server) {
        for mechanism in [Sasl::Plain, Sasl::AmqPlain] {
            let connection = within("a connection", server.builder().mechanisms([mechanism]).open()).await.unwrap();
            connection.close().await.unwrap();
        }
        let error = server.builder().mechanisms([Sasl::External]).open().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth);
        assert!(error.to_string().contains("EXTERNAL") && error.to_string().contains("PLAIN"), "{error}");
    }

    /// c11: the server is told that its reason is understood, so it gives one.
    async fn a_wrong_password_is_an_error_of_its_own(server: Server) {
        for (user, password) in [("guest", "hush-hush"), ("nobody-of-this-name", "hush-hush"), ("guest", "")] {
            let refused = server.builder_as(user, password, "/").open();
            let error = within("a refusal", refused).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
            assert_eq!(error.reply_code().map(|code| code.0), Some(403), "{error}");
            assert!(error.reply_text().unwrap().starts_with("ACCESS_REFUSED"), "{error}");
            assert_eq!(error.origin(), Origin::Caller);
            assert!(!error.is_transient(), "trying again locks the user out");
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
    }

    /// c19, and c18: the empty name is not the default.
    async fn an_unknown_virtual_host_is_refused(server: Server) {
        for name in ["no-such-host", ""] {
            let error = within("a refusal", server.builder_as("guest", "guest", name).open()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionClosed, "{error}");
            assert_eq!(error.reply_code().map(|code| code.0), Some(530), "{error}");
            assert_eq!(error.origin(), Origin::Caller);
            assert!(!error.is_transient());
        }
        let long = server.builder().virtual_host("v".repeat(256)).open();
        assert_eq!(within("an error", long).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    /// c16: what the client says of itself may be large, and not too large. (RabbitMQ before 4.0 closes the socket above 4096 octets.)
    async fn client_properties_have_a_limit(server: Server) {
        let large = server.builder().client_property("large", "x".repeat(3500));
        within("a connection", large.open()).await.unwrap().close().await.unwrap();
        let too_large = server.builder().client_property("too large", "x".repeat(9000));
        let error = within("an error", too_large.open()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }

    /// c142
    async fn the_secret_can_be_replaced(server: Server) {
        let connection = server.connect().await;
        within("update-secret-ok", connection.update_secret("guest", "a test")).await.unwrap();
        assert_works(&connection.open_channel().await.unwrap()).await;
        connection.close().await.unwrap();
    }

    async fn many_connections_at_the_same_time(server: Server) {
        let opened = futures_util::future::join_all((0..50).map(|_| server.builder().open())).await;
        let connections: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
        for connection in &connections {
            assert_works(&connection.open_channel().await.unwrap()).await;
        }
        for closed in futures_util::future::join_all(connections.iter().map(Connection::close)).await {
            closed.unwrap();
        }
    }

    async fn a_connection_closes_with_a_code_and_a_text_of_ones_own(server: Server) {
        let connection = server.connect().await;
        let channel = connection.open_channel().await.unwrap();
        let too_long = "x".repeat(256);
        let error = channel.close_with(leveret::amqp::ReplyCode(299), &too_long).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_works(&channel).await;
        channel.close_with(leveret::amqp::ReplyCode(299), "enough").await.unwrap();
        let error = connection.close_with(leveret::amqp::ReplyCode(299), &too_long).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(connection.is_open(), "nothing was sent");
        within("the connection to close", connection.close_with(leveret::amqp::ReplyCode(299), "enough")).await.unwrap();
    }
}

on_rabbitmq! {
    /// c10: all seven capabilities, the name, and what else was said.
    async fn the_server_knows_who_is_there(server: Server) {
        let name = unique("somebody");
        let builder = server.builder().connection_name(name.as_str()).client_property("answer", 42);
        let connection = within("a connection", builder.open()).await.unwrap();
        let listed = shared_ctl(&["-q", "list_connections", "client_properties"]).await;
        let line = listed.lines().find(|line| line.contains(&name)).expect("the connection is listed");
        for word in [
            "leveret", "Rust", env!("CARGO_PKG_VERSION"), "\"answer\"", "publisher_confirms", "exchange_exchange_bindings",
            "basic.nack", "consumer_cancel_notify", "connection.blocked", "authentication_failure_close",
            "per_consumer_qos",
        ] {
            assert!(line.contains(word), "{word} is missing in {line}");
        }
        connection.close().await.unwrap();
    }

    /// c15: the smallest frame that the specification allows, by explicit option. RabbitMQ 4.1 and later refuse it, and so does the
    /// broker in the box.
    async fn frames_of_4096_octets(server: Server) {
        let connection = within("a connection", server.builder().frame_max(4096).allow_small_frames().open()).await.unwrap();
        assert_eq!(connection.tuning().frame_max, 4096);
        assert_works(&connection.open_channel().await.unwrap()).await;
    }

    /// What a user may not do is not found out by trying again.
    async fn a_user_without_rights(server: Server) {
        let elsewhere = server.builder_as("limited", "limited", "second").open();
        let error = within("a refusal", elsewhere).await.unwrap_err();
        assert_eq!(error.reply_code().map(|code| code.0), Some(530), "{error}");

        let connection = within("a connection", server.builder_as("limited", "limited", "/").open()).await.unwrap();
        let channel = connection.open_channel().await.unwrap();
        let error = channel.queue_declare(&unique("forbidden")).await.unwrap_err();
        crate::support::assert_channel_closed(&error, 403);
        assert_eq!(error.origin(), Origin::Caller);
        assert_eq!(error.failing_method(), Some((50, 10)), "queue.declare");
        assert!(connection.is_open(), "c51");
        let channel = connection.open_channel().await.unwrap();
        channel.confirm_select().await.unwrap();
        let confirm = channel.basic_publish("amq.fanout", "", "x").await.unwrap();
        let error = within("an error", confirm).await.unwrap_err();
        crate::support::assert_channel_closed(&error, 403);
        connection.close().await.unwrap();
    }

    /// The vhost "second" has queues of its own.
    async fn virtual_hosts_are_apart(server: Server) {
        let queue = unique("apart");
        let here = server.channel().await;
        here.queue_declare(&queue).exclusive(true).await.unwrap();
        let there = within("a connection", server.builder_as("guest", "guest", "second").open()).await.unwrap();
        let error = there.open_channel().await.unwrap().queue_declare(&queue).passive(true).await.unwrap_err();
        crate::support::assert_channel_closed(&error, 404);
    }
}

on_its_own! {
    async fn nobody_listens() {
        let nobody = Nobody::v4();
        let port = nobody.port();
        for host in ["127.0.0.1", "localhost"] {
            let error = within("an error", Connection::open(&format!("amqp://{host}:{port}"))).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Handshake);
            assert_eq!(error.origin(), Origin::Network);
            assert!(error.is_transient());
            let text = error.to_string();
            assert!(text.contains(&format!("{host}:{port}")) && text.contains("refused"), "{text}");
        }
    }

    async fn a_url_that_cannot_be_understood() {
        for url in [
            "", "nonsense", "http://guest:hush@localhost", "amqp://guest:hush@localhost/a/b",
            "amqp://guest:hush@localhost?frame_max=large", "amqp://guest:hu#sh@localhost", "amqp://guest:hush@host:70000",
            "amqp://guest:hush@localhost?unknown=1",
        ] {
            let error = Connection::open(url).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidUrl, "{url}");
            assert_eq!(error.origin(), Origin::Caller);
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
        let error = Connection::open("amqp://localhost?frame_max=4095").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "c15");
    }

    /// c142: a server that does not take a new secret ends the connection, and whoever has brought the secret is told.
    async fn a_secret_that_is_refused() {
        let (connection, mut peer) = crate::scripted::connected().await;
        let (updated, ()) = tokio::join!(within("an answer", connection.update_secret("hush", "a test")), async {
            let (number, update) = expect!(peer, Connection(connection)::UpdateSecret);
            assert_eq!((number, &update.new_secret[..], &*update.reason.to_string_lossy()), (0, &b"hush"[..], "a test"));
            let (reply_text, class_id, method_id) = ("NOT_ALLOWED - new secret was refused".into(), 10, 70);
            peer.send(0, leveret::codec::method::connection::Close { reply_code: 530, reply_text, class_id, method_id }).await;
            expect!(peer, Connection(connection)::CloseOk);
        });
        let error = updated.unwrap_err();
        assert_eq!((error.kind(), error.reply_code().map(|code| code.0)), (ErrorKind::ConnectionClosed, Some(530)));
        assert!(!error.is_transient() && !error.to_string().contains("hush"), "{error}");
        assert!(!connection.is_open());
    }

    /// Settings of a program, without any URL.
    async fn settings_without_a_url() {
        let stage = crate::scripted::Stage::new().await;
        let builder = stage.builder().client_properties(FieldTable::new().with("product", "mine")).locale("de_AT");
        let (connection, start_ok) = tokio::join!(builder.open(), async {
            let mut peer = stage.accept().await;
            peer.header().await;
            peer.send(0, crate::scripted::start()).await;
            let (_, start_ok) = expect!(peer, Connection(connection)::StartOk);
            start_ok
        });
        assert_eq!(start_ok.client_properties.get("product").and_then(|product| product.as_str()), Some("mine"));
        let capabilities = start_ok.client_properties.get("capabilities").and_then(|table| table.as_table()).unwrap();
        let named: Vec<_> = capabilities.iter().map(|(name, value)| (name.to_str().unwrap(), value.as_bool())).collect();
        let all = [
            "publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
            "connection.blocked", "authentication_failure_close", "per_consumer_qos",
        ];
        assert_eq!(named, all.map(|name| (name, Some(true))), "c10");
        assert_eq!(start_ok.locale, "de_AT");
        assert_eq!(start_ok.mechanism, "PLAIN");
        assert_eq!(&start_ok.response[..], b"\0guest\0guest");
        assert_eq!(connection.unwrap_err().kind(), ErrorKind::Auth, "the peer has gone in the middle of the login");
    }
}

/// A server that takes the connection and says nothing.
#[tokio::test]
async fn connecting_has_a_deadline() {
    let stage = crate::scripted::Stage::new().await;
    let opening = tokio::spawn(stage.builder().connect_timeout(Duration::from_millis(7_000)).open());
    let mut peer = stage.accept().await;
    peer.header().await;
    // From here on both only wait, and the clock goes on to the first thing that is due.
    tokio::time::pause();
    let error = within("an error", opening).await.unwrap().unwrap_err();
    tokio::time::resume();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("7000 ms"), "{error}");
    // And it does not leave the socket open behind it.
    peer.end().await;
}

/// Counts the warnings of a thread.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Whoever agrees on heartbeats that close together is warned, once, whoever has proposed them.
#[tokio::test]
async fn c44_hasty_heartbeats_are_warned_of() {
    for (ours, theirs, expected) in [(60, 60, 0), (0, 60, 0), (5, 60, 0), (4, 60, 1), (60, 1, 1), (1, 0, 1)] {
        let broker = leveret::broker::Broker::builder().heartbeat(theirs).bind("127.0.0.1:0").await.unwrap();
        let warnings = Warnings::default();
        let heard = tracing::subscriber::set_default(warnings.clone());
        let builder = Connection::builder(&broker.url()).unwrap().heartbeat(ours);
        let connection = within("a connection", builder.open_with(broker.connect())).await.unwrap();
        connection.close().await.unwrap();
        drop(heard);
        assert_eq!(warnings.0.load(Ordering::Relaxed), expected, "{ours} and {theirs}");
    }
}
