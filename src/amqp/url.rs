//! `amqp://` and `amqps://` URLs, as RabbitMQ's URI specification has them.
//!
//! ```text
//! amqp://user:password@host:port/vhost?heartbeat=10&frame_max=65536
//! ```
//!
//! Everything is optional but the scheme. No path means the virtual host `/`; an empty path means the virtual host with the
//! empty name. User, password, host and virtual host are percent-decoded; `+` stands for itself.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::SaslMechanism;
use crate::codec::ShortString;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::client::{Config, Credentials};
use crate::transport::Address;

const PORT: u16 = 5672;
const TLS_PORT: u16 = 5671;

/// The parameters of the query, for the error that lists them.
const KNOWN: [&str; 5] = ["auth_mechanism", "channel_max", "connection_timeout", "frame_max", "heartbeat"];

/// What a URL says.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) address: Address,
    pub(crate) config: Config,
    pub(crate) connect_timeout: Option<Duration>,
    /// Whether the scheme is `amqps`.
    pub(crate) tls: bool,
}

/// Reads a URL. Errors never repeat it: it may hold a password.
pub(crate) fn parse(text: &str) -> Result<Parsed> {
    if text.contains('#') {
        return Err(invalid("the URL has a fragment (#); in a user name or password it is written %23"));
    }
    if !text.contains("://") {
        return Err(invalid("the URL does not begin with amqp:// or amqps://"));
    }
    let url = Url::parse(text).map_err(|error| invalid(format!("the URL cannot be understood: {error}")))?;
    let tls = match url.scheme() {
        "amqp" => false,
        "amqps" => true,
        other => return Err(invalid(format!("the URL's scheme is {other}, not amqp or amqps"))),
    };
    let host = match url.host() {
        None => "localhost".to_owned(),
        Some(Host::Domain("")) => "localhost".to_owned(),
        Some(Host::Domain(name)) => decoded(name, "host")?,
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
    };
    let mut config = Config { virtual_host: virtual_host(url.path())?, ..Config::default() };
    if !url.username().is_empty() || url.password().is_some() {
        let username = decoded(url.username(), "user name")?;
        let password = decoded(url.password().unwrap_or_default(), "password")?;
        config.credentials = Credentials::new(username, password);
    }
    let connect_timeout = query(url.query().unwrap_or_default(), &mut config)?;
    let port = url.port().unwrap_or(if tls { TLS_PORT } else { PORT });
    Ok(Parsed { address: Address { host, port }, config, connect_timeout, tls })
}

fn virtual_host(path: &str) -> Result<ShortString> {
    match path.strip_prefix('/') {
        None => Ok(ShortString::from_static("/")),
        Some(name) if name.contains('/') => {
            Err(invalid("the URL's path has several segments; a slash in a virtual host is written %2f"))
        }
        Some(name) => decoded(name, "virtual host").map(ShortString::from),
    }
}

fn query(query: &str, config: &mut Config) -> Result<Option<Duration>> {
    let mut connect_timeout = None;
    let mut mechanisms = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value, "query")?;
        match name {
            "heartbeat" => config.heartbeat = number(name, &value, "seconds")?,
            "channel_max" => config.channel_max = number(name, &value, "channels")?,
            "frame_max" => config.frame_max = number(name, &value, "octets")?,
            "connection_timeout" => {
                connect_timeout = Some(Duration::from_millis(number(name, &value, "milliseconds")?));
            }
            "auth_mechanism" => mechanisms.push(SaslMechanism::from_name(&value).ok_or_else(|| {
                invalid(format!("auth_mechanism={value} is not one of PLAIN, AMQPLAIN, EXTERNAL, ANONYMOUS"))
            })?),
            _ => {
                return Err(invalid(format!("the URL's parameter {name} is not one of {}", KNOWN.join(", "))));
            }
        }
    }
    if !mechanisms.is_empty() {
        config.mechanisms = mechanisms;
    }
    Ok(connect_timeout)
}

fn number<T: std::str::FromStr>(name: &str, value: &str, unit: &str) -> Result<T> {
    value.parse().map_err(|_| invalid(format!("{name}={value} is not a number of {unit} in range")))
}

fn decoded(text: &str, what: &str) -> Result<String> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(invalid(format!("the URL's {what} is not UTF-8 behind its percent signs"))),
    }
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidUrl, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> (String, u16, String, String) {
        let Parsed { address, config, .. } = parse(url).unwrap();
        (address.host, address.port, config.virtual_host.to_string(), config.credentials.username().to_owned())
    }

    fn expected(host: &str, port: u16, virtual_host: &str, user: &str) -> (String, u16, String, String) {
        (host.into(), port, virtual_host.into(), user.into())
    }

    #[test]
    fn c18_hosts_users_and_virtual_hosts() {
        for (url, parts_of_it) in [
            ("amqp://", expected("localhost", 5672, "/", "guest")),
            ("amqp://host", expected("host", 5672, "/", "guest")),
            ("amqp://host/", expected("host", 5672, "", "guest")),
            ("amqp://host/%2f", expected("host", 5672, "/", "guest")),
            ("amqp://user:pass@host:10000/vhost", expected("host", 10000, "vhost", "user")),
            ("amqp://user%61:%61pass@ho%61st:10000/v%2fhost", expected("hoast", 10000, "v/host", "usera")),
            ("amqp://a+b@host", expected("host", 5672, "/", "a+b")),
            ("amqp://[::1]", expected("::1", 5672, "/", "guest")),
            ("amqp://127.0.0.1:1/x", expected("127.0.0.1", 1, "x", "guest")),
            ("amqps://host", expected("host", 5671, "/", "guest")),
            ("amqps://[::1]:1", expected("::1", 1, "/", "guest")),
        ] {
            assert_eq!(parts(url), parts_of_it, "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for (url, words) in [
            ("http://u:hush@host", "scheme"),
            ("amqp://u:hush@host/a/b", "%2f"),
            ("amqp://u:hush@host?heartbeat=-1", "seconds"),
            ("amqp://u:hush@host?heartbeat=70000", "range"),
            ("amqp://u:hush@host?colour=red", "auth_mechanism, channel_max"),
            ("amqp://u:hush@host?auth_mechanism=MAGIC", "EXTERNAL"),
            ("amqp://u:hu#sh@host", "%23"),
            ("amqp://u:hush@host:99999", "port"),
            ("no url", "begin with amqp://"),
            ("u:hush@host", "begin with amqp://"),
            ("amqp://u:hush@ho st", "understood"),
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidUrl, "{url}");
            assert!(error.to_string().contains(words), "{url}: {error}");
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
    }

    #[test]
    fn parameters_set_what_they_name() {
        let parsed =
            parse("amqp://h?heartbeat=7&frame_max=8192&channel_max=3&connection_timeout=1500&auth_mechanism=external")
                .unwrap();
        assert_eq!((parsed.config.heartbeat, parsed.config.frame_max, parsed.config.channel_max), (7, 8192, 3));
        assert_eq!(parsed.connect_timeout, Some(Duration::from_millis(1500)));
        assert_eq!(parsed.config.mechanisms, [SaslMechanism::External]);
    }
}
