//! KumoMTA's `kumo.amqp.build_client` (`mod-amqp/src/lapin_client.rs`): a client, a confirm object to wait for once, a publish with a
//! timeout. With Lua taken away: what its functions get is a deserialized table, and what they return is serialized again.

use std::time::Duration;

use leveret::amqp::{Channel, Confirm, Confirmation, Connection, Properties};
use serde::Deserialize;
use tokio::runtime::Handle;

use crate::{PATIENCE, Server, prepared, take, within};

// ------------------------------------------------------------------------------------------------------------- the port

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishParams {
    routing_key: String,
    payload: String,
    #[serde(default)]
    exchange: String,
    #[serde(default)]
    options: PublishOptions,
    #[serde(default)]
    properties: Properties,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PublishOptions {
    mandatory: bool,
    immediate: bool,
}

#[derive(Debug, PartialEq)]
struct ConfirmResult {
    status: &'static str,
    reply_code: Option<u16>,
    reply_text: Option<String>,
}

struct AmqpClient {
    connection: Connection,
    channel: Channel,
}

struct ConfirmHandle(Option<Confirm>);

async fn build_client(uri: &str, main_runtime: Handle) -> anyhow::Result<AmqpClient> {
    let builder = Connection::builder(uri)?.connect_timeout(Duration::from_secs(20)).spawn_on(main_runtime);
    let connection = builder.open().await?;
    let channel = connection.open_channel().await?;
    Ok(AmqpClient { connection, channel })
}

impl AmqpClient {
    async fn publish(&self, params: PublishParams) -> anyhow::Result<ConfirmHandle> {
        let PublishParams { routing_key, payload, exchange, options, properties } = params;
        let publish = self.channel.basic_publish(&exchange, &routing_key, payload).properties(&properties);
        let confirm = publish.mandatory(options.mandatory).immediate(options.immediate).await?;
        Ok(ConfirmHandle(Some(confirm)))
    }

    async fn publish_with_timeout(&self, params: PublishParams, millis: u64) -> anyhow::Result<ConfirmResult> {
        let publish = async { self.publish(params).await?.wait().await };
        tokio::time::timeout(Duration::from_millis(millis), publish).await?
    }

    async fn close(&self) -> anyhow::Result<()> {
        self.channel.close().await?;
        self.connection.close().await?;
        Ok(())
    }
}

impl ConfirmHandle {
    async fn wait(&mut self) -> anyhow::Result<ConfirmResult> {
        let Some(confirm) = self.0.take() else { return Err("confirmation already taken!?".into()) };
        let (status, returned) = match confirm.await? {
            Confirmation::Ack(returned) => ("Ack", returned),
            Confirmation::Nack(returned) => ("Nack", returned),
            Confirmation::NotRequested => ("NotRequested", None),
        };
        let reply_code = returned.as_ref().map(|returned| returned.reply_code().0);
        let reply_text = returned.map(|returned| returned.reply_text().into_owned());
        Ok(ConfirmResult { status, reply_code, reply_text })
    }
}

/// What the host has from the crate of this name.
mod anyhow {
    pub(super) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
}

// ------------------------------------------------------------------------------------------------------------ its tests

fn table(json: &str) -> PublishParams {
    serde_json::from_str(json).unwrap()
}

on_every_server! {
    /// The example of its documentation.
    async fn ka1_ka3_ka4_ka7_the_documented_example(server: Server) {
        let channel = prepared(server, "hello").await;
        let client = build_client(&server.url, Handle::current()).await.unwrap();
        let mut confirm = client.publish(table(r#"{"routing_key": "hello", "payload": "w00t!"}"#)).await.unwrap();
        let result = within("a confirm", confirm.wait()).await.unwrap();
        assert_eq!(result, ConfirmResult { status: "NotRequested", reply_code: None, reply_text: None });
        assert_eq!(confirm.wait().await.unwrap_err().to_string(), "confirmation already taken!?");
        assert_eq!(take(&channel, "hello").await.body(), b"w00t!");
        within("closing", client.close()).await.unwrap();
        within("closing twice", client.close()).await.unwrap();
        assert!(client.publish(table(r#"{"routing_key": "hello", "payload": "x"}"#)).await.is_err());
    }

    /// What could never be reached there: a confirm that says what happened, and a table of properties.
    async fn ka4_ka5_kb7_confirms_returns_and_properties(server: Server) {
        let channel = prepared(server, "hello").await;
        let client = build_client(&server.url, Handle::current()).await.unwrap();
        client.channel.confirm_select().await.unwrap();
        let publish = async |json: &str| within("a result", client.publish_with_timeout(table(json), 20_000)).await;
        let params =
            r#"{"routing_key": "hello", "payload": "x", "properties": {"app_id": "kumo", "headers": {"x-foo": "bar"}}}"#;
        assert_eq!(publish(params).await.unwrap().status, "Ack");
        let properties = take(&channel, "hello").await.properties().unwrap();
        assert_eq!(properties, Properties::new().app_id("kumo").header("x-foo", "bar"));
        let nowhere = r#"{"routing_key": "nowhere", "payload": "x", "options": {"mandatory": true}}"#;
        let expected = ConfirmResult { status: "Ack", reply_code: Some(312), reply_text: Some("NO_ROUTE".into()) };
        assert_eq!(publish(nowhere).await.unwrap(), expected);
        let missing = r#"{"routing_key": "", "payload": "x", "exchange": "missing"}"#;
        assert!(publish(missing).await.unwrap_err().to_string().contains("404"));
    }
}

on_its_own! {
    async fn ka6_the_timeout_holds() {
        let server = Server::broker().await;
        prepared(&server, "hello").await;
        let client = build_client(&server.url, Handle::current()).await.unwrap();
        client.channel.confirm_select().await.unwrap();
        server.in_the_box().hold_confirms(true);
        let late = client.publish_with_timeout(table(r#"{"routing_key": "hello", "payload": "x"}"#), 50);
        assert_eq!(within("the deadline", late).await.unwrap_err().to_string(), "deadline has elapsed");
        // Whoever gave up has left nothing behind.
        server.in_the_box().hold_confirms(false);
        let next = client.publish_with_timeout(table(r#"{"routing_key": "hello", "payload": "y"}"#), 20_000);
        assert_eq!(within("a confirm", next).await.unwrap().status, "Ack");
    }
}

on_every_server! {
    /// `71ab6d96`, `b1330171`: the caller lives on a runtime that ends before the connection does.
    async fn ka1_the_connection_outlives_the_callers_runtime(server: Server) {
        let (channel, url) = (prepared(server, "hello").await, server.url.clone());
        // Runtimes cannot be waited for from within one.
        let hosts = tokio::task::spawn_blocking(move || {
            let main = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let call = |client: Option<AmqpClient>| {
                let (url, main) = (url.clone(), main.handle().clone());
                let caller = std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    tokio::task::LocalSet::new().block_on(&runtime, async move {
                        let client = match client {
                            Some(client) => client,
                            None => build_client(&url, main).await.unwrap(),
                        };
                        let params = table(r#"{"routing_key": "hello", "payload": "x"}"#);
                        client.publish_with_timeout(params, PATIENCE.as_millis() as u64).await.unwrap();
                        client
                    })
                });
                caller.join().unwrap()
            };
            let client = call(None);
            let client = call(Some(client));
            assert!(client.connection.is_open());
            main.block_on(async {
                take(&channel, "hello").await;
                take(&channel, "hello").await;
                within("closing", client.close()).await.unwrap();
            });
        });
        within("the host", hosts).await.unwrap();
    }
}
