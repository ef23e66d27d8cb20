//! Log events of a mail server, one JSON object a line, go to queues by route rules, and each gets a verdict: 2xx, 4xx or 5xx.
//!
//! ```text
//! cargo run --example relay                                              a broker in this process
//! cargo run --example relay -- amqp://guest:guest@localhost:5672/%2f     a server of your own
//! ```

mod common;

use std::process::ExitCode;

use leveret::amqp::Connection;
use leveret::registry::{Outgoing, Registry};
use leveret::relay::{Class, Record, Relay, RelayConfig};

/// What a configuration file would say.
const ROUTES: &str = r#"{
    "batch": 3,
    "routes": [
        {"name": "bounces", "when": {"type": ["Bounce", "OOB"]}, "outgoing": "events", "queue": "PREFIX.bounces",
         "message_id": "{id}-{type}", "headers": {"x-tenant": "{meta.tenant|none}"}},
        {"name": "deliveries", "when": {"type": "Delivery"}, "outgoing": "events", "queue": "PREFIX.deliveries",
         "message_id": "{id}-{type}"},
        {"name": "feedback", "when": {"type": "Feedback"}, "outgoing": "events", "queue": "PREFIX.nobody"}
    ]
}"#;

/// What a mail server would write; a file does as well, in a `tokio::io::BufReader`.
const LOG: &str = r#"{"type": "Delivery", "id": "1", "recipient": "a@example.com", "meta": {"tenant": "acme"}}
{"type": "Bounce", "id": "2", "recipient": "b@example.com", "meta": {"tenant": "acme"}}
{"type": "Delivery", "id": "3", "recipient": "c@example.com"}
{"type": "Feedback", "id": "1", "recipient": "a@example.com"}
{"type": "Reception", "id": "4"}
{"type": "OOB", "id": "3", "recipient": "c@example.com"}
"#;

#[tokio::main]
async fn main() -> ExitCode {
    common::run("Log events of a mail server go to queues by route rules.", relay).await
}

async fn relay(url: &str) -> common::Result<()> {
    let prefix = common::own_name("");
    let setup = Connection::open(url).await?;
    let channel = setup.open_channel().await?;
    let (bounces, deliveries) = (format!("{prefix}.bounces"), format!("{prefix}.deliveries"));
    for queue in [&bounces, &deliveries] {
        channel.queue_declare(queue).exclusive(true).await?;
    }

    let registry = Registry::new();
    registry.set_connection("mq", leveret::messaging::Client::builder(url)?)?;
    registry.set_outgoing("events", Outgoing::new("mq"))?;
    let config: RelayConfig = serde_json::from_str(&ROUTES.replace("PREFIX", &prefix))?;
    let relay = Relay::new(registry.clone(), config)?;

    // A stream, told of line by line.
    let report = relay
        .run(LOG.as_bytes(), |fate| match fate.verdict.class {
            Class::Accepted => println!("line {}: done", fate.line),
            Class::Refused => println!("line {}: given up, {}", fate.line, fate.verdict.code),
            Class::Retry => println!("line {}: kept for later, {}", fate.line, fate.verdict),
        })
        .await?;
    println!("{report}");

    // One message, as the handler of a delivery has it: its verdict is what the mail server is told.
    let record =
        Record::new("From: a@example.com\r\n\r\nhello").id("spool-5").field("type", "Delivery").field("id", "5");
    println!("the handler says {}", relay.deliver(&record).await);

    let counts = [channel.queue_delete(&bounces).await?, channel.queue_delete(&deliveries).await?];
    let closed = registry.close_within(std::time::Duration::from_secs(10)).await;
    setup.close().await?;
    common::check(closed.is_clean(), "something was not confirmed")?;
    common::check(counts == [2, 3], format!("bounces and deliveries: {counts:?}"))
}
