//! A cluster, a client that finds it, and waits that end.

use std::time::{Duration, Instant};

use leveret::messaging::{Client, ReceiptDetail, RetryPolicy, SendError, Sender, Status, Target};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::OwnedMessage;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

pub(crate) type Cluster = MockCluster<'static, DefaultProducerContext>;

pub(crate) fn cluster() -> Cluster {
    MockCluster::new(1).unwrap()
}

pub(crate) fn url(cluster: &Cluster) -> String {
    format!("kafka://{}", cluster.bootstrap_servers())
}

/// A client that has not connected yet, with properties of librdkafka.
pub(crate) fn lazy(cluster: &Cluster, properties: &[(&str, &str)]) -> Client {
    let builder = Client::builder(&url(cluster)).unwrap();
    // The mock cluster takes a session's length to see that a member is gone, and to let another one in.
    let builder = builder.kafka_set("session.timeout.ms", "4000").kafka_set("heartbeat.interval.ms", "300");
    properties.iter().fold(builder, |builder, (name, value)| builder.kafka_set(*name, *value)).lazy().unwrap()
}

/// A sender that has so long and does not try again.
pub(crate) fn sender(client: &Client, timeout: Duration) -> Sender {
    client.sender().timeout(timeout).retry(RetryPolicy::never()).build().unwrap()
}

/// Much longer than the deadlines of these tests, and much shorter than what nobody has asked for: what ends by then ended with its deadline,
/// on a busy machine, too.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Longer than anything takes that is not stuck: a group goes on without a member whose goodbye was lost after 45 s.
pub(crate) const LONG: Duration = Duration::from_secs(120);

pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, what).await.unwrap_or_else(|_| panic!("it hangs"))
}

/// What it says, and how long that took.
pub(crate) async fn timed<T>(what: impl Future<Output = T>) -> (T, Duration) {
    let begin = Instant::now();
    let said = within(what).await;
    (said, begin.elapsed())
}

/// Partition and offset of a message that was accepted.
pub(crate) fn place(result: Result<leveret::messaging::Receipt, SendError>) -> (i32, i64) {
    let receipt = result.unwrap();
    assert_eq!(receipt.status, Status::Accepted);
    match receipt.detail {
        ReceiptDetail::Kafka { partition, offset: Some(offset), .. } => (partition, offset),
        other => panic!("no place: {other:?}"),
    }
}

/// Sends until a message is accepted: from then on the connection and everything else is there.
pub(crate) async fn warm(sender: &Sender, topic: &str) {
    within(async { while sender.send(Target::topic(topic), "warm").await.is_err() {} }).await;
}

/// The first so many records of a partition, read by rdkafka itself.
pub(crate) fn read(cluster: &Cluster, topic: &str, partition: i32, count: usize) -> Vec<OwnedMessage> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.bootstrap_servers()).set("group.id", "reader");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    consumer.assign(&from).unwrap();
    let (mut records, until) = (Vec::new(), Instant::now() + LONG);
    while records.len() < count {
        assert!(Instant::now() < until, "only {} of {count} came", records.len());
        if let Some(record) = consumer.poll(Duration::from_millis(100)) {
            records.push(record.unwrap().detach());
        }
    }
    records
}
