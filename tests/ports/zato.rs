//! Zato's `self.outgoing.amqp.send`, its connection definitions, and its channels (`connection/amqp_.py`): a service sends under a name,
//! and a service is called with what a queue has.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use leveret::amqp::{FieldValue, Properties};
use leveret::messaging::{Disposition, Message, Modify, PendingReceipt, Received, Source, Target};
use leveret::registry::{Registry, RegistryConfig, RegistryError};
use tokio::task::JoinHandle;

use crate::{Server, prepared, take, within};

// ------------------------------------------------------------------------------------------------------------- the port

/// What `self.outgoing` is in a service.
struct AmqpFacade {
    api: Registry,
}

impl AmqpFacade {
    fn new(config: RegistryConfig) -> Result<Self, RegistryError> {
        let stamp = |_: &str, _: &Target, message: &mut Message| {
            for (name, value) in [("X-Zato-Component", "server1".to_owned()), ("X-Zato-Msg-TS", now())] {
                if message.get_header(name).is_none() {
                    *message = std::mem::take(message).header(name, value.as_str());
                }
            }
        };
        Ok(Self { api: Registry::builder().stamp(stamp).build_from(config)? })
    }

    /// `send(msg, out_name, exchange, routing_key, properties={}, headers={})`
    async fn send(
        &self,
        msg: &str,
        out_name: &str,
        exchange: &str,
        routing_key: &str,
        properties: Properties,
    ) -> Result<PendingReceipt, RegistryError> {
        let message = Message::new(msg.to_owned()).with_properties(properties);
        self.api.post_to(out_name, Target::exchange(exchange, routing_key), message).await
    }
}

fn now() -> String {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().to_string()
}

/// A channel: `queue`, `pool_size`, `prefetch_count`, `consumer_tag_prefix`, and the service.
struct ChannelDefinition<'a> {
    connection: &'a str,
    queue: &'a str,
    pool_size: u16,
    prefetch_count: u16,
    consumer_tag_prefix: &'a str,
}

impl AmqpFacade {
    async fn start_channel<F, Fut>(&self, channel: ChannelDefinition<'_>, service: F) -> JoinHandle<()>
    where
        F: Fn(Received) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Disposition, std::io::Error>> + Send + 'static,
    {
        let source = Source::queue(channel.queue);
        let failed = Disposition::Modify(Modify { delivery_failed: true, undeliverable_here: false });
        let receiver = self
            .api
            .client(channel.connection)
            .unwrap()
            .receiver(source)
            .consumers(channel.pool_size)
            .prefetch(channel.prefetch_count)
            .tag_prefix(channel.consumer_tag_prefix)
            .on_failure(failed, Duration::from_millis(10))
            .build()
            .await
            .unwrap();
        tokio::spawn(async move {
            // Ends with the connection; the host starts the channel again then.
            let _ = receiver.for_each(8, service).await;
        })
    }
}

// ------------------------------------------------------------------------------------------------------------ its tests

/// As the web-admin would have it.
fn definitions(url: &str) -> RegistryConfig {
    let json = serde_json::json!({
        "connections": {"crm": {"url": url, "heartbeat": 30, "client_properties": {"zato.component": "server1"}}},
        "outgoing": {"CRM1": {
            "connection": "crm", "max_in_flight": 10,
            "properties": {"app_id": "template", "priority": 5, "content_type": "text/plain"},
        }},
    });
    serde_json::from_value(json).unwrap()
}

on_every_server! {
    /// The example of its documentation.
    async fn z1_z3_z4_z8_the_documented_example(server: Server) {
        let channel = prepared(server, "CRM1").await;
        channel.exchange_declare("CRM1", "direct").await.unwrap();
        channel.queue_bind("CRM1", "CRM1", "").await.unwrap();
        let outgoing = AmqpFacade::new(definitions(&server.url)).unwrap();

        let properties = Properties::new().app_id("ESB").header("X-Foo", "bar");
        let sent = within("room", outgoing.send("Hello AMQP broker!", "CRM1", "CRM1", "", properties)).await.unwrap();
        drop(sent); // Nobody waits, as there.

        let message = take(&channel, "CRM1").await;
        assert_eq!(message.body(), b"Hello AMQP broker!");
        let properties = message.properties().unwrap();
        let text = |name: &str| properties.headers.as_ref().unwrap().get(name).and_then(FieldValue::as_str);
        assert_eq!((text("X-Foo"), text("X-Zato-Component")), (Some("bar"), Some("server1")));
        assert!(text("X-Zato-Msg-TS").unwrap().parse::<u64>().unwrap() > 1_700_000_000);
        assert_eq!(properties.app_id.unwrap(), "ESB", "the message's own");
        assert_eq!((properties.priority, properties.content_type), (Some(5), Some("text/plain".into())), "the template's");
        assert_eq!(properties.expiration, None, "what is not set does not expire at once");
    }

    /// What nobody learnt of there.
    async fn z2_z12_mistakes_are_told(server: Server) {
        prepared(server, "CRM1").await;
        let outgoing = AmqpFacade::new(definitions(&server.url)).unwrap();
        let error = outgoing.send("x", "CRM2", "", "CRM1", Properties::new()).await.unwrap_err();
        assert!(matches!(error, RegistryError::UnknownOutgoing { .. }), "{error}");
        let slash = within("room", outgoing.send("x", "CRM1", "/", "CRM1", Properties::new())).await.unwrap();
        let error = within("a receipt", slash).await.unwrap_err();
        assert_eq!(error.reply_code().unwrap().0, 404, "there is no exchange of the name /");
        outgoing.api.deactivate("CRM1").unwrap();
        let error = outgoing.send("x", "CRM1", "", "CRM1", Properties::new()).await.unwrap_err();
        assert!(matches!(error, RegistryError::Inactive { .. }), "{error}");
    }

    async fn z13_z14_a_service_is_called_and_a_failure_comes_again_later(server: Server) {
        let channel = prepared(server, "jobs").await;
        let facade = AmqpFacade::new(definitions(&server.url)).unwrap();
        let (told, mut calls) = tokio::sync::mpsc::unbounded_channel();
        let service = move |received: Received| {
            let told = told.clone();
            async move {
                told.send((received.body().to_vec(), received.redelivered())).unwrap();
                match received.redelivered() && received.body() == b"job" {
                    true => Ok(Disposition::Accept),
                    false => Err(std::io::Error::other("not yet")),
                }
            }
        };
        let definition = ChannelDefinition {
            connection: "crm",
            queue: "jobs",
            pool_size: 1,
            prefetch_count: 1,
            consumer_tag_prefix: "zato",
        };
        let running = within("the channel", facade.start_channel(definition, service)).await;
        within("room", facade.send("job", "CRM1", "", "jobs", Properties::new())).await.unwrap().await.unwrap();
        for redelivered in [false, true] {
            let call = within("a call", calls.recv()).await.unwrap();
            assert_eq!(call, (b"job".to_vec(), redelivered));
        }
        // The server gives one at a time: when the next one comes, the last one has been accepted.
        within("room", facade.send("next", "CRM1", "", "jobs", Properties::new())).await.unwrap().await.unwrap();
        assert_eq!(within("a call", calls.recv()).await.unwrap(), (b"next".to_vec(), false));
        within("closing", facade.api.close_within(Duration::from_secs(10))).await;
        within("the channel ends", running).await.unwrap();
        assert_eq!(take(&channel, "jobs").await.body(), b"next", "the other one was accepted");
    }
}
