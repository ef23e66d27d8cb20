//! Questions and answers over RabbitMQ's direct reply-to: no queue for the answers has to be declared, they come straight to the
//! channel that asked.
//!
//! ```text
//! cargo run --example rpc                                              a broker in this process
//! cargo run --example rpc -- amqp://guest:guest@localhost:5672/%2f     a server of your own
//! ```

mod common;

use std::process::ExitCode;

use leveret::amqp::{Channel, Connection, Properties};
use leveret::error::Result;

/// The name under which answers come directly.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

#[tokio::main]
async fn main() -> ExitCode {
    common::run("Asks questions and gets the answers over direct reply-to.", rpc).await
}

async fn rpc(url: &str) -> common::Result<()> {
    // Who answers.
    let server = Connection::open(url).await?;
    let service = server.open_channel().await?;
    let questions = common::own_name("");
    service.queue_declare(&questions).exclusive(true).await?; // it goes with this connection; others may publish to it
    let answering = tokio::spawn(answer(service, questions.clone()));

    // Who asks: first the consumer for the answers, without acknowledgements, then the questions on the same channel.
    let client = Connection::open(url).await?;
    let channel = client.open_channel().await?;
    let mut answers = channel.basic_consume(DIRECT_REPLY_TO).no_ack().await?;
    channel.confirm_select().await?;
    for number in 1..=5 {
        let properties = Properties::new().reply_to(DIRECT_REPLY_TO).correlation_id(number.to_string());
        channel
            .basic_publish("", &questions, number.to_string())
            .properties(&properties)
            .mandatory(true)
            .await?
            .await?
            .accepted()?;
    }

    // The correlation id says which question an answer belongs to: they need not come in order.
    let mut right = 0;
    for _ in 1..=5 {
        let message = answers.next().await.ok_or("no answers any more")??;
        let id = message.properties()?.correlation_id.ok_or("an answer without a correlation id")?;
        let number: u64 = id.to_str()?.parse()?;
        let square: u64 = std::str::from_utf8(message.body())?.parse()?;
        println!("{number} squared is {square}");
        common::check(square == number * number, "that is wrong")?;
        right += number;
    }
    common::check(right == 15, "a question was answered twice")?;

    client.close().await?;
    server.close().await?;
    answering.await??;
    println!("5 questions, 5 answers");
    Ok(())
}

/// Squares numbers until its connection is closed.
async fn answer(channel: Channel, queue: String) -> Result<()> {
    let mut questions = channel.basic_consume(&queue).await?;
    while let Some(question) = questions.next().await {
        let question = question?;
        let asked = question.properties()?;
        let number: Option<u64> = std::str::from_utf8(question.body()).ok().and_then(|text| text.parse().ok());
        let (Some(reply_to), Some(number)) = (asked.reply_to, number) else {
            question.reject(false)?; // nobody could be answered, or not with sense
            continue;
        };
        let properties = Properties { correlation_id: asked.correlation_id, ..Properties::default() };
        // Whether the answer arrives is for the one who asked to notice: there are no confirms on this channel.
        drop(channel.basic_publish("", &reply_to, (number * number).to_string()).properties(&properties).await?);
        question.ack()?;
    }
    Ok(())
}
