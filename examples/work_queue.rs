//! A work queue: several workers share the jobs of one queue, one at a time each, and a job that fails goes to somebody again.
//!
//! ```text
//! cargo run --example work_queue                                              a broker in this process
//! cargo run --example work_queue -- amqp://guest:guest@localhost:5672/%2f     a server of your own
//! ```

mod common;

use std::collections::BTreeMap;
use std::process::ExitCode;

use leveret::amqp::{Channel, Confirmation, Connection, Properties};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const JOBS: usize = 60;
const WORKERS: usize = 3;

#[tokio::main]
async fn main() -> ExitCode {
    common::run("Several workers share the jobs of one queue; failed jobs are tried again.", work_queue).await
}

async fn work_queue(url: &str) -> common::Result<()> {
    let connection = Connection::open(url).await?;
    let channel = connection.open_channel().await?;

    // Durable, with persistent messages: the jobs outlive a restart of the server. The server removes the queue when nobody
    // has used it for a minute, should this example be interrupted.
    let queue = common::own_name("");
    channel.queue_declare(&queue).durable(true).argument("x-expires", 60_000).await?;
    channel.confirm_select().await?;
    let persistent = Properties::new().persistent();
    for job in 1..=JOBS {
        let confirm =
            channel.basic_publish("", &queue, job.to_string()).properties(&persistent).mandatory(true).await?;
        match confirm.await? {
            Confirmation::Ack(None) => {}
            other => return Err(format!("job {job} was not accepted: {other:?}").into()),
        }
    }
    println!("{JOBS} jobs are waiting");

    // The workers have a connection of their own here; mostly they are other processes on other machines.
    let workers = Connection::open(url).await?;
    let (report, mut reports) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for worker in 1..=WORKERS {
        tasks.spawn(work(worker, workers.open_channel().await?, queue.clone(), report.clone()));
    }
    drop(report);

    let mut done = BTreeMap::new();
    let mut failures = 0;
    while done.len() < JOBS {
        match reports.recv().await {
            Some(Report::Done { worker, job }) => {
                common::check(done.insert(job, worker).is_none(), "a job was done twice")?
            }
            Some(Report::Failed { worker, job }) => {
                println!("worker {worker} could not do job {job}: back into the queue");
                failures += 1;
            }
            None => break,
        }
    }
    // Ends their consumers. A worker that ended for another reason says which.
    workers.close().await?;
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }

    for worker in 1..=WORKERS {
        println!("worker {worker} did {} jobs", done.values().filter(|by| **by == worker).count());
    }
    let left = channel.queue_delete(&queue).await?;
    connection.close().await?;
    common::check(done.keys().copied().eq(1..=JOBS), "not all jobs were done")?;
    common::check(failures == JOBS / 20, format!("{failures} jobs failed at first"))?;
    common::check(left == 0, format!("{left} jobs were left"))?;
    println!("every job was done once");
    Ok(())
}

enum Report {
    Done { worker: usize, job: usize },
    Failed { worker: usize, job: usize },
}

/// Takes one job at a time, so that a slow worker does not hold jobs that others could do.
async fn work(
    worker: usize,
    channel: Channel,
    queue: String,
    report: mpsc::UnboundedSender<Report>,
) -> common::Result<()> {
    let mut jobs = channel.basic_consume(&queue).prefetch(1).await?;
    while let Some(delivery) = jobs.next().await {
        let delivery = delivery?;
        let job: usize = std::str::from_utf8(delivery.body())?.parse()?;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await; // hard work
        if job.is_multiple_of(20) && !delivery.redelivered() {
            // Somebody gets it again. Without an answer it would come back as well, once this channel has ended.
            delivery.nack(true)?;
            report.send(Report::Failed { worker, job })?;
        } else {
            delivery.ack()?;
            report.send(Report::Done { worker, job })?;
        }
    }
    Ok(())
}
