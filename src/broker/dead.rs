//! What a queue does not keep, and where that goes instead: messages that have expired, were pushed out, or were refused.
//!
//! RabbitMQ's rules: what has expired leaves at the head of its queue; a dead-lettered message says in `x-death` how it came there,
//! and one that goes round in circles without anybody having refused it is dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::message::Message;
use super::queue::{Entry, Queue};
use crate::codec::{FieldTable, FieldValue, Properties, ShortString};

/// What a queue's arguments say of messages that it does not keep.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    pub(super) time_to_live: Option<Duration>,
    pub(super) length: Option<usize>,
    /// A full queue refuses what comes, and does not push out its oldest message.
    pub(super) refuses: bool,
    /// The exchange, and the routing key if it is to be another one.
    dead_letters: Option<(ShortString, Option<ShortString>)>,
}

/// Why a message left its queue without having been handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Expired,
    PushedOut,
    Refused,
}

/// A message on its way out of a queue, to an exchange.
#[derive(Debug)]
pub(super) struct DeadLetter {
    pub(super) virtual_host: ShortString,
    pub(super) message: Message,
    deaths: Vec<FieldValue>,
}

/// Dead letters on their way. Queues that send them to each other can make any number of one message.
#[derive(Debug, Default)]
pub(super) struct Morgue(VecDeque<DeadLetter>);

/// So many wait; more are dropped.
const ROOM: usize = 4096;

impl Morgue {
    /// An entry has left its queue.
    pub(super) fn take(&mut self, queue: &Queue, entry: Entry, reason: Reason) {
        if self.0.len() < ROOM {
            self.0.extend(DeadLetter::of(queue, entry, reason));
        }
    }

    pub(super) fn next(&mut self) -> Option<DeadLetter> {
        self.0.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Limits {
    pub(super) fn of(arguments: &FieldTable) -> Self {
        let number =
            |name| arguments.get(name).and_then(FieldValue::as_i64).and_then(|number| u64::try_from(number).ok());
        let text = |name| arguments.get(name).and_then(FieldValue::as_str);
        Self {
            time_to_live: number("x-message-ttl").map(Duration::from_millis),
            length: number("x-max-length").and_then(|length| usize::try_from(length).ok()),
            refuses: text("x-overflow").is_some_and(|overflow| overflow.starts_with("reject-publish")),
            dead_letters: text("x-dead-letter-exchange")
                .map(|exchange| (exchange.into(), text("x-dead-letter-routing-key").map(ShortString::from))),
        }
    }
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::PushedOut => "maxlen",
            Self::Refused => REFUSED,
        }
    }
}

const REFUSED: &str = "rejected";

impl DeadLetter {
    /// What becomes of an entry of this queue; nothing where the queue has nowhere to send it.
    fn of(queue: &Queue, entry: Entry, reason: Reason) -> Option<Self> {
        let (exchange, key) = queue.limits.dead_letters.clone()?;
        let old = entry.message;
        // Headers that cannot be read tell nobody anything.
        let mut properties = old.properties.decode().unwrap_or_default();
        let mut headers = properties.headers.take().unwrap_or_default();
        let mut deaths = deaths(&headers);
        if deaths.is_empty() {
            headers.insert("x-first-death-reason", reason.name());
            headers.insert("x-first-death-queue", text(&queue.name));
            headers.insert("x-first-death-exchange", text(&old.exchange));
        }
        let death = death(&mut deaths, queue, &old, &properties, reason);
        deaths.insert(0, FieldValue::Table(death));
        headers.insert("x-death", deaths.clone());
        properties.headers = Some(headers);
        // It would expire in the next queue at once.
        properties.expiration = None;
        let message = Message {
            exchange,
            routing_key: key.unwrap_or_else(|| old.routing_key.clone()),
            body: old.body.clone(),
            ..Message::default()
        };
        Some(Self { virtual_host: queue.virtual_host.clone(), message: message.with(&properties), deaths })
    }

    /// Whether it was in this queue before, and nobody has refused it since. Names are compared as octets: any will do.
    pub(super) fn goes_round(&self, queue: &ShortString) -> bool {
        let (refused, queue) = (FieldValue::from(REFUSED), text(queue));
        let mut deaths = self.deaths.iter().filter_map(FieldValue::as_table);
        let told = deaths.find(|death| death.get("reason") == Some(&refused) || death.get("queue") == Some(&queue));
        told.is_some_and(|death| death.get("reason") != Some(&refused))
    }

    pub(super) fn into_message(self) -> Arc<Message> {
        Arc::new(self.message)
    }
}

/// The deaths so far, the latest first.
fn deaths(headers: &FieldTable) -> Vec<FieldValue> {
    headers.get("x-death").and_then(FieldValue::as_array).map(<[_]>::to_vec).unwrap_or_default()
}

/// One more death: the one of this queue for this reason, taken out and counted once more, or a new one.
fn death(
    deaths: &mut Vec<FieldValue>,
    queue: &Queue,
    message: &Message,
    properties: &Properties,
    reason: Reason,
) -> FieldTable {
    let is_it = |death: &FieldTable| {
        death.get("queue") == Some(&text(&queue.name)) && death.get("reason") == Some(&reason.name().into())
    };
    let before = deaths.iter().position(|death| death.as_table().is_some_and(is_it)).map(|at| deaths.remove(at));
    if let Some(FieldValue::Table(mut death)) = before {
        let count = death.get("count").and_then(FieldValue::as_i64).unwrap_or(0);
        death.insert("count", count.saturating_add(1));
        return death;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let mut death = FieldTable::new()
        .with("count", 1i64)
        .with("reason", reason.name())
        .with("queue", text(&queue.name))
        .with("time", FieldValue::Timestamp(now))
        .with("exchange", text(&message.exchange))
        .with("routing-keys", vec![text(&message.routing_key)]);
    if let Some(expiration) = &properties.expiration {
        death.insert("original-expiration", text(expiration));
    }
    death
}

fn text(text: &ShortString) -> FieldValue {
    FieldValue::LongString(text.as_bytes().to_vec().into())
}
