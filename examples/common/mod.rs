//! What all examples share: the server to talk to, the command line, and how an example ends.

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use leveret::broker::Broker;

pub(crate) type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Longer than any example takes: one that hangs says so and ends.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs an example with the URL of a server: the one on the command line, or that of a broker inside this process.
///
/// Whatever goes wrong is one line on standard error and exit status 1.
pub(crate) async fn run(about: &str, example: impl AsyncFnOnce(&str) -> Result<()>) -> ExitCode {
    let name = env!("CARGO_CRATE_NAME");
    let url = match arguments().as_slice() {
        [] => None,
        [option] if ["-h", "--help"].contains(&option.as_str()) => {
            print_help(name, about);
            return ExitCode::SUCCESS;
        }
        [url] if !url.starts_with('-') => Some(url.clone()),
        _ => {
            eprintln!("{name}: one argument at most, the URL of a server; {name} --help says more");
            return ExitCode::FAILURE;
        }
    };
    let ended = match tokio::time::timeout(LIMIT, with_server(url, example)).await {
        Ok(ended) => ended,
        Err(_) => Err(format!("not done after {} s", LIMIT.as_secs()).into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn with_server(url: Option<String>, example: impl AsyncFnOnce(&str) -> Result<()>) -> Result<()> {
    match url {
        Some(url) => example(&url).await,
        None => {
            let broker =
                Broker::start().await.map_err(|error| format!("the embedded broker did not start: {error}"))?;
            let ended = example(&broker.url()).await;
            broker.shutdown().await;
            ended
        }
    }
}

fn arguments() -> Vec<String> {
    // What is not UTF-8 is no URL either, and is told so.
    env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect()
}

fn print_help(name: &str, about: &str) {
    println!(
        "{about}

Usage: cargo run --release --example {name} [-- URL]

  URL   an AMQP 0-9-1 server, for example amqp://guest:guest@localhost:5672/%2f
        (%2f is the virtual host \"/\"); without it, a broker inside this process

Exit status: 0 when everything went as it should; 1 otherwise, with one line on
standard error that says what did not."
    );
}

/// Ends an example with an error unless something holds.
pub(crate) fn check(holds: bool, otherwise: impl Into<String>) -> Result<()> {
    if holds { Ok(()) } else { Err(otherwise.into().into()) }
}

/// A name that no other run of an example uses: `leveret.quickstart.4711`.
pub(crate) fn own_name(suffix: &str) -> String {
    let name = env!("CARGO_CRATE_NAME");
    let process = std::process::id();
    format!("leveret.{name}.{process}{suffix}")
}
