//! `cargo bench --bench hot_paths`: what a confirmed publish and an acknowledged delivery cost, against the floor.
//!
//! Arguments behind `--`: words select the works that have one of them in their name, `--growth` does those that show how the
//! cost grows, `--rounds 3` does fewer rounds, `--rabbitmq PORT` does others against a RabbitMQ, `--memory` measures memory. Run without `--bench`,
//! as `cargo test --benches` does, it only sees that everything works, with few messages.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a benchmark may fail loudly")]

mod client;
mod cores;
mod facade;
mod floor;
mod floor_on_tokio;
mod harness;
mod memory;
mod raw_server;
mod tls;
mod usage;
mod wire;
mod work;

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
    Client { name: "floor, on tokio", run: floor_on_tokio::run, does: floor_on_tokio::does, share: 1 },
    Client { name: "leveret, one thread", run: client::run, does: |_| true, share: 1 },
    Client { name: "leveret, two threads", run: client::run_on_two_threads, does: |_| true, share: 1 },
    Client { name: "leveret's facade, one thread", run: facade::run, does: |_| true, share: 1 },
];

const HOLDERS: &[(&str, memory::Hold)] = &[("leveret", memory::hold::<memory::Leveret>)];

fn main() -> ExitCode {
    harness::main(CLIENTS, HOLDERS)
}
