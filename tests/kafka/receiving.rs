//! Groups: what is accepted is committed and does not come again, what is not comes again; partitions go from one member to
//! another, and everybody is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use leveret::error::ErrorKind;
use leveret::kafka::PropertyMapping;
use leveret::messaging::{
    Client, DeliveryDetail, Disposition, Event, EventStream, Message, Receiver, RecoveryPolicy, Source, Target,
};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::sync::Semaphore;

use crate::support::{Cluster, LONG, SECOND, SOON, cluster, lazy, place, read, sender, url, within};

/// Rebalancing takes the mock cluster three seconds, and a closed member has to be waited for.
async fn receiver(client: &Client, group: &str) -> Receiver {
    within(client.receiver(Source::topic("hares", group)).build()).await.unwrap()
}

async fn fill(cluster: &Cluster, partitions: i32, count: usize) -> Client {
    cluster.create_topic("hares", partitions, 1).unwrap();
    let client = lazy(cluster, &[]);
    let sender = sender(&client, LONG);
    for n in 0..count {
        let partition = i32::try_from(n).unwrap() % partitions;
        place(within(sender.send(Target::topic("hares").partition(partition), format!("{n}"))).await);
    }
    client
}

/// Where the group `g` goes on in the first partition.
fn committed(cluster: &Cluster) -> impl Fn() -> Offset {
    let servers = cluster.bootstrap_servers();
    let asker: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", servers).set("group.id", "g").create().unwrap();
    move || {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition("hares", 0);
        asker.committed_offsets(partitions, LONG).unwrap().find_partition("hares", 0).unwrap().offset()
    }
}

async fn next(receiver: &mut Receiver) -> leveret::messaging::Delivery {
    within(receiver.recv()).await.unwrap().unwrap()
}

fn body(body: &[u8]) -> String {
    String::from_utf8(body.to_vec()).unwrap()
}

async fn assigned(events: &mut EventStream) -> Vec<(String, i32)> {
    within(async {
        loop {
            match events.next().await {
                Some(Event::Assigned(partitions)) => return partitions,
                Some(_) => {}
                None => panic!("no more events"),
            }
        }
    })
    .await
}

#[tokio::test]
async fn what_was_accepted_does_not_come_again_and_what_was_not_does() {
    let cluster = cluster();
    let client = fill(&cluster, 1, 6).await;
    let mut first = receiver(&client, "g").await;
    let mut deliveries = Vec::new();
    for n in 0..5 {
        let delivery = next(&mut first).await;
        assert_eq!(body(delivery.body()), n.to_string());
        let DeliveryDetail::Kafka { topic, partition, offset, .. } = delivery.detail() else { panic!() };
        assert_eq!((topic.as_str(), partition, offset), ("hares", 0, n));
        deliveries.push(delivery);
    }
    // 3 is missing: 4 may be accepted, and is not what counts.
    for n in [4, 0, 2, 1] {
        let at = deliveries.iter().position(|delivery| body(delivery.body()) == n.to_string()).unwrap();
        deliveries.remove(at).accept().unwrap();
    }
    drop(deliveries);
    // The sixth may have been fetched by now, and is handed out then.
    let rest = within(first.close()).await.unwrap();
    assert!(rest.iter().all(|delivery| body(delivery.body()) == "5"), "{rest:?}");
    drop(rest);
    // Everything is let go of, so the member leaves; closing waits for that.
    assert!(within(client.close()).await.is_clean());

    let client = lazy(&cluster, &[]);
    let mut second = receiver(&client, "g").await;
    for n in 3..6 {
        let delivery = next(&mut second).await;
        assert_eq!(body(delivery.body()), n.to_string());
        delivery.accept().unwrap();
    }
    within(second.close()).await.unwrap();
    within(client.close()).await;
}

#[tokio::test]
async fn a_group_cannot_give_single_messages_back() {
    let cluster = cluster();
    let client = fill(&cluster, 1, 4).await;
    let mut receiver = receiver(&client, "g").await;
    assert_eq!(next(&mut receiver).await.reject().unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(next(&mut receiver).await.release().unwrap_err().kind(), ErrorKind::Unsupported);
    let failed = Default::default();
    assert_eq!(next(&mut receiver).await.modify(failed).unwrap_err().kind(), ErrorKind::Unsupported);
    // All three were left. What is settled up to here is settled, those included.
    let last = next(&mut receiver).await;
    receiver.settle_up_to(&last, Disposition::Accept).unwrap();
    let (_, acker) = last.detach();
    assert!(acker.is_settled());
    assert_eq!(acker.accept().unwrap_err().kind(), ErrorKind::Stale);
    within(receiver.close()).await.unwrap();
    within(client.close()).await;

    let client = lazy(&cluster, &[]);
    place(within(sender(&client, LONG).send(Target::topic("hares"), "4")).await);
    let mut again = within(client.receiver(Source::topic("hares", "g")).build()).await.unwrap();
    assert_eq!(body(next(&mut again).await.body()), "4");
}

#[tokio::test]
async fn partitions_are_shared_by_a_group_and_go_to_whoever_is_left() {
    let cluster = cluster();
    let one = fill(&cluster, 2, 0).await;
    let two = lazy(&cluster, &[]);
    let (mut told_one, mut told_two) = (one.events(), two.events());
    let mut first = receiver(&one, "g").await;
    assert_eq!(assigned(&mut told_one).await.len(), 2, "alone it has both");
    let producer = sender(&one, LONG);
    for text in ["before", "behind"] {
        for partition in [0, 1] {
            place(within(producer.send(Target::topic("hares").partition(partition), text)).await);
        }
    }
    // Two more wait.
    let early = [next(&mut first).await, next(&mut first).await];

    let mut second = receiver(&two, "g").await;
    let (ones, twos) = (assigned(&mut told_one).await, assigned(&mut told_two).await);
    assert_eq!((ones.len(), twos.len()), (1, 1));
    let both: BTreeSet<_> = ones.iter().chain(&twos).cloned().collect();
    assert_eq!(both.len(), 2, "{both:?}");
    // What was delivered before is the new members' business.
    for delivery in early {
        assert_eq!(delivery.accept().unwrap_err().kind(), ErrorKind::Stale);
    }
    for receiver in [&mut first, &mut second] {
        for text in ["before", "behind"] {
            let delivery = next(receiver).await;
            assert_eq!(body(delivery.body()), text, "it comes again");
            delivery.accept().unwrap();
        }
    }
    within(first.close()).await.unwrap();
    assert_eq!(assigned(&mut told_two).await.len(), 2, "it has inherited");
}

/// Its partitions go to others even while it is still there.
#[tokio::test]
async fn a_receiver_that_has_ended_leaves_its_group() {
    let cluster = cluster();
    let one = fill(&cluster, 1, 2).await;
    let mut first = within(one.receiver(Source::topic("hares", "g")).idle_timeout(SOON).build()).await.unwrap();
    let (read, unread) = (next(&mut first).await, next(&mut first).await);
    assert!(within(first.recv()).await.is_none());
    // What is in hand can be accepted, and then nothing keeps it.
    read.accept().unwrap();
    drop(unread);
    // Whoever joins before that goes on where the group was until then.
    let committed = committed(&cluster);
    within(async {
        while committed() != Offset::Offset(1) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let two = lazy(&cluster, &[]);
    let mut second = receiver(&two, "g").await;
    assert_eq!(body(next(&mut second).await.body()), "1");
    assert!(within(first.recv()).await.is_none());
    assert!(within(first.close()).await.unwrap().is_empty());
}

#[tokio::test]
async fn prefetch_holds_back_what_is_not_wanted_yet() {
    let cluster = cluster();
    let client = fill(&cluster, 1, 40).await;
    let mut receiver = within(client.receiver(Source::topic("hares", "g")).prefetch(10).build()).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(next(&mut receiver).await);
    }
    let eleventh = tokio::time::timeout(3 * SECOND, receiver.recv()).await;
    assert!(eleventh.is_err(), "it came though ten are unsettled");
    for delivery in held {
        delivery.accept().unwrap();
    }
    for n in 10..40 {
        let delivery = next(&mut receiver).await;
        assert_eq!(body(delivery.body()), n.to_string());
        delivery.accept().unwrap();
    }
}

#[tokio::test]
async fn a_stream_without_settling_commits_what_it_has_given() {
    let cluster = cluster();
    let client = fill(&cluster, 1, 3).await;
    let mut stream = within(client.receiver(Source::topic("hares", "g")).build_no_ack()).await.unwrap();
    for n in 0..2 {
        let received = within(stream.recv()).await.unwrap().unwrap();
        assert_eq!(body(received.body()), n.to_string());
    }
    drop(stream);
    within(client.close()).await;
    let client = lazy(&cluster, &[]);
    let mut receiver = receiver(&client, "g").await;
    assert_eq!(body(next(&mut receiver).await.body()), "2");
}

/// It gets its partition only after it was told to stop receiving.
#[tokio::test]
async fn what_is_assigned_to_a_stream_that_was_cancelled_is_not_handed_on() {
    let cluster = cluster();
    let client = fill(&cluster, 1, 3).await;
    let mut events = client.events();
    let mut stream = within(client.receiver(Source::topic("hares", "g")).build_no_ack()).await.unwrap();
    within(stream.cancel()).await.unwrap();
    assert_eq!(assigned(&mut events).await, [("hares".to_owned(), 0)]);
    // Somebody who begins later has read all of it by now.
    read(&cluster, "hares", 0, 3);
    let next = within(stream.recv()).await;
    assert!(next.is_none(), "{next:?}");
}

/// A receiver that was dropped commits in the background; whoever closes the client has that behind him.
#[tokio::test]
async fn closing_the_client_waits_for_the_commits_of_receivers_that_were_dropped() {
    let cluster = cluster();
    let client = fill(&cluster, 1, 2).await;
    let committed = committed(&cluster);
    let mut receiver = receiver(&client, "g").await;
    next(&mut receiver).await.accept().unwrap();
    // It knows its broker from now on, and gets its next answer at once.
    assert_eq!(committed(), Offset::Invalid);
    drop(receiver);
    within(client.close()).await;
    assert_eq!(committed(), Offset::Offset(1));
}

#[tokio::test]
async fn closing_the_client_ends_its_receivers_and_commits() {
    let cluster = cluster();
    let client = fill(&cluster, 1, 2).await;
    let mut receiver = receiver(&client, "g").await;
    next(&mut receiver).await.accept().unwrap();
    let held = next(&mut receiver).await;
    within(client.close()).await;
    assert!(within(receiver.recv()).await.is_none());
    assert_eq!(held.accept().unwrap_err().kind(), ErrorKind::Stale);
    let client = lazy(&cluster, &[]);
    let mut again = within(client.receiver(Source::topic("hares", "g")).build()).await.unwrap();
    assert_eq!(body(next(&mut again).await.body()), "1");
}

#[tokio::test]
async fn messages_come_as_they_were_sent() {
    let cluster = cluster();
    cluster.create_topic("hares", 1, 1).unwrap();
    let client = lazy(&cluster, &[]);
    let mapping = |config: leveret::kafka::KafkaConfig| config.map_properties(PropertyMapping::Headers);
    let mapped = Client::builder(&url(&cluster)).unwrap().kafka(mapping).lazy().unwrap();
    let message = Message::new("x")
        .key("k")
        .append_header("h", "1")
        .append_header("g", leveret::codec::FieldValue::Void)
        .append_header("h", "2");
    place(within(sender(&client, LONG).send(Target::topic("hares"), message.clone())).await);
    place(within(sender(&client, LONG).send(Target::topic("hares"), Message::tombstone().key("k"))).await);
    let rich = message.clone().message_id("42").priority(3);
    place(within(sender(&mapped, LONG).send(Target::topic("hares"), rich.clone())).await);

    let mut receiver = receiver(&mapped, "g").await;
    for expected in [message, Message::tombstone().key("k"), rich] {
        let delivery = next(&mut receiver).await;
        assert!(delivery.malformed().is_none());
        let mut message = delivery.message();
        // The mock cluster keeps a time of its own.
        message.properties.timestamp = None;
        assert_eq!(message, expected);
    }
}

#[tokio::test]
async fn handlers_run_side_by_side_and_one_that_fails_holds_back_the_offset() {
    let cluster = cluster();
    let client = fill(&cluster, 1, 8).await;
    let source = Source::topic("hares", "g");
    let building = client.receiver(&source).on_failure(Disposition::Release, Duration::ZERO);
    let receiver = within(building.build()).await.unwrap();
    let handled = Arc::new(Semaphore::new(0));
    let handler = |received: leveret::messaging::Received| {
        let handled = Arc::clone(&handled);
        async move {
            handled.add_permits(1);
            match body(received.body()).as_str() {
                "5" => Err("no fives"),
                _ => Ok(Disposition::Accept),
            }
        }
    };
    within(receiver.for_each_until(4, handled.acquire_many(8), handler)).await.unwrap();
    within(client.close()).await;
    let client = lazy(&cluster, &[]);
    let mut again = within(client.receiver(source).build()).await.unwrap();
    assert_eq!(body(next(&mut again).await.body()), "5");
}

#[tokio::test]
async fn what_cannot_be_received_is_told() {
    let cluster = cluster();
    let client = fill(&cluster, 1, 0).await;
    let source = || Source::topic("hares", "g");
    for builder in [
        client.receiver(Source::queue("q")),
        client.receiver(source()).exclusive(true),
        client.receiver(source()).priority(1),
        client.receiver(source()).tag_prefix("x"),
        client.receiver(source()).recovery(RecoveryPolicy::never()),
        client.receiver_from(|_| async { Ok(Source::topic("hares", "g")) }),
    ] {
        assert_eq!(within(builder.build()).await.unwrap_err().kind(), ErrorKind::Unsupported);
    }
    for source in [Source::topic("hares", ""), Source::topic("a b", "g"), Source::topics([""; 0], "g")] {
        assert_eq!(within(client.receiver(source).build()).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    let own = lazy(&cluster, &[("enable.auto.offset.store", "true")]);
    assert_eq!(within(own.receiver(source()).build()).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    // Neither is a queue of AMQP's kind of answer to be had.
    let served = client.responder(source()).serve(async |_| Ok::<_, std::convert::Infallible>(Message::new("")));
    assert_eq!(within(served).await.unwrap_err().kind(), ErrorKind::Unsupported);

    let denied = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 3];
    cluster.request_errors(RDKafkaApiKey::FindCoordinator, &denied);
    let mut receiver = within(client.receiver(Source::topic("hares", "closed")).build()).await.unwrap();
    let error = within(receiver.recv()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
    assert!(within(receiver.recv()).await.is_none(), "the stream ends with it");
}
