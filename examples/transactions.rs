//! Transactions on a channel: what is published and acknowledged counts together at the commit, or not at all after a rollback.
//! Confirms are faster where only the fate of each message matters.
//!
//! ```text
//! cargo run --example transactions                                              a broker in this process
//! cargo run --example transactions -- amqp://guest:guest@localhost:5672/%2f     a server of your own
//! ```

mod common;

use std::process::ExitCode;

use leveret::amqp::{Channel, Connection};
use leveret::error::Result;

#[tokio::main]
async fn main() -> ExitCode {
    common::run("Publishes and acknowledges in transactions.", transactions).await
}

async fn transactions(url: &str) -> common::Result<()> {
    let connection = Connection::open(url).await?;
    let channel = connection.open_channel().await?;
    let (inbox, outbox) = (common::own_name(".inbox"), common::own_name(".outbox"));
    for queue in [&inbox, &outbox] {
        channel.queue_declare(queue).exclusive(true).await?;
    }
    channel.tx_select().await?;

    // On a transactional channel nobody confirms: the answer to the commit is the confirmation, so the `Confirm` of a publish
    // says "not requested" and can be dropped.
    for text in ["one", "two", "three"] {
        drop(channel.basic_publish("", &inbox, text).await?);
    }
    channel.tx_rollback().await?;
    println!("after a rollback the inbox holds {}", messages(&channel, &inbox).await?);
    common::check(messages(&channel, &inbox).await? == 0, "the rollback did not take the messages back")?;

    for text in ["one", "two", "three"] {
        drop(channel.basic_publish("", &inbox, text).await?);
    }
    channel.tx_commit().await?;
    println!("after a commit the inbox holds {}", messages(&channel, &inbox).await?);
    common::check(messages(&channel, &inbox).await? == 3, "the commit did not publish the messages")?;

    // A message moves: published to the one queue and acknowledged in the other, or neither.
    let got = channel.basic_get(&inbox).await?.ok_or("the inbox is empty")?;
    drop(channel.basic_publish("", &outbox, got.delivery.body()).await?);
    got.delivery.ack()?;
    channel.tx_commit().await?;
    let (left, moved) = (messages(&channel, &inbox).await?, messages(&channel, &outbox).await?);
    println!("after moving one message: {left} in the inbox, {moved} in the outbox");
    common::check((left, moved) == (2, 1), "the message did not move")?;

    connection.close().await?;
    Ok(())
}

/// How many messages are ready in a queue.
async fn messages(channel: &Channel, queue: &str) -> Result<u32> {
    Ok(channel.queue_declare(queue).passive(true).await?.message_count())
}
