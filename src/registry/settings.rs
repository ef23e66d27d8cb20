//! What stands in a registry, as plain data.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::amqp::Properties;
use crate::messaging::{Config, ConfirmMode, Target};

#[cfg(feature = "serde")]
mod plain;

/// Connections and outgoing entries, each by its name. With the feature `serde` it can be read from a file: see
/// [`registry`](crate::registry). `Debug` leaves the secrets out.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegistryConfig {
    /// The servers, and who logs in.
    pub connections: BTreeMap<String, Config>,
    /// What is sent where, over which of the connections.
    pub outgoing: BTreeMap<String, Outgoing>,
}

impl RegistryConfig {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }
}

/// How messages are sent under a name.
///
/// | setting | default |
/// |---|---|
/// | target | none: each message says it |
/// | properties | none but delivery mode 2, persistent |
/// | confirms | on |
/// | mandatory | with confirms: yes |
/// | timeout | 60 s for everything: connecting, waiting for room, the confirm |
/// | max_in_flight | 4096 messages unconfirmed |
/// | channels | 1 |
/// | active | yes |
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// The name of its connection.
    pub connection: String,
    /// Where messages go that do not say it themselves.
    pub target: Option<Target>,
    /// What messages get where they do not say otherwise themselves, property by property and header by header. One that is set
    /// counts, even if it is empty or zero.
    pub properties: Properties,
    /// Whether the server is asked to confirm each message.
    pub confirms: ConfirmMode,
    /// Whether a message that no queue takes is an error. `None`: with confirms.
    pub mandatory: Option<bool>,
    /// How long sending a message may take in all.
    pub timeout: Duration,
    /// How many messages may be unconfirmed.
    pub max_in_flight: usize,
    /// Over how many channels messages are spread.
    pub channels: u16,
    /// Whether anything is sent.
    pub active: bool,
}

impl Outgoing {
    /// An entry that uses the connection of this name.
    pub fn new(connection: impl Into<String>) -> Self {
        Self {
            connection: connection.into(),
            target: None,
            properties: Properties::new(),
            confirms: ConfirmMode::Confirm,
            mandatory: None,
            timeout: Duration::from_secs(60),
            max_in_flight: 4096,
            channels: 1,
            active: true,
        }
    }

    /// Where messages go that do not say it themselves.
    #[must_use]
    pub fn target(mut self, target: impl Into<Target>) -> Self {
        self.target = Some(target.into());
        self
    }

    /// The template of properties and headers.
    #[must_use]
    pub fn defaults(mut self, properties: Properties) -> Self {
        self.properties = properties;
        self
    }

    /// Whether the server is asked to confirm each message.
    #[must_use]
    pub fn confirms(mut self, mode: ConfirmMode) -> Self {
        self.confirms = mode;
        self
    }

    /// Whether a message that no queue takes is an error.
    #[must_use]
    pub fn mandatory(mut self, mandatory: bool) -> Self {
        self.mandatory = Some(mandatory);
        self
    }

    /// How long sending a message may take in all.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// How many messages may be unconfirmed.
    #[must_use]
    #[doc(alias = "pool_size")]
    pub fn max_in_flight(mut self, messages: usize) -> Self {
        self.max_in_flight = messages;
        self
    }

    /// Over how many channels messages are spread.
    #[must_use]
    pub fn channels(mut self, channels: u16) -> Self {
        self.channels = channels;
        self
    }

    /// Whether anything is sent.
    #[must_use]
    #[doc(alias = "is_active")]
    pub fn active(mut self, active: bool) -> Self {
        self.active = active;
        self
    }
}
