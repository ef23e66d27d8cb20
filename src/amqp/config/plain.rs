//! A config out of a configuration file.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::{Address, Config, HostOrder, Secret, TlsParameters};
use crate::amqp::{Credentials, FieldTable, Sasl};

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Entries::deserialize(deserializer)?.into_config().map_err(D::Error::custom)
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Entries {
    url: Option<Secret>,
    host: Option<String>,
    port: Option<u16>,
    hosts: Option<Vec<Address>>,
    order: Option<HostOrder>,
    username: Option<String>,
    password: Option<Secret>,
    #[serde(alias = "vhost")]
    virtual_host: Option<String>,
    mechanisms: Option<Vec<Sasl>>,
    connection_name: Option<String>,
    client_properties: Option<FieldTable>,
    locale: Option<String>,
    heartbeat: Option<Span>,
    channel_max: Option<u16>,
    frame_max: Option<u32>,
    allow_small_frames: Option<bool>,
    connect_timeout: Option<Span>,
    attempt_timeout: Option<Span>,
    call_deadline: Option<Span>,
    close_deadline: Option<Span>,
    max_message_size: Option<u64>,
    max_buffered: Option<usize>,
    max_unwritten: Option<usize>,
    tls: Option<Tls>,
}

/// `true`, `false`, or how.
struct Tls(Option<TlsParameters>);

fn put<T, U: From<T>>(place: &mut U, value: Option<T>) {
    if let Some(value) = value {
        *place = value.into();
    }
}

impl Entries {
    fn into_config(self) -> Result<Config, String> {
        let mut config = match &self.url {
            Some(url) => Config::from_url(url.reveal()).map_err(|error| error.to_string())?,
            None => Config::default(),
        };
        match (self.hosts, self.host) {
            (Some(_), Some(_)) => return Err("either host or hosts, not both".into()),
            (Some(hosts), None) if hosts.is_empty() => return Err("hosts is empty".into()),
            (Some(hosts), None) => config.hosts = hosts,
            (None, Some(host)) => config.hosts = vec![Address { host, port: None }],
            (None, None) => {}
        }
        if let Some(port) = self.port {
            config = config.port(port);
        }
        if self.username.is_some() || self.password.is_some() {
            let username = self.username.unwrap_or_else(|| config.credentials.username().to_owned());
            let secret = self.password.unwrap_or_else(|| Secret::new(config.credentials.secret()));
            config.credentials = Credentials::new(username, secret.reveal());
        }
        put(&mut config.order, self.order);
        put(&mut config.virtual_host, self.virtual_host);
        put(&mut config.mechanisms, self.mechanisms);
        put(&mut config.client_properties, self.client_properties);
        put(&mut config.locale, self.locale);
        put(&mut config.channel_max, self.channel_max);
        put(&mut config.frame_max, self.frame_max);
        put(&mut config.allow_small_frames, self.allow_small_frames);
        put(&mut config.connect_timeout, self.connect_timeout);
        put(&mut config.call_deadline, self.call_deadline);
        put(&mut config.close_deadline, self.close_deadline);
        put(&mut config.max_message_size, self.max_message_size);
        put(&mut config.max_buffered, self.max_buffered);
        put(&mut config.max_unwritten, self.max_unwritten);
        if let Some(Span(limit)) = self.attempt_timeout {
            config.attempt_timeout = Some(limit);
        }
        if let Some(Span(interval)) = self.heartbeat {
            config.heartbeat = whole_seconds(interval).ok_or("heartbeat is in whole seconds, 65535 at most")?;
        }
        if let Some(name) = self.connection_name {
            config = config.connection_name(name);
        }
        if let Some(Tls(tls)) = self.tls {
            config.tls = tls;
        }
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }
}

fn whole_seconds(span: Duration) -> Option<u16> {
    (span.subsec_nanos() == 0).then(|| u16::try_from(span.as_secs()).ok()).flatten()
}

impl<'de> Deserialize<'de> for Tls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parameters;

        impl<'de> Visitor<'de> for Parameters {
            type Value = Tls;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or a map with the TLS parameters")
            }

            fn visit_bool<E>(self, on: bool) -> Result<Tls, E> {
                Ok(Tls(on.then(TlsParameters::default)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Tls, A::Error> {
                TlsParameters::deserialize(MapAccessDeserializer::new(map)).map(|tls| Tls(Some(tls)))
            }
        }

        deserializer.deserialize_any(Parameters)
    }
}

/// A text; an error does not repeat what stood there instead, which may be a secret all the same.
struct Text<T>(&'static str, fn(&str) -> Result<T, String>);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(E::custom)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<T, E> {
        Err(E::custom(format_args!("{} is expected, in quotes", self.0)))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<T, E> {
        self.visit_bool(false)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<T, E> {
        self.visit_bool(false)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<T, E> {
        self.visit_bool(false)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text("a text", |text| Ok(Self::new(text))))
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("host:port", |text| {
            text.parse().map_err(|error: crate::error::Error| error.to_string())
        }))
    }
}

impl<'de> Deserialize<'de> for Sasl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("the name of a mechanism", |text| {
            Self::from_name(text)
                .ok_or_else(|| format!("{text} is not one of the mechanisms {}", Self::ALL.map(Self::name).join(", ")))
        }))
    }
}

/// A span of time: a number of seconds, or numbers with units.
pub(crate) struct Span(Duration);

impl From<Span> for Duration {
    fn from(Span(span): Span) -> Self {
        span
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Spans;

        impl Visitor<'_> for Spans {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of seconds, or a text such as \"1m 30s\"")
            }

            fn visit_u64<E>(self, seconds: u64) -> Result<Span, E> {
                Ok(Span(Duration::from_secs(seconds)))
            }

            fn visit_i64<E: Error>(self, seconds: i64) -> Result<Span, E> {
                u64::try_from(seconds).map(|seconds| Span(Duration::from_secs(seconds))).map_err(|_| too_odd())
            }

            fn visit_f64<E: Error>(self, seconds: f64) -> Result<Span, E> {
                Duration::try_from_secs_f64(seconds).map(Span).map_err(|_| too_odd())
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Span, E> {
                span(text).map(Span).ok_or_else(too_odd)
            }
        }

        deserializer.deserialize_any(Spans)
    }
}

fn too_odd<E: Error>() -> E {
    E::custom("a span of time is a number of seconds, or numbers with the units ms, s, m, h, d: \"1m 30s\"")
}

/// `1h 30m`, `20s`, `250ms`, `1.5s`.
fn span(text: &str) -> Option<Duration> {
    let mut whole = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(end);
        let behind = behind.trim_start();
        let end = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" | "sec" | "second" | "seconds" => Duration::from_secs(1),
            "m" | "min" | "minute" | "minutes" => Duration::from_secs(60),
            "h" | "hour" | "hours" => Duration::from_secs(3600),
            "d" | "day" | "days" => Duration::from_secs(24 * 3600),
            _ => return None,
        };
        let part = match number.parse::<u32>() {
            Ok(number) => unit.checked_mul(number)?,
            Err(_) => Duration::try_from_secs_f64(unit.as_secs_f64() * number.parse::<f64>().ok()?).ok()?,
        };
        whole = whole.checked_add(part)?;
        rest = behind.trim_start();
    }
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_the_default() {
        assert_eq!(read("{}").unwrap(), Config::default());
    }

    #[test]
    fn kb2_every_entry_sets_what_it_names() {
        let config = read(
            r#"{"hosts": ["h1", "h2:1", "[::1]:2"], "order": "shuffled", "username": "u", "password": "hush",
                "vhost": "v", "mechanisms": ["external", "PLAIN"], "connection_name": "me",
                "client_properties": {"answer": 42}, "locale": "en_GB", "heartbeat": "1m 30s", "channel_max": 3,
                "frame_max": 4096, "allow_small_frames": true, "connect_timeout": 1.5, "attempt_timeout": "250ms",
                "call_deadline": 7, "close_deadline": "1h", "max_message_size": 10, "max_buffered": 11,
                "max_unwritten": 12,
                "tls": {"ca_cert_file": "ca.pem", "cert_file": "c.pem", "key_file": "k.pem", "key_password": "hush",
                        "verify_peer": false, "server_name": "other"}}"#,
        )
        .unwrap();
        let tls = TlsParameters {
            ca_cert_file: Some("ca.pem".into()),
            cert_file: Some("c.pem".into()),
            key_file: Some("k.pem".into()),
            key_password: Some(Secret::new("hush")),
            verify_peer: false,
            server_name: Some("other".into()),
        };
        let address = |text: &str| text.parse::<Address>().unwrap();
        let expected = Config {
            hosts: vec![address("h1"), address("h2:1"), address("[::1]:2")],
            order: HostOrder::Shuffled,
            tls: Some(tls),
            credentials: Credentials::new("u", "hush"),
            mechanisms: vec![Sasl::External, Sasl::Plain],
            virtual_host: "v".into(),
            client_properties: FieldTable::new().with("answer", 42_i64).with("connection_name", "me"),
            locale: "en_GB".into(),
            heartbeat: 90,
            frame_max: 4096,
            allow_small_frames: true,
            channel_max: 3,
            connect_timeout: Duration::from_millis(1500),
            attempt_timeout: Some(Duration::from_millis(250)),
            call_deadline: Duration::from_secs(7),
            close_deadline: Duration::from_secs(3600),
            max_message_size: 10,
            max_buffered: 11,
            max_unwritten: 12,
        };
        assert_eq!(config, expected);
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[test]
    fn a_url_is_where_the_rest_begins() {
        let config = read(r#"{"url": "amqp://u:p@h1,h2/v?heartbeat=9", "password": "other", "port": 7}"#).unwrap();
        assert_eq!(config.credentials, Credentials::new("u", "other"));
        assert_eq!(config.hosts, [Address::new("h1", 7), Address::new("h2", 7)]);
        assert_eq!((config.heartbeat, config.virtual_host), (9, "v".into()));
        let single = read(r#"{"host": "::1", "username": "u", "tls": true}"#).unwrap();
        assert_eq!(single.hosts, [Address { host: "::1".into(), port: None }]);
        assert_eq!(single.credentials, Credentials::new("u", "guest"));
        assert_eq!(single.default_port(), 5671);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for (text, words) in [
            (r#"{"colour": "hush"}"#, "unknown field `colour`, expected one of"),
            (r#"{"password": 4711}"#, "in quotes"),
            (r#"{"password": true}"#, "in quotes"),
            (r#"{"url": "amqp://u:hush@h:x"}"#, "port"),
            (r#"{"url": 4711}"#, "in quotes"),
            (r#"{"tls": {"key_password": 4711}}"#, "in quotes"),
            (r#"{"tls": {"colour": 1}}"#, "unknown field `colour`"),
            (r#"{"tls": {"cert_file": "c.pem"}}"#, "no keyfile"),
            (r#"{"tls": 1}"#, "TLS parameters"),
            (r#"{"mechanisms": ["MAGIC"]}"#, "EXTERNAL"),
            (r#"{"order": "random"}"#, "shuffled"),
            (r#"{"host": "a", "hosts": ["b"]}"#, "not both"),
            (r#"{"hosts": []}"#, "empty"),
            (r#"{"hosts": ["h:x"]}"#, "port"),
            (r#"{"heartbeat": "1500ms"}"#, "whole seconds"),
            (r#"{"heartbeat": 70000}"#, "65535"),
            (r#"{"frame_max": 4096}"#, "allow_small_frames"),
            (r#"{"call_deadline": -1}"#, "span of time"),
            (r#"{"call_deadline": "5 parsecs"}"#, "span of time"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
            assert!(!error.contains("hush") && !error.contains("4711"), "{error}");
        }
    }

    #[test]
    fn spans_of_time() {
        for (text, millis) in
            [("20s", 20_000), ("1h 30m", 5_400_000), ("1h30m", 5_400_000), ("250 ms", 250), ("1.5s", 1500), ("0s", 0)]
        {
            assert_eq!(span(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", " ", "5", "s", "1x", "-1s", "1..5s", "99999999999999999999d"] {
            assert_eq!(span(text), None, "{text}");
        }
    }
}
