//! Logging in: who one is, and how one says it.
//!
//! ```text
//!  client                             server
//!    │        start: mechanisms offered │
//!    │ ◄─────────────────────────────── │
//!    │ start-ok: one of them, and       │   respond(None)
//!    │ its first response               │
//!    │ ───────────────────────────────► │
//!    │               secure: challenge  │ ┐
//!    │ ◄─────────────────────────────── │ │ any number of times
//!    │ secure-ok: response              │ │ respond(Some(challenge))
//!    │ ───────────────────────────────► │ ┘
//!    │                            tune  │
//! ```

use std::fmt;

use bytes::Bytes;

use crate::codec::FieldTable;

/// What a mechanism of one's own may fail with.
pub type SaslError = Box<dyn std::error::Error + Send + Sync>;

/// A user name and a secret. `Debug` shows the name only.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    username: String,
    secret: String,
}

impl Credentials {
    /// A user name with its password or token.
    pub fn new(username: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { username: username.into(), secret: secret.into() }
    }

    /// The user name.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The password or token, for a mechanism of one's own ([`SaslMechanism`]).
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Replaces the password or token.
    pub fn set_secret(&mut self, secret: impl Into<String>) {
        self.secret = secret.into();
    }
}

impl Default for Credentials {
    /// `guest` / `guest`, which RabbitMQ accepts over loopback only.
    fn default() -> Self {
        Self::new("guest", "guest")
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// A way of logging in. [`Sasl`] has those that servers usually offer; a program may bring others.
pub trait SaslMechanism: fmt::Debug + Send + Sync {
    /// The name by which servers offer it.
    fn name(&self) -> &str;

    /// Begins to log in.
    fn start(&self, credentials: &Credentials) -> Box<dyn SaslExchange>;
}

/// One login under way.
///
/// It is asked while the connection is locked, so it has to answer from what it knows, without waiting for anything.
pub trait SaslExchange: Send {
    /// The first response, where there is no challenge yet, or the answer to a challenge.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from answering. It ends the login with an error of the kind `Auth`, which shows this one as its cause:
    /// it should not hold the secret.
    fn respond(&mut self, challenge: Option<&[u8]>) -> Result<Bytes, SaslError>;
}

/// The ways of logging in that are built in.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sasl {
    /// User name and password (RFC 4616).
    Plain,
    /// User name and password in a field table, as AMQP had it before SASL.
    AmqPlain,
    /// The server knows the client already, mostly by its TLS certificate.
    External,
    /// Nobody in particular.
    Anonymous,
    /// RabbitMQ's demonstration of a mechanism in which the server asks for the password. It is no safer than [`Plain`](Self::Plain).
    RabbitCrDemo,
}

impl Sasl {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Plain, Self::AmqPlain, Self::External, Self::Anonymous, Self::RabbitCrDemo];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::AmqPlain => "AMQPLAIN",
            Self::External => "EXTERNAL",
            Self::Anonymous => "ANONYMOUS",
            Self::RabbitCrDemo => "RABBIT-CR-DEMO",
        }
    }

    /// The mechanism with this name, in upper or lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }

    /// The first response.
    pub(crate) fn first_response(self, credentials: &Credentials) -> Bytes {
        let Credentials { username, secret } = credentials;
        match self {
            Self::Plain => format!("\0{username}\0{secret}").into(),
            Self::AmqPlain => {
                let table = FieldTable::new().with("LOGIN", username.as_str()).with("PASSWORD", secret.as_str());
                let mut octets = Vec::new();
                // Names are short and nothing is nested, so this cannot fail; RabbitMQ wants no length before it (c7).
                let _ = table.encode(&mut octets);
                Bytes::from(octets).split_off(4)
            }
            Self::External => Bytes::new(),
            Self::Anonymous => Bytes::from_static(b"leveret"),
            Self::RabbitCrDemo => username.clone().into(),
        }
    }
}

impl SaslMechanism for Sasl {
    fn name(&self) -> &str {
        Self::name(*self)
    }

    fn start(&self, credentials: &Credentials) -> Box<dyn SaslExchange> {
        Box::new(BuiltIn { mechanism: *self, credentials: credentials.clone() })
    }
}

struct BuiltIn {
    mechanism: Sasl,
    credentials: Credentials,
}

impl SaslExchange for BuiltIn {
    fn respond(&mut self, challenge: Option<&[u8]>) -> Result<Bytes, SaslError> {
        match (self.mechanism, challenge) {
            (mechanism, None) => Ok(mechanism.first_response(&self.credentials)),
            (Sasl::RabbitCrDemo, Some(b"Please tell me your password")) => {
                Ok(format!("My password is {}", self.credentials.secret).into())
            }
            (_, Some(_)) => Err("the server asks for more than the mechanism knows".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c7_responses_of_the_mechanisms() {
        let credentials = Credentials::new("u", "p\u{e9}");
        assert_eq!(Sasl::Plain.first_response(&credentials), "\0u\0p\u{e9}");
        assert_eq!(
            Sasl::AmqPlain.first_response(&credentials),
            &b"\x05LOGINS\0\0\0\x01u\x08PASSWORDS\0\0\0\x03p\xc3\xa9"[..]
        );
        assert_eq!(Sasl::External.first_response(&credentials), "", "c9");
    }

    #[test]
    fn c8_a_challenge_is_answered_by_the_one_that_knows_how() {
        let credentials = Credentials::new("u", "hush");
        let mut demo = Sasl::RabbitCrDemo.start(&credentials);
        assert_eq!(demo.respond(None).unwrap(), "u");
        assert_eq!(demo.respond(Some(b"Please tell me your password")).unwrap(), "My password is hush");
        assert!(demo.respond(Some(b"And your shoe size")).is_err());
        assert!(Sasl::Plain.start(&credentials).respond(Some(b"")).is_err());
    }

    #[test]
    fn names_are_found_in_any_case() {
        for mechanism in Sasl::ALL {
            assert_eq!(Sasl::from_name(&mechanism.name().to_lowercase()), Some(mechanism));
        }
        assert_eq!(Sasl::from_name("PLAI"), None);
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Credentials::new("u", "hush")), "Credentials { username: \"u\", .. }");
    }
}
