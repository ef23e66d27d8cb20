//! The main job from end to end: declares a queue, publishes 10 000 messages and learns what became of each, consumes and
//! acknowledges all that arrived.
//!
//! ```text
//! cargo run --release --example quickstart                                                  a broker in this process
//! cargo run --release --example quickstart -- amqp://guest:guest@localhost:5672/%2f         a server of your own
//! ```

mod common;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use leveret::amqp::{Confirmation, Connection, Properties};

const MESSAGES: usize = 10_000;
/// One in so many goes to a queue that does not exist.
const UNROUTABLE: usize = 2_000;

#[tokio::main]
async fn main() -> ExitCode {
    common::run("Publishes 10 000 messages with confirms, consumes and acknowledges them.", quickstart).await
}

async fn quickstart(url: &str) -> common::Result<()> {
    let begin = Instant::now();
    let connection = Connection::builder(url)?.connection_name("leveret quickstart").open().await?;
    let channel = connection.open_channel().await?;
    println!("connected   {} in {}", name_of(&connection), time(begin.elapsed()));

    // Exclusive: whatever happens to this program, the server removes the queue with the connection.
    let queue = common::own_name("");
    channel.queue_declare(&queue).exclusive(true).await?;

    // Publishing: `basic_publish` hands a message over, its confirm says what became of it. Mandatory messages that no
    // queue takes come back.
    channel.confirm_select().await?;
    let begin = Instant::now();
    let mut confirms = Vec::with_capacity(MESSAGES);
    for number in 0..MESSAGES {
        let unroutable = number % UNROUTABLE == UNROUTABLE - 1;
        let routing_key = if unroutable { "leveret.nowhere" } else { queue.as_str() };
        let properties = Properties::new().content_type("text/plain").message_id(number.to_string());
        let body = format!("message {number}");
        confirms.push(channel.basic_publish("", routing_key, &body).mandatory(true).properties(&properties).await?);
    }
    let handed_over = begin.elapsed();

    let mut accepted = Vec::with_capacity(MESSAGES);
    let (mut returned, mut refused, mut why) = (0, 0, String::new());
    for (number, confirm) in confirms.into_iter().enumerate() {
        match confirm.await? {
            Confirmation::Ack(None) => accepted.push(number),
            Confirmation::Ack(Some(message)) => {
                returned += 1;
                why = format!("{} {}", message.reply_code().0, message.reply_text());
            }
            Confirmation::Nack(_) | Confirmation::NotRequested => refused += 1,
        }
    }
    let confirmed = begin.elapsed();
    println!("published   {MESSAGES} messages, handed over in {}", time(handed_over));
    println!("confirmed   all of them after {}, {}", time(confirmed), rate(MESSAGES, confirmed));
    println!("accepted    {}", accepted.len());
    println!("returned    {returned}, because {why}");

    // Consuming: a stream of deliveries, each of which is acknowledged.
    let begin = Instant::now();
    let mut consumer = channel.basic_consume(&queue).prefetch(500).await?;
    let mut received = Vec::with_capacity(accepted.len());
    while received.len() < accepted.len() {
        let delivery = consumer.next().await.ok_or("the consumer ended early")??;
        let number = std::str::from_utf8(delivery.body())?.strip_prefix("message ").ok_or("not our message")?;
        received.push(number.parse::<usize>()?);
        delivery.ack()?;
    }
    let consumed = begin.elapsed();
    println!("received    {} in {}, {}", received.len(), time(consumed), rate(received.len(), consumed));

    consumer.cancel().await?;
    let left = channel.queue_delete(&queue).await?;
    connection.close().await?;

    common::check(refused == 0, format!("the server refused {refused} messages"))?;
    common::check(returned == MESSAGES / UNROUTABLE, format!("{returned} messages came back"))?;
    common::check(received == accepted, "what was received is not what was accepted, in that order")?;
    common::check(left == 0, format!("{left} messages were left in the queue"))?;
    println!("everything that was accepted was received once, in order, and acknowledged");
    Ok(())
}

/// What the server calls itself.
fn name_of(connection: &Connection) -> String {
    let server = connection.server();
    let of = |name| server.properties.get(name).and_then(|value| value.as_str()).unwrap_or("?").to_owned();
    format!("to {} {}", of("product"), of("version"))
}

fn time(taken: Duration) -> String {
    format!("{:.1} ms", taken.as_secs_f64() * 1000.0)
}

fn rate(messages: usize, taken: Duration) -> String {
    format!("{:.0} messages/s", messages as f64 / taken.as_secs_f64())
}
