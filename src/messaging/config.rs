//! Which transport, and how to connect: as plain data.

use crate::amqp;
use crate::error::Result;
#[cfg(not(feature = "kafka"))]
use crate::error::{Error, ErrorKind};
#[cfg(feature = "kafka")]
use crate::kafka::KafkaConfig;

/// What carries the messages.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// AMQP 0-9-1.
    Amqp,
    /// Kafka.
    Kafka,
}

/// How to connect, as data: it can be compared and be the key of a map. `Debug` leaves the secrets out.
///
/// With the feature `serde` it is read from a URL, or from a map of settings as for an [`amqp::Config`]. Kafka stands there as a URL,
/// which can carry every property (`kafka://h1:9092,h2:9092?compression.type=lz4`); where its properties are a table of their own, that is
/// a `KafkaConfig`, which is read by itself and becomes one of these by `into()`.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "kafka",
    expect(clippy::large_enum_variant, reason = "there are few of them, and most are the large one")
)]
pub enum Config {
    /// AMQP 0-9-1.
    Amqp(amqp::Config),
    /// Kafka (feature `kafka`).
    #[cfg(feature = "kafka")]
    Kafka(KafkaConfig),
}

impl Config {
    /// What a URL says: `amqp://` and `amqps://` as [`amqp::Connection::open`] reads them, and with the feature `kafka` also
    /// `kafka://h1:9092,h2:9092`, as `KafkaConfig::from_url` reads it.
    ///
    /// # Errors
    ///
    /// `InvalidUrl` says what is wrong with it, without repeating it; `Unsupported` for a `kafka://` URL where this crate was built
    /// without the feature `kafka`.
    pub fn from_url(url: &str) -> Result<Self> {
        if url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("kafka:")) {
            #[cfg(feature = "kafka")]
            return KafkaConfig::from_url(url).map(Self::Kafka);
            #[cfg(not(feature = "kafka"))]
            {
                let message = "kafka:// needs the feature kafka of leveret, which is not switched on";
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        }
        amqp::Config::from_url(url).map(Self::Amqp)
    }

    /// What carries the messages.
    pub fn transport(&self) -> Transport {
        match self {
            Self::Amqp(_) => Transport::Amqp,
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => Transport::Kafka,
        }
    }
}

impl From<amqp::Config> for Config {
    fn from(config: amqp::Config) -> Self {
        Self::Amqp(config)
    }
}

#[cfg(feature = "kafka")]
impl From<KafkaConfig> for Config {
    fn from(config: KafkaConfig) -> Self {
        Self::Kafka(config)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Config {
    /// A URL of either transport, or a map as for an [`amqp::Config`].
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Config;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a URL, or a map of settings")
            }

            fn visit_str<E: serde::de::Error>(self, url: &str) -> std::result::Result<Config, E> {
                Config::from_url(url).map_err(E::custom)
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> std::result::Result<Config, A::Error> {
                let map = serde::de::value::MapAccessDeserializer::new(map);
                <amqp::Config as serde::Deserialize>::deserialize(map).map(Config::Amqp)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "kafka")]
    use crate::error::ErrorKind;

    #[test]
    fn a_url_names_its_transport() {
        assert_eq!(Config::from_url("amqps://h/%2f").unwrap().transport(), Transport::Amqp);
        #[cfg(feature = "kafka")]
        assert_eq!(Config::from_url("kafka://h:9092").unwrap().transport(), Transport::Kafka);
        #[cfg(not(feature = "kafka"))]
        assert_eq!(Config::from_url("kafka://h:9092").unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(Config::from_url("http://h").unwrap_err().kind(), ErrorKind::InvalidUrl);
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_config_is_a_url_or_a_map() {
        let read = |text: &str| serde_json::from_str::<Config>(text).map_err(|error| error.to_string());
        let url = read(r#""amqp://u:hush@h:1/v""#).unwrap();
        let map = read(r#"{"host": "h", "port": 1, "username": "u", "password": "hush", "vhost": "v"}"#).unwrap();
        assert_eq!(url, map);
        for wrong in [r#""http://u:hush@h""#, r#"{"hst": "h"}"#, r#"["amqp://u:hush@h"]"#] {
            let error = read(wrong).unwrap_err();
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
