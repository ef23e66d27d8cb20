//! What a queue's arguments ask for: how long and how many messages it keeps, and where those go that it gives up.

use std::time::Duration;

use super::faults::{invalid_argument, invalid_type, type_name};
use crate::codec::{FieldTable, FieldValue, ShortString};
use crate::protocol::server::Fault;

#[derive(Debug, Default)]
pub(super) struct Rules {
    /// `x-message-ttl`
    pub(super) message_ttl: Option<Duration>,
    /// `x-expires`: how long a queue stays that nobody uses.
    pub(super) expires: Option<Duration>,
    /// `x-max-length`
    pub(super) max_length: Option<usize>,
    /// `x-max-length-bytes`
    pub(super) max_bytes: Option<usize>,
    /// `x-overflow`
    pub(super) overflow: Overflow,
    /// `x-dead-letter-exchange`, `x-dead-letter-routing-key`
    pub(super) dead_letters: Option<DeadLetters>,
    /// `x-max-priority`; 0 for none.
    pub(super) max_priority: u8,
    /// `x-single-active-consumer`: only the first of the consumers gets anything.
    pub(super) single_active_consumer: bool,
}

/// Which message goes when there are too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Overflow {
    #[default]
    DropHead,
    RejectPublish,
    RejectPublishDlx,
}

/// Where messages go that were given up.
#[derive(Clone, Debug)]
pub(super) struct DeadLetters {
    pub(super) exchange: ShortString,
    /// `None` for the one that the message has.
    pub(super) routing_key: Option<ShortString>,
}

/// The longest time that RabbitMQ takes, of a queue or of a message, in milliseconds: ten years.
pub(super) const LONGEST: u64 = 10 * 365 * 24 * 60 * 60 * 1000;

impl Rules {
    /// # Errors
    ///
    /// 406 in RabbitMQ's words (c74).
    pub(super) fn of(resource: &str, arguments: &FieldTable) -> Result<Self, Fault> {
        let number = |name| number(resource, arguments, name);
        let time = |name| match number(name)?.map(i64::unsigned_abs) {
            Some(millis) if millis > LONGEST => {
                Err(invalid_argument(resource, name, &format!("{{value_too_large,{millis}}}")))
            }
            millis => Ok(millis.map(Duration::from_millis)),
        };
        let text = |name| match arguments.get(name) {
            None => Ok(None),
            Some(FieldValue::LongString(text)) => Ok(Some(ShortString::from(text.clone()))),
            Some(value) => Err(value),
        };
        let count = |count: Option<i64>| count.and_then(|count| usize::try_from(count).ok());
        let expires = time("x-expires")?;
        if expires == Some(Duration::ZERO) {
            return Err(invalid_argument(resource, "x-expires", "{value_zero,0}"));
        }
        let max_priority = number("x-max-priority")?.unwrap_or(0);
        let max_priority = u8::try_from(max_priority).map_err(|_| {
            invalid_argument(resource, "x-max-priority", &format!("{{max_value_exceeded,{max_priority}}}"))
        })?;
        // Of no meaning here, where all queues are classic ones.
        number("x-delivery-limit")?;
        let unacceptable =
            |name, value| invalid_argument(resource, name, &format!("{{unacceptable_type,{}}}", type_name(value)));
        let overflow = match text("x-overflow").map_err(|value| unacceptable("x-overflow", value))? {
            None => Overflow::DropHead,
            Some(text) => match text.as_bytes() {
                b"drop-head" => Overflow::DropHead,
                b"reject-publish" => Overflow::RejectPublish,
                b"reject-publish-dlx" => Overflow::RejectPublishDlx,
                _ => return Err(invalid_argument(resource, "x-overflow", "invalid_overflow")),
            },
        };
        let single = "x-single-active-consumer";
        let single_active_consumer = match arguments.get(single) {
            None => false,
            Some(value) => value.as_bool().ok_or_else(|| unacceptable(single, value))?,
        };
        let [exchange, key] = ["x-dead-letter-exchange", "x-dead-letter-routing-key"];
        let routing_key = text(key).map_err(|value| unacceptable(key, value))?;
        if routing_key.as_ref().is_some_and(|key| key.len() > 255) {
            return Err(invalid_argument(resource, key, "\"longer than 255 octets\""));
        }
        let dead_letters = match text(exchange).map_err(|value| invalid_type(resource, exchange, value))? {
            Some(exchange) => Some(DeadLetters { exchange, routing_key }),
            None if routing_key.is_some() => {
                return Err(invalid_argument(resource, key, "routing_key_but_no_dlx_defined"));
            }
            None => None,
        };
        Ok(Self {
            message_ttl: time("x-message-ttl")?,
            expires,
            max_length: count(number("x-max-length")?),
            max_bytes: count(number("x-max-length-bytes")?),
            overflow,
            dead_letters,
            max_priority,
            single_active_consumer,
        })
    }
}

/// An argument that is an integer, if it is there, and not negative.
pub(super) fn number(resource: &str, arguments: &FieldTable, name: &str) -> Result<Option<i64>, Fault> {
    let number = integer(resource, arguments, name)?;
    match number {
        Some(number) if number < 0 => Err(invalid_argument(resource, name, &format!("{{value_negative,{number}}}"))),
        number => Ok(number),
    }
}

pub(super) fn integer(resource: &str, arguments: &FieldTable, name: &str) -> Result<Option<i64>, Fault> {
    let Some(value) = arguments.get(name) else { return Ok(None) };
    let wrong = || invalid_argument(resource, name, &format!("\"expected integer, got {}\"", type_name(value)));
    value.as_i64().ok_or_else(wrong).map(Some)
}
