//! Reading one message at a time with `basic.get`: for jobs that start, look into a queue and end. Where many messages come,
//! a consumer is much cheaper.
//!
//! ```text
//! cargo run --example read_one_message                                              a broker in this process
//! cargo run --example read_one_message -- amqp://guest:guest@localhost:5672/%2f     a server of your own
//! ```

mod common;

use std::process::ExitCode;

use leveret::amqp::{Connection, Message, Properties};

#[tokio::main]
async fn main() -> ExitCode {
    common::run("Reads one message at a time with basic.get.", read_one_message).await
}

async fn read_one_message(url: &str) -> common::Result<()> {
    let connection = Connection::open(url).await?;
    let channel = connection.open_channel().await?;
    let queue = common::own_name("");
    channel.queue_declare(&queue).exclusive(true).await?;

    common::check(channel.basic_get(&queue).await?.is_none(), "the new queue is not empty")?;
    println!("the queue is empty");

    channel.confirm_select().await?;
    for letter in ["a", "b", "c"] {
        let properties = Properties::new().content_type("text/plain").header("alphabet", "latin");
        channel.basic_publish("", &queue, letter).properties(&properties).await?.await?.accepted()?;
    }

    // To be acknowledged: until then it belongs to this channel, and returns to the queue should the channel end.
    let got = channel.basic_get(&queue).await?.ok_or("nothing there")?;
    let properties = got.delivery.properties()?;
    let alphabet = properties.headers.as_ref().and_then(|headers| headers.get("alphabet")?.as_str());
    println!("got {:?}, alphabet {alphabet:?}, {} left", text(&got.delivery), got.message_count);
    common::check(got.delivery.body() == b"a" && got.message_count == 2, "that was to be the first of three")?;
    common::check(alphabet == Some("latin"), "the header is missing")?;
    got.delivery.ack()?;

    // Put back with `nack`, it is the next one again, and marked.
    let got = channel.basic_get(&queue).await?.ok_or("nothing there")?;
    got.delivery.nack(true)?;
    let got = channel.basic_get(&queue).await?.ok_or("nothing there")?;
    println!("got {:?} after it was put back: redelivered is {}", text(&got.delivery), got.delivery.redelivered());
    common::check(got.delivery.body() == b"b" && got.delivery.redelivered(), "that was to be the second one again")?;
    got.delivery.ack()?;

    // Settled as soon as it is sent: nothing to acknowledge, and lost with the connection.
    let message = channel.basic_get(&queue).no_ack().await?.ok_or("nothing there")?;
    println!("got {:?}, the last one", text(&message));
    common::check(message.body() == b"c", "that was to be the last one")?;

    common::check(channel.basic_get(&queue).await?.is_none(), "the queue was to be empty again")?;
    println!("the queue is empty again");
    connection.close().await?;
    Ok(())
}

fn text(message: &Message) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(message.body())
}
