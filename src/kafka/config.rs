//! How to connect to Kafka, as plain data: librdkafka's properties, and little else.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

use super::failure;
use crate::error::{Error, ErrorKind, Result};

/// How to connect to Kafka: [properties of librdkafka](https://github.com/confluentinc/librdkafka/blob/v2.12.1/CONFIGURATION.md),
/// whichever they are, and a few settings of this library.
///
/// ```
/// use leveret::kafka::KafkaConfig;
///
/// let config = KafkaConfig::from_url("kafka://h1:9092,h2:9092?compression.type=lz4")?.set("client.id", "hare");
/// assert_eq!(config.get("bootstrap.servers"), Some("h1:9092,h2:9092"));
/// # Ok::<(), leveret::error::Error>(())
/// ```
///
/// It can be made of pairs, compared, be the key of a map, and with the feature `serde` be read from a table of properties whose
/// values are strings, numbers or booleans. `Debug` leaves out the values of whatever looks like a secret.
///
/// What is set here goes to librdkafka as it is. A property that it does not know, or a value that it does not take, is an error
/// of the kind `InvalidArgument` when the client is built. Where nothing is set, these differ from librdkafka's own defaults:
///
/// | property | here | why |
/// |---|---|---|
/// | `enable.idempotence` | true, unless `acks`, `retries` or the like are set, or the sender has no confirms | retries neither duplicate nor reorder |
/// | `message.timeout.ms` | the sender's timeout | one deadline for everything |
/// | `topic.metadata.propagation.max.ms` | a third of the sender's timeout, at most 10 s | an unknown topic is told before the deadline |
/// | `reconnect.backoff.max.ms` | 1000 | brokers that are back are used soon |
/// | `auto.offset.reset` | earliest | a new group misses nothing |
/// | `enable.auto.offset.store` | false, always | accepting a delivery stores its offset |
///
/// # Properties of a message that Kafka does not have
///
/// The timestamp of a message becomes that of the record, and delivery mode 2 means nothing that Kafka would not do anyway. The
/// other properties of AMQP (content type, priority, ...) are `Unsupported` before anything is sent, unless they are mapped to
/// headers: see [`PropertyMapping`].
#[non_exhaustive]
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KafkaConfig {
    properties: BTreeMap<String, String>,
    /// What becomes of a message's properties that Kafka does not have.
    pub property_mapping: PropertyMapping,
    /// How long the first contact to the brokers may take; 20 s.
    pub connect_timeout: Duration,
    /// How long closing a client may take; 10 s.
    pub close_deadline: Duration,
}

/// What becomes of a message's properties that Kafka does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PropertyMapping {
    /// Such a message is `Unsupported`, and not sent.
    #[default]
    Refuse,
    /// They travel as headers, before the message's own: `content-type`, `content-encoding`, `priority`, `correlation-id`, `reply-to`,
    /// `expiration`, `message-id`, `type`, `user-id`, `app-id`, `cluster-id` and, unless it is 2, `delivery-mode`. Receivers make
    /// properties of them again. Nobody acts on them: nothing expires.
    Headers,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            properties: BTreeMap::new(),
            property_mapping: PropertyMapping::Refuse,
            connect_timeout: Duration::from_secs(20),
            close_deadline: Duration::from_secs(10),
        }
    }
}

/// Names in whose values secrets may stand. Parts of names, because a misspelt one must not show its value either.
const SECRET: &[&str] = &["pas", "secret", "pem", "token", "jaas", "oauth", "assertion", "credential"];

pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|part| name.contains(part))
}

impl KafkaConfig {
    /// No properties at all; `bootstrap.servers` has to be set.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a URL says: `kafka://HOST[:PORT][,HOST[:PORT]...][?PROPERTY=VALUE[&...]]`. The port is 9092 unless it says otherwise. A user
    /// and a password before the hosts, `USER:PASSWORD@`, are `sasl.username` and `sasl.password`; they go nowhere without
    /// `security.protocol`, so a client with them and without it is not built. What is special in a URL is written with percent signs.
    ///
    /// # Errors
    ///
    /// `InvalidUrl` says what is wrong with it, without repeating it.
    pub fn from_url(url: &str) -> Result<Self> {
        let wrong = |what: &'static str| Error::new(ErrorKind::InvalidUrl, format!("not a URL of Kafka: {what}"));
        let rest = match url.split_at_checked(8) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("kafka://") => rest,
            _ => return Err(wrong("it begins with kafka://")),
        };
        if rest.contains('#') {
            return Err(wrong("there are no fragments; a # is written %23"));
        }
        let decoded = |part: &str| {
            let part = percent_encoding::percent_decode_str(part).decode_utf8();
            part.map(std::borrow::Cow::into_owned).map_err(|_| wrong("behind the percent signs is no UTF-8"))
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, hosts) = rest.rsplit_once('@').map_or((None, rest), |(login, hosts)| (Some(login), hosts));
        // Otherwise parts of a password would be taken for a host and properties, and be shown as such.
        if query.contains('@') {
            return Err(wrong(
                "there is an @ behind a ?; in a password a ? is written %3f, and in a property an @ is written %40",
            ));
        }
        let mut config = Self::new();
        if let Some(login) = login {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            config = config.set("sasl.username", decoded(user)?).set("sasl.password", decoded(password)?);
        }
        let hosts = hosts.strip_suffix('/').unwrap_or(hosts);
        if hosts.contains('/') {
            return Err(wrong("there is no path; topics belong to targets and sources"));
        }
        let hosts = hosts.split(',').map(|host| server(host).map_err(wrong)).collect::<Result<Vec<_>>>()?;
        config = config.set("bootstrap.servers", hosts.join(","));
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').ok_or_else(|| wrong("a parameter is PROPERTY=VALUE"))?;
            let name = decoded(name)?;
            if config.get(&name).is_some() {
                return Err(wrong("a property stands there twice"));
            }
            config = config.set(name, decoded(value)?);
        }
        Ok(config)
    }

    /// Sets a property of librdkafka, in place of what it was.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }

    /// What a property was set to.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }

    /// What becomes of a message's properties that Kafka does not have.
    #[must_use]
    pub fn map_properties(mut self, mapping: PropertyMapping) -> Self {
        self.property_mapping = mapping;
        self
    }

    fn has(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.get(name).is_some())
    }

    /// # Errors
    ///
    /// `InvalidArgument`: there is no server, a login that would not be sent, or a property that librdkafka does not take.
    pub(crate) fn check(&self) -> Result<()> {
        let servers = ["bootstrap.servers", "metadata.broker.list", "test.mock.num.brokers"];
        if !servers.iter().any(|name| self.get(name).is_some_and(|value| !value.is_empty())) {
            let message = "there is no server: bootstrap.servers is not set";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        // librdkafka would leave them out, without a word. Which of the two it is to be is not guessed: one sends them in the clear.
        if self.has(&["sasl.username", "sasl.password"]) && !self.has(&["security.protocol"]) {
            let message = "a user and a password are set and would not be sent: security.protocol is to be sasl_ssl or sasl_plaintext, \
                           and sasl.mechanism says how (PLAIN, SCRAM-SHA-256, ...)";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        // Property by property, so that the first wrong one is told in the order of their names.
        for (name, value) in &self.properties {
            ClientConfig::new().set(name, value).create_native_config().map_err(failure::configuration)?;
        }
        Ok(())
    }

    fn common(&self) -> ClientConfig {
        let mut config: ClientConfig = self.properties.clone().into_iter().collect();
        if !self.has(&["reconnect.backoff.max.ms", "reconnect.backoff.jitter.ms"]) {
            config.set("reconnect.backoff.max.ms", "1000");
        }
        // rdkafka sets the level behind the properties, by what the crate `log` wants, which nobody uses here.
        let level = self.get("log_level").and_then(|level| level.parse().ok());
        config.set_log_level(match level {
            Some(..=3) => RDKafkaLogLevel::Error,
            Some(4) => RDKafkaLogLevel::Warning,
            Some(5) => RDKafkaLogLevel::Notice,
            Some(7..) => RDKafkaLogLevel::Debug,
            None if self.get("debug").is_some() => RDKafkaLogLevel::Debug,
            None | Some(_) => RDKafkaLogLevel::Info,
        });
        config
    }

    /// For a producer whose messages have this long.
    pub(super) fn producer(&self, timeout: Duration, confirms: bool) -> ClientConfig {
        let mut config = self.common();
        if !confirms {
            config.remove("request.required.acks").set("acks", "0");
        }
        let contrary = [
            "enable.idempotence",
            "acks",
            "request.required.acks",
            "retries",
            "message.send.max.retries",
            "max.in.flight",
            "max.in.flight.requests.per.connection",
            "queuing.strategy",
        ];
        if confirms && !self.has(&contrary) {
            config.set("enable.idempotence", "true");
        }
        let timeout = timeout.as_millis().clamp(1, 0x7fff_ffff);
        if !self.has(&["message.timeout.ms", "delivery.timeout.ms"]) {
            // librdkafka refuses to gather a batch for longer than a message lives.
            let linger = self.get("linger.ms").or_else(|| self.get("queue.buffering.max.ms"));
            let linger = linger.and_then(|linger| linger.trim().parse::<f64>().ok()).unwrap_or(5.0);
            let least = if linger.is_finite() && linger > 0.0 { linger.ceil() as u128 + 1 } else { 1 };
            config.set("message.timeout.ms", timeout.max(least).to_string());
        }
        if !self.has(&["topic.metadata.propagation.max.ms"]) {
            config.set("topic.metadata.propagation.max.ms", (timeout / 3).min(10_000).to_string());
        }
        config
    }

    /// For a member of a group.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: offsets are to be stored by themselves.
    pub(super) fn consumer(&self, group: &str) -> Result<ClientConfig> {
        if self.get("enable.auto.offset.store").is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
        {
            let message = "enable.auto.offset.store: offsets are stored by accepting deliveries";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let mut config = self.common();
        config.set("group.id", group).set("enable.auto.offset.store", "false");
        if !self.has(&["auto.offset.reset"]) {
            config.set("auto.offset.reset", "earliest");
        }
        Ok(config)
    }

    /// Whether the brokers are asked to confirm messages.
    pub(super) fn confirms(&self) -> bool {
        let acks = self.get("acks").or_else(|| self.get("request.required.acks"));
        acks.is_none_or(|acks| acks.trim() != "0")
    }
}

/// One server as librdkafka wants it.
fn server(text: &str) -> Result<String, &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("a bracket is not closed")?;
            let is_v6 = host.parse::<std::net::Ipv6Addr>().is_ok();
            (is_v6.then(|| format!("[{host}]")).ok_or("in the brackets is no IPv6 address")?, port)
        }
        None => {
            let at = text.find(':').unwrap_or(text.len());
            let (host, port) = text.split_at_checked(at).unwrap_or((text, ""));
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            if host.is_empty() || !host.chars().all(known) {
                return Err("there is a host without a name, or with one that no host has");
            }
            (host.to_owned(), port)
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => 9092,
        Some(port) => port.parse::<u16>().map_err(|_| "a port is a number up to 65535")?,
        None => return Err("behind the brackets stands something else than a port"),
    };
    Ok(format!("{host}:{port}"))
}

impl FromIterator<(String, String)> for KafkaConfig {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(properties: T) -> Self {
        Self { properties: properties.into_iter().collect(), ..Self::default() }
    }
}

impl Extend<(String, String)> for KafkaConfig {
    fn extend<T: IntoIterator<Item = (String, String)>>(&mut self, properties: T) {
        self.properties.extend(properties);
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Properties<'a>(&'a BTreeMap<String, String>);
        impl fmt::Debug for Properties<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let shown = |(name, value)| (name, if is_secret(name) { "..." } else { value });
                f.debug_map().entries(self.0.iter().map(|(name, value)| shown((name, value.as_str())))).finish()
            }
        }
        f.debug_struct("KafkaConfig")
            .field("properties", &Properties(&self.properties))
            .field("property_mapping", &self.property_mapping)
            .field("connect_timeout", &self.connect_timeout)
            .field("close_deadline", &self.close_deadline)
            .finish()
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for KafkaConfig {
    /// Reads a table of properties.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged, expecting = "a property is a string, a number or a boolean")]
        enum Value {
            Text(String),
            Whole(i64),
            Real(f64),
            Bool(bool),
        }
        let properties = BTreeMap::<String, Value>::deserialize(deserializer)?;
        let text = |(name, value)| match value {
            Value::Text(text) => (name, text),
            Value::Whole(number) => (name, number.to_string()),
            Value::Real(number) => (name, number.to_string()),
            Value::Bool(value) => (name, value.to_string()),
        };
        Ok(properties.into_iter().map(text).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kk1_a_url_is_servers_and_properties() {
        let config =
            KafkaConfig::from_url("kafka://u%3A:p%40ss@h1,h2:9093,[::1]:9094/?client.id=a%26b&acks=1").unwrap();
        assert_eq!(config.get("bootstrap.servers"), Some("h1:9092,h2:9093,[::1]:9094"));
        assert_eq!(config.get("sasl.username"), Some("u:"));
        assert_eq!(config.get("sasl.password"), Some("p@ss"));
        assert_eq!(config.get("client.id"), Some("a&b"));
        for url in [
            "amqp://h",
            "kafka://",
            "kafka://,h",
            "kafka://h:x",
            "kafka://h:65536",
            "kafka://h/topic",
            "kafka://h?x",
            "kafka://h?a=1&a=2",
            "kafka://h#f",
            "kafka://[h]",
            "kafka://[::1]9",
            "kafka://h 1",
            "kafka://h?a=%ff",
            "kafka://u:12?hush=34@h",
            "kafka://u:12?hush@h",
            "kafka://u:12@x?hush=34@h",
            "kafka://u:12@x?34=hush@h",
        ] {
            let error = KafkaConfig::from_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidUrl, "{url}");
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
    }

    /// A login that goes nowhere is no login.
    #[test]
    fn kk1_a_login_that_would_not_be_sent_is_an_error() {
        for url in
            ["kafka://u:hush@h", "kafka://u@h", "kafka://h?sasl.password=hush", "kafka://u:hush@h?sasl.mechanism=PLAIN"]
        {
            let error = KafkaConfig::from_url(url).unwrap().check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{url}");
            let shown = format!("{error} {error:?}");
            assert!(
                shown.contains("security.protocol") && shown.contains("sasl_ssl") && !shown.contains("hush"),
                "{shown}"
            );
        }
        for query in ["security.protocol=sasl_plaintext&sasl.mechanism=PLAIN", "security.protocol=plaintext"] {
            KafkaConfig::from_url(&format!("kafka://u:hush@h?{query}")).unwrap().check().unwrap();
        }
    }

    #[test]
    fn kk1_a_wrong_property_is_named_and_no_secret_is() {
        let good = KafkaConfig::new().set("bootstrap.servers", "h:9092");
        good.check().unwrap();
        assert_eq!(KafkaConfig::new().check().unwrap_err().kind(), ErrorKind::InvalidArgument);
        for (name, value) in [("no.such.thing", "hush1"), ("acks", "hush2"), ("sasl.pasword", "hush"), ("x\0y", "z")] {
            let config = good.clone().set(name, value);
            let error = config.check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(name.contains('\0') || error.to_string().contains(name), "{error}");
            let shown = format!("{error} {error:?} {config:?}");
            assert!(!is_secret(name) || !shown.contains("hush"), "{shown}");
        }
        let shown =
            format!("{:?}", good.set("sasl.password", "hush").set("ssl.key.pem", "hush").set("client.id", "me"));
        assert!(shown.contains("sasl.password") && shown.contains("\"me\"") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn kk3_the_message_timeout_follows_the_senders() {
        let config = KafkaConfig::new();
        let producer = config.producer(Duration::from_secs(2), true);
        assert_eq!(producer.get("message.timeout.ms"), Some("2000"));
        assert_eq!(producer.get("topic.metadata.propagation.max.ms"), Some("666"));
        assert_eq!(producer.get("enable.idempotence"), Some("true"));
        let producer = config.clone().set("linger.ms", "500").producer(Duration::ZERO, false);
        assert_eq!(producer.get("message.timeout.ms"), Some("501"));
        assert_eq!((producer.get("acks"), producer.get("enable.idempotence")), (Some("0"), None));
        let own = config.set("message.timeout.ms", "7").set("acks", "1").producer(Duration::from_secs(2), true);
        assert_eq!((own.get("message.timeout.ms"), own.get("enable.idempotence")), (Some("7"), None));
    }

    #[cfg(feature = "serde")]
    #[test]
    fn kk1_a_table_of_properties_is_a_config() {
        let text = r#"{"bootstrap.servers": "h:9092", "linger.ms": 5, "enable.idempotence": true}"#;
        let config: KafkaConfig = serde_json::from_str(text).unwrap();
        let pairs = [("bootstrap.servers", "h:9092"), ("linger.ms", "5"), ("enable.idempotence", "true")];
        let expected: KafkaConfig =
            pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        assert_eq!(config, expected);
        assert!(serde_json::from_str::<KafkaConfig>(r#"{"a": []}"#).is_err());
    }
}
