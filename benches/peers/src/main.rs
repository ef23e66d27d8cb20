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
#[path = "../../hot_paths/cores.rs"]
mod cores;
#[path = "../../hot_paths/facade.rs"]
mod facade;
#[path = "../../hot_paths/floor.rs"]
#[expect(dead_code, reason = "its second variant is for the table of the hot paths")]
mod floor;
#[path = "../../hot_paths/floor_on_tokio.rs"]
mod floor_on_tokio;
#[path = "../../hot_paths/harness.rs"]
mod harness;
mod lapin;
#[path = "../../hot_paths/memory.rs"]
mod memory;
#[path = "../../instructions/message.rs"]
mod message;
mod peer;
#[path = "../../hot_paths/raw_server.rs"]
mod raw_server;
#[path = "../../hot_paths/tls.rs"]
mod tls;
#[path = "../../hot_paths/usage.rs"]
mod usage;
#[path = "../../hot_paths/wire.rs"]
mod wire;
#[path = "../../hot_paths/work.rs"]
mod work;

use std::process::ExitCode;

use crate::amqp_client::AmqpClient;
use crate::amqprs::Amqprs;
use crate::lapin::Lapin;
use crate::work::Client;

/// The first is what the others are compared with.
const CLIENTS: &[Client] = &[
    Client { name: "floor", run: floor::run, does: |_| true, share: 1 },
    Client { name: "floor, on tokio", run: floor_on_tokio::run, does: floor_on_tokio::does, share: 1 },
    Client { name: "leveret, one thread", run: client::run, does: |_| true, share: 1 },
    Client { name: "leveret, two threads", run: client::run_on_two_threads, does: |_| true, share: 1 },
    Client { name: "leveret's facade, one thread", run: facade::run, does: |_| true, share: 1 },
    Client { name: "amqp-client 0.1", run: peer::run::<AmqpClient>, does: |work| !work.tls && !work.coalesced, share: 4 },
    Client { name: "amqprs 2", run: peer::run::<Amqprs>, does: |work| !work.coalesced, share: 10 },
    Client { name: "lapin 4", run: peer::run::<Lapin>, does: |work| !work.coalesced, share: 50 },
];

const HOLDERS: &[(&str, memory::Hold)] = &[
    ("leveret", memory::hold::<memory::Leveret>),
    ("amqp-client 0.1", memory::hold::<AmqpClient>),
    ("amqprs 2", memory::hold::<Amqprs>),
    ("lapin 4", memory::hold::<Lapin>),
];

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--codec") {
        codec::measure(7);
        return ExitCode::SUCCESS;
    }
    harness::main(CLIENTS, HOLDERS)
}
