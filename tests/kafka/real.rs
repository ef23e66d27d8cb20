//! The same facade on a real Apache Kafka, which `tests/run` starts: see `tests/kafka_server`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use leveret::codec::FieldValue;
use leveret::error::{ErrorKind, Outcome};
use leveret::messaging::{Client, ConfirmMode, Event, Message, ReceiptDetail, RetryPolicy, Source, Status, Target};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use tokio::process::Command;

use crate::support::{LONG, SECOND, SOON, place, sender, timed, warm, within};

fn the_url() -> String {
    env::var("LEVERET_KAFKA_URL").expect("LEVERET_KAFKA_URL is not set: run tests/run")
}

/// Makes a topic of its own for a test.
async fn topic(url: &str, name: &str, partitions: i32) -> String {
    let servers = url.strip_prefix("kafka://").unwrap();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let name = format!("{name}-{nanos}");
    let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(LONG)).request_timeout(Some(LONG));
    within(admin.create_topics([&new], &options)).await.unwrap().into_iter().for_each(|made| drop(made.unwrap()));
    name
}

async fn body(receiver: &mut leveret::messaging::Receiver) -> (Message, leveret::messaging::Acker) {
    within(receiver.recv()).await.unwrap().unwrap().detach()
}

#[tokio::test]
#[ignore = "needs Kafka: run tests/run"]
async fn what_is_sent_is_received_and_what_was_accepted_is_not_received_again() {
    let topic = topic(&the_url(), "round", 1).await;
    let client = within(Client::connect(&the_url())).await.unwrap();
    within(client.ping(LONG)).await.unwrap();
    let messages = [
        Message::new(&b"\xff\x00"[..]).key("k").timestamp(1_700_000_000u64).append_header("h", "1"),
        Message::tombstone().key("k").timestamp(1_700_000_001u64),
        Message::new("").timestamp(1_700_000_002u64).append_header("h", "1").append_header("h", FieldValue::Void),
    ];
    let sender = sender(&client, LONG);
    for (offset, message) in messages.iter().enumerate() {
        let receipt = within(sender.send(Target::topic(&topic), message.clone())).await;
        assert_eq!(place(receipt), (0, i64::try_from(offset).unwrap()));
    }
    let mut receiver = within(client.receiver(Source::topic(&topic, &topic)).build()).await.unwrap();
    for (at, expected) in messages.iter().enumerate() {
        let (message, acker) = body(&mut receiver).await;
        assert_eq!(&message, expected);
        if at < 2 {
            acker.accept().unwrap();
        }
    }
    within(receiver.close()).await.unwrap();
    assert!(within(client.close()).await.is_clean());
    let client = Client::builder(&the_url()).unwrap().lazy().unwrap();
    let mut receiver = within(client.receiver(Source::topic(&topic, &topic)).build()).await.unwrap();
    let (message, acker) = body(&mut receiver).await;
    assert_eq!(Some(&message), messages.get(2), "only what was not accepted");
    acker.accept().unwrap();
    within(receiver.close()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs Kafka: run tests/run"]
async fn a_batch_keeps_its_order() {
    let topic = topic(&the_url(), "batch", 1).await;
    let client = Client::builder(&the_url()).unwrap().lazy().unwrap();
    let sender = client.sender().timeout(LONG).max_in_flight(100).build().unwrap();
    let report = within(sender.send_batch((0..1000).map(|n| (Target::topic(&topic), format!("{n}"))))).await;
    let offsets: Vec<_> = report.into_iter().map(|result| place(result).1).collect();
    assert_eq!(offsets, (0..1000).collect::<Vec<_>>());
    let mut receiver = within(client.receiver(Source::topic(&topic, &topic)).build()).await.unwrap();
    for n in 0..1000 {
        let (message, acker) = body(&mut receiver).await;
        assert_eq!(message.body(), n.to_string().as_bytes());
        acker.accept().unwrap();
    }
}

#[tokio::test]
#[ignore = "needs Kafka: run tests/run"]
async fn the_brokers_no_is_told() {
    let topic = topic(&the_url(), "no", 1).await;
    let client = Client::builder(&the_url()).unwrap().kafka_set("message.max.bytes", "3000000").lazy().unwrap();
    let sender = sender(&client, 15 * SECOND);
    let targets = [topic.as_str(), "there-is-no-such-topic", &topic];
    let (report, took) = timed(sender.send_batch(targets.map(|topic| (Target::topic(topic), "x")))).await;
    let failed: Vec<_> = report.failed().map(|(at, error)| (at, error.kind())).collect();
    assert_eq!(failed, [(1, ErrorKind::NotFound)], "{report:?}");
    assert!(took < 15 * SECOND, "{took:?}");
    let error = within(sender.send(Target::topic(&topic).partition(9), "x")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::NotFound, Outcome::NotSent), "{error}");
    let error = within(sender.send(Target::topic(&topic), vec![7; 2_000_000])).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::MessageTooLarge, Outcome::Refused), "{error}");
    place(within(sender.send(Target::topic(&topic), "still well")).await);

    let mut nowhere = within(client.receiver(Source::topic("there-is-no-such-topic", "g")).build()).await.unwrap();
    let error = within(nowhere.recv()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
#[ignore = "needs Kafka: run tests/run"]
async fn without_acks_there_is_no_offset() {
    let topic = topic(&the_url(), "acks", 1).await;
    let client = Client::builder(&the_url()).unwrap().lazy().unwrap();
    let sender = client.sender().confirms(ConfirmMode::None).timeout(LONG).build().unwrap();
    let receipt = within(sender.send(Target::topic(&topic), "x")).await.unwrap();
    assert_eq!(receipt.status, Status::NotRequested);
    assert!(matches!(receipt.detail, ReceiptDetail::Kafka { partition: 0, offset: None, .. }), "{receipt:?}");
}

#[tokio::test]
#[ignore = "needs Kafka: run tests/run"]
async fn partitions_go_to_whoever_is_left() {
    let topic = topic(&the_url(), "group", 2).await;
    let clients = [(); 2].map(|()| {
        let builder = Client::builder(&the_url()).unwrap().kafka_set("session.timeout.ms", "6000");
        builder.kafka_set("heartbeat.interval.ms", "500").lazy().unwrap()
    });
    let [one, two] = &clients;
    let (mut told_one, mut told_two) = (one.events(), two.events());
    let first = within(one.receiver(Source::topic(&topic, &topic)).build()).await.unwrap();
    let mut second = within(two.receiver(Source::topic(&topic, &topic)).build()).await.unwrap();
    // Together they have both, each one of them.
    for told in [&mut told_one, &mut told_two] {
        within(async {
            loop {
                match told.next().await {
                    Some(Event::Assigned(partitions)) if partitions.len() == 1 => break,
                    Some(_) => {}
                    None => panic!("no more events"),
                }
            }
        })
        .await;
    }
    within(first.close()).await.unwrap();
    let sender = sender(one, LONG);
    for partition in [0, 1] {
        place(within(sender.send(Target::topic(&topic).partition(partition), "x")).await);
    }
    for _ in [0, 1] {
        body(&mut second).await.1.accept().unwrap();
    }
}

/// Tells the script of the server something.
async fn server(action: &str, dir: &Path) -> String {
    let script = env::var("LEVERET_KAFKA").expect("LEVERET_KAFKA is not set: run tests/run");
    let mut command = Command::new(script);
    command.args([action]).arg(dir).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(150), command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{action}: {}", output.status);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
#[ignore = "needs Kafka: run tests/run"]
async fn a_broker_that_dies_costs_the_deadline_and_one_that_comes_back_is_used() {
    let dirs = env::var("LEVERET_KAFKA_DIRS").expect("LEVERET_KAFKA_DIRS is not set: run tests/run");
    let dir = PathBuf::from(dirs).join("kafka-dies");
    let url = server("start", &dir).await;
    let topic = topic(&url, "dies", 1).await;
    let client = Client::builder(&url).unwrap().lazy().unwrap();
    let sender = client.sender().timeout(2 * SECOND).retry(RetryPolicy::never()).build().unwrap();
    warm(&sender, &topic).await;
    let mut events = client.events();
    let mut receiver = within(client.receiver(Source::topic(&topic, "g")).build()).await.unwrap();
    body(&mut receiver).await.1.accept().unwrap();

    server("kill", &dir).await;
    let (result, took) = timed(sender.send(Target::topic(&topic), "lost")).await;
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown), "{error}");
    assert!(took >= Duration::from_millis(1900) && took < SOON, "{took:?}");
    within(async { while !matches!(events.next().await, Some(Event::Lost(_))) {} }).await;

    assert_eq!(server("start", &dir).await, url, "it keeps its ports");
    tokio::time::timeout(2 * LONG, async {
        while sender.send(Target::topic(&topic), "after").await.is_err() {}
        loop {
            let (message, acker) = body(&mut receiver).await;
            acker.accept().ok();
            if message.body() == b"after" {
                break;
            }
        }
    })
    .await
    .unwrap();
    within(client.close()).await;
    server("stop", &dir).await;
}
