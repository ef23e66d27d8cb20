//! KumoMTA's `kumo.amqp.basic_publish` (`mod-amqp/src/amqprs_client.rs`): one call with everything in one table, the connection among it,
//! which is the key of a map of pools.

use std::sync::LazyLock;
use std::time::Duration;

use leveret::amqp::{Config, Properties};
use leveret::messaging::{Client, ClientCache, ClientState, Event, Message, SendError, Target};
use serde::Deserialize;

use crate::{Server, prepared, take, within};

// ------------------------------------------------------------------------------------------------------------- the port

#[derive(Deserialize)]
struct PublishParams {
    routing_key: String,
    payload: String,
    connection: Config,
    #[serde(default)]
    exchange: String,
    #[serde(default)]
    mandatory: bool,
    #[serde(default)]
    publish_timeout: Option<u64>,
    /// Everything else: the fourteen properties by their names. What is none of them is an error.
    #[serde(flatten)]
    properties: Properties,
}

/// The host's main runtime, and its pools.
static MAIN: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
static POOLS: LazyLock<ClientCache> = LazyLock::new(|| ClientCache::new().spawn_on(MAIN.handle().clone()));

async fn basic_publish(params: PublishParams) -> Result<(), SendError> {
    let client = POOLS.get(params.connection).unwrap();
    let sender = sender(&client, params.publish_timeout);
    let target = Target::exchange(params.exchange, params.routing_key).mandatory(params.mandatory);
    sender.send(target, Message::new(params.payload).with_properties(params.properties)).await.map(drop)
}

/// A sender is cheap; a host that calls often keeps one beside each client.
fn sender(client: &Client, timeout: Option<u64>) -> leveret::messaging::Sender {
    client.sender().timeout(Duration::from_secs(timeout.unwrap_or(60))).build().unwrap()
}

async fn purge_under_memory_pressure() {
    POOLS.close_idle(Duration::from_secs(5)).await;
}

// ------------------------------------------------------------------------------------------------------------ its tests

/// A table as Lua hands it over.
fn table(url: &str, rest: serde_json::Value) -> PublishParams {
    let url: Config = Config::from_url(url).unwrap();
    let address = &url.hosts[0];
    let mut table = serde_json::json!({
        "routing_key": "hello",
        "payload": "w00t!",
        "connection": {"host": address.host, "port": address.port, "username": "guest", "password": "guest",
                       "vhost": "/", "heartbeat": 30, "connection_name": "kumod", "connect_timeout": "20s"},
    });
    table.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    serde_json::from_value(table).unwrap()
}

on_its_own! {
    /// Every call on a current-thread runtime of its own, which ends right after it. They share one connection; the pools are the whole
    /// program's, and so there can be only one test of them.
    async fn kb1_kb3_kb6_kb7_kb12_kb13_a_table_is_published() {
        let server = Server::broker().await;
        let channel = prepared(&server, "hello").await;
        // Runtimes cannot be waited for from within one.
        let hosts = tokio::task::spawn_blocking(move || {
            let url = &server.url;
            let publish = |rest: serde_json::Value| {
                let params = table(url, rest);
                let caller = std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    tokio::task::LocalSet::new().block_on(&runtime, within("a result", basic_publish(params)))
                });
                caller.join().unwrap()
            };
            publish(serde_json::json!({
                "app_id": "kumo", "message_type": "log", "priority": 0, "delivery_mode": 1, "timestamp": 1_700_000_000,
                "headers": {"x-foo": "bar", "n": 1}
            }))
            .unwrap();
            let mut events = POOLS.get(table(url, serde_json::json!({})).connection).unwrap().events();
            publish(serde_json::json!({"expiration": "60000"})).unwrap();
            let expected = Properties::new()
                .app_id("kumo")
                .kind("log")
                .priority(0)
                .delivery_mode(1)
                .timestamp(1_700_000_000u64)
                .header("n", 1i64)
                .header("x-foo", "bar");
            MAIN.block_on(async {
                assert_eq!(take(&channel, "hello").await.properties().unwrap(), expected);
                let persistent = Properties::new().expiration("60000").persistent();
                assert_eq!(take(&channel, "hello").await.properties().unwrap(), persistent);
            });

            // Success means that the server has it, and a failure says so.
            let error = publish(serde_json::json!({"routing_key": "nowhere", "mandatory": true})).unwrap_err();
            assert_eq!(error.reply_code().unwrap().0, 312);
            let error = publish(serde_json::json!({"exchange": "missing"})).unwrap_err();
            assert_eq!(error.reply_code().unwrap().0, 404);
            let error = publish(serde_json::json!({"routing_key": "x".repeat(256)})).unwrap_err();
            assert_eq!(error.kind(), leveret::error::ErrorKind::InvalidArgument);

            // One connection for all of that, which the purge closes, and the next call opens again.
            assert_eq!(POOLS.len(), 1);
            let client = POOLS.get(table(url, serde_json::json!({})).connection).unwrap();
            MAIN.block_on(async {
                within("the purge", purge_under_memory_pressure()).await;
                assert_ne!(client.state(), ClientState::Open);
            });
            publish(serde_json::json!({})).unwrap();
            MAIN.block_on(async {
                assert!(within("the end", client.close()).await.is_clean());
                let mut opened = 0;
                loop {
                    match within("an event", events.next()).await {
                        Some(Event::Opened) => opened += 1,
                        Some(Event::Closed) => break,
                        Some(_) => {}
                        None => panic!("the last event is missing"),
                    }
                }
                assert_eq!(opened, 1, "since the first call, by the one behind the purge");
            });
        });
        within("the host", hosts).await.unwrap();
    }
}

#[test]
fn kb1_kb2_kb6_a_typo_is_an_error() {
    let read = |text: &str| serde_json::from_str::<PublishParams>(text).map(drop).map_err(|error| error.to_string());
    let good = r#"{"routing_key": "r", "payload": "p", "connection": {"host": "h"}"#;
    read(&format!("{good}}}")).unwrap();
    for (rest, word) in [
        (r#", "messageid": "x"}"#, "messageid"),
        (r#", "priority": 256}"#, "256"),
        (r#", "app_id": ["x"]}"#, "255 octets"),
    ] {
        let error = read(&format!("{good}{rest}")).unwrap_err();
        assert!(error.contains(word), "{rest}: {error}");
    }
    assert!(read(r#"{"routing_key": "r", "payload": "p", "connection": {"hots": "h"}}"#).unwrap_err().contains("hots"));
}
