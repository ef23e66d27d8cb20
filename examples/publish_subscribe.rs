//! Publish and subscribe: a fanout exchange gives every subscriber its own copy of every message.
//!
//! ```text
//! cargo run --example publish_subscribe                                              a broker in this process
//! cargo run --example publish_subscribe -- amqp://guest:guest@localhost:5672/%2f     a server of your own
//! ```

mod common;

use std::process::ExitCode;

use leveret::amqp::{Channel, Connection, MessageStream};

const NEWS: [&str; 3] = ["the hare is off", "the tortoise follows", "the hare takes a nap"];

#[tokio::main]
async fn main() -> ExitCode {
    common::run("A fanout exchange gives every subscriber its own copy of every message.", publish_subscribe).await
}

async fn publish_subscribe(url: &str) -> common::Result<()> {
    let connection = Connection::open(url).await?;
    let channel = connection.open_channel().await?;

    let exchange = common::own_name("");
    channel.exchange_declare(&exchange, "fanout").auto_delete(true).await?;
    let mut anna = subscribe(&channel, &exchange).await?;
    let mut bert = subscribe(&channel, &exchange).await?;

    channel.confirm_select().await?;
    for news in NEWS {
        // A fanout exchange does not look at the routing key.
        channel.basic_publish(&exchange, "", news).await?.await?.accepted()?;
    }

    for (name, subscriber) in [("Anna", &mut anna), ("Bert", &mut bert)] {
        for news in NEWS {
            let message = subscriber.next().await.ok_or("the subscription ended early")??;
            let text = std::str::from_utf8(message.body())?;
            println!("{name} hears: {text}");
            common::check(text == news, format!("{name} was to hear: {news}"))?;
        }
    }
    connection.close().await?;
    println!("both heard everything");
    Ok(())
}

/// A queue for one subscriber, named by the server and gone with the connection. Who subscribes later has missed what was
/// before. `no_ack`, because what gets lost with the connection would have been missed anyway.
async fn subscribe(channel: &Channel, exchange: &str) -> common::Result<MessageStream> {
    let queue = channel.queue_declare("").exclusive(true).await?;
    channel.queue_bind(queue.name(), exchange, "").await?;
    Ok(channel.basic_consume(queue.name()).no_ack().await?)
}
