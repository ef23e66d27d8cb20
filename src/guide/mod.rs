//! Coming from somewhere else: your calls beside ours, and what is different.
//!
//! | you know | read |
//! |---|---|
//! | lapin | [`lapin`] |
//! | amqprs | [`amqprs`] |
//! | KumoMTA's `kumo.amqp`, `kumo.kafka`, `custom_lua` and log hooks | [`kumomta`] |
//! | Zato's outgoing connections and channels | [`zato`] |
//! | uamqp's `SendClient`, `ReceiveClient`, `mgmt_request` | [`uamqp`] |
//!
//! Two doors lead into this library. [`amqp`](crate::amqp) has the protocol's own words, channel by channel: lapin and amqprs have the same.
//! [`messaging`](crate::messaging) has clients, senders and receivers, which connect when they are used, know what became of each
//! message, and are the same for other transports: the services have the same. Either can be had from the other
//! ([`Client::as_amqp`](crate::messaging::Client::as_amqp)).
//!
//! Coming from nowhere in particular, `examples/worker.rs` of the repository is a worker as it runs in earnest: bounded, with retries by
//! dead-lettering, ended by a signal; and `leveret::broker` has what a test can
//! make go wrong.
//!
//! `tests/ports` of the repository has the hosts' call sites as programs that run.

pub mod amqprs;
pub mod kumomta;
pub mod lapin;
pub mod uamqp;
pub mod zato;
