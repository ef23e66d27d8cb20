//! `cargo bench --bench hot_paths`: what a confirmed publish and an acknowledged delivery cost, against the floor.
//!
//! Arguments behind `--`: words select the works that have one of them in their name, `--growth` does those that show how the
//! cost grows, `--rounds 3` does fewer rounds, `--rabbitmq PORT` does others against a RabbitMQ, `--memory` measures memory. Run without `--bench`,
//! as `cargo test --benches` does, it only sees that everything works, with few messages.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a benchmark may fail loudly")]

mod client;
mod floor;
mod harness;
mod memory;
mod raw_server;
mod sender;
mod usage;
mod wire;
mod work;

use std::env;
use std::process::ExitCode;

use work::{Client, Direction};

/// The first is what the others are compared with.
const CLIENTS: &[Client] = &[
    Client { name: "floor", run: floor::run, does: |_| true, share: 1 },
    Client {
        name: "floor, blocks built before",
        run: floor::run_prebuilt,
        does: |work| work.direction == Direction::Publish,
        share: 1,
    },
    Client { name: "leveret, one thread", run: client::run, does: |_| true, share: 1 },
    Client { name: "leveret, two threads", run: client::run_on_two_threads, does: |_| true, share: 1 },
    Client {
        name: "leveret's Sender, one thread",
        run: sender::run,
        does: |work| work.direction == Direction::Publish,
        share: 1,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--hold", name, port] => memory::hold(name, port.parse().unwrap()),
        arguments if arguments.contains(&"--memory") => memory::measure(),
        _ => return harness::main(CLIENTS),
    };
    done.unwrap();
    ExitCode::SUCCESS
}
