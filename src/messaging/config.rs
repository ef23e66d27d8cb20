//! Which transport, and how to connect: as plain data.

use crate::amqp;
use crate::error::{Error, ErrorKind, Result};

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
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Config {
    /// AMQP 0-9-1.
    Amqp(amqp::Config),
}

impl Config {
    /// What a URL says: `amqp://` and `amqps://` as [`amqp::Connection::open`] reads them.
    ///
    /// # Errors
    ///
    /// `InvalidUrl` says what is wrong with it, without repeating it; `Unsupported` for a `kafka://` URL where this crate was built
    /// without the feature `kafka`.
    pub fn from_url(url: &str) -> Result<Self> {
        if url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("kafka:")) {
            let message = "kafka:// needs the feature kafka of leveret, which is not switched on";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        amqp::Config::from_url(url).map(Self::Amqp)
    }

    /// What carries the messages.
    pub fn transport(&self) -> Transport {
        match self {
            Self::Amqp(_) => Transport::Amqp,
        }
    }
}

impl From<amqp::Config> for Config {
    fn from(config: amqp::Config) -> Self {
        Self::Amqp(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_its_transport() {
        assert_eq!(Config::from_url("amqps://h/%2f").unwrap().transport(), Transport::Amqp);
        assert_eq!(Config::from_url("kafka://h:9092").unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(Config::from_url("http://h").unwrap_err().kind(), ErrorKind::InvalidUrl);
    }
}
