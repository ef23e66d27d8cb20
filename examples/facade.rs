//! A shop's orders over the facade: sent and accounted for, worked off by several hands, and asked about by request and reply.
//!
//! ```text
//! cargo run --release --example facade                                                  a broker in this process
//! cargo run --release --example facade -- amqp://guest:guest@localhost:5672/%2f         a server of your own
//! ```

mod common;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use leveret::error::Outcome;
use leveret::messaging::{Client, Disposition, Message, Source, Target};
use tokio::sync::Notify;

const ORDERS: u32 = 100;

#[tokio::main]
async fn main() -> ExitCode {
    common::run("Sends, receives and asks through the facade.", shop).await
}

async fn shop(url: &str) -> common::Result<()> {
    let client = Client::builder(url)?.connection_name("leveret facade").connect().await?;
    let (orders, stock) = (common::own_name("orders"), common::own_name("stock"));
    // Whatever is AMQP's alone, such as declaring a queue, is said in its own words.
    let channel = client.as_amqp().await?.open_channel().await?;
    channel.queue_declare(&orders).exclusive(true).await?;
    channel.queue_declare(&stock).exclusive(true).await?;

    // Sending: accepted, or an error that says whether it may have arrived all the same.
    let sender = client.sender().timeout(Duration::from_secs(10)).build()?;
    let receipt = sender.send(Target::queue(&orders), Message::new("order 0").message_id("0")).await?;
    println!("order 0 is {:?}", receipt.status);
    match sender.send(Target::queue("leveret.nowhere"), "lost").await {
        Err(error) if error.outcome() == Outcome::Refused => println!("nobody wants it: {error}"),
        other => return Err(format!("an order to nowhere was not refused: {other:?}").into()),
    }
    let batch =
        (1..ORDERS).map(|n| (Target::queue(&orders), Message::new(format!("order {n}")).message_id(n.to_string())));
    let report = sender.send_batch(batch).await;
    println!("{} more, {} of them failed", report.len(), report.failed().count());

    // Receiving: ten at a time, until all are done. One handler fails, and its order comes again. Should one be missing, nobody waits for it
    // for ever.
    let done = Arc::new(AtomicU32::new(0));
    let all_done = Arc::new(Notify::new());
    let receiver = client
        .receiver(Source::queue(&orders))
        .on_failure(Disposition::Release, Duration::from_millis(10))
        .idle_timeout(Duration::from_secs(10))
        .build()
        .await?;
    let (counter, tell) = (Arc::clone(&done), Arc::clone(&all_done));
    let handler = move |received: leveret::messaging::Received| {
        let (done, tell) = (Arc::clone(&counter), Arc::clone(&tell));
        async move {
            if received.body() == b"order 13" && !received.redelivered() {
                return Err("order 13 fell off the cart");
            }
            if done.fetch_add(1, Ordering::Relaxed) + 1 == ORDERS {
                tell.notify_one();
            }
            Ok(Disposition::Accept)
        }
    };
    receiver.for_each_until(10, all_done.notified(), handler).await?;
    let done = done.load(Ordering::Relaxed);
    println!("{done} orders are done");
    common::check(done == ORDERS, "not every order was done once")?;

    // Asking: somebody who answers, and somebody who asks.
    let responder = client.responder(Source::queue(&stock));
    let answering = tokio::spawn(responder.serve(async |request| {
        let reply = Message::new(format!("3 pieces of {}", String::from_utf8_lossy(request.body())));
        Ok::<_, std::convert::Infallible>(reply.header("statusCode", 200i32))
    }));
    let requester = client.requester().timeout(Duration::from_secs(10)).build()?;
    let reply = requester.manage(Target::queue(&stock), "READ", Some("stock"), "carrots").await?;
    println!("{}: {}", reply.status, String::from_utf8_lossy(reply.message.body()));
    answering.abort();

    let report = client.close().await;
    common::check(report.is_clean(), "something was left over")
}
