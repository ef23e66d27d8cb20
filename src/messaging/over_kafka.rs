//! The facade over Kafka: what the room `kafka` tells, as events and states.

use std::sync::Arc;
use std::time::Duration;

use super::events::{Event, Events};
use super::state::ClientState;
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::{Condition, Health, KafkaConfig, Link, Notice};

pub(super) fn link(config: KafkaConfig, events: &Arc<Events>) -> Link {
    let events = Arc::downgrade(events);
    let listener = move |notice| {
        // Without the client nobody listens any more.
        if let Some(events) = events.upgrade() {
            events.tell(&event(notice));
        }
    };
    Link::new(config, Health::new(listener))
}

fn event(notice: Notice) -> Event {
    match notice {
        Notice::Up => Event::Opened,
        Notice::Down(error) => Event::Lost(error),
        Notice::Trouble(error) => Event::Trouble(error),
        Notice::Assigned(partitions) => Event::Assigned(partitions),
        Notice::Revoked(partitions) => Event::Revoked(partitions),
    }
}

pub(super) fn state(link: &Link) -> ClientState {
    match link.condition() {
        None => ClientState::Closed,
        Some(Condition::Unknown) => ClientState::Idle,
        Some(Condition::Up) => ClientState::Open,
        Some(Condition::Down) => ClientState::Lost,
    }
}

/// The first contact, unless there was one.
pub(super) async fn ready(link: &Link, events: &Events) -> Result<()> {
    if link.condition() == Some(Condition::Up) {
        return Ok(());
    }
    let contact = link.ping(link.config().connect_timeout).await.map(drop);
    contact.map_err(|error| {
        let error = match error.kind() {
            ErrorKind::Io | ErrorKind::Timeout => {
                Error::because(ErrorKind::Handshake, "no broker of Kafka could be reached", &error)
            }
            _ => error,
        };
        events.tell(&Event::ConnectFailed(error.clone()));
        error
    })
}

pub(super) async fn ping(link: &Link, timeout: Duration) -> Result<Duration> {
    link.ping(timeout).await
}

pub(super) fn unsupported<T>(what: &str) -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, format!("Kafka has no {what}")))
}
