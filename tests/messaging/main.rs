//! The facade against servers: the broker in the box under a plain `cargo test`, a real RabbitMQ under `tests/run`.
//!
//! `on_every_server!` makes two tests of one body, `NAME::broker` and `NAME::rabbitmq`. Between client and server there may be a
//! [`wire::Tap`], which writes down what the client says, and cuts or stalls the connection when a test asks for it. The acceptance scenarios
//! of the design carry their numbers (`scenario_02_...`); rows of `spec/systems.md` name these tests.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail loudly, and so do their helpers"
)]

#[macro_use]
#[path = "../shared/running.rs"]
mod running;
#[macro_use]
#[path = "../shared/own.rs"]
mod own;
#[path = "../shared/seeds.rs"]
mod seeds;
#[path = "../shared/tasks.rs"]
mod tasks;
#[macro_use]
mod support;
mod wire;

mod batches;
mod blocking;
mod clients;
mod closing;
mod fates;
mod losses;
mod properties;
mod receiving;
mod recovering;
mod requests;
mod sending;
mod settling;
mod wakers;

/// Of no server it is known that it differs.
async fn against_rabbitmq(_test: &str, body: impl Future<Output = ()>) {
    body.await;
}
