//! `leveret publish`: sends messages, and says what became of them.

use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use leveret::error::Outcome;
use leveret::messaging::Target;
use tokio::sync::mpsc;

use super::{Result, Server, complain};

/// Publishes a message and waits until the server has said what became of it
///
/// The message is persistent and mandatory: one that no queue takes is refused.
///
/// Exit status: 0 when the server has it (all of them, with --lines), 1 when it was not sent, 2 for arguments that make no sense, 3
/// when it was refused, 4 when nobody knows. With --lines the first that is not accepted ends it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    server: Server,

    /// The exchange; without one, the routing key is the name of a queue
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    exchange: String,

    /// The body, which is standard input otherwise
    #[arg(long, value_name = "TEXT", conflicts_with = "lines")]
    body: Option<String>,

    /// Each line of standard input is a message of its own
    #[arg(long)]
    lines: bool,

    /// How long a message may take, connecting included
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    timeout: u32,

    /// What the exchange looks at
    #[arg(value_name = "ROUTING-KEY")]
    routing_key: String,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { server, exchange, body, lines, timeout, routing_key } = arguments;
    let client = server.client().lazy()?;
    let sender = client.sender().timeout(Duration::from_secs(timeout.into())).build()?;
    let target = Target::exchange(exchange, routing_key);
    let mut bodies = bodies(body, lines);
    let mut accepted = 0_u64;
    let mut status = ExitCode::SUCCESS;
    while let Some(body) = bodies.recv().await {
        if let Err(error) = sender.send(&target, body?).await {
            complain(&error);
            status = match error.outcome() {
                Outcome::NotSent => ExitCode::FAILURE,
                Outcome::Refused => ExitCode::from(3),
                _ => ExitCode::from(4),
            };
            break;
        }
        accepted += 1;
    }
    // Whether anybody reads it or not, the exit status tells.
    let _ = writeln!(io::stdout(), "{accepted} accepted");
    // What is not confirmed by now has been told.
    client.close_within(Duration::ZERO).await;
    Ok(status)
}

/// What is to be sent. It is read by a thread, for which nobody waits at the end.
fn bodies(body: Option<String>, lines: bool) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (give, bodies) = mpsc::channel(16);
    thread::spawn(move || match body {
        Some(body) => drop(give.blocking_send(Ok(body.into_bytes()))),
        None if lines => {
            let mut lines = io::stdin().lock().split(b'\n');
            while lines.next().is_some_and(|line| give.blocking_send(line).is_ok()) {}
        }
        None => {
            let mut body = Vec::new();
            let read = io::stdin().read_to_end(&mut body).map(|_| body);
            drop(give.blocking_send(read));
        }
    });
    bodies
}
