//! Kafka behind the facade: messages with keys and headers, a batch, and a member of a group that accepts what it receives.
//!
//! ```text
//! cargo run --features kafka --example kafka                               librdkafka's mock cluster, in this process
//! cargo run --features kafka --example kafka -- kafka://localhost:9092     a cluster of your own, with the topic "hares"
//! ```

use std::env;
use std::error::Error;
use std::time::Duration;

use leveret::messaging::{Client, Message, ReceiptDetail, Source, Target};
use rdkafka::mocking::MockCluster;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    match env::args().nth(1) {
        Some(url) => hares(&url).await,
        None => {
            let cluster = MockCluster::new(1)?;
            cluster.create_topic("hares", 2, 1)?;
            hares(&format!("kafka://{}", cluster.bootstrap_servers())).await
        }
    }
}

async fn hares(url: &str) -> Result<(), Box<dyn Error>> {
    let client = Client::connect(url).await?;
    let sender = client.sender().timeout(Duration::from_secs(10)).build()?;

    // One message: accepted, or an error that says whether it may have arrived all the same.
    let message = Message::new("one hare").key("field").append_header("seen", "dawn").append_header("seen", "dusk");
    let receipt = sender.send(Target::topic("hares"), message).await?;
    if let ReceiptDetail::Kafka { partition, offset: Some(offset), .. } = receipt.detail {
        println!("accepted, as number {offset} of partition {partition}");
    }

    // A batch, in order; one that fails stops none of the others.
    let report = sender.send_batch((1..100).map(|n| (Target::topic("hares"), format!("hare {n}")))).await;
    println!("{} more, {} of them failed", report.len(), report.failed().count());

    // What Kafka does not have is told before anything is sent.
    if let Err(error) = sender.send(Target::queue("burrow"), "a hare").await {
        println!("not sent: {error}");
    }

    // A group: what is accepted is committed, and what is not comes again.
    let group = format!("example-{}", std::process::id());
    let mut receiver = client.receiver(Source::topic("hares", group)).build().await?;
    for _ in 0..100 {
        let delivery = receiver.recv().await.ok_or("the stream has ended")??;
        delivery.accept()?;
    }
    receiver.close().await?;
    println!("100 hares are accepted");

    let report = client.close().await;
    println!("closed, with nothing left: {}", report.is_clean());
    Ok(())
}
