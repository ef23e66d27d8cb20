//! What a relay does, as plain data.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::Deserializer;

use super::route::Route;
use crate::amqp::Span;
use crate::messaging::Backoff;
use crate::registry::RegistryError;

/// What a relay does. Times in files are numbers of seconds, or texts such as `"1m 30s"`, `"250ms"`.
///
/// | entry | default | |
/// |---|---|---|
/// | `routes` | none | the first that fits takes the record |
/// | `unrouted` | `refuse` | what becomes of a record that no route takes |
/// | `batch` | 256 | how many records of a stream are sent together |
/// | `batch_wait` | 50 ms | how long a batch waits to become full |
/// | `max_pending` | 4096 | how many records of a stream are in memory, those that wait for another attempt among them |
/// | `max_pending_bytes` | 64 MiB | how much memory they take, about |
/// | `max_line` | 1 MiB | the longest line of a stream; longer ones are refused and not kept |
/// | `attempts` | 5 | how often a record of a stream is tried |
/// | `retry_first`, `retry_longest` | 1 s, 60 s | how long it waits in between: doubled each time, shortened by chance |
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelayConfig {
    /// The routes, in order.
    pub routes: Vec<Route>,
    /// What becomes of a record that no route takes.
    pub unrouted: Unrouted,
    /// How many records of a stream are sent together; 1 at least.
    pub batch: usize,
    /// How long a batch waits to become full.
    #[serde(deserialize_with = "span")]
    pub batch_wait: Duration,
    /// How many records of a stream are in memory.
    pub max_pending: usize,
    /// How many octets they take, about.
    pub max_pending_bytes: usize,
    /// The longest line of a stream, in octets.
    pub max_line: usize,
    /// How often a record of a stream is tried; 1 at least.
    pub attempts: u32,
    /// The wait before the second attempt.
    #[serde(deserialize_with = "span")]
    pub retry_first: Duration,
    /// The longest wait between attempts.
    #[serde(deserialize_with = "span")]
    pub retry_longest: Duration,
}

fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Span::deserialize(deserializer).map(Into::into)
}

/// What becomes of a record that no route takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unrouted {
    /// It is refused: 550.
    #[default]
    Refuse,
    /// It is wanted nowhere: 250, and gone.
    Drop,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            unrouted: Unrouted::Refuse,
            batch: 256,
            batch_wait: Duration::from_millis(50),
            max_pending: 4096,
            max_pending_bytes: 64 << 20,
            max_line: 1 << 20,
            attempts: 5,
            retry_first: Duration::from_secs(1),
            retry_longest: Duration::from_secs(60),
        }
    }
}

impl RelayConfig {
    /// The defaults, without routes.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn backoff(&self) -> Backoff {
        Backoff { first: self.retry_first, longest: self.retry_longest }
    }
}

/// A relay that cannot work.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum RelayError {
    /// A route makes no sense.
    #[non_exhaustive]
    Route {
        /// Its place, counted from 0.
        at: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The registry does not have what a route needs.
    #[non_exhaustive]
    Registry {
        /// The route's place, counted from 0.
        at: usize,
        /// What is missing.
        error: RegistryError,
    },
}

impl fmt::Display for RelayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route { at, why } => write!(f, "route {at}: {why}"),
            Self::Registry { at, error } => write!(f, "route {at}: {error}"),
        }
    }
}

impl std::error::Error for RelayError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_the_default_and_every_entry_sets_what_it_names() {
        let read = |text: &str| toml::from_str::<RelayConfig>(text).map_err(|error| error.message().to_owned());
        assert_eq!(read("").unwrap(), RelayConfig::default());
        let config = read(
            "unrouted = \"drop\"\nbatch = 2\nbatch_wait = \"7ms\"\nmax_pending = 3\nmax_pending_bytes = 4\nmax_line = 5\n\
             attempts = 6\nretry_first = 1.5\nretry_longest = \"1m 30s\"\n[[routes]]\noutgoing = \"o\"",
        )
        .unwrap();
        let expected = RelayConfig {
            routes: vec![Route { outgoing: "o".into(), ..Route::default() }],
            unrouted: Unrouted::Drop,
            batch: 2,
            batch_wait: Duration::from_millis(7),
            max_pending: 3,
            max_pending_bytes: 4,
            max_line: 5,
            attempts: 6,
            retry_first: Duration::from_millis(1500),
            retry_longest: Duration::from_secs(90),
        };
        assert_eq!(config, expected);
        assert!(read("bach = 2").is_err());
    }
}
