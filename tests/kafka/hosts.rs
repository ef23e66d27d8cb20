//! The hosts with Kafka: KumoMTA's `kumo.kafka.build_producer` (`mod-kafka/src/lib.rs`) in this library's words, and a relay whose routes
//! name topics.

use std::collections::HashMap;
use std::time::Duration;

use leveret::error::ErrorKind;
use leveret::kafka::KafkaConfig;
use leveret::messaging::{Client, Message, ReceiptDetail, RetryPolicy, SendError, Sender, Target};
use leveret::registry::{Outgoing, Registry};
use leveret::relay::{Record, Relay, RelayConfig};
use rdkafka::message::{Headers, Message as _};
use serde::Deserialize;

use crate::support::{SECOND, SOON, cluster, lazy, read, timed, within};

// ------------------------------------------------------------------------------------------------------------- the port

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    topic: String,
    payload: String,
    partition: Option<i32>,
    key: Option<String>,
    #[serde(default)]
    headers: HashMap<String, String>,
    /// Seconds.
    timeout: Option<u64>,
}

struct Producer {
    client: Client,
    sender: Sender,
}

fn build_producer(config: HashMap<String, String>) -> leveret::error::Result<Producer> {
    let client = Client::from_config(config.into_iter().collect::<KafkaConfig>()).lazy()?;
    let sender = client.sender().timeout(Duration::from_secs(60)).retry(RetryPolicy::never()).build()?;
    Ok(Producer { client, sender })
}

impl Item {
    fn into_parts(self) -> (Target, Message) {
        let mut target = Target::topic(self.topic);
        if let Some(partition) = self.partition {
            target = target.partition(partition);
        }
        let mut message = Message::new(self.payload);
        if let Some(key) = self.key {
            message = message.key(key);
        }
        let message =
            self.headers.into_iter().fold(message, |message, (name, value)| message.append_header(name, value));
        (target, message)
    }
}

impl Producer {
    async fn send(&self, record: Item) -> Result<(i32, Option<i64>), SendError> {
        let sender = self.sender.with_timeout(Duration::from_secs(record.timeout.unwrap_or(60)));
        let (target, message) = record.into_parts();
        match sender.send(target, message).await?.detail {
            ReceiptDetail::Kafka { partition, offset, .. } => Ok((partition, offset)),
            other => panic!("a receipt of Kafka says {other:?}"),
        }
    }

    /// The places of those that failed, counted from 1, and why.
    async fn send_batch(&self, records: Vec<Item>) -> (Vec<usize>, Vec<String>) {
        let report = self.sender.send_batch(records.into_iter().map(Item::into_parts)).await;
        report.failed().map(|(at, error)| (at + 1, error.to_string())).unzip()
    }

    async fn close(&self) {
        self.client.close().await;
    }
}

// ------------------------------------------------------------------------------------------------------------ its tests

fn table(json: &str) -> Item {
    serde_json::from_str(json).unwrap()
}

fn config(servers: &str) -> HashMap<String, String> {
    [("bootstrap.servers".to_owned(), servers.to_owned())].into()
}

#[tokio::test]
async fn kk1_kk2_kk4_kk5_the_port_of_kumomtas_producer() {
    let cluster = cluster();
    cluster.create_topic("mail", 2, 1).unwrap();
    assert!(build_producer([("no.such.property".to_owned(), "1".to_owned())].into()).is_err());
    let producer = build_producer(config(&cluster.bootstrap_servers())).unwrap();

    let json = r#"{"topic": "mail", "payload": "w00t!", "partition": 1, "key": "k", "headers": {"x-foo": "bar"}}"#;
    assert_eq!(within(producer.send(table(json))).await.unwrap(), (1, Some(0)));
    let records = read(&cluster, "mail", 1, 1);
    assert_eq!(records.first().unwrap().payload(), Some(&b"w00t!"[..]));

    let batch = [
        r#"{"topic": "mail", "payload": "a", "partition": 0}"#,
        r#"{"topic": "", "payload": "b"}"#,
        r#"{"topic": "mail", "payload": "c", "partition": 0}"#,
    ];
    let (failed, errors) = within(producer.send_batch(batch.map(table).into())).await;
    assert_eq!((failed, errors.len()), (vec![2], 1));
    let payloads: Vec<_> =
        read(&cluster, "mail", 0, 2).iter().map(|record| record.payload().unwrap().to_vec()).collect();
    assert_eq!(payloads, [b"a", b"c"], "in order, and without the one that cannot be sent");

    within(producer.close()).await;
    within(producer.close()).await;
    let error = within(producer.send(table(json))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

/// Its documentation says `timeout`; there it did not bound the delivery.
#[tokio::test]
async fn scenario_11_brokers_that_are_down_cost_what_was_asked() {
    let cluster = cluster();
    cluster.create_topic("mail", 1, 1).unwrap();
    let producer = build_producer(config(&cluster.bootstrap_servers())).unwrap();
    within(producer.send(table(r#"{"topic": "mail", "payload": "there"}"#))).await.unwrap();
    cluster.broker_down(-1).unwrap();

    let (sent, took) = timed(producer.send(table(r#"{"topic": "mail", "payload": "x", "timeout": 2}"#))).await;
    assert_eq!(sent.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(took >= SECOND && took < SOON, "{took:?}");
    let batch = [r#"{"topic": "", "payload": "x"}"#].map(table).into();
    assert_eq!(within(producer.send_batch(batch)).await.0, [1], "the index of the bad one");
}

/// KL: the same delivery handler, whatever carries the messages.
#[tokio::test]
async fn kl3_a_relay_hands_records_to_topics() {
    let cluster = cluster();
    cluster.create_topic("events", 1, 1).unwrap();
    let client = lazy(&cluster, &[]);
    let registry = Registry::new();
    registry.set_connection("log", Client::from_config(client.config().clone())).unwrap();
    registry.set_outgoing("events", Outgoing::new("log")).unwrap();
    let routes = r#"{"routes": [{"outgoing": "events", "topic": "events", "key": "{id}"}]}"#;
    let relay = Relay::new(registry, serde_json::from_str::<RelayConfig>(routes).unwrap()).unwrap();

    let verdict = within(relay.deliver(&Record::new("a hare has left").field("id", "7"))).await;
    assert_eq!(verdict.code, 250, "{verdict:?}");
    let records = read(&cluster, "events", 0, 1);
    let record = records.first().unwrap();
    assert_eq!((record.payload(), record.key()), (Some(&b"a hare has left"[..]), Some(&b"7"[..])));
    assert_eq!(record.headers().unwrap().get(0).key, "message-id", "for those who want to know a second copy");
}
