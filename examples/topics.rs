//! Topics: subscribers choose by patterns over the routing key, in which `*` is one word and `#` any number of words.
//!
//! ```text
//! cargo run --example topics                                              a broker in this process
//! cargo run --example topics -- amqp://guest:guest@localhost:5672/%2f     a server of your own
//! ```

mod common;

use std::process::ExitCode;

use leveret::amqp::{Confirmation, Connection};

/// `room.sensor`, or `room.sensor.alarm`.
const READINGS: [&str; 5] =
    ["kitchen.temperature", "kitchen.smoke.alarm", "cellar.temperature", "cellar.water.alarm", "alarm"];

/// What somebody wants to hear of, and which of the readings that is.
const WISHES: [(&str, &[&str]); 4] = [
    ("kitchen.#", &["kitchen.temperature", "kitchen.smoke.alarm"]),
    ("*.temperature", &["kitchen.temperature", "cellar.temperature"]),
    ("#.alarm", &["kitchen.smoke.alarm", "cellar.water.alarm", "alarm"]),
    ("*.*.alarm", &["kitchen.smoke.alarm", "cellar.water.alarm"]),
];

#[tokio::main]
async fn main() -> ExitCode {
    common::run("Subscribers choose by patterns over the routing key.", topics).await
}

async fn topics(url: &str) -> common::Result<()> {
    let connection = Connection::open(url).await?;
    let channel = connection.open_channel().await?;
    let exchange = common::own_name("");
    channel.exchange_declare(&exchange, "topic").auto_delete(true).await?;

    let mut queues = Vec::new();
    for (pattern, wanted) in WISHES {
        let queue = channel.queue_declare("").exclusive(true).await?;
        channel.queue_bind(queue.name(), &exchange, pattern).await?;
        queues.push((queue, pattern, wanted));
    }

    // Mandatory, to notice readings that nobody wants. All of them have arrived when the last confirm has.
    channel.confirm_select().await?;
    for reading in READINGS.into_iter().chain(["garden.rain"]) {
        match channel.basic_publish(&exchange, reading, "").mandatory(true).await?.await? {
            Confirmation::Ack(None) => {}
            Confirmation::Ack(Some(returned)) if reading == "garden.rain" => {
                println!("{reading:<14} nobody wants it: {}", returned.reply_text());
            }
            other => return Err(format!("{reading}: {other:?}").into()),
        }
    }

    for (queue, pattern, wanted) in queues {
        let mut got = Vec::new();
        while let Some(message) = channel.basic_get(queue.name()).no_ack().await? {
            got.push(message.routing_key().to_string());
        }
        println!("{pattern:<14} gets {}", got.join(", "));
        common::check(got == wanted, format!("{pattern} was to get {}", wanted.join(", ")))?;
    }
    connection.close().await?;
    Ok(())
}
