//! Who a client says it is: the SASL mechanisms of AMQP 0-9-1, read.

use std::fmt;

use bytes::Bytes;

use crate::codec::{FieldTable, FieldValue, ShortString};

/// RabbitMQ's demonstration of a mechanism that asks back (c8): the response to start is the user, the rest follows.
pub(super) const CR_DEMO: &str = "RABBIT-CR-DEMO";
pub(super) const CR_DEMO_CHALLENGE: &[u8] = b"Please tell me your password";
pub(super) const CR_DEMO_ANSWER: &[u8] = b"My password is ";

/// What a client's `connection.start-ok` says.
#[derive(Clone, Debug)]
pub struct Login {
    /// The mechanism it chose, one of those offered.
    pub mechanism: ShortString,
    /// Who it says it is.
    pub credentials: Credentials,
    /// What it says of itself.
    pub client_properties: FieldTable,
}

/// What a SASL mechanism says of the client.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// PLAIN, AMQPLAIN or RABBIT-CR-DEMO.
    Password {
        /// The user.
        user: Bytes,
        /// The password.
        password: Bytes,
    },
    /// EXTERNAL: whoever the transport says; the client may name somebody, too (c9).
    External(Bytes),
    /// ANONYMOUS, with a trace of the client's choice.
    Anonymous(Bytes),
}

impl Credentials {
    /// Reads the response of a mechanism. `None` when there is no such mechanism; an error when the response is not one of
    /// its own.
    pub(super) fn parse(mechanism: &[u8], response: &Bytes) -> Option<Result<Self, Malformed>> {
        Some(match mechanism {
            b"PLAIN" => plain(response),
            b"AMQPLAIN" => amqplain(response),
            b"EXTERNAL" => Ok(Self::External(response.clone())),
            b"ANONYMOUS" => Ok(Self::Anonymous(response.clone())),
            _ => return None,
        })
    }
}

/// A response that does not follow its mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Identity to act for (ignored), NUL, user, NUL, password (RFC 4616, c7).
fn plain(response: &Bytes) -> Result<Credentials, Malformed> {
    let mut parts = response.splitn(3, |octet| *octet == 0);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(user), Some(password)) if !password.contains(&0) => {
            Ok(Credentials::Password { user: response.slice_ref(user), password: response.slice_ref(password) })
        }
        _ => Err(Malformed),
    }
}

/// The entries of a table without the length before them (c7).
fn amqplain(response: &Bytes) -> Result<Credentials, Malformed> {
    let table = FieldTable::decode(response).map_err(|_| Malformed)?;
    match (table.get("LOGIN"), table.get("PASSWORD")) {
        (Some(FieldValue::LongString(user)), Some(FieldValue::LongString(password))) => {
            Ok(Credentials::Password { user: user.clone(), password: password.clone() })
        }
        _ => Err(Malformed),
    }
}

impl fmt::Debug for Credentials {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password {{ user: {:?}, .. }}", String::from_utf8_lossy(user)),
            Self::External(identity) => write!(f, "External({:?})", String::from_utf8_lossy(identity)),
            Self::Anonymous(_) => f.write_str("Anonymous"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest() -> Credentials {
        Credentials::Password { user: "guest".into(), password: "secret".into() }
    }

    #[test]
    fn c7_plain_and_amqplain() {
        assert_eq!(Credentials::parse(b"PLAIN", &"\0guest\0secret".into()), Some(Ok(guest())));
        assert_eq!(Credentials::parse(b"PLAIN", &"guest".into()), Some(Err(Malformed)));
        assert_eq!(Credentials::parse(b"PLAIN", &"\0a\0b\0c".into()), Some(Err(Malformed)));

        let mut table = Vec::new();
        FieldTable::new().with("LOGIN", "guest").with("PASSWORD", "secret").encode(&mut table).unwrap();
        let with_length = Bytes::from(table);
        assert_eq!(Credentials::parse(b"AMQPLAIN", &with_length.slice(4..)), Some(Ok(guest())));
        assert_eq!(Credentials::parse(b"AMQPLAIN", &with_length), Some(Err(Malformed)), "with its length");
    }

    #[test]
    fn a_password_is_never_shown() {
        assert!(!format!("{:?}", guest()).contains("secret"));
    }

    #[test]
    fn c9_external_may_be_empty() {
        assert_eq!(Credentials::parse(b"EXTERNAL", &Bytes::new()), Some(Ok(Credentials::External(Bytes::new()))));
        assert_eq!(Credentials::parse(b"CRAM-MD5", &Bytes::new()), None);
    }
}
