//! Which records go where.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::record::Record;
use super::template::Template;
use crate::messaging::{Message, Target};

/// Which records go where, and as what.
///
/// | entry | value |
/// |---|---|
/// | `name` | what the report calls it; the entry's name where it is missing |
/// | `when` | field → a text, or a list of texts; all fields have to fit. `"*"`: the field is there. Without it: every record |
/// | `outgoing` | the entry of the registry that sends it |
/// | `exchange`, `routing_key` or `queue` or `topic` | where to; without them where the entry says |
/// | `message_id` | the record's [`id`](Record::id) unless it is said here; with a `topic` it is the header `message-id`, because Kafka has no such property |
/// | `key` | Kafka: what decides the partition |
/// | `headers` | name → text |
///
/// All texts but the names of entries are templates: `{type}` is the field `type`, `{meta.tenant}` the field `tenant` inside of `meta`,
/// `{tenant|none}` the word `none` where there is no such field, `{{` a brace. A record that lacks a field is refused.
///
/// With Zato's and KumoMTA's log records in mind: several records may have the same `id` (the mail's), so a `message_id` of `{id}` alone
/// would make a consumer take the second for a copy of the first.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// What the report calls it; empty for the entry's name.
    pub name: String,
    /// The conditions, all of which have to hold.
    pub when: BTreeMap<String, OneOf>,
    /// The entry of the registry.
    pub outgoing: String,
    /// An exchange; together with `routing_key`.
    pub exchange: Option<String>,
    /// A routing key; without `exchange` for the default exchange.
    pub routing_key: Option<String>,
    /// A queue.
    pub queue: Option<String>,
    /// A Kafka topic.
    pub topic: Option<String>,
    /// The message id.
    pub message_id: Option<String>,
    /// Kafka's key.
    pub key: Option<String>,
    /// Headers.
    pub headers: BTreeMap<String, String>,
}

/// One text or several, any of which will do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OneOf {
    /// This one.
    One(String),
    /// Any of these.
    Any(Vec<String>),
}

impl OneOf {
    fn fits(&self, value: Option<&str>) -> bool {
        let Some(value) = value else { return false };
        let fits = |wanted: &String| wanted == "*" || wanted == value;
        match self {
            Self::One(wanted) => fits(wanted),
            Self::Any(wanted) => wanted.iter().any(fits),
        }
    }
}

/// A route whose templates have been read.
pub(super) struct Ready {
    pub(super) name: String,
    pub(super) outgoing: String,
    when: BTreeMap<String, OneOf>,
    place: Option<Place>,
    message_id: Option<Template>,
    key: Option<Template>,
    headers: Vec<(String, Template)>,
}

enum Place {
    Exchange(Template, Template),
    Queue(Template),
    Topic(Template),
}

impl Ready {
    pub(super) fn new(route: Route) -> Result<Self, String> {
        let template = |text: Option<String>| text.as_deref().map(Template::parse).transpose();
        let exchange = route.exchange.is_some() || route.routing_key.is_some();
        let ways = [exchange, route.queue.is_some(), route.topic.is_some()];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            return Err("it is one of queue, topic, or exchange with routing_key".into());
        }
        let place = if exchange {
            let part = |part: Option<String>| Template::parse(part.as_deref().unwrap_or_default());
            Some(Place::Exchange(part(route.exchange)?, part(route.routing_key)?))
        } else if let Some(queue) = template(route.queue)? {
            Some(Place::Queue(queue))
        } else {
            template(route.topic)?.map(Place::Topic)
        };
        let header = |(name, text): (String, String)| Ok((name, Template::parse(&text)?));
        Ok(Self {
            name: if route.name.is_empty() { route.outgoing.clone() } else { route.name },
            outgoing: route.outgoing,
            when: route.when,
            place,
            message_id: template(route.message_id)?,
            key: template(route.key)?,
            headers: route.headers.into_iter().map(header).collect::<Result<_, String>>()?,
        })
    }

    pub(super) fn has_place(&self) -> bool {
        self.place.is_some()
    }

    pub(super) fn takes(&self, record: &Record) -> bool {
        self.when.iter().all(|(path, wanted)| wanted.fits(record.text(path).as_deref()))
    }

    /// Where to, where the route says so, and what.
    pub(super) fn prepare(&self, record: &Record) -> Result<(Option<Target>, Message), String> {
        let target = match &self.place {
            None => None,
            Some(Place::Queue(queue)) => Some(Target::queue(queue.fill(record)?)),
            Some(Place::Topic(topic)) => Some(Target::topic(topic.fill(record)?)),
            Some(Place::Exchange(exchange, key)) => Some(Target::exchange(exchange.fill(record)?, key.fill(record)?)),
        };
        let id = match &self.message_id {
            Some(id) => id.fill(record)?,
            None => record.message_id().to_owned(),
        };
        let message = Message::new(record.payload().clone());
        let mut message = match &self.place {
            Some(Place::Topic(_)) => message.append_header("message-id", id.as_str()),
            _ => message.message_id(id),
        };
        if let Some(key) = &self.key {
            message = message.key(key.fill(record)?);
        }
        for (name, value) in &self.headers {
            message = message.header(name.as_str(), value.fill(record)?.as_str());
        }
        Ok((target, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(toml: &str) -> Result<Ready, String> {
        Ready::new(toml::from_str(toml).map_err(|error| error.message().to_owned())?)
    }

    #[test]
    fn a_route_takes_what_fits_all_its_conditions() {
        let route =
            ready("outgoing = \"o\"\nwhen = { type = [\"Bounce\", \"OOB\"], \"meta.t\" = \"a\", n = \"*\" }").unwrap();
        let record = |kind: &str, tenant: &str| {
            Record::new("x").field("type", kind).field("meta", serde_json::json!({"t": tenant})).field("n", 1)
        };
        assert!(route.takes(&record("Bounce", "a")) && route.takes(&record("OOB", "a")));
        assert!(!route.takes(&record("Delivery", "a")) && !route.takes(&record("OOB", "b")));
        assert!(!route.takes(&Record::new("x").field("type", "OOB")));
        assert!(ready("outgoing = \"o\"").unwrap().takes(&Record::new("x")));
    }

    #[test]
    fn a_message_is_made_of_the_record() {
        let route = ready(
            "outgoing = \"o\"\nexchange = \"mail\"\nrouting_key = \"log.{type}\"\nmessage_id = \"{id}-{type}\"\n\
             key = \"{id}\"\nheaders = { x-type = \"{type}\" }",
        )
        .unwrap();
        let record = Record::new("body").field("type", "Bounce").field("id", 7);
        let (target, message) = route.prepare(&record).unwrap();
        assert_eq!(target, Some(Target::exchange("mail", "log.Bounce")));
        assert_eq!(message, Message::new("body").message_id("7-Bounce").header("x-type", "Bounce").key("7"));
        assert!(route.prepare(&Record::new("body")).is_err());
        let (target, message) = ready("outgoing = \"o\"").unwrap().prepare(&record).unwrap();
        assert_eq!((target, message.properties.message_id.clone()), (None, Some(record.message_id().into())));
        let (target, message) = ready("outgoing = \"o\"\ntopic = \"t\"").unwrap().prepare(&record).unwrap();
        let expected = Message::new("body").append_header("message-id", record.message_id());
        assert_eq!((target, message), (Some(Target::topic("t")), expected), "Kafka has no such property");
    }

    #[test]
    fn a_route_that_makes_no_sense_is_refused() {
        for text in ["queue = \"q\"\ntopic = \"t\"", "queue = \"{\"", "headers = { a = \"}\" }", "quue = \"q\""] {
            assert!(ready(&format!("outgoing = \"o\"\n{text}")).is_err(), "{text}");
        }
    }
}
