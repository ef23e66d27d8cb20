//! Rows KK1 and KK5: a client of Kafka is built of properties, pinged, watched, and closed.

use std::time::Duration;

use leveret::error::{ErrorKind, Outcome};
use leveret::kafka::KafkaConfig;
use leveret::messaging::{Client, ClientCache, ClientState, Event, RecoveryPolicy, Target, Transport};

use crate::support::{LONG, SECOND, SOON, cluster, lazy, place, sender, timed, url, within};

#[tokio::test]
async fn kk1_a_url_or_a_table_of_properties_is_a_client() {
    let cluster = cluster();
    let client = within(Client::connect(&url(&cluster))).await.unwrap();
    assert_eq!((client.transport(), client.state()), (Transport::Kafka, ClientState::Open));

    let table = [("bootstrap.servers".to_owned(), cluster.bootstrap_servers()), ("acks".to_owned(), "all".to_owned())];
    let config: KafkaConfig = table.into_iter().collect();
    let cache = ClientCache::new();
    let client = cache.get(config.clone()).unwrap();
    assert_eq!(client.state(), ClientState::Idle, "nothing is connected yet");
    place(within(sender(&client, LONG).send(Target::topic("hares"), "x")).await);
    assert_eq!(cache.get(config).unwrap().state(), ClientState::Open, "it is the same client");
}

#[tokio::test]
async fn kk1_a_wrong_property_is_told_at_once() {
    for (name, value) in [("no.such.property", "1"), ("acks", "many")] {
        let error = Client::builder("kafka://localhost:1").unwrap().kafka_set(name, value).lazy().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(name), "{error}");
    }
    // Each is good, and librdkafka says only when it begins that they are not together.
    let client = Client::builder("kafka://localhost:1").unwrap();
    let client = client.kafka_set("enable.idempotence", "true").kafka_set("acks", "1").lazy().unwrap();
    let error = within(sender(&client, LONG).send(Target::topic("hares"), "x")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::InvalidArgument, Outcome::NotSent), "{error}");
    assert!(error.to_string().contains("acks"), "{error}");
    assert!(error.message().is_some());
    // A setting of the other transport is not left out in silence.
    let error = Client::builder("kafka://localhost:1").unwrap().heartbeat(1).lazy().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let error = Client::builder("kafka://localhost:1").unwrap().on_open(|_| async { Ok(()) }).lazy().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let error = Client::builder("kafka://localhost:1").unwrap().recovery(RecoveryPolicy::never()).lazy().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let error = Client::builder("amqp://localhost:1").unwrap().kafka_set("acks", "1").lazy().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_ping_asks_the_brokers() {
    let cluster = cluster();
    let client = lazy(&cluster, &[]);
    let mut events = client.events();
    within(client.ping(LONG)).await.unwrap();
    assert!(matches!(within(events.next()).await, Some(Event::Opened)));
    cluster.broker_round_trip_time(1, Duration::from_millis(300)).unwrap();
    assert!(within(client.ping(LONG)).await.unwrap() >= Duration::from_millis(250));
    cluster.broker_round_trip_time(1, 2 * SOON).unwrap();
    let (result, took) = timed(client.ping(Duration::from_millis(100))).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(took < SOON, "{took:?}");
}

#[tokio::test]
async fn nobody_there_is_an_error_in_time() {
    let config = KafkaConfig::from_url("kafka://127.0.0.1:1").unwrap();
    let builder = Client::from_config(config).kafka(|mut config| {
        config.connect_timeout = SECOND;
        config
    });
    let (result, took) = timed(builder.connect()).await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
    assert!(took < SOON, "{took:?}");
}

#[tokio::test]
async fn kk5_closing_delivers_what_is_on_its_way_and_closing_again_is_fine() {
    let cluster = cluster();
    cluster.create_topic("hares", 1, 1).unwrap();
    let client = lazy(&cluster, &[("linger.ms", "5000")]);
    let sender = sender(&client, 2 * LONG);
    let mut receipts = Vec::new();
    for n in 0..100 {
        receipts.push(within(sender.send_pipelined(Target::topic("hares"), format!("{n}"))).await.unwrap());
    }
    let mut events = client.events();
    let report = within(client.close()).await;
    assert!(report.is_clean(), "{report:?}");
    for (at, receipt) in receipts.into_iter().enumerate() {
        assert_eq!(place(within(receipt).await), (0, i64::try_from(at).unwrap()));
    }
    let error = within(sender.send(Target::topic("hares"), "late")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Closed, Outcome::NotSent));
    assert!(within(client.close()).await.is_clean());
    assert_eq!(client.state(), ClientState::Closed);
    assert_eq!(within(client.ping(SECOND)).await.unwrap_err().kind(), ErrorKind::Closed);
    let mut last = None;
    while let Some(event) = within(events.next()).await {
        last = Some(event);
    }
    assert!(matches!(last, Some(Event::Closed)));
}

#[tokio::test]
async fn kk5_closing_reports_what_was_not_delivered() {
    let cluster = cluster();
    cluster.create_topic("hares", 1, 1).unwrap();
    let client = lazy(&cluster, &[]);
    let sender = sender(&client, LONG);
    place(within(sender.send(Target::topic("hares"), "first")).await);
    cluster.broker_down(1).unwrap();
    let awaited = within(sender.send_pipelined(Target::topic("hares"), "a")).await.unwrap();
    for text in ["b", "c"] {
        drop(within(sender.send_pipelined(Target::topic("hares"), text)).await.unwrap());
    }
    let (report, took) = timed(client.close_within(SECOND)).await;
    assert!(took >= Duration::from_millis(900) && took < SOON, "{took:?}");
    let mut left: Vec<_> =
        report.unsent.iter().chain(&report.unconfirmed).map(|unsent| unsent.message.body()).collect();
    left.sort_unstable();
    assert_eq!(left, [b"a", b"b", b"c"], "{report:?}");
    assert!(report.unsent.iter().all(|unsent| unsent.outcome == Outcome::NotSent));
    let error = within(awaited).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "whoever waits is told as well: {error}");
}

#[test]
fn dropping_a_sender_and_a_client_neither_blocks_nor_panics() {
    let cluster = cluster();
    cluster.create_topic("hares", 1, 1).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = lazy(&cluster, &[]);
    let sender = sender(&client, LONG);
    runtime.block_on(async {
        place(within(sender.send(Target::topic("hares"), "x")).await);
        cluster.broker_down(1).unwrap();
        drop(within(sender.send_pipelined(Target::topic("hares"), "x")).await.unwrap());
    });
    // The runtime goes first, and with it nothing that Kafka needs.
    drop(runtime);
    let begin = std::time::Instant::now();
    drop(sender);
    drop(client);
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
}
