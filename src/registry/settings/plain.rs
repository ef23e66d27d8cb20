//! The settings out of a configuration file.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::{Outgoing, RegistryConfig};
use crate::amqp::{Properties, ShortString, Span};
use crate::messaging::{Config, ConfirmMode, Target};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Whole {
    connections: BTreeMap<String, Config>,
    outgoing: BTreeMap<String, Outgoing>,
}

impl<'de> Deserialize<'de> for RegistryConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Whole { connections, outgoing } = Whole::deserialize(deserializer)?;
        Ok(Self { connections, outgoing })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entries {
    connection: String,
    target: Option<String>,
    queue: Option<ShortString>,
    exchange: Option<ShortString>,
    routing_key: Option<ShortString>,
    topic: Option<String>,
    partition: Option<i32>,
    #[serde(default)]
    properties: Properties,
    confirms: Option<bool>,
    mandatory: Option<bool>,
    timeout: Option<Span>,
    max_in_flight: Option<usize>,
    channels: Option<u16>,
    active: Option<bool>,
}

impl<'de> Deserialize<'de> for Outgoing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = Entries::deserialize(deserializer)?;
        let target = entries.target().map_err(D::Error::custom)?;
        let plain = Self::new(entries.connection);
        Ok(Self {
            target,
            properties: entries.properties,
            confirms: if entries.confirms == Some(false) { ConfirmMode::None } else { ConfirmMode::Confirm },
            mandatory: entries.mandatory,
            timeout: entries.timeout.map_or(plain.timeout, Into::into),
            max_in_flight: entries.max_in_flight.unwrap_or(plain.max_in_flight),
            channels: entries.channels.unwrap_or(plain.channels),
            active: entries.active.unwrap_or(plain.active),
            connection: plain.connection,
        })
    }
}

impl Entries {
    fn target(&self) -> Result<Option<Target>, String> {
        let exchange = self.exchange.is_some() || self.routing_key.is_some();
        let ways = [self.target.is_some(), self.queue.is_some(), exchange, self.topic.is_some()];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            return Err("it is one of target, queue, topic, or exchange with routing_key".into());
        }
        if self.partition.is_some() && self.topic.is_none() {
            return Err("a partition needs its topic".into());
        }
        if let Some(target) = &self.target {
            return target.parse().map(Some).map_err(|error: crate::error::Error| error.to_string());
        }
        if let Some(topic) = &self.topic {
            let target = Target::topic(topic);
            return Ok(Some(match self.partition {
                Some(partition) => target.partition(partition),
                None => target,
            }));
        }
        if let Some(queue) = &self.queue {
            return Ok(Some(Target::queue(queue.clone())));
        }
        let part = |part: &Option<ShortString>| part.clone().unwrap_or_default();
        Ok(exchange.then(|| Target::exchange(part(&self.exchange), part(&self.routing_key))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(text: &str) -> Result<RegistryConfig, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn z3_z7_every_entry_sets_what_it_names() {
        let config = read(
            r#"
            [connections]
            events = "amqp://u:hush@h:1/v"

            [connections.crm]
            host = "h"
            password = "hush"

            [outgoing.CRM1]
            connection = "crm"
            exchange = "CRM1"
            properties = { app_id = "ESB", priority = 0, headers = { X-Foo = "bar" } }
            confirms = false
            mandatory = false
            timeout = "1m 30s"
            max_in_flight = 7
            channels = 2
            active = false

            [outgoing.plain]
            connection = "events"
            "#,
        )
        .unwrap();
        let crm = Outgoing::new("crm")
            .target(Target::exchange("CRM1", ""))
            .defaults(Properties::new().app_id("ESB").priority(0).header("X-Foo", "bar"))
            .confirms(ConfirmMode::None)
            .mandatory(false)
            .timeout(Duration::from_secs(90))
            .max_in_flight(7)
            .channels(2)
            .active(false);
        assert_eq!(config.outgoing.get("CRM1"), Some(&crm));
        assert_eq!(config.outgoing.get("plain"), Some(&Outgoing::new("events")));
        assert_eq!(config.connections.len(), 2);
        assert!(!format!("{config:?}").contains("hush"));
        assert_eq!(serde_json::from_str::<RegistryConfig>("{}").unwrap(), RegistryConfig::new());
    }

    #[test]
    fn targets_are_said_in_one_way() {
        let target = |words: &str| {
            let config = read(&format!("[outgoing.x]\nconnection = \"c\"\n{words}"))?;
            Ok::<_, String>(config.outgoing.get("x").and_then(|entry| entry.target.clone()))
        };
        for (words, expected) in [
            ("", None),
            ("queue = \"q\"", Some(Target::queue("q"))),
            ("exchange = \"x\"\nrouting_key = \"k\"", Some(Target::exchange("x", "k"))),
            ("routing_key = \"k\"", Some(Target::exchange("", "k"))),
            ("target = \"/exchanges/x/k\"", Some(Target::exchange("x", "k"))),
            ("topic = \"t\"", Some(Target::topic("t"))),
            ("topic = \"t\"\npartition = 3", Some(Target::topic("t").partition(3))),
        ] {
            assert_eq!(target(words), Ok(expected), "{words}");
        }
        for (words, complaint) in [
            ("queue = \"q\"\ntopic = \"t\"", "one of target"),
            ("queue = \"q\"\npartition = 3", "needs its topic"),
            ("target = \"q\"", "/queues/"),
            ("exchnage = \"q\"", "unknown field"),
            ("timeout = \"soon\"", "span of time"),
        ] {
            let error = target(words).unwrap_err();
            assert!(error.contains(complaint), "{words}: {error}");
        }
    }
}
