//! A worker as it runs in earnest: several jobs at a time, failed ones tried again after a while and put aside after the third
//! time, and an end, by Ctrl-C or when all is done, at which no job is left half settled.
//!
//! ```text
//! cargo run --example worker                                              a broker in this process
//! cargo run --example worker -- amqp://guest:guest@localhost:5672/%2f     a server of your own
//! ```
//!
//! ```text
//!            refused (dead-lettered)          after the third time
//!   jobs ───────────────────────────► wait                        jobs ──────► aside
//!     ▲                                 │
//!     └──── its time to live is over ───┘
//! ```

mod common;

use std::process::ExitCode;
use std::time::Duration;

use leveret::amqp::{Connection, FieldTable, FieldValue};
use leveret::messaging::{Client, Disposition, Received, Source, Target};
use tokio::sync::mpsc;

const JOBS: usize = 20;
/// How long a failed job waits, in milliseconds.
const PAUSE: i32 = 50;
const ATTEMPTS: i64 = 3;

#[tokio::main]
async fn main() -> ExitCode {
    common::run("Works on several jobs at a time, tries failed ones again, and ends in order.", worker).await
}

async fn worker(url: &str) -> common::Result<()> {
    let [jobs, wait, aside] = ["", ".wait", ".aside"].map(common::own_name);
    // Each new connection finds the queues, also when the server has been away.
    let names = [jobs.clone(), wait.clone(), aside.clone()];
    let declared = move |connection| declare(connection, names.clone());
    let client = Client::builder(url)?.connection_name("leveret worker").on_open(declared).connect().await?;

    let sender = client.sender().build()?;
    sender.send_batch((1..=JOBS).map(|job| (Target::queue(&jobs), job.to_string()))).await.into_result()?;

    // Refused at once: it waits in the other queue, and holds nobody's place here.
    let receiver = client.receiver(Source::queue(&jobs)).prefetch(8).on_failure(Disposition::Reject, Duration::ZERO);
    let receiver = receiver.build().await?;
    let (report, mut reports) = mpsc::unbounded_channel();
    let handler = |job: Received| {
        let (report, sender, aside) = (report.clone(), sender.clone(), Target::queue(&aside));
        async move {
            let attempt = 1 + failures(&job);
            let fate = match work(&job, attempt).await {
                Ok(()) => "done",
                // One more copy is better than none: first it is there, then it is accepted here.
                Err(_) if attempt >= ATTEMPTS => {
                    sender.send(aside, job.message()).await?;
                    "put aside"
                }
                Err(error) => return Err(error),
            };
            report.send((String::from_utf8_lossy(job.body()).into_owned(), attempt, fate))?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Disposition::Accept)
        }
    };
    let finished = async {
        for _ in 0..JOBS {
            let Some((job, attempt, fate)) = reports.recv().await else { return };
            if attempt > 1 {
                println!("job {job}: {fate}, at attempt {attempt}");
            }
        }
    };
    let mut all_done = false;
    let stop = async {
        tokio::select! {
            () = finished => all_done = true,
            _ = tokio::signal::ctrl_c() => println!("stopping; jobs that were begun are ended"),
        }
    };
    // Ends when the last handler has, and what that did is settled. Only then is the client closed.
    receiver.for_each_until(4, stop, handler).await?;

    // What was not done waits for the next worker.
    if all_done {
        let channel = client.as_amqp().await?.open_channel().await?;
        for (queue, what) in [(&jobs, "jobs"), (&wait, "failed jobs"), (&aside, "jobs put aside")] {
            println!("{what}: {} left", channel.queue_delete(queue).await?);
        }
    }
    let report = client.close().await;
    common::check(report.is_clean(), "something was left over")
}

async fn declare(connection: Connection, [jobs, wait, aside]: [String; 3]) -> common::Result<()> {
    let channel = connection.open_channel().await?;
    // To the default exchange, whose routing keys are the names of queues.
    let to = |queue: &str| FieldTable::from([("x-dead-letter-exchange", ""), ("x-dead-letter-routing-key", queue)]);
    channel.queue_declare(&jobs).durable(true).arguments(to(&wait)).await?;
    channel.queue_declare(&wait).durable(true).arguments(to(&jobs).with("x-message-ttl", PAUSE)).await?;
    channel.queue_declare(&aside).durable(true).await?;
    Ok(())
}

/// How often it was refused before: the server counts in `x-death`, for each queue and reason.
fn failures(job: &Received) -> i64 {
    let deaths = job.get_header("x-death").and_then(FieldValue::as_array).unwrap_or_default();
    let refused = |death: &&FieldTable| death.get("reason").and_then(FieldValue::as_str) == Some("rejected");
    let death = deaths.iter().filter_map(FieldValue::as_table).find(refused);
    death.and_then(|death| death.get("count")).and_then(FieldValue::as_i64).unwrap_or(0)
}

/// Every seventh job works the second time only, and number 13 never does.
async fn work(job: &Received, attempt: i64) -> common::Result<()> {
    let number: usize = std::str::from_utf8(job.body())?.parse()?;
    tokio::time::sleep(Duration::from_millis(2)).await;
    match (number, attempt) {
        (13, _) => Err("nobody can do that".into()),
        (number, 1) if number.is_multiple_of(7) => Err("not the first time".into()),
        _ => Ok(()),
    }
}
