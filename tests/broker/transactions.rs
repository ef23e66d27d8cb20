//! Class tx.

use leveret::codec::Properties;
use leveret::codec::method::tx;

use crate::raw::{Raw, mandatory, start};

async fn transactional() -> (leveret::broker::Broker, Raw) {
    let (broker, mut client) = start().await;
    client.declare("q").await;
    client.send(1, tx::Select {}).await;
    client.says(["tx.select-ok"]).await;
    (broker, client)
}

#[tokio::test]
async fn c103_publishes_count_when_committed() {
    let (_broker, mut client) = transactional().await;
    client.publish("", "q", "forgotten").await;
    client.counts("q", 0, 0).await;
    client.send(1, tx::Rollback {}).await;
    client.says(["tx.rollback-ok"]).await;
    client.publish("", "q", "kept").await;
    client.publish_with(1, mandatory("", "nobody"), &Properties::new(), b"back").await;
    client.counts("q", 0, 0).await;
    client.send(1, tx::Commit {}).await;
    client.says(["return 312 NO_ROUTE /nobody back", "tx.commit-ok"]).await;
    client.get("q", true).await;
    client.says(["get-ok 1 /q kept, 0 left"]).await;
}

#[tokio::test]
async fn c103_acknowledgements_count_when_committed() {
    let (broker, mut client) = transactional().await;
    let mut other = Raw::open(&broker).await;
    other.publish("", "q", "a").await;
    other.publish("", "q", "b").await;
    other.counts("q", 2, 0).await;
    client.qos(1, 1, false).await;
    client.consume(1, "q", "c").await;
    client.says(["deliver c 1 /q a"]).await;
    client.ack(1, 1, false).await;
    client.is_quiet().await;
    client.send(1, tx::Rollback {}).await;
    client.says(["tx.rollback-ok"]).await;
    // It is still there to be settled.
    client.ack(1, 1, false).await;
    client.send(1, tx::Commit {}).await;
    client.says(["deliver c 2 /q b", "tx.commit-ok"]).await;
    client.nack(1, 2, false, true).await;
    client.close().await;
    other.counts("q", 1, 0).await;
    other.get("q", false).await;
    other.says(["get-ok 1 again /q b, 0 left"]).await;
}

#[tokio::test]
async fn c103_without_a_transaction_there_is_nothing_to_commit() {
    let (_broker, mut client) = start().await;
    let text = "channel closed: 406 PRECONDITION_FAILED - channel is not transactional";
    client.send(1, tx::Commit {}).await;
    client.says([format!("{text} (90.20)")]).await;
    client.open_channel(1).await;
    client.send(1, tx::Rollback {}).await;
    client.says([format!("{text} (90.30)")]).await;
}
