//! `leveret consume`: prints what is in a queue.

use std::process::ExitCode;
use std::time::Duration;

use leveret::messaging::{Client, Receiver, Source};
use tokio::io::{AsyncWriteExt, stdout};

use super::signals::told_to_end;
use super::{Result, Server};

/// Consumes messages and prints their bodies, each with a line break behind it
///
/// A message is accepted when it has been printed. What was delivered and not printed goes back into its queue.
///
/// Exit status: 0 when it was told to end, has printed as many as it was to, or with --idle alone none came any more; 1 otherwise, 2 for
/// arguments that make no sense.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    server: Server,

    /// Ends after so many messages, and not only on Ctrl-C or SIGTERM
    #[arg(long, value_name = "MESSAGES")]
    count: Option<u64>,

    /// Ends when none has come for so long
    #[arg(long, value_name = "SECONDS")]
    idle: Option<u32>,

    /// Declares the queue, a durable one, if it is not there
    #[arg(long)]
    declare: bool,

    /// Where the messages are
    #[arg(value_name = "QUEUE")]
    queue: String,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let told_to_end = told_to_end()?;
    let client = arguments.server.client().lazy()?;
    let (mut receiver, mut printed) = (None, 0);
    let ended = tokio::select! {
        ended = print(&client, &arguments, &mut receiver, &mut printed) => ended.map(|()| false),
        () = told_to_end => Ok(true),
    };
    let receiver = match receiver {
        Some(receiver) => receiver.close().await,
        None => Ok(Vec::new()),
    };
    client.close().await;
    let (was_told, _) = (ended?, receiver?);
    match arguments.count {
        Some(count) if printed < count && !was_told => Err(format!("{printed} of {count} messages came").into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

async fn print(client: &Client, arguments: &Arguments, place: &mut Option<Receiver>, printed: &mut u64) -> Result<()> {
    let Arguments { count, idle, declare, queue, .. } = arguments;
    if *declare {
        client.as_amqp().await?.open_channel().await?.queue_declare(queue).durable(true).await?;
    }
    let mut receiver = client.receiver(Source::queue(queue));
    if let Some(idle) = idle {
        receiver = receiver.idle_timeout(Duration::from_secs((*idle).into()));
    }
    if let Some(count) = count {
        // No more than are printed, if that can be said.
        receiver = receiver.prefetch((*count).clamp(1, 256) as u16);
    }
    let receiver = place.insert(receiver.build().await?);
    // A reader who stops does not stop the connection's heartbeats, which are on this thread.
    let mut output = stdout();
    while count.is_none_or(|count| *printed < count) {
        let Some(delivery) = receiver.recv().await else { break };
        let delivery = delivery?;
        output.write_all(delivery.body()).await?;
        output.write_all(b"\n").await?;
        output.flush().await?;
        delivery.accept()?;
        *printed += 1;
    }
    Ok(())
}
