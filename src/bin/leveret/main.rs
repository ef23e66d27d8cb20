//! The `leveret` command: the broker in the box by itself, for clients in any language, and first contact with any server.
//!
//! It uses nothing of the library but its public API.

mod broker;
mod consume;
mod publish;
mod signals;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use leveret::messaging::{Client, ClientBuilder};
use tokio::runtime;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// AMQP 0-9-1: a broker in memory for tests, and messages to and from any server
#[derive(Parser)]
#[command(name = "leveret", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Broker(broker::Arguments),
    Publish(publish::Arguments),
    Consume(consume::Arguments),
}

/// Where `publish` and `consume` find their server.
#[derive(clap::Args)]
struct Server {
    /// The server: amqp://USER:PASSWORD@HOST:PORT/VIRTUAL-HOST, percent-encoded
    ///
    /// Arguments can be seen by other users of the machine (ps), the variable cannot.
    #[arg(long, env = "AMQP_URL", hide_env_values = true, default_value = "amqp://guest:guest@localhost:5672/%2f")]
    url: String,
}

impl Server {
    fn client(&self) -> ClientBuilder {
        Client::builder(&self.url).unwrap_or_else(|error| wrong(error))
    }
}

/// Ends the program as clap does where arguments make no sense. What was given is not repeated, for it may be a secret.
fn wrong(why: impl Display) -> ! {
    Cli::command().error(ErrorKind::ValueValidation, why).exit()
}

/// Says something to whoever runs the program, if there is somebody to hear it.
fn complain(what: impl Display) {
    let _ = writeln!(io::stderr(), "leveret: {what}");
}

/// The arguments. A word too many is not repeated either: it may be a URL whose `--url` was forgotten.
fn arguments() -> Cli {
    Cli::try_parse().unwrap_or_else(|mut error| {
        for kind in [ContextKind::InvalidArg, ContextKind::InvalidSubcommand] {
            let is_word = matches!(error.get(kind), Some(ContextValue::String(word)) if !word.starts_with('-'));
            if matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand) && is_word {
                error.insert(kind, ContextValue::String("...".into()));
            }
        }
        error.exit()
    })
}

fn main() -> ExitCode {
    let command = arguments().command;
    let ended = runtime::Builder::new_current_thread().enable_all().build().map_err(Into::into).and_then(|runtime| {
        let ended = runtime.block_on(async {
            match command {
                Command::Broker(arguments) => broker::run(arguments).await,
                Command::Publish(arguments) => publish::run(arguments).await,
                Command::Consume(arguments) => consume::run(arguments).await,
            }
        });
        // Nobody waits for the name of a host that is still being looked up, or for a reader who has stopped.
        runtime.shutdown_background();
        ended
    });
    ended.unwrap_or_else(|error| {
        complain(error);
        ExitCode::FAILURE
    })
}
