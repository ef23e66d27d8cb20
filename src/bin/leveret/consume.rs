//! `leveret consume`: prints what is in a queue.

use std::io;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::time::Duration;

use leveret::messaging::{Client, Receiver, Source};
use tokio::io::{AsyncWriteExt, stdout};
use tokio::time::timeout;

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

/// How long a message that is being printed may take when the program is told to end. Mostly it is out already.
const GRACE: Duration = Duration::from_secs(1);

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let mut told_to_end = pin!(told_to_end()?);
    let client = arguments.server.client().lazy()?;
    let ended = tokio::select! {
        receiver = receive(&client, &arguments) => match receiver {
            Ok(mut receiver) => {
                let ended = print(&mut receiver, arguments.count, told_to_end).await;
                let closed = receiver.close().await;
                ended.and_then(|()| closed.map(drop).map_err(Into::into))
            }
            Err(error) => Err(error),
        },
        () = &mut told_to_end => Ok(()),
    };
    client.close().await;
    ended.map(|()| ExitCode::SUCCESS)
}

async fn receive(client: &Client, arguments: &Arguments) -> Result<Receiver> {
    if arguments.declare {
        client.as_amqp().await?.open_channel().await?.queue_declare(&arguments.queue).durable(true).await?;
    }
    let mut receiver = client.receiver(Source::queue(&arguments.queue));
    if let Some(idle) = arguments.idle {
        receiver = receiver.idle_timeout(Duration::from_secs(idle.into()));
    }
    if let Some(count) = arguments.count {
        // No more than are printed, if that can be said.
        receiver = receiver.prefetch(count.clamp(1, 256) as u16);
    }
    Ok(receiver.build().await?)
}

/// Prints until there is nothing more to be printed, or it is told to end.
async fn print(
    receiver: &mut Receiver,
    count: Option<u64>,
    told_to_end: Pin<&mut impl Future<Output = ()>>,
) -> Result<()> {
    let (mut told_to_end, mut printed) = (told_to_end, 0);
    while count.is_none_or(|count| printed < count) {
        let delivery = tokio::select! {
            delivery = receiver.recv() => delivery,
            () = &mut told_to_end => return Ok(()),
        };
        let Some(delivery) = delivery.transpose()? else { break };
        // A reader who stops holds up neither the connection's heartbeats, which are on this thread, nor the end.
        let was_told = {
            let mut printing = pin!(print_line(delivery.body()));
            tokio::select! {
                done = &mut printing => done.map(|()| false)?,
                () = &mut told_to_end => match timeout(GRACE, printing).await {
                    Ok(done) => done.map(|()| true)?,
                    Err(_) => return Ok(()),
                },
            }
        };
        delivery.accept()?;
        printed += 1;
        if was_told {
            return Ok(());
        }
    }
    match count {
        Some(count) if printed < count => Err(format!("{printed} of {count} messages came").into()),
        _ => Ok(()),
    }
}

async fn print_line(line: &[u8]) -> io::Result<()> {
    let mut output = stdout();
    output.write_all(line).await?;
    output.write_all(b"\n").await?;
    output.flush().await
}
