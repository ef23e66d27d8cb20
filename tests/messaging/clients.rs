//! Clients: connecting, now or later, being told what happens, and being found again.

use std::time::Duration;

use futures_util::FutureExt;
use leveret::amqp::{Config, Connection, Credentials};
use leveret::broker::Broker;
use leveret::error::ErrorKind;
use leveret::messaging::{Client, ClientCache, ClientState, Event, RequestError, Source, Target, Transport};

use crate::support::{Server, channel, exclusive_queue, fill, next, receiver, unique, until, within};
use crate::wire::Tap;

on_every_server! {
    /// KA1, Z11: connected or not, the state says so; a ping measures a round trip.
    async fn connecting_now_or_later(server: Server) {
        let client = server.client().await;
        assert_eq!((client.state(), client.transport()), (ClientState::Open, Transport::Amqp));
        let took = within("an answer", client.ping(Duration::from_secs(10))).await.unwrap();
        assert!(took > Duration::ZERO && took < Duration::from_secs(10));

        let lazy = server.builder().lazy().unwrap();
        assert_eq!(lazy.state(), ClientState::Idle);
        let sender = lazy.sender().build().unwrap();
        assert_eq!(lazy.state(), ClientState::Idle, "a sender needs no connection yet");
        let mut events = lazy.events();
        sender.send(Target::exchange("amq.fanout", "").mandatory(false), "x").await.unwrap();
        assert_eq!(lazy.state(), ClientState::Open);
        assert!(matches!(within("an event", events.next()).await, Some(Event::Opened)));

        // Many at once share one connection.
        let shared = server.builder().lazy().unwrap();
        let mut events = shared.events();
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let sender = shared.sender().build().unwrap();
                tokio::spawn(async move { sender.send(Target::exchange("amq.fanout", "").mandatory(false), "x").await })
            })
            .collect();
        for task in tasks {
            within("a receipt", task).await.unwrap().unwrap();
        }
        assert!(matches!(within("an event", events.next()).await, Some(Event::Opened)));
        shared.close().await;
        assert!(matches!(within("an event", events.next()).await, Some(Event::Closed)), "one connection");
    }

    /// Zato's ping that is honest: nobody there, or nobody answers.
    async fn a_ping_that_fails(server: Server) {
        let (client, tap) = server.tapped().await;
        tap.stall(true);
        let error = client.ping(Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        tap.stall(false);
        within("an answer", client.ping(Duration::from_secs(10))).await.unwrap();
        tap.refuse(true);
        tap.cut();
        until("the loss", async || client.state() == ClientState::Lost).await;
        assert_ne!(within("an error", client.ping(Duration::from_secs(10))).await.unwrap_err().kind(), ErrorKind::Timeout);
    }

    /// KA1: what connecting fails with; a lazy client says it with the first use, and tries again with the next.
    async fn a_login_that_is_refused(server: Server) {
        let wrong = || server.builder().credentials(Credentials::new("guest", "wrong"));
        let error = within("an error", wrong().connect()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
        let lazy = wrong().lazy().unwrap();
        let mut events = lazy.events();
        let sender = lazy.sender().build().unwrap();
        for _ in 0..2 {
            let error = within("an error", sender.send(Target::queue("q"), "x")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
            assert_eq!(error.outcome(), leveret::error::Outcome::NotSent);
            assert!(matches!(within("an event", events.next()).await, Some(Event::ConnectFailed(_))));
        }
        assert_eq!(lazy.state(), ClientState::Idle);
    }

    /// KA2, U5: what happens to a client, in order.
    async fn events_of_a_life(server: Server) {
        let tap = Tap::new(server.url()).await;
        let client = Client::builder(tap.url()).unwrap().lazy().unwrap();
        let (mut events, mut second) = (client.events(), client.events());
        client.ready().await.unwrap();
        assert!(matches!(within("an event", events.next()).await, Some(Event::Opened)));
        tap.cut();
        match within("an event", events.next()).await {
            Some(Event::Lost(error)) => assert_eq!(error.kind(), ErrorKind::Io),
            other => panic!("{other:?}"),
        }
        until("the loss", async || client.state() == ClientState::Lost).await;
        client.ready().await.unwrap();
        assert!(matches!(within("an event", events.next()).await, Some(Event::Opened)));
        client.close().await;
        assert!(matches!(within("an event", events.next()).await, Some(Event::Closed)));
        assert!(within("the end", events.next()).await.is_none());
        assert_eq!(client.state(), ClientState::Closed);
        let mut all = 0;
        while within("an event", second.next()).await.is_some() {
            all += 1;
        }
        assert_eq!(all, 4, "every stream has every event");
    }

    /// Scenario 6; KA1: the runtime that called is gone, the one that the connection lives on is not.
    async fn scenario_06_the_callers_runtime_ends(server: Server) {
        let home = tokio::runtime::Handle::current();
        let builder = server.builder().spawn_on(home);
        let (client, sender, queue) = within("a thread", tokio::task::spawn_blocking(move || {
            let caller = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let made = caller.block_on(tokio::task::LocalSet::new().run_until(async {
                let client = builder.lazy().unwrap();
                let queue = exclusive_queue(&client).await;
                let sender = client.sender().build().unwrap();
                sender.send(Target::queue(&queue), "0").await.unwrap();
                (client, sender, queue)
            }));
            caller.shutdown_background();
            made
        }))
        .await
        .unwrap();
        assert_eq!(client.state(), ClientState::Open);
        within("a receipt", sender.send(Target::queue(&queue), "1")).await.unwrap();
        let mut receiver = receiver(&client, &queue).await;
        for body in ["0", "1"] {
            let delivery = next(&mut receiver).await;
            assert_eq!(delivery.body(), body.as_bytes());
            delivery.accept().unwrap();
        }
        within("an answer", client.ping(Duration::from_secs(10))).await.unwrap();
    }

    /// A receiver and a request that are on the way when idle connections are closed do not lose theirs.
    async fn what_is_being_started_is_not_idle(server: Server) {
        let (client, tap) = server.tapped().await;
        let queue = exclusive_queue(&client).await;
        tap.stall(true);
        let mut build = std::pin::pin!(client.receiver(Source::queue(&queue)).build());
        assert!(build.as_mut().now_or_never().is_none());
        assert!(!within("no idle connection", client.close_idle()).await.unwrap());
        tap.stall(false);
        drop(within("a receiver", build).await.unwrap());
        tap.stall(true);
        let requester = client.requester().build().unwrap();
        let mut request = std::pin::pin!(requester.request(Target::queue(unique("missing")), "x"));
        assert!(request.as_mut().now_or_never().is_none());
        assert!(!within("no idle connection", client.close_idle()).await.unwrap());
        tap.stall(false);
        assert!(matches!(within("an answer", request).await, Err(RequestError::NoRoute(_))));
    }

    /// KB1, KB11, KB12, KB13: one client for each configuration, without anything global; idle connections are closed and come again.
    async fn a_cache_of_clients(server: Server) {
        let config = Config::from_url(server.url()).unwrap();
        let cache = ClientCache::new();
        let first = cache.get(config.clone()).unwrap();
        let second = cache.get(config.clone()).unwrap();
        let other = cache.get(config.clone().connection_name("another")).unwrap();
        assert_eq!(cache.len(), 2);
        first.ready().await.unwrap();
        assert_eq!((second.state(), other.state()), (ClientState::Open, ClientState::Idle));

        let queue = crate::support::Kept::new(server).await;
        let sender = first.sender().build().unwrap();
        sender.send(Target::queue(&queue.name), "0").await.unwrap();
        within("idle connections to close", cache.close_idle(Duration::from_secs(10))).await;
        assert_eq!(first.state(), ClientState::Idle);
        sender.send(Target::queue(&queue.name), "1").await.unwrap();
        assert_eq!(first.state(), ClientState::Open);
        // A receiver is not disturbed.
        let receiving = receiver(&first, &queue.name).await;
        assert!(!within("no idle connection", first.close_idle()).await.unwrap());
        assert_eq!(first.state(), ClientState::Open);
        drop(receiving);
        assert!(within("an idle connection to close", first.close_idle()).await.unwrap());

        let report = within("the end", cache.close(Duration::from_secs(10))).await;
        assert!(report.is_clean(), "{report:?}");
        assert!(cache.is_empty());
        assert_eq!(first.state(), ClientState::Closed);
        assert_eq!(sender.send(Target::queue(&queue.name), "2").await.unwrap_err().kind(), ErrorKind::Closed);
        // Somebody closed his client, and did not take it out of the cache.
        let closed = cache.get(config.clone()).unwrap();
        closed.close().await;
        assert_eq!(cache.get(config.clone()).unwrap().state(), ClientState::Idle);
        assert_eq!(cache.remove(&config.into()).unwrap().state(), ClientState::Idle);
        assert_eq!(queue.delete().await, [0, 1]);
    }

    /// U1: clones share the connection; the connection in AMQP's words is the same one.
    async fn clones_share_the_connection(server: Server) {
        let client = server.client().await;
        let clone = client.clone();
        let queue = exclusive_queue(&clone).await;
        // Exclusive queues belong to a connection.
        fill(&client, &queue, 0..3).await;
        assert_eq!(client.as_amqp().await.unwrap().tuning(), clone.as_amqp().await.unwrap().tuning());
        drop(client);
        assert_eq!(crate::support::number(next(&mut receiver(&clone, &queue).await).await.body()), 0);
    }

    /// A connection that is ended on purpose, in AMQP's words, is not the client's end.
    async fn the_connection_is_closed_by_hand(server: Server) {
        let client = server.client().await;
        client.as_amqp().await.unwrap().close().await.unwrap();
        assert_eq!(client.state(), ClientState::Lost);
        drop(channel(&client).await);
        assert_eq!(client.state(), ClientState::Open);
    }
}

on_its_own! {
    /// U6's other half: tunnels. Over a pipe in memory, and afterwards over the network.
    async fn over_a_stream_of_ones_own() {
        let broker = Broker::start().await.unwrap();
        let (ours, theirs) = tokio::io::duplex(1024);
        let relay = tokio::spawn({
            let address = broker.local_addr();
            async move {
                let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
                let mut theirs = theirs;
                let _ = tokio::io::copy_bidirectional(&mut theirs, &mut socket).await;
            }
        });
        let client = Client::builder(&broker.url()).unwrap().connect_with(ours).await.unwrap();
        fill(&client, &exclusive_queue(&client).await, 0..10).await;
        relay.abort();
        until("the loss", async || client.state() == ClientState::Lost).await;
        fill(&client, &exclusive_queue(&client).await, 0..10).await;
    }

    /// KA1, KB2: settings by their names, as methods and as data.
    async fn settings_come_from_a_url_a_config_and_methods() {
        let broker = Broker::start().await.unwrap();
        let client = Client::builder(&broker.url())
            .unwrap()
            .connect_timeout(Duration::from_secs(20))
            .heartbeat(30)
            .connection_name("zato.channel")
            .client_property("zato.version", "4.1")
            .amqp(|builder| builder.frame_max(8192))
            .connect()
            .await
            .unwrap();
        let tuning = client.as_amqp().await.unwrap().tuning();
        assert_eq!((tuning.heartbeat, tuning.frame_max), (30, 8192));
        let leveret::messaging::Config::Amqp(config) = client.config().clone() else { panic!("another transport") };
        let same = Client::from_config(config.clone()).connect().await.unwrap();
        assert_eq!(same.config(), client.config());
        // What makes no sense is said at once, and not when it is waited for.
        for config in [config.clone().frame_max(1), config.clone().max_buffered(0), config.max_unwritten(0)] {
            assert_eq!(Client::from_config(config).lazy().unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
        if cfg!(not(feature = "kafka")) {
            assert_eq!(Client::builder("kafka://h:9092").unwrap_err().kind(), ErrorKind::Unsupported);
        }
        assert_eq!(Client::connect("nonsense").await.unwrap_err().kind(), ErrorKind::InvalidUrl);
        // The builder of the other layer will do, too.
        let builder = Connection::builder(&broker.url()).unwrap();
        leveret::messaging::ClientBuilder::from(builder).connect().await.unwrap();
    }

    /// Scenario 12; Z7, KB13: no secret is shown by anything that this layer has.
    async fn scenario_12_no_secret_is_shown() {
        let broker = Broker::builder().user("user", "sesame").bind("127.0.0.1:0").await.unwrap();
        let url = broker.url();
        assert!(url.contains("sesame"));
        let builder = Client::builder(&url).unwrap();
        let shown = format!("{builder:?}");
        let client = builder.connect().await.unwrap();
        let queue = exclusive_queue(&client).await;
        let sender = client.sender().build().unwrap();
        let cache = ClientCache::new();
        cache.get(Config::from_url(&url).unwrap()).unwrap();
        let receiver = client.receiver(Source::queue(&queue));
        let requester = client.requester();
        let wrong = Client::builder(&url).unwrap().credentials(Credentials::new("user", "sesame2")).lazy().unwrap();
        let error = wrong.ready().await.unwrap_err();
        let lost = wrong.sender().build().unwrap().send(Target::queue("q"), "x").await.unwrap_err();
        for shown in [
            shown,
            format!("{client:?} {client:#?} {:?}", client.config()),
            format!("{sender:?} {:?} {cache:?}", client.sender()),
            format!("{receiver:?} {:?}", receiver.clone().build().await.unwrap()),
            format!("{requester:?} {:?}", requester.clone().build().unwrap()),
            format!("{:?}", client.responder(Source::queue(&queue))),
            format!("{error} {error:?} {lost} {lost:?}"),
            format!("{:?}", client.close().await),
        ] {
            assert!(!shown.contains("sesame"), "{shown}");
        }
    }
}
