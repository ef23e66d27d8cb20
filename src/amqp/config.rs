//! Everything that can be said of a connection before there is one, as plain data.

#[cfg(feature = "serde")]
mod plain;
#[cfg(feature = "serde")]
pub(crate) use plain::Span;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Credentials, FieldTable, FieldValue, Sasl, ShortString};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::client::{self as machine, FRAME_MIN, INITIAL_FRAME_MAX, SaslMechanism};

/// How to connect, as data: what a URL can say and what the methods of a [`ConnectionBuilder`](super::ConnectionBuilder) can.
///
/// It can be compared, be the key of a map, and be read from a configuration file (feature `serde`, see below). `Debug` leaves
/// the secrets out. What is not data (a runtime, a stream, a mechanism or a source of credentials of one's own) is told
/// the builder: [`ConnectionBuilder::from`](super::ConnectionBuilder).
///
/// | setting | default |
/// |---|---|
/// | hosts, virtual host | `localhost`, `/` |
/// | port | 5672, or 5671 with TLS |
/// | order | as listed |
/// | credentials | `guest` / `guest` |
/// | mechanisms | PLAIN, then AMQPLAIN |
/// | heartbeat | 60 s |
/// | frame_max | 131072 octets; 8192 at least |
/// | channel_max | 2047 |
/// | connect timeout | 20 s for everything up to `connection.open-ok`, at all hosts together |
/// | attempt timeout | its share of what is left of the connect timeout |
/// | call deadline | 20 s |
/// | close deadline | 10 s |
/// | largest message accepted | 128 MiB |
/// | buffered deliveries | 16 MiB |
/// | unwritten publishes | 1 000 000 octets |
///
/// # From a configuration file
///
/// With the feature `serde` it is a map. Every entry may be left out; an unknown one is an error that lists the known ones.
///
/// | entry | value |
/// |---|---|
/// | `url` | where to begin; the other entries replace what it says |
/// | `host`, `port` | a single server |
/// | `hosts` | or several: `["h1", "h2:5673", "[::1]:5672"]` |
/// | `order` | `as_listed` or `shuffled` |
/// | `username`, `password` | texts |
/// | `virtual_host` or `vhost` | a text |
/// | `mechanisms` | a list of names |
/// | `connection_name`, `client_properties`, `locale` | a text, a map, a text |
/// | `heartbeat`, `connect_timeout`, `attempt_timeout`, `call_deadline`, `close_deadline` | a number of seconds, or `"1m 30s"`, `"250ms"` |
/// | `channel_max`, `frame_max`, `max_message_size`, `max_buffered`, `max_unwritten` | numbers |
/// | `allow_small_frames` | `true` for a `frame_max` of 4096 to 8191 |
/// | `tls` | `true`, or a map: `ca_cert_file`, `cert_file`, `key_file`, `key_password`, `verify_peer`, `server_name` |
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[doc(alias = "OpenConnectionArguments")]
#[doc(alias = "ConnectionFactory")]
pub struct Config {
    /// The servers, any of which will do.
    pub hosts: Vec<Address>,
    /// Which of them comes first.
    pub order: HostOrder,
    /// TLS, if so, and how.
    pub tls: Option<TlsParameters>,
    /// Who logs in.
    pub credentials: Credentials,
    /// How to log in, in the order of preference; the first that the server offers is taken.
    pub mechanisms: Vec<Sasl>,
    /// The virtual host.
    pub virtual_host: ShortString,
    /// What the client tells of itself; product, version, platform and capabilities are added where they are missing.
    pub client_properties: FieldTable,
    /// The locale for reply texts.
    pub locale: ShortString,
    /// Heartbeat interval in seconds, 0 for none. A server that is blocked (`connection.blocked`), and leaves a million octets and more of acks
    /// unread, is not taken for dead while it does.
    pub heartbeat: u16,
    /// Largest frame in octets, 0 for as large as the server allows.
    pub frame_max: u32,
    /// Whether `frame_max` may be under 8192.
    pub allow_small_frames: bool,
    /// How many channels may be open, 0 for as many as the server allows.
    pub channel_max: u16,
    /// How long connecting may take, at all hosts together.
    pub connect_timeout: Duration,
    /// How long connecting may take at one address, from its first octet to `connection.open-ok`.
    pub attempt_timeout: Option<Duration>,
    /// How long requests wait for their replies, unless they say otherwise.
    pub call_deadline: Duration,
    /// How long closing may wait for the server.
    pub close_deadline: Duration,
    /// The largest message accepted from the server, in octets.
    pub max_message_size: u64,
    /// How many octets of deliveries may wait for their consumers.
    pub max_buffered: usize,
    /// How many octets may wait to be written before publishing waits.
    pub max_unwritten: usize,
}

impl Default for Config {
    fn default() -> Self {
        let machine = machine::Config::default();
        Self {
            hosts: vec![Address::default()],
            order: HostOrder::AsListed,
            tls: None,
            credentials: machine.credentials,
            mechanisms: vec![Sasl::Plain, Sasl::AmqPlain],
            virtual_host: machine.virtual_host,
            client_properties: machine.client_properties,
            locale: machine.locale,
            heartbeat: machine.heartbeat,
            frame_max: machine.frame_max,
            allow_small_frames: false,
            channel_max: machine.channel_max,
            connect_timeout: Duration::from_secs(20),
            attempt_timeout: None,
            call_deadline: Duration::from_secs(20),
            close_deadline: Duration::from_secs(10),
            max_message_size: machine.max_message_size,
            max_buffered: machine.max_buffered,
            max_unwritten: machine.max_unwritten,
        }
    }
}

impl Config {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The port of a host that names none.
    pub fn default_port(&self) -> u16 {
        if self.tls.is_some() { 5671 } else { 5672 }
    }

    /// Whether these settings make sense together, before anybody is bothered with them.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::new(ErrorKind::InvalidArgument, message));
        let least = if self.allow_small_frames { FRAME_MIN } else { INITIAL_FRAME_MAX };
        if self.frame_max != 0 && self.frame_max < FRAME_MIN {
            return wrong(format!("frame_max is {FRAME_MIN} octets at least, or 0"));
        }
        if self.frame_max != 0 && self.frame_max < least {
            return wrong(format!(
                "frame_max is {least} octets at least, or 0: RabbitMQ 4.1 and later refuse less. For another server \
                 allow_small_frames lets it be {FRAME_MIN}"
            ));
        }
        if self.max_buffered == 0 || self.max_unwritten == 0 {
            return wrong(
                "max_buffered and max_unwritten are 1 octet at least: with 0 nothing would be read, or published"
                    .into(),
            );
        }
        if self.hosts.is_empty() {
            return wrong("there is no host to connect to".into());
        }
        // An IPv6 address has more of them. What stands there instead of a host may have a password in it, and is not repeated.
        let odd = |host: &str| host.contains("://") || host.matches(':').count() == 1;
        if self.hosts.iter().any(|address| odd(&address.host)) {
            return wrong(
                "a host is a name or an IP address alone: the port is said by itself, and a URL as a URL".into(),
            );
        }
        if let Some(tls) = &self.tls {
            tls.check()?;
        }
        Ok(())
    }

    /// c16: a secret that no server would read is refused here already. A mechanism that is not built in may need less.
    pub(crate) fn check_login(&self, machine: &machine::Config) -> Result<()> {
        let responses = self.mechanisms.iter().map(|mechanism| mechanism.first_response(&machine.credentials).len());
        match responses.min() {
            Some(least) if machine.mechanisms.len() == self.mechanisms.len() => machine.check_login(least),
            _ => Ok(()),
        }
    }

    /// What the machine has to know; `custom` mechanisms come before those that are built in.
    pub(crate) fn machine(&self, credentials: Credentials, custom: &[Arc<dyn SaslMechanism>]) -> machine::Config {
        let built_in = self.mechanisms.iter().map(|mechanism| Arc::new(*mechanism) as Arc<dyn SaslMechanism>);
        machine::Config {
            credentials,
            mechanisms: custom.iter().cloned().chain(built_in).collect(),
            virtual_host: self.virtual_host.clone(),
            heartbeat: self.heartbeat,
            frame_max: self.frame_max,
            channel_max: self.channel_max,
            client_properties: self.client_properties.clone(),
            locale: self.locale.clone(),
            max_message_size: self.max_message_size,
            max_buffered: self.max_buffered,
            max_unwritten: self.max_unwritten,
        }
    }
}

// ------------------------------------------------------------------------------------------------------ setting them

/// The settings, each as a method: for the config, and for the builder that holds one.
macro_rules! settings {
    ($make:ident) => {
        $make! {
            /// A single server: a host name or an IP address, without brackets. The port stays as it was.
            fn host(config, host: impl Into<String>) {
                let port = config.hosts.first().and_then(|address| address.port);
                config.hosts = vec![Address { host: host.into(), port }];
            }

            /// The port, of every host.
            fn port(config, port: u16) {
                config.hosts.iter_mut().for_each(|address| address.port = Some(port));
            }

            /// Several servers, any of which will do. They are tried one after the other until one lets the client in; see
            /// [`Connection::open`](crate::amqp::Connection::open).
            fn hosts(config, hosts: impl IntoIterator<Item = Address>) {
                config.hosts = hosts.into_iter().collect();
            }

            /// Which host comes first, and which address where a name has several.
            fn order(config, order: HostOrder) {
                config.order = order;
            }

            /// Who logs in.
            #[doc(alias = "username")]
            #[doc(alias = "password")]
            #[doc(alias = "PlainCredentials")]
            fn credentials(config, credentials: Credentials) {
                config.credentials = credentials;
            }

            /// How to log in, in the order of preference.
            fn mechanisms(config, mechanisms: impl IntoIterator<Item = Sasl>) {
                config.mechanisms = mechanisms.into_iter().collect();
            }

            /// The virtual host.
            fn virtual_host(config, name: impl Into<ShortString>) {
                config.virtual_host = name.into();
            }

            /// The connection's name in the server's management pages.
            fn connection_name(config, name: impl Into<String>) {
                config.client_properties.insert("connection_name", name.into());
            }

            /// Something else to tell the server of this client.
            fn client_property(config, name: impl Into<ShortString>, value: impl Into<FieldValue>) {
                config.client_properties.insert(name, value);
            }

            /// All that the server is told of this client, in place of what was said so far. Product, version, platform and
            /// capabilities are added where they are missing.
            fn client_properties(config, properties: FieldTable) {
                config.client_properties = properties;
            }

            /// The locale for reply texts, `en_US` unless said otherwise; no known server has another.
            fn locale(config, locale: impl Into<ShortString>) {
                config.locale = locale.into();
            }

            /// Heartbeat interval in whole seconds, 0 for none. If the server proposes a lower one, that holds. Under 5 s a busy
            /// machine is easily taken for a dead one, and a warning is logged when the connection opens.
            fn heartbeat(config, seconds: u16) {
                config.heartbeat = seconds;
            }

            /// Largest frame in octets, 0 for as large as the server allows. Under 8192, which RabbitMQ 4.1 and later refuse, only
            /// together with [`allow_small_frames`](Self::allow_small_frames).
            fn frame_max(config, octets: u32) {
                config.frame_max = octets;
            }

            /// Lets `frame_max` be as small as the specification allows: 4096.
            fn allow_small_frames(config) {
                config.allow_small_frames = true;
            }

            /// How many channels may be open, 0 for as many as the server allows.
            fn channel_max(config, channels: u16) {
                config.channel_max = channels;
            }

            /// How long connecting may take, from the first name's resolution to `connection.open-ok`, at all hosts together.
            fn connect_timeout(config, limit: Duration) {
                config.connect_timeout = limit;
            }

            /// How long connecting may take at one address. Unless it is set, each gets its share of what is left of the connect timeout,
            /// so that a host that does not answer leaves time for the others.
            fn attempt_timeout(config, limit: Duration) {
                config.attempt_timeout = Some(limit);
            }

            /// How long requests wait for their replies, and publishes for room, unless they say otherwise.
            fn call_deadline(config, limit: Duration) {
                config.call_deadline = limit;
            }

            /// How long closing may wait for the server before the socket is simply closed.
            fn close_deadline(config, limit: Duration) {
                config.close_deadline = limit;
            }

            /// The largest message accepted from the server, in octets. A larger one ends the connection.
            fn max_message_size(config, octets: u64) {
                config.max_message_size = octets;
            }

            /// How many octets of deliveries may wait for their consumers. Beyond it the socket is not read until they catch up. 1 at least.
            fn max_buffered(config, octets: usize) {
                config.max_buffered = octets;
            }

            /// How many octets may wait to be written before publishing waits. Acks and requests never do: a server that sends
            /// and does not read is not read any more itself. 1 at least.
            fn max_unwritten(config, octets: usize) {
                config.max_unwritten = octets;
            }
        }
    };
}

pub(crate) use settings;

macro_rules! methods {
    ($( $(#[$doc:meta])* fn $name:ident($config:ident $(, $argument:ident: $type:ty)*) $body:block )*) => {
        impl Config {$(
            $(#[$doc])*
            #[must_use]
            pub fn $name(self $(, $argument: $type)*) -> Self {
                let mut $config = self;
                $body
                $config
            }
        )*}
    };
}

settings!(methods);

// ----------------------------------------------------------------------------------------------------------- its parts

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// A host name, or an IP address without brackets.
    pub host: String,
    /// The port; `None` for 5672, or 5671 with TLS.
    pub port: Option<u16>,
}

impl Address {
    /// A host name or an IP address without brackets, and its port.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port: Some(port) }
    }
}

impl Default for Address {
    /// `localhost`.
    fn default() -> Self {
        Self { host: "localhost".into(), port: None }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.contains(':'), self.port) {
            (true, None) => write!(f, "[{}]", self.host),
            (false, None) => f.write_str(&self.host),
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
        }
    }
}

/// Which of several hosts, and of several addresses of a name, is tried first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum HostOrder {
    /// The first first: the others are there for when it fails.
    #[default]
    AsListed,
    /// Any: many clients spread over all of them.
    Shuffled,
}

/// How TLS is to be done, as a URL or a configuration file says it.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
pub struct TlsParameters {
    /// A PEM file with the authorities to trust, and no others; without it those of the system.
    pub ca_cert_file: Option<PathBuf>,
    /// A PEM file with the client's certificate and its chain.
    pub cert_file: Option<PathBuf>,
    /// A PEM file with the key of the client's certificate.
    pub key_file: Option<PathBuf>,
    /// What the key is encrypted with. Encrypted keys are not supported yet: they are an error that says how to decrypt them.
    pub key_password: Option<Secret>,
    /// Whether the server's certificate is looked at. Without that, anybody on the way can read and change everything.
    pub verify_peer: bool,
    /// The name to ask for and to find in the certificate, in place of the host's.
    pub server_name: Option<String>,
}

impl Default for TlsParameters {
    fn default() -> Self {
        Self {
            ca_cert_file: None,
            cert_file: None,
            key_file: None,
            key_password: None,
            verify_peer: true,
            server_name: None,
        }
    }
}

/// What a URL can say, to go on from.
#[cfg(feature = "tls-core")]
impl From<&TlsParameters> for super::TlsConfig {
    fn from(parameters: &TlsParameters) -> Self {
        // A key that is encrypted is an error there, with or without what it is encrypted with.
        let TlsParameters { ca_cert_file, cert_file, key_file, key_password: _, verify_peer, server_name } = parameters;
        let mut tls = Self::new();
        if let Some(file) = ca_cert_file {
            tls = tls.root_file(file);
        }
        if let (Some(certificates), Some(key)) = (cert_file, key_file) {
            tls = tls.client_certificate_files(certificates, key);
        }
        if let Some(name) = server_name {
            tls = tls.server_name(name);
        }
        if *verify_peer { tls } else { tls.danger_accept_any_certificate() }
    }
}

impl TlsParameters {
    fn check(&self) -> Result<()> {
        let message = match (&self.cert_file, &self.key_file) {
            (Some(_), None) => "a client certificate needs its key: there is a certfile and no keyfile",
            (None, Some(_)) => "a key needs its certificate: there is a keyfile and no certfile",
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::InvalidArgument, message))
    }
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn kb3_a_config_is_the_key_of_a_map() {
        let config = |password: &str| Config::new().credentials(Credentials::new("u", password)).host("h");
        let mut pools = HashMap::new();
        pools.insert(config("a"), 1);
        pools.insert(config("b"), 2);
        assert_eq!((pools.get(&config("a")), pools.get(&config("b"))), (Some(&1), Some(&2)));
        assert_eq!(pools.get(&config("a").client_property("x", FieldValue::F64(f64::NAN))), None);
    }

    #[test]
    fn kb2_the_port_follows_tls() {
        assert_eq!(Config::new().default_port(), 5672);
        assert_eq!(Config::from_url("amqps://h").unwrap().default_port(), 5671);
    }

    #[test]
    fn c15_small_frames_are_asked_for_explicitly() {
        let refused = |config: Config| config.check().is_err_and(|error| error.kind() == ErrorKind::InvalidArgument);
        assert!(refused(Config::new().frame_max(4095).allow_small_frames()));
        assert!(refused(Config::new().frame_max(4096)));
        assert!(refused(Config::new().frame_max(8191)));
        assert!(!refused(Config::new().frame_max(4096).allow_small_frames()));
        assert!(!refused(Config::new().frame_max(8192)));
        assert!(!refused(Config::new().frame_max(0)));
        assert!(refused(Config::new().hosts([])));
    }

    #[test]
    fn kb2_a_certificate_needs_its_key() {
        let tls = |tls: TlsParameters| Config { tls: Some(tls), ..Config::new() }.check();
        let file = || Some(PathBuf::from("x.pem"));
        let error = tls(TlsParameters { cert_file: file(), ..TlsParameters::default() }).unwrap_err();
        assert!(error.to_string().contains("no keyfile"), "{error}");
        let error = tls(TlsParameters { key_file: file(), ..TlsParameters::default() }).unwrap_err();
        assert!(error.to_string().contains("no certfile"), "{error}");
        tls(TlsParameters { cert_file: file(), key_file: file(), ..TlsParameters::default() }).unwrap();
    }

    #[test]
    fn a_host_is_no_url_and_has_no_port() {
        for host in ["h:5672", "amqp://h", "amqps://u:hush@h:5671/%2f"] {
            let error = Config::new().host(host).check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains("port") && !error.to_string().contains("hush"), "{error}");
        }
        for host in ["h", "127.0.0.1", "::1", "fe80::1%lo"] {
            Config::new().host(host).check().unwrap();
        }
    }

    #[test]
    fn addresses_are_written_as_they_are_read() {
        for text in ["h", "h:1", "[::1]", "[::1]:5672", "127.0.0.1:1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "h:", "h:x", "::1", "[::1", "[::1]x", "a b", "h:70000", "u@h"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn c16_a_token_that_no_server_would_read_is_refused() {
        let login = |secret: usize, mechanisms: &[Sasl]| {
            let config = Config::new().mechanisms(mechanisms.iter().copied());
            let machine = config.machine(Credentials::new("u", "x".repeat(secret)), &[]);
            config.check_login(&machine)
        };
        login(7500, &[Sasl::Plain]).unwrap();
        let error = login(8192, &[Sasl::Plain, Sasl::AmqPlain]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("8192") && !error.to_string().contains("xx"), "{error}");
        login(9000, &[Sasl::External]).unwrap();
        login(9000, &[Sasl::Plain, Sasl::External]).unwrap();
    }
}
