//! The client against servers: the broker in the box under a plain `cargo test`, a real RabbitMQ under `tests/run`, and peers that
//! follow a script where no real server would behave as the test wants it.
//!
//! `on_every_server!` makes two tests of one body, `NAME::broker` and `NAME::rabbitmq`. Rules of `CONFORMANCE.md` are named
//! by their number (c25).

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
#[macro_use]
mod scripted;

mod certificates;
mod chaos;
mod coalescing;
mod connecting;
mod consuming;
mod differences;
mod ending;
mod expiring;
mod fates;
mod handshakes;
mod hosts;
mod logins;
mod messages;
mod outages;
mod publishing;
mod settling;
mod sharing;
mod streams;
mod tls;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod tls_keys;
mod tls_rabbitmq;
mod topology;
mod transactions;
mod waiting;
mod wakers;

use crate::differences::against_rabbitmq;
