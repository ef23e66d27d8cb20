//! What is written on a message that a queue has given up: where it was, and why (`x-death`), as RabbitMQ writes it.

use std::time::{SystemTime, UNIX_EPOCH};

use super::message::Message;
use super::rules::DeadLetters;
use crate::codec::{FieldTable, FieldValue, RawProperties, ShortString};

/// Why a queue has given a message up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Rejected,
    Expired,
    MaxLength,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
        }
    }
}

const DEATHS: &str = "x-death";

impl Message {
    /// The message on its way to where the dead letters of a queue go. It lives as long as it likes there.
    pub(super) fn dead_letter(&self, queue: &ShortString, reason: Reason, to: &DeadLetters) -> Self {
        let properties = self.properties.decode().or_else(|_| self.properties.decode_without_headers());
        let mut properties = properties.unwrap_or_default();
        let mut headers = properties.headers.take().unwrap_or_default();
        let mut deaths = deaths(&headers).to_vec();
        let known = deaths.iter().position(|death| {
            says(death, "queue", queue.as_bytes()) && says(death, "reason", reason.name().as_bytes())
        });
        let death = match known.map(|at| deaths.remove(at)) {
            Some(FieldValue::Table(mut death)) => {
                let count = death.get("count").and_then(FieldValue::as_i64).unwrap_or(0);
                death.insert("count", count.saturating_add(1));
                death
            }
            _ => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                let death = FieldTable::new()
                    .with("count", 1i64)
                    .with("reason", reason.name())
                    .with("queue", text(queue))
                    .with("time", FieldValue::Timestamp(now))
                    .with("exchange", text(&self.exchange))
                    .with(
                        "routing-keys",
                        FieldValue::Array([&self.routing_key].into_iter().chain(&self.cc).map(text).collect()),
                    );
                match &properties.expiration {
                    Some(expiration) => death.with("original-expiration", text(expiration)),
                    None => death,
                }
            }
        };
        deaths.insert(0, FieldValue::Table(death));
        headers.insert(DEATHS, FieldValue::Array(deaths));
        for (name, value) in [
            ("x-first-death-reason", FieldValue::from(reason.name())),
            ("x-first-death-queue", text(queue)),
            ("x-first-death-exchange", text(&self.exchange)),
        ] {
            if headers.get(name).is_none() {
                headers.insert(name, value);
            }
        }
        // Another routing key takes the place of all that the message had.
        let (cc, bcc) = match &to.routing_key {
            Some(_) => {
                headers.remove("CC");
                Default::default()
            }
            None => (self.cc.clone(), self.bcc.clone()),
        };
        properties.headers = Some(headers);
        properties.expiration = None;
        let mut octets = Vec::new();
        // What was read can be written; what does not fit any more goes without all of it.
        if properties.encode(&mut octets).is_err() {
            octets = vec![0, 0];
        }
        Self {
            exchange: to.exchange.clone(),
            routing_key: to.routing_key.clone().unwrap_or_else(|| self.routing_key.clone()),
            properties: RawProperties::new(octets.into()),
            body: self.body.clone(),
            time_to_live: None,
            priority: self.priority,
            cc,
            bcc,
        }
    }
}

/// Whether a message with these headers comes back to a queue without anybody having rejected it since it was there: it would go round
/// for ever.
pub(super) fn goes_round(headers: &FieldTable, queue: &ShortString) -> bool {
    let deaths = deaths(headers);
    let before = deaths.iter().position(|death| says(death, "queue", queue.as_bytes()));
    let since = before.and_then(|at| deaths.get(..=at));
    since.is_some_and(|since| !since.iter().any(|death| says(death, "reason", b"rejected")))
}

fn deaths(headers: &FieldTable) -> &[FieldValue] {
    headers.get(DEATHS).and_then(FieldValue::as_array).unwrap_or_default()
}

fn says(death: &FieldValue, name: &str, expected: &[u8]) -> bool {
    let value = death.as_table().and_then(|death| death.get(name));
    matches!(value, Some(FieldValue::LongString(text)) if **text == *expected)
}

fn text(name: &ShortString) -> FieldValue {
    FieldValue::LongString(name.as_bytes().to_vec().into())
}
