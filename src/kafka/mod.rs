//! Kafka in the facade's words: producers and consumers of librdkafka, by the crate rdkafka (feature `kafka`).
//!
//! Touches `message`, `error`, the values of `codec`, and rdkafka; nothing of AMQP. Programs use it through
//! [`messaging`](crate::messaging): `Client::connect("kafka://h1:9092,h2:9092")`. What is public here is how to configure it.
//!
//! # How it runs
//!
//! librdkafka blocks in many places, so each of its instances lives in a thread of its own, which creates it, polls it, and drops
//! it. Everybody else only calls what librdkafka promises to answer at once.
//!
//! ```text
//!   Sender ──► outbox ──► rd_kafka_produce ──► librdkafka's queue ──► brokers
//!     ▲           │ ledger: what is on its way                          │
//!     └───────────┴──────────── worker (poll) ◄── delivery reports ◄────┘
//!
//!   Receiver ◄── queue ◄── worker (poll) ◄── fetched messages
//!      └──► tracker: what was accepted ──► rd_kafka_offsets_store ──► committed now and then, and on close
//! ```

mod config;
mod convert;
mod failure;
mod health;
mod inbox;
mod ledger;
mod link;
mod member;
mod outbox;
mod producer;
mod tracker;

pub use config::{KafkaConfig, PropertyMapping};
pub use failure::code;

pub(crate) use health::{Condition, Health, Notice};
pub(crate) use inbox::{Acker, Inbox, Plan};
pub(crate) use ledger::Pending;
pub(crate) use link::Link;
pub(crate) use outbox::{Outbox, Settings};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// No code of users runs under these locks, so nothing poisons them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
