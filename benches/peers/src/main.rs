//! The benchmarks of `benches/hot_paths`, with the other clients in the same tables: same work, same server, same floor.
//!
//! Everybody runs on tokio's multi-threaded runtime with two workers, which is what `#[tokio::main]` gives on two cores (lapin adds
//! a thread of its own), and leveret on one thread as well. Settings are equal: no heartbeat (but for amqprs), frames of 128 KiB as the server offers
//! them, no properties, not mandatory, a prefetch as large as the window, one acknowledgement per message, and every
//! confirm is awaited, with at most a window of them under way. Slow clients get fewer messages; the figures are per
//! message.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a benchmark may fail loudly")]

mod amqp_client;
mod amqprs;
#[path = "../../hot_paths/client.rs"]
mod client;
mod codec;
#[path = "../../hot_paths/floor.rs"]
#[expect(dead_code, reason = "its second variant is for the table of the hot paths")]
mod floor;
#[path = "../../hot_paths/harness.rs"]
mod harness;
mod lapin;
#[path = "../../instructions/message.rs"]
mod message;
#[path = "../../hot_paths/raw_server.rs"]
mod raw_server;
#[path = "../../hot_paths/usage.rs"]
mod usage;
#[path = "../../hot_paths/wire.rs"]
mod wire;
#[path = "../../hot_paths/work.rs"]
mod work;

use std::process::ExitCode;

use tokio::runtime::Builder;

use work::{Client, Outcome, Work};

/// One task, one channel: the peers do no more than that.
fn is_plain(work: &Work) -> bool {
    work.tasks == 1 && work.channels == 1 && work.idle_channels == 0
}

/// The first is what the others are compared with.
const CLIENTS: &[Client] = &[
    Client { name: "floor", run: floor::run, does: is_plain, share: 1 },
    Client { name: "leveret, one thread", run: client::run, does: is_plain, share: 1 },
    Client { name: "leveret, two threads", run: client::run_on_two_threads, does: is_plain, share: 1 },
    Client { name: "amqp-client 0.1", run: amqp_client::run, does: is_plain, share: 4 },
    Client { name: "amqprs 2", run: amqprs::run, does: is_plain, share: 10 },
    Client { name: "lapin 4", run: lapin::run, does: is_plain, share: 50 },
];

fn main() -> ExitCode {
    match std::env::args().collect::<Vec<_>>().iter().position(|argument| argument == "--codec") {
        Some(_) => {
            codec::measure(7);
            ExitCode::SUCCESS
        }
        None => harness::main(CLIENTS),
    }
}

/// As `#[tokio::main]` does.
fn on_tokio(work: impl Future<Output = Outcome> + Send + 'static) -> Outcome {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // Errors of other threads as text: not all of them can change threads.
    runtime.block_on(runtime.spawn(async { work.await.map_err(|error| error.to_string()) }))?.map_err(Into::into)
}
