//! The facade's handles over AMQP 0-9-1: a connection that is opened on demand, channels for sending, consumers.

pub(super) mod convert;
pub(super) mod flights;
pub(super) mod inbox;
mod ledger;
pub(super) mod link;
pub(super) mod outbox;
mod pace;
mod pages;
mod pending;
mod recovery;
pub(super) mod replies;

pub(super) use outbox::Outbox;
pub(super) use pending::Pending;
