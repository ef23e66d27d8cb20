//! Row KK3 and scenario 11: brokers that are down, slow, or say no; messages that are too large; queues that are full. Every
//! send ends in its time, and says what became of the message.

use std::time::Duration;

use leveret::error::{ErrorKind, Outcome};
use leveret::messaging::{Event, RetryPolicy, Target};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::support::{LONG, SECOND, SOON, cluster, lazy, place, sender, timed, warm, within};

#[tokio::test]
async fn kk3_with_brokers_down_a_send_takes_as_long_as_it_may() {
    let cluster = cluster();
    cluster.create_topic("hares", 1, 1).unwrap();
    let client = lazy(&cluster, &[]);
    let sender = sender(&client, 2 * SECOND);
    warm(&sender, "hares").await;
    let mut events = client.events();
    cluster.broker_down(1).unwrap();
    let (result, took) = timed(sender.send(Target::topic("hares"), "y")).await;
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown), "{error}");
    assert!(took >= Duration::from_millis(1900) && took < SOON, "{took:?}");
    assert_eq!(error.into_message().map(|(_, message)| message.body().to_vec()), Some(b"y".to_vec()));
    within(async { while !matches!(events.next().await, Some(Event::Lost(_))) {} }).await;

    // And back again: everything goes on by itself.
    cluster.broker_up(1).unwrap();
    let patient = sender.with_timeout(LONG);
    within(async {
        // What was given up may still arrive, so offsets say nothing here.
        while patient.send(Target::topic("hares"), "z").await.is_err() {}
        while !matches!(events.next().await, Some(Event::Opened)) {}
    })
    .await;
}

#[tokio::test]
async fn kk3_brokers_that_were_never_there_take_as_long_as_the_send_may() {
    let client = leveret::messaging::Client::builder("kafka://127.0.0.1:1").unwrap().lazy().unwrap();
    let (result, took) = timed(sender(&client, SECOND).send(Target::topic("hares"), "x")).await;
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown), "{error}");
    assert!(took >= Duration::from_millis(900) && took < SOON, "{took:?}");
}

#[tokio::test]
async fn a_batch_with_brokers_down_has_one_deadline() {
    let cluster = cluster();
    cluster.create_topic("hares", 1, 1).unwrap();
    let client = lazy(&cluster, &[]);
    let sender = client.sender().timeout(SECOND).max_in_flight(10).build().unwrap();
    warm(&sender, "hares").await;
    assert!(within(sender.flush()).await.is_ok());
    cluster.broker_down(1).unwrap();
    let (report, took) = timed(sender.send_batch((0..300).map(|n| (Target::topic("hares"), format!("{n}"))))).await;
    assert!(took < SOON, "and not one for each ten: {took:?}");
    let outcomes: Vec<_> = report.failed().map(|(_, error)| (error.kind(), error.outcome())).collect();
    let written = vec![(ErrorKind::Timeout, Outcome::Unknown); 10];
    let waiting = vec![(ErrorKind::Timeout, Outcome::NotSent); 290];
    assert_eq!(outcomes, [written, waiting].concat(), "ten found room in the window");
}

#[tokio::test]
async fn a_slow_broker_is_waited_for_within_the_deadline() {
    let cluster = cluster();
    cluster.create_topic("hares", 1, 1).unwrap();
    let client = lazy(&cluster, &[]);
    let sender = sender(&client, LONG);
    place(within(sender.send(Target::topic("hares"), "x")).await);
    cluster.broker_round_trip_time(1, Duration::from_millis(500)).unwrap();
    let (result, took) = timed(sender.send(Target::topic("hares"), "y")).await;
    assert_eq!(place(result), (0, 1));
    assert!(took >= Duration::from_millis(400), "{took:?}");
    cluster.broker_round_trip_time(1, 2 * SOON).unwrap();
    let (result, took) = timed(sender.with_timeout(Duration::from_millis(100)).send(Target::topic("hares"), "z")).await;
    assert_eq!(result.unwrap_err().outcome(), Outcome::Unknown);
    assert!(took < SOON, "{took:?}");
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_may_not_is_told() {
    use RDKafkaRespErr::*;
    let cluster = cluster();
    for topic in ["a", "b", "c"] {
        cluster.create_topic(topic, 1, 1).unwrap();
    }
    let client = lazy(&cluster, &[]);
    let sender = sender(&client, LONG);
    cluster.request_errors(RDKafkaApiKey::Produce, &[RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 2]);
    assert_eq!(place(within(sender.send(Target::topic("a"), "x")).await), (0, 0), "librdkafka tried again");

    cluster.request_errors(RDKafkaApiKey::Produce, &[RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
    let error = within(sender.send(Target::topic("b"), "x")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::MessageTooLarge, Outcome::Refused), "{error}");
    assert_eq!(leveret::kafka::code(error.error()), Some(10));

    cluster.request_errors(RDKafkaApiKey::Produce, &[RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED]);
    let error = within(sender.send(Target::topic("c"), "x")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Auth, Outcome::Refused), "{error}");
    // The sender is none the worse for it.
    assert_eq!(place(within(sender.send(Target::topic("a"), "y")).await), (0, 1));
}

#[tokio::test]
async fn an_unknown_topic_is_told_as_such_and_by_its_place_in_a_batch() {
    let cluster = cluster();
    cluster.create_topic("hares", 1, 1).unwrap();
    cluster.topic_error("nowhere", RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
    let client = lazy(&cluster, &[]);
    let sender = sender(&client, 15 * SECOND);
    let targets = ["hares", "nowhere", "hares"];
    let (report, took) = timed(sender.send_batch(targets.map(|topic| (Target::topic(topic), "x")))).await;
    let failed: Vec<_> = report.failed().map(|(at, error)| (at, error.kind(), error.outcome())).collect();
    assert_eq!(failed, [(1, ErrorKind::NotFound, Outcome::Refused)], "{report:?}");
    assert!(took < 15 * SECOND, "before the deadline: {took:?}");

    let error = within(sender.send(Target::topic("hares").partition(7), "x")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::NotFound, Outcome::NotSent), "{error}");
}

#[tokio::test]
async fn a_message_that_is_too_large_is_not_sent() {
    let cluster = cluster();
    let client = lazy(&cluster, &[("message.max.bytes", "2000")]);
    let error = within(sender(&client, LONG).send(Target::topic("hares"), vec![0; 3000])).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::MessageTooLarge, Outcome::NotSent), "{error}");
    assert!(error.to_string().contains("message.max.bytes"), "{error}");
}

#[tokio::test]
async fn a_full_queue_is_waited_for_within_the_deadline() {
    let cluster = cluster();
    cluster.create_topic("hares", 1, 1).unwrap();
    let client = lazy(&cluster, &[("queue.buffering.max.messages", "2")]);
    let sender = client.sender().timeout(LONG).retry(RetryPolicy::never()).build().unwrap();
    place(within(sender.send(Target::topic("hares"), "x")).await);
    cluster.broker_down(1).unwrap();
    let first = within(sender.send_pipelined(Target::topic("hares"), "a")).await.unwrap();
    let second = within(sender.send_pipelined(Target::topic("hares"), "b")).await.unwrap();
    let full = sender.try_enqueue(Target::topic("hares"), "c").unwrap_err();
    assert_eq!((full.kind(), full.outcome()), (ErrorKind::Timeout, Outcome::NotSent), "{full}");
    assert!(full.message().is_some());
    let hasty = sender.with_timeout(Duration::from_millis(200));
    let (result, took) = timed(hasty.send(Target::topic("hares"), "d")).await;
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::NotSent), "{error}");
    assert!(took >= Duration::from_millis(190) && took < SOON, "{took:?}");
    // There is room again before this one's deadline.
    cluster.broker_up(1).unwrap();
    assert_eq!(place(within(sender.send(Target::topic("hares"), "e")).await), (0, 3));
    assert_eq!((place(within(first).await), place(within(second).await)), ((0, 1), (0, 2)));
}
