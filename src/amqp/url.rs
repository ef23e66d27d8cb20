//! `amqp://` URLs, as RabbitMQ's URI specification has them.
//!
//! ```text
//! amqp://user:password@host:port,host:port/vhost?heartbeat=10&frame_max=65536
//! ```
//!
//! Everything is optional but the scheme. No path means the virtual host `/`; an empty path means the virtual host with the
//! empty name. User, password, host and virtual host are percent-decoded; `+` stands for itself.
//!
//! The parts are cut out here and not by the `url` crate, which knows neither several hosts nor a user without a host; it
//! judges each host.

use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Host;

use super::config::{Address, Config, Secret, TlsParameters};
use super::{Credentials, Sasl, ShortString};
use crate::error::{Error, ErrorKind, Result};

/// The parameters of the query, for the error that lists them.
const KNOWN: [&str; 11] = [
    "auth_mechanism",
    "cacertfile",
    "certfile",
    "channel_max",
    "connection_timeout",
    "frame_max",
    "heartbeat",
    "keyfile",
    "password",
    "server_name_indication",
    "verify",
];

/// The variable that [`Config::from_env`] reads.
const VARIABLE: &str = "AMQP_URL";

impl Config {
    /// What an `amqp://` or `amqps://` URL says, and the defaults for the rest. [`Connection::open`](super::Connection::open)
    /// describes the form.
    ///
    /// # Errors
    ///
    /// `InvalidUrl` says what is wrong with it, without repeating it.
    pub fn from_url(url: &str) -> Result<Self> {
        parse(url)
    }

    /// What the URL in the environment variable `AMQP_URL` says.
    ///
    /// # Errors
    ///
    /// `InvalidUrl` when it is not set, or cannot be understood.
    pub fn from_env() -> Result<Self> {
        let wrong = |message: String| Error::new(ErrorKind::InvalidUrl, message);
        match std::env::var(VARIABLE) {
            Ok(url) => Self::from_url(&url)
                .map_err(|error| Error::because(error.kind(), format!("the environment variable {VARIABLE}"), &error)),
            Err(std::env::VarError::NotPresent) => {
                Err(wrong(format!("the environment variable {VARIABLE}, which names the server, is not set")))
            }
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(wrong(format!("the environment variable {VARIABLE} is not UTF-8")))
            }
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    /// `host`, `host:port`, `[::1]` or `[::1]:port`.
    fn from_str(text: &str) -> Result<Self> {
        host_and_port(text, true)
    }
}

/// Reads a URL. Errors never repeat it: it may hold a password.
fn parse(text: &str) -> Result<Config> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(invalid("the URL does not begin with amqp://"));
    };
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "amqp" => None,
        "amqps" => Some(TlsParameters::default()),
        other if other.bytes().all(|octet| octet.is_ascii_alphanumeric()) => {
            return Err(invalid(format!("the URL's scheme is {other}, not amqp or amqps")));
        }
        _ => return Err(invalid("the URL's scheme is neither amqp nor amqps")),
    };
    if rest.contains('#') {
        return Err(invalid("the URL has a fragment (#); in a user name or password it is written %23"));
    }
    if rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(invalid("the URL has a space in it, which is written %20"));
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, Some(path)),
        None => (rest, None),
    };
    let (user_info, hosts) = match authority.rsplit_once('@') {
        Some((user_info, hosts)) => (Some(user_info), hosts),
        None => (None, authority),
    };
    // Otherwise parts of a password would be taken for a host, its port and the virtual host, and be shown as such.
    if path.is_some_and(|path| path.contains('@')) || user_info.is_none() && query.contains('@') {
        return Err(invalid(
            "the URL has an @ behind the hosts; in a user name or password / and ? are written %2f and %3f, and elsewhere @ is \
             written %40",
        ));
    }
    let mut config = Config { tls, hosts: addresses(hosts)?, virtual_host: virtual_host(path)?, ..Config::default() };
    if let Some(user_info) = user_info {
        config.credentials = credentials(user_info)?;
    }
    parameters(query, &mut config).map_err(|error| match query.contains('@') {
        // It may be the rest of a password.
        true => {
            invalid("the URL has an @ behind a ?, and what stands there are no parameters; elsewhere it is written %40")
        }
        false => error,
    })?;
    Ok(config)
}

/// What is not said stays as it is by default, as with RabbitMQ's own clients.
fn credentials(user_info: &str) -> Result<Credentials> {
    let (username, secret) = match user_info.split_once(':') {
        Some((username, secret)) => (username, Some(decoded(secret, "password")?)),
        None => (user_info, None),
    };
    let default = Credentials::default();
    if username.is_empty() && secret.is_none() {
        return Ok(default);
    }
    let secret = secret.unwrap_or_else(|| default.secret().to_owned());
    Ok(Credentials::new(decoded(username, "user name")?, secret))
}

fn addresses(list: &str) -> Result<Vec<Address>> {
    if list.is_empty() {
        return Ok(vec![Address::default()]);
    }
    list.split(',').map(|one| host_and_port(one, list.contains(','))).collect()
}

fn host_and_port(text: &str, needs_name: bool) -> Result<Address> {
    let colon = match text.rfind(']') {
        Some(end) => text.get(end..).and_then(|rest| rest.find(':')).map(|at| end + at),
        None => text.find(':'),
    };
    let (host, port) = match colon {
        Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..)),
        None => (text, None),
    };
    let port = match port {
        None => None,
        Some(port) if !port.is_empty() && port.bytes().all(|octet| octet.is_ascii_digit()) => {
            Some(port.parse().map_err(|_| invalid("the URL's port is not one of 0 to 65535"))?)
        }
        Some(_) => return Err(invalid("the URL's port is not a number; an IPv6 address is written in brackets")),
    };
    if host.is_empty() {
        return match needs_name {
            true => Err(invalid("one of the hosts has no name")),
            false => Ok(Address { port, ..Address::default() }),
        };
    }
    // A name is looked at behind its percent signs, so that nothing hides there.
    let name = decoded(host, "host")?;
    let strange = |c: char| c == '%' || c.is_whitespace() || c.is_control();
    let host = match Host::parse_opaque(&name) {
        Ok(Host::Ipv6(address)) => address.to_string(),
        Ok(Host::Domain(_) | Host::Ipv4(_)) if !name.contains(strange) => name,
        _ => return Err(invalid("the URL's host cannot be understood: it is neither a name nor an address")),
    };
    Ok(Address { host, port })
}

fn virtual_host(path: Option<&str>) -> Result<ShortString> {
    match path {
        None => Ok(ShortString::from_static("/")),
        Some(name) if name.contains('/') => {
            Err(invalid("the URL's path has several segments; a slash in a virtual host is written %2f"))
        }
        Some(name) => decoded(name, "virtual host").map(ShortString::from),
    }
}

fn parameters(query: &str, config: &mut Config) -> Result<()> {
    let mut mechanisms = Vec::new();
    let mut seen = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value, "query")?;
        if name != "auth_mechanism" && seen.contains(&name) {
            return Err(invalid(format!("the URL's parameter {name} stands there twice")));
        }
        seen.push(name);
        match name {
            "heartbeat" => config.heartbeat = number(name, &value, "seconds")?,
            "channel_max" => config.channel_max = number(name, &value, "channels")?,
            "frame_max" => config.frame_max = number(name, &value, "octets")?,
            "connection_timeout" => match number(name, &value, "milliseconds")? {
                0 => return Err(invalid("connection_timeout=0 leaves no time to connect; there is always a limit")),
                limit => config.connect_timeout = Duration::from_millis(limit),
            },
            "auth_mechanism" => mechanisms.push(Sasl::from_name(&value).ok_or_else(|| {
                let known = Sasl::ALL.map(Sasl::name).join(", ");
                invalid(format!("auth_mechanism={value} is not one of {known}"))
            })?),
            _ if KNOWN.contains(&name) => tls_parameter(name, value, config)?,
            _ => return Err(invalid(format!("the URL's parameter {name} is not one of {}", KNOWN.join(", ")))),
        }
    }
    if !mechanisms.is_empty() {
        config.mechanisms = mechanisms;
    }
    Ok(())
}

fn tls_parameter(name: &str, value: String, config: &mut Config) -> Result<()> {
    let Some(tls) = &mut config.tls else {
        return Err(invalid(format!("the URL's parameter {name} needs TLS: amqps:// in place of amqp://")));
    };
    if value.is_empty() {
        return Err(invalid(format!("the URL's parameter {name} has no value")));
    }
    match (name, value.as_str()) {
        ("cacertfile", _) => tls.ca_cert_file = Some(value.into()),
        ("certfile", _) => tls.cert_file = Some(value.into()),
        ("keyfile", _) => tls.key_file = Some(value.into()),
        ("password", _) => tls.key_password = Some(Secret::new(value)),
        ("server_name_indication", "disable") => {
            return Err(invalid("server_name_indication=disable is not supported, only another name"));
        }
        ("server_name_indication", _) => tls.server_name = Some(value),
        ("verify", "verify_peer") => tls.verify_peer = true,
        ("verify", "verify_none") => tls.verify_peer = false,
        _ => return Err(invalid("verify is neither verify_peer nor verify_none")),
    }
    Ok(())
}

fn number<T: FromStr>(name: &str, value: &str, unit: &str) -> Result<T> {
    value.parse().map_err(|_| invalid(format!("{name}={value} is not a number of {unit} in range")))
}

/// Percent-decodes. Unlike in a form, `+` is no space.
fn decoded(text: &str, what: &str) -> Result<String> {
    let octets = text.as_bytes();
    let is_whole =
        |at: usize| octets.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    if !(0..octets.len()).filter(|at| octets.get(*at) == Some(&b'%')).all(is_whole) {
        return Err(invalid(format!("the URL's {what} has a % that stands for nothing; it is written %25")));
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(invalid(format!("the URL's {what} is not UTF-8 behind its percent signs"))),
    }
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidUrl, message)
}

#[cfg(test)]
mod tests;
