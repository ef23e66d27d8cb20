//! The `leveret` command: the broker in the box by itself, for clients in any language, and first contact with any server.
//!
//! It uses nothing of the library but its public API.

mod broker;
mod consume;
mod publish;
mod signals;

use std::error::Error;
use std::fmt::Display;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use leveret::messaging::{Client, ClientBuilder};

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

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Broker(arguments) => broker::run(arguments).await,
        Command::Publish(arguments) => publish::run(arguments).await,
        Command::Consume(arguments) => consume::run(arguments).await,
    };
    ended.unwrap_or_else(|error| {
        eprintln!("leveret: {error}");
        ExitCode::FAILURE
    })
}
